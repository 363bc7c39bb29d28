//! The one of two random endpoints that has fewer requests in flight.
//!
//! Two choices have most of the benefit of looking at all endpoints (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001), at a cost that doesn't grow with the set. The two are distinct: otherwise, in a
//! set of three, an endpoint that hangs would be its own alternative in one pick of nine.

use rand::Rng;

use super::{begin_or_any, pair::Pair, shares, stateless::Stateless, weights::Weights};
use crate::member::Members;

/// Each request goes to the less loaded of two random endpoints: the one with fewer requests in flight from this
/// balancer.
///
/// If [weights](crate::Endpoint::weight) differ, endpoints are drawn in proportion to them, and the requests in flight
/// are divided by the weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo(());

impl PowerOfTwo {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

pub(crate) type Picker = Stateless<PowerOfTwo>;

impl Stateless<PowerOfTwo> {
    /// Chooses an endpoint, and counts one more request in.
    #[inline]
    pub(super) fn pick(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, members, rng);
        }
        // A flag that was set meanwhile makes its word the larger one.
        let chosen = Pair::draw(members, rng)
            .choose(|first, second| members.loaded(second) < members.loaded(first));
        begin_or_any(chosen, members, None, rng)
    }

    /// How likely it chooses each endpoint.
    pub(super) fn shares(&self, members: &Members) -> Vec<f64> {
        let Some(weights) = self.available_weights(members) else {
            return shares::any_available(members);
        };
        let load = |index| f64::from(members.load_of(index)) / f64::from(self.weight(index));
        let loads: Vec<_> = (0..members.len()).map(load).collect();
        shares::of_two(&weights, &loads)
    }

    #[inline(never)]
    fn pick_weighted(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        let chosen = Pair::draw_weighted(members, weights, rng).choose(|first, second| {
            let load = |index| weights.load(index, members.loaded(index));
            load(second).is_less(load(first))
        });
        begin_or_any(chosen, members, Some(weights), rng)
    }
}
