//! What the detector is told of an endpoint, and what it decides.

use std::time::Duration;

use crate::member::{Checked, Counts, EjectionReason, Member, News, Verdict};

/// What an endpoint's counters say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) news: News,
    pub(crate) in_a_row: u32,
    /// Requests in a row that were answered by a hedge first.
    pub(crate) overtaken: u32,
    /// Requests without an answer yet.
    pub(crate) waiting: u32,
    pub(crate) verdict: Option<Verdict>,
    /// It refuses connections, or has not passed its checks.
    pub(crate) is_out_anyway: bool,
    /// It is new, and has to pass a check before it counts.
    pub(crate) is_pending: bool,
}

impl Observation {
    /// What is new of `member` since `seen`, which becomes what there is now.
    pub(super) fn of(member: &Member, seen: &mut Counts) -> Self {
        let stats = member.stats();
        let checked = stats.checked();
        Self {
            news: stats.news(seen),
            in_a_row: stats.in_a_row(),
            overtaken: stats.overtaken(),
            waiting: member.waiting(),
            verdict: stats.take_verdict(),
            // Whatever its requests come to.
            is_out_anyway: member.is_unreachable() || checked != Checked::Passes,
            is_pending: checked == Checked::Pending,
        }
    }
}

/// What has to be done with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Why no pick may take it, if none may.
    pub(crate) out: Option<EjectionReason>,
    /// Its state has changed: the failures that it has in a row are dealt with.
    pub(crate) is_news: bool,
    /// From now on one request may see how it is.
    pub(crate) becomes_half_open: bool,
    /// How long it has had requests and answered none.
    pub(crate) quiet: Duration,
}

/// What the set is like while one endpoint is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetStats {
    /// How many answers there have been, of all endpoints that count.
    pub(super) answers: u64,
    /// How many others there are of those.
    pub(super) others: usize,
    /// How long an endpoint may leave requests unanswered, if that is known.
    pub(super) unresponsive_limit: Option<Duration>,
}
