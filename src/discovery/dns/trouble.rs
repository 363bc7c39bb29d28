//! Which name servers have failed lately, by the type of the question: they are asked last for a while, or each question
//! would wait for a server that is gone. Pure.
//!
//! By type, because there are servers that answer A and swallow AAAA.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::lookup::RecordType;

/// For how long a server is asked last after it has failed; twice as long each time, up to the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A server that has given no answer for so long, which is as long as a question may take, is away and not just slow.
const AWAY: Duration = Duration::from_secs(4);

/// The failures of a list of servers, which are named by their place in it.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<HashMap<(usize, RecordType), Trouble>>);

/// A server's failures since its last answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    pause: Duration,
    until: Instant,
}

impl Troubles {
    /// All `count` servers in the order in which to ask them.
    pub(super) fn order(&self, count: usize, asked: RecordType, now: Instant) -> Vec<usize> {
        let troubles = self.lock();
        let is_late = |server: &usize| {
            let trouble = troubles.get(&(*server, asked));
            trouble.is_some_and(|trouble| now < trouble.until)
        };
        let mut servers: Vec<_> = (0..count).collect();
        servers.sort_by_key(is_late);
        servers
    }

    pub(super) fn failed(&self, server: usize, asked: RecordType, now: Instant) {
        let mut troubles = self.lock();
        let trouble = troubles.entry((server, asked)).or_insert(Trouble {
            since: now,
            pause: PAUSE.0 / 2,
            until: now,
        });
        // A failure while it is asked last is no news.
        if now >= trouble.until {
            trouble.pause = (trouble.pause * 2).min(PAUSE.1);
            trouble.until = now + trouble.pause;
        }
    }

    pub(super) fn answered(&self, server: usize, asked: RecordType) {
        self.lock().remove(&(server, asked));
    }

    /// Whether a server has given no answer for a while.
    pub(super) fn is_away(&self, server: usize, asked: RecordType, now: Instant) -> bool {
        let trouble = self.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| now >= trouble.since + AWAY)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(usize, RecordType), Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_fails_is_asked_last_for_a_while_and_by_type() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let order = |asked, later| troubles.order(3, asked, now + later);
        assert_eq!(order(RecordType::A, SECOND), [0, 1, 2]);
        troubles.failed(0, RecordType::Aaaa, now);
        assert_eq!(order(RecordType::A, SECOND), [0, 1, 2]);
        assert_eq!(order(RecordType::Aaaa, SECOND), [1, 2, 0]);
        assert_eq!(order(RecordType::Aaaa, 5 * SECOND), [0, 1, 2]);
        troubles.answered(0, RecordType::Aaaa);
        assert_eq!(order(RecordType::Aaaa, SECOND), [0, 1, 2]);
    }

    #[test]
    fn a_server_that_is_gone_costs_its_share_seldom() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let is_first = |second: &u32| {
            let then = now + *second * SECOND;
            let first = troubles.order(2, RecordType::A, then)[0] == 0;
            if first {
                troubles.failed(0, RecordType::A, then);
            }
            first
        };
        let tried: Vec<_> = (0..200).filter(is_first).collect();
        assert_eq!(tried, [0, 5, 15, 35, 75, 135, 195]);
    }

    #[test]
    fn a_server_is_away_once_it_has_failed_for_four_seconds() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let is_away = |second| troubles.is_away(0, RecordType::A, now + second * SECOND);
        troubles.failed(0, RecordType::A, now);
        assert!(!is_away(3));
        troubles.failed(0, RecordType::A, now + 3 * SECOND);
        assert!(is_away(4));
        troubles.answered(0, RecordType::A);
        assert!(!is_away(4));
    }
}
