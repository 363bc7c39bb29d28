//! Settings of requests that are sent more than once.

use std::sync::Arc;

use http::StatusCode;
use tower::retry::budget::Budget;

use super::ClientBuilder;
use crate::hedge::{Hedge, Hedges};

impl<D> ClientBuilder<D> {
    /// How often one request may be sent again, at most; 0 for never.
    ///
    /// Two kinds of attempts count neither here nor in the [budget](Self::retry_budget). A request that was never written goes
    /// to another pod whatever this says. One that a pod refuses unprocessed (HTTP/2's `REFUSED_STREAM` and GOAWAY) is sent
    /// again once for each pod that does so, unless this is 0.
    pub fn retries(mut self, times: usize) -> Self {
        self.retries.allowance.times = times;
        self
    }

    /// What bounds the retries of all requests, as [`RetryLayer::budget`](crate::RetryLayer::budget) does.
    ///
    /// What it bounds with everything failing is said [there](crate::RetryLayer#how-often).
    pub fn retry_budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.retries.allowance.budget = Arc::new(budget);
        self
    }

    /// Which answers are no good, so that another pod is asked: 502, 503 and 504 by default. An empty list turns that off.
    ///
    /// They are what a pod says that can't serve for now; another one often can. It is done for those requests only that
    /// are sent again when they are lost: with a safe method and no body, or [`Idempotent`](crate::http::Idempotent). The caller
    /// has seen nothing of the first answer by then. When no more retries are allowed, or all pods have been asked, the last
    /// answer is the caller's, as the pod has sent it.
    ///
    /// This is on by default because such a request may be sent twice anyway, and because the budget bounds what it adds to
    /// an outage: a service that sheds load with 503 gets at most a fifth more of it. Where even that is too much, turn it
    /// off.
    ///
    /// gRPC's `UNAVAILABLE` counts as 503 where it is all of the response. What a pod says of
    /// retries is heeded: with a negative `grpc-retry-pushback-ms`, or one that is no number, there is none (gRFC A6). With a
    /// positive one, or with `Retry-After` and 429 or 503, another pod is asked at once if there is one, and the retries of
    /// other requests pass over the one that said so for as long, but for 30 s at most. First attempts go there as ever.
    pub fn retry_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.retries.statuses = statuses.into_iter().collect();
        self
    }

    /// Asks a second pod for an answer that is late; off by default.
    ///
    /// Only requests with a safe method (GET, HEAD, OPTIONS, TRACE; RFC 9110 §9.2.1), without a body and without `Upgrade`
    /// are hedged, [`Idempotent`](crate::http::Idempotent) or not. A 5xx, a 429 or another of the
    /// [statuses](Self::retry_statuses) that are retried doesn't count while the other answer may come.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.retries.hedges = Some(Hedges::new(&hedge));
        self
    }
}
