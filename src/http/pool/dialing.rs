//! Connections that are being made.

use tokio::task::{AbortHandle, Id};

use super::{
    room::Room,
    wait::{SharedDial, Wait},
};

/// A dial: its task and its room.
pub(super) struct Dial {
    task: AbortHandle,
    room: Room,
}

/// A dial for all waiting requests.
pub(super) struct Dialing {
    pub(super) dial: Dial,
    told: SharedDial,
}

impl Dial {
    pub(super) fn new(task: AbortHandle, room: Room) -> Self {
        Self { task, room }
    }

    /// Whether its runtime runs while a request waits here.
    pub(super) fn is_driven(&self) -> bool {
        self.room.home().runs_beside_us()
    }

    /// Whether a new request can get nothing from it.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished() || self.room.is_vacant()
    }

    pub(super) fn task(&self) -> Id {
        self.task.id()
    }

    /// Cancels the dial if this is its room; returns whether it was.
    pub(super) fn evict(&self, room: &Room) -> bool {
        let is_its = self.room == *room;
        if is_its {
            self.task.abort();
        }
        is_its
    }
}

impl Dialing {
    pub(super) fn new(dial: Dial, told: SharedDial) -> Self {
        Self { dial, told }
    }

    pub(super) fn wait(&self) -> Wait {
        let room = &self.dial.room;
        Wait::Shared(self.told.clone(), room.home(), room.in_use())
    }
}
