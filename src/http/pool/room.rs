//! Room for connections.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::OwnedNotified};

/// The right to one connection, for as long as that is open or until it is given up.
pub(super) struct Room(Arc<Place>);

/// The same right, as those have it who may give it up.
#[derive(Clone)]
pub(super) struct WeakRoom(Weak<Place>);

struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    freed: Arc<Notify>,
}

impl Room {
    /// Room for one more connection of `all`, or the wait for it.
    pub(super) fn take(
        all: &Arc<Semaphore>,
        freed: &Arc<Notify>,
    ) -> Result<Self, Pin<Box<OwnedNotified>>> {
        // Listens before it looks: what is freed in between is not missed.
        let mut next = Box::pin(freed.clone().notified_owned());
        next.as_mut().enable();
        match all.clone().try_acquire_owned() {
            Ok(permit) => Ok(Self(Arc::new(Place {
                permit: Mutex::new(Some(permit)),
                freed: freed.clone(),
            }))),
            Err(_full) => Err(next),
        }
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
}

impl Place {
    fn vacate(&self) {
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        if permit.take().is_some() {
            self.freed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vacate();
    }
}
