//! Waits with a time limit.

use std::{panic::Location, time::Duration};

/// How long the waits of this module last before they panic: 30 s.
///
/// That is far more than any of them takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `event`, so that a bug fails a test instead of hanging it.
///
/// # Panics
///
/// If `event` doesn't come within [`PATIENCE`]. The message says `what` was missed, and where `within` was called.
#[track_caller]
pub fn within<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    within_at(Location::caller(), what, event)
}

/// Like [`within`], for a wait that `caller` began.
pub(super) async fn within_at<T>(
    caller: &Location<'_>,
    what: &str,
    event: impl Future<Output = T>,
) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{caller}: {what} didn't come within {PATIENCE:?}"),
    }
}
