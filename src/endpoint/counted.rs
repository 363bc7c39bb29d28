//! Which endpoints count when something is a fraction of the set.

/// Endpoints with weight count; if no endpoint has weight, all do. An endpoint without weight among weighted ones only
/// gets requests that name it, so outlier detection and slow start leave it out of their fractions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    has_weights: bool,
}

impl Counted {
    /// The rule for a set with these weights.
    pub(crate) fn of(weights: impl IntoIterator<Item = u32>) -> Self {
        let has_weights = weights.into_iter().any(|weight| weight > 0);
        Self { has_weights }
    }

    /// Whether an endpoint with this weight counts.
    pub(crate) fn has(self, weight: u32) -> bool {
        weight > 0 || !self.has_weights
    }
}
