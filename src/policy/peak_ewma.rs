//! Of two endpoints at random the one that answers sooner.
//!
//! An endpoint's cost is the average time to the first byte of its answers, in which peaks count at once, times one more
//! than its requests in flight (Finagle's `p2cPeakEwma`, linkerd's balancer). Where nothing is known of one of the two yet, it
//! counts as no faster than the other: the requests in flight decide.

use std::time::Duration;

use rand::Rng;

use super::{begin_or_any, pair::Pair, shares, stateless::Stateless, weights::Weights};
use crate::{member::Members, times::DAY};

const DECAY: Duration = Duration::from_secs(10);
const MIN_DECAY: Duration = Duration::from_millis(1);

/// Up to how many endpoints every two are compared, where nothing is known of some of them yet.
const COMPARED: usize = 256;

/// Each request goes to that one of two endpoints, drawn anew each time, whose answers are likely to begin sooner.
///
/// That is the one with the smaller product of requests in flight from this balancer, plus one, and average time to the
/// first byte. A slower answer than the average is the average at once; faster ones move it by as much as the time that
/// they took to come is of [`decay`](Self::decay). A request that fails is a slow one: it counts as four times the usual
/// time at least. An endpoint that has requests and answers none is as slow as that has lasted. A new endpoint is as fast as is
/// typical of the others. None counts as more than ten times as slow as is typical, and one that gets no requests
/// becomes cheaper again, so that each is tried from time to time.
///
/// Where [weights](crate::Endpoint::weight) differ, endpoints are drawn in proportion to them, and a request in flight counts
/// for as much as the mean weight is of the endpoint's. A weight is no promise of a share: who answers later gets less.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    decay: Duration,
}

impl PeakEwma {
    /// The policy with a decay of 10 s.
    pub const fn new() -> Self {
        Self { decay: DECAY }
    }

    pub(super) const fn decay_time(&self) -> Duration {
        self.decay
    }

    /// After which time a past latency counts by 1/e, 37 %; from 1 ms to a day.
    ///
    /// Among endpoints of a steady latency, one that was as slow as can be gets requests again after 2.3 times this at the
    /// latest. Where the others have just become faster, too, it takes until theirs is forgotten: this times the logarithm of
    /// how many times faster they are.
    pub fn decay(mut self, decay: Duration) -> Self {
        self.decay = decay.clamp(MIN_DECAY, DAY);
        self
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) type Picker = Stateless<PeakEwma>;

impl Stateless<PeakEwma> {
    /// Chooses an endpoint, and counts one more request in.
    #[inline]
    pub(super) fn pick(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, members, rng);
        }
        let chosen =
            Pair::draw(members, rng).choose(|first, second| is_cheaper(members, second, first));
        begin_or_any(chosen, members, None, rng)
    }

    /// How likely it chooses each.
    pub(super) fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        let Some(weights) = shares::available_weights(members) else {
            return Some(shares::any_available(members));
        };
        let open = || (0..members.len()).filter(|&index| weights[index] > 0.0);
        let known = open().filter(|&index| members.average(index) > 0.0).count();
        let cost = |index| {
            let requests = match &self.weights {
                Some(weights) => weights.scaled(index, members.load_of(index)),
                None => f64::from(members.load_of(index)),
            };
            match known {
                0 => requests,
                _ => members.average(index) * (requests + 1.0),
            }
        };
        if known == 0 || known == open().count() {
            let costs: Vec<_> = (0..members.len()).map(cost).collect();
            return Some(shares::of_two(&weights, &costs));
        }
        // One of which nothing is known is compared by its requests alone: that is no order of all.
        let is_less = |one, other| match &self.weights {
            Some(weights) => is_cheaper_by_weight(weights, members, one, other),
            None => is_cheaper(members, one, other),
        };
        (open().count() <= COMPARED).then(|| shares::of_two_compared(&weights, is_less))
    }

    #[inline(never)]
    fn pick_weighted(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        let chosen = Pair::draw_weighted(members, weights, rng)
            .choose(|first, second| is_cheaper_by_weight(weights, members, second, first));
        begin_or_any(chosen, members, Some(weights), rng)
    }
}

/// Whether the first of two costs less. Not the one below with weights of 1: that costs 10 ns more.
#[inline]
fn is_cheaper(members: &Members, one: usize, other: usize) -> bool {
    // A flag that came up meanwhile makes it the dearer one.
    let (words, averages) = (
        [members.loaded(one), members.loaded(other)],
        [members.average(one), members.average(other)],
    );
    if averages.contains(&0.0) {
        return words[0] < words[1];
    }
    let cost = |at: usize| averages[at] * (f64::from(words[at]) + 1.0);
    cost(0) < cost(1)
}

/// The same for endpoints with weights.
fn is_cheaper_by_weight(weights: &Weights, members: &Members, one: usize, other: usize) -> bool {
    let requests = [one, other].map(|index| weights.scaled(index, members.loaded(index)));
    let averages = [one, other].map(|index| members.average(index));
    if averages.contains(&0.0) {
        return requests[0] < requests[1];
    }
    averages[0] * (requests[0] + 1.0) < averages[1] * (requests[1] + 1.0)
}
