//! What the pickers have in common that keep nothing from one pick to the next.

use std::marker::PhantomData;

use super::weights::Weights;
use crate::member::Members;

/// The picker of such a policy. It has the endpoints' weights, where those differ.
#[derive(Debug)]
pub(crate) struct Stateless<P> {
    pub(super) weights: Option<Box<Weights>>,
    policy: PhantomData<P>,
}

impl<P> Stateless<P> {
    /// A picker for endpoints with these weights.
    pub(super) fn new(weights: &[u32]) -> Self {
        Self {
            weights: Weights::of(weights),
            policy: PhantomData,
        }
    }

    /// The weight by which a pick counts the endpoint: 1 if weights don't differ. A part of a set can be all of weight
    /// zero, or of any other, where the set isn't.
    pub(super) fn weight(&self, index: usize) -> u32 {
        let weights = self.weights.as_deref();
        weights.map_or(1, |weights| weights.weight(index))
    }

    /// The weights of the endpoints that are available, and zero for the others; `None` if all are zero.
    pub(super) fn available_weights(&self, members: &Members) -> Option<Vec<f64>> {
        let weight = |index| match members.is_available(index) {
            true => f64::from(self.weight(index)),
            false => 0.0,
        };
        let weights: Vec<_> = (0..members.len()).map(weight).collect();
        weights
            .iter()
            .any(|&weight| weight > 0.0)
            .then_some(weights)
    }
}
