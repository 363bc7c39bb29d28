//! Which name servers have failed lately, by the type of the question: they are asked last for a while, or each question
//! would wait for a server that is gone. Pure.
//!
//! By type, because there are servers that answer A and swallow AAAA.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::lookup::RecordType;
use crate::sync::Mutex;

/// For how long a server is asked last after it has failed; twice as long each time, up to the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A server that has given no answer for so long, which is as long as a question may take, is away and not just slow.
const AWAY: Duration = Duration::from_secs(4);

/// The failures of servers.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<HashMap<(SocketAddr, RecordType), Trouble>>);

/// A server's failures since its last answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    /// The last time nobody listened at its port, or there was no way there.
    is_closed: bool,
    pause: Duration,
    until: Instant,
}

impl Troubles {
    /// Whether a server is to be asked after the others.
    pub(super) fn is_late(&self, server: SocketAddr, asked: RecordType, now: Instant) -> bool {
        let trouble = self.0.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| now < trouble.until)
    }

    /// A server that was asked at `since` has given no answer. `is_closed`: nobody listens at its port.
    pub(super) fn failed(
        &self,
        server: SocketAddr,
        asked: RecordType,
        since: Instant,
        now: Instant,
        is_closed: bool,
    ) {
        let mut troubles = self.0.lock();
        let trouble = troubles.entry((server, asked)).or_insert(Trouble {
            since,
            is_closed,
            pause: PAUSE.0 / 2,
            until: now,
        });
        trouble.is_closed = is_closed;
        // A failure while it is asked last is no news.
        if now >= trouble.until {
            trouble.pause = (trouble.pause * 2).min(PAUSE.1);
            trouble.until = now + trouble.pause;
        }
    }

    pub(super) fn answered(&self, server: SocketAddr, asked: RecordType) {
        self.0.lock().remove(&(server, asked));
    }

    /// Whether a server has given no answer for a while.
    pub(super) fn is_away(&self, server: SocketAddr, asked: RecordType, now: Instant) -> bool {
        let trouble = self.0.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| now >= trouble.since + AWAY)
    }

    /// Whether nobody listened at a server's port when it was last asked.
    pub(super) fn is_closed(&self, server: SocketAddr, asked: RecordType) -> bool {
        let trouble = self.0.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| trouble.is_closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn server() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 10], 53))
    }

    #[test]
    fn a_server_that_fails_is_asked_last_for_a_while_and_by_type() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let is_late = |asked, later| troubles.is_late(server(), asked, now + later);
        assert!(!is_late(RecordType::Aaaa, SECOND));
        troubles.failed(server(), RecordType::Aaaa, now, now, false);
        assert!(!is_late(RecordType::A, SECOND));
        assert!(is_late(RecordType::Aaaa, SECOND));
        assert!(!is_late(RecordType::Aaaa, 5 * SECOND));
        troubles.answered(server(), RecordType::Aaaa);
        assert!(!is_late(RecordType::Aaaa, SECOND));
    }

    #[test]
    fn a_server_that_is_gone_costs_its_share_seldom() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let is_tried = |second: &u32| {
            let then = now + *second * SECOND;
            let tried = !troubles.is_late(server(), RecordType::A, then);
            if tried {
                troubles.failed(server(), RecordType::A, then, then, false);
            }
            tried
        };
        let tried: Vec<_> = (0..200).filter(is_tried).collect();
        assert_eq!(tried, [0, 5, 15, 35, 75, 135, 195]);
    }

    #[test]
    fn a_server_is_away_once_it_has_failed_for_four_seconds() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let is_away = |second| troubles.is_away(server(), RecordType::A, now + second * SECOND);
        // The first question took two of them.
        let later = |seconds| now + seconds * SECOND;
        troubles.failed(server(), RecordType::A, now, later(2), false);
        assert!(!is_away(3));
        troubles.failed(server(), RecordType::A, later(3), later(3), false);
        assert!(is_away(4));
        troubles.answered(server(), RecordType::A);
        assert!(!is_away(4));
    }

    #[test]
    fn a_port_is_closed_until_something_else_is_the_matter() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let fail = |is_closed| troubles.failed(server(), RecordType::A, now, now, is_closed);
        let is_closed = || troubles.is_closed(server(), RecordType::A);
        assert!(!is_closed());
        fail(true);
        assert!(is_closed());
        fail(false);
        assert!(!is_closed());
        fail(true);
        troubles.answered(server(), RecordType::A);
        assert!(!is_closed());
    }
}
