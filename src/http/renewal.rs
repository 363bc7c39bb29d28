//! Connections that were made with settings that don't hold any more.
//!
//! They don't all end at once, for each is followed by a handshake. When settings are renewed it is said in what time
//! connections of before have to be gone, and each may be used for a part of that, drawn when it was made. Then it takes no
//! request any more, and closes when it has none.

use std::{
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::sync::Mutex;

/// How often settings have been renewed, and what became of connections by that.
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
    /// Those after it, whose time isn't over.
    recent: Vec<Renewal>,
}

/// The settings were renewed for that many a time.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    number: u64,
    at: Instant,
    within: Duration,
}

/// When a connection was made.
#[derive(Clone, Debug)]
pub(super) struct Vintage {
    renewals: Arc<Renewals>,
    /// After that many renewals.
    count: u64,
    /// Which part of the time it may be used for, from 0 to 1.
    share: f64,
}

/// More renewals at a time than anybody needs. Beyond, the last ones count as one.
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

    /// Connections made before now have to be gone `within` this time.
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

    /// Of a connection that is made now.
    pub(super) fn vintage(self: &Arc<Self>) -> Vintage {
        Vintage {
            renewals: self.clone(),
            count: self.count.load(Relaxed),
            share: rand::random(),
        }
    }

    /// When the next ones have to be gone that don't have to yet.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.past().recent.iter().map(Renewal::end).min()
    }

    /// Tells of each renewal, and of the past ones at once.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        let mut told = self.told.subscribe();
        told.mark_changed();
        told
    }

    /// What is past, up to now.
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
    /// Whether the connection may not be used any more.
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
    async fn connections_of_before_end_one_after_another_and_all_in_time() {
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
    async fn a_hasty_renewal_hastens_the_ones_before_it() {
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
    async fn however_many_renewals_there_are_they_take_no_room_and_all_end() {
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
