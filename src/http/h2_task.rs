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
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    ending::Ending,
    h2_wire::{Seen, Wire},
    socket::SocketHints,
    upload::Upload,
};
use crate::{counters::Closed, error::BoxError};

/// Where hyper puts a connection's futures.
///
/// It does so before there is a task, or from within what the task polls, which looks here afterwards: nobody has to be woken, as
/// a channel would do it.
#[derive(Clone)]
pub(super) struct Spawner(Arc<New>);

type New = Mutex<Vec<BoxFuture<'static, ()>>>;

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        // First: it is large, and copied where it goes.
        let future = Box::pin(future);
        lock(&self.0).push(future);
    }
}

/// The futures that hyper has spawned, and those it will.
pub(super) struct Spawned {
    new: Arc<New>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Spawned {
    pub(super) fn new() -> (Spawner, Self) {
        let new = Arc::<New>::default();
        let running = FuturesUnordered::new();
        (Spawner(new.clone()), Self { new, running })
    }

    /// Ready when all have ended, and no more can come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.running.extend(lock(&self.new).drain(..));
            let has_ended = loop {
                match self.running.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) => break true,
                    Poll::Pending => break false,
                }
            };
            // They may have spawned some.
            if lock(&self.new).is_empty() {
                return match has_ended && Arc::strong_count(&self.new) == 1 {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                };
            }
        }
    }
}

fn lock(new: &New) -> MutexGuard<'_, Vec<BoxFuture<'static, ()>>> {
    new.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever has the connection.
pub(super) struct User {
    /// Called when the pod allows more requests at once.
    pub(super) allows_more: Box<dyn Fn() + Send + Sync>,
    /// Called when the connection takes no more requests: one that a GOAWAY leaves with its last responses makes room for
    /// another.
    pub(super) takes_no_more: Box<dyn Fn() + Send + Sync>,
}

/// What a connection's task says of it to those who use it.
#[derive(Default)]
pub(super) struct Http2State {
    /// How many requests the pod allows at once.
    allowed: AtomicUsize,
    user: OnceLock<User>,
    /// hyper drops what it has not sent, now: of which nothing was, and will be, processed.
    drops_unprocessed: AtomicBool,
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

    /// Tells `user` from now on what changes.
    pub(super) fn tell(&self, user: User) {
        // The first one stays: a connection has one pool.
        let _ = self.user.set(user);
    }

    pub(super) fn drops_unprocessed(&self) -> bool {
        self.drops_unprocessed.load(Relaxed)
    }

    /// Its runtime has ended, and the connection with it.
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
        // Nobody else does.
        self.allowed.store(requests, Relaxed);
        if before < requests
            && let Some(user) = self.user.get()
        {
            (user.allows_more)();
        }
    }
}

/// All of a connection.
pub(super) struct Http2Task<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// What takes requests, until it takes no more.
    requests: Option<http2::Connection<TokioIo<Wire<T>>, Upload, Spawner>>,
    /// Why not.
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

    /// Waits until the pod allows a request, as its SETTINGS say.
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
            // It takes no more requests, and finds out here, not when the next one comes.
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
        // A request that waits for its stream to be opened is looked at here each time: if none was opened since the last
        // time, it waits still.
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
            // To the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_all(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, task::Waker};

    use super::*;

    #[test]
    fn what_is_spawned_runs_with_what_that_spawns_and_ends_when_no_more_can_come() {
        let (spawner, mut spawned) = Spawned::new();
        let mut cx = Context::from_waker(Waker::noop());
        let ran = Arc::new(AtomicUsize::new(0));
        let (again, counts, counts_too) = (spawner.clone(), ran.clone(), ran.clone());
        spawner.execute(async move {
            again.execute(async move {
                counts.fetch_add(1, Relaxed);
            });
            counts_too.fetch_add(1, Relaxed);
        });
        assert!(spawned.poll(&mut cx).is_pending(), "more may come");
        assert_eq!(ran.load(Relaxed), 2);
        drop(spawner);
        assert!(spawned.poll(&mut cx).is_ready());
    }

    #[test]
    fn what_goes_on_is_waited_for() {
        let (spawner, mut spawned) = Spawned::new();
        spawner.execute(pending());
        drop(spawner);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(spawned.poll(&mut cx).is_pending());
    }
}
