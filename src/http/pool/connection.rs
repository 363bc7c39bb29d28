//! Connections as requests have them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use hyper::client::conn::{http1, http2};
use tokio::{sync::Notify, time::Instant};

use crate::{home::Home, http::body::RequestBody};

/// A connection reserved for one request.
pub(in crate::http) enum Reserved {
    Http1(Http1),
    Http2(Stream),
}

/// A connection for one request at a time.
pub(in crate::http) struct Http1 {
    pub(in crate::http) sender: http1::SendRequest<RequestBody>,
    pub(super) idle_since: Instant,
    /// The runtime that drives it.
    home: Option<Home>,
}

/// A connection for many requests at a time.
pub(super) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    /// How many requests the pod allows at once.
    allowed: Arc<AtomicUsize>,
    streams: AtomicUsize,
    /// It takes no more requests.
    retired: AtomicBool,
    idle_since: Mutex<Instant>,
    /// The runtime that drives it.
    home: Option<Home>,
    freed: Arc<Notify>,
}

/// The place of one request on an HTTP/2 connection.
pub(in crate::http) struct Stream(Arc<Http2>);

impl Reserved {
    pub(in crate::http) fn is_open(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.sender.is_ready(),
            Self::Http2(stream) => !stream.0.is_over(),
        }
    }
}

impl Http1 {
    /// To be called in the runtime that drives it.
    pub(super) fn new(sender: http1::SendRequest<RequestBody>) -> Self {
        Self {
            sender,
            idle_since: Instant::now(),
            home: Home::here(),
        }
    }

    /// Whether somebody drives it while a request waits here.
    pub(super) fn is_driven(&self) -> bool {
        self.home.is_some_and(|home| home.runs_beside_us())
    }
}

impl Http2 {
    /// To be called in the runtime that drives it. A pod `allowed` so many requests at once; `freed` is told when one of them has ended.
    pub(super) fn new(
        sender: http2::SendRequest<RequestBody>,
        allowed: Arc<AtomicUsize>,
        freed: Arc<Notify>,
    ) -> Self {
        Self {
            sender,
            allowed,
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            home: Home::here(),
            freed,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.retired.load(Relaxed)
    }

    /// Whether somebody drives it while a request waits here.
    pub(super) fn is_driven(&self) -> bool {
        self.home.is_some_and(|home| home.runs_beside_us())
    }

    /// Since when it has had no request; none if it has some.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.streams.load(Relaxed) == 0;
        is_idle.then(|| *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// One more request, if the pod allows it.
    pub(super) fn begin(connection: &Arc<Http2>) -> Option<Self> {
        let allowed = connection.allowed.load(Relaxed);
        let one_more = |streams| (streams < allowed).then_some(streams + 1);
        let begun = connection.streams.fetch_update(Relaxed, Relaxed, one_more);
        begun.is_ok().then(|| Self(connection.clone()))
    }

    pub(in crate::http) fn sender(&self) -> http2::SendRequest<RequestBody> {
        self.0.sender.clone()
    }

    /// The connection takes no more requests.
    pub(in crate::http) fn retire(&self) {
        self.0.retired.store(true, Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.0;
        if connection.streams.fetch_sub(1, Relaxed) == 1 {
            *connection.lock() = Instant::now();
        }
        connection.freed.notify_one();
    }
}
