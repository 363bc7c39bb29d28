//! An HTTP/2 connection as one task.
//!
//! hyper makes several futures of a connection: one that takes requests, one that reads and writes, and one for each
//! request, which waits for its response. Usually each is spawned; then each request costs a task, and each frame a
//! wakeup between tasks. Here one task polls them all, and when it ends nothing of the connection is left.
//!
//! When woken it first lets other ready tasks run, so that what they send goes out in the same write. `cargo bench
//! --bench http` shows the effect.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    ending::Ending,
    h2_wire::{Seen, Wire},
    socket::SocketHints,
    upload::{Place, Upload, until_given_up},
};
use crate::{counters::Closed, error::BoxError, sync::Mutex};

/// Takes the futures that hyper spawns for a connection.
#[derive(Clone)]
pub(super) struct Spawner {
    futures: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    state: Arc<Http2State>,
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let future: BoxFuture<'static, ()> = match self.state.take_upload() {
            None => Box::pin(future),
            // hyper reads a body as far as that is ready, and then spawns a future that sends the rest. If nothing is
            // left, this future waits for the response's head, and ends before anybody can give up the response.
            Some(place) => Box::pin(until_given_up(future, place)),
        };
        // If the task is gone, so is the connection, and nobody could run the future.
        let _ = self.futures.send(future);
    }
}

/// The futures that hyper has spawned, and those it will spawn.
pub(super) struct Spawned {
    new: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Spawned {
    pub(super) fn new(state: Arc<Http2State>) -> (Spawner, Self) {
        let (futures, new) = mpsc::unbounded_channel();
        let running = FuturesUnordered::new();
        (Spawner { futures, state }, Self { new, running })
    }

    /// Ready when all have ended, and no more can come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let no_more = loop {
            match self.new.poll_recv(cx) {
                Poll::Ready(Some(future)) => self.running.push(future),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        loop {
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if no_more => return Poll::Ready(()),
                // This task is woken by what they spawn, and when nothing can be spawned any more.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The callbacks of a connection's owner.
pub(super) struct User {
    /// Called when the pod allows more requests at once.
    pub(super) allows_more: Box<dyn Fn() + Send + Sync>,
    /// Called when the connection takes no more requests. A GOAWAY leaves it its last responses, but its room is free.
    pub(super) takes_no_more: Box<dyn Fn() + Send + Sync>,
}

/// What a connection's task tells those who use it.
#[derive(Default)]
pub(super) struct Http2State {
    /// How many requests the pod allows at once.
    allowed: AtomicUsize,
    user: OnceLock<User>,
    /// Whether hyper is dropping what it has not sent: none of that was or will be processed.
    drops_unprocessed: AtomicBool,
    /// The request whose body hyper has just begun to read, and which goes on.
    upload: Mutex<Option<Arc<dyn Place>>>,
    has_upload: AtomicBool,
    hints: SocketHints,
    pub(super) seen: Arc<Seen>,
}

impl Http2State {
    pub(super) fn of(hints: SocketHints) -> Self {
        Self {
            hints,
            ..Self::default()
        }
    }

    /// Why the connection ends.
    pub(super) fn ending(&self) -> &Ending {
        self.hints.ending()
    }

    pub(super) fn allowed(&self) -> usize {
        self.allowed.load(Relaxed)
    }

    /// Calls `user` from now on.
    pub(super) fn tell(&self, user: User) {
        // The first one stays: a connection has one pool.
        let _ = self.user.set(user);
    }

    /// Notes that the body of a request goes on that hyper has just begun to read.
    pub(super) fn set_upload(&self, place: Arc<dyn Place>) {
        *self.upload.lock() = Some(place);
        self.has_upload.store(true, Relaxed);
    }

    /// Only the connection's task sets and takes it. Most requests have no such body.
    fn take_upload(&self) -> Option<Arc<dyn Place>> {
        let has_upload = self.has_upload.load(Relaxed);
        has_upload.then(|| {
            self.has_upload.store(false, Relaxed);
            self.upload.lock().take()
        })?
    }

    pub(super) fn drops_unprocessed(&self) -> bool {
        self.drops_unprocessed.load(Relaxed)
    }

    /// Notes that its runtime has ended, and the connection with it.
    pub(super) fn cut_off(&self) {
        self.hints.cut_off();
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.hints.is_cut_off()
    }

    fn allow(&self, requests: usize) {
        let before = self.allowed();
        if before == requests {
            return;
        }
        // Only this task stores it.
        self.allowed.store(requests, Relaxed);
        if before < requests
            && let Some(user) = self.user.get()
        {
            (user.allows_more)();
        }
    }
}

/// A whole connection.
pub(super) struct Http2Task<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Takes requests; none once it takes no more.
    requests: Option<http2::Connection<TokioIo<Wire<T>>, Upload, Spawner>>,
    /// Why it takes no more.
    error: Option<hyper::Error>,
    spawned: Spawned,
    state: Arc<Http2State>,
    others_were_first: bool,
}

impl<T> Http2Task<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(
        requests: http2::Connection<TokioIo<Wire<T>>, Upload, Spawner>,
        spawned: Spawned,
        state: Arc<Http2State>,
    ) -> Self {
        Self {
            requests: Some(requests),
            error: None,
            spawned,
            state,
            others_were_first: false,
        }
    }

    /// Waits until the pod's SETTINGS allow a request.
    pub(super) async fn ready(&mut self) -> Result<(), BoxError> {
        poll_fn(|cx| {
            let _ = self.poll_all(cx);
            if self.requests.is_none() {
                let closed = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
                return Poll::Ready(Err(self.error.take().map_or_else(closed, Into::into)));
            }
            match self.state.allowed() {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_requests(cx);
        let spawned = self.spawned.poll(cx);
        if self.state.seen.take_go_away() {
            // Otherwise the next request would be the first to learn that the connection takes no more.
            self.poll_requests(cx);
        }
        match &self.requests {
            Some(requests) => {
                self.state.allow(requests.current_max_send_streams());
                Poll::Pending
            }
            None => spawned,
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) {
        let Some(requests) = &mut self.requests else {
            return;
        };
        // Each poll looks at the request that waits for its stream to be opened. If no stream was opened since the last
        // poll, it still waits.
        let has_opened = self.state.seen.take_opened();
        if let Poll::Ready(ended) = Pin::new(requests).poll(cx) {
            self.error = ended.err();
            if self.state.seen.has_overrun() {
                self.state.ending().because(Closed::Client);
            }
            if let Some(error) = &self.error {
                self.state.ending().failed(error);
            }
            self.state.ending().over();
            let is_unprocessed = self.state.seen.is_unprocessed(has_opened);
            let drops = &self.state.drops_unprocessed;
            drops.store(is_unprocessed, Relaxed);
            self.requests = None;
            drops.store(false, Relaxed);
            if let Some(user) = self.state.user.get() {
                (user.takes_no_more)();
            }
        }
    }
}

impl<T> Future for Http2Task<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.others_were_first = !self.others_were_first;
        if self.others_were_first {
            // Goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_all(cx)
    }
}
