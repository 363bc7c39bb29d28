//! One pod's connections.
//!
//! ```text
//!  HTTP/1.1   reserved by one request ──▶ in flight until the body ends ──▶ idle, the last used on top ──▶ too old: closed
//!                 ▲                                                          │
//!                 └──────────────────────────────────────────────────────────┘
//!  HTTP/2     shared by as many requests as the pod allows at once; one more is opened when all are full
//! ```
//!
//! A request that is in flight holds its connection, and the pool only weakly: when the pod leaves the set the pool goes,
//! its idle connections with it, and connections in use close when their requests have ended.

mod connection;
mod lease;
mod state;
mod wait;

pub(super) use connection::{Reserved, Stream};
pub(super) use lease::Lease;
pub(super) use wait::Wait;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};

use self::{
    connection::{Http1, Http2},
    state::State,
    wait::{DialError, Room, SharedDial},
};
use super::{
    address::Service,
    connect::{Connection, Connector},
    protocol::Protocol,
};
use crate::{endpoint::Endpoint, error::BoxError};

/// What all pools of a client have in common.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) connector: Connector,
    pub(super) service: Service,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) first_byte: Option<Duration>,
}

pub(super) struct Pool {
    pod: Endpoint,
    pub(super) config: Arc<Config>,
    /// Room for connections.
    room: Arc<Semaphore>,
    /// There may be a connection to use, or room for one.
    freed: Arc<Notify>,
    /// What the pod speaks, once it is known.
    spoken: AtomicU8,
    state: Mutex<State>,
}

#[cfg(feature = "tls")]
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

impl Pool {
    pub(super) fn new(pod: Endpoint, config: Arc<Config>) -> Self {
        let spoken = match config.connector.protocol {
            Protocol::Http1 => HTTP1,
            Protocol::Http2 => HTTP2,
            #[cfg(feature = "tls")]
            Protocol::Negotiated if config.connector.tls.is_some() => UNKNOWN,
            Protocol::Negotiated => HTTP1,
        };
        Self {
            pod,
            room: Arc::new(Semaphore::new(config.max_connections)),
            config,
            freed: Arc::default(),
            spoken: AtomicU8::new(spoken),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that there is.
    pub(super) fn reserve(&self) -> Option<Reserved> {
        let mut state = self.lock();
        if self.spoken.load(Relaxed) != HTTP2
            && let Some(connection) = state.pop_idle()
        {
            return Some(Reserved::Http1(connection));
        }
        state.http2.retain(|connection| !connection.is_over());
        let stream = state.http2.iter().find_map(Stream::begin)?;
        Some(Reserved::Http2(stream))
    }

    /// Begins to connect, or waits for a connection where there is no room for one more.
    pub(super) fn connect(self: &Arc<Self>) -> Wait {
        if self.spoken.load(Relaxed) == HTTP1 {
            return match Room::take(&self.room, &self.freed) {
                Ok(room) => self.dial(room),
                Err(wait) => wait,
            };
        }
        let mut state = self.lock();
        if let Some(dialing) = state.dialing.as_ref().filter(|dial| dial.peek().is_none()) {
            return Wait::Shared(dialing.clone());
        }
        match Room::take(&self.room, &self.freed) {
            Ok(room) => {
                let dialing = self.dial_for_all(room);
                state.dialing = Some(dialing.clone());
                Wait::Shared(dialing)
            }
            Err(wait) => wait,
        }
    }

    /// Connects for one request. Should that be cancelled meanwhile, the next one has the connection.
    fn dial(self: &Arc<Self>, room: Room) -> Wait {
        let (sender, receiver) = oneshot::channel();
        let (pool, config, pod) = self.parts();
        tokio::spawn(async move {
            let result = match config.connector.connect(&pod, room).await {
                Ok(Connection::Http1(sender)) => Ok(Some(Http1::new(sender))),
                Ok(connection) => {
                    Self::add(&pool, connection);
                    Ok(None)
                }
                Err(error) => Err(error),
            };
            if let Err(Ok(Some(connection))) = sender.send(result) {
                Self::release(&pool, connection);
            }
        });
        Wait::Dial(receiver)
    }

    /// Connects for all requests that wait, whichever of them is cancelled.
    fn dial_for_all(self: &Arc<Self>, room: Room) -> SharedDial {
        let (pool, config, pod) = self.parts();
        let task = tokio::spawn(async move {
            let connection = config.connector.connect(&pod, room).await?;
            Self::add(&pool, connection);
            Ok::<_, BoxError>(())
        });
        let told = async move {
            match task.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(DialError(error.into())),
                Err(error) => Err(DialError(Arc::new(error))),
            }
        };
        told.boxed().shared()
    }

    fn parts(self: &Arc<Self>) -> (Weak<Self>, Arc<Config>, Endpoint) {
        (Arc::downgrade(self), self.config.clone(), self.pod.clone())
    }

    fn add(pool: &Weak<Self>, connection: Connection) {
        let Some(this) = pool.upgrade() else { return };
        match connection {
            Connection::Http1(sender) => {
                this.spoken.store(HTTP1, Relaxed);
                Self::release(pool, Http1::new(sender));
            }
            Connection::Http2(sender, http2) => {
                this.spoken.store(HTTP2, Relaxed);
                let connection = Http2::new(sender, http2, this.freed.clone());
                let mut state = this.lock();
                state.http2.push(Arc::new(connection));
                this.reap_later(&mut state);
            }
        }
    }

    /// Takes an HTTP/1.1 connection back that has no request any more, or closes it.
    pub(super) fn release(pool: &Weak<Self>, mut connection: Http1) {
        let mut cx = Context::from_waker(Waker::noop());
        match connection.sender.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => Self::take_back(pool, connection),
            Poll::Ready(Err(_closed)) => {}
            Poll::Pending => Self::release_later(pool, connection),
        }
    }

    /// The connection's own task is not done with the response, or the request still is on its way where it was answered
    /// early.
    fn release_later(pool: &Weak<Self>, mut connection: Http1) {
        let Some(patience) = pool.upgrade().map(|pool| pool.config.idle_timeout) else {
            return;
        };
        let pool = pool.clone();
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(patience, connection.sender.ready()).await {
                Self::take_back(&pool, connection);
            }
        });
    }

    fn take_back(pool: &Weak<Self>, mut connection: Http1) {
        let Some(pool) = pool.upgrade() else { return };
        connection.idle_since = Instant::now();
        let mut state = pool.lock();
        if state.idle.len() < pool.config.max_idle {
            state.idle.push(connection);
            pool.reap_later(&mut state);
            drop(state);
            pool.freed.notify_one();
        }
    }

    /// A connection to the pod has broken: others are likely to be broken as well, and their next requests are not to find
    /// out.
    pub(super) fn distrust(&self) {
        self.lock().idle.clear();
    }

    /// Sees to it that idle connections are closed when they grow too old.
    fn reap_later(self: &Arc<Self>, state: &mut State) {
        if state.reaper.is_some() {
            return;
        }
        let (alive, mut pool_is_gone) = oneshot::channel();
        state.reaper = Some(alive);
        let (pool, timeout) = (Arc::downgrade(self), self.config.idle_timeout);
        tokio::spawn(async move {
            let mut next = Instant::now() + timeout;
            loop {
                if timeout_at(next, &mut pool_is_gone).await.is_ok() {
                    return;
                }
                let Some(pool) = pool.upgrade() else { return };
                let mut state = pool.lock();
                match state.reap(timeout) {
                    Some(due) => next = due,
                    None => {
                        state.reaper = None;
                        return;
                    }
                }
            }
        });
    }
}
