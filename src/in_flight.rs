//! The guard that counts a request in flight, from the pick to the end of its response, and reports its outcome exactly
//! once.

#[cfg(feature = "http-body")]
mod body;
#[cfg(all(test, tower_headless_shuttle))]
mod interleavings;
mod request_state;

#[cfg(feature = "http-body")]
pub use body::{CountedBody, OnBodyEnd};

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::request_state::RequestState;
use crate::{
    counters::{EndpointTally, Failed, TurnedDown},
    endpoint::Endpoint,
    error::BoxError,
    member::{EjectionReason, Member, MemberRef, OVERTAKEN, TrialVerdict},
    outcome::{ByResult, Classify, Outcome},
};

/// The guard of one request in flight. A [`Completion`] decides how long it lives.
///
/// When it is dropped, for whatever reason, the request is no longer in flight, and its [`Outcome`] is reported.
pub struct InFlight {
    member: Arc<MemberRef>,
    state: RequestState,
}

/// A trial request that is cancelled sooner proves nothing: hardly any endpoint would have answered by then.
const SOON: Duration = Duration::from_millis(10);

// Two words, so that it is passed in registers.
const _: () = assert!(size_of::<Option<InFlight>>() <= 2 * size_of::<u64>());

impl InFlight {
    /// A request that a pick has brought to `member`. `is_trial` if it tries an endpoint that gets no other requests.
    #[inline]
    pub(crate) fn new(member: &Member, is_trial: bool) -> Self {
        if let Some(tally) = member.tally() {
            tally.picked(is_trial);
        }
        Self {
            member: member.member_ref(),
            state: RequestState::new(is_trial, is_trial && member.is_ejected()),
        }
    }

    /// The endpoint that has the request, as it was known when it joined the set.
    ///
    /// [`Balance::endpoints`](crate::Balance::endpoints) shows what has been learnt of it since.
    pub fn endpoint(&self) -> &Endpoint {
        self.member.endpoint()
    }

    /// Reports the request's outcome. The last report before the guard is dropped counts.
    ///
    /// Without any report, a request that was answered is a success, and one that wasn't is cancelled.
    #[inline]
    pub fn report(&mut self, outcome: Outcome) {
        self.state.report(outcome);
        if self.state.is_half_open() {
            self.judge_half_open(outcome);
        }
    }

    /// Judges a half-open endpoint by its one request so far, because the request's end may be far away.
    #[cold]
    fn judge_half_open(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success | Outcome::Overload => self.judge(TrialVerdict::Answered),
            Outcome::Failure => {
                self.state.end_half_open();
                self.judge(TrialVerdict::Failed);
            }
            Outcome::Ignored => {
                self.state.end_half_open();
                self.judge(TrialVerdict::GivenUp);
            }
        }
    }

    #[inline]
    pub(crate) fn member(&self) -> &MemberRef {
        &self.member
    }

    /// Whether it tries an endpoint that gets no other requests.
    pub(crate) fn is_trial(&self) -> bool {
        self.state.is_trial_or_half_open()
    }

    /// Ends the trial, because its outcome is known. True if this was one.
    #[inline]
    pub(crate) fn end_trial(&mut self) -> bool {
        self.state.end_trial()
    }

    /// The endpoint has the request and hasn't answered: the wait begins, if it is measured.
    #[inline]
    pub(crate) fn wait(&mut self) {
        let is_told = self.state.is_trial_or_half_open()
            || self.member.signals().is_reviewed()
            || self.member.tally().is_some();
        if is_told && !self.state.waits() {
            let answers = self.member.stats().progress();
            self.state.wait(self.now(), answers);
        }
    }

    /// The endpoint's answer has begun. Unless it comes whole, its end may be far away: until then the request is in flight,
    /// but no longer waits.
    #[inline]
    pub(crate) fn answer(&mut self, is_whole: bool) {
        self.state.answer();
        // An answer that was there at the first poll took no time.
        let waited = if self.state.waits() {
            self.answer_late()
        } else {
            Duration::ZERO
        };
        self.state.keep_wait(waited.as_nanos() as u64);
        self.member.stats().answered(waited);
        if self.member.signals().is_hedged() {
            self.compare(waited);
        }
        if !is_whole {
            self.state.stream();
            self.member.stats().begin_stream();
        }
        if self.state.is_half_open() {
            // Good so far. The completion may still report otherwise.
            self.judge(TrialVerdict::Answered);
        }
    }

    /// Adds the answer's time to the percentile, and notes whether it was in time: a hedge would not have been answered
    /// first.
    fn compare(&mut self, waited: Duration) {
        self.member.percentile().add(waited);
        let late = self.member.signals().latencies.late();
        if late.is_none_or(|late| waited <= 2 * late) {
            self.member.stats().keep_up();
        } else if self.member.stats().reason() == Some(EjectionReason::Slow)
            && self.state.end_half_open()
        {
            // The endpoint is still slow.
            self.judge(TrialVerdict::Late);
        }
    }

    /// How long it has waited for the answer.
    fn answer_late(&self) -> Duration {
        let now = self.now();
        self.member.signals().listen(now);
        let waited = self.state.waited(now).unwrap_or_default();
        if let Some(latency) = self.member.latency() {
            latency.answered(waited, now, &self.member.signals().latencies);
        }
        waited
    }

    /// The balancer's age, in nanoseconds.
    fn now(&self) -> u64 {
        self.member.signals().age(Instant::now())
    }

    /// The endpoint has turned the request down, which goes to another one. If `turned_down` is `None`, the request is
    /// lost.
    pub(crate) fn refuse(&mut self, turned_down: Option<TurnedDown>) {
        let outcome = self.end();
        self.state.report(Outcome::Ignored);
        if let Some(tally) = self.member.tally() {
            match turned_down {
                Some(how) => tally.turned_down(how),
                None => self.count(tally, outcome),
            }
            self.state.count();
        }
        self.state.end_wait();
        if self.state.end_half_open() {
            self.judge(TrialVerdict::Failed);
        }
    }

    /// The endpoint has no room for the request, which goes to another one, or fails. That doesn't count against the
    /// endpoint.
    pub(crate) fn found_no_room(&mut self) {
        self.state.report(Outcome::Ignored);
        if let Some(tally) = self.member.tally() {
            tally.turned_down(TurnedDown::Busy);
            self.state.count();
        }
    }

    /// The caller cancels it because another endpoint has answered: neither a success nor a failure, however long it
    /// has waited.
    pub(crate) fn withdraw(&mut self) {
        self.report(Outcome::Ignored);
        // Given up, not cancelled, even after a short wait: the next trial would be withdrawn as soon.
        if self.member.is_unreachable() && self.state.end_trial() {
            self.member.stats().end_trial(TrialVerdict::GivenUp);
            self.member.signals().review.notify_one();
        }
    }

    /// [Withdraws](Self::withdraw) it because its hedge, at another endpoint, was answered first.
    pub(crate) fn lose(&mut self) {
        if self.state.end_half_open() {
            // Late, even if the hedge was sent early: as given up, the pauses between trials would keep growing.
            self.judge(TrialVerdict::Late);
        }
        self.withdraw();
        if let Some(tally) = self.member.tally() {
            tally.overtaken();
        }
        let (signals, waited) = (self.member.signals(), self.waited_without_answer());
        // Losing to a hedge that was sent early doesn't count.
        let is_late = signals.latencies.late().is_some_and(|late| waited > late);
        if is_late && self.member.stats().lost() == OVERTAKEN {
            signals.review.notify_one();
        }
    }

    #[cold]
    fn judge(&self, verdict: TrialVerdict) {
        self.member.stats().judge(verdict);
        self.member.signals().review.notify_one();
    }

    #[inline]
    fn end(&self) -> Outcome {
        match self.state.outcome() {
            Some(outcome) => outcome,
            None if self.state.is_answered() => Outcome::Success,
            None if self.was_given_up() => Outcome::Failure,
            None => Outcome::Ignored,
        }
    }

    /// Whether its caller cancelled it after a long wait, in which the endpoint answered nobody. That isn't so for a
    /// hedge that has lost its race.
    #[cold]
    fn was_given_up(&self) -> bool {
        let answers = self.member.stats().progress();
        let limit = self.member.signals().unresponsive_after();
        self.state.waits()
            && self.state.has_seen_none_of(answers)
            && limit.is_some_and(|limit| self.waited_without_answer() >= limit)
    }

    fn waited_without_answer(&self) -> Duration {
        if self.state.is_answered() || !self.state.waits() {
            return Duration::ZERO;
        }
        self.state.waited(self.now()).unwrap_or_default()
    }

    /// Notes the status of an answer that counts as a failure or an overload.
    #[cfg(feature = "http-body")]
    pub(crate) fn note_status(&self, status: http::StatusCode) {
        if let Some(tally) = self.member.tally() {
            tally.note_status(status.as_u16(), self.member.signals().millis());
        }
    }

    /// Counts its outcome.
    #[inline]
    fn count(&self, tally: &EndpointTally, outcome: Outcome) {
        match outcome {
            Outcome::Success => tally.succeeded(self.state.kept_wait()),
            _ => self.count_failed(tally, outcome),
        }
    }

    #[cold]
    fn count_failed(&self, tally: &EndpointTally, outcome: Outcome) {
        match outcome {
            Outcome::Failure => {
                let how = match self.state.outcome() {
                    None => Failed::GivenUp,
                    Some(_) if self.state.is_answered() => Failed::Answered,
                    Some(_) => Failed::Unanswered,
                };
                tally.failed(how, self.member.signals().millis());
            }
            Outcome::Overload => tally.overloaded(),
            _ if self.state.is_counted() => {}
            _ => tally.cancelled(),
        }
    }

    #[cold]
    fn was_turned_away(&self, outcome: Outcome) {
        if let Some(latency) = self.member.latency() {
            let waited = self.waited_without_answer();
            latency.failed(waited, &self.member.signals().latencies);
        }
        if outcome == Outcome::Failure {
            let in_a_row = self.member.stats().failed(self.state.is_answered());
            self.member.signals().failed(in_a_row);
        }
        // Without reviews nobody would end the penalty, so there is none.
        let is_reviewed = self.member.signals().is_reviewed();
        if !is_reviewed || !self.member.stats().penalise() {
            self.member.end();
        }
    }

    #[cold]
    fn was_cancelled(&self) {
        let signals = self.member.signals();
        if let Some(latency) = self.member.latency() {
            latency.waited(self.waited_without_answer(), &signals.latencies);
        }
        if signals.is_hedged() {
            let waited = self.waited_without_answer();
            self.member.percentile().add_at_least(waited);
        }
    }

    #[cold]
    fn end_special(&self, outcome: Outcome) {
        if self.state.streams() {
            self.member.stats().end_stream();
        }
        // The background task decides when another request may try: otherwise a hung endpoint would get them all, one
        // after another.
        if self.state.is_trial() && self.member.is_unreachable() {
            // It was neither accepted nor refused, so nothing else will report its end.
            self.member.stats().end_trial(self.given_up(outcome));
            self.member.signals().review.notify_one();
        }
        if self.state.is_half_open() {
            self.judge(match outcome {
                Outcome::Success | Outcome::Overload => TrialVerdict::Passed,
                Outcome::Failure => TrialVerdict::Failed,
                Outcome::Ignored => self.given_up(outcome),
            });
        }
    }

    /// The verdict of a trial that ends before anything is known of the endpoint.
    fn given_up(&self, outcome: Outcome) -> TrialVerdict {
        match outcome {
            Outcome::Ignored if self.waited_without_answer() < SOON => TrialVerdict::Cancelled,
            _ => TrialVerdict::GivenUp,
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        let outcome = self.end();
        if let Some(tally) = self.member.tally() {
            self.count(tally, outcome);
        }
        if outcome.is_turned_away() {
            self.was_turned_away(outcome);
        } else {
            if outcome == Outcome::Success {
                self.member.stats().succeeded();
            } else {
                self.was_cancelled();
            }
            self.member.end();
        }
        if self.state.is_special() {
            self.end_special(outcome);
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.endpoint()).finish()
    }
}

/// Decides when a request stops counting as in flight, and its outcome, from its response or its error.
///
/// Use [`OnResponse`] for responses that come whole, and [`OnBodyEnd`] for HTTP. For a protocol with its own kind of
/// response, implement this by moving the guard into that response.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say when a request with the response `{R}` is over",
    label = "this is not a completion for `{R}`",
    note = "use `OnResponse::new()` for responses that come whole, and `OnBodyEnd::new()` for `http::Response`s"
)]
pub trait Completion<R>: Send + Sync + 'static {
    /// The response as the caller gets it.
    type Response;

    /// Keeps `in_flight` for as long as the request runs, and [reports](InFlight::report) its outcome unless that is a success.
    fn complete(&self, in_flight: InFlight, response: R) -> Self::Response;

    /// The outcome of a request that failed with this error of the endpoint's service; a failure by default.
    fn failed(&self, error: &BoxError) -> Outcome {
        let _ = error;
        Outcome::Failure
    }

    /// The HTTP status of a response, if it has one, for [`AttemptOutcome::Answered`](crate::AttemptOutcome::Answered);
    /// `None` by default.
    fn status(&self, response: &R) -> Option<u16> {
        let _ = response;
        None
    }

    /// Whether [`complete`](Self::complete) always drops the guard, because responses come whole; false by default: the
    /// guard may live on with a response that streams.
    ///
    /// A request whose response streams is in flight, but doesn't wait. If this returns true although the guard lives
    /// on, an endpoint with many long responses is taken for unresponsive.
    fn is_whole(&self) -> bool {
        false
    }
}

/// A [`Completion`] that ends a request when its response comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnResponse<C = ByResult>(C);

impl OnResponse {
    /// A response is a success, an error a failure.
    pub const fn new() -> Self {
        Self(ByResult)
    }
}

impl<C> OnResponse<C> {
    /// `classify` decides the outcome: any closure from a result to an [`Outcome`].
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

    #[inline]
    fn is_whole(&self) -> bool {
        true
    }
}
