//! One endpoint's standing: the state machine of the picture above.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::{OutlierDetection, ward::Finding, window::Window};
use crate::{
    backoff::Backoff,
    load::{Counts, EjectionReason, Verdict},
};

const JITTER: f64 = 0.1;

/// An endpoint that was in for as long begins anew, unless it was out for longer.
const WELL: Duration = Duration::from_secs(30);

/// How long a good beginning may stay without an end before it is taken for a success: the answer may be a stream.
const LONG_ANSWER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    Silent {
        until: Instant,
    },
    Ejected {
        until: Instant,
    },
    Probation {
        since: Instant,
        /// Since when its request has an answer that looks good.
        answered: Option<Instant>,
    },
}

/// What is known of an endpoint's health.
#[derive(Debug)]
pub(crate) struct Standing {
    state: State,
    reason: EjectionReason,
    window: Window,
    seen: Counts,
    pauses: Option<Backoff>,
    pause: Duration,
    /// When it came back the last time.
    returned: Option<Instant>,
    /// Since when it has had requests and answered none, and what the others had answered by then.
    quiet: Option<(Instant, u64)>,
}

/// What the set is like while one endpoint is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// How many answers there have been, of all endpoints.
    pub(super) answers: u64,
    pub(super) endpoints: usize,
    /// How long an endpoint may be silent, if that is known.
    pub(super) patience: Option<Duration>,
}

/// A silence counts from so many requests on: those of fewer may be the slow ones that there always are.
const WAITING: u32 = 5;

/// A silence counts if the others have answered so many, each, meanwhile.
const OTHERS_ANSWERS: u64 = 10;

impl Standing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Healthy,
            reason: EjectionReason::ConsecutiveFailures,
            window: Window::new(now),
            seen: Counts::default(),
            pauses: None,
            pause: Duration::ZERO,
            returned: None,
            quiet: None,
        }
    }

    /// It is back in the set: who was on probation is to be tried anew.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.quiet = None;
        if self.is_on_probation() {
            self.state = State::Ejected { until: now };
        }
    }

    pub(crate) fn seen(&mut self) -> &mut Counts {
        &mut self.seen
    }

    pub(super) fn is_out(&self) -> bool {
        self.state != State::Healthy
    }

    /// Why it is out, if it is.
    pub(crate) fn reason(&self) -> Option<EjectionReason> {
        self.is_out().then_some(self.reason)
    }

    pub(super) fn is_on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    /// Whether anything is kept in mind that a new endpoint has not.
    pub(crate) fn is_worth_keeping(&self, now: Instant) -> bool {
        self.is_out() || (self.pauses.is_some() && !self.is_well(now))
    }

    /// When the state changes by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Silent { until } | State::Ejected { until } => Some(until),
            State::Probation { answered, .. } => answered.map(|at| at + LONG_ANSWER),
            State::Healthy => None,
        }
    }

    /// Why it should be out, though it isn't.
    pub(super) fn complaint(
        &mut self,
        health: &OutlierDetection,
        finding: &Finding,
        around: &Around,
        now: Instant,
    ) -> Option<EjectionReason> {
        let news = &finding.news;
        self.window.add(now, news.requests, news.failures);
        let is_silent = self.is_silent(finding, around, now);
        let limit = health.consecutive_failures;
        let many = limit.is_some_and(|limit| finding.in_a_row >= limit);
        let below = || {
            let rate = health.success_rate;
            rate.is_some_and(|rate| self.window.is_below(rate))
        };
        // The window is looked at when there is something new in it.
        match () {
            () if many => Some(EjectionReason::ConsecutiveFailures),
            () if news.failures > 0 && below() => Some(EjectionReason::SuccessRate),
            () if is_silent => Some(EjectionReason::Unresponsive),
            () => None,
        }
    }

    /// Whether it has left so many requests waiting for so long while the others answered theirs.
    fn is_silent(&mut self, finding: &Finding, around: &Around, now: Instant) -> bool {
        if finding.news.requests > 0 || finding.in_flight == 0 {
            self.quiet = None;
            return false;
        }
        let (since, answers) = *self.quiet.get_or_insert((now, around.answers));
        let others = around.endpoints.saturating_sub(1) as u64;
        finding.in_flight >= WAITING
            && others > 0
            && around.answers - answers >= OTHERS_ANSWERS * others
            && around
                .patience
                .is_some_and(|patience| now.duration_since(since) >= patience)
    }

    /// For how long it has had requests and answered none.
    pub(super) fn quiet_for(&self, now: Instant) -> Duration {
        self.quiet
            .map_or(Duration::ZERO, |(since, _)| now.duration_since(since))
    }

    /// Puts it out.
    pub(super) fn eject(
        &mut self,
        reason: EjectionReason,
        health: &OutlierDetection,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.reason = reason;
        if reason == EjectionReason::Unresponsive {
            let until = now + health.min_pause;
            self.state = State::Silent { until };
        } else {
            self.pause(health, now, rng);
        }
    }

    fn pause(&mut self, health: &OutlierDetection, now: Instant, rng: &mut impl Rng) {
        if self.is_well(now) {
            self.pauses = None;
        }
        let (min, max) = (health.min_pause, health.max_pause);
        let pauses = self
            .pauses
            .get_or_insert_with(|| Backoff::new(min, 2.0, max, JITTER));
        self.pause = pauses.next(rng);
        self.returned = None;
        self.window.clear();
        self.state = State::Ejected {
            until: now + self.pause,
        };
    }

    /// Whether it has been in for so long that its past is past.
    fn is_well(&self, now: Instant) -> bool {
        self.returned
            .is_some_and(|at| now.saturating_duration_since(at) >= self.pause.max(WELL))
    }

    /// What its record and the time say of one that is out.
    pub(super) fn reconsider(
        &mut self,
        health: &OutlierDetection,
        finding: &Finding,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        match (self.state, finding.verdict) {
            (State::Healthy, _) => {}
            // It was not hung, or is so no more: no pause, for it has answered what it had.
            (State::Silent { .. }, _) if finding.news.answers > 0 => self.state = State::Healthy,
            (State::Silent { .. }, _) if finding.in_flight == 0 => self.pause(health, now, rng),
            // Late, perhaps, but a success.
            (State::Probation { .. } | State::Ejected { .. }, Some(Verdict::Passed)) => {
                self.readmit(now);
            }
            (State::Probation { .. }, Some(Verdict::Failed)) => self.pause(health, now, rng),
            (State::Probation { since, .. }, Some(Verdict::Answered)) => {
                let answered = Some(now);
                self.state = State::Probation { since, answered };
            }
            (
                State::Probation {
                    since,
                    answered: None,
                },
                None,
            ) if finding.in_flight > 0 && now >= since + health.min_pause => {
                // Its one request hangs, and would for ever.
                self.pause(health, now, rng);
            }
            _ => self.on_due(now),
        }
    }

    fn on_due(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        if self.is_on_probation() {
            self.readmit(now);
        } else {
            self.state = State::Probation {
                since: now,
                answered: None,
            };
        }
    }

    /// Takes it back.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.state = State::Healthy;
        self.returned = Some(now);
        self.window.clear();
        self.quiet = None;
    }
}
