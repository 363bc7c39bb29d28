//! The endpoints' checks put into practice: runs those that are due, and tells the endpoints' records what comes of them.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rand::Rng;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use crate::{
    check::{
        CheckFailed, HealthCheck, Probe,
        rounds::{Check, Rounds},
    },
    error::{BoxError, SharedError},
    load::{Checked, Load},
};

/// The checks of a balancer that has any.
pub(super) struct Checks {
    active: Option<Active>,
    /// Those that run.
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
}

struct Active {
    probe: Arc<dyn Probe>,
    timeout: Duration,
    rounds: Rounds,
}

/// What came of a check.
pub(super) struct Answer {
    check: Check,
    result: Result<(), BoxError>,
}

/// What follows from a check.
#[derive(Default)]
pub(super) struct News {
    /// The endpoint stands in another way than before.
    pub(super) is_change: bool,
    /// Why it gets no requests, if its check failed and that is so.
    pub(super) refusal: Option<SharedError>,
}

impl Checks {
    pub(super) fn new(check: Option<HealthCheck>) -> Self {
        let active = check.map(|check| Active {
            probe: check.probe,
            timeout: check.pace.timeout,
            rounds: Rounds::new(check.pace),
        });
        Self {
            active,
            running: FuturesUnordered::new(),
        }
    }

    /// When there is a check to be made.
    pub(super) fn due(&self) -> Option<Instant> {
        self.active.as_ref()?.rounds.due()
    }

    /// The set is now this.
    pub(super) fn admit(&mut self, loads: &[Arc<Load>], now: Instant, rng: &mut impl Rng) {
        let Some(active) = &mut self.active else {
            return;
        };
        let (new, begins) = active.rounds.admit(loads, now, rng);
        for load in new {
            load.record().set_checked(begins);
        }
    }

    /// Begins the checks that are due.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(active) = &mut self.active else {
            return;
        };
        while let Some(check) = active.rounds.take_due(now) {
            self.running.push(active.run(check));
        }
    }

    /// The next answer; none, at once, while no check runs.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.running.next().await
    }

    /// Takes note of an answer.
    pub(super) fn judge(&mut self, answer: Answer, now: Instant, rng: &mut impl Rng) -> News {
        let Answer { check, result } = answer;
        let rounds = self.active.as_mut().map(|active| &mut active.rounds);
        let told = rounds.and_then(|rounds| rounds.tell(&check, result.is_ok(), now, rng));
        let Some(checked) = told else {
            return News::default();
        };
        let load = check.load;
        let before = load.record().checked();
        load.record().set_checked(checked);
        let is_change = checked != before;
        if is_change {
            // When its checks pass again, what it failed before is over.
            load.record().forgive();
        }
        tell_of(&load, is_change.then_some(checked), &result);
        News {
            is_change,
            refusal: result
                .err()
                .filter(|_| checked != Checked::Passes)
                .map(|error| refusal(&load, error)),
        }
    }
}

impl Active {
    fn run(&self, check: Check) -> BoxFuture<'static, Answer> {
        let (probe, bound) = (self.probe.clone(), self.timeout);
        let asked = async move {
            let endpoint = check.load.endpoint().clone();
            // What makes the future may panic, too.
            let asked = AssertUnwindSafe(async { probe.probe(&endpoint).await }).catch_unwind();
            let result = match timeout(bound, asked).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the check panicked".into()),
                Err(_) => Err(format!("no answer within {bound:?}").into()),
            };
            Answer { check, result }
        };
        asked.boxed()
    }
}

fn tell_of(load: &Load, change: Option<Checked>, result: &Result<(), BoxError>) {
    let endpoint = load.endpoint();
    match (change, result) {
        (Some(_), Err(error)) => info!(%endpoint, %error, "endpoint fails its health checks"),
        (Some(_), Ok(())) => info!(%endpoint, "endpoint passes its health check"),
        (None, Err(error)) => debug!(%endpoint, %error, "a health check failed"),
        (None, Ok(())) => {}
    }
}

fn refusal(load: &Load, error: BoxError) -> SharedError {
    Arc::new(CheckFailed {
        endpoint: load.endpoint().clone(),
        source: error.into(),
    })
}
