//! Since when no endpoint accepts requests.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// The beginning of the current outage, if there is one.
///
/// ```text
///            a pick finds no endpoint
///   ┌──────┐ ───────────────────────▶ ┌────────┐   for the ready timeout   ┌───────────────┐
///   │ none │                          │ outage │ ────────────────────────▶ │ calls fail at │
///   └──────┘ ◀─────────────────────── └────────┘                           │ once          │
///      ▲      an endpoint accepts a request                                └───────────────┘
///      └───────────────────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Outage {
    epoch: Instant,
    /// Nanoseconds from the epoch, plus one; zero while there is none.
    since: AtomicU64,
}

impl Outage {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            since: AtomicU64::new(0),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// Begins an outage, unless there is one, and returns its beginning.
    pub(super) fn begin(&self, now: Instant) -> Instant {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        let since = u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1;
        let since = match self.since.compare_exchange(0, since, Relaxed, Relaxed) {
            Ok(_) => since,
            Err(earlier) => earlier,
        };
        self.epoch + Duration::from_nanos(since - 1)
    }

    /// An endpoint has accepted a request. True if that ends an outage.
    pub(super) fn end(&self) -> bool {
        self.is_on() && self.since.swap(0, Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_notice_sets_the_beginning() {
        let now = Instant::now();
        let outage = Outage::new(now);
        assert!(!outage.end());
        assert_eq!(outage.begin(now), now);
        assert_eq!(outage.begin(now + Duration::from_secs(3)), now);
        assert!(outage.end());
        let later = now + Duration::from_secs(9);
        assert_eq!(outage.begin(later), later);
    }
}
