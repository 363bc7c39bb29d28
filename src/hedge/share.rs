//! How many requests are hedged, as a share of all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One hedge, in the parts that requests bring.
const HEDGE: u32 = 10_000;

/// How many hedges may be saved up: what a client of few requests has for a bad moment.
const BURST: u32 = 10;

/// A token bucket that requests fill.
#[derive(Debug)]
pub(crate) struct Share {
    /// What a request brings.
    part: u32,
    saved: AtomicU32,
}

impl Share {
    /// A share from 0 to 1, and one burst in hand if that is more than nothing.
    pub(crate) fn new(share: f64) -> Self {
        let part = (share * f64::from(HEDGE)).round() as u32;
        let saved = if part > 0 { BURST * HEDGE } else { 0 };
        Self {
            part,
            saved: AtomicU32::new(saved),
        }
    }

    /// A request begins that may be hedged.
    #[inline]
    pub(crate) fn deposit(&self) {
        // Threads that do this at the same time may save a little more, and no more than that.
        if self.saved.load(Relaxed) < BURST * HEDGE {
            self.saved.fetch_add(self.part, Relaxed);
        }
    }

    /// Whether one of them is hedged.
    pub(crate) fn withdraw(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(HEDGE);
        self.saved.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests that all want it are hedged.
    fn hedged(share: &Share, requests: usize) -> usize {
        let hedge = |_: &usize| {
            share.deposit();
            share.withdraw()
        };
        (0..requests).filter(hedge).count()
    }

    #[test]
    fn a_share_of_requests_is_hedged_and_a_burst() {
        for (part, expected) in [(0.0, 0), (0.02, 20 + 10), (0.5, 500 + 10), (1.0, 1_000)] {
            let share = Share::new(part);
            let seen = hedged(&share, 1_000);
            assert!(seen.abs_diff(expected) <= 1, "{seen}, not {expected}");
        }
    }

    #[test]
    fn a_burst_is_all_that_is_saved() {
        let share = Share::new(0.02);
        (0..100_000).for_each(|_| share.deposit());
        assert_eq!((0..100).filter(|_| share.withdraw()).count(), 10);
    }
}
