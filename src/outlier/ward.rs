//! All endpoints' health at one time: who is to be out, and whether that is to be ignored.

use std::{cmp::Reverse, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use super::{OutlierDetection, Standing, standing::Around};
use crate::load::{Counts, EjectionReason, News, Verdict};

/// How much of the usual time is taken from the last review.
const FRESH: f64 = 0.2;

/// The health of a set of endpoints, in the order of the set.
#[derive(Debug)]
pub(crate) struct Ward {
    health: OutlierDetection,
    pub(crate) standings: Vec<Standing>,
    /// What the last review has come to.
    treatments: Vec<Treatment>,
    /// How long an answer takes to begin, usually.
    usual: Option<Duration>,
    answers: u64,
    is_panic: bool,
}

/// What an endpoint's counters say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finding {
    pub(crate) news: News,
    pub(crate) in_a_row: u32,
    pub(crate) in_flight: u32,
    pub(crate) verdict: Option<Verdict>,
    /// It refuses connections, or has not passed its checks.
    pub(crate) is_out_anyway: bool,
    /// It is yet to become one of the set.
    pub(crate) is_pending: bool,
}

/// What is to be done with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Treatment {
    /// Why no pick is to take it, if none is.
    pub(crate) out: Option<EjectionReason>,
    /// Its state has changed: what failures it has in a row are dealt with.
    pub(crate) is_news: bool,
    /// From now on one request may see how it is.
    pub(crate) begins_probation: bool,
    /// For how long it has had requests and answered none.
    pub(crate) quiet: Duration,
}

impl Ward {
    pub(crate) fn new(health: OutlierDetection) -> Self {
        Self {
            health,
            standings: Vec::new(),
            treatments: Vec::new(),
            usual: None,
            answers: 0,
            is_panic: false,
        }
    }

    pub(crate) fn health(&self) -> &OutlierDetection {
        &self.health
    }

    /// How long an answer takes to begin, usually: of each endpoint the mean, of those the median, and of that an average
    /// over the last reviews. None before the first answer.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// Whether ejections are ignored.
    pub(crate) fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// When a state changes by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.standings.iter().filter_map(Standing::due).min()
    }

    /// Looks at all endpoints, and says of each what is to be done.
    pub(crate) fn review(
        &mut self,
        examine: impl Fn(usize, &mut Counts) -> Finding,
        now: Instant,
        rng: &mut impl Rng,
    ) -> &[Treatment] {
        let standings = self.standings.iter_mut().enumerate();
        let findings: Vec<_> = standings
            .map(|(index, standing)| examine(index, standing.seen()))
            .collect();
        self.learn(&findings);
        let state = |standing: &Standing| (standing.is_out(), standing.is_on_probation());
        let before: Vec<_> = self.standings.iter().map(state).collect();
        let complaints = self.reconsider(&findings, now, rng);
        let available = self.eject(complaints, &findings, now, rng);
        self.is_panic = self.health.is_panic(available, members(&findings));
        let is_panic = self.is_panic;
        self.treatments.clear();
        for (standing, (was_out, was_on_probation)) in self.standings.iter_mut().zip(before) {
            if is_panic && standing.is_on_probation() {
                // It has requests enough to show how it is.
                standing.readmit(now);
            }
            self.treatments.push(Treatment {
                out: standing.reason().filter(|_| !is_panic),
                is_news: standing.is_out() != was_out,
                begins_probation: standing.is_on_probation() && !was_on_probation,
                quiet: standing.quiet_for(now),
            });
        }
        &self.treatments
    }

    fn learn(&mut self, findings: &[Finding]) {
        let answers = findings
            .iter()
            .map(|finding| u64::from(finding.news.answers));
        self.answers += answers.sum::<u64>();
        let mut means: Vec<_> = findings.iter().filter_map(|it| it.news.mean).collect();
        if means.is_empty() {
            return;
        }
        let middle = means.len() / 2;
        let (_, &mut median, _) = means.select_nth_unstable(middle);
        self.usual = Some(match self.usual {
            None => median,
            Some(usual) => usual.mul_f64(1.0 - FRESH) + median.mul_f64(FRESH),
        });
    }

    /// What becomes of those that are out, and who else should be.
    fn reconsider(
        &mut self,
        findings: &[Finding],
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<(usize, EjectionReason)> {
        let around = Around {
            answers: self.answers,
            endpoints: findings.len(),
            patience: self.usual.and_then(|usual| self.health.patience(usual)),
        };
        let mut complaints = Vec::new();
        for (index, (standing, finding)) in self.standings.iter_mut().zip(findings).enumerate() {
            if standing.is_out() {
                // What has failed meanwhile is dealt with, whether it is taken back or not.
                standing.reconsider(&self.health, finding, now, rng);
                continue;
            }
            let complaint = standing.complaint(&self.health, finding, &around, now);
            if let Some(reason) = complaint.filter(|_| !finding.is_out_anyway) {
                complaints.push((index, reason));
            }
        }
        // If not all of them can be out, the worst are.
        complaints.sort_by_key(|&(index, _)| Reverse(findings[index].in_a_row));
        complaints
    }

    /// Puts out as many as may be; returns how many endpoints are left.
    fn eject(
        &mut self,
        complaints: Vec<(usize, EjectionReason)>,
        findings: &[Finding],
        now: Instant,
        rng: &mut impl Rng,
    ) -> usize {
        // Those that refuse are out anyway, and use up nothing.
        let reachable = |(standing, finding): (&Standing, &Finding)| {
            (!finding.is_out_anyway).then(|| standing.is_out())
        };
        let reachable = self.standings.iter().zip(findings).filter_map(reachable);
        let (mut out, mut available) = (0, 0);
        for is_out in reachable {
            *if is_out { &mut out } else { &mut available } += 1;
        }
        let most = self.health.may_be_out(members(findings));
        for (index, reason) in complaints {
            if out >= most || available <= 1 {
                break;
            }
            self.standings[index].eject(reason, &self.health, now, rng);
            (out, available) = (out + 1, available - 1);
        }
        available
    }
}

/// How many endpoints there are to speak of.
fn members(findings: &[Finding]) -> usize {
    findings.iter().filter(|it| !it.is_pending).count()
}
