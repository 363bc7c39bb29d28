//! Why a connection ends: the first cause counts.
//!
//! Who closes a connection says why before it does. What the socket sees of the pod's end comes before hyper hears of it, and so
//! before any request does. A connection is counted when its socket is dropped, and only if it was ever used.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use crate::counters::{Closed, ConnectionTally};

/// What is known of one connection's end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// None where nothing is counted.
    tally: Option<Arc<ConnectionTally>>,
    stage: AtomicU8,
    cause: AtomicU8,
    is_busy: AtomicBool,
    /// hyper has ended it with an error.
    has_failed: AtomicBool,
}

const MAKING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;
const UNDECIDED: u8 = 3;

const NO_CAUSE: u8 = 0;
/// The pod has closed it, or it broke, while a request had it.
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
            is_busy: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        }
    }

    /// It was made.
    pub(super) fn open(&self) {
        let Some(tally) = &self.tally else { return };
        tally.opened();
        let made = (self.stage).compare_exchange(MAKING, OPEN, Relaxed, Relaxed);
        if made.is_err() {
            // It has ended already.
            tally.closed(self.why());
        }
    }

    /// Its socket is dropped.
    pub(super) fn close(&self) {
        let Some(tally) = &self.tally else { return };
        let is_open = self.stage.swap(CLOSED, Relaxed) == OPEN;
        if is_open && self.is_undecided() {
            self.stage.store(UNDECIDED, Relaxed);
        } else if is_open {
            tally.closed(self.why());
        }
    }

    /// A request had it at its end, which says whether that was the response's end, too: it gives the connection back then.
    fn is_undecided(&self) -> bool {
        self.cause.load(Relaxed) == UNDER_REQUEST && !self.has_failed.load(Relaxed)
    }

    /// It has ended, and with it all requests that had it.
    pub(super) fn ended_all(&self) {
        self.has_failed.store(true, Relaxed);
    }

    /// Whether requests have it.
    #[inline]
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Relaxed);
    }

    /// It is about to be closed for this.
    pub(super) fn because(&self, cause: Closed) {
        self.set(cause as u8 + 1);
    }

    /// The socket finds that the pod has closed it.
    pub(super) fn ended_by_pod(&self) {
        match self.is_busy.load(Relaxed) {
            true => self.set(UNDER_REQUEST),
            false => self.because(Closed::Peer),
        }
    }

    /// hyper ends it with this.
    pub(super) fn failed(&self, error: &hyper::Error) {
        self.has_failed.store(true, Relaxed);
        let is_h2 = error.source().is_some_and(|it| it.is::<h2::Error>());
        if error.is_timeout() {
            self.because(Closed::Lost);
        } else if error.is_parse_too_large() {
            // The request may read on without hyper; no other one comes over it.
            self.because(Closed::Client);
        } else if error.is_parse() || is_h2 {
            self.because(Closed::Protocol);
        }
    }

    fn set(&self, cause: u8) {
        let _ = (self.cause).compare_exchange(NO_CAUSE, cause, Relaxed, Relaxed);
    }

    fn why(&self) -> Closed {
        match self.cause.load(Relaxed) {
            UNDER_REQUEST if self.has_failed.load(Relaxed) => Closed::Lost,
            // A response may be at its end with the connection. And hyper has ended it by itself, for the pod had said so.
            UNDER_REQUEST | NO_CAUSE => Closed::Peer,
            cause => CAUSES[usize::from(cause) - 1],
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(tally) = &self.tally
            && *self.stage.get_mut() == UNDECIDED
        {
            tally.closed(match *self.is_busy.get_mut() {
                true => Closed::Lost,
                false => Closed::Peer,
            });
        }
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
    fn what_ends_under_a_request_is_lost_unless_the_response_ended_so() {
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
        let failed = |it: &Ending| {
            busy(it);
            it.ended_all();
        };
        assert_eq!(ends(failed), [Closed::Lost]);
        assert_eq!(ends(Ending::ended_by_pod), [Closed::Peer]);
    }

    #[test]
    fn what_was_never_made_has_not_ended() {
        let tally = Arc::<ConnectionTally>::default();
        Ending::of(Some(tally.clone())).close();
        assert!(!CAUSES.iter().any(|it| tally.is_closed_by(*it)));
    }
}
