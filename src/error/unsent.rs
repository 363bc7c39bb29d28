//! [`Unsent`]: how an endpoint's service hands back a request that it has not sent.

use std::{error::Error as StdError, fmt};

use tower::BoxError;

use crate::sync::Mutex;

/// The error with which an endpoint's service hands back a request that it has *not* sent.
///
/// If a service fails before it writes the first byte of a request (for example, because the connection turned out to
/// be closed), it can return this error, alone or boxed. The balancer then takes the request to another endpoint, and
/// the caller doesn't notice. Any service can do so; the request needs no `Clone`.
///
/// ```
/// use tower_headless::{BoxError, Unsent};
///
/// fn connection_was_closed(request: String) -> BoxError {
///     Unsent::new(request, "connection closed").into()
/// }
/// # assert!(connection_was_closed("GET".into()).downcast::<Unsent<String>>().is_ok());
/// ```
pub struct Unsent<Req> {
    // The `Mutex` makes the error `Sync`, as `BoxError` requires, even if the request isn't. It is never locked.
    request: Mutex<Req>,
    source: BoxError,
}

impl<Req> Unsent<Req> {
    /// Hands `request` back because of `source`.
    pub fn new(request: Req, source: impl Into<BoxError>) -> Self {
        Self {
            request: Mutex::new(request),
            source: source.into(),
        }
    }

    /// The request, and why it could not be sent.
    pub fn into_parts(self) -> (Req, BoxError) {
        (self.request.into_inner(), self.source)
    }
}

impl<Req> fmt::Debug for Unsent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<Req> fmt::Display for Unsent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl<Req> StdError for Unsent<Req> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}
