//! Runs that have broken promises, and must not do so again.

use crate::plan::*;

/// A run.
pub(crate) struct Kept {
    /// What was wrong.
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) steps: &'static [Step],
}

pub(crate) const KEPT: &[Kept] = &[];
