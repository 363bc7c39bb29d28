//! What requests wait for that have no connection.

use std::{fmt, sync::Arc};

use futures::future::{BoxFuture, Shared};

use super::{dialed::Dialed, freed::NextFreed, settling::Settling};
use crate::{
    error::{BoxError, SharedError},
    home::Home,
    http::error::RuntimeEnded,
};

/// What a request without a connection waits for.
pub(in crate::http) enum Wait {
    /// A connection of its own.
    Dial(Dialed, Awaited),
    /// A connection for all who wait, dialled in this runtime.
    Shared(SharedDial, Home, Awaited),
    /// A connection that is about to be ready.
    Settling(Settling),
    /// That somebody needs theirs no more.
    Freed(NextFreed),
}

/// Held by whoever waits for a dial, and by the pool. A dial that nobody waits for may give way to another runtime's.
#[derive(Clone, Default)]
pub(in crate::http) struct Awaited(Arc<()>);

impl Awaited {
    pub(super) fn by_nobody(&self) -> bool {
        Arc::strong_count(&self.0) == 1
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
