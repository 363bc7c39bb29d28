//! An HTTP/2 connection as one task.
//!
//! hyper makes several futures of a connection: one that takes requests, one that reads and writes, and one for each
//! request, which waits for its response. Spawned one by one, as is usual, each request costs a task, and each frame a
//! wakeup from one task to the next. Here one task polls them all, and when it ends nothing of the connection is left.
//!
//! Once woken it lets the tasks go first that are ready to run: what they ask for, too, then goes out in one write.
//! `cargo bench --bench http` shows what comes of that.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::body::RequestBody;
use crate::error::BoxError;

/// Where hyper puts a connection's futures.
#[derive(Clone)]
pub(super) struct Spawner(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        // Nobody is there to run it once the task is gone, and all of the connection with it.
        let _ = self.0.send(Box::pin(future));
    }
}

/// The futures that hyper has spawned, and those it will.
pub(super) struct Spawned {
    new: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Spawned {
    pub(super) fn new() -> (Spawner, Self) {
        let (spawner, new) = mpsc::unbounded_channel();
        let running = FuturesUnordered::new();
        (Spawner(spawner), Self { new, running })
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
                // What they have spawned, or that none can do so any more, wakes this task again.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// All of a connection.
pub(super) struct Http2Task<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// What takes requests, until it takes no more.
    requests: Option<http2::Connection<TokioIo<T>, RequestBody, Spawner>>,
    /// Why not.
    error: Option<hyper::Error>,
    spawned: Spawned,
    allowed: Arc<AtomicUsize>,
    others_were_first: bool,
    _held: H,
}

impl<T, H> Http2Task<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Unpin,
{
    /// `held` is held until the connection has ended.
    pub(super) fn new(
        requests: http2::Connection<TokioIo<T>, RequestBody, Spawner>,
        spawned: Spawned,
        held: H,
    ) -> Self {
        Self {
            requests: Some(requests),
            error: None,
            spawned,
            allowed: Arc::default(),
            others_were_first: false,
            _held: held,
        }
    }

    /// How many requests the pod allows at once, now and later. Waits until the pod has said so for the first time, in its
    /// SETTINGS.
    pub(super) async fn allowed(&mut self) -> Result<Arc<AtomicUsize>, BoxError> {
        poll_fn(|cx| {
            let _ = self.poll_all(cx);
            if self.requests.is_none() {
                let closed = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
                return Poll::Ready(Err(self.error.take().map_or_else(closed, Into::into)));
            }
            match self.allowed.load(Relaxed) {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(self.allowed.clone())),
            }
        })
        .await
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(requests) = &mut self.requests
            && let Poll::Ready(ended) = Pin::new(requests).poll(cx)
        {
            self.requests = None;
            self.error = ended.err();
        }
        let spawned = self.spawned.poll(cx);
        match &self.requests {
            Some(requests) => {
                self.allowed
                    .store(requests.current_max_send_streams(), Relaxed);
                Poll::Pending
            }
            None => spawned,
        }
    }
}

impl<T, H> Future for Http2Task<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.others_were_first = !self.others_were_first;
        if self.others_were_first {
            // To the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_all(cx)
    }
}
