//! A counter that many threads write.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that many threads write.
#[derive(Debug)]
pub(super) struct Count(pub(super) AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Count {
    #[inline]
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
