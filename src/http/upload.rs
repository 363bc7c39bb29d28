//! A request's body on a shared HTTP/2 connection: it can harm only its own request.
//!
//! ```text
//!  ready at once  ──▶ read where the request is sent, in its caller's task (`RequestBody::begin`)
//!  more to come   ──▶ read in a task of its own ──▶ one frame at a time ──▶ the connection's task
//! ```
//!
//! So a body that panics fails its own request. One that blocks its thread doesn't block the connection, nor, in a
//! multi-thread runtime, any other task. In a current-thread runtime it blocks everything, like any future.
//!
//! The body holds its [`Place`], and so does each of its chunks until it is written. Both halves of a stream keep its
//! place on the connection; this is the outgoing half.

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, task::AtomicWaker};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::body::{RequestBody, panicked};
use crate::{error::BoxError, sync::Mutex};

/// What an HTTP/2 request holds on its connection until both halves of its stream are done.
pub(super) trait Place: Send + Sync + 'static {
    fn fate(&self) -> &Fate;

    /// Called when hyper drops the body of a request that it has not sent.
    fn dropped_unread(&self) {}

    /// Called once if hyper has read a part of the body, and more is to come.
    fn goes_on(self: Arc<Self>) {}
}

/// What became of a request, which hyper doesn't tell exactly.
#[derive(Debug, Default)]
pub(super) struct Fate {
    body_error: Mutex<Option<BoxError>>,
    held_back: AtomicBool,
    given_up: AtomicBool,
    /// Wakes the future that sends the body.
    sending: AtomicWaker,
}

impl Fate {
    /// Why the request's own body failed, if it did.
    pub(super) fn take_body_error(&self) -> Option<BoxError> {
        self.body_error.lock().take()
    }

    /// Notes that nothing of it was written, and nothing will be.
    pub(super) fn hold_back(&self) {
        self.held_back.store(true, Relaxed);
    }

    pub(super) fn was_held_back(&self) -> bool {
        self.held_back.load(Relaxed)
    }

    /// Notes that nobody reads the response any more: what is left of the body isn't sent.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
        self.sending.wake();
    }

    fn body_failed(&self, error: BoxError) {
        *self.body_error.lock() = Some(error);
    }
}

/// For a request whose place nobody counts.
impl Place for Fate {
    fn fate(&self) -> &Fate {
        self
    }
}

pub(super) struct Upload {
    source: Source,
    place: Arc<dyn Place>,
    /// Whether the place has been told that the body goes on.
    goes_on: bool,
}

/// hyper's future that sends a body, until its request is given up.
///
/// hyper itself sends the whole body, whatever becomes of the response. Then a body that goes on, or that the pod
/// doesn't take, would keep the stream open, and the pod busy with it. Dropping both halves resets the stream.
pub(super) async fn until_given_up(sending: impl Future<Output = ()>, place: Arc<dyn Place>) {
    let mut sending = pin!(sending);
    poll_fn(|cx| {
        let fate = place.fate();
        fate.sending.register(cx.waker());
        match fate.given_up.load(Relaxed) {
            true => Poll::Ready(()),
            false => sending.as_mut().poll(cx),
        }
    })
    .await;
}

enum Source {
    /// What hyper has not taken yet, or what needs no task.
    Body(RequestBody),
    Task(mpsc::Receiver<Next>),
    Ended,
}

enum Next {
    /// A frame, and whether it is the last one.
    Frame(Frame<Bytes>, bool),
    Error(BoxError),
    End,
}

impl Upload {
    pub(super) fn new(body: RequestBody, place: Arc<dyn Place>) -> Self {
        Self {
            source: Source::Body(body),
            place,
            goes_on: false,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Source::Body(body) = &mut self.source {
            if body.is_at_hand() {
                return body.poll_next(cx);
            }
            let (sender, frames) = mpsc::channel(1);
            let body = std::mem::take(body);
            tokio::spawn(read(body, sender));
            self.source = Source::Task(frames);
        }
        match &mut self.source {
            // A task that died did not send the whole body.
            Source::Task(frames) => frames
                .poll_recv(cx)
                .map(|next| next.unwrap_or_else(|| Next::Error("the runtime has ended".into()))),
            Source::Body(_) | Source::Ended => Poll::Ready(Next::End),
        }
    }
}

impl RequestBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let frame = ready!(Pin::new(&mut *self).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Next::Frame(frame, self.is_end_stream()),
            Some(Err(error)) => Next::Error(error),
            None => Next::End,
        })
    }
}

/// The body of a request that comes back unsent.
pub(super) trait Returned {
    fn returned(self) -> RequestBody;
}

impl Returned for RequestBody {
    fn returned(self) -> RequestBody {
        self.unwatched()
    }
}

impl Returned for Upload {
    fn returned(mut self) -> RequestBody {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Body(body) => body,
            Source::Task(_) | Source::Ended => RequestBody::EMPTY,
        }
    }
}

/// Reads a body to its end, or for as long as the connection wants it.
async fn read(mut body: RequestBody, sender: mpsc::Sender<Next>) {
    let mut has_more = true;
    while has_more {
        let next = AssertUnwindSafe(poll_fn(|cx| body.poll_next(cx))).catch_unwind();
        let next = tokio::select! {
            biased;
            () = sender.closed() => return,
            next = next => next.unwrap_or_else(|panic| Next::Error(panicked(&*panic))),
        };
        has_more = matches!(next, Next::Frame(_, false));
        if sender.send(next).await.is_err() {
            return;
        }
    }
}

impl Body for Upload {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        let this = &mut *self;
        let next = this.poll_next(cx);
        if !this.goes_on && matches!(next, Poll::Pending | Poll::Ready(Next::Frame(_, false))) {
            this.goes_on = true;
            this.place.clone().goes_on();
        }
        Poll::Ready(match ready!(next) {
            Next::Frame(frame, is_last) => {
                if is_last {
                    this.source = Source::Ended;
                }
                let place = &this.place;
                Some(Ok(frame.map_data(|data| Chunk {
                    data,
                    _place: place.clone(),
                })))
            }
            Next::Error(error) => {
                this.source = Source::Ended;
                this.place.fate().body_failed(error);
                // hyper resets the stream, and drops the error.
                Some(Err("the request's own body failed".into()))
            }
            Next::End => {
                this.source = Source::Ended;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Body(body) => body.is_at_hand() && body.is_end_stream(),
            Source::Task(_) => false,
            Source::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Body(body) => body.size_hint(),
            // hyper has asked for it by then.
            Source::Task(_) => SizeHint::default(),
            Source::Ended => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if matches!(self.source, Source::Body(_)) {
            self.place.dropped_unread();
        }
    }
}

/// A piece of a body, until it is written.
pub(super) struct Chunk {
    data: Bytes,
    _place: Arc<dyn Place>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}
