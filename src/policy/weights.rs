//! The weights of endpoints, by which some get more requests than others.
//!
//! Most sets don't need this: pickers have weights only if they differ. An endpoint of weight zero has no share, but
//! is picked when no other is available.

use rand::{Rng, RngExt, seq::IteratorRandom};

use crate::member::{FLAGGED, Members};

/// Weights that differ.
#[derive(Debug)]
pub(crate) struct Weights {
    weights: Box<[u32]>,
    /// For each endpoint, the sum of its weight and all before it.
    sums: Box<[u64]>,
    mean: f64,
}

impl Weights {
    /// `None` if the weights are equal.
    pub(super) fn of(weights: &[u32]) -> Option<Box<Self>> {
        if are_equal(weights) {
            return None;
        }
        let sum = |sum: &mut u64, &weight: &u32| {
            *sum += u64::from(weight);
            Some(*sum)
        };
        let sums: Box<[_]> = weights.iter().scan(0, sum).collect();
        Some(Box::new(Self {
            mean: sums.last().map_or(0.0, |&sum| sum as f64) / weights.len() as f64,
            weights: weights.into(),
            sums,
        }))
    }

    #[inline]
    pub(super) fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }

    /// Draws an endpoint, in proportion to its weight.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        let all = self.sums.last().copied().unwrap_or_default();
        let drawn = rng.random_range(0..all.max(1));
        self.sums.partition_point(|&sum| sum <= drawn)
    }

    /// Draws an available endpoint that `which` allows, in proportion to its weight; `None` if those have no weight.
    pub(super) fn choose(
        &self,
        members: &Members,
        rng: &mut impl Rng,
        which: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let allowed = |&index: &usize| members.is_available(index) && which(index);
        let mut all = 0;
        let mut chosen = None;
        for index in (0..members.len()).filter(allowed) {
            let weight = u64::from(self.weight(index));
            all += weight;
            if weight > 0 && rng.random_range(0..all) < weight {
                chosen = Some(index);
            }
        }
        chosen
    }

    /// Draws an available endpoint and counts a request in: in proportion to the weights, or uniformly if they are all
    /// zero.
    pub(super) fn any_available(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        let chosen = self.choose(members, rng, |_| true).or_else(|| {
            let available = (0..members.len()).filter(|&index| members.is_available(index));
            available.choose(rng)
        })?;
        members.begin(chosen).then_some(chosen)
    }

    /// The load of an endpoint with this word, for its weight.
    pub(super) fn load(&self, index: usize, word: u32) -> Weighted {
        Weighted {
            requests: word,
            weight: self.weight(index),
        }
    }

    /// The requests in flight, scaled to an endpoint of mean weight.
    pub(super) fn scaled(&self, index: usize, word: u32) -> f64 {
        f64::from(word) * self.mean / f64::from(self.weight(index))
    }
}

/// Whether weights make no difference.
pub(crate) fn are_equal(weights: &[u32]) -> bool {
    weights.windows(2).all(|two| two[0] == two[1])
}

/// Requests in flight, divided by a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighted {
    requests: u32,
    weight: u32,
}

impl Weighted {
    /// Greater than any real endpoint's load.
    pub(super) const MAX: Self = Self {
        requests: FLAGGED,
        weight: 1,
    };

    /// False if the endpoint has a flag, or no weight: it shouldn't be chosen, however few requests it has.
    pub(super) fn is_less(self, other: Self) -> bool {
        self.requests < FLAGGED && self.weight > 0 && self.product(other) < other.product(self)
    }

    pub(super) fn is_equal(self, other: Self) -> bool {
        self.requests < FLAGGED && self.weight > 0 && self.product(other) == other.product(self)
    }

    fn product(self, other: Self) -> u64 {
        u64::from(self.requests) * u64::from(other.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn equal_weights_are_no_weights() {
        assert!(Weights::of(&[]).is_none());
        assert!(Weights::of(&[0, 0]).is_none());
        assert!(Weights::of(&[33; 3]).is_none());
        assert!(Weights::of(&[1, 0]).is_some());
    }

    #[test]
    fn endpoints_of_weight_zero_are_never_drawn() {
        let weights = Weights::of(&[0, 1, 0, 3, 0]).expect("they differ");
        let mut rng = SmallRng::seed_from_u64(1);
        let mut drawn = [0; 5];
        (0..4_000).for_each(|_| drawn[weights.draw(&mut rng)] += 1);
        assert_eq!([drawn[0], drawn[2], drawn[4]], [0; 3]);
        assert!((900..1_100).contains(&drawn[1]), "{drawn:?}");
    }

    #[test]
    fn loads_are_compared_without_rounding() {
        let load = |requests, weight| Weighted { requests, weight };
        assert!(load(3, 3).is_equal(load(1, 1)));
        assert!(load(2, 3).is_less(load(1, 1)));
        assert!(!load(0, 0).is_less(load(9, 1)));
        assert!(!load(FLAGGED, 9).is_less(load(1, 1)));
        assert!(load(FLAGGED - 1, 1).is_less(Weighted::MAX));
    }
}
