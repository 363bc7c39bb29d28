//! Connections as requests have them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use hyper::client::conn::{http1, http2};
use tokio::{sync::Notify, time::Instant};

use crate::http::{
    body::RequestBody,
    h2_task::Http2State,
    upload::{Fate, Place, Upload},
};

/// A connection reserved for one request.
pub(in crate::http) enum Reserved {
    Http1(Http1),
    Http2(Stream),
}

/// A connection for one request at a time.
pub(in crate::http) struct Http1 {
    pub(in crate::http) sender: http1::SendRequest<RequestBody>,
    pub(super) idle_since: Instant,
}

/// A connection for many requests at a time.
pub(super) struct Http2 {
    sender: http2::SendRequest<Upload>,
    /// It takes no more requests.
    retired: AtomicBool,
    places: Arc<Places>,
}

/// An HTTP/2 connection's requests.
struct Places {
    http2: Arc<Http2State>,
    streams: AtomicUsize,
    idle_since: Mutex<Instant>,
    freed: Arc<Notify>,
}

/// One request on an HTTP/2 connection.
pub(in crate::http) struct Stream {
    connection: Arc<Http2>,
    /// Its response's share of the place; its body has the other.
    place: Arc<Taken>,
}

/// A place, until both halves of a stream are done: the pod counts them so (RFC 9113 §5.1.2).
struct Taken {
    places: Arc<Places>,
    fate: Fate,
}

impl Reserved {
    pub(in crate::http) fn is_open(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.sender.is_ready(),
            Self::Http2(stream) => !stream.connection.is_over(),
        }
    }
}

impl Http1 {
    pub(super) fn new(sender: http1::SendRequest<RequestBody>) -> Self {
        Self {
            sender,
            idle_since: Instant::now(),
        }
    }
}

impl Http2 {
    /// `freed` is told when a request has ended, and when the pod allows more of them.
    pub(super) fn new(
        sender: http2::SendRequest<Upload>,
        http2: Arc<Http2State>,
        freed: Arc<Notify>,
    ) -> Self {
        http2.tell(freed.clone());
        let places = Places {
            http2,
            streams: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            freed,
        };
        Self {
            sender,
            retired: AtomicBool::new(false),
            places: Arc::new(places),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.retired.load(Relaxed)
    }

    /// Since when it has had no request; none if it has some.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.places.streams.load(Relaxed) == 0;
        is_idle.then(|| *self.places.lock())
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// One more request, if the pod allows it.
    pub(super) fn begin(connection: &Arc<Http2>) -> Option<Self> {
        let places = &connection.places;
        let allowed = places.http2.allowed();
        let one_more = |streams| (streams < allowed).then_some(streams + 1);
        let begun = places.streams.fetch_update(Relaxed, Relaxed, one_more);
        begun.is_ok().then(|| Self {
            connection: connection.clone(),
            place: Arc::new(Taken {
                places: places.clone(),
                fate: Fate::default(),
            }),
        })
    }

    pub(in crate::http) fn sender(&self) -> http2::SendRequest<Upload> {
        self.connection.sender.clone()
    }

    /// A request's body, which holds the place, too.
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

    /// The connection takes no more requests.
    pub(in crate::http) fn retire(&self) {
        self.connection.retired.store(true, Relaxed);
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
}

impl Drop for Taken {
    fn drop(&mut self) {
        let places = &self.places;
        if places.streams.fetch_sub(1, Relaxed) == 1 {
            *places.lock() = Instant::now();
        }
        places.freed.notify_one();
    }
}
