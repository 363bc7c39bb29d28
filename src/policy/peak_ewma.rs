//! Of two endpoints at random the one that answers sooner.
//!
//! An endpoint's cost is the average time to the first byte of its answers, in which peaks count at once, times one more
//! than its requests in flight (Finagle's `p2cPeakEwma`, linkerd's balancer). Where nothing is known of one of the two yet, it
//! counts as no faster than the other: the requests in flight decide.

use std::time::Duration;

use rand::Rng;

use super::{
    begin_or_any,
    pair::Pair,
    sealed::{self, Previous, Reads},
    weights::Weights,
};
use crate::load::Loads;

const DECAY: Duration = Duration::from_secs(10);
const MIN_DECAY: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

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

    /// After which time a past latency counts by 1/e, 37 %; from 1 ms to a day.
    ///
    /// An endpoint that was as slow as can be gets requests again after 2.3 times this at the latest.
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

/// What is known of an endpoint is with the endpoint.
#[derive(Debug)]
pub struct Picker {
    weights: Option<Box<Weights>>,
}

impl Picker {
    #[inline(never)]
    fn pick_weighted(weights: &Weights, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        let chosen = Pair::draw_weighted(loads, weights, rng)
            .choose(|first, second| is_cheaper_by_weight(weights, loads, second, first));
        begin_or_any(chosen, loads, Some(weights), rng)
    }
}

impl sealed::Prepare for PeakEwma {
    type Picker = Picker;

    fn prepare(
        &self,
        weights: &[u32],
        _: Option<Previous<'_, Picker>>,
        _: &mut impl Rng,
    ) -> Picker {
        Picker {
            weights: Weights::of(weights),
        }
    }

    fn decay(&self) -> Option<Duration> {
        Some(self.decay)
    }
}

impl sealed::Pick for Picker {
    const EXACT: bool = false;
    const READS: Reads = Reads::Few;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, loads, rng);
        }
        let chosen =
            Pair::draw(loads, rng).choose(|first, second| is_cheaper(loads, second, first));
        begin_or_any(chosen, loads, None, rng)
    }
}

/// Whether the first of two costs less. Not the one below with weights of 1: that costs 10 ns more.
#[inline]
fn is_cheaper(loads: &Loads, one: usize, other: usize) -> bool {
    // A flag that came up meanwhile makes it the dearer one.
    let (words, averages) = (
        [loads.busy(one), loads.busy(other)],
        [loads.average(one), loads.average(other)],
    );
    if averages.contains(&0.0) {
        return words[0] < words[1];
    }
    let cost = |at: usize| averages[at] * (f64::from(words[at]) + 1.0);
    cost(0) < cost(1)
}

/// The same for endpoints with weights.
fn is_cheaper_by_weight(weights: &Weights, loads: &Loads, one: usize, other: usize) -> bool {
    let requests = [one, other].map(|index| weights.scaled(index, loads.busy(index)));
    let averages = [one, other].map(|index| loads.average(index));
    if averages.contains(&0.0) {
        return requests[0] < requests[1];
    }
    averages[0] * (requests[0] + 1.0) < averages[1] * (requests[1] + 1.0)
}
