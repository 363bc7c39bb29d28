//! Why a connection ends: the first cause counts.
//!
//! Code that closes a connection notes the cause first. The socket sees the pod's end before hyper does, and so before
//! any request. A connection is counted only if it was opened.
//!
//! ```text
//!  making ──▶ open ──▶ its socket is dropped ── a cause is known ─────────────────────────────▶ counted
//!                                            └─ no cause yet: undecided, until hyper ended and ─▲
//!                                               its requests ended, or one of them failed
//! ```
//!
//! The requests decide because the last data on a connection may arrive together with its end: a whole response, or a
//! violation of the protocol.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
};

use super::cause::{cause_of, is_breach, is_too_large};
use crate::counters::{Closed, ConnectionTally};

/// What is known of one connection's end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// None if connections are not counted.
    tally: Option<Arc<ConnectionTally>>,
    stage: AtomicU8,
    cause: AtomicU8,
    /// How many requests use it.
    requests: AtomicUsize,
    /// Whether a request has failed because of it.
    has_failed: AtomicBool,
    /// Whether hyper has ended.
    is_over: AtomicBool,
}

const MAKING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;
const UNDECIDED: u8 = 3;

const NO_CAUSE: u8 = 0;
/// The pod closed it, or it broke, during a request.
const UNDER_REQUEST: u8 = u8::MAX;

const CAUSES: [Closed; 7] = [
    Closed::Idle,
    Closed::Age,
    Closed::Peer,
    Closed::Lost,
    Closed::Left,
    Closed::Protocol,
    Closed::Client,
];

impl Ending {
    pub(super) fn of(tally: Option<Arc<ConnectionTally>>) -> Self {
        Self {
            tally,
            stage: AtomicU8::new(MAKING),
            cause: AtomicU8::new(NO_CAUSE),
            requests: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// Notes that it was made.
    pub(super) fn open(&self) {
        let Some(tally) = &self.tally else { return };
        tally.opened();
        let made = (self.stage).compare_exchange(MAKING, OPEN, SeqCst, SeqCst);
        if made.is_err() {
            // It has ended already.
            tally.closed(self.why());
        }
    }

    /// Notes that its socket is dropped.
    pub(super) fn close(&self) {
        if self.tally.is_some() && self.stage.swap(CLOSED, SeqCst) == OPEN {
            self.stage.store(UNDECIDED, SeqCst);
            self.decide();
        }
    }

    /// Notes that hyper has ended, and has told the requests.
    pub(super) fn over(&self) {
        self.is_over.store(true, SeqCst);
        self.decide();
    }

    /// Notes whether a request uses it alone (HTTP/1.1).
    #[inline]
    pub(super) fn set_busy(&self, is_busy: bool) {
        if self.tally.is_some() {
            self.requests.store(usize::from(is_busy), Relaxed);
            self.decide();
        }
    }

    /// Notes one more request of many (HTTP/2).
    #[inline]
    pub(super) fn request_begins(&self) {
        if self.tally.is_some() {
            self.requests.fetch_add(1, Relaxed);
        }
    }

    /// Notes one request less of many (HTTP/2).
    #[inline]
    pub(super) fn request_ends(&self) {
        if self.tally.is_some() {
            self.requests.fetch_sub(1, SeqCst);
            self.decide();
        }
    }

    /// Notes why it is about to be closed.
    pub(super) fn because(&self, cause: Closed) {
        self.set(cause as u8 + 1);
    }

    /// Notes that the pod has closed it, as the socket sees.
    pub(super) fn ended_by_pod(&self) {
        match self.requests.load(Relaxed) {
            0 => self.because(Closed::Peer),
            _ => self.set(UNDER_REQUEST),
        }
    }

    /// Notes that the socket can't be read or written any more.
    pub(super) fn broken(&self, error: io::ErrorKind) {
        match error {
            // The peer is gone, without saying so.
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => self.because(Closed::Lost),
            _ => self.ended_by_pod(),
        }
    }

    /// Notes the error with which hyper ends it.
    pub(super) fn failed(&self, error: &hyper::Error) {
        if error.is_timeout() {
            self.because(Closed::Lost);
        } else if is_too_large(error) || error.is_user() {
            // The request may read a too large head itself, without hyper; no other request follows.
            self.because(Closed::Client);
        } else if is_breach(error) {
            self.broke_protocol();
        } else if let Some(cause) = cause_of::<hyper::Error>(error) {
            self.failed(cause);
        }
    }

    /// Notes the error with which a request and its connection have failed.
    pub(super) fn failed_request(&self, error: &hyper::Error) {
        self.failed(error);
        self.has_failed.store(true, SeqCst);
        self.decide();
    }

    /// Overrides an end that may have been seen before the data ahead of it was read.
    fn broke_protocol(&self) {
        let cause = Closed::Protocol as u8 + 1;
        let _ = (self.cause).compare_exchange(UNDER_REQUEST, cause, SeqCst, SeqCst);
        self.set(cause);
    }

    fn set(&self, cause: u8) {
        let _ = (self.cause).compare_exchange(NO_CAUSE, cause, SeqCst, SeqCst);
    }

    /// Counts the end, if that is due. If several threads end it at once and none sees the other, `drop` counts it.
    fn decide(&self) {
        if self.stage.load(SeqCst) != UNDECIDED {
            return;
        }
        let is_known = !matches!(self.cause.load(SeqCst), NO_CAUSE | UNDER_REQUEST);
        let is_told = self.has_failed.load(SeqCst) || self.requests.load(SeqCst) == 0;
        if is_known || (is_told && self.is_over.load(SeqCst)) {
            self.count();
        }
    }

    fn count(&self) {
        let decided = (self.stage).compare_exchange(UNDECIDED, CLOSED, SeqCst, SeqCst);
        if let (Ok(_), Some(tally)) = (decided, &self.tally) {
            tally.closed(self.why());
        }
    }

    fn why(&self) -> Closed {
        let has_failed = self.has_failed.load(SeqCst);
        let is_busy = self.requests.load(SeqCst) > 0;
        match self.cause.load(SeqCst) {
            UNDER_REQUEST if has_failed || is_busy => Closed::Lost,
            NO_CAUSE if has_failed => Closed::Lost,
            // hyper has ended it by itself, because its request was cancelled.
            NO_CAUSE if is_busy => Closed::Client,
            // A response may end with its connection. Or hyper has ended it by itself, because the pod announced the
            // end.
            UNDER_REQUEST | NO_CAUSE => Closed::Peer,
            cause => CAUSES[usize::from(cause) - 1],
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(end: impl FnOnce(&Ending)) -> Vec<Closed> {
        let tally = Arc::<ConnectionTally>::default();
        let ending = Ending::of(Some(tally.clone()));
        ending.open();
        end(&ending);
        ending.close();
        ending.over();
        drop(ending);
        let closed = CAUSES.iter().filter(|it| tally.is_closed_by(**it));
        closed.copied().collect()
    }

    #[test]
    fn the_first_cause_counts() {
        for cause in CAUSES {
            assert_eq!(ends(|it| it.because(cause)), [cause]);
        }
        let late = ends(|it| {
            it.because(Closed::Idle);
            it.because(Closed::Client);
        });
        assert_eq!(late, [Closed::Idle]);
    }

    #[test]
    fn a_connection_that_ends_during_a_request_is_lost_unless_the_response_ended_with_it() {
        let busy = |it: &Ending| {
            it.set_busy(true);
            it.ended_by_pod();
        };
        assert_eq!(ends(busy), [Closed::Lost]);
        let given_back = |it: &Ending| {
            busy(it);
            it.set_busy(false);
        };
        assert_eq!(ends(given_back), [Closed::Peer]);
        assert_eq!(ends(Ending::ended_by_pod), [Closed::Peer]);
    }

    /// One request ends as another begins: whichever is noted first, the connection has a request.
    #[test]
    fn a_connection_is_busy_until_the_last_of_many_requests_ends() {
        let left = |it: &Ending| {
            it.request_begins();
            it.request_begins();
            it.request_ends();
            it.ended_by_pod();
        };
        assert_eq!(ends(left), [Closed::Lost]);
        let none_left = |it: &Ending| {
            left(it);
            it.request_ends();
        };
        assert_eq!(ends(none_left), [Closed::Peer]);
    }

    #[test]
    fn an_unreachable_network_loses_busy_and_idle_connections() {
        use io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
        for gone in [TimedOut, HostUnreachable, NetworkUnreachable] {
            assert_eq!(ends(|it| it.broken(gone)), [Closed::Lost], "{gone}");
        }
        assert_eq!(ends(|it| it.broken(ConnectionReset)), [Closed::Peer]);
    }

    /// Nobody else is there to decide.
    #[test]
    fn an_end_is_counted_as_soon_as_its_cause_is_known() {
        let tally = Arc::<ConnectionTally>::default();
        let ending = Ending::of(Some(tally.clone()));
        ending.open();
        ending.request_begins();
        ending.close();
        ending.over();
        assert!(!CAUSES.iter().any(|it| tally.is_closed_by(*it)));
        ending.request_ends();
        assert!(tally.is_closed_by(Closed::Peer));
    }

    #[test]
    fn a_connection_that_was_never_made_is_not_counted() {
        let tally = Arc::<ConnectionTally>::default();
        Ending::of(Some(tally.clone())).close();
        assert!(!CAUSES.iter().any(|it| tally.is_closed_by(*it)));
    }
}
