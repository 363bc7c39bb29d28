//! Room for connections: how many there are, in which runtime, and whether a request uses them.
//!
//! ```text
//!  dialled ──▶ used ◀──▶ idle, or put aside ──▶ closed: the room is free
//!                 └────▶ given up, about to close ──▶
//! ```
//!
//! A current-thread runtime drives its connections only while somebody blocks on it. Until then no other runtime can
//! use them, and they don't close. So if there is no room, a request takes over a room that no request uses or waits
//! for in its own runtime. The connection of that room is forgotten, and closes when its runtime runs again.

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

/// One room, shared by those who use its connection or end it.
#[derive(Clone)]
pub(super) struct Room(Arc<RoomState>);

struct RoomState {
    /// The runtime of its connection.
    home: Home,
    rooms: Arc<Rooms>,
    users: AtomicUsize,
    is_vacant: AtomicBool,
}

/// The right to one connection, held by its dial and then by its socket. It ends when it is dropped, or when the room
/// is given up.
pub(super) struct Tenancy(Room);

/// Held by a request that uses a room's connection, or waits for it: the room can't be taken over meanwhile.
pub(in crate::http) struct InUse {
    place: Arc<RoomState>,
    /// Whether requests of other runtimes are told when it ends.
    is_told: bool,
}

impl Rooms {
    /// Room for `most` connections; `freed` is told of each that closes.
    pub(super) fn new(most: usize, freed: Arc<Freed>) -> Self {
        Self {
            most,
            freed,
            taken: Mutex::default(),
        }
    }

    /// Takes room for one more connection in the runtime `home`, or waits for it. If another room was taken over for
    /// that, returns it, too: the pool must drop its connection.
    ///
    /// Called with the pool locked. So is everything else that begins to use a connection of the pool, with one
    /// exception: a dial whose request is gone, while it puts its connection into the pool. Its room may be taken over
    /// meanwhile.
    pub(super) fn take(self: &Arc<Self>, home: Home) -> Result<(Tenancy, Option<Room>), NextFreed> {
        // Listens before it checks, so that nothing freed in between is missed.
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

    /// Whether there is no connection, and none being made.
    pub(super) fn are_free(&self) -> bool {
        self.taken.lock().is_empty()
    }
}

impl Room {
    fn new(home: Home, rooms: Arc<Rooms>) -> Self {
        Self(Arc::new(RoomState {
            home,
            rooms,
            users: AtomicUsize::new(0),
            is_vacant: AtomicBool::new(false),
        }))
    }

    pub(super) fn home(&self) -> Home {
        self.0.home
    }

    /// Begins a use of the room. None if it can never be taken over, so that nobody needs to know.
    pub(super) fn in_use(&self) -> Option<InUse> {
        self.0.home.may_stand_still().then(|| {
            self.0.users.fetch_add(1, Relaxed);
            InUse {
                place: self.0.clone(),
                is_told: true,
            }
        })
    }

    /// Gives the room to another connection, although this one is still open.
    pub(super) fn vacate(&self) {
        let RoomState {
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

    /// Whether it was given up or taken over, or its connection has closed.
    pub(super) fn is_vacant(&self) -> bool {
        self.0.is_vacant.load(Acquire)
    }

    /// Whether nobody uses it, and its own runtime doesn't run while a request waits here.
    fn may_be_taken_over(&self) -> bool {
        self.0.users.load(Acquire) == 0 && !self.0.home.runs_beside_us()
    }
}

/// Rooms are equal if they are the same one.
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
    /// Ends the use without telling those who wait, because the caller will.
    pub(super) fn end_untold(mut self) {
        self.is_told = false;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let RoomState {
            home, rooms, users, ..
        } = &*self.place;
        if users.fetch_sub(1, AcqRel) == 1 && self.is_told {
            rooms.freed.tell_elsewhere(home.id);
        }
    }
}
