//! Two distinct endpoints at random, of those that are available.

use rand::{Rng, RngExt, seq::IteratorRandom};

use crate::load::Loads;

/// How often to draw before looking at every endpoint. With half of them out, one pick in 28 gets that far.
const DRAWS: usize = 8;

/// What was drawn.
pub(super) enum Pair {
    None,
    /// There is only one.
    One(usize),
    Two(usize, usize),
}

impl Pair {
    #[inline]
    pub(super) fn draw(loads: &Loads, rng: &mut impl Rng) -> Self {
        let len = loads.len();
        if len < 2 {
            return if len == 0 { Self::None } else { Self::One(0) };
        }
        let first = rng.random_range(0..len);
        // One of the others, each as likely.
        let other = rng.random_range(0..len - 1);
        let second = if other < first { other } else { other + 1 };
        if loads.is_available(first) && loads.is_available(second) {
            return Self::Two(first, second);
        }
        Self::draw_available(loads, rng)
    }

    #[cold]
    fn draw_available(loads: &Loads, rng: &mut impl Rng) -> Self {
        let mut first = None;
        for _ in 0..DRAWS {
            let index = rng.random_range(0..loads.len());
            match first {
                _ if !loads.is_available(index) => {}
                None => first = Some(index),
                Some(first) if first != index => return Self::Two(first, index),
                Some(_) => {}
            }
        }
        Self::choose(loads, rng)
    }

    fn choose(loads: &Loads, rng: &mut impl Rng) -> Self {
        let available = (0..loads.len()).filter(|&index| loads.is_available(index));
        let Some(first) = available.clone().choose(rng) else {
            return Self::None;
        };
        let second = available.filter(|&index| index != first).choose(rng);
        second.map_or(Self::One(first), |second| Self::Two(first, second))
    }
}
