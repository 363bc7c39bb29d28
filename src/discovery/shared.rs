//! One source for several readers.
//!
//! Whichever reader is polled drives the source. If none is polled, the stored set grows old, and a reader that comes
//! later doesn't take it for new.
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
//!
//! A source has timers and sockets, which belong to a runtime. So the readers of each runtime share a source of their
//! own (a [`Room`]), and none depends on another runtime that may end or stand still. A new room begins with the last
//! set of the others. When the last reader leaves a room, its source is dropped, along with any watch or child process
//! that it has started. A source that works lingers for a second if its runtime runs, so that readers that follow each
//! other closely share it.

mod room;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    runtime::{Handle, Id},
    time::{Instant, sleep},
};

pub(crate) use self::room::Source;
use self::room::{Answers, News, Room, Seen, State};
use super::{Discovery, DiscoveryReport};
use crate::{
    endpoint::Endpoint,
    error::BoxError,
    home::{Home, Timer},
    sync::Mutex,
};

/// How long a reader waits for an answer before it takes an old set: less than the 5 s that callers wait for the first
/// endpoints by default, and more than the 2 s after which a [`Fallback`](super::Fallback) asks its other source, which
/// may have a fresh set.
const WAIT: Duration = Duration::from_secs(3);

/// How long a source lingers after its last reader has left.
const LINGER: Duration = Duration::from_secs(1);

/// A source of endpoints whose clones share one underlying source per runtime. It is asked once for all of them, and
/// each gets all its answers. Whichever clone is polled drives it.
pub(crate) struct Shared<S: Source> {
    hub: Arc<Hub<S>>,
    /// Its place in a room; none before the first poll.
    place: Option<Place<S>>,
    /// It has already yielded the error that there is no runtime.
    homeless: bool,
    /// How old the last set was when it was yielded.
    age: Duration,
}

struct Hub<S: Source> {
    /// The source that each room's is copied from. It is never polled.
    template: Mutex<S>,
    rooms: Mutex<HashMap<Id, Arc<Room<S>>>>,
    /// The latest answers, from any room.
    last: Mutex<Answers<S::Error>>,
}

/// A reader's place in a room.
struct Place<S: Source> {
    hub: Arc<Hub<S>>,
    home: Id,
    room: Arc<Room<S>>,
    reader: usize,
    seen: Seen,
    /// While it waits for a fresh answer: how many answers there were then, and the time limit.
    waiting: Option<(u64, Timer)>,
}

impl<S: Source> Shared<S> {
    pub(crate) fn new(source: S) -> Self {
        let hub = Hub {
            template: Mutex::new(source),
            rooms: Mutex::default(),
            last: Mutex::default(),
        };
        Self::reader(Arc::new(hub))
    }

    fn reader(hub: Arc<Hub<S>>) -> Self {
        Self {
            hub,
            place: None,
            homeless: false,
            age: Duration::ZERO,
        }
    }

    /// The reader's place in the room of the runtime `home`, which it enters if it isn't there yet.
    fn enter(&mut self, home: Id) -> &mut Place<S> {
        if self.place.as_ref().is_some_and(|place| place.home != home) {
            self.place = None;
        }
        let hub = &self.hub;
        self.place.get_or_insert_with(|| Place::new(hub, home))
    }
}

impl<S: Source> Discovery for Shared<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let Some(here) = Home::here() else {
            return self.poll_homeless();
        };
        self.homeless = false;
        let place = self.enter(here.id);
        let (answer, age) = std::task::ready!(place.poll_next(cx));
        self.age = age.unwrap_or(self.age);
        Poll::Ready(answer)
    }

    fn refresh(&mut self) {
        if let Some(place) = &self.place {
            place.room.state.lock().source.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        if let Some(place) = &self.place {
            place.room.state.lock().source.refused(endpoint);
        }
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        if let Some(place) = &self.place {
            place.room.state.lock().source.accepted(endpoint);
        }
    }

    /// Tells all rooms, and the template for later ones: a reader may enter another room.
    fn wanted(&mut self, pod: &str) -> bool {
        let is_of_use = self.hub.template.lock().wanted(pod);
        let rooms: Vec<_> = self.hub.rooms.lock().values().cloned().collect();
        for room in rooms {
            room.state.lock().source.wanted(pod);
        }
        is_of_use
    }

    fn age(&self) -> Duration {
        self.age
    }

    fn report(&self) -> DiscoveryReport {
        match &self.place {
            Some(place) => place.room.state.lock().source.report(),
            None => self.hub.template.lock().report(),
        }
    }
}

impl<S: Source> Shared<S> {
    /// Without a runtime there is no timer to wait with. The error is yielded only once, or a caller that reads until
    /// `Pending` would never stop.
    fn poll_homeless(&mut self) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match std::mem::replace(&mut self.homeless, true) {
            true => Poll::Pending,
            false => Poll::Ready(Err("no tokio runtime: poll the discovery inside one".into())),
        }
    }
}

impl<S: Source> Place<S> {
    fn new(hub: &Arc<Hub<S>>, home: Id) -> Self {
        let (room, reader) = hub.enter(home);
        Self {
            hub: hub.clone(),
            home,
            reader,
            room,
            seen: Seen::default(),
            waiting: None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        self.room.readers.wait(self.reader, cx.waker());
        let room = self.room.clone();
        let mut state = room.state.lock();
        if let Some(news) = self.poll_news(&mut state, cx) {
            return Poll::Ready(news);
        }
        // Wakes all readers, because any of them may be the one that polls next.
        let all = Waker::from(room.readers.clone());
        let Poll::Ready(answer) = state.source.poll_next(&mut Context::from_waker(&all)) else {
            return Poll::Pending;
        };
        state.answers.take(answer);
        self.hub.last.lock().clone_from(&state.answers);
        let news = self.poll_news(&mut state, cx);
        drop(state);
        all.wake();
        news.map_or(Poll::Pending, Poll::Ready)
    }

    /// What is new for this reader. If nothing is, the source must be polled.
    fn poll_news(&mut self, state: &mut State<S>, cx: &mut Context<'_>) -> Option<News> {
        if self.waiting.is_none() && state.answers.has_news(self.seen) && !state.is_fresh() {
            state.source.refresh();
            let limit = Timer::at(Instant::now() + WAIT);
            self.waiting = Some((state.answers.count(), limit));
        }
        if let Some((answers, timer)) = &mut self.waiting {
            let is_answered = state.answers.count() > *answers;
            // Without a set there is nothing to fall back to, so wait on.
            if !is_answered && (!state.answers.has_set() || timer.poll(cx).is_pending()) {
                return None;
            }
        }
        let news = state.news(&mut self.seen);
        if news.is_none() {
            self.waiting = None;
        }
        news
    }
}

impl<S: Source> Hub<S> {
    /// Enters the room of the runtime `home` as one more reader. A new room begins with the latest answers.
    fn enter(&self, home: Id) -> (Arc<Room<S>>, usize) {
        let mut rooms = self.rooms.lock();
        // Rooms without readers are given up: what they have stored is old, even if it looks new when it is read.
        let left: Vec<_> = rooms.extract_if(|_, room| room.is_left()).collect();
        let room = rooms.entry(home).or_insert_with(|| {
            let source = self.template.lock().renewed();
            Arc::new(Room::new(source, self.last.lock().clone()))
        });
        let entered = (room.clone(), room.readers.enter());
        drop(rooms);
        drop(left);
        entered
    }

    /// Handles a room whose last reader has left: drops it now, or after [`LINGER`].
    fn leave(self: &Arc<Self>, left: Left<S>) {
        // With the last clone, all ends at once.
        let is_kept = Arc::strong_count(self) > 1 && left.works();
        match Handle::try_current() {
            Ok(here) if is_kept && here.id() == left.home => {
                here.spawn(async move {
                    sleep(LINGER).await;
                    drop(left);
                });
            }
            _ => drop(left),
        }
    }
}

/// A room that its last reader has left. Dropping this gives up the room, unless a reader has entered since.
struct Left<S: Source> {
    hub: Weak<Hub<S>>,
    home: Id,
    room: Weak<Room<S>>,
    /// How many readers had ever entered by then.
    readers: usize,
}

impl<S: Source> Left<S> {
    /// Whether the source has answered lately, so that keeping it helps the next reader.
    fn works(&self) -> bool {
        let room = self.room.upgrade();
        room.is_some_and(|room| room.state.lock().is_fresh())
    }
}

impl<S: Source> Drop for Left<S> {
    fn drop(&mut self) {
        let (Some(hub), Some(room)) = (self.hub.upgrade(), self.room.upgrade()) else {
            return;
        };
        let mut rooms = hub.rooms.lock();
        let is_there = rooms
            .get(&self.home)
            .is_some_and(|it| Arc::ptr_eq(it, &room));
        if is_there && room.readers.came() == self.readers {
            rooms.remove(&self.home);
        }
        drop(rooms);
    }
}

impl<S: Source> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self::reader(self.hub.clone())
    }
}

impl<S: Source> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some(readers) = self.room.readers.leave(self.reader) {
            self.hub.leave(Left {
                hub: Arc::downgrade(&self.hub),
                home: self.home,
                room: Arc::downgrade(&self.room),
                readers,
            });
        }
    }
}
