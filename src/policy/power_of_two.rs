//! Of two endpoints at random the one with fewer requests in flight.
//!
//! Two choices bring most of what looking at all does (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//! 2001), at a cost that doesn't grow with the set. The two are distinct: in a set of three, an endpoint that hangs would
//! else be its own alternative in one pick of nine.

use rand::Rng;

use super::{
    any_available,
    pair::Pair,
    sealed::{self, Previous},
};
use crate::load::Loads;

/// Each request goes to that one of two endpoints, drawn anew each time, that has fewer requests in flight from this balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo(());

impl PowerOfTwo {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Nothing is kept from one pick to the next, so the policy is its own picker.
impl sealed::Prepare for PowerOfTwo {
    type Picker = Self;

    const SCANS: bool = true;

    fn prepare(&self, _: usize, _: Option<Previous<'_, Self>>, _: &mut impl Rng) -> Self {
        *self
    }
}

impl sealed::Pick for PowerOfTwo {
    const EXACT: bool = false;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        let chosen = match Pair::draw(loads, rng) {
            Pair::None => None,
            Pair::One(only) => Some(only),
            // A flag that came up meanwhile makes a word the larger one.
            Pair::Two(first, second) if loads.word(second) < loads.word(first) => Some(second),
            // As they are drawn alike, the first of two that tie is either.
            Pair::Two(first, _) => Some(first),
        };
        chosen
            .filter(|&index| loads.begin(index))
            .or_else(|| any_available(loads, rng))
    }
}
