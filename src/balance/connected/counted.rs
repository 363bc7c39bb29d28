//! What the counters hear of connections: made, failed, and ended, each with its cause.

use std::{
    error::Error,
    io::{self, ErrorKind},
    sync::{Arc, Weak},
};

use crate::{
    counters::{Closed, ConnectionTally, HasIdle, NotConnected, claim},
    error::BoxError,
    sync::Mutex,
};

/// The counters of one pool's connections; none if nothing is counted.
#[derive(Clone)]
pub(super) struct Counted(Option<Arc<ConnectionTally>>);

impl Counted {
    /// Those of the endpoint whose service this thread is making.
    pub(super) fn claim() -> Self {
        Self(claim())
    }

    /// Idle connections are counted by this pool.
    pub(super) fn set_pool(&self, pool: Weak<dyn HasIdle>) {
        if let Self(Some(tally)) = self {
            tally.set_pool(pool);
        }
    }

    pub(super) fn opened(&self) -> Opened {
        let counted = self.0.as_ref().map(|tally| {
            tally.opened();
            Arc::new(Ends {
                tally: tally.clone(),
                why: Mutex::new(None),
            })
        });
        Opened(counted)
    }

    pub(super) fn failed(&self, error: &BoxError) {
        if let Self(Some(tally)) = self {
            tally.failed(why(&**error));
        }
    }

    pub(super) fn timed_out(&self) {
        if let Self(Some(tally)) = self {
            tally.failed(NotConnected::Timeout);
        }
    }
}

/// An open connection. Requests that share it have clones, and it ends with the last of them.
#[derive(Clone)]
pub(super) struct Opened(Option<Arc<Ends>>);

impl Opened {
    /// Why it is about to end. The first cause counts.
    pub(super) fn ends(&self, why: Closed) {
        if let Self(Some(ends)) = self {
            ends.why.lock().get_or_insert(why);
        }
    }

    /// Whether no request has a clone.
    pub(super) fn is_idle(&self) -> bool {
        let Self(counted) = self;
        counted
            .as_ref()
            .is_some_and(|ends| Arc::strong_count(ends) == 1)
    }
}

/// Counts the end of a connection.
struct Ends {
    tally: Arc<ConnectionTally>,
    why: Mutex<Option<Closed>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        // Nobody has ended it: its pool has, because the pod left or the balancer ended.
        self.tally
            .closed(self.why.get_mut().unwrap_or(Closed::Left));
    }
}

/// The cause of a failed connect, from the system's own error, which others may wrap.
fn why(error: &(dyn Error + 'static)) -> NotConnected {
    let mut chain = std::iter::successors(Some(error), |&error| error.source());
    let kind = chain.find_map(|error| Some(kind(error.downcast_ref()?)));
    kind.map_or(NotConnected::Other, NotConnected::by)
}

/// The error's kind, or that of the error in it: such a one isn't its source.
fn kind(error: &io::Error) -> ErrorKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or(error.kind(), kind)
}
