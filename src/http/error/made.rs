//! Errors of each kind, for the tests of applications.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::{BalanceError, Error, Failure, Kind, NoFirstByte, Outcome, RuntimeEnded, Wait};
use crate::{endpoint::Endpoint, error::BoxError};

/// Errors of each kind for tests (feature `test-util`), to see what an application does about them.
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
impl Error {
    /// The request makes no sense: [`is_request`](Self::is_request).
    pub fn fake_request(why: impl fmt::Display) -> Self {
        Self::request(why)
    }

    /// The request is for another service: [`is_foreign`](Self::is_foreign). Each argument is a scheme and an
    /// authority, such as `http://other`.
    pub fn fake_foreign(other: &str, service: &str) -> Self {
        let (other, service) = (other.to_owned(), service.to_owned());
        Kind::Foreign { other, service }.into()
    }

    /// Converts a balancer's error as the client does. [`is_no_endpoints`](Self::is_no_endpoints),
    /// [`is_unreachable`](Self::is_unreachable), [`is_absent`](Self::is_absent), [`is_gone`](Self::is_gone),
    /// [`is_timeout`](Self::is_timeout), [`is_closed`](Self::is_closed) and [`is_no_runtime`](Self::is_no_runtime) stay
    /// the same.
    pub fn fake_balance(error: BalanceError) -> Self {
        Self::balance(error)
    }

    /// The service has no pods: [`is_no_endpoints`](Self::is_no_endpoints).
    pub fn fake_no_endpoints() -> Self {
        Self::balance(BalanceError::fake_no_endpoints())
    }

    /// None of `endpoints` pods accepts requests, and `last` was the last to refuse:
    /// [`is_unreachable`](Self::is_unreachable).
    pub fn fake_unreachable(endpoints: usize, last: Endpoint, why: impl Into<BoxError>) -> Self {
        Self::balance(BalanceError::fake_unreachable(endpoints, last, why))
    }

    /// The one pod that the request is for refuses: [`is_unreachable`](Self::is_unreachable).
    pub fn fake_pod_unreachable(pod: Endpoint, why: impl Into<BoxError>) -> Self {
        Self::balance(BalanceError::fake_pod_unreachable(pod, why))
    }

    /// The one pod that the request is for isn't there: [`is_absent`](Self::is_absent).
    pub fn fake_absent(pod: &str) -> Self {
        Self::balance(BalanceError::fake_absent(pod))
    }

    /// A pod of a broadcast has left: [`is_gone`](Self::is_gone).
    pub fn fake_gone(pod: Endpoint) -> Self {
        Self::balance(BalanceError::fake_gone(pod))
    }

    /// The client is closed: [`is_closed`](Self::is_closed).
    pub fn fake_closed() -> Self {
        Self::balance(BalanceError::fake_closed())
    }

    /// There is no runtime: [`is_no_runtime`](Self::is_no_runtime).
    pub fn fake_no_runtime() -> Self {
        Self::balance(BalanceError::fake_no_runtime())
    }

    /// The session's pod isn't there, and the session is strict: [`is_session_lost`](Self::is_session_lost).
    #[cfg(feature = "sessions")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "sessions", feature = "test-util"))))]
    pub fn fake_session_lost(pod: &str) -> Self {
        Self::fake_absent(pod).of_session(pod.into())
    }

    /// The pod failed before its response, and `is_unexecuted` says whether the protocol rules out that it executed the
    /// request: [`is_endpoint`](Self::is_endpoint).
    pub fn fake_endpoint(pod: Endpoint, is_unexecuted: bool, source: impl Into<BoxError>) -> Self {
        let outcome = match is_unexecuted {
            true => Outcome::Unprocessed,
            false => Outcome::Unknown,
        };
        let source = source.into();
        Self::balance(BalanceError::fake_endpoint(
            pod,
            Failure { outcome, source },
        ))
    }

    /// The pod sent no byte of its response in this time: [`is_endpoint`](Self::is_endpoint),
    /// [`is_timeout`](Self::is_timeout).
    pub fn fake_first_byte_timeout(pod: Endpoint, after: Duration) -> Self {
        Self::fake_endpoint(pod, false, NoFirstByte(after))
    }

    /// The pod has not answered within the request's timeout: [`is_timeout`](Self::is_timeout).
    pub fn fake_timeout(pod: Endpoint, after: Duration) -> Self {
        Self::unanswered(Some(pod), after)
    }

    /// The request was not sent within its timeout; `why` says what it waited for: [`is_timeout`](Self::is_timeout) and
    /// [`is_unexecuted`](Self::is_unexecuted).
    pub fn fake_unsent_timeout(after: Duration, why: BalanceError) -> Self {
        let service = why.shared_service().cloned();
        let error = Self::not_sent(after, Wait::Pod(why.so_far()), false);
        error.of_service(service.as_ref())
    }

    /// The response did not end within the request's timeout: [`is_timeout`](Self::is_timeout).
    pub fn fake_body_timeout(pod: Endpoint, after: Duration) -> Self {
        Self::unended(Some(pod), after)
    }

    /// The request's own body failed: [`is_request_body`](Self::is_request_body).
    pub fn fake_request_body(source: impl Into<BoxError>) -> Self {
        Kind::RequestBody(source.into()).into()
    }

    /// The pod failed while it sent its response: [`is_body`](Self::is_body).
    pub fn fake_body(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        Self::body(Some(pod), source)
    }

    /// The runtime that drove the response's connection has ended: [`is_body`](Self::is_body).
    pub fn fake_cut_off(pod: Endpoint) -> Self {
        Self::cut_off(Some(pod), RuntimeEnded)
    }

    /// The response is larger than the client reads: [`is_limit`](Self::is_limit).
    pub fn fake_limit(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        Self::limit(Some(pod), source)
    }

    /// The answer's status is an error: [`is_status`](Self::is_status).
    pub fn fake_status(pod: Endpoint, status: StatusCode) -> Self {
        Self::answered(Some(pod), status)
    }

    /// The response's body isn't JSON, or is JSON of another type: [`is_decode`](Self::is_decode).
    #[cfg(feature = "json")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "json", feature = "test-util"))))]
    pub fn fake_decode(pod: Endpoint, why: &str) -> Self {
        Self::decode(Some(pod), why.to_owned())
    }

    /// A layer around the client failed the request: [`is_layer`](Self::is_layer).
    pub fn fake_layer(source: impl Into<BoxError>) -> Self {
        Self::layer(source)
    }

    /// Sets the [service](Self::service) that the error names.
    pub fn with_service(self, service: &str) -> Self {
        self.of_service(Some(&service.into()))
    }
}
