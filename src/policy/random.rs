//! Any endpoint, each as likely as the other.

use rand::{Rng, RngExt};

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

/// Random keeps nothing from one pick to the next.
#[derive(Debug)]
pub struct Picker;

impl sealed::Prepare for Random {
    type Picker = Picker;

    fn prepare(&self, _: usize, _: Option<Previous<'_, Picker>>, _: &mut impl Rng) -> Picker {
        Picker
    }
}

impl sealed::Pick for Picker {
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        if loads.len() == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let index = rng.random_range(0..loads.len());
            if loads.begin_if_available(index) {
                return Some(index);
            }
        }
        any_available(loads, rng)
    }
}
