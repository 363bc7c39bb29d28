//! Room for connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::{
    runtime::Id,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::freed::{Freed, NextFreed};
use crate::home::Home;

/// The room that a pool has.
pub(super) struct Rooms {
    all: Arc<Semaphore>,
    freed: Arc<Freed>,
    left: Mutex<Vec<Left>>,
}

/// A connection that nobody has any more, and that its runtime, which may stand still, is to close.
struct Left {
    home: Home,
    room: WeakRoom,
}

/// The right to one connection, for as long as that is open or until it is given up.
pub(super) struct Room(Arc<Place>);

/// The same right, as those have it who may give it up.
#[derive(Clone)]
pub(super) struct WeakRoom(Weak<Place>);

struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    rooms: Arc<Rooms>,
}

impl Rooms {
    /// For so many connections; `freed` is told of each that closes.
    pub(super) fn new(most: usize, freed: Arc<Freed>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most)),
            freed,
            left: Mutex::default(),
        }
    }

    /// Room for one more connection, or the wait for it in the runtime `home`.
    pub(super) fn take(self: &Arc<Self>, home: Id) -> Result<Room, NextFreed> {
        // Listens before it looks: what is freed in between is not missed.
        let next = self.freed.next(home);
        match self.all.clone().try_acquire_owned() {
            Ok(permit) => Ok(Room::new(permit, self.clone())),
            Err(_full) => self.take_left().ok_or(next),
        }
    }

    /// For how many more there is room.
    pub(super) fn available(&self) -> usize {
        self.all.available_permits()
    }

    /// That of a connection which is not closed while a request waits here.
    fn take_left(&self) -> Option<Room> {
        let mut left = self.left();
        let mut elsewhere = left.iter().filter(|it| !it.home.runs_beside_us());
        let taken = elsewhere.find_map(|it| it.room.take_over());
        left.retain(|it| !it.room.is_vacant());
        taken
    }

    fn leave(&self, home: Home, room: WeakRoom) {
        let mut left = self.left();
        left.retain(|it| !it.room.is_vacant());
        left.push(Left { home, room });
        drop(left);
        self.freed.tell_elsewhere(home.id);
    }

    fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn new(permit: OwnedSemaphorePermit, rooms: Arc<Rooms>) -> Self {
        let permit = Mutex::new(Some(permit));
        Self(Arc::new(Place { permit, rooms }))
    }

    pub(super) fn downgrade(&self) -> WeakRoom {
        WeakRoom(Arc::downgrade(&self.0))
    }
}

impl WeakRoom {
    /// Another connection may have the place, though this one is still open.
    pub(super) fn vacate(&self) {
        if let Some(place) = self.0.upgrade() {
            place.vacate();
        }
    }

    /// Nobody has the connection any more. Its runtime closes it when it comes to that, and while it stands still, requests of
    /// another one may have the place.
    pub(super) fn leave(&self, home: Home) {
        if home.may_stand_still()
            && let Some(place) = self.0.upgrade()
        {
            place.rooms.leave(home, self.clone());
        }
    }

    /// Whether it has been given up, or the connection has closed.
    pub(super) fn is_vacant(&self) -> bool {
        let place = self.0.upgrade();
        place.is_none_or(|place| place.lock().is_none())
    }

    /// The place for another connection, and for no one else's; none if it has been given up, or the connection has closed.
    pub(super) fn take_over(&self) -> Option<Room> {
        let place = self.0.upgrade()?;
        let permit = place.lock().take()?;
        Some(Room::new(permit, place.rooms.clone()))
    }
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vacate(&self) {
        let permit = self.lock().take();
        if permit.is_some() {
            drop(permit);
            self.rooms.freed.tell_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vacate();
    }
}
