//! One pod's connections.
//!
//! ```text
//!  HTTP/1.1   reserved by one request ──▶ in flight until the body ends ──▶ idle, the last used on top ──▶ too old: closed
//!                 ▲                                                          │
//!                 └──────────────────────────────────────────────────────────┘
//!  HTTP/2     shared by as many requests as the pod allows at once; one more is opened when all are full
//!             too old: its successor is made; then it takes no more requests, and closes when it has none
//! ```
//!
//! A request in flight keeps its connection alive, but refers to the pool only weakly. When the pod leaves the set, the
//! pool is dropped with its idle connections; connections in use close when their requests have ended.

mod age;
mod ahead;
mod connection;
mod dialed;
mod dialing;
mod freed;
mod keep_alive;
mod keeper;
mod lease;
mod named;
mod reaping;
mod room;
mod settling;
mod state;
mod succession;
#[cfg(test)]
mod tests;
mod wait;

pub(super) use age::{Age, AgeLimits};
pub(super) use connection::{Reserved, Stream};
pub(super) use keep_alive::KeepAlive;
pub(super) use lease::Lease;
pub(super) use named::{Named, Origin};
pub(super) use wait::{DialError, Wait};

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};

use self::{
    connection::{Http1, Http2},
    dialed::Dialed,
    dialing::{Dial, Dialing},
    freed::{Freed, NextFreed},
    keeper::Keeper,
    room::{Room, Rooms, Tenancy},
    settling::{Settling, Shelf},
    state::State,
};
use super::{
    address::Service,
    connect::{Connection, Connector},
    error::RuntimeEnded,
    protocol::Protocol,
    renewal::Vintage,
};
use crate::{
    balance::Generator,
    counters::{Closed, ConnectionTally, HasIdle, claim},
    endpoint::Endpoint,
    home::Home,
    sync::Mutex,
};

/// What all pools of a client share.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) connector: Connector,
    pub(super) service: Service,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) first_byte: Option<Duration>,
    pub(super) age: AgeLimits,
    /// Whether to connect before a request needs it.
    pub(super) ahead: bool,
    /// Draws all jitter.
    pub(super) generator: Generator,
}

impl Config {
    /// The age of a connection that is being made now.
    fn newborn(&self, vintage: Option<Vintage>) -> Age {
        Age::new(self.age, Instant::now(), &mut &self.generator).of(vintage)
    }
}

pub(super) struct Pool {
    pub(super) named: Named,
    pub(super) config: Arc<Config>,
    rooms: Arc<Rooms>,
    /// Tells waiting requests of a free connection, or of room for a new one.
    freed: Arc<Freed>,
    /// What the pod speaks, once known: `UNKNOWN`, `HTTP1` or `HTTP2`.
    spoken: AtomicU8,
    /// The balancer's runtime.
    runtime: Handle,
    state: Mutex<State>,
    keeper: Keeper,
    /// Where its connections are counted, if they are.
    counted: Option<Arc<ConnectionTally>>,
}

#[cfg(feature = "tls")]
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

impl Pool {
    /// Has counters if it is made while a counted endpoint joins.
    pub(super) fn new(pod: Endpoint, config: Arc<Config>) -> Arc<Self> {
        let spoken = match config.connector.protocol {
            Protocol::Http1 => HTTP1,
            Protocol::Http2 => HTTP2,
            #[cfg(feature = "tls")]
            Protocol::Negotiated if config.connector.tls.is_some() => UNKNOWN,
            Protocol::Negotiated => HTTP1,
        };
        let freed = Arc::<Freed>::default();
        let pool = Arc::new(Self {
            named: Named::new(pod, Some(config.service.name.clone())),
            rooms: Arc::new(Rooms::new(config.max_connections, freed.clone())),
            config,
            freed,
            spoken: AtomicU8::new(spoken),
            runtime: Handle::current(),
            state: Mutex::default(),
            keeper: Keeper::default(),
            counted: claim(),
        });
        if let Some(counted) = &pool.counted {
            let has_idle: Weak<dyn HasIdle> = Arc::<Self>::downgrade(&pool);
            counted.set_pool(has_idle);
        }
        pool
    }

    /// An existing connection, if one is free.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Reserved> {
        let mut state = self.state.lock();
        if self.spoken.load(Relaxed) != HTTP2
            && let Some(connection) = state.pop_idle()
        {
            return Some(Reserved::Http1(connection));
        }
        let stream = state.begin_stream()?;
        if let Some(old) = stream.too_old() {
            self.succeed(&mut state, old);
        }
        Some(Reserved::Http2(stream))
    }

    /// Begins to connect. If there is no room for another connection, waits for one.
    pub(super) fn connect(self: &Arc<Self>) -> Wait {
        let mut state = self.state.lock();
        if let Some(settling) = self.settling(&mut state) {
            return Wait::Settling(settling);
        }
        if self.spoken.load(Relaxed) == HTTP1 {
            return match self.take_room(&mut state) {
                Ok(room) => self.dial(&mut state, room),
                Err(freed) => Wait::Freed(freed),
            };
        }
        if let Some(dialing) = state.dialing() {
            return dialing;
        }
        match self.take_room(&mut state) {
            Ok(room) => {
                let dialing = self.dial_for_all(room, Weak::new());
                let wait = dialing.wait();
                state.dialing.push(dialing);
                wait
            }
            Err(freed) => Wait::Freed(freed),
        }
    }

    /// Takes room for one more connection, or waits for it.
    fn take_room(&self, state: &mut State) -> Result<Tenancy, NextFreed> {
        let (tenancy, evicted) = self.rooms.take(Home::of(&self.runtime()))?;
        if let Some(evicted) = evicted {
            state.evict(&evicted);
        }
        Ok(tenancy)
    }

    /// An idle connection that will be ready soon.
    fn settling(self: &Arc<Self>, state: &mut State) -> Option<Settling> {
        while let Some(connection) = state.pop_settling() {
            let pool = Arc::downgrade(self);
            if connection.settles_until() > Instant::now() {
                return Some(Settling::new(connection, pool));
            }
            Self::release_later(pool, connection);
        }
        None
    }

    /// Connects for one request. If that is cancelled meanwhile, the next request gets the connection.
    fn dial(self: &Arc<Self>, state: &mut State, tenancy: Tenancy) -> Wait {
        let (sender, receiver) = oneshot::channel();
        let (pool, config, origin) = self.parts();
        let (end, room) = (self.on_end(), tenancy.room());
        let (in_use, its, counted) = (room.in_use(), room.clone(), self.counted.clone());
        let task = self.runtime().spawn(async move {
            // Read before connecting: settings that change meanwhile then retire the connection too soon rather than
            // too late.
            let vintage = config.connector.vintage();
            let dial = config
                .connector
                .connect(&origin.pod, counted, (tenancy, end));
            let connected = dial.await;
            origin.tell_of_dial(&connected);
            let result = match connected {
                Ok(Connection::Http1(sender, hints, claim)) => {
                    let age = config.newborn(vintage);
                    Ok(Some(Http1::new(sender, hints, claim, age, room)))
                }
                Ok(connection) => {
                    match pool.upgrade() {
                        Some(pool) => pool.add(connection, vintage, room),
                        None => connection.leaves(),
                    }
                    Ok(None)
                }
                Err(error) => Err(error),
            };
            if let Err(Ok(Some(connection))) = sender.send(result) {
                Self::release(&pool, connection);
            }
        });
        if its.home().may_stand_still() {
            state.dials(Dial::new(task.abort_handle(), its));
        }
        let shelf: Weak<dyn Shelf> = Arc::<Self>::downgrade(self);
        Wait::Dial(Dialed::new(receiver, shelf), in_use)
    }

    /// Connects for all requests that wait, even if some are cancelled. Afterwards the old connection that it
    /// `replaced`, if any, retires.
    fn dial_for_all(self: &Arc<Self>, tenancy: Tenancy, replaced: Weak<Http2>) -> Dialing {
        let (pool, config, origin) = self.parts();
        let (end, room) = (self.on_end(), tenancy.room());
        let (its, counted) = (room.clone(), self.counted.clone());
        let task = self.runtime().spawn(async move {
            let vintage = config.connector.vintage();
            let dial = config
                .connector
                .connect(&origin.pod, counted, (tenancy, end));
            let made = dial.await;
            origin.tell_of_dial(&made);
            let Some(pool) = pool.upgrade() else {
                return made.map(Connection::leaves);
            };
            let made = made.map(|connection| pool.add(connection, vintage, room));
            pool.end_dial(&replaced);
            made
        });
        let dial = Dial::new(task.abort_handle(), its);
        let told = async move {
            match task.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(DialError(error.into())),
                Err(error) if error.is_cancelled() => Err(DialError(Arc::new(RuntimeEnded))),
                Err(error) => Err(DialError(Arc::new(error))),
            }
        };
        Dialing::new(dial, told.boxed().shared())
    }

    /// The caller's runtime; outside of any, the balancer's.
    fn runtime(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.runtime.clone())
    }

    /// The caller's runtime, if it makes connections while the caller waits in it.
    pub(super) fn home(&self) -> Option<Home> {
        let home = Home::of(&self.runtime());
        home.runs_beside_us().then_some(home)
    }

    fn parts(self: &Arc<Self>) -> (Weak<Self>, Arc<Config>, Arc<Origin>) {
        let origin = self.named.origin.clone();
        (Arc::downgrade(self), self.config.clone(), origin)
    }

    fn add(self: &Arc<Self>, connection: Connection, vintage: Option<Vintage>, room: Room) {
        let age = self.config.newborn(vintage);
        match connection {
            Connection::Http1(sender, hints, claim) => {
                self.spoken.store(HTTP1, Relaxed);
                let connection = Http1::new(sender, hints, claim, age, room);
                Self::release(&Arc::downgrade(self), connection);
            }
            Connection::Http2(sender, http2) => {
                self.spoken.store(HTTP2, Relaxed);
                let connection = Http2::new(sender, http2, self.freed.clone(), age, room);
                let due = connection.due(self.config.idle_timeout, Instant::now());
                let mut state = self.state.lock();
                // It is outdated, or its dial has given up its room: those who wait make another.
                if connection.is_over() || connection.room.is_vacant() {
                    return;
                }
                state.http2.push(Arc::new(connection));
                self.reap_later(&mut state, due, &Handle::current());
                drop(state);
                self.connected();
            }
        }
    }

    /// Takes back an HTTP/1.1 connection that has no request any more, or closes it. Its own task may not have finished
    /// the response yet.
    pub(super) fn release(pool: &Weak<Self>, mut connection: Box<Http1>) {
        connection.idle_since = Instant::now();
        connection.hints.ending().set_busy(false);
        Self::put(pool, connection);
    }

    /// Keeps a connection aside that won't be ready soon: its pod answered early, and the rest of the request is still
    /// being sent.
    fn release_later(pool: Weak<Self>, mut connection: Box<Http1>) {
        let Some(idle_timeout) = pool.upgrade().map(|pool| pool.config.idle_timeout) else {
            connection.ends_without_pool(&pool);
            return;
        };
        connection.end_use();
        let runtime = connection.runtime.clone();
        runtime.spawn(async move {
            match timeout(idle_timeout, connection.sender.ready()).await {
                Ok(Ok(())) => Self::release(&pool, connection),
                Ok(Err(_closed)) => {}
                Err(_late) => connection.cut_upload(),
            }
        });
    }

    /// Puts a connection on top of the idle ones.
    fn put(pool: &Weak<Self>, mut connection: Box<Http1>) {
        let Some(pool) = pool.upgrade() else {
            connection.ends_without_pool(pool);
            return;
        };
        let due = connection.due(pool.config.idle_timeout);
        let mut state = pool.state.lock();
        // Checked under the lock, so that a renewal, or a request that takes over the room, can't slip in between.
        let is_over = connection.is_over() || connection.room.is_vacant();
        let is_kept = state.idle.len() < pool.config.max_idle && !is_over;
        if !is_kept {
            connection.ends_idle();
        } else {
            pool.reap_later(&mut state, due, &connection.runtime);
            connection.end_use_untold();
            state.idle.push(connection);
            drop(state);
            pool.connected();
            pool.freed.tell_one();
        }
    }

    /// Closes all idle connections after one has broken: others are probably broken as well, and requests shouldn't
    /// find out one by one.
    pub(super) fn close_idle(&self) {
        let mut state = self.state.lock();
        state.end_all(Closed::Client, false);
        state.idle.clear();
    }
}

impl HasIdle for Pool {
    fn idle(&self) -> u64 {
        self.state.lock().count_idle()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.get_mut().end_all(Closed::Left, true);
    }
}

impl Shelf for Pool {
    fn put_back(self: Arc<Self>, connection: Box<Http1>) {
        Self::put(&Arc::downgrade(&self), connection);
    }

    fn put_aside(self: Arc<Self>, connection: Box<Http1>) {
        Self::release_later(Arc::downgrade(&self), connection);
    }
}
