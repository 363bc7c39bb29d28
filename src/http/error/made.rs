//! Errors made by hand, for the tests of applications: one of each kind.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::{BalanceError, Error, Failure, Kind, NoFirstByte, Outcome, RuntimeEnded, Wait};
use crate::{endpoint::Endpoint, error::BoxError};

/// Made by hand (feature `test-util`): one of each kind, so that tests can see what an application does about it.
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
impl Error {
    /// The request makes no sense: [`is_request`](Self::is_request).
    pub fn fake_request(why: impl fmt::Display) -> Self {
        Self::request(why)
    }

    /// The request is for another service, each a scheme and an authority: [`is_foreign`](Self::is_foreign).
    pub fn fake_foreign(other: &str, service: &str) -> Self {
        let (other, service) = (other.to_owned(), service.to_owned());
        Kind::Foreign { other, service }.into()
    }

    /// What the client makes of the balancer's error: [`is_no_endpoints`](Self::is_no_endpoints),
    /// [`is_unreachable`](Self::is_unreachable), [`is_absent`](Self::is_absent), [`is_gone`](Self::is_gone),
    /// [`is_timeout`](Self::is_timeout), [`is_closed`](Self::is_closed), [`is_no_runtime`](Self::is_no_runtime) as that is.
    pub fn fake_balance(error: BalanceError) -> Self {
        Self::balance(error)
    }

    /// The service has no pods: [`is_no_endpoints`](Self::is_no_endpoints).
    pub fn fake_no_endpoints() -> Self {
        Self::balance(BalanceError::fake_no_endpoints())
    }

    /// None of so many pods accepts requests, and `last` has refused last: [`is_unreachable`](Self::is_unreachable).
    pub fn fake_unreachable(endpoints: usize, last: Endpoint, why: impl Into<BoxError>) -> Self {
        Self::balance(BalanceError::fake_unreachable(endpoints, last, why))
    }

    /// The one pod that was asked for refuses: [`is_unreachable`](Self::is_unreachable).
    pub fn fake_pod_unreachable(pod: Endpoint, why: impl Into<BoxError>) -> Self {
        Self::balance(BalanceError::fake_pod_unreachable(pod, why))
    }

    /// The one pod that was asked for isn't there: [`is_absent`](Self::is_absent).
    pub fn fake_absent(pod: &str) -> Self {
        Self::balance(BalanceError::fake_absent(pod))
    }

    /// A broadcast's pod has left: [`is_gone`](Self::is_gone).
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

    /// The pod failed before its response, and the protocol says whether it may have executed the request:
    /// [`is_endpoint`](Self::is_endpoint).
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

    /// The pod had sent no byte of its response in this time: [`is_endpoint`](Self::is_endpoint),
    /// [`is_timeout`](Self::is_timeout).
    pub fn fake_first_byte_timeout(pod: Endpoint, after: Duration) -> Self {
        Self::fake_endpoint(pod, false, NoFirstByte(after))
    }

    /// The pod has not answered in the time of the request: [`is_timeout`](Self::is_timeout).
    pub fn fake_timeout(pod: Endpoint, after: Duration) -> Self {
        Self::unanswered(Some(pod), after)
    }

    /// The request was not sent in its time, in which it waited for what `why` tells: [`is_timeout`](Self::is_timeout) and
    /// [`is_unexecuted`](Self::is_unexecuted).
    pub fn fake_unsent_timeout(after: Duration, why: BalanceError) -> Self {
        let service = why.shared_service().cloned();
        let error = Self::not_sent(after, Wait::Pod(why.so_far()), false);
        error.of_service(service.as_ref())
    }

    /// The response had no end in the time of the request: [`is_timeout`](Self::is_timeout).
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

    /// The runtime has ended that drove the response's connection: [`is_body`](Self::is_body).
    pub fn fake_cut_off(pod: Endpoint) -> Self {
        Self::cut_off(Some(pod), RuntimeEnded)
    }

    /// The response is more than the client reads: [`is_limit`](Self::is_limit).
    pub fn fake_limit(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        Self::limit(Some(pod), source)
    }

    /// An answer that is no success: [`is_status`](Self::is_status).
    pub fn fake_status(pod: Endpoint, status: StatusCode) -> Self {
        Self::answered(Some(pod), status)
    }

    /// The response's body is no JSON, or that of another type: [`is_decode`](Self::is_decode).
    #[cfg(feature = "json")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "json", feature = "test-util"))))]
    pub fn fake_decode(pod: Endpoint, why: &str) -> Self {
        Self::decode(Some(pod), why.to_owned())
    }

    /// A layer around the client failed the request: [`is_layer`](Self::is_layer).
    pub fn fake_layer(source: impl Into<BoxError>) -> Self {
        Self::layer(source)
    }

    /// The same error, of a request to this [service](Self::service).
    pub fn with_service(self, service: &str) -> Self {
        self.of_service(Some(&service.into()))
    }
}
