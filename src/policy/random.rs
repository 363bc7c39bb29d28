//! Any endpoint, uniformly at random.

use rand::Rng;

use super::{any_available, shares, stateless::Stateless, weights::Weights};
use crate::member::Members;

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

pub(crate) type Picker = Stateless<Random>;

impl Stateless<Random> {
    /// Chooses an endpoint, and counts one more request in.
    #[inline]
    pub(super) fn pick(&self, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        if members.is_empty() {
            return None;
        }
        if let Some(weights) = &self.weights {
            return Self::pick_weighted(weights, members, rng);
        }
        for _ in 0..DRAWS {
            // A multiplication, at half the cost of rand's exact range. It shifts an endpoint's probability by less than
            // length / 2³² of it: a millionth for 4,096 endpoints.
            let index = ((u64::from(rng.next_u32()) * members.len() as u64) >> 32) as usize;
            if members.begin(index) {
                return Some(index);
            }
        }
        any_available(members, None, rng)
    }

    /// How likely it chooses each endpoint.
    pub(super) fn shares(&self, members: &Members) -> Vec<f64> {
        match self.available_weights(members) {
            Some(weights) => shares::in_proportion(weights),
            None => shares::any_available(members),
        }
    }

    #[inline(never)]
    fn pick_weighted(weights: &Weights, members: &Members, rng: &mut impl Rng) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = weights.draw(rng);
            if members.begin(index) {
                return Some(index);
            }
        }
        any_available(members, Some(weights), rng)
    }
}
