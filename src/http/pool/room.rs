//! Room for connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::{
    runtime::Id,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::freed::{Freed, NextFreed};

/// The right to one connection, for as long as that is open or until it is given up.
pub(super) struct Room(Arc<Place>);

/// The same right, as those have it who may give it up.
#[derive(Clone)]
pub(super) struct WeakRoom(Weak<Place>);

struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    freed: Arc<Freed>,
}

impl Room {
    /// Room for one more connection of `all`, or the wait for it in the runtime `home`.
    pub(super) fn take(
        all: &Arc<Semaphore>,
        freed: &Arc<Freed>,
        home: Id,
    ) -> Result<Self, NextFreed> {
        // Listens before it looks: what is freed in between is not missed.
        let next = freed.next(home);
        match all.clone().try_acquire_owned() {
            Ok(permit) => Ok(Self::new(permit, freed.clone())),
            Err(_full) => Err(next),
        }
    }

    fn new(permit: OwnedSemaphorePermit, freed: Arc<Freed>) -> Self {
        let permit = Mutex::new(Some(permit));
        Self(Arc::new(Place { permit, freed }))
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

    /// Whether it has been given up, or the connection has closed.
    pub(super) fn is_vacant(&self) -> bool {
        let place = self.0.upgrade();
        place.is_none_or(|place| place.lock().is_none())
    }

    /// The place for another connection, and for no one else's; none if it has been given up, or the connection has closed.
    pub(super) fn take_over(&self) -> Option<Room> {
        let place = self.0.upgrade()?;
        let permit = place.lock().take()?;
        Some(Room::new(permit, place.freed.clone()))
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
            self.freed.tell_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vacate();
    }
}
