//! The one of two random endpoints that answers sooner.
//!
//! An endpoint's cost is its average time to the first byte, in which peaks count at once, times its requests in flight
//! plus one (Finagle's `p2cPeakEwma`, linkerd's balancer). If the latency of one of the two is unknown, only their
//! requests in flight are compared.

use std::time::Duration;

use rand::Rng;

use super::{begin_or_any, pair::Pair, shares, stateless::Stateless, weights::Weights};
use crate::{member::Members, times::DAY};

const DECAY: Duration = Duration::from_secs(10);
const MIN_DECAY: Duration = Duration::from_millis(1);

/// The largest set in which every pair is compared for [`Picker::shares`], if some latencies are unknown.
const COMPARED: usize = 256;

/// Each request goes to the one of two random endpoints whose answer is likely to begin sooner.
///
/// That is the one with the smaller cost: its average time to the first byte, times its requests in flight from this
/// balancer plus one.
///
/// - A sample above the average replaces it; one below moves it by 1 − e^(−Δt/[decay](Self::decay)), where Δt is the
///   time since the average last moved.
/// - A request that fails counts as slow: at least four times the usual time.
/// - While an endpoint has requests and answers none, it counts as at least as slow as that has lasted.
/// - A new endpoint starts with the typical average of the others.
/// - No average is above ten times the typical one. An endpoint that gets no requests becomes cheaper with time, so
///   that each is tried from time to time.
///
/// If [weights](crate::Endpoint::weight) differ, endpoints are drawn in proportion to them, and the requests in flight
/// are multiplied by the mean weight and divided by the endpoint's. A weight doesn't guarantee a share: an endpoint
/// that answers later gets less.
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

    /// After which time a past latency counts by 1/e, 37 %; 10 s by default, from 1 ms to a day.
    ///
    /// If the other endpoints' latencies are steady, even the slowest endpoint gets requests again after 2.3 times this
    /// at the latest. If the others have just become n times faster, it takes ln(n) times this, until their old
    /// latencies are forgotten.
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

    /// How likely it chooses each endpoint.
    pub(super) fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        let Some(weights) = self.available_weights(members) else {
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
        // An endpoint of unknown latency is compared by its requests alone, so the comparison is no order of the set.
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

/// Whether the first of two costs less. [`is_cheaper_by_weight`] with weights of 1 would cost 10 ns more.
#[inline]
fn is_cheaper(members: &Members, one: usize, other: usize) -> bool {
    // A flag that was set meanwhile makes its endpoint the dearer one.
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

/// [`is_cheaper`] for endpoints with weights.
fn is_cheaper_by_weight(weights: &Weights, members: &Members, one: usize, other: usize) -> bool {
    let requests = [one, other].map(|index| weights.scaled(index, members.loaded(index)));
    let averages = [one, other].map(|index| members.average(index));
    if averages.contains(&0.0) {
        return requests[0] < requests[1];
    }
    averages[0] * (requests[0] + 1.0) < averages[1] * (requests[1] + 1.0)
}
