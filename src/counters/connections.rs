//! The counters of an endpoint's connections.
//!
//! Whoever makes an endpoint's service may make its connections, and knows nothing of the endpoint's other counters. So these are
//! there for it while the service is made ([`joining`]), and belong to the endpoint only if they were [claimed](claim).

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use super::{
    count::Count,
    counts::{ConnectionCounts, ConnectionEnds, ConnectionFailures},
};

/// What is counted of one endpoint's connections.
#[derive(Default)]
pub(crate) struct ConnectionTally {
    opened: Count,
    failed: [Count; 4],
    closed: [Count; 7],
    /// Who has those that are idle.
    pool: OnceLock<Weak<dyn HasIdle>>,
}

/// Has connections without requests.
pub(crate) trait HasIdle: Send + Sync {
    /// How many it has.
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

    /// The idle ones are to be asked for here.
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
        // What ends is read before what begins.
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
    /// Of the endpoint whose service is being made, if that is counted; none in it before it is claimed.
    static JOINING: RefCell<Option<Option<Arc<ConnectionTally>>>> = const { RefCell::new(None) };
}

/// Makes an endpoint's service. With it come the counters of the endpoint's connections, if it has claimed them.
pub(crate) fn joining<T>(make: impl FnOnce() -> T) -> (T, Option<Arc<ConnectionTally>>) {
    /// It may panic.
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

/// The counters of the connections to the endpoint whose service is being made here; none if nothing is counted.
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
    fn only_a_service_that_is_made_for_a_balancer_that_counts_has_counters() {
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
