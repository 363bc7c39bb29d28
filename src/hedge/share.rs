//! How many requests are hedged, as a share of all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One hedge, in the parts that requests bring.
const HEDGE: u32 = 10_000;

/// How many hedges may be saved up: what a client of few requests has for a bad moment.
const BURST: u32 = 10;

/// That, in the parts that requests bring.
const FULL: u32 = BURST * HEDGE;

/// How many times its time a hedge waits where nothing is saved up. The 98.5th percentile is 1.4 times the 95th where times are
/// exponentially distributed, and 2.9 times where they vary by much (lognormal, σ = 2).
const LONGEST: f64 = 4.0;

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
        let saved = if part > 0 { FULL } else { 0 };
        Self {
            part,
            saved: AtomicU32::new(saved),
        }
    }

    /// A request begins that may be hedged.
    #[inline]
    pub(crate) fn deposit(&self) {
        let saved = self.saved.load(Relaxed);
        // Threads that do this at the same time may save a little more, and no more than that.
        if saved < FULL / 2 {
            self.saved.fetch_add(self.part, Relaxed);
        } else if saved < FULL {
            // In good times it is three quarters of the share that is used.
            self.saved.fetch_add(self.part - self.part / 4, Relaxed);
        }
    }

    /// How many times its time a hedge waits: once where all is saved up, and the longer the less is. So it settles where no
    /// more requests are late than may be hedged, and those that take longest are.
    pub(crate) fn patience(&self) -> f64 {
        let saved = self.saved.load(Relaxed).min(FULL);
        let missing = f64::from(FULL - saved) / f64::from(FULL);
        1.0 + (LONGEST - 1.0) * missing
    }

    /// One that was withdrawn was not used.
    pub(crate) fn give_back(&self) {
        self.saved.fetch_add(HEDGE, Relaxed);
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
            assert!(seen.abs_diff(expected) <= 2, "{seen}, not {expected}");
        }
    }

    #[test]
    fn the_less_is_saved_up_the_longer_a_hedge_waits() {
        let share = Share::new(0.02);
        assert_eq!(share.patience(), 1.0);
        (0..5).for_each(|_| assert!(share.withdraw()));
        assert_eq!(share.patience(), 2.5);
        (0..5).for_each(|_| assert!(share.withdraw()));
        assert_eq!(share.patience(), 4.0);
        (0..10).for_each(|_| share.give_back());
        assert_eq!(share.patience(), 1.0);
    }

    #[test]
    fn more_than_half_is_saved_up_more_slowly() {
        let share = Share::new(0.02);
        (0..10).for_each(|_| assert!(share.withdraw()));
        let requests = |tokens: usize| (0..tokens).all(|_| share.withdraw());
        (0..250).for_each(|_| share.deposit());
        assert_eq!(share.patience(), 2.5);
        (0..200).for_each(|_| share.deposit());
        assert!(requests(8) && !requests(1));
    }

    #[test]
    fn a_burst_is_all_that_is_saved() {
        let share = Share::new(0.02);
        (0..100_000).for_each(|_| share.deposit());
        assert_eq!((0..100).filter(|_| share.withdraw()).count(), 10);
    }
}
