//! Room for connections: which there are, in which runtime, and whether a request uses them.
//!
//! ```text
//!  dialled ──▶ used ◀──▶ idle, or put aside ──▶ closed: the room is free
//!                 └────▶ given up, and to be closed ──▶
//! ```
//!
//! A current-thread runtime drives its connections only while somebody blocks on it. Elsewhere nobody can use them, and they
//! don't close. So where there is no room, one that no request there uses, or waits for, is taken over. The connection that
//! had it is kept by nobody, and closes when its runtime goes on.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use super::freed::{Freed, NextFreed};
use crate::{home::Home, sync::Mutex};

/// All rooms of a pool.
pub(super) struct Rooms {
    most: usize,
    freed: Arc<Freed>,
    taken: Mutex<Vec<Room>>,
}

/// One room, as those have it who use its connection or end it.
#[derive(Clone)]
pub(super) struct Room(Arc<Place>);

struct Place {
    /// Where its connection lives.
    home: Home,
    rooms: Arc<Rooms>,
    users: AtomicUsize,
    is_vacant: AtomicBool,
}

/// The right to one connection, held by what makes it and by its socket. It ends with this, or when the room is given up.
pub(super) struct Tenancy(Room);

/// Held by a request that uses a room's connection, or waits for it: nobody takes the room over.
pub(in crate::http) struct InUse {
    place: Arc<Place>,
    /// Who waits elsewhere is told of its end.
    is_told: bool,
}

impl Rooms {
    /// For so many connections; `freed` is told of each that closes.
    pub(super) fn new(most: usize, freed: Arc<Freed>) -> Self {
        Self {
            most,
            freed,
            taken: Mutex::default(),
        }
    }

    /// Room for one more connection in the runtime `home`, or the wait for it; and the room that was taken over for it, if one
    /// was, whose connection the pool has to drop.
    ///
    /// Called with the pool locked, as is all that begins to use a connection of the pool's. A dial whose request has gone may
    /// do so without, for as long as it takes to be put there, or not to be: its room may be taken over in between.
    pub(super) fn take(self: &Arc<Self>, home: Home) -> Result<(Tenancy, Option<Room>), NextFreed> {
        // Listens before it looks: what is freed in between is not missed.
        let next = self.freed.next(home.id);
        let mut taken = self.taken.lock();
        let evicted = if taken.len() < self.most {
            None
        } else {
            let Some(at) = taken.iter().position(Room::may_be_taken_over) else {
                return Err(next);
            };
            Some(taken.swap_remove(at))
        };
        let room = Room::new(home, self.clone());
        taken.push(room.clone());
        if let Some(evicted) = &evicted {
            evicted.0.is_vacant.store(true, Release);
        }
        drop(taken);
        Ok((Tenancy(room), evicted))
    }

    /// Whether there is no connection, nor one being made.
    pub(super) fn are_free(&self) -> bool {
        self.taken.lock().is_empty()
    }
}

impl Room {
    fn new(home: Home, rooms: Arc<Rooms>) -> Self {
        Self(Arc::new(Place {
            home,
            rooms,
            users: AtomicUsize::new(0),
            is_vacant: AtomicBool::new(false),
        }))
    }

    pub(super) fn home(&self) -> Home {
        self.0.home
    }

    /// A request begins to use it. None where it is never taken over, and nobody has to know.
    pub(super) fn in_use(&self) -> Option<InUse> {
        self.0.home.may_stand_still().then(|| {
            self.0.users.fetch_add(1, Relaxed);
            InUse {
                place: self.0.clone(),
                is_told: true,
            }
        })
    }

    /// Another connection may have it, though this one is still open.
    pub(super) fn vacate(&self) {
        let Place {
            rooms, is_vacant, ..
        } = &*self.0;
        let mut taken = rooms.taken.lock();
        if let Some(at) = taken.iter().position(|it| it == self) {
            taken.swap_remove(at);
            is_vacant.store(true, Release);
            drop(taken);
            rooms.freed.tell_one();
        }
    }

    /// Whether it has been given up or taken over, or the connection has closed.
    pub(super) fn is_vacant(&self) -> bool {
        self.0.is_vacant.load(Acquire)
    }

    /// Whether nobody uses it, and it isn't freed while a request waits here.
    fn may_be_taken_over(&self) -> bool {
        self.0.users.load(Acquire) == 0 && !self.0.home.runs_beside_us()
    }
}

/// Whether they are the same.
impl PartialEq for Room {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Tenancy {
    pub(super) fn room(&self) -> Room {
        self.0.clone()
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.0.vacate();
    }
}

impl InUse {
    /// Ends it for one who tells all that wait, as soon as they find the connection.
    pub(super) fn end_untold(mut self) {
        self.is_told = false;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let Place {
            home, rooms, users, ..
        } = &*self.place;
        if users.fetch_sub(1, AcqRel) == 1 && self.is_told {
            rooms.freed.tell_elsewhere(home.id);
        }
    }
}
