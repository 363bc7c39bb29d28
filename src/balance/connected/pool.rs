//! The connections of one pod that nobody uses, and places for more.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{endpoint::Endpoint, error::BoxError, home::Home, sync::Mutex};

/// How many runtimes may have a connection of their own that is shared in each. Those of runtimes that have ended are
/// pushed out by later ones.
const MOST_RUNTIMES: usize = 64;

pub(super) struct Settings<S> {
    pub(super) most: usize,
    pub(super) connect: Arc<Connect<S>>,
    /// Makes a clone for each request; none where each has a connection to itself.
    pub(super) share: Option<fn(&S) -> S>,
    pub(super) connect_timeout: Duration,
    pub(super) wait_timeout: Duration,
    pub(super) keep_after: Arc<dyn Fn(&BoxError) -> bool + Send + Sync>,
}

pub(super) type Connect<S> =
    dyn Fn(Endpoint) -> BoxFuture<'static, Result<S, BoxError>> + Send + Sync;

impl<S> Clone for Settings<S> {
    fn clone(&self) -> Self {
        Self {
            most: self.most,
            connect: self.connect.clone(),
            share: self.share,
            connect_timeout: self.connect_timeout,
            wait_timeout: self.wait_timeout,
            keep_after: self.keep_after.clone(),
        }
    }
}

/// One pod's connections. It lives as long as the pod's service and its clones do: requests that are under way don't
/// keep it.
pub(super) struct Pool<S> {
    pub(super) endpoint: Endpoint,
    pub(super) settings: Settings<S>,
    /// How many places there are.
    most: usize,
    pub(super) places: Arc<Semaphore>,
    /// How many connections are in use or being made. Where one is taken or put back, this changes with those that are idle.
    taken: Arc<AtomicUsize>,
    open: Mutex<Open<S>>,
}

/// Connections that nobody uses, the last one used at the end; or those that are shared.
struct Open<S> {
    connections: VecDeque<Connection<S>>,
    made: u64,
}

/// A connection, and the runtime that it lives in.
pub(super) struct Connection<S> {
    pub(super) service: S,
    pub(super) home: Home,
    pub(super) id: u64,
}

impl<S> Pool<S> {
    pub(super) fn new(endpoint: Endpoint, settings: Settings<S>) -> Self {
        let most = settings.most.min(Semaphore::MAX_PERMITS);
        Self {
            endpoint,
            settings,
            most,
            places: Arc::new(Semaphore::new(most)),
            taken: Arc::default(),
            open: Mutex::new(Open {
                connections: VecDeque::new(),
                made: 0,
            }),
        }
    }

    /// The shared connection of the runtime `here`, cloned.
    pub(super) fn shared(&self, here: Home) -> Option<Connection<S>> {
        let share = self.settings.share?;
        let open = self.open.lock();
        let shared = open.connections.iter().find(|it| it.home == here)?;
        Some(Connection {
            service: share(&shared.service),
            home: here,
            id: shared.id,
        })
    }

    /// An idle connection of the runtime `here`, for who has a place. If there is none, and no room for the one to come, one of
    /// another runtime makes some.
    pub(super) fn idle(&self, place: &mut Place, here: Home) -> Option<Connection<S>> {
        let mut open = self.open.lock();
        let at = open.connections.iter().rposition(|it| it.home == here);
        place.count(&self.taken);
        // The one to come included.
        let taken = self.taken.load(Relaxed);
        let is_full = open.connections.len() + taken > self.most;
        let (idle, closed) = match at {
            Some(at) => (open.connections.remove(at), None),
            None if is_full => (None, open.connections.pop_front()),
            None => (None, None),
        };
        drop(open);
        // It is the user's, and may do as it likes when it is dropped.
        drop(closed);
        idle
    }

    /// A new connection's number.
    pub(super) fn number(&self) -> u64 {
        let mut open = self.open.lock();
        open.made += 1;
        open.made
    }

    /// Keeps a connection for the next request, or for all; the place that it had is for another one when this is done.
    pub(super) fn put(&self, connection: Connection<S>, place: Option<Place>) {
        let mut open = self.open.lock();
        // It doesn't count twice at any time: a good one of another runtime would be closed for it.
        let place = place.map(Place::uncounted);
        open.connections.push_back(connection);
        let is_over = self.settings.share.is_some() && open.connections.len() > MOST_RUNTIMES;
        let oldest = is_over.then(|| open.connections.pop_front()).flatten();
        drop(open);
        drop((place, oldest));
    }

    /// A shared connection is used no more.
    pub(super) fn forget(&self, id: u64) {
        let mut open = self.open.lock();
        let at = open.connections.iter().position(|it| it.id == id);
        let forgotten = at.and_then(|at| open.connections.remove(at));
        drop(open);
        drop(forgotten);
    }
}

/// A place for a connection.
pub(super) struct Place {
    /// Where it is counted, once it is used.
    counted: Option<Arc<AtomicUsize>>,
    /// Given back after it is counted out.
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self {
            counted: None,
            _permit: permit,
        }
    }

    fn count(&mut self, taken: &Arc<AtomicUsize>) {
        if self.counted.is_none() {
            taken.fetch_add(1, Relaxed);
            self.counted = Some(taken.clone());
        }
    }

    fn uncounted(mut self) -> Self {
        self.end();
        self
    }

    fn end(&mut self) {
        if let Some(taken) = self.counted.take() {
            taken.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
    }
}
