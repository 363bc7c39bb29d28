//! Any endpoint, each as likely as the other.

use rand::Rng;

use super::{
    any_available,
    sealed::{self, Previous, Reads},
    weights::Weights,
};
use crate::load::Loads;

/// How often to draw again before looking at every endpoint. With half of them out, one pick in 256 gets that far.
const DRAWS: usize = 8;

/// Each request goes to an endpoint drawn independently of all others: uniformly, or in proportion to their
/// [weights](crate::Endpoint::weight).
#[derive(Clone, Copy, Debug, Default)]
pub struct Random(());

impl Random {
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
        for _ in 0..DRAWS {
            let index = weights.draw(rng);
            if loads.begin(index) {
                return Some(index);
            }
        }
        any_available(loads, Some(weights), rng)
    }
}

impl sealed::Prepare for Random {
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
    const READS: Reads = Reads::Nothing;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if loads.len() == 0 {
            return None;
        }
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, loads, rng);
        }
        for _ in 0..DRAWS {
            // A multiplication, at half the cost of rand's exact range. It shifts an endpoint's probability by less than
            // length / 2³² of it: a millionth for 4,096 endpoints.
            let index = ((u64::from(rng.next_u32()) * loads.len() as u64) >> 32) as usize;
            if loads.begin(index) {
                return Some(index);
            }
        }
        any_available(loads, None, rng)
    }
}
