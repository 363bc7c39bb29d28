//! Which name servers failed lately, by record type. They are asked last for a while, or each question would wait for a
//! server that is gone. Pure.
//!
//! It goes by type because some servers answer A and never AAAA.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::lookup::RecordType;
use crate::sync::Mutex;

/// How long a server is asked last after a failure: the first figure, doubled each time up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A server without an answer for this long is away, not just slow: a question may take no longer.
const AWAY: Duration = Duration::from_secs(4);

/// The current failures of all servers.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<HashMap<(SocketAddr, RecordType), Trouble>>);

/// A server's failures since its last answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    /// At the last attempt its port was closed, or there was no route.
    is_closed: bool,
    pause: Duration,
    until: Instant,
}

impl Troubles {
    /// Whether to ask a server after the others.
    pub(super) fn is_late(&self, server: SocketAddr, asked: RecordType, now: Instant) -> bool {
        let trouble = self.0.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| now < trouble.until)
    }

    /// Notes that a server asked at `since` gave no answer. `is_closed`: its port is closed, or there is no route.
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
        // A failure while it is already asked last changes nothing.
        if now >= trouble.until {
            trouble.pause = (trouble.pause * 2).min(PAUSE.1);
            trouble.until = now + trouble.pause;
        }
    }

    pub(super) fn answered(&self, server: SocketAddr, asked: RecordType) {
        self.0.lock().remove(&(server, asked));
    }

    /// Whether a server has given no answer for [`AWAY`].
    pub(super) fn is_away(&self, server: SocketAddr, asked: RecordType, now: Instant) -> bool {
        let trouble = self.0.lock().get(&(server, asked)).copied();
        trouble.is_some_and(|trouble| now >= trouble.since + AWAY)
    }

    /// Whether a server's port was closed, or unreachable, when it was last asked.
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
    fn a_failing_server_is_asked_last_for_a_while_for_that_type_only() {
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
    fn a_server_that_is_gone_is_tried_less_and_less_often() {
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
        // The first question took two of the four seconds.
        let later = |seconds| now + seconds * SECOND;
        troubles.failed(server(), RecordType::A, now, later(2), false);
        assert!(!is_away(3));
        troubles.failed(server(), RecordType::A, later(3), later(3), false);
        assert!(is_away(4));
        troubles.answered(server(), RecordType::A);
        assert!(!is_away(4));
    }

    #[test]
    fn a_port_counts_as_closed_until_an_answer_or_another_failure() {
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
