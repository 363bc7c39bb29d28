//! Runs the health checks that are due, and writes their results to the members.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, abortable},
    stream::FuturesUnordered,
};
use rand::Rng;
use tokio::time::{Instant, timeout};

use super::{
    reconnect::Running,
    registry::{Life, Lives},
};
use crate::{
    check::{CheckFailed, CheckScheduler, Checker, HealthCheck, Kept},
    endpoint::Endpoint,
    error::{BoxError, SharedError},
    logs::{ENDPOINTS, Line, change, debug},
    member::{Checked, Member, MemberId},
};

/// The checks of a balancer that has any.
pub(super) struct Checks {
    active: Option<Active>,
    /// The checks that run. If its member leaves, a check is aborted and has no result.
    running: FuturesUnordered<BoxFuture<'static, Option<CheckResult>>>,
}

struct Active {
    checker: Arc<dyn Checker>,
    timeout: Duration,
    scheduler: CheckScheduler,
}

/// The result of a check.
pub(super) struct CheckResult {
    id: MemberId,
    result: Result<(), BoxError>,
}

/// What follows from a check.
#[derive(Default)]
pub(super) struct Consequence {
    /// The endpoint passes or fails, and didn't before.
    pub(super) is_change: bool,
    /// Why it gets no requests, if its check failed and it doesn't pass.
    pub(super) refusal: Option<(MemberId, SharedError)>,
}

impl Checks {
    pub(super) fn new(check: Option<HealthCheck>) -> Self {
        let active = check.map(|check| Active {
            checker: check.checker,
            timeout: check.pace.timeout,
            scheduler: CheckScheduler::new(check.pace),
        });
        Self {
            active,
            running: FuturesUnordered::new(),
        }
    }

    /// When the next check is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.active.as_ref()?.scheduler.due()
    }

    /// A member has joined.
    pub(super) fn join<S>(&mut self, life: &mut Life<S>, now: Instant, rng: &mut impl Rng) {
        if let Some(active) = &mut self.active {
            let state = active.scheduler.join(life.member.id(), now, rng);
            life.member.stats().set_checked(state.checked());
            life.check = Some(state);
        }
    }

    /// A member has left.
    pub(super) fn leave<S>(&mut self, life: &Life<S>) {
        if let (Some(active), Some(state)) = (&mut self.active, &life.check) {
            active.scheduler.leave(life.member.id(), state);
        }
    }

    /// Begins the checks that are due.
    pub(super) fn begin<S>(&mut self, lives: &mut Lives<S>, now: Instant) {
        let Some(active) = &mut self.active else {
            return;
        };
        while let Some(id) = active.scheduler.take_due(now) {
            let Some(life) = lives.get_mut(&id) else {
                continue;
            };
            if let Some(state) = &mut life.check {
                active.scheduler.begin(state, now);
                let (check, handle) =
                    abortable(active.run(id, life.endpoint.clone(), life.kept.clone()));
                life.checking = Some(Running::new(handle));
                self.running.push(check.map(Result::ok).boxed());
            }
        }
    }

    /// Waits for the next result; pending while no check runs.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<CheckResult>> {
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(result)) => Poll::Ready(result),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The checks under way have ended with their runtime, and prove nothing: they are made again.
    pub(super) fn begin_anew<S>(&mut self, lives: &mut Lives<S>, now: Instant) {
        self.running.clear();
        let Some(active) = &mut self.active else {
            return;
        };
        active.scheduler.end_all();
        for (id, life) in lives {
            life.checking = None;
            if let Some(state) = &mut life.check {
                active.scheduler.restart(*id, state, now);
            }
        }
    }

    /// Takes in a result: updates the check's state, and logs it.
    pub(super) fn judge<S>(
        &mut self,
        result: Option<CheckResult>,
        lives: &mut Lives<S>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Consequence {
        let Some(active) = &mut self.active else {
            return Consequence::default();
        };
        active.scheduler.end();
        let Some(CheckResult { id, result }) = result else {
            return Consequence::default();
        };
        let Some(life) = lives.get_mut(&id) else {
            return Consequence::default();
        };
        let Some(state) = &mut life.check else {
            return Consequence::default();
        };
        let before = state.checked();
        let checked = active.scheduler.tell(id, state, result.is_ok(), now, rng);
        let is_change = checked != before;
        life.member.stats().set_checked(checked);
        if is_change {
            // After a change in its checks, earlier failed requests don't count.
            life.member.stats().forget_failures();
        }
        tell_of(&life.member, is_change.then_some(checked), &result);
        let error = result.err().filter(|_| checked != Checked::Passes);
        Consequence {
            is_change,
            refusal: error.map(|error| (id, refusal(error))),
        }
    }
}

impl Active {
    fn run(&self, id: MemberId, endpoint: Endpoint, kept: Kept) -> BoxFuture<'static, CheckResult> {
        let (checker, bound) = (self.checker.clone(), self.timeout);
        let asked = async move {
            // `check` is called inside, because making the future may panic, too.
            let asked =
                AssertUnwindSafe(async { checker.check(&endpoint, &kept).await }).catch_unwind();
            let result = match timeout(bound, asked).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the check panicked".into()),
                Err(_) => Err(format!("no answer within {bound:?}").into()),
            };
            CheckResult { id, result }
        };
        asked.boxed()
    }
}

fn tell_of(member: &Member, change: Option<Checked>, result: &Result<(), BoxError>) {
    let (endpoint, signals) = (member.endpoint(), member.signals());
    let error = result.as_ref().err().map(|error| Line(&**error));
    match (change, error) {
        (Some(_), Some(error)) => {
            change!(FailsChecks, signals, %endpoint, %error, "endpoint fails its health checks");
        }
        (Some(_), None) => {
            change!(PassesChecks, signals, %endpoint, "endpoint passes its health check");
        }
        (None, Some(error)) => {
            debug!(ENDPOINTS, signals.service(), %endpoint, %error, "a health check failed");
        }
        (None, None) => {}
    }
}

fn refusal(error: BoxError) -> SharedError {
    let source = error.into();
    Arc::new(CheckFailed { source })
}
