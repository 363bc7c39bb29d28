//! All endpoints' health at one time: which ones have to be out, and whether that is ignored.

use std::{cmp::Reverse, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use super::{Decision, EndpointHealth, Observation, OutlierDetection, observation::SetStats};
use crate::member::{EjectionReason, Member};

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
    /// It is there for requests of its own only, and not for all others.
    is_extra: bool,
    pub(crate) decision: Decision,
}

impl<'a> Case<'a> {
    /// Takes note of what has become of `member`'s requests since the last review.
    pub(crate) fn observe(member: &'a Member, health: &'a mut EndpointHealth) -> Self {
        let observation = Observation::of(member, health.seen());
        Self {
            member,
            was_out: health.is_out(),
            health,
            observation,
            is_extra: false,
            decision: Decision::default(),
        }
    }

    /// One without weight has no part in how many of the set may be out, unless none has any.
    pub(crate) fn of_weight(self, weight: u32) -> Self {
        let is_extra = weight == 0;
        Self { is_extra, ..self }
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
        if cases.iter().all(|case| case.is_extra) {
            cases.iter_mut().for_each(|case| case.is_extra = false);
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
        self.answers += news
            .clone()
            .map(|news| u64::from(news.answers))
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
        let set = SetStats {
            answers: self.answers,
            endpoints: cases.len(),
            unresponsive_limit: self.unresponsive_limit(),
        };
        let mut complaints = Vec::new();
        for (index, case) in cases.iter_mut().enumerate() {
            let observation = &case.observation;
            if case.health.is_out() {
                // What has failed meanwhile is dealt with, whether it is taken back or not.
                case.health
                    .reconsider(&self.settings, observation, now, rng);
                continue;
            }
            let complaint = case
                .health
                .complaint(&self.settings, observation, &set, now);
            if let Some(reason) = complaint.filter(|_| !observation.is_out_anyway) {
                complaints.push((index, reason));
            }
        }
        // If not all of them can be out, the worst are.
        complaints.sort_by_key(|&(index, _)| Reverse(cases[index].observation.in_a_row));
        complaints
    }

    /// Puts out as many as may be; returns how many endpoints are left. Those that are extra count in neither.
    fn eject(
        &mut self,
        complaints: Vec<(usize, EjectionReason)>,
        cases: &mut [Case<'_>],
        now: Instant,
        rng: &mut impl Rng,
    ) -> usize {
        // One that refuses, or fails its checks, uses up nothing, unless it is ejected besides.
        let counted = || cases.iter().filter(|case| !case.is_extra);
        let mut out = counted().filter(|case| case.health.is_out()).count();
        let is_available =
            |case: &&Case<'_>| !case.observation.is_out_anyway && !case.health.is_out();
        let mut available = counted().filter(is_available).count();
        let most = self.settings.may_be_out(members(cases));
        for (index, reason) in complaints {
            let is_extra = cases[index].is_extra;
            let may_be = match is_extra {
                // Where no other one is available, it gets their requests.
                true => available > 0,
                false => out < most && available > 1,
            };
            if !may_be {
                continue;
            }
            cases[index].health.eject(reason, &self.settings, now, rng);
            if !is_extra {
                (out, available) = (out + 1, available - 1);
            }
        }
        available
    }
}

impl Case<'_> {
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
