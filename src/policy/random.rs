//! Any endpoint, each as likely as the other.

use rand::Rng;

use super::{
    any_available,
    sealed::{self, Previous},
};
use crate::load::Loads;

/// How often to draw again before looking at every endpoint. With half of them out, one pick in 256 gets that far.
const DRAWS: usize = 8;

/// Each request goes to an endpoint drawn uniformly, independently of all others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random(());

impl Random {
    /// The policy; it has no settings.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Nothing is kept from one pick to the next, so the policy is its own picker.
impl sealed::Prepare for Random {
    type Picker = Self;

    const SCANS: bool = false;

    fn prepare(&self, _: usize, _: Option<Previous<'_, Self>>, _: &mut impl Rng) -> Self {
        *self
    }
}

impl sealed::Pick for Random {
    const EXACT: bool = false;

    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if loads.len() == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            // A multiplication, at half the cost of rand's exact range. It shifts an endpoint's probability by less than
            // length / 2³² of it: a millionth for 4,096 endpoints.
            let index = ((u64::from(rng.next_u32()) * loads.len() as u64) >> 32) as usize;
            if loads.begin(index) {
                return Some(index);
            }
        }
        any_available(loads, rng)
    }
}
