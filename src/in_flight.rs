//! The guard that counts a request in flight, from the pick to the end of its response, and reports what came of it, exactly
//! once.

#[cfg(feature = "http-body")]
mod body;
mod course;

#[cfg(feature = "http-body")]
pub use body::{CountedBody, OnBodyEnd};

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::course::Course;
use crate::{
    endpoint::Endpoint,
    error::BoxError,
    load::{Load, Share, Verdict},
    outcome::{ByResult, Classify, Outcome},
};

/// One request in flight. Dropping it, whenever and for whatever reason, counts the request out and reports its [`Outcome`].
///
/// A [`Completion`] decides how long it lives.
pub struct InFlight {
    share: Arc<Share>,
    course: Course,
}

/// Two words, which go in registers.
const _: () = assert!(size_of::<Option<InFlight>>() <= 2 * size_of::<u64>());

impl InFlight {
    /// A request that a pick has brought to `load`; a `trial` is one sent to find out how an endpoint is that gets no others.
    #[inline]
    pub(crate) fn new(load: &Load, is_trial: bool) -> Self {
        Self {
            share: load.share(),
            course: Course::new(is_trial, is_trial && load.is_ejected()),
        }
    }

    /// The endpoint that has the request, as it was known when it joined the set.
    /// [`Balance::endpoints`](crate::Balance::endpoints) shows what has been learnt of it since.
    pub fn endpoint(&self) -> &Endpoint {
        self.share.endpoint()
    }

    /// Says what has come of the request; the last word before the end counts.
    ///
    /// If nothing is said, a request that was answered was a success, and one that wasn't was cancelled.
    #[inline]
    pub fn report(&mut self, outcome: Outcome) {
        self.course.report(outcome);
        let looks_good = matches!(outcome, Outcome::Success | Outcome::Overload);
        if self.course.is_probe() && looks_good {
            // Its end may be far away.
            self.judge(Verdict::Answered);
        }
    }

    #[inline]
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Ends the trial, if this was one: its outcome is known.
    #[inline]
    pub(crate) fn end_trial(&mut self) -> bool {
        self.course.end_trial()
    }

    /// The endpoint has it, and no answer yet.
    #[inline]
    pub(crate) fn wait(&mut self) {
        if !self.course.waits() && self.share.signals().is_reviewed() {
            let answers = self.share.record().progress();
            self.course.wait(self.now(), answers);
        }
    }

    /// The endpoint's answer has begun.
    #[inline]
    pub(crate) fn answer(&mut self) {
        self.course.answer();
        // What was there at the first look took no time.
        let waited = if self.course.waits() {
            self.answer_late()
        } else {
            Duration::ZERO
        };
        self.share.record().answered(waited);
        if self.course.is_probe() {
            self.report(self.course.outcome().unwrap_or(Outcome::Success));
        }
    }

    /// How long it has waited for the answer.
    fn answer_late(&self) -> Duration {
        let now = self.now();
        let waited = self.course.waited(now).unwrap_or_default();
        if let Some(latency) = self.share.latency() {
            latency.answered(waited, now, &self.share.signals().latencies);
        }
        waited
    }

    /// In nanoseconds of the balancer's life.
    fn now(&self) -> u64 {
        self.share.signals().age(Instant::now())
    }

    /// The endpoint has not taken it, and it goes to another one.
    pub(crate) fn refuse(&mut self) {
        self.course.report(Outcome::Ignored);
        self.course.end_wait();
        if self.course.end_probe() {
            self.judge(Verdict::Failed);
        }
    }

    #[cold]
    fn judge(&self, verdict: Verdict) {
        self.share.record().judge(verdict);
        self.share.signals().review.notify_one();
    }

    #[inline]
    fn end(&self) -> Outcome {
        match self.course.outcome() {
            Some(outcome) => outcome,
            None if self.course.is_answered() => Outcome::Success,
            None if self.was_given_up() => Outcome::Failure,
            None => Outcome::Ignored,
        }
    }

    /// Whether its caller has waited for long, and all that time the endpoint has answered nothing to anyone: a hedge that has
    /// lost its race says nothing of the kind.
    #[cold]
    fn was_given_up(&self) -> bool {
        let answers = self.share.record().progress();
        self.course.waits()
            && self.course.has_seen_none_of(answers)
            && (self.share.signals().patience())
                .is_some_and(|patience| self.waited_in_vain() >= patience)
    }

    /// For how long it has waited for an answer that hasn't come.
    fn waited_in_vain(&self) -> Duration {
        if self.course.is_answered() || !self.course.waits() {
            return Duration::ZERO;
        }
        self.course.waited(self.now()).unwrap_or_default()
    }

    #[cold]
    fn was_turned_away(&self, outcome: Outcome) {
        if let Some(latency) = self.share.latency() {
            latency.failed(self.waited_in_vain(), &self.share.signals().latencies);
        }
        if outcome == Outcome::Failure {
            let in_a_row = self.share.record().failed(self.course.is_answered());
            self.share.signals().failed(in_a_row);
        }
        if !self.share.record().owe() {
            self.share.end();
        }
    }

    #[cold]
    fn was_cancelled(&self) {
        if let Some(latency) = self.share.latency() {
            latency.waited(self.waited_in_vain(), &self.share.signals().latencies);
        }
    }

    #[cold]
    fn end_trials(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success | Outcome::Overload if self.course.is_probe() => {
                self.judge(Verdict::Passed)
            }
            Outcome::Failure if self.course.is_probe() => self.judge(Verdict::Failed),
            // Cancelled before it was known how the endpoint is: the next request may try.
            _ => self.share.offer_trial(),
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        let outcome = self.end();
        if outcome.is_turned_away() {
            self.was_turned_away(outcome);
        } else {
            if outcome == Outcome::Success {
                self.share.record().succeeded();
            } else {
                self.was_cancelled();
            }
            self.share.end();
        }
        if self.course.is_trial_or_probe() {
            self.end_trials(outcome);
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.endpoint()).finish()
    }
}

/// When a request stops counting as in flight, and what came of it, given its response or its error.
///
/// [`OnResponse`] suits responses that come whole; [`OnBodyEnd`] suits HTTP. A protocol with a response of its own kind
/// implements this by moving the guard into that response.
pub trait Completion<R>: Send + Sync + 'static {
    /// The response as the caller gets it.
    type Response;

    /// Keeps `in_flight` for as long as the request runs, and [reports](InFlight::report) its outcome unless that is a success.
    fn complete(&self, in_flight: InFlight, response: R) -> Self::Response;

    /// What an error of the endpoint's service says of the endpoint: a failure, unless this says otherwise.
    fn failed(&self, error: &BoxError) -> Outcome {
        let _ = error;
        Outcome::Failure
    }
}

/// A request ends when its response comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnResponse<C = ByResult>(C);

impl OnResponse {
    /// A response is a success, an error a failure.
    pub const fn new() -> Self {
        Self(ByResult)
    }
}

impl<C> OnResponse<C> {
    /// What the result says is `classify`'s to say: any closure from a result to an [`Outcome`].
    pub const fn by(classify: C) -> Self {
        Self(classify)
    }
}

impl<R, C: Classify<R>> Completion<R> for OnResponse<C> {
    type Response = R;

    #[inline]
    fn complete(&self, mut in_flight: InFlight, response: R) -> R {
        in_flight.report(self.0.classify(Ok(&response)));
        response
    }

    fn failed(&self, error: &BoxError) -> Outcome {
        self.0.classify(Err(error))
    }
}
