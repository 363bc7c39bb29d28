//! What a client's clones and its requests share.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use super::super::{
    affinity::Affinity,
    defaults::Defaults,
    pod::PodService,
    pool::Config,
    replay::{Answer, Replay, Retries},
    response::OnResponseEnd,
    span::Trace,
    traced::Traced,
};
use crate::{balance::Balance, route::Route};

/// What a client's clones and its requests share.
pub(in crate::http) struct Shared {
    /// For requests that are sent again.
    pub(in crate::http) pods: Pods,
    pub(in crate::http) config: Arc<Config>,
    pub(in crate::http) retries: Retries,
    pub(in crate::http) affinity: Option<Affinity>,
    pub(in crate::http) timeout: Option<Duration>,
    /// Whether the pods' protocol can tell that a request was not processed.
    pub(in crate::http) may_refuse: bool,
    /// Whether gRPC calls get errors as gRPC statuses.
    pub(in crate::http) grpc_status: bool,
    /// Whether each request has a span.
    pub(in crate::http) has_spans: bool,
    /// Whether each request's attempts are recorded.
    pub(in crate::http) has_attempts: bool,
    pub(in crate::http) defaults: Defaults,
}

impl Shared {
    /// What follows a pod's answer: another attempt, or the answer for the caller.
    pub(super) fn again(
        &self,
        replay: &mut Replay,
        answer: Answer,
        trace: Option<&Trace>,
    ) -> ControlFlow<Answer, Sent> {
        let has_other = |route: &Route| self.pods.has_other(route);
        let (request, route) = replay.next(answer, &self.retries, has_other)?;
        let send = || self.pods.call_with(request, route).counted_as_retry();
        ControlFlow::Continue(Traced::new(trace, send))
    }
}

pub(in crate::http) type Pods = Balance<PodService, OnResponseEnd>;

pub(super) type Sent = Traced;
