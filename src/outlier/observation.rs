//! What the detector observes of an endpoint, and what it decides.

use std::time::Duration;

use crate::member::{Checked, Counts, EjectionReason, Member, News, TrialVerdict};

/// What an endpoint's counters say in a review.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) news: News,
    pub(crate) in_a_row: u32,
    /// Requests in a row whose hedge was answered first.
    pub(crate) overtaken: u32,
    /// Requests without an answer yet.
    pub(crate) waiting: u32,
    pub(crate) verdict: Option<TrialVerdict>,
    /// It refuses connections, or has not passed its checks.
    pub(crate) is_out_anyway: bool,
    /// It is new, and has to pass a check before it counts.
    pub(crate) is_pending: bool,
}

impl Observation {
    /// Observes `member` since `seen`, and sets `seen` to the present counts.
    pub(super) fn of(member: &Member, seen: &mut Counts) -> Self {
        let stats = member.stats();
        let checked = stats.checked();
        Self {
            news: stats.news(seen),
            in_a_row: stats.in_a_row(),
            overtaken: stats.overtaken(),
            waiting: member.waiting(),
            verdict: stats.take_verdict(),
            // Regardless of its requests.
            is_out_anyway: member.is_unreachable() || checked != Checked::Passes,
            is_pending: checked == Checked::Pending,
        }
    }
}

/// What to do with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Why it is ejected, if it is.
    pub(crate) out: Option<EjectionReason>,
    /// It was ejected or readmitted: its failures in a row begin at zero.
    pub(crate) is_news: bool,
    /// From now on one request may try it.
    pub(crate) becomes_half_open: bool,
    /// For how long it has had requests and answered none.
    pub(crate) quiet: Duration,
}

/// The set's statistics, for judging one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetStats {
    /// How many answers all endpoints that count have begun.
    pub(super) answers: u64,
    /// How many other endpoints count.
    pub(super) others: usize,
    /// How long an endpoint may leave requests unanswered, if that is known.
    pub(super) unresponsive_limit: Option<Duration>,
}
