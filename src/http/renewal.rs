//! Retires connections that were made with outdated settings.
//!
//! They don't all end at once, because each is followed by a handshake. A renewal of the settings says within what time
//! older connections must be gone. Each may be used for a part of that time, drawn when it was made. Then it takes no
//! more requests, and closes when it has none.

use std::{
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::sync::Mutex;

/// How often settings have been renewed, and which connections that retires.
#[derive(Debug)]
pub(super) struct Renewals {
    count: AtomicU64,
    past: Mutex<Past>,
    told: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Past {
    /// Connections from before this renewal may not be used.
    gone: u64,
    /// Later renewals, whose time isn't over.
    recent: Vec<Renewal>,
}

/// A renewal of the settings, with its number.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    number: u64,
    at: Instant,
    within: Duration,
}

/// Which settings a connection was made with.
#[derive(Clone, Debug)]
pub(super) struct Vintage {
    renewals: Arc<Renewals>,
    /// How many renewals there had been.
    count: u64,
    /// The part of the time for which it may be used, from 0 to 1.
    share: f64,
}

/// How many renewals may be under way. Beyond that, the last ones count as one.
#[cfg(any(feature = "tls", test))]
const MOST: usize = 64;

impl Renewals {
    #[cfg(any(feature = "tls", test))]
    pub(super) fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            past: Mutex::default(),
            told: watch::Sender::new(()),
        }
    }

    /// Requires that connections made before now are gone `within` this time.
    #[cfg(any(feature = "tls", test))]
    pub(super) fn renew(&self, within: Duration) {
        let mut past = self.past();
        let (at, number) = (Instant::now(), self.count.load(Relaxed) + 1);
        past.recent.truncate(MOST - 1);
        past.recent.push(Renewal { number, at, within });
        self.count.store(number, Relaxed);
        drop(past);
        self.told.send_replace(());
    }

    /// For a connection that is being made now.
    pub(super) fn vintage(self: &Arc<Self>) -> Vintage {
        Vintage {
            renewals: self.clone(),
            count: self.count.load(Relaxed),
            share: rand::random(),
        }
    }

    /// When the next connections must be gone.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.past().recent.iter().map(Renewal::end).min()
    }

    /// Signals each renewal, and past ones at once.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        let mut told = self.told.subscribe();
        told.mark_changed();
        told
    }

    /// Updates what is over by now.
    fn past(&self) -> MutexGuard<'_, Past> {
        let mut past = self.past.lock();
        let now = Instant::now();
        let over = past.recent.iter().filter(|it| it.end() <= now);
        let gone = over.map(|it| it.number).max();
        past.gone = gone.unwrap_or_default().max(past.gone);
        past.recent.retain(|it| it.end() > now);
        past
    }
}

impl Renewal {
    fn end(&self) -> Instant {
        self.at + self.within
    }
}

impl Vintage {
    /// Whether the connection may no longer be used.
    pub(super) fn is_over(&self) -> bool {
        self.renewals.count.load(Relaxed) != self.count && self.is_over_by_now()
    }

    #[cold]
    fn is_over_by_now(&self) -> bool {
        let past = self.renewals.past();
        let now = Instant::now();
        let mut later = past.recent.iter().filter(|it| it.number > self.count);
        self.count < past.gone || later.any(|it| it.at + it.within.mul_f64(self.share) <= now)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn over(made: &[Vintage]) -> usize {
        made.iter().filter(|it| it.is_over()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn older_connections_retire_one_after_another_and_all_in_time() {
        let renewals = Arc::new(Renewals::new());
        let before: Vec<_> = (0..100).map(|_| renewals.vintage()).collect();
        advance(100 * SECOND).await;
        assert_eq!((over(&before), renewals.next_end()), (0, None));
        renewals.renew(10 * SECOND);
        let after: Vec<_> = (0..100).map(|_| renewals.vintage()).collect();
        assert_eq!(renewals.next_end(), Some(Instant::now() + 10 * SECOND));
        advance(5 * SECOND).await;
        assert!((10..90).contains(&over(&before)), "{}", over(&before));
        advance(5 * SECOND).await;
        assert_eq!((over(&before), over(&after)), (100, 0));
        assert_eq!(renewals.next_end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_faster_renewal_also_speeds_up_the_ones_before_it() {
        let renewals = Arc::new(Renewals::new());
        let first: Vec<_> = (0..100).map(|_| renewals.vintage()).collect();
        renewals.renew(1000 * SECOND);
        let second = [renewals.vintage()];
        renewals.renew(Duration::ZERO);
        assert_eq!((over(&first), over(&second)), (100, 1));
        let third = [renewals.vintage()];
        advance(1000 * SECOND).await;
        assert_eq!((over(&first), over(&third)), (100, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_renewals_use_bounded_memory_and_all_end() {
        let renewals = Arc::new(Renewals::new());
        let mut made = Vec::new();
        for _ in 0..10_000 {
            made.push(renewals.vintage());
            renewals.renew(10 * SECOND);
        }
        assert_eq!(renewals.past().recent.len(), MOST);
        advance(10 * SECOND).await;
        assert_eq!(over(&made), 10_000);
        assert!(!renewals.vintage().is_over());
    }
}
