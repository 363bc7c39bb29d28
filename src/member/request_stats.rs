//! An endpoint's request statistics, for the reviews of its health.
//!
//! Every request writes here, so a request does little: one addition when its answer begins and one read when it ends,
//! if all is well. The background task reads the statistics, and does the rest.

use std::{fmt, time::Duration};

use crate::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// One answer: the number of answers is above this bit, and the sum of their times, in microseconds, below it.
const ANSWER: u64 = 1 << 40;

/// An endpoint is slow after this many requests in a row whose hedge was answered first.
pub(crate) const OVERTAKEN: u32 = 3;

/// The most failure penalties of an endpoint.
const MAX_PENALTIES: u32 = 64;

/// An endpoint's request statistics.
#[derive(Debug, Default)]
pub(crate) struct RequestStats {
    /// The number of answers that have begun, and the sum of the times until then. Never reset: reviews take
    /// differences.
    answers: AtomicU64,
    failures: AtomicU32,
    /// The failures without an answer.
    unanswered: AtomicU32,
    /// Requests in a row that failed or were refused.
    in_a_row: AtomicU32,
    /// Requests in a row whose hedge was answered first; an answer in time ends the row.
    overtaken: AtomicU32,
    /// Requests in flight whose answer has begun, and may take long to end.
    streaming: AtomicU32,
    /// Failure penalties, by which failed requests still count as load: the new ones, and all of them.
    new_penalties: AtomicU32,
    penalties: AtomicU32,
    /// The verdict of the one request of a half-open endpoint.
    verdict: AtomicU8,
    /// How the trial request of an endpoint that refuses ended, if it was neither accepted nor refused.
    trial: AtomicU8,
    /// Why the endpoint is out, plus one; zero while it isn't.
    reason: AtomicU8,
    /// The state of its health checks.
    checked: AtomicU8,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EjectionReason {
    /// [Too many failures in a row](crate::OutlierDetection::consecutive_failures).
    ConsecutiveFailures,
    /// [Too few successes](crate::OutlierDetection::success_rate).
    SuccessRate,
    /// Several requests wait, and [none is answered](crate::OutlierDetection::unresponsive_after).
    Unresponsive,
    /// [Its health checks](crate::HealthCheck) fail.
    CheckFailed,
    /// [It is slow](crate::Hedge#slow-pods): other endpoints answered several of its requests first.
    Slow,
}

/// The state of an endpoint's health checks. An endpoint without checks passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Checked {
    #[default]
    Passes,
    Fails,
    /// It is new, and has to pass a check before it gets requests.
    Pending,
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveFailures => "consecutive failures",
            Self::SuccessRate => "too few successes",
            Self::Unresponsive => "unresponsive",
            Self::CheckFailed => "health check failed",
            Self::Slow => "slow",
        })
    }
}

/// What came of a trial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrialVerdict {
    /// Its answer has begun, and looks good.
    Answered,
    Passed,
    Failed,
    /// A hedge was answered first, or would have been.
    Late,
    /// Its caller cancelled it while it waited, or its outcome says nothing about the endpoint.
    GivenUp,
    /// It was cancelled before the endpoint had it, or right after.
    Cancelled,
}

impl TrialVerdict {
    const ALL: [Self; 6] = [
        Self::Answered,
        Self::Passed,
        Self::Failed,
        Self::Late,
        Self::GivenUp,
        Self::Cancelled,
    ];

    /// A code above zero, because zero stands for no verdict.
    fn code(self) -> u8 {
        self as u8 + 1
    }
}

fn take(code: &AtomicU8) -> Option<TrialVerdict> {
    // A plain read first, because most of the time there is none.
    if code.load(Acquire) == 0 {
        return None;
    }
    let code = code.swap(0, AcqRel);
    TrialVerdict::ALL
        .into_iter()
        .find(|verdict| verdict.code() == code)
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    answers: u64,
    failures: u32,
    unanswered: u32,
}

/// What is new since earlier [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) answers: u32,
    /// The answers' mean time; `None` without answers.
    pub(crate) mean: Option<Duration>,
    pub(crate) failures: u32,
    /// Requests that were answered or failed.
    pub(crate) requests: u32,
}

impl RequestStats {
    /// An answer has begun, `after` this time.
    #[inline]
    pub(crate) fn answered(&self, after: Duration) {
        // The sum has room for twelve days, so one wait can't fill it. It may wrap: only differences are used.
        let micros = (after.as_micros() as u64).min(u64::from(u32::MAX));
        self.answers.fetch_add(ANSWER + micros, Relaxed);
    }

    /// How many answers have begun, modulo 2²⁴; to compare with a later value.
    #[inline]
    pub(crate) fn progress(&self) -> u32 {
        (self.answers.load(Relaxed) / ANSWER) as u32
    }

    #[inline]
    pub(crate) fn succeeded(&self) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// The endpoint refused a request that it had got. Returns how many in a row that makes.
    pub(crate) fn refused(&self) -> u32 {
        self.in_a_row.fetch_add(1, Relaxed) + 1
    }

    /// A request has failed. Returns how many in a row that makes.
    pub(crate) fn failed(&self, answered: bool) -> u32 {
        self.failures.fetch_add(1, Relaxed);
        if !answered {
            self.unanswered.fetch_add(1, Relaxed);
        }
        self.in_a_row.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    /// Forgets the failures so far, and the lost hedges.
    pub(crate) fn forget_failures(&self) {
        self.in_a_row.store(0, Relaxed);
        self.overtaken.store(0, Relaxed);
    }

    /// A hedge was answered before its request. Returns how many in a row that makes.
    pub(crate) fn lost(&self) -> u32 {
        self.overtaken.fetch_add(1, Relaxed) + 1
    }

    /// An answer came in time: ends the row of lost hedges.
    #[inline]
    pub(crate) fn keep_up(&self) {
        if self.overtaken.load(Relaxed) != 0 {
            self.overtaken.store(0, Relaxed);
        }
    }

    /// How many requests in a row had their hedge answered first.
    pub(crate) fn overtaken(&self) -> u32 {
        self.overtaken.load(Relaxed)
    }

    /// An answer has begun that may take long to end.
    pub(crate) fn begin_stream(&self) {
        self.streaming.fetch_add(1, Relaxed);
    }

    pub(crate) fn end_stream(&self) {
        self.streaming.fetch_sub(1, Relaxed);
    }

    /// How many answers have begun but not ended, of those that may take long.
    pub(crate) fn streaming(&self) -> u32 {
        self.streaming.load(Relaxed)
    }

    /// Adds a failure penalty: a failed request goes on counting as load. If true, the background task ends it.
    pub(crate) fn penalise(&self) -> bool {
        if self.penalties.fetch_add(1, Relaxed) >= MAX_PENALTIES {
            self.penalties.fetch_sub(1, Relaxed);
            return false;
        }
        self.new_penalties.fetch_add(1, Relaxed);
        true
    }

    /// The penalties that are new since the last time.
    pub(crate) fn take_penalties(&self) -> u32 {
        match self.new_penalties.load(Relaxed) {
            0 => 0,
            _ => self.new_penalties.swap(0, Relaxed),
        }
    }

    #[inline]
    pub(crate) fn penalties(&self) -> u32 {
        self.penalties.load(Relaxed)
    }

    /// Ends this many penalties.
    pub(crate) fn forget_penalties(&self, penalties: u32) {
        self.penalties.fetch_sub(penalties, Relaxed);
    }

    pub(crate) fn judge(&self, verdict: TrialVerdict) {
        self.verdict.store(verdict.code(), Release);
    }

    /// The verdict, unless it was taken before.
    pub(crate) fn take_verdict(&self) -> Option<TrialVerdict> {
        take(&self.verdict)
    }

    /// A trial request has ended without an answer or a refusal.
    pub(crate) fn end_trial(&self, verdict: TrialVerdict) {
        self.trial.store(verdict.code(), Release);
    }

    /// How a trial request ended without an answer or a refusal, unless that was taken before.
    pub(crate) fn take_trial(&self) -> Option<TrialVerdict> {
        take(&self.trial)
    }

    pub(crate) fn set_reason(&self, reason: Option<EjectionReason>) {
        let reason = match reason {
            None => 0,
            Some(EjectionReason::ConsecutiveFailures) => 1,
            Some(EjectionReason::SuccessRate) => 2,
            Some(EjectionReason::Unresponsive) => 3,
            Some(EjectionReason::CheckFailed) => 4,
            Some(EjectionReason::Slow) => 5,
        };
        self.reason.store(reason, Relaxed);
    }

    /// Why the endpoint is ejected, if it is.
    pub(crate) fn reason(&self) -> Option<EjectionReason> {
        match self.reason.load(Relaxed) {
            1 => Some(EjectionReason::ConsecutiveFailures),
            2 => Some(EjectionReason::SuccessRate),
            3 => Some(EjectionReason::Unresponsive),
            4 => Some(EjectionReason::CheckFailed),
            5 => Some(EjectionReason::Slow),
            _ => None,
        }
    }

    pub(crate) fn set_checked(&self, checked: Checked) {
        self.checked.store(checked as u8, Relaxed);
    }

    /// The state of the endpoint's health checks.
    pub(crate) fn checked(&self) -> Checked {
        const FAILS: u8 = Checked::Fails as u8;
        const PENDING: u8 = Checked::Pending as u8;
        match self.checked.load(Relaxed) {
            FAILS => Checked::Fails,
            PENDING => Checked::Pending,
            _ => Checked::Passes,
        }
    }

    /// What is new since `seen`, which is set to the present counts.
    pub(crate) fn news(&self, seen: &mut Counts) -> News {
        let now = Counts {
            answers: self.answers.load(Relaxed),
            failures: self.failures.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
        };
        let before = std::mem::replace(seen, now);
        let difference = now.answers.wrapping_sub(before.answers);
        let answers = (difference / ANSWER) as u32;
        let micros = Duration::from_micros(difference % ANSWER);
        News {
            answers,
            mean: micros.checked_div(answers),
            failures: now.failures.wrapping_sub(before.failures),
            requests: answers.saturating_add(now.unanswered.wrapping_sub(before.unanswered)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_the_difference_since_it_was_last_taken() {
        let (record, mut seen) = (RequestStats::default(), Counts::default());
        assert_eq!(record.news(&mut seen), News::default());
        for millis in [1, 2, 3] {
            record.answered(Duration::from_millis(millis));
        }
        record.failed(true);
        record.failed(false);
        let news = record.news(&mut seen);
        assert_eq!((news.answers, news.requests, news.failures), (3, 4, 2));
        assert_eq!(news.mean, Some(Duration::from_millis(2)));
        assert_eq!(record.news(&mut seen), News::default());
    }

    #[test]
    fn news_is_right_even_if_sums_wrap() {
        let (record, mut seen) = (RequestStats::default(), Counts::default());
        let day = Duration::from_secs(3_600);
        for _ in 0..600 {
            record.answered(day);
            let news = record.news(&mut seen);
            assert_eq!((news.answers, news.mean), (1, Some(day)));
        }
    }

    #[test]
    fn a_success_ends_a_row_of_failures() {
        let record = RequestStats::default();
        assert_eq!([record.failed(true), record.failed(true)], [1, 2]);
        record.succeeded();
        assert_eq!(record.in_a_row(), 0);
        assert_eq!(record.failed(true), 1);
    }

    #[test]
    fn penalties_are_bounded() {
        let stats = RequestStats::default();
        let counted = (0..100).filter(|_| stats.penalise()).count();
        assert_eq!(counted, MAX_PENALTIES as usize);
        let taken = (stats.take_penalties(), stats.take_penalties());
        assert_eq!(taken, (MAX_PENALTIES, 0));
        assert!(!stats.penalise());
        stats.forget_penalties(MAX_PENALTIES);
        assert!(stats.penalise());
    }
}
