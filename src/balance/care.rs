//! The endpoints' health put into practice: reads their records, has them judged, and puts them out or takes them back.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::Rng;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::slow_start::SlowStart;
use crate::{
    endpoint::Endpoint,
    load::{Checked, Counts, EjectionReason, Load},
    outlier::{Finding, OutlierDetection, Standing, Treatment, USUAL, Ward},
    signals::Signals,
};

/// How often the endpoints are looked at while there are requests. A large set takes longer, and can wait.
const INTERVAL: Duration = Duration::from_millis(10);
const LARGE: usize = 256;
const LARGE_INTERVAL: Duration = Duration::from_millis(100);

/// For how long a request that was turned away is counted: four times as long as an answer usually takes, within these bounds.
const MIN_DEBT: Duration = Duration::from_millis(1);
const MAX_DEBT: Duration = Duration::from_secs(1);

pub(super) struct Care {
    ward: Ward,
    signals: Arc<Signals>,
    slow_start: SlowStart,
    /// The set, in its order.
    members: Vec<Member>,
    /// Those that left in a state worth remembering, for they may come back.
    departed: HashMap<SocketAddr, (Endpoint, Standing)>,
    /// Requests that were turned away and are counted yet, in the order of their ends.
    debts: VecDeque<Debt>,
    /// When the next look is due; none while there are no requests.
    next: Option<Instant>,
}

struct Member {
    endpoint: Endpoint,
    load: Arc<Load>,
}

struct Debt {
    due: Instant,
    load: Arc<Load>,
    requests: u32,
}

impl Care {
    pub(super) fn new(
        health: OutlierDetection,
        slow_start: SlowStart,
        signals: Arc<Signals>,
    ) -> Self {
        Self {
            ward: Ward::new(health),
            signals,
            slow_start,
            members: Vec::new(),
            departed: HashMap::new(),
            debts: VecDeque::new(),
            next: None,
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let debt = self.debts.front().map(|debt| debt.due);
        [self.next, self.ward.due(), debt]
            .into_iter()
            .flatten()
            .min()
    }

    /// The set is now this. Who stays, or comes back, keeps its standing.
    pub(super) fn admit(&mut self, endpoints: &[Endpoint], loads: &[Arc<Load>], now: Instant) {
        let members = std::mem::take(&mut self.members);
        // What a client finds in the beginning may have been there for long.
        let is_first = members.is_empty();
        let mut known: HashMap<_, _> = members
            .into_iter()
            .zip(std::mem::take(&mut self.ward.standings))
            .map(|(member, standing)| (member.endpoint.identity(), (member, standing)))
            .collect();
        self.departed
            .retain(|_, (_, standing)| standing.is_worth_keeping(now));
        for (endpoint, load) in endpoints.iter().zip(loads) {
            let before = known.remove(&endpoint.identity());
            let standing = match before {
                Some((member, standing)) if Arc::ptr_eq(&member.load, load) => standing,
                other => {
                    if let Some((member, standing)) = other {
                        self.remember(member.endpoint, standing, now);
                    }
                    if !is_first {
                        self.slow_start.join(load, now);
                    }
                    let mut standing = self.recall(endpoint, now);
                    // What its record tells of before is no news.
                    load.record().news(standing.seen());
                    standing
                }
            };
            self.ward.standings.push(standing);
            self.members.push(Member {
                endpoint: endpoint.clone(),
                load: load.clone(),
            });
        }
        for (member, standing) in known.into_values() {
            self.remember(member.endpoint, standing, now);
        }
    }

    fn remember(&mut self, endpoint: Endpoint, standing: Standing, now: Instant) {
        if standing.is_worth_keeping(now) {
            self.departed
                .insert(endpoint.identity(), (endpoint, standing));
        }
    }

    fn recall(&mut self, endpoint: &Endpoint, now: Instant) -> Standing {
        match self.departed.remove(&endpoint.identity()) {
            Some((before, mut standing)) if before.is_same_pod(endpoint) => {
                standing.resume(now);
                standing
            }
            _ => Standing::new(now),
        }
    }

    /// Looks at all endpoints, and does what there is to do. True if other endpoints than before may be picked.
    pub(super) fn review(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        if !self.signals.is_reviewed() {
            return false;
        }
        self.settle(now);
        self.slow_start
            .review(self.members.len(), &self.signals, now);
        let was_panic = self.ward.is_panic();
        let members = &self.members;
        let examine = |index: usize, seen: &mut Counts| examine(&members[index].load, seen);
        let treatments = self.ward.review(examine, now, rng);
        let latencies = &self.signals.latencies;
        let (mut changed, mut averages) = (false, Vec::new());
        let age = self.signals.age(now);
        for (member, treatment) in members.iter().zip(treatments) {
            changed |= member.apply(treatment);
            let latency = member.load.latency();
            averages.extend(latency.and_then(|it| it.review(age, treatment.quiet, latencies)));
        }
        latencies.learn(&mut averages);
        if let Some(usual) = self.ward.usual() {
            latencies.set_usual(usual);
        }
        let is_panic = self.ward.is_panic();
        for member in members {
            changed |= member.heed_checks(is_panic);
        }
        if let Some(patience) = self.patience() {
            self.signals.set_patience(patience);
        }
        if is_panic != was_panic {
            tell_of_panic(is_panic);
        }
        self.schedule(now);
        changed
    }

    fn patience(&self) -> Option<Duration> {
        self.ward.health().patience(self.ward.usual()?)
    }

    /// Counts out the requests that have been counted for long enough, and counts in those that were turned away since.
    fn settle(&mut self, now: Instant) {
        let over = self.debts.partition_point(|debt| debt.due <= now);
        for debt in self.debts.drain(..over) {
            debt.load.record().settle(debt.requests);
            debt.load.end_all(debt.requests);
        }
        let usual = self.ward.usual().unwrap_or_default();
        let due = now + usual.saturating_mul(USUAL).clamp(MIN_DEBT, MAX_DEBT);
        for member in &self.members {
            let requests = member.load.record().take_debts();
            if requests > 0 {
                self.debts.push_back(Debt {
                    due,
                    load: member.load.clone(),
                    requests,
                });
            }
        }
    }

    /// Looks again after a while, as long as there are requests.
    fn schedule(&mut self, now: Instant) {
        if self.next.is_some_and(|next| next > now) {
            return;
        }
        let is_large = self.members.len() > LARGE;
        let interval = if is_large { LARGE_INTERVAL } else { INTERVAL };
        let has_picks = self.signals.look_out() || !self.signals.fall_asleep();
        self.next = has_picks.then(|| now + interval);
    }
}

fn examine(load: &Load, seen: &mut Counts) -> Finding {
    let record = load.record();
    let checked = record.checked();
    Finding {
        news: record.news(seen),
        in_a_row: record.in_a_row(),
        in_flight: load.in_flight(),
        verdict: record.take_verdict(),
        // Whatever its requests come to.
        is_out_anyway: load.is_unreachable() || checked != Checked::Passes,
        is_pending: checked == Checked::Pending,
    }
}

impl Member {
    /// True if picks treat it differently from now on.
    fn apply(&self, treatment: &Treatment) -> bool {
        let Self { endpoint, load } = self;
        if treatment.is_news {
            load.record().forgive();
        }
        let changed = match treatment.out {
            Some(reason) => {
                load.record().set_reason(Some(reason));
                let is_new = load.eject();
                match reason {
                    _ if !is_new => {}
                    EjectionReason::Unresponsive => {
                        debug!(%endpoint, "endpoint is silent, and ejected")
                    }
                    _ => info!(%endpoint, %reason, "endpoint ejected"),
                }
                is_new
            }
            None => {
                load.record().set_reason(None);
                let is_new = load.readmit();
                if is_new {
                    info!(%endpoint, "endpoint readmitted");
                }
                is_new
            }
        };
        if treatment.begins_probation {
            load.offer_trial();
        }
        changed || treatment.begins_probation
    }

    /// The same for what its checks say. A panic takes back those that fail, but not those that are yet to pass one.
    fn heed_checks(&self, is_panic: bool) -> bool {
        let load = &self.load;
        let is_out = match load.record().checked() {
            Checked::Passes => false,
            Checked::Fails => !is_panic,
            Checked::Pending => true,
        };
        match is_out {
            true => load.set_unfit(),
            false => load.set_fit(),
        }
    }
}

fn tell_of_panic(begins: bool) {
    if begins {
        warn!("too few endpoints are healthy: all get requests");
    } else {
        info!("enough endpoints are healthy: the others are passed over");
    }
}
