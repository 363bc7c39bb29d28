//! What the pickers have in common that keep nothing from one pick to the next.

use std::marker::PhantomData;

use super::weights::Weights;

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
}
