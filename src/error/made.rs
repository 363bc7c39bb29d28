//! Fake errors of each kind, for the tests of applications.

use std::time::Duration;

use super::{Away, BoxError, Error, NoEndpoints, PodState, Refusal};
use crate::endpoint::Endpoint;

/// Fake errors of each kind (feature `test-util`), so that tests can see how an application handles them.
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
impl Error {
    /// The service has no pods: [`is_no_endpoints`](Self::is_no_endpoints).
    pub fn fake_no_endpoints() -> Self {
        Self::no_endpoints(NoEndpoints::Empty, None)
    }

    /// None of `endpoints` pods accepts requests, and `last` refused last: [`is_unreachable`](Self::is_unreachable).
    pub fn fake_unreachable(endpoints: usize, last: Endpoint, why: impl Into<BoxError>) -> Self {
        let why = why.into().into();
        let endpoint = last;
        Self::unreachable(endpoints, Some(Refusal { endpoint, why }))
    }

    /// None of `endpoints` pods has room for a request, and the request waited for `last` last:
    /// [`is_busy`](Self::is_busy).
    pub fn fake_busy(endpoints: usize, last: Endpoint, why: impl Into<BoxError>) -> Self {
        let why = why.into().into();
        let endpoint = last;
        Self::busy(endpoints, Refusal { endpoint, why })
    }

    /// The requested pod refuses: [`is_unreachable`](Self::is_unreachable), with a [`pod`](Self::pod).
    pub fn fake_pod_unreachable(pod: Endpoint, why: impl Into<BoxError>) -> Self {
        let name = pod.name().map_or_else(|| pod.to_string(), str::to_owned);
        Self::pod_unreachable(name, PodState::Refuses(pod), Some(why.into().into()))
    }

    /// The requested pod isn't there: [`is_absent`](Self::is_absent).
    pub fn fake_absent(pod: &str) -> Self {
        Self::pod_unreachable(pod, PodState::Away(Away::new(&[], None, "")), None)
    }

    /// A broadcast's pod has left: [`is_gone`](Self::is_gone).
    pub fn fake_gone(pod: Endpoint) -> Self {
        Self::gone(pod)
    }

    /// A broadcast's pod hasn't answered in this time, or not even got its request: [`is_timeout`](Self::is_timeout).
    pub fn fake_timeout(pod: Endpoint, after: Duration, is_unsent: bool) -> Self {
        Self::no_answer(pod, (after, "`endpoint_timeout`"), is_unsent, None)
    }

    /// The service of a pod failed: [`is_endpoint`](Self::is_endpoint).
    pub fn fake_endpoint(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        Self::endpoint_failed(pod, source.into())
    }

    /// The balancer is closed: [`is_closed`](Self::is_closed).
    pub fn fake_closed() -> Self {
        Self::closed(None)
    }

    /// There is no runtime: [`is_no_runtime`](Self::is_no_runtime).
    pub fn fake_no_runtime() -> Self {
        Self::no_runtime()
    }

    /// Sets the [service](Self::service) that the request was for.
    pub fn with_service(self, service: &str) -> Self {
        self.of_service(Some(&service.into()))
    }
}
