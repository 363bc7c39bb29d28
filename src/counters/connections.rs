//! The counters of an endpoint's connections.
//!
//! The code that makes an endpoint's service also makes its connections, and can't see the endpoint's other counters.
//! So these counters are offered in a thread-local while the service is made ([`joining`]). The endpoint keeps them
//! only if the code [claimed](claim) them.

use std::{
    cell::RefCell,
    fmt,
    io::ErrorKind,
    sync::{Arc, OnceLock, Weak},
};

use super::{
    count::Count,
    counts::{ConnectionCounts, ConnectionEnds, ConnectionFailures},
};

/// The counters of one endpoint's connections.
#[derive(Default)]
pub(crate) struct ConnectionTally {
    opened: Count,
    failed: [Count; 4],
    closed: [Count; 7],
    /// The pool, which knows how many are idle.
    pool: OnceLock<Weak<dyn HasIdle>>,
}

/// A pool of connections, some of them idle.
pub(crate) trait HasIdle: Send + Sync {
    /// How many connections have no request.
    fn idle(&self) -> u64;
}

/// Why a connection could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotConnected {
    Refused,
    Timeout,
    Tls,
    Other,
}

impl NotConnected {
    /// The cause by the kind of the system's error.
    pub(crate) fn by(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Idle,
    Age,
    Peer,
    Lost,
    Left,
    Protocol,
    Client,
}

impl ConnectionTally {
    pub(crate) fn opened(&self) {
        self.opened.add(1);
    }

    pub(crate) fn failed(&self, why: NotConnected) {
        self.failed[why as usize].add(1);
    }

    pub(crate) fn closed(&self, why: Closed) {
        self.closed[why as usize].add(1);
    }

    /// Idle connections are counted by this pool.
    pub(crate) fn set_pool(&self, pool: Weak<dyn HasIdle>) {
        // An endpoint has one pool.
        let _ = self.pool.set(pool);
    }

    #[cfg(all(test, feature = "http"))]
    pub(crate) fn is_closed_by(&self, why: Closed) -> bool {
        self.closed[why as usize].get() > 0
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let pool = self.pool.get().and_then(Weak::upgrade);
        let idle = pool.map_or(0, |pool| pool.idle());
        // Ends are read before beginnings, so that no connection seems to end before it was opened.
        let [idle_for_long, age, peer, lost, left, protocol, client] =
            self.closed.each_ref().map(Count::get);
        let [refused, timeout, tls, other] = self.failed.each_ref().map(Count::get);
        ConnectionCounts {
            failed: ConnectionFailures {
                refused,
                timeout,
                tls,
                other,
            },
            closed: ConnectionEnds {
                idle: idle_for_long,
                age,
                peer,
                lost,
                left,
                protocol,
                client,
            },
            opened: self.opened.get(),
            idle,
        }
    }
}

impl fmt::Debug for ConnectionTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ConnectionTally");
        debug.field("opened", &self.opened).finish_non_exhaustive()
    }
}

thread_local! {
    /// The counters of the endpoint whose service is being made. The outer `Option` says whether they are counted, the
    /// inner one whether they are claimed.
    static JOINING: RefCell<Option<Option<Arc<ConnectionTally>>>> = const { RefCell::new(None) };
}

/// Makes an endpoint's service, and returns the counters of its connections if `make` claimed them.
pub(crate) fn joining<T>(make: impl FnOnce() -> T) -> (T, Option<Arc<ConnectionTally>>) {
    /// Resets the thread-local even if `make` panics.
    struct Ends;

    impl Drop for Ends {
        fn drop(&mut self) {
            JOINING.set(None);
        }
    }

    let ends = Ends;
    JOINING.set(Some(None));
    let made = make();
    let claimed = JOINING.take().flatten();
    drop(ends);
    (made, claimed)
}

/// Claims the connection counters of the endpoint whose service this thread is making; `None` if nothing is counted.
pub(crate) fn claim() -> Option<Arc<ConnectionTally>> {
    JOINING.with_borrow_mut(|joining| {
        let tally = joining.as_mut()?;
        Some(tally.get_or_insert_default().clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_counters_can_be_claimed_only_while_a_counting_balancer_makes_a_service() {
        assert!(claim().is_none());
        let (mine, theirs) = joining(claim);
        let (mine, theirs) = (mine.expect("counted"), theirs.expect("claimed"));
        assert!(Arc::ptr_eq(&mine, &theirs));
        let ((), unclaimed) = joining(|| ());
        assert!(unclaimed.is_none() && claim().is_none());
        let panicked = std::panic::catch_unwind(|| joining(|| panic!("in make")));
        assert!(panicked.is_err() && claim().is_none());
    }
}
