//! Draws two distinct endpoints at random, of those that are available.

use std::hint::select_unpredictable;

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::weights::Weights;
use crate::member::Members;

/// How often to draw before looking at every endpoint. With half of them out, one pick in 28 gets that far.
const DRAWS: usize = 8;

/// The endpoints that were drawn.
pub(super) enum Pair {
    None,
    /// Only one is available.
    One(usize),
    Two(usize, usize),
}

impl Pair {
    #[inline]
    pub(super) fn draw(members: &Members, rng: &mut impl Rng) -> Self {
        let len = members.len();
        if len < 2 {
            return if len == 0 { Self::None } else { Self::One(0) };
        }
        let first = rng.random_range(0..len);
        // One of the others, with equal probability.
        let other = rng.random_range(0..len - 1);
        let second = if other < first { other } else { other + 1 };
        if members.is_available(first) && members.is_available(second) {
            return Self::Two(first, second);
        }
        Self::draw_available(members, rng)
    }

    /// Draws each of the two in proportion to its weight. Endpoints of weight zero are never drawn.
    pub(super) fn draw_weighted(members: &Members, weights: &Weights, rng: &mut impl Rng) -> Self {
        let mut first = None;
        for _ in 0..DRAWS {
            let index = weights.draw(rng);
            match first {
                _ if !members.is_available(index) => {}
                None => first = Some(index),
                Some(first) if first != index => return Self::Two(first, index),
                Some(_) => {}
            }
        }
        let Some(first) = first.or_else(|| weights.choose(members, rng, |_| true)) else {
            return Self::None;
        };
        let second = weights.choose(members, rng, |index| index != first);
        second.map_or(Self::One(first), |second| Self::Two(first, second))
    }

    /// The second of two if it is better, otherwise the first.
    #[inline]
    pub(super) fn choose(self, is_second_better: impl Fn(usize, usize) -> bool) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One(only) => Some(only),
            Self::Two(first, second) => {
                // If tied, the first: both are drawn alike. Without a branch, because it couldn't be predicted.
                let second_is_better = is_second_better(first, second);
                Some(select_unpredictable(second_is_better, second, first))
            }
        }
    }

    #[cold]
    fn draw_available(members: &Members, rng: &mut impl Rng) -> Self {
        let mut first = None;
        for _ in 0..DRAWS {
            let index = rng.random_range(0..members.len());
            match first {
                _ if !members.is_available(index) => {}
                None => first = Some(index),
                Some(first) if first != index => return Self::Two(first, index),
                Some(_) => {}
            }
        }
        Self::draw_of_all(members, rng)
    }

    fn draw_of_all(members: &Members, rng: &mut impl Rng) -> Self {
        let available = (0..members.len()).filter(|&index| members.is_available(index));
        let Some(first) = available.clone().choose(rng) else {
            return Self::None;
        };
        let second = available.filter(|&index| index != first).choose(rng);
        second.map_or(Self::One(first), |second| Self::Two(first, second))
    }
}
