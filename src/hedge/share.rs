//! A token bucket that limits hedges to a share of all requests.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The cost of one hedge, in the units that requests deposit.
const HEDGE: u32 = 10_000;

/// How many hedges may be saved up, so that a client with few requests has some for a bad moment.
const BURST: u32 = 10;

/// [`BURST`] in the units that requests deposit.
const FULL: u32 = BURST * HEDGE;

/// How many times the usual p95 a hedge waits if nothing is saved up. The 98.5th percentile is 1.4 times the 95th if
/// times are exponentially distributed, and 2.9 times if they vary much (lognormal, σ = 2).
const LONGEST: f64 = 4.0;

/// A token bucket that requests fill.
#[derive(Debug)]
pub(crate) struct Share {
    /// What a request deposits.
    part: u32,
    saved: AtomicU32,
}

impl Share {
    /// A share from 0 to 1. The bucket begins full, unless the share is zero.
    pub(crate) fn new(share: f64) -> Self {
        let part = (share * f64::from(HEDGE)).round() as u32;
        let saved = if part > 0 { FULL } else { 0 };
        Self {
            part,
            saved: AtomicU32::new(saved),
        }
    }

    /// Makes the deposit of a request that may be hedged.
    #[inline]
    pub(crate) fn deposit(&self) {
        let saved = self.saved.load(Relaxed);
        // Threads that do this at the same time may overfill the bucket a little, which is harmless.
        if saved < FULL / 2 {
            self.saved.fetch_add(self.part, Relaxed);
        } else if saved < FULL {
            // Above half, only three quarters of the share are filled in: so much is used in good times.
            self.saved.fetch_add(self.part - self.part / 4, Relaxed);
        }
    }

    /// How many times the usual p95 a hedge waits: once if the bucket is full, and longer the emptier it is. So it
    /// settles where just as many requests are late as may be hedged: the slowest ones.
    pub(crate) fn delay_factor(&self) -> f64 {
        let saved = self.saved.load(Relaxed).min(FULL);
        let missing = f64::from(FULL - saved) / f64::from(FULL);
        1.0 + (LONGEST - 1.0) * missing
    }

    /// Gives back a hedge that was withdrawn but not used.
    pub(crate) fn give_back(&self) {
        self.saved.fetch_add(HEDGE, Relaxed);
    }

    /// Takes a hedge from the bucket, if there is one.
    pub(crate) fn withdraw(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(HEDGE);
        self.saved.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `requests` are hedged if all want it.
    fn hedged(share: &Share, requests: usize) -> usize {
        let hedge = |_: &usize| {
            share.deposit();
            share.withdraw()
        };
        (0..requests).filter(hedge).count()
    }

    #[test]
    fn the_share_and_one_burst_of_requests_are_hedged() {
        for (part, expected) in [(0.0, 0), (0.02, 20 + 10), (0.5, 500 + 10), (1.0, 1_000)] {
            let share = Share::new(part);
            let seen = hedged(&share, 1_000);
            assert!(seen.abs_diff(expected) <= 2, "{seen}, not {expected}");
        }
    }

    #[test]
    fn the_fewer_hedges_are_saved_up_the_longer_a_hedge_waits() {
        let share = Share::new(0.02);
        assert_eq!(share.delay_factor(), 1.0);
        (0..5).for_each(|_| assert!(share.withdraw()));
        assert_eq!(share.delay_factor(), 2.5);
        (0..5).for_each(|_| assert!(share.withdraw()));
        assert_eq!(share.delay_factor(), 4.0);
        (0..10).for_each(|_| share.give_back());
        assert_eq!(share.delay_factor(), 1.0);
    }

    #[test]
    fn more_than_half_is_saved_up_more_slowly() {
        let share = Share::new(0.02);
        (0..10).for_each(|_| assert!(share.withdraw()));
        let requests = |tokens: usize| (0..tokens).all(|_| share.withdraw());
        (0..250).for_each(|_| share.deposit());
        assert_eq!(share.delay_factor(), 2.5);
        (0..200).for_each(|_| share.deposit());
        assert!(requests(8) && !requests(1));
    }

    #[test]
    fn no_more_than_a_burst_is_saved_up() {
        let share = Share::new(0.02);
        (0..100_000).for_each(|_| share.deposit());
        assert_eq!((0..100).filter(|_| share.withdraw()).count(), 10);
    }
}
