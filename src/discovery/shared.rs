//! One source for several readers.
//!
//! Whoever is polled drives the source. If nobody is polled, the set grows old: it is kept, and a reader that comes later
//! does not take it for news.
//!
//! ```text
//!  a reader finds an answer that it has not seen
//!     ├─ the source's last answer is fresh ──────▶ it gets the last set with its age, and then the last error, if that
//!     │                                            came later
//!     └─ it is not: nobody keeps the source going ─▶ the source is asked at once; the reader gets the next answer
//!                                                    ├─ a set: that one
//!                                                    └─ an error, or nothing for three seconds: the last set with its
//!                                                       age, and then the error
//! ```

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::Discovery;
use crate::{endpoint::Endpoint, error::BoxError};

/// How long a reader waits for an answer before it takes an old set. Callers wait for the first endpoints 5 s by default.
/// A [`Fallback`](super::Fallback) waits for 2 s before it asks its other source, which may have a fresh set.
const PATIENCE: Duration = Duration::from_secs(3);

/// What [`Shared`] reads from: a [`Discovery`] whose errors several readers can have.
pub(crate) trait Source: Send + 'static {
    type Error: Clone + Into<BoxError> + Send;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, Self::Error>>;

    /// Asks at once, or as soon as the source can afford it. An answer follows.
    fn refresh(&mut self);

    fn refused(&mut self, endpoint: &Endpoint);

    fn accepted(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
    }

    /// For how long an answer is fresh: while the source is polled, the next one comes in about this time at the latest.
    fn fresh_for(&self) -> Duration;
}

/// A source of endpoints whose clones read from one and the same: it is asked once for all of them, and each learns all
/// that it says. Whoever is polled drives it.
pub(crate) struct Shared<S: Source> {
    hub: Arc<Hub<S>>,
    reader: usize,
    seen: Seen,
    /// The wait for an answer after this one.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
    /// How old the set was that was yielded last.
    age: Duration,
}

struct Hub<S: Source> {
    state: Mutex<State<S>>,
    readers: Arc<Readers>,
}

struct State<S: Source> {
    source: S,
    /// How many answers there have been.
    answers: u64,
    set: Option<Kept<Vec<Endpoint>>>,
    error: Option<Kept<S::Error>>,
}

/// An answer of the source.
struct Kept<T> {
    /// Which one it was, from 1 on.
    number: u64,
    at: Instant,
    what: T,
}

/// The last answers that a reader has had.
#[derive(Clone, Copy, Default)]
struct Seen {
    set: u64,
    error: u64,
}

/// Who waits for the source.
#[derive(Default)]
struct Readers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: usize,
    wakers: HashMap<usize, Waker>,
}

impl<S: Source> Shared<S> {
    pub(crate) fn new(source: S) -> Self {
        let state = State {
            source,
            answers: 0,
            set: None,
            error: None,
        };
        let hub = Hub {
            state: Mutex::new(state),
            readers: Arc::default(),
        };
        Self::reader(Arc::new(hub))
    }

    fn reader(hub: Arc<Hub<S>>) -> Self {
        let reader = hub.readers.enter();
        Self {
            hub,
            reader,
            seen: Seen::default(),
            waiting: None,
            age: Duration::ZERO,
        }
    }
}

impl<S: Source> Discovery for Shared<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.hub.readers.wait(self.reader, cx.waker());
        let hub = self.hub.clone();
        let mut state = lock(&hub.state);
        if let Some(answer) = self.poll_news(&mut state, cx) {
            return Poll::Ready(answer);
        }
        // All are woken by what this one waits for, since it is not known who will poll then.
        let all = Waker::from(hub.readers.clone());
        let Poll::Ready(answer) = state.source.poll_next(&mut Context::from_waker(&all)) else {
            return Poll::Pending;
        };
        state.take(answer);
        let news = self.poll_news(&mut state, cx);
        drop(state);
        all.wake();
        news.map_or(Poll::Pending, Poll::Ready)
    }

    fn refresh(&mut self) {
        lock(&self.hub.state).source.refresh();
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        lock(&self.hub.state).source.refused(endpoint);
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        lock(&self.hub.state).source.accepted(endpoint);
    }

    fn age(&self) -> Duration {
        self.age
    }
}

impl<S: Source> Shared<S> {
    /// What there is for this reader. Without any, the source is to be polled.
    fn poll_news(
        &mut self,
        state: &mut State<S>,
        cx: &mut Context<'_>,
    ) -> Option<Result<Vec<Endpoint>, BoxError>> {
        if self.waiting.is_none() && state.has_news(self.seen) && !state.is_fresh() {
            state.source.refresh();
            self.waiting = Some((state.answers, Box::pin(sleep(PATIENCE))));
        }
        if let Some((answers, timer)) = &mut self.waiting {
            let is_answered = state.answers > *answers;
            // Without a set there is nothing to do but to wait.
            if !is_answered && (state.set.is_none() || timer.as_mut().poll(cx).is_pending()) {
                return None;
            }
        }
        let news = state.news(&mut self.seen, &mut self.age);
        if news.is_none() {
            self.waiting = None;
        }
        news
    }
}

impl<S: Source> State<S> {
    fn take(&mut self, answer: Result<Vec<Endpoint>, S::Error>) {
        self.answers += 1;
        let (number, at) = (self.answers, Instant::now());
        match answer {
            Ok(what) => self.set = Some(Kept { number, at, what }),
            Err(what) => self.error = Some(Kept { number, at, what }),
        }
    }

    fn has_news(&self, seen: Seen) -> bool {
        self.answers > seen.set.max(seen.error)
    }

    /// Whether the last answer, set or error, is no older than it would be if somebody kept the source going.
    fn is_fresh(&self) -> bool {
        let set = self.set.as_ref().map(|set| set.at);
        let error = self.error.as_ref().map(|error| error.at);
        let last = set.max(error);
        last.is_some_and(|last| last.elapsed() <= self.source.fresh_for())
    }

    /// What there is beyond what has been seen: the last set, and then the last error if that came later.
    fn news(&self, seen: &mut Seen, age: &mut Duration) -> Option<Result<Vec<Endpoint>, BoxError>> {
        if let Some(set) = self.set.as_ref().filter(|set| set.number > seen.set) {
            seen.set = set.number;
            *age = set.at.elapsed();
            return Some(Ok(set.what.clone()));
        }
        let unseen = |error: &&Kept<S::Error>| error.number > seen.error.max(seen.set);
        let error = self.error.as_ref().filter(unseen)?;
        seen.error = error.number;
        Some(Err(error.what.clone().into()))
    }
}

impl<S: Source> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self::reader(self.hub.clone())
    }
}

impl<S: Source> Drop for Shared<S> {
    fn drop(&mut self) {
        self.hub.readers.leave(self.reader);
    }
}

impl Readers {
    fn enter(&self) -> usize {
        let mut waiting = lock(&self.0);
        waiting.next += 1;
        waiting.next
    }

    fn leave(&self, reader: usize) {
        lock(&self.0).wakers.remove(&reader);
    }

    fn wait(&self, reader: usize, waker: &Waker) {
        let mut waiting = lock(&self.0);
        let known = waiting.wakers.entry(reader);
        known
            .and_modify(|known| known.clone_from(waker))
            .or_insert_with(|| waker.clone());
    }

    fn wake_all(&self) {
        let wakers: Vec<_> = lock(&self.0).wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Readers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
