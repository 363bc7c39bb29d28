//! Connections that are being made.

use std::sync::{Arc, Weak};

use tokio::task::{AbortHandle, Id};

use super::{
    room::{Room, WeakRoom},
    wait::{Awaited, SharedDial, Wait},
};
use crate::home::Home;

/// A dial: its task, in which runtime, with which room, and for whom.
pub(super) struct Dial {
    task: AbortHandle,
    home: Home,
    room: WeakRoom,
    under_way: Weak<()>,
    awaited: Awaited,
}

/// Held by a dial's task until there is a connection, which may be in use at once.
#[derive(Default)]
pub(super) struct UnderWay(Arc<()>);

/// A dial for all.
pub(super) struct Dialing {
    pub(super) dial: Dial,
    told: SharedDial,
}

impl Dial {
    /// Of a task that holds what is `under_way`, and was begun with this room.
    pub(super) fn new(
        task: AbortHandle,
        home: Home,
        (room, under_way): (WeakRoom, Weak<()>),
        awaited: Awaited,
    ) -> Self {
        Self {
            task,
            home,
            room,
            under_way,
            awaited,
        }
    }

    /// Whether it comes while a request waits for it here.
    pub(super) fn is_driven(&self) -> bool {
        self.home.runs_beside_us()
    }

    /// Whether nothing will come of it any more for those who don't wait for it yet.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished() || self.room.is_vacant()
    }

    pub(super) fn task(&self) -> Id {
        self.task.id()
    }

    /// Gives it up, so that another one has its room, unless somebody waits for it or may do so here.
    pub(super) fn give_way(&self) -> Option<Room> {
        let is_under_way = self.under_way.strong_count() > 0;
        if !is_under_way || self.is_driven() || !self.awaited.by_nobody() {
            return None;
        }
        let room = self.room.take_over()?;
        self.task.abort();
        Some(room)
    }
}

impl UnderWay {
    pub(super) fn downgrade(&self) -> Weak<()> {
        Arc::downgrade(&self.0)
    }
}

impl Dialing {
    pub(super) fn new(dial: Dial, told: SharedDial) -> Self {
        Self { dial, told }
    }

    pub(super) fn wait(&self) -> Wait {
        let Dial { home, awaited, .. } = &self.dial;
        Wait::Shared(self.told.clone(), *home, awaited.by_one_more())
    }
}
