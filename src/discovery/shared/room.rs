//! The source that one runtime's readers share, its answers, and the readers that wait.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::{discovery::DiscoveryReport, endpoint::Endpoint, error::BoxError, sync::Mutex};

/// What [`Shared`](super::Shared) reads from: like [`Discovery`](crate::Discovery), but its errors can be cloned for
/// several readers.
pub(crate) trait Source: Send + 'static {
    type Error: Clone + Into<BoxError> + Send;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, Self::Error>>;

    /// Asks at once, or as soon as the source can afford it. An answer must follow.
    fn refresh(&mut self);

    fn refused(&mut self, endpoint: &Endpoint);

    fn accepted(&mut self, endpoint: &Endpoint) {
        let _ = endpoint;
    }

    /// Hints that requests ask for this pod. Returns whether the source uses such hints.
    fn wanted(&mut self, pod: &str) -> bool {
        let _ = pod;
        false
    }

    /// What the source says about itself.
    fn report(&self) -> DiscoveryReport {
        DiscoveryReport::new("custom")
    }

    /// How long an answer is fresh: while the source is polled, the next answer comes within about this time. None if
    /// answers never grow old.
    fn fresh_for(&self) -> Option<Duration>;

    /// A new source for another runtime, with the same settings and wanted pods, that has asked nothing yet.
    fn renewed(&self) -> Self
    where
        Self: Sized;
}

/// An answer that a reader hasn't seen; with the age, if it is a set.
pub(super) type News = (Result<Vec<Endpoint>, BoxError>, Option<Duration>);

/// What the readers of one runtime share.
pub(super) struct Room<S: Source> {
    pub(super) state: Mutex<State<S>>,
    pub(super) readers: Arc<Readers>,
}

pub(super) struct State<S: Source> {
    pub(super) source: S,
    pub(super) answers: Answers<S::Error>,
}

/// The last set and the last error of a source.
#[derive(Clone)]
pub(super) struct Answers<E> {
    /// How many answers there have been.
    count: u64,
    set: Option<Kept<Arc<[Endpoint]>>>,
    error: Option<Kept<E>>,
}

/// An answer of the source.
#[derive(Clone)]
struct Kept<T> {
    /// Its number, counted from 1.
    number: u64,
    at: Instant,
    what: T,
}

/// The numbers of the last set and the last error that a reader has seen.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    set: u64,
    error: u64,
}

/// The readers of a room, and their wakers.
#[derive(Default)]
pub(super) struct Readers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: usize,
    /// How many readers are in the room.
    inside: usize,
    wakers: HashMap<usize, Waker>,
}

impl<S: Source> Room<S> {
    pub(super) fn new(source: S, answers: Answers<S::Error>) -> Self {
        Self {
            state: Mutex::new(State { source, answers }),
            readers: Arc::default(),
        }
    }

    /// Whether it has no readers, and its last answer is no longer fresh.
    pub(super) fn is_left(&self) -> bool {
        let state = || self.state.lock();
        self.readers.is_empty() && !state().is_fresh()
    }
}

impl<S: Source> State<S> {
    /// Whether the last answer, set or error, is as new as it would be if the source were polled all the time.
    pub(super) fn is_fresh(&self) -> bool {
        let age = self.answers.last().map(age);
        let fresh_for = self.source.fresh_for().unwrap_or(Duration::MAX);
        // An answer from the future comes from a runtime whose clock a test moved on: it isn't fresh.
        age.flatten().is_some_and(|age| age <= fresh_for)
    }

    /// The next answer that isn't in `seen`.
    pub(super) fn news(&self, seen: &mut Seen) -> Option<News> {
        let (answer, age) = self.answers.news(seen)?;
        let grows_old = self.source.fresh_for().is_some();
        let age = age.map(|age| if grows_old { age } else { Duration::ZERO });
        Some((answer, age))
    }
}

impl<E: Clone + Into<BoxError>> Answers<E> {
    pub(super) fn take(&mut self, answer: Result<Vec<Endpoint>, E>) {
        self.count += 1;
        let (number, at) = (self.count, Instant::now());
        match answer {
            Ok(set) => {
                let what = set.into();
                self.set = Some(Kept { number, at, what });
            }
            Err(what) => self.error = Some(Kept { number, at, what }),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn has_set(&self) -> bool {
        self.set.is_some()
    }

    pub(super) fn has_news(&self, seen: Seen) -> bool {
        self.count > seen.set.max(seen.error)
    }

    /// The next answer that isn't in `seen`: the last set, then the last error if that came later.
    fn news(&self, seen: &mut Seen) -> Option<News> {
        if let Some(set) = self.set.as_ref().filter(|set| set.number > seen.set) {
            seen.set = set.number;
            return Some((Ok(set.what.to_vec()), Some(set.at.elapsed())));
        }
        let unseen = |error: &&Kept<E>| error.number > seen.error.max(seen.set);
        let error = self.error.as_ref().filter(unseen)?;
        seen.error = error.number;
        Some((Err(error.what.clone().into()), None))
    }

    fn last(&self) -> Option<Instant> {
        let set = self.set.as_ref().map(|set| set.at);
        let error = self.error.as_ref().map(|error| error.at);
        set.max(error)
    }
}

impl<E> Default for Answers<E> {
    fn default() -> Self {
        Self {
            count: 0,
            set: None,
            error: None,
        }
    }
}

fn age(at: Instant) -> Option<Duration> {
    Instant::now().checked_duration_since(at)
}

impl Readers {
    pub(super) fn enter(&self) -> usize {
        let mut waiting = self.0.lock();
        waiting.next += 1;
        waiting.inside += 1;
        waiting.next
    }

    /// Removes a reader. If it was the last one inside, returns how many have ever entered.
    pub(super) fn leave(&self, reader: usize) -> Option<usize> {
        let mut waiting = self.0.lock();
        waiting.inside -= 1;
        let waker = waiting.wakers.remove(&reader);
        let came = (waiting.inside == 0).then_some(waiting.next);
        drop(waiting);
        drop(waker);
        came
    }

    /// How many readers have ever entered.
    pub(super) fn came(&self) -> usize {
        self.0.lock().next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().inside == 0
    }

    pub(super) fn wait(&self, reader: usize, waker: &Waker) {
        let mut waiting = self.0.lock();
        let known = waiting.wakers.entry(reader);
        known
            .and_modify(|known| known.clone_from(waker))
            .or_insert_with(|| waker.clone());
    }

    fn wake_all(&self) {
        let wakers: Vec<_> = self.0.lock().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Readers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}
