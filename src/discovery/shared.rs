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
//!
//! A source has timers and sockets, and those belong to a runtime. So the readers of each runtime have a source of their own
//! (a [`Room`]): none depends on another runtime that may end, or stand still. A new room begins with the last set of the
//! others. When the last reader has left a room its source ends, and what that has begun: a watch, a process that it waits
//! for. One that works goes on for a second, if its runtime does, so that readers who follow each other closely share it.

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

/// How long a reader waits for an answer before it takes an old set. Callers wait for the first endpoints 5 s by default.
/// A [`Fallback`](super::Fallback) waits for 2 s before it asks its other source, which may have a fresh set.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a source goes on that nobody reads from any more.
const LINGER: Duration = Duration::from_secs(1);

/// A source of endpoints whose clones read from one and the same in each runtime: it is asked once for all of them, and each
/// learns all that it says. Whoever is polled drives it.
pub(crate) struct Shared<S: Source> {
    hub: Arc<Hub<S>>,
    /// Where it reads; none before it is polled for the first time.
    place: Option<Place<S>>,
    /// It has said that there is no runtime.
    homeless: bool,
    /// How old the set was that was yielded last.
    age: Duration,
}

struct Hub<S: Source> {
    /// Settings to make others of. It is never polled.
    template: Mutex<S>,
    rooms: Mutex<HashMap<Id, Arc<Room<S>>>>,
    /// What any of the rooms has heard last.
    last: Mutex<Answers<S::Error>>,
}

/// A reader's place in a room.
struct Place<S: Source> {
    hub: Arc<Hub<S>>,
    home: Id,
    room: Arc<Room<S>>,
    reader: usize,
    seen: Seen,
    /// The wait for an answer after this one.
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

    /// The reader's place in the room of the runtime `home`, where it enters if it has to.
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

    /// All sources are told, and those that are made later: a reader may enter another room.
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
    /// Without a runtime there is nothing to wait with. It is said once: whoever reads all errors would go on for ever.
    fn poll_homeless(&mut self) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match std::mem::replace(&mut self.homeless, true) {
            true => Poll::Pending,
            false => Poll::Ready(Err(
                "no tokio runtime: poll the discovery in a task of one".into()
            )),
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
        // All are woken by what this one waits for, since it is not known who will poll then.
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

    /// What there is for this reader. Without any, the source is to be polled.
    fn poll_news(&mut self, state: &mut State<S>, cx: &mut Context<'_>) -> Option<News> {
        if self.waiting.is_none() && state.answers.has_news(self.seen) && !state.is_fresh() {
            state.source.refresh();
            let patience = Timer::at(Instant::now() + PATIENCE);
            self.waiting = Some((state.answers.count(), patience));
        }
        if let Some((answers, timer)) = &mut self.waiting {
            let is_answered = state.answers.count() > *answers;
            // Without a set there is nothing to do but to wait.
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
    /// The room of the runtime `home`, with a reader more. A new one begins with what is known.
    fn enter(&self, home: Id) -> (Arc<Room<S>>, usize) {
        let mut rooms = self.rooms.lock();
        // What nobody has listened to for a while is old, however new it looks when it is read.
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

    /// The room's last reader has left.
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

/// A room that its last reader has left. When this is dropped it is given up, unless somebody has come since.
struct Left<S: Source> {
    hub: Weak<Hub<S>>,
    home: Id,
    room: Weak<Room<S>>,
    /// How many had come by then.
    readers: usize,
}

impl<S: Source> Left<S> {
    /// Whether the source has answered lately, so that the next reader has something of it.
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
