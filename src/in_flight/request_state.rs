//! A request's state so far, in one word.
//!
//! A guard is moved several times during a call, and two words are passed in registers: with a field for each part, a
//! request took 20 ns longer.
//!
//! ```text
//!  63                            24 23              8     7        6   5       3      2        1       0
//! ┌────────────────────────────────┬─────────────────┬─────────┬───────┬─────────┬──────────┬───────┬───────┐
//! │ since when it waits, in ticks  │ answers by then │ streams │ waits │ outcome │ answered │ half-open │ trial │
//! └────────────────────────────────┴─────────────────┴─────────┴───────┴─────────┴──────────┴───────┴───────┘
//! ```

use std::time::Duration;

use crate::outcome::Outcome;

const TRIAL: u64 = 1;
const HALF_OPEN: u64 = 1 << 1;
const ANSWERED: u64 = 1 << 2;
const OUTCOME: u32 = 3;
const OUTCOMES: u64 = 0b111 << OUTCOME;
/// Ignored, and counted already.
const COUNTED: u64 = 5;
const WAITS: u64 = 1 << 6;
const STREAMS: u64 = 1 << 7;
const ANSWERS: u32 = 8;
const SINCE: u32 = 24;

/// A tick has 2⁷ = 128 ns.
const TICK: u32 = 7;

/// Ticks wrap after 2⁴⁰, which is 39 hours.
const TICKS: u64 = u64::MAX >> SINCE;

/// A request's state so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestState(u64);

impl RequestState {
    /// A request that has just been picked. It may be a trial, of an endpoint that refuses requests or of one that is
    /// ejected (`is_half_open`).
    #[inline]
    pub(super) fn new(is_trial: bool, is_half_open: bool) -> Self {
        Self((u64::from(is_trial) * TRIAL) | (u64::from(is_half_open) * HALF_OPEN))
    }

    #[inline]
    pub(super) fn is_half_open(self) -> bool {
        self.0 & HALF_OPEN != 0
    }

    #[inline]
    pub(super) fn is_trial_or_half_open(self) -> bool {
        self.0 & (TRIAL | HALF_OPEN) != 0
    }

    /// Its answer has begun, and may take long to end.
    pub(super) fn stream(&mut self) {
        self.0 |= STREAMS;
    }

    pub(super) fn streams(self) -> bool {
        self.0 & STREAMS != 0
    }

    /// Whether its end needs more work than most requests'.
    #[inline]
    pub(super) fn is_special(self) -> bool {
        self.0 & (TRIAL | HALF_OPEN | STREAMS) != 0
    }

    #[inline]
    pub(super) fn is_trial(self) -> bool {
        self.0 & TRIAL != 0
    }

    /// It is no longer a trial. True if it was.
    #[inline]
    pub(super) fn end_trial(&mut self) -> bool {
        self.take(TRIAL)
    }

    /// It is no longer the one request of a half-open endpoint. True if it was.
    #[inline]
    pub(super) fn end_half_open(&mut self) -> bool {
        self.take(HALF_OPEN)
    }

    #[inline]
    fn take(&mut self, flag: u64) -> bool {
        let was = self.0 & flag != 0;
        self.0 &= !flag;
        was
    }

    #[inline]
    pub(super) fn is_answered(self) -> bool {
        self.0 & ANSWERED != 0
    }

    #[inline]
    pub(super) fn answer(&mut self) {
        self.0 |= ANSWERED;
    }

    /// The outcome reported so far.
    #[inline]
    pub(super) fn outcome(self) -> Option<Outcome> {
        match (self.0 & OUTCOMES) >> OUTCOME {
            1 => Some(Outcome::Success),
            2 => Some(Outcome::Failure),
            3 => Some(Outcome::Overload),
            4 | COUNTED => Some(Outcome::Ignored),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn report(&mut self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Success => 1,
            Outcome::Failure => 2,
            Outcome::Overload => 3,
            Outcome::Ignored => 4,
        };
        self.0 = (self.0 & !OUTCOMES) | (outcome << OUTCOME);
    }

    #[inline]
    pub(super) fn waits(self) -> bool {
        self.0 & WAITS != 0
    }

    /// It waits from `now`, in nanoseconds of any clock; its endpoint has begun `answers` answers by now.
    #[inline]
    pub(super) fn wait(&mut self, now: u64, answers: u32) {
        self.end_wait();
        self.0 |= WAITS | ((now >> TICK) << SINCE) | (u64::from(answers as u16) << ANSWERS);
    }

    #[inline]
    pub(super) fn end_wait(&mut self) {
        self.0 &= (WAITS - 1) | STREAMS;
    }

    /// Its answer has begun after `nanos` nanoseconds: keeps this in place of the beginning of the wait.
    pub(super) fn keep_wait(&mut self, nanos: u64) {
        if self.waits() {
            self.0 = (self.0 & !(TICKS << SINCE)) | ((nanos >> TICK) << SINCE);
        }
    }

    /// How long it waited for its answer, in nanoseconds, once that [is kept](Self::keep_wait).
    #[inline]
    pub(super) fn kept_wait(self) -> u64 {
        if self.waits() {
            (self.0 >> SINCE) << TICK
        } else {
            0
        }
    }

    /// Marks it as counted already.
    pub(super) fn count(&mut self) {
        self.0 = (self.0 & !OUTCOMES) | (COUNTED << OUTCOME);
    }

    /// Whether it has been counted already.
    pub(super) fn is_counted(self) -> bool {
        (self.0 & OUTCOMES) >> OUTCOME == COUNTED
    }

    /// How long it has waited, to within a tick, if it waits.
    #[inline]
    pub(super) fn waited(self, now: u64) -> Option<Duration> {
        let ticks = (now >> TICK).wrapping_sub(self.0 >> SINCE) & TICKS;
        self.waits().then(|| Duration::from_nanos(ticks << TICK))
    }

    /// Whether its endpoint, which has begun `answers` answers by now, has begun none while it waited. Wrong in one of
    /// 65,536 cases, because it compares 16 bits.
    pub(super) fn has_seen_none_of(self, answers: u32) -> bool {
        (self.0 >> ANSWERS) as u16 == answers as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn each_part_is_read_as_written_and_changes_no_other() {
        let outcomes = [
            Outcome::Success,
            Outcome::Failure,
            Outcome::Overload,
            Outcome::Ignored,
        ];
        for (trial, half_open) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut state = RequestState::new(trial, half_open);
            assert!(!state.is_answered() && !state.waits() && state.outcome().is_none());
            assert_eq!(state.waited(HOUR), None);
            state.wait(HOUR, 70_001);
            state.answer();
            for outcome in outcomes {
                state.report(outcome);
                assert_eq!(state.outcome(), Some(outcome));
            }
            assert!(state.is_answered() && state.waits());
            assert_eq!(state.is_trial_or_half_open(), trial || half_open);
            assert!(state.has_seen_none_of(70_001) && !state.has_seen_none_of(70_002));
            assert_eq!((state.end_trial(), state.end_trial()), (trial, false));
            assert_eq!(state.is_half_open(), half_open);
            assert_eq!(
                (state.end_half_open(), state.end_half_open()),
                (half_open, false)
            );
            state.stream();
            state.end_wait();
            assert!(!state.waits() && state.is_answered() && state.streams());
            assert_eq!(state.outcome(), Some(Outcome::Ignored));
        }
    }

    #[test]
    fn waits_are_right_to_within_a_tick_at_any_time() {
        for begun in [0, 1, 127, 128, HOUR, 39 * HOUR, 1_000_000 * HOUR + 1] {
            for wait in [0, 1_000, 1_000_000_000, 38 * HOUR] {
                let mut state = RequestState::new(false, false);
                state.wait(begun, 0);
                let waited = state.waited(begun + wait).expect("it waits");
                let error = i128::from(wait) - waited.as_nanos() as i128;
                assert!(error.abs() <= 128, "{begun} {wait} {waited:?}");
            }
        }
    }

    #[test]
    fn a_second_wait_is_a_new_one() {
        let mut state = RequestState::new(true, false);
        state.wait(HOUR, u32::MAX);
        state.wait(2 * HOUR, 5);
        assert_eq!(state.waited(2 * HOUR), Some(Duration::ZERO));
        assert!(state.has_seen_none_of(5) && state.end_trial());
    }
}
