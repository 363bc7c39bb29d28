//! What requests wait for that have no connection.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
};

use futures::future::{BoxFuture, Shared};

use tokio::runtime::Id;

use super::{
    dialed::Dialed,
    freed::{Freed, NextFreed},
    settling::Settling,
};
use crate::{
    error::{BoxError, SharedError},
    home::Home,
    http::error::RuntimeEnded,
};

/// What a request without a connection waits for.
pub(in crate::http) enum Wait {
    /// A connection of its own.
    Dial(Dialed, Awaits),
    /// A connection for all who wait, dialled in this runtime.
    Shared(SharedDial, Home, Awaits),
    /// A connection that is about to be ready.
    Settling(Settling),
    /// That somebody needs theirs no more.
    Freed(NextFreed),
}

/// How many requests wait for a dial. One that nobody waits for may give way to another runtime's.
#[derive(Clone)]
pub(super) struct Awaited {
    by: Arc<AtomicUsize>,
    freed: Arc<Freed>,
    home: Id,
}

/// Held by whoever waits for a dial.
pub(in crate::http) struct Awaits(Awaited);

impl Awaited {
    /// A dial in the runtime `home`.
    pub(super) fn new(freed: Arc<Freed>, home: Id) -> Self {
        let by = Arc::default();
        Self { by, freed, home }
    }

    pub(super) fn by_one_more(&self) -> Awaits {
        self.by.fetch_add(1, AcqRel);
        Awaits(self.clone())
    }

    pub(super) fn by_nobody(&self) -> bool {
        self.by.load(Acquire) == 0
    }
}

impl Drop for Awaits {
    fn drop(&mut self) {
        let Awaited { by, freed, home } = &self.0;
        if by.fetch_sub(1, AcqRel) == 1 {
            freed.tell_elsewhere(*home);
        }
    }
}

pub(in crate::http) type SharedDial = Shared<BoxFuture<'static, Result<(), DialError>>>;

/// An error of a connection that several requests waited for.
#[derive(Clone, Debug)]
pub(in crate::http) struct DialError(pub(super) SharedError);

impl DialError {
    pub(in crate::http) fn into_error(self) -> BoxError {
        match self.0.is::<RuntimeEnded>() {
            true => RuntimeEnded.into(),
            false => self.into(),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
