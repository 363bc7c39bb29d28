//! Judges all endpoints of a set at once: which are ejected, and whether a panic ignores that.

use std::{cmp::Reverse, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use super::{Decision, EndpointHealth, Observation, OutlierDetection, observation::SetStats};
use crate::{
    endpoint::Counted,
    member::{Checked, EjectionReason, Member},
};

/// The weight of the last review in the usual time.
const FRESH: f64 = 0.2;

/// Judges the endpoints of a set, review by review.
#[derive(Debug)]
pub(crate) struct OutlierDetector {
    settings: OutlierDetection,
    /// How long an answer takes to begin, usually.
    usual: Option<Duration>,
    answers: u64,
    is_panic: bool,
    due: Option<Instant>,
}

/// One endpoint in a review: its health so far, what has been observed since, and the decision.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) member: &'a Member,
    health: &'a mut EndpointHealth,
    observation: Observation,
    was_out: bool,
    weight: u32,
    /// It gets only requests that ask for it (weight zero), so it doesn't count for how many of the set may be out.
    is_extra: bool,
    pub(crate) decision: Decision,
}

impl<'a> Case<'a> {
    /// Observes how `member`'s requests ended since the last review. `weight` is its endpoint's present weight.
    pub(crate) fn observe(member: &'a Member, weight: u32, health: &'a mut EndpointHealth) -> Self {
        let observation = Observation::of(member, health.seen());
        Self {
            member,
            was_out: health.is_out(),
            health,
            observation,
            weight,
            is_extra: false,
            decision: Decision::default(),
        }
    }
}

impl OutlierDetector {
    pub(crate) fn new(settings: OutlierDetection) -> Self {
        Self {
            settings,
            usual: None,
            answers: 0,
            is_panic: false,
            due: None,
        }
    }

    /// How long an answer usually takes to begin: the median of the endpoints' means, averaged over the last reviews.
    /// `None` before the first answer.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// How long an endpoint may leave requests unanswered, if that is known.
    pub(crate) fn unresponsive_limit(&self) -> Option<Duration> {
        self.settings.unresponsive_limit(self.usual?)
    }

    /// Whether ejections are ignored.
    pub(crate) fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// When a state changes by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Judges all endpoints of the set, and makes a decision for each.
    pub(crate) fn review(&mut self, cases: &mut [Case<'_>], now: Instant, rng: &mut impl Rng) {
        let counted = Counted::of(cases.iter().map(|case| case.weight));
        for case in cases.iter_mut() {
            case.is_extra = !counted.has(case.weight);
        }
        self.learn(cases);
        let complaints = self.reconsider(cases, now, rng);
        let available = self.eject(complaints, cases, now, rng);
        self.is_panic = self.settings.is_panic(available, members(cases));
        for case in cases.iter_mut() {
            case.decide(self.is_panic, now);
        }
        self.due = cases.iter().filter_map(|case| case.health.due()).min();
    }

    fn learn(&mut self, cases: &[Case<'_>]) {
        let news = cases.iter().map(|case| &case.observation.news);
        let counted = cases.iter().filter(|case| !case.is_extra);
        self.answers += counted
            .map(|case| u64::from(case.observation.news.answers))
            .sum::<u64>();
        let mut means: Vec<_> = news.filter_map(|news| news.mean).collect();
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

    /// Updates the endpoints that are out. Returns which others should be out, and why, the worst first.
    fn reconsider(
        &mut self,
        cases: &mut [Case<'_>],
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<(usize, EjectionReason)> {
        // Endpoints of weight zero may get no requests, so their answers say nothing about a silence.
        let counted = cases.iter().filter(|case| !case.is_extra).count();
        let mut set = SetStats {
            answers: self.answers,
            others: 0,
            unresponsive_limit: self.unresponsive_limit(),
        };
        let mut complaints = Vec::new();
        for (index, case) in cases.iter_mut().enumerate() {
            set.others = counted - usize::from(!case.is_extra);
            let observation = &case.observation;
            if case.health.is_out() {
                // Its failures meanwhile belong to this ejection, so they make no new complaint.
                case.health
                    .reconsider(&self.settings, observation, &set, now, rng);
                continue;
            }
            let complaint = case
                .health
                .complaint(&self.settings, observation, &set, now);
            if let Some(reason) = complaint.filter(|_| !observation.is_out_anyway) {
                complaints.push((index, reason));
            }
        }
        // If not all of them can be out, the worst are. Slow ones come last.
        complaints.sort_by_key(|&(index, reason)| {
            let is_slow = reason == EjectionReason::Slow;
            (is_slow, Reverse(cases[index].observation.in_a_row))
        });
        complaints
    }

    /// Ejects as many as may be out. Returns how many endpoints are available.
    fn eject(
        &mut self,
        complaints: Vec<(usize, EjectionReason)>,
        cases: &mut [Case<'_>],
        now: Instant,
        rng: &mut impl Rng,
    ) -> usize {
        let mut tally = Tally::of(cases);
        for (index, reason) in complaints {
            let is_slow = reason == EjectionReason::Slow;
            let is_extra = cases[index].is_extra;
            let may_be_out = match is_extra {
                // If no other one is available, it serves as the last resort.
                true => tally.available > 0,
                false if is_slow => tally.has_room_for_slow(&self.settings),
                false => tally.has_room(&self.settings),
            };
            if may_be_out {
                cases[index].health.eject(reason, &self.settings, now, rng);
                if !is_extra {
                    tally.leave(is_slow);
                }
            } else {
                cases[index].health.lack_room(reason);
            }
        }
        self.take_back_slow(&mut tally, cases, now);
        self.take_back_the_rest(&mut tally, cases, now);
        tally.available
    }

    /// Takes back slow endpoints, the least slow first, until there is room for failing ones and enough are available.
    fn take_back_slow(&self, tally: &mut Tally, cases: &mut [Case<'_>], now: Instant) {
        if tally.slow == 0 || !tally.lacks_room(&self.settings) {
            return;
        }
        let mut slow: Vec<_> = cases
            .iter_mut()
            .filter(|case| case.health.is_slow() && !case.is_extra)
            .collect();
        slow.sort_by_key(|case| (case.observation.is_out_anyway, case.health.slow_pause()));
        for case in slow {
            if !tally.lacks_room(&self.settings) {
                return;
            }
            tally.come_back(case);
            case.health.readmit(now);
        }
    }

    /// Takes endpoints back if more are out than may be: the set has shrunk, or extra endpoints count now because none
    /// has weight any more. Those that accept requests come first, and of those the ones whose next trial is nearest,
    /// because they have been out for long or have failed less often. Not in a panic, when all of them serve anyway.
    fn take_back_the_rest(&self, tally: &mut Tally, cases: &mut [Case<'_>], now: Instant) {
        if !tally.has_too_many_out(&self.settings) {
            return;
        }
        let mut out: Vec<_> = cases
            .iter_mut()
            .filter(|case| case.health.is_out() && !case.is_extra)
            .collect();
        out.sort_by_key(|case| {
            let is_half_open = case.health.is_half_open();
            (
                case.observation.is_out_anyway,
                !is_half_open,
                case.health.due(),
            )
        });
        for case in out {
            if !tally.has_too_many_out(&self.settings) {
                return;
            }
            tally.come_back(case);
            case.health.readmit(now);
        }
    }
}

/// How many endpoints there are, and how many of them are out. Extra endpoints don't count.
#[derive(Debug)]
struct Tally {
    members: usize,
    /// Those that are ejected. Endpoints that refuse, or fail their checks, don't use up room unless they are also
    /// ejected.
    out: usize,
    /// Of these, the ones ejected for being slow.
    slow: usize,
    available: usize,
    /// Those that would be available if they weren't ejected for being slow.
    spare: usize,
}

impl Tally {
    fn of(cases: &[Case<'_>]) -> Self {
        let counted = || cases.iter().filter(|case| !case.is_extra);
        let count = |is: fn(&Case<'_>) -> bool| counted().filter(|case| is(case)).count();
        Self {
            members: members(cases),
            out: count(|case| case.health.is_out()),
            slow: count(|case| case.health.is_slow()),
            available: count(|case| !case.observation.is_out_anyway && !case.health.is_out()),
            spare: count(|case| !case.observation.is_out_anyway && case.health.is_slow()),
        }
    }

    /// Whether one more failing endpoint may be out: slow ones make room for it.
    fn has_room(&self, settings: &OutlierDetection) -> bool {
        self.out - self.slow < settings.may_be_out(self.members) && self.available + self.spare > 1
    }

    /// Whether one more slow endpoint may be out.
    fn has_room_for_slow(&self, settings: &OutlierDetection) -> bool {
        let left = self.available.saturating_sub(1);
        self.out < settings.may_be_out(self.members)
            && left > 0
            && !settings.is_panic(left, self.members)
    }

    /// Whether slow endpoints have to come back: failing ones need their room, or too few are available.
    fn lacks_room(&self, settings: &OutlierDetection) -> bool {
        self.out > settings.may_be_out(self.members)
            || self.available == 0
            || settings.is_panic(self.available, self.members)
    }

    /// Whether more are out than may be.
    fn has_too_many_out(&self, settings: &OutlierDetection) -> bool {
        self.out > settings.may_be_out(self.members)
            && !settings.is_panic(self.available, self.members)
    }

    fn leave(&mut self, is_slow: bool) {
        self.out += 1;
        self.available = self.available.saturating_sub(1);
        if is_slow {
            (self.slow, self.spare) = (self.slow + 1, self.spare + 1);
        }
    }

    /// Counts an ejected endpoint that will be readmitted.
    fn come_back(&mut self, case: &Case<'_>) {
        let is_slow = usize::from(case.health.is_slow());
        (self.out, self.slow) = (self.out - 1, self.slow - is_slow);
        if !case.observation.is_out_anyway {
            (self.spare, self.available) = (self.spare - is_slow, self.available + 1);
        }
    }
}

impl Case<'_> {
    /// Whether it would be out by its requests or its checks, but gets requests.
    pub(crate) fn is_spared(&self) -> bool {
        let fails = self.member.stats().checked() == Checked::Fails;
        (self.health.is_bad() || fails) && self.member.is_available()
    }

    fn decide(&mut self, is_panic: bool, now: Instant) {
        if is_panic && self.health.is_half_open() {
            // In a panic it gets enough requests to show how it does, without a trial.
            self.health.readmit(now);
        }
        self.decision = Decision {
            out: self.health.reason().filter(|_| !is_panic),
            is_news: self.health.is_out() != self.was_out,
            becomes_half_open: self.health.take_trial(),
            quiet: self.health.quiet_for(now),
        };
    }
}

/// How many endpoints count: all but new ones that have passed no check, and extra ones.
fn members(cases: &[Case<'_>]) -> usize {
    cases
        .iter()
        .filter(|case| !case.observation.is_pending && !case.is_extra)
        .count()
}
