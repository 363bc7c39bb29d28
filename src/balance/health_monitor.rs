//! Runs outlier detection; ejects and readmits endpoints.
//!
//! ```text
//!  requests' ends, checks, refusals ──▶ observations ──▶ the detector judges them all (pure) ──▶ decisions are applied
//! ```

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use super::{registry::Lives, slow_start::SlowStart};
use crate::{
    logs::{Change, ENDPOINTS, change, debug, info, warn},
    member::{Checked, EjectionReason, Member},
    outlier::{Case, Decision, OutlierDetection, OutlierDetector, USUAL},
    signals::Signals,
};

/// How often the endpoints are reviewed while there are requests. A review of a large set takes longer, so it is less
/// often.
const INTERVAL: Duration = Duration::from_millis(10);
const LARGE: usize = 256;
const LARGE_INTERVAL: Duration = Duration::from_millis(100);

/// How long a failure penalty counts as load: four times as long as an answer usually takes, within these bounds.
const MIN_PENALTY: Duration = Duration::from_millis(1);
const MAX_PENALTY: Duration = Duration::from_secs(1);

pub(super) struct HealthMonitor {
    detector: OutlierDetector,
    /// There is a panic, and some endpoints are picked only because of it.
    is_panic: bool,
    signals: Arc<Signals>,
    slow_start: SlowStart,
    /// Failure penalties, in the order of their ends. Those of a member that has left stay until then, for a second at
    /// most.
    penalties: VecDeque<Penalty>,
    /// When the next review is due; `None` while there are no requests.
    next: Option<Instant>,
}

/// Failed requests of a member that still count as its load.
struct Penalty {
    due: Instant,
    member: Arc<Member>,
    requests: u32,
}

impl HealthMonitor {
    pub(super) fn new(
        settings: OutlierDetection,
        slow_start: SlowStart,
        signals: Arc<Signals>,
    ) -> Self {
        Self {
            detector: OutlierDetector::new(settings),
            is_panic: false,
            signals,
            slow_start,
            penalties: VecDeque::new(),
            next: None,
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let penalty = self.penalties.front().map(|penalty| penalty.due);
        [self.next, self.detector.due(), penalty]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether any endpoint is picked only because too few are healthy. False if all the others refuse requests: then
    /// the panic changes nothing.
    pub(super) fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// Slow start, for members that join.
    pub(super) fn slow_start(&self) -> &SlowStart {
        &self.slow_start
    }

    /// Reviews all endpoints, and applies the decisions. True if picks may take other endpoints than before.
    pub(super) fn review<S>(
        &mut self,
        lives: &mut Lives<S>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> bool {
        if !self.signals.is_reviewed() {
            return false;
        }
        self.end_penalties(now);
        self.begin_penalties(lives, now);
        self.slow_start.review(lives, &self.signals, now);
        let observe = lives.values_mut().map(|life| {
            let weight = life.endpoint.weight();
            Case::observe(&life.member, weight, &mut life.health)
        });
        let mut cases: Vec<_> = observe.collect();
        self.detector.review(&mut cases, now, rng);
        let is_panic = self.detector.is_panic();
        let mut changed = false;
        for case in &cases {
            changed |= apply(&case.decision, case.member) | heed_checks(case.member, is_panic);
        }
        self.learn(&cases, now);
        // `self.is_panic` keeps it on while a spared endpoint recovers and fails again.
        let is_of_use = self.is_panic || cases.iter().any(Case::is_spared);
        let is_panic = is_panic && cases.len() > 1 && is_of_use;
        if std::mem::replace(&mut self.is_panic, is_panic) != is_panic {
            tell_of_panic(&self.signals, is_panic, now);
        }
        self.schedule(lives.len(), now);
        changed
    }

    /// Updates what is usual: latencies, and how long an endpoint may be unresponsive.
    fn learn(&self, cases: &[Case<'_>], now: Instant) {
        let latencies = &self.signals.latencies;
        let age = self.signals.age(now);
        let latency = |case: &Case<'_>| {
            let latency = case.member.latency()?;
            latency.review(age, case.decision.quiet, latencies)
        };
        let mut averages: Vec<_> = cases.iter().filter_map(latency).collect();
        latencies.learn(&mut averages);
        if self.signals.is_hedged() {
            let percentile = |case: &Case<'_>| case.member.percentile().get();
            let mut percentiles: Vec<_> = cases.iter().filter_map(percentile).collect();
            latencies.learn_late(&mut percentiles);
        }
        if let Some(usual) = self.detector.usual() {
            latencies.set_usual(usual);
        }
        if let Some(limit) = self.detector.unresponsive_limit() {
            self.signals.set_unresponsive_after(limit);
        }
    }

    /// Ends the failure penalties that are due: they no longer count as load.
    fn end_penalties(&mut self, now: Instant) {
        let over = self.penalties.partition_point(|penalty| penalty.due <= now);
        for penalty in self.penalties.drain(..over) {
            penalty.member.stats().forget_penalties(penalty.requests);
            penalty.member.end_all(penalty.requests);
        }
    }

    /// Schedules the ends of the failure penalties since the last review.
    fn begin_penalties<S>(&mut self, lives: &Lives<S>, now: Instant) {
        let usual = self.detector.usual().unwrap_or_default();
        let due = now + usual.saturating_mul(USUAL).clamp(MIN_PENALTY, MAX_PENALTY);
        for life in lives.values() {
            let requests = life.member.stats().take_penalties();
            if requests > 0 {
                let member = life.member.clone();
                self.penalties.push_back(Penalty {
                    due,
                    member,
                    requests,
                });
            }
        }
    }

    /// Schedules the next review, as long as there are requests.
    fn schedule(&mut self, endpoints: usize, now: Instant) {
        if self.next.is_some_and(|next| next > now) {
            return;
        }
        let is_large = endpoints > LARGE;
        let interval = if is_large { LARGE_INTERVAL } else { INTERVAL };
        let has_picks = self.signals.look_out() || !self.signals.fall_asleep();
        self.next = has_picks.then(|| now + interval);
    }
}

/// Applies a decision to its member. True if picks treat the endpoint differently from now on.
fn apply(decision: &Decision, member: &Member) -> bool {
    if decision.is_news {
        member.stats().forget_failures();
    }
    let (endpoint, signals) = (member.endpoint(), member.signals());
    let before = member.stats().reason();
    member.stats().set_reason(decision.out);
    let changed = match decision.out {
        Some(reason) => {
            let is_new = member.eject();
            if before != decision.out {
                change!(Ejected, signals, %endpoint, %reason, "endpoint ejected");
                if let Some(tally) = member.tally() {
                    tally.ejected(reason as usize);
                }
            }
            is_new
        }
        None => {
            let is_new = member.readmit();
            if is_new {
                change!(Readmitted, signals, %endpoint, "endpoint readmitted");
            }
            is_new
        }
    };
    // An endpoint that refuses requests gets its trial when it accepts them again.
    if decision.becomes_half_open && !member.is_unreachable() {
        member.offer_trial();
    }
    changed || decision.becomes_half_open
}

/// Takes an endpoint out, or back, by its health checks. A panic takes back endpoints that fail checks, but not those
/// that have passed none yet. True if picks treat the endpoint differently from now on.
fn heed_checks(member: &Member, is_panic: bool) -> bool {
    let is_out = match member.stats().checked() {
        Checked::Passes => false,
        Checked::Fails => !is_panic,
        Checked::Pending => true,
    };
    match is_out {
        true => {
            let is_new = member.set_unfit();
            if is_new
                && member.stats().checked() == Checked::Fails
                && let Some(tally) = member.tally()
            {
                tally.ejected(EjectionReason::CheckFailed as usize);
            }
            is_new
        }
        false => member.set_fit(),
    }
}

fn tell_of_panic(signals: &Signals, begins: bool, now: Instant) {
    const BEGINS: &str = "too few endpoints are healthy: all get requests";
    const ENDS: &str = "enough endpoints are healthy: the others are passed over";
    let service = signals.service();
    match (begins, signals.changes.is_told(Change::Panic, now)) {
        (true, true) => warn!(ENDPOINTS, service, "{BEGINS}"),
        (true, false) => debug!(ENDPOINTS, service, "{BEGINS}"),
        (false, true) => info!(ENDPOINTS, service, "{ENDS}"),
        (false, false) => debug!(ENDPOINTS, service, "{ENDS}"),
    }
}
