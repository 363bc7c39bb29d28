//! All endpoints' health at one time: which ones have to be out, and whether that is ignored.

use std::{cmp::Reverse, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use super::{Decision, EndpointHealth, Observation, OutlierDetection, observation::SetStats};
use crate::{
    endpoint::Counted,
    member::{Checked, EjectionReason, Member},
};

/// How much of the usual time is taken from the last review.
const FRESH: f64 = 0.2;

/// Judges the endpoints of a set, from review to review.
#[derive(Debug)]
pub(crate) struct OutlierDetector {
    settings: OutlierDetection,
    /// How long an answer takes to begin, usually.
    usual: Option<Duration>,
    answers: u64,
    is_panic: bool,
    due: Option<Instant>,
}

/// One endpoint in a review: its health so far, what has been observed since, and what is decided.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) member: &'a Member,
    health: &'a mut EndpointHealth,
    observation: Observation,
    was_out: bool,
    weight: u32,
    /// It is there for requests of its own only, and not for all others: it has no part in how many of the set may be out.
    is_extra: bool,
    pub(crate) decision: Decision,
}

impl<'a> Case<'a> {
    /// Takes note of what has become of `member`'s requests since the last review. Its endpoint has this weight by now.
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

    /// How long an answer takes to begin, usually: of each endpoint the mean, of those the median, and of that an average
    /// over the last reviews. None before the first answer.
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

    /// Looks at all endpoints of the set, and decides of each what has to be done.
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

    /// What becomes of those that are out, and which others should be.
    fn reconsider(
        &mut self,
        cases: &mut [Case<'_>],
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<(usize, EjectionReason)> {
        // Those that are there for requests of their own may get none: a silence isn't measured against them.
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
                // What has failed meanwhile is dealt with, whether it is taken back or not.
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
        // If not all of them can be out, the worst are; the slow ones last.
        complaints.sort_by_key(|&(index, reason)| {
            let is_slow = reason == EjectionReason::Slow;
            (is_slow, Reverse(cases[index].observation.in_a_row))
        });
        complaints
    }

    /// Puts out as many as may be; returns how many endpoints are left.
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
                // Where no other one is available, it gets their requests.
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

    /// Takes back slow endpoints, the least slow ones first, as many as others need the room of, or are needed to serve.
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

    /// Takes back as many as are out beyond what may be: the set has shrunk, or those that were extra count, since none has
    /// weight any more. First those that accept requests, and of those the ones whose next trial is nearest: they have been out
    /// for long, or have failed less often. In a panic all of them serve as it is.
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

/// How many endpoints there are, and how many of them are out; those that are extra count in neither.
#[derive(Debug)]
struct Tally {
    members: usize,
    /// Ejected. One that refuses, or fails its checks, uses up nothing, unless it is ejected besides.
    out: usize,
    /// Ejected for being slow, of those.
    slow: usize,
    available: usize,
    /// Those that would be available, if they weren't ejected for being slow.
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

    /// Whether one that fails may be out: slow ones yield.
    fn has_room(&self, settings: &OutlierDetection) -> bool {
        self.out - self.slow < settings.may_be_out(self.members) && self.available + self.spare > 1
    }

    /// Whether a slow one may be out.
    fn has_room_for_slow(&self, settings: &OutlierDetection) -> bool {
        let left = self.available.saturating_sub(1);
        self.out < settings.may_be_out(self.members)
            && left > 0
            && !settings.is_panic(left, self.members)
    }

    /// Whether slow ones are out whose room others need, or that are needed themselves.
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

    /// One that is ejected will be so no more.
    fn come_back(&mut self, case: &Case<'_>) {
        let is_slow = usize::from(case.health.is_slow());
        (self.out, self.slow) = (self.out - 1, self.slow - is_slow);
        if !case.observation.is_out_anyway {
            (self.spare, self.available) = (self.spare - is_slow, self.available + 1);
        }
    }
}

impl Case<'_> {
    /// Whether there is reason to have it out, by its requests or its checks, and it is not.
    pub(crate) fn is_spared(&self) -> bool {
        let fails = self.member.stats().checked() == Checked::Fails;
        (self.health.is_bad() || fails) && self.member.is_available()
    }

    fn decide(&mut self, is_panic: bool, now: Instant) {
        if is_panic && self.health.is_half_open() {
            // It has requests enough to show how it is.
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

/// How many endpoints there are to speak of.
fn members(cases: &[Case<'_>]) -> usize {
    cases
        .iter()
        .filter(|case| !case.observation.is_pending && !case.is_extra)
        .count()
}
