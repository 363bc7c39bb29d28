//! Settings of requests that are sent more than once.

use std::sync::Arc;

use http::StatusCode;
use tower::retry::budget::Budget;

use super::ClientBuilder;
use crate::hedge::{Hedge, Hedges};

impl<D> ClientBuilder<D> {
    /// How often one request may be sent again, at most; 0 for never.
    ///
    /// Two kinds of attempts don't count, neither here nor in the [budget](Self::retry_budget). A request that was
    /// never written goes to another pod, even if this is 0. A request that a pod refuses unprocessed (HTTP/2's
    /// `REFUSED_STREAM` and GOAWAY) is sent again once for each pod that refuses it, unless this is 0.
    pub fn retries(mut self, times: usize) -> Self {
        self.retries.allowance.times = times;
        self
    }

    /// Limits the retries of all requests together, as [`RetryLayer::budget`](crate::RetryLayer::budget) does.
    ///
    /// [`RetryLayer`](crate::RetryLayer#how-often) says what that means if every request fails.
    pub fn retry_budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.retries.allowance.budget = Arc::new(budget);
        self
    }

    /// Which statuses are retried at another pod: 502, 503 and 504 by default. An empty list turns this off.
    ///
    /// A pod answers these if it can't serve for now; another pod often can. Only requests that may be executed twice
    /// are retried: those with a safe method and no body, and [`Idempotent`](crate::http::Idempotent) ones. The caller
    /// has seen nothing of the first answer by then. When no more retries are allowed, or all pods have been asked, the
    /// caller gets the last answer as the pod sent it.
    ///
    /// This is on by default because such a request may be sent twice anyway, and because the budget bounds the added
    /// load in an outage: a service that sheds load with 503 gets at most a fifth more. If even that is too much, turn
    /// it off.
    ///
    /// gRPC's `UNAVAILABLE` counts as 503 if it is the whole response. The client respects what a pod says about
    /// retries. With a negative `grpc-retry-pushback-ms`, or one that isn't a number, there is no retry (gRFC A6). With
    /// a positive one, or with `Retry-After` and 429 or 503, another pod is asked at once if there is one. Retries of
    /// other requests avoid the pod for the time it asked for, 30 s at most. First attempts still go there.
    pub fn retry_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.retries.statuses = statuses.into_iter().collect();
        self
    }

    /// Asks a second pod if the first one's answer is late; off by default.
    ///
    /// Only requests with a safe method (GET, HEAD, OPTIONS, TRACE; RFC 9110 §9.2.1), without a body and without
    /// `Upgrade`, are hedged, [`Idempotent`](crate::http::Idempotent) or not. An answer of 5xx, 429 or another [retried
    /// status](Self::retry_statuses) doesn't count while the other pod may still answer.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.retries.hedges = Some(Hedges::new(&hedge));
        self
    }
}
