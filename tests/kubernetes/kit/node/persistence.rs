//! Requests to an API server that may be away.

use std::time::Duration;

use kube::{Error, core::Status};
use tokio::time::sleep;

/// The pause between attempts while the API server is away.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Whether a request about a pod has reached the API server. If not, waits for a moment; then the caller must repeat
/// it.
///
/// The request may be out of date by then: the pod is gone (404), another one has its name (409 or 422), or it was
/// already done (409).
///
/// # Panics
///
/// If the request is wrong.
pub(super) async fn is_heard<T>(answer: Result<T, Error>) -> bool {
    match answer {
        Ok(_) => return true,
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => return true,
        Err(Error::Api(status)) if is_of_another_pod(&status) => return true,
        Err(Error::Api(status)) if matches!(status.code, 400..429) => panic!("{status:?}"),
        Err(_) => sleep(PAUSE).await,
    }
    false
}

/// Whether another pod has the name by now, so that a request about the old UID doesn't apply.
fn is_of_another_pod(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields = causes.map(|cause| cause.field.as_str());
    fields.any(|field| field == "metadata.uid")
}
