//! How many requests wait for what, and for how long.

use std::time::Duration;

use super::super::{count::Count, counts::Waits};
use crate::sync::atomic::Ordering::Relaxed;

/// What a request waits for before an endpoint gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitCause {
    Discovery,
    Unreachable,
    Connection,
    Pod,
}

#[derive(Debug, Default)]
pub(super) struct WaitTally {
    pub(super) begun: Count,
    pub(super) ended: Count,
    pub(super) nanos: Count,
    pub(super) now: WaitingNow,
}

impl WaitTally {
    pub(super) fn counts(&self) -> Waits {
        let ended = self.ended.get();
        Waits {
            ended,
            sum_micros: self.nanos.get() / 1_000,
            begun: self.begun.get(),
        }
    }
}

/// The requests that wait now, in one word so that both parts are of one moment. The low bits hold how many wait. The
/// high bits hold the sum of the balancer's ages, in milliseconds, at which they began.
#[derive(Debug, Default)]
pub(super) struct WaitingNow(Count);

/// The bits for the number: 16 million requests. The sum above may overflow, because only its difference to now
/// matters.
const WAITING: u32 = 24;

impl WaitingNow {
    fn of(since: u64) -> u64 {
        (since << WAITING) | 1
    }

    pub(super) fn begin(&self, since: u64) {
        self.0.add(Self::of(since));
    }

    pub(super) fn end(&self, since: u64) {
        self.0.0.fetch_sub(Self::of(since), Relaxed);
    }

    /// How many wait, and for how long on average.
    pub(super) fn read(&self, now: u64) -> (u64, Duration) {
        let word = self.0.get();
        let waiting = word & ((1 << WAITING) - 1);
        let begun = word & !((1 << WAITING) - 1);
        let waited = (now << WAITING).wrapping_mul(waiting).wrapping_sub(begun);
        // Negative if a request began to wait after `now` was read.
        let waited = (waited.cast_signed() >> WAITING).max(0).unsigned_abs();
        (waiting, Duration::from_millis(waited / waiting.max(1)))
    }
}
