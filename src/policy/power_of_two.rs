//! Of two endpoints at random the one with fewer requests in flight.
//!
//! Two choices bring most of what looking at all does (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//! 2001), at a cost that doesn't grow with the set. The two are distinct: in a set of three, an endpoint that hangs would
//! else be its own alternative in one pick of nine.

use rand::Rng;

use super::{
    begin_or_any,
    pair::Pair,
    sealed::{self, Previous, Reads},
    weights::Weights,
};
use crate::load::Loads;

/// Each request goes to that one of two endpoints, drawn anew each time, that has fewer requests in flight from this balancer.
///
/// Where [weights](crate::Endpoint::weight) differ, endpoints are drawn in proportion to them, and it is the requests in flight
/// divided by the weight that count.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo(());

impl PowerOfTwo {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Nothing is kept from one pick to the next.
#[derive(Debug)]
pub struct Picker {
    weights: Option<Box<Weights>>,
}

impl Picker {
    #[inline(never)]
    fn pick_weighted(weights: &Weights, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        let chosen = Pair::draw_weighted(loads, weights, rng).choose(|first, second| {
            let load = |index| weights.load(index, loads.busy(index));
            load(second).is_less(load(first))
        });
        begin_or_any(chosen, loads, Some(weights), rng)
    }
}

impl sealed::Prepare for PowerOfTwo {
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
}

impl sealed::Pick for Picker {
    const EXACT: bool = false;
    const READS: Reads = Reads::Few;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, loads, rng);
        }
        // A flag that came up meanwhile makes a word the larger one.
        let chosen =
            Pair::draw(loads, rng).choose(|first, second| loads.busy(second) < loads.busy(first));
        begin_or_any(chosen, loads, None, rng)
    }
}
