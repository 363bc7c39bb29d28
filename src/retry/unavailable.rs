//! The policy that HTTP services need: it also retries the answers of pods that can't serve.

use std::time::Duration;

use http::{Request, Response, StatusCode, header::UPGRADE};
use http_body::Body;

use super::{policy::RetryPolicy, pushback::Pushback};
use crate::{
    error::Error,
    outcome::{ByStatus, ClassifyHttp, Outcome},
};

/// The statuses of a pod that can't serve: neither the pod nor a proxy before it has a server for the request (RFC 9110
/// §15.6.3–5). They are Envoy's `gateway-error`. 500 isn't among them, because it is as often about the request as
/// about the pod.
pub(crate) const UNAVAILABLE: [StatusCode; 3] = [
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Retries safe HTTP requests that an endpoint failed, or answered with 502, 503 or 504. Safe means a safe method (RFC
/// 9110 §9.2.1) and no body.
///
/// It respects `Retry-After` with 503 or 429, and gRPC's `grpc-retry-pushback-ms`: for that time, but at most 30 s,
/// retries leave the endpoint alone. A negative pushback ends them.
///
/// With [hedging](crate::RetryLayer::hedge), these answers aren't [good](RetryPolicy::is_good): any 5xx, 429, and
/// gRPC's `UNAVAILABLE`, `RESOURCE_EXHAUSTED` or `DEADLINE_EXCEEDED` in the head.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
pub struct RetryUnavailable;

impl<B: Body + Clone, R> RetryPolicy<Request<B>, Response<R>> for RetryUnavailable {
    fn again(&self, request: &Request<B>) -> Option<Request<B>> {
        let is_safe = request.method().is_safe() && request.body().is_end_stream();
        is_safe.then(|| request.clone())
    }

    fn may_hedge(&self, request: &Request<B>) -> bool {
        let is_safe = request.method().is_safe() && request.body().is_end_stream();
        is_safe && !request.headers().contains_key(UPGRADE)
    }

    fn retry(&self, result: Result<&Response<R>, &Error>) -> bool {
        match result {
            Ok(response) => {
                let pushback = Pushback::of(response.status(), response.headers());
                UNAVAILABLE.contains(&response.status()) && pushback != Some(Pushback::Never)
            }
            Err(error) => error.is_endpoint(),
        }
    }

    fn is_good(&self, response: &Response<R>) -> bool {
        let (status, headers) = (response.status(), response.headers());
        !status.is_server_error() && ByStatus.head(status, headers) == Outcome::Success
    }

    fn pushback(&self, response: &Response<R>) -> Option<Duration> {
        Pushback::of(response.status(), response.headers())?.delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_good(status: u16, grpc_status: &str) -> bool {
        let response = Response::builder().status(status);
        let response = response.header("grpc-status", grpc_status).body(());
        let policy: &dyn RetryPolicy<Request<String>, Response<()>> = &RetryUnavailable;
        policy.is_good(&response.expect("a response"))
    }

    #[test]
    fn a_refusal_never_wins_a_race_whether_it_is_retried_or_not() {
        assert!([200, 304, 404].iter().all(|&status| is_good(status, "0")));
        let bad = [429, 500, 502, 503];
        assert!(bad.iter().all(|&status| !is_good(status, "0")));
        assert!(["8", "14"].iter().all(|code| !is_good(200, code)));
    }
}
