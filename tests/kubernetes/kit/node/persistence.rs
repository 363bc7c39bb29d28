//! Requests to an API server that may be away.

use std::time::Duration;

use kube::{Error, core::Status};
use tokio::time::sleep;

/// How long until we try again while the API server is away.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Whether the API server has heard a request about a pod. If not, this waits for a moment: it is to be repeated.
///
/// It may be out of date by then: the pod has gone (404), or another one has its name (409 or 422), or it has been done
/// already (409).
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

/// Another pod has the name by now: what was said of the one with that unique ID doesn't apply.
fn is_of_another_pod(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields = causes.map(|cause| cause.field.as_str());
    fields.any(|field| field == "metadata.uid")
}
