//! The idle connections of one pod, and places for more.

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

use super::counted::{Counted, Opened};
use crate::{
    counters::{Closed, HasIdle},
    endpoint::Endpoint,
    error::BoxError,
    home::Home,
    sync::Mutex,
};

/// How many runtimes may have a shared connection each. Later ones push out those of runtimes that have ended.
const MOST_RUNTIMES: usize = 64;

pub(super) struct Settings<S> {
    pub(super) most: usize,
    pub(super) connect: Arc<Connect<S>>,
    /// Makes a clone for each request; `None` if each request has a connection to itself.
    pub(super) share: Option<fn(&S) -> S>,
    pub(super) connect_timeout: Duration,
    pub(super) wait_timeout: Duration,
    pub(super) keep_after: Arc<dyn Fn(&BoxError) -> bool + Send + Sync>,
}

pub(super) type Connect<S> =
    dyn Fn(Endpoint) -> BoxFuture<'static, Result<S, BoxError>> + Send + Sync;

impl<S> Settings<S> {
    /// How long a request waits for a place. If connections are shared, another request is connecting there.
    pub(super) fn place_timeout(&self) -> Duration {
        match self.share {
            Some(_) => self.wait_timeout.max(self.connect_timeout),
            None => self.wait_timeout,
        }
    }
}

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

/// One pod's connections. It lives as long as the pod's service and its clones; requests under way don't keep it alive.
pub(super) struct Pool<S> {
    pub(super) endpoint: Endpoint,
    pub(super) settings: Settings<S>,
    pub(super) counted: Counted,
    /// How many places there are.
    most: usize,
    pub(super) places: Arc<Semaphore>,
    /// How many connections are in use or being made. Changes under the lock of `open` when one is taken or put back.
    taken: Arc<AtomicUsize>,
    open: Mutex<Open<S>>,
}

/// The idle connections, the last one used at the end; or the shared ones.
struct Open<S> {
    connections: VecDeque<Connection<S>>,
    made: u64,
}

/// A connection, with the runtime that it lives in.
pub(super) struct Connection<S> {
    pub(super) service: S,
    pub(super) home: Home,
    pub(super) id: u64,
    pub(super) opened: Opened,
}

impl<S> Pool<S> {
    pub(super) fn new(endpoint: Endpoint, settings: Settings<S>) -> Self {
        let most = settings.most.min(Semaphore::MAX_PERMITS);
        Self {
            endpoint,
            settings,
            counted: Counted::claim(),
            most,
            places: Arc::new(Semaphore::new(most)),
            taken: Arc::default(),
            open: Mutex::new(Open {
                connections: VecDeque::new(),
                made: 0,
            }),
        }
    }

    /// A clone of the shared connection of the runtime `here`.
    pub(super) fn shared(&self, here: Home) -> Option<Connection<S>> {
        let share = self.settings.share?;
        let open = self.open.lock();
        let shared = open.connections.iter().find(|it| it.home == here)?;
        Some(Connection {
            service: share(&shared.service),
            home: here,
            id: shared.id,
            opened: shared.opened.clone(),
        })
    }

    /// Takes an idle connection of the runtime `here`, for a request that has a place. If there is none, and no room
    /// for a new one, closes one of another runtime to make room.
    pub(super) fn take_idle(&self, place: &mut Place, here: Home) -> Option<Connection<S>> {
        let mut open = self.open.lock();
        let at = open.connections.iter().rposition(|it| it.home == here);
        place.count(&self.taken);
        // Includes the connection that is about to be made.
        let taken = self.taken.load(Relaxed);
        let is_full = open.connections.len() + taken > self.most;
        let (idle, closed) = match at {
            Some(at) => (open.connections.remove(at), None),
            None if is_full => (None, open.connections.pop_front()),
            None => (None, None),
        };
        drop(open);
        // Outside of the lock: its `Drop` is the user's code.
        Self::end_idle(closed);
        idle
    }

    /// Closes a connection, if any, in favour of another runtime's.
    fn end_idle(closed: Option<Connection<S>>) {
        if let Some(closed) = closed {
            closed.opened.ends(Closed::Idle);
        }
    }

    /// A new connection's number.
    pub(super) fn number(&self) -> u64 {
        let mut open = self.open.lock();
        open.made += 1;
        open.made
    }

    /// Keeps a connection for the next request, or for all, then frees its place.
    pub(super) fn put(&self, connection: Connection<S>, place: Option<Place>) {
        let mut open = self.open.lock();
        // Counted out first: if it counted twice, a good connection of another runtime might be closed for it.
        let place = place.map(Place::uncounted);
        open.connections.push_back(connection);
        let is_over = self.settings.share.is_some() && open.connections.len() > MOST_RUNTIMES;
        let oldest = is_over.then(|| open.connections.pop_front()).flatten();
        drop(open);
        drop(place);
        Self::end_idle(oldest);
    }

    /// Removes a shared connection, so that no more requests use it.
    pub(super) fn forget(&self, id: u64) {
        let mut open = self.open.lock();
        let at = open.connections.iter().position(|it| it.id == id);
        let forgotten = at.and_then(|at| open.connections.remove(at));
        drop(open);
        drop(forgotten);
    }
}

impl<S: Send> HasIdle for Pool<S> {
    fn idle(&self) -> u64 {
        let open = self.open.lock();
        let idle = open.connections.iter().filter(|it| it.opened.is_idle());
        idle.count() as u64
    }
}

/// A place for a connection.
pub(super) struct Place {
    /// The counter that counts it, once it is used.
    counted: Option<Arc<AtomicUsize>>,
    /// Dropped last, so given back after the place is counted out.
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
