//! One source for several readers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use super::Discovery;
use crate::{endpoint::Endpoint, error::BoxError};

/// What [`Shared`] reads from: a [`Discovery`] whose errors several readers can have.
pub(crate) trait Source: Send + 'static {
    type Error: Clone + Into<BoxError> + Send;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, Self::Error>>;
    fn refresh(&mut self);
    fn refused(&mut self, endpoint: &Endpoint);
}

/// A source of endpoints whose clones read from one and the same: it is asked once for all of them, and each learns all
/// that it says. Whoever is polled drives it.
pub(crate) struct Shared<S: Source> {
    hub: Arc<Hub<S>>,
    reader: usize,
    seen: Seen,
}

struct Hub<S: Source> {
    state: Mutex<State<S>>,
    readers: Arc<Readers>,
}

struct State<S: Source> {
    source: S,
    /// How many answers there have been.
    answers: u64,
    set: Option<(u64, Vec<Endpoint>)>,
    error: Option<(u64, S::Error)>,
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
        }
    }
}

impl<S: Source> Discovery for Shared<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.hub.readers.wait(self.reader, cx.waker());
        let mut state = lock(&self.hub.state);
        if let Some(answer) = state.news(&mut self.seen) {
            return Poll::Ready(answer);
        }
        // All are woken by what this one waits for, since it is not known who will poll then.
        let all = Waker::from(self.hub.readers.clone());
        let Poll::Ready(answer) = state.source.poll_next(&mut Context::from_waker(&all)) else {
            return Poll::Pending;
        };
        state.take(answer);
        let news = state.news(&mut self.seen);
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
}

impl<S: Source> State<S> {
    fn take(&mut self, answer: Result<Vec<Endpoint>, S::Error>) {
        self.answers += 1;
        match answer {
            Ok(set) => self.set = Some((self.answers, set)),
            Err(error) => self.error = Some((self.answers, error)),
        }
    }

    /// What there is beyond what has been seen: the last set, and then the last error if that came later.
    fn news(&self, seen: &mut Seen) -> Option<Result<Vec<Endpoint>, BoxError>> {
        if let Some((number, set)) = self.set.as_ref().filter(|(number, _)| *number > seen.set) {
            seen.set = *number;
            return Some(Ok(set.clone()));
        }
        let unseen = |(number, _): &&(u64, S::Error)| *number > seen.error.max(seen.set);
        let (number, error) = self.error.as_ref().filter(unseen)?;
        seen.error = *number;
        Some(Err(error.clone().into()))
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
