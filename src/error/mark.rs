//! Errors that mark what an endpoint service's failure means to the balancer.

use std::{error::Error as StdError, io, time::Duration};

use tower::BoxError;

use super::kind::SharedError;

/// Marks a failure after which the endpoint is passed over, like one that refuses, until it has answered a trial
/// request.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "only the HTTP client makes one")
)]
pub(crate) enum Suspect {
    #[error(transparent)]
    Refuses(BoxError),
    /// It hasn't answered in time.
    #[error(transparent)]
    Late(BoxError),
}

impl Suspect {
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Late(_))
    }

    pub(crate) fn into_inner(self) -> BoxError {
        match self {
            Self::Refuses(error) | Self::Late(error) => error,
        }
    }
}

/// Marks a request that the endpoint refused without processing it: it is overloaded, or takes no requests at all.
///
/// The endpoint accepted the connection, but refuses requests on it (HTTP/2's `REFUSED_STREAM`).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refused(pub(crate) BoxError);

/// An endpoint's service has had no room for a request for this time. It is not a refusal: if it is polled again, the
/// request keeps its place in the queue.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Busy {
    pub(crate) why: SharedError,
    pub(crate) waited: Duration,
}

/// There is no runtime that an endpoint's service could go on in. It says nothing about the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("no tokio runtime: await the response in a task of one")]
pub(crate) struct NoRuntime;

/// The endpoint service's own error, without the mark that tells the balancer what it means.
#[cfg(feature = "http")]
pub(crate) fn unmarked(error: &BoxError) -> &BoxError {
    if let Some(Suspect::Refuses(error) | Suspect::Late(error)) = error.downcast_ref() {
        return error;
    }
    match error.downcast_ref() {
        Some(Refused(error)) => error,
        None => error,
    }
}

/// An error that tells by its kind that a time limit is over: see [`is_timeout`].
pub(crate) fn timed_out(error: impl Into<BoxError>) -> BoxError {
    io::Error::new(io::ErrorKind::TimedOut, error).into()
}

/// Whether the error, or one of its causes, is that a time limit is over: the system's, or one of tokio's timers.
pub(crate) fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
            || error.is::<tokio::time::error::Elapsed>()
        {
            return true;
        }
        next = error.source();
    }
    false
}
