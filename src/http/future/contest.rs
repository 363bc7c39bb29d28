//! A request's hedge: when it is sent, where, and which of the two answers counts.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    super::{
        affinity::Followed,
        error::Error,
        replay::{Answer, Replay},
        span::Trace,
        traced::Traced,
    },
    shared::{Sent, Shared},
};
use crate::{
    hedge,
    logs::{REQUESTS, debug},
    retry::Ended,
    route::Route,
};

/// A request that may be hedged.
pub(super) struct Contest<'a> {
    replay: &'a mut Replay,
    shared: &'a Shared,
    followed: Option<&'a mut Followed>,
    trace: Option<&'a Trace>,
}

impl<'a> Contest<'a> {
    pub(super) fn of(
        replay: &'a mut Option<Box<Replay>>,
        shared: &'a Option<Arc<Shared>>,
        followed: &'a mut Option<Box<Followed>>,
        trace: Option<&'a Trace>,
    ) -> Option<Self> {
        let (replay, shared) = replay.as_deref_mut().zip(shared.as_deref())?;
        Some(Self {
            replay,
            shared,
            followed: followed.as_deref_mut(),
            trace,
        })
    }
}

impl hedge::Contest<Sent> for Contest<'_> {
    fn late(&self) -> Option<Duration> {
        self.shared.pods.late()
    }

    fn hedge_delay(&self, late: Duration) -> Duration {
        let hedges = self.shared.retries.hedges.as_ref();
        hedges.map_or(late, |hedges| hedges.hedge_delay(late))
    }

    fn second(&mut self, first: &Sent, charge: &mut hedge::Charge) -> Option<Sent> {
        let Shared { pods, retries, .. } = self.shared;
        let has_other = |route: &Route| pods.has_other(route);
        let late = first.endpoint()?;
        let (request, route) = self.replay.beside(late, charge, retries, has_other)?;
        if let Some(followed) = &mut self.followed {
            followed.hedged(late);
        }
        let (service, method) = (pods.service(), self.replay.method());
        debug!(REQUESTS, service, endpoint = %late, %method, "request hedged: its answer is late");
        let send = || pods.call_with(request, route).counted_as_hedge();
        Some(Traced::new(self.trace, send))
    }

    fn is_good(&self, result: &<Sent as Future>::Output) -> bool {
        let is_good = |response| Replay::is_good(response, &self.shared.retries);
        result.as_ref().is_ok_and(is_good)
    }

    fn won(&self, result: &<Sent as Future>::Output) {
        if result.is_ok() {
            self.shared.pods.count_hedge_won();
        }
    }

    fn set_aside(&mut self, result: <Sent as Future>::Output) -> bool {
        let answer = result.map_err(Error::balance);
        let ended = self.ended(&answer);
        self.replay.set_aside(answer, &ended);
        let hedges = self.shared.retries.hedges.as_ref();
        ended.is_taken_back(hedges)
    }

    fn replace(&mut self, result: <Sent as Future>::Output, other: &Sent) -> Option<Sent> {
        let Shared { pods, retries, .. } = self.shared;
        let has_other = |route: &Route| pods.has_other(route);
        let (answer, other) = (result.map_err(Error::balance), other.endpoint());
        let ended = self.ended(&answer);
        let replay = &mut self.replay;
        let (request, route) = replay.replace(answer, &ended, other, retries, has_other)?;
        let send = || pods.call_with(request, route).counted_as_retry();
        Some(Traced::new(self.trace, send))
    }
}

impl Contest<'_> {
    /// Notes the outcome of one of two attempts.
    fn ended(&mut self, answer: &Answer) -> Ended {
        let ended = self.replay.ended(answer, &self.shared.retries);
        if let (Some(followed), Some(pod)) = (&mut self.followed, &ended.endpoint)
            && !ended.is_retried
        {
            followed.set_aside(pod);
        }
        ended
    }
}
