//! What every request of a balancer may have to know, and seldom does: a trial on offer, an outage, the balancer itself.
//! Looking for the first two costs a plain load.

use std::{
    any::Any,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The signals of one balancer.
#[derive(Debug)]
pub(crate) struct Signals {
    /// How many of its endpoints have a trial on offer.
    pub(crate) trials: AtomicUsize,
    pub(crate) outage: Outage,
    owner: OnceLock<Weak<dyn Any + Send + Sync>>,
}

impl Signals {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            trials: AtomicUsize::new(0),
            outage: Outage::new(now),
            owner: OnceLock::new(),
        }
    }

    /// Says whose signals these are; the first one to do so is right.
    pub(crate) fn belong_to<T: Any + Send + Sync>(&self, owner: &Arc<T>) {
        let owner: Weak<T> = Arc::downgrade(owner);
        let _ = self.owner.set(owner);
    }

    /// What these signals belong to, unless it is gone.
    ///
    /// A request under way finds its balancer here, if it has to: to carry it along would cost each request two counts
    /// of one word that all threads share.
    pub(crate) fn owner<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.owner.get()?.upgrade()?.downcast().ok()
    }
}

/// The beginning of the current outage, if there is one: since when no endpoint accepts requests.
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
pub(crate) struct Outage {
    epoch: Instant,
    /// Nanoseconds from the epoch, plus one; zero while there is none.
    since: AtomicU64,
}

impl Outage {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            since: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// Begins an outage, unless there is one, and returns its beginning.
    pub(crate) fn begin(&self, now: Instant) -> Instant {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        let since = u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1;
        let since = match self.since.compare_exchange(0, since, Relaxed, Relaxed) {
            Ok(_) => since,
            Err(earlier) => earlier,
        };
        self.epoch + Duration::from_nanos(since - 1)
    }

    /// An endpoint has accepted a request. True if that ends an outage.
    #[inline]
    pub(crate) fn end(&self) -> bool {
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
