//! Connections as requests use them.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Method, Response, header::CONTENT_LENGTH};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    upgrade::OnUpgrade,
};
use tokio::{runtime::Handle, time::Instant};

use super::{
    age::Age,
    freed::Freed,
    keep_alive::KeepAlive,
    room::{InUse, Room},
};
use crate::{
    counters::Closed,
    error::BoxError,
    http::{
        body::RequestBody,
        ending::Ending,
        h2_task::{Http2State, User},
        heads::read_again,
        reclaim::Claim,
        socket::SocketHints,
        upload::{Fate, Place, Upload},
        wire_limits::WireLimits,
    },
    sync::Mutex,
};

/// How long a connection may take to finish its request after the response has ended. A request that fits into the
/// socket's buffer was written at once, so only the connection's task is late: on a busy machine, where a handshake
/// would be late, too.
const MOMENT: Duration = Duration::from_millis(50);

/// For a longer body, if the pod answered early: the rest may still be unwritten, possibly forever.
const SHORT_MOMENT: Duration = Duration::from_millis(1);

/// How soon after a response a connection is used again without a check for arrived data, which might as well arrive a
/// moment after the check.
const INSTANT: Duration = Duration::from_micros(20);

/// The smallest socket buffer of any system.
const SOCKET_BUFFER: usize = 16 * 1024;

/// A connection reserved for one request.
pub(in crate::http) enum Reserved {
    Http1(Box<Http1>),
    Http2(Stream),
}

/// A connection for one request at a time. Boxed, because it moves many times for each request.
pub(in crate::http) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) hints: SocketHints,
    pub(super) claim: Claim,
    pub(super) idle_since: Instant,
    /// How long after a response it may take to be ready again.
    grace: Duration,
    age: Age,
    keep_alive: KeepAlive,
    /// The runtime that drives it; it may be given back outside of any runtime.
    pub(super) runtime: Handle,
    pub(super) room: Room,
    /// Present while a request uses it.
    in_use: Option<InUse>,
}

/// A connection for many requests at once.
pub(super) struct Http2 {
    sender: http2::SendRequest<Upload>,
    /// Whether it takes no more requests.
    retired: AtomicBool,
    places: Arc<Places>,
    pub(super) age: Age,
    pub(super) room: Room,
}

/// The requests of an HTTP/2 connection.
struct Places {
    http2: Arc<Http2State>,
    streams: AtomicUsize,
    idle_since: Mutex<Instant>,
    freed: Arc<Freed>,
}

/// One request on an HTTP/2 connection.
pub(in crate::http) struct Stream {
    connection: Arc<Http2>,
    /// Ends with the response, even if the request's body goes on: nobody waits for that.
    _in_use: Option<InUse>,
    /// The response's share of the place; the request's body has the other.
    place: Arc<Taken>,
}

/// A place on the connection until both halves of a stream are done, because the pod counts streams like that (RFC 9113
/// §5.1.2).
struct Taken {
    places: Arc<Places>,
    fate: Fate,
}

impl Reserved {
    pub(in crate::http) fn is_open(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.sender.is_ready() && !connection.is_over(),
            Self::Http2(stream) => !stream.connection.is_over(),
        }
    }

    /// Whether the connection has ended with its runtime.
    pub(in crate::http) fn is_cut_off(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.hints.is_cut_off(),
            Self::Http2(stream) => stream.http2().is_cut_off(),
        }
    }

    /// Why the request's own body failed, if it did: hyper's errors don't say.
    pub(in crate::http) fn take_body_error(&self) -> Option<BoxError> {
        match self {
            Self::Http1(connection) => connection.claim.take_body_error(),
            Self::Http2(stream) => stream.fate().take_body_error(),
        }
    }

    /// Why the connection ends.
    pub(in crate::http) fn ending(&self) -> &Ending {
        match self {
            Self::Http1(connection) => connection.hints.ending(),
            Self::Http2(stream) => stream.http2().ending(),
        }
    }

    /// Notes that the request came back unwritten with this error: it was never on the connection.
    pub(in crate::http) fn came_too_late(&self, error: &hyper::Error) {
        if let Self::Http1(connection) = self {
            connection.hints.ending().failed(error);
            connection.hints.ending().set_busy(false);
        }
    }

    /// Whether a response has a length besides its chunks. The chunks count, but others on the way may have believed the
    /// length, so no other request should follow (RFC 9112 §6.1 and §6.3).
    pub(in crate::http) fn is_ambiguous(&self, response: &Response<Incoming>) -> bool {
        matches!(self, Self::Http1(_))
            && response.body().size_hint().exact().is_none()
            && response.headers().contains_key(CONTENT_LENGTH)
    }

    /// Notes that the pod has answered.
    pub(in crate::http) fn answered(&mut self, response: &Response<Incoming>) {
        if let Self::Http1(connection) = self {
            connection.keep_alive.heed(response.headers());
            // An upgrade may still claim the stream.
            if response.extensions().get::<OnUpgrade>().is_none() {
                connection.claim.head_has_come();
            }
        }
    }
}

impl Http1 {
    /// A connection in the current runtime, reserved for a request.
    pub(super) fn new(
        sender: http1::SendRequest<RequestBody>,
        hints: SocketHints,
        claim: Claim,
        age: Age,
        room: Room,
    ) -> Box<Self> {
        hints.read_first();
        Box::new(Self {
            sender,
            hints,
            claim,
            idle_since: age.made(),
            grace: Duration::ZERO,
            age,
            keep_alive: KeepAlive::default(),
            runtime: Handle::current(),
            in_use: room.in_use(),
            room,
        })
    }

    /// Begins a request with this body. If data arrived while there was no request, it comes back unwritten.
    pub(in crate::http) fn begin(
        &mut self,
        body: &mut RequestBody,
    ) -> &mut http1::SendRequest<RequestBody> {
        self.claim.head_is_due(body);
        self.age.count();
        self.hints.ending().set_busy(true);
        self.grace = match body.is_within(SOCKET_BUFFER) {
            true => MOMENT,
            false => SHORT_MOMENT,
        };
        if Instant::now() >= self.idle_since + INSTANT {
            self.hints.read_first();
        }
        &mut self.sender
    }

    /// Reads the response's head again, with all the room that it may have, because it was too large. `method` is the
    /// request's. No other request may follow. None if the connection is gone.
    pub(in crate::http) async fn read_again(
        &mut self,
        method: Method,
        limits: &WireLimits,
    ) -> Option<hyper::Result<Response<Incoming>>> {
        let stream = self.claim.take().await?;
        let read = read_again(stream, method, limits, &self.runtime, &self.hints).await;
        Some(read.map(|reread| {
            (self.sender, self.claim) = (reread.sender, reread.claim);
            reread.response
        }))
    }

    /// Whether its runtime runs while a request waits here.
    pub(super) fn is_driven(&self) -> bool {
        self.room.home().runs_beside_us()
    }

    /// Marks it as used by a request.
    pub(super) fn begin_use(&mut self) {
        self.in_use = self.room.in_use();
    }

    /// Marks it as unused.
    pub(super) fn end_use(&mut self) {
        self.in_use = None;
    }

    /// Marks it as unused without telling those who wait, because the caller will.
    pub(super) fn end_use_untold(&mut self) {
        if let Some(in_use) = self.in_use.take() {
            in_use.end_untold();
        }
    }

    /// Whether it takes no more requests: it is closed or too old, or the pod will close it soon.
    pub(super) fn is_over(&self) -> bool {
        let is_old = self.age.is_reached() || self.age.is_outdated();
        self.sender.is_closed() || is_old || self.keep_alive.is_over()
    }

    /// Notes why it is about to be closed while no request has it.
    pub(super) fn ends_idle(&self) {
        self.hints.ending().because(if self.room.is_vacant() {
            Closed::Client
        } else if self.sender.is_closed() || self.keep_alive.is_over() {
            Closed::Peer
        } else if self.age.is_reached() || self.age.is_outdated() {
            Closed::Age
        } else {
            Closed::Idle
        });
    }

    /// Notes why it is about to be closed although no pool is left to take it back.
    pub(super) fn ends_without_pool<P>(&self, pool: &Weak<P>) {
        self.hints.ending().because(if self.sender.is_closed() {
            Closed::Peer
        } else if pool.ptr_eq(&Weak::new()) {
            // It was never going to be used again.
            Closed::Client
        } else {
            Closed::Left
        });
    }

    /// Ends the upload that keeps it from being ready, if there is one: its pod has answered it long ago.
    pub(super) fn cut_upload(&mut self) {
        if !self.sender.is_ready() && !self.sender.is_closed() {
            self.claim.cut();
        }
    }

    /// How long a request waits for it to be ready.
    pub(super) fn settles_until(&self) -> Instant {
        self.idle_since + self.grace
    }

    /// When it should be closed if it stays idle.
    pub(super) fn due(&self, timeout: Duration) -> Instant {
        let bounds = [self.age.expires(), self.keep_alive.until()];
        let due = self.idle_since + timeout;
        bounds.into_iter().flatten().fold(due, Instant::min)
    }
}

/// Whoever had it has given it up, unless another reason was noted before.
impl Drop for Http1 {
    fn drop(&mut self) {
        if !self.sender.is_closed() {
            self.hints.ending().because(Closed::Client);
        }
    }
}

impl Http2 {
    /// `freed` is told when a request has ended, and when the pod allows more requests.
    pub(super) fn new(
        sender: http2::SendRequest<Upload>,
        http2: Arc<Http2State>,
        freed: Arc<Freed>,
        age: Age,
        room: Room,
    ) -> Self {
        let (vacate, waiting) = (room.clone(), freed.clone());
        http2.tell(User {
            allows_more: Box::new(move || waiting.tell_all()),
            takes_no_more: Box::new(move || vacate.vacate()),
        });
        let places = Places {
            http2,
            streams: AtomicUsize::new(0),
            idle_since: Mutex::new(age.made()),
            freed,
        };
        Self {
            sender,
            retired: AtomicBool::new(false),
            places: Arc::new(places),
            age,
            room,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.retired.load(Relaxed) || self.age.is_outdated()
    }

    /// Whether its runtime runs while a request waits here.
    pub(super) fn is_driven(&self) -> bool {
        self.room.home().runs_beside_us()
    }

    /// Since when it has had no request; none if it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.places.streams.load(Relaxed) == 0;
        is_idle.then(|| *self.places.idle_since.lock())
    }

    /// Makes it take no more requests. It no longer counts against the limit, because its requests may be long.
    pub(super) fn retire(&self) {
        if self.age.is_reached() || self.age.is_outdated() {
            self.because(Closed::Age);
        }
        self.retired.store(true, Relaxed);
        self.room.vacate();
    }

    /// Notes why it ends, unless it has ended already.
    pub(super) fn because(&self, cause: Closed) {
        if !self.sender.is_closed() {
            self.places.http2.ending().because(cause);
        }
    }

    /// Gives up its room to another connection while it still takes requests.
    pub(super) fn vacate(&self) {
        self.room.vacate();
    }

    /// Whether the next request will probably come soon: it has been idle for less than half its life.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        let idle = self.idle_since().map(|since| now - since);
        idle.is_none_or(|idle| idle * 2 < now - self.age.made())
    }

    /// When to check it again.
    pub(super) fn due(&self, timeout: Duration, now: Instant) -> Instant {
        let due = self.idle_since().unwrap_or(now) + timeout;
        let expires = self.age.expires().filter(|at| *at > now);
        expires.map_or(due, |at| at.min(due))
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.because(Closed::Client);
    }
}

impl Stream {
    /// Begins one more request, if the pod allows it.
    pub(super) fn begin(connection: &Arc<Http2>) -> Option<Self> {
        if !connection.age.allows_one_more() {
            return None;
        }
        let places = &connection.places;
        let allowed = places.http2.allowed();
        let one_more = |streams| (streams < allowed).then_some(streams + 1);
        let begun = places.streams.fetch_update(Relaxed, Relaxed, one_more);
        begun.is_ok().then(|| {
            connection.age.count();
            places.http2.ending().request_begins();
            Self {
                connection: connection.clone(),
                _in_use: connection.room.in_use(),
                place: Arc::new(Taken {
                    places: places.clone(),
                    fate: Fate::default(),
                }),
            }
        })
    }

    /// The connection, if it is too old for another request.
    pub(super) fn too_old(&self) -> Option<&Arc<Http2>> {
        self.connection.age.is_reached().then_some(&self.connection)
    }

    pub(in crate::http) fn sender(&self) -> http2::SendRequest<Upload> {
        self.connection.sender.clone()
    }

    /// Makes a request's body hold the place, too.
    pub(in crate::http) fn upload(&self, body: RequestBody) -> Upload {
        Upload::new(body, self.place.clone())
    }

    pub(in crate::http) fn fate(&self) -> &Fate {
        &self.place.fate
    }

    /// What is known of the connection.
    pub(in crate::http) fn http2(&self) -> &Arc<Http2State> {
        &self.place.places.http2
    }

    /// Makes the connection take no more requests.
    pub(in crate::http) fn retire(&self) {
        self.connection.retire();
    }
}

impl Place for Taken {
    fn fate(&self) -> &Fate {
        &self.fate
    }

    fn dropped_unread(&self) {
        if self.places.http2.drops_unprocessed() {
            self.fate.hold_back();
        }
    }

    fn goes_on(self: Arc<Self>) {
        let http2 = self.places.http2.clone();
        http2.set_upload(self);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let places = &self.places;
        places.http2.ending().request_ends();
        if places.streams.fetch_sub(1, Relaxed) == 1 {
            *places.idle_since.lock() = Instant::now();
        }
        places.freed.tell_one();
    }
}
