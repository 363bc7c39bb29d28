//! Which endpoints of a set count where a part of the set is meant.

/// Those with weight, or all if none has any. One without weight among others with some is there for requests of its own: to
/// outlier ejection and slow start it is no part of the set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    has_weights: bool,
}

impl Counted {
    /// Of a set with these weights.
    pub(crate) fn of(weights: impl IntoIterator<Item = u32>) -> Self {
        let has_weights = weights.into_iter().any(|weight| weight > 0);
        Self { has_weights }
    }

    /// Whether one of the set counts that has this weight.
    pub(crate) fn has(self, weight: u32) -> bool {
        weight > 0 || !self.has_weights
    }
}
