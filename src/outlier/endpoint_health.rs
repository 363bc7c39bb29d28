//! One endpoint's health: the state machine that is drawn in `outlier.rs`.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::{Observation, OutlierDetection, observation::SetStats, pauses::Pauses, window::Window};
use crate::member::{Counts, EjectionReason, OVERTAKEN, TrialVerdict};

/// How long a trial's good answer may go on before it counts as a success: it may be a stream.
const LONG_ANSWER: Duration = Duration::from_secs(1);

/// The pause between a trial request that was given up and the next one; it doubles with each more in a row.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    Unresponsive {
        until: Instant,
    },
    Ejected {
        until: Instant,
    },
    HalfOpen {
        /// Since when its request waits, as far as reviews have seen.
        waits: Option<Instant>,
        /// Since when its request has an answer that looks good.
        answered: Option<Instant>,
    },
}

/// What is known of an endpoint's health.
#[derive(Debug)]
pub(crate) struct EndpointHealth {
    state: State,
    reason: EjectionReason,
    window: Window,
    seen: Counts,
    pauses: Pauses,
    /// The pauses after late answers.
    slow_pauses: Pauses,
    /// Since when it has had requests and answered none, and how many answers the set had by then.
    quiet: Option<(Instant, u64)>,
    /// One request may try it now, and the decision hasn't said so yet.
    may_be_tried: bool,
    /// How many trial requests in a row were given up.
    given_up: u32,
    /// It fails or hangs, and isn't ejected only because as many are out as may be, or it is the last one.
    lacks_room: bool,
}

/// The least number of waiting requests that make an endpoint unresponsive. Fewer may be the slow requests that there
/// always are.
const WAITING: u32 = 5;

/// The least number of answers, on average for each other endpoint, while this one answers nothing.
const OTHERS_ANSWERS: u64 = 10;

impl EndpointHealth {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Healthy,
            reason: EjectionReason::ConsecutiveFailures,
            window: Window::new(now),
            seen: Counts::default(),
            pauses: Pauses::default(),
            slow_pauses: Pauses::default(),
            quiet: None,
            may_be_tried: false,
            given_up: 0,
            lacks_room: false,
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

    /// Why it is out, or would be if there were room.
    pub(crate) fn complaint_so_far(&self) -> Option<EjectionReason> {
        self.is_bad().then_some(self.reason)
    }

    /// Whether it is out, or would be if there were room. A slow endpoint without room isn't bad: it answers.
    pub(crate) fn is_bad(&self) -> bool {
        self.is_out() || self.lacks_room
    }

    pub(super) fn is_slow(&self) -> bool {
        self.reason() == Some(EjectionReason::Slow)
    }

    /// How long it was last out for being slow: the longer, the slower it has been.
    pub(super) fn slow_pause(&self) -> Duration {
        self.slow_pauses.last()
    }

    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }

    /// Whether one request may try it from now on; true only once.
    pub(super) fn take_trial(&mut self) -> bool {
        std::mem::take(&mut self.may_be_tried) && self.is_half_open()
    }

    /// When the state changes by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Unresponsive { until } | State::Ejected { until } => Some(until),
            State::HalfOpen { answered, .. } => answered.map(|at| at + LONG_ANSWER),
            State::Healthy => None,
        }
    }

    /// Why an endpoint that isn't out should be.
    pub(super) fn complaint(
        &mut self,
        settings: &OutlierDetection,
        observation: &Observation,
        set: &SetStats,
        now: Instant,
    ) -> Option<EjectionReason> {
        let is_slow = settings.eject_slow && observation.overtaken >= OVERTAKEN;
        let worse = self.worse_than_slow(settings, observation, set, now);
        self.lacks_room = false;
        worse.or_else(|| is_slow.then_some(EjectionReason::Slow))
    }

    /// The complaint against it, other than being slow.
    fn worse_than_slow(
        &mut self,
        settings: &OutlierDetection,
        observation: &Observation,
        set: &SetStats,
        now: Instant,
    ) -> Option<EjectionReason> {
        let is_unresponsive = self.is_unresponsive(observation, set, now);
        self.failure(settings, observation, now)
            .or_else(|| is_unresponsive.then_some(EjectionReason::Unresponsive))
    }

    /// The complaint by its requests' failures.
    fn failure(
        &mut self,
        settings: &OutlierDetection,
        observation: &Observation,
        now: Instant,
    ) -> Option<EjectionReason> {
        let news = &observation.news;
        self.window.add(now, news.requests, news.failures);
        let limit = settings.consecutive_failures;
        let many = limit.is_some_and(|limit| observation.in_a_row >= limit);
        let below = || {
            let rate = settings.success_rate;
            rate.is_some_and(|rate| self.window.is_below(rate))
        };
        // The window is judged only if it has new failures, or if its last complaint found no room.
        let is_due = news.failures > 0 || self.lacks_room;
        match () {
            () if many => Some(EjectionReason::ConsecutiveFailures),
            () if is_due && below() => Some(EjectionReason::SuccessRate),
            () => None,
        }
    }

    /// Whether it has left several requests waiting for too long while the others answered theirs.
    fn is_unresponsive(&mut self, observation: &Observation, set: &SetStats, now: Instant) -> bool {
        if observation.news.requests > 0 || observation.waiting == 0 {
            self.quiet = None;
            return false;
        }
        let (since, answers) = *self.quiet.get_or_insert((now, set.answers));
        let others = set.others as u64;
        observation.waiting >= WAITING
            && others > 0
            && set.answers - answers >= OTHERS_ANSWERS * others
            && set
                .unresponsive_limit
                .is_some_and(|limit| now.duration_since(since) >= limit)
    }

    /// For how long it has had requests and answered none.
    pub(super) fn quiet_for(&self, now: Instant) -> Duration {
        self.quiet
            .map_or(Duration::ZERO, |(since, _)| now.duration_since(since))
    }

    /// Notes that it has to stay in, in spite of a complaint.
    pub(super) fn lack_room(&mut self, reason: EjectionReason) {
        self.lacks_room = reason != EjectionReason::Slow;
        self.reason = reason;
    }

    /// Ejects it.
    pub(super) fn eject(
        &mut self,
        reason: EjectionReason,
        settings: &OutlierDetection,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.reason = reason;
        match reason {
            EjectionReason::Unresponsive => {
                let until = now + settings.min_ejection;
                self.state = State::Unresponsive { until };
            }
            EjectionReason::Slow => self.pause_late(now, rng),
            _ => self.pause(settings, now, rng),
        }
    }

    fn pause(&mut self, settings: &OutlierDetection, now: Instant, rng: &mut impl Rng) {
        let pause = self.pauses.failed(settings, now, rng);
        self.given_up = 0;
        self.window.clear();
        self.state = State::Ejected { until: now + pause };
    }

    /// Pauses after a late answer. That is no failure: whatever it is out for, it is tried as soon as a slow endpoint.
    fn pause_late(&mut self, now: Instant, rng: &mut impl Rng) {
        let until = now + self.slow_pauses.late(now, rng);
        self.state = State::Ejected { until };
    }

    /// Its one trial has failed. If there is a `rule` against that, a slow endpoint is now out for this reason.
    fn fail(
        &mut self,
        rule: Option<EjectionReason>,
        settings: &OutlierDetection,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        match (self.reason, rule) {
            (EjectionReason::Slow, None) => return self.pause_late(now, rng),
            (EjectionReason::Slow, Some(rule)) => self.reason = rule,
            _ => {}
        }
        self.pause(settings, now, rng);
    }

    /// Updates the state of an endpoint that is out, by its observation and the time.
    pub(super) fn reconsider(
        &mut self,
        settings: &OutlierDetection,
        observation: &Observation,
        set: &SetStats,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        if self.is_slow()
            && let Some(reason) = self.worse_than_slow(settings, observation, set, now)
            && !observation.is_out_anyway
        {
            // The requests that it still gets, such as those for it alone, fail or hang.
            return self.eject(reason, settings, now, rng);
        }
        match (self.state, observation.verdict) {
            (State::Healthy, _) => {}
            // It answers again, so it is healthy at once, without a pause.
            (State::Unresponsive { .. }, _) if observation.news.answers > 0 => {
                self.state = State::Healthy;
                self.quiet = None;
            }
            (State::Unresponsive { .. }, _) if observation.waiting == 0 => {
                self.pause(settings, now, rng)
            }
            // A success, even if it comes late.
            (State::HalfOpen { .. } | State::Ejected { .. }, Some(TrialVerdict::Passed)) => {
                self.readmit(now);
            }
            (State::HalfOpen { .. }, Some(TrialVerdict::Failed)) => {
                self.fail(settings.rule_of_failures(), settings, now, rng);
            }
            (State::HalfOpen { .. }, Some(TrialVerdict::Late)) => self.pause_late(now, rng),
            (State::HalfOpen { .. }, Some(TrialVerdict::GivenUp)) if self.is_slow() => {
                // It was too late for its caller.
                self.pause_late(now, rng);
            }
            (State::HalfOpen { .. }, Some(TrialVerdict::GivenUp)) => {
                // A trial that was given up proves little. The next one comes after a pause, or a hung endpoint would
                // get them all.
                let pause = AGAIN.saturating_mul(2_u32.saturating_pow(self.given_up));
                self.given_up += 1;
                let until = now + pause.min(settings.max_ejection);
                self.state = State::Ejected { until };
            }
            (State::HalfOpen { .. }, Some(TrialVerdict::Cancelled)) => self.open(),
            (State::HalfOpen { waits, .. }, Some(TrialVerdict::Answered)) => {
                let answered = Some(now);
                self.state = State::HalfOpen { waits, answered };
            }
            (
                State::HalfOpen {
                    waits,
                    answered: None,
                },
                None,
            ) => {
                // If nothing waits any more, no request hangs.
                let waits = (observation.waiting > 0).then(|| waits.unwrap_or(now));
                self.state = State::HalfOpen {
                    waits,
                    answered: None,
                };
                if waits.is_some_and(|since| now >= since + settings.min_ejection) {
                    // Its one request hangs, perhaps for ever.
                    self.fail(settings.rule_of_silence(), settings, now, rng);
                }
            }
            _ => self.on_due(now),
        }
    }

    fn on_due(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        if self.is_half_open() {
            self.readmit(now);
        } else {
            self.open();
        }
    }

    /// Becomes half-open: one request may try it.
    fn open(&mut self) {
        self.may_be_tried = true;
        self.state = State::HalfOpen {
            waits: None,
            answered: None,
        };
    }

    /// Readmits it.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.state = State::Healthy;
        self.pauses.end(now);
        self.slow_pauses.end(now);
        self.given_up = 0;
        self.window.clear();
        self.quiet = None;
    }
}
