//! What requests wait for that have no connection.

use std::{fmt, pin::Pin};

use futures::future::{BoxFuture, Shared};
use tokio::sync::futures::OwnedNotified;

use super::{dialed::Dialed, settling::Settling};
use crate::{error::SharedError, home::Home};

/// What a request without a connection waits for.
pub(in crate::http) enum Wait {
    /// A connection of its own.
    Dial(Dialed),
    /// A connection for all who wait, dialled in this runtime.
    Shared(SharedDial, Home),
    /// A connection that is about to be ready.
    Settling(Settling),
    /// That somebody needs theirs no more.
    Freed(Pin<Box<OwnedNotified>>),
}

pub(in crate::http) type SharedDial = Shared<BoxFuture<'static, Result<(), DialError>>>;

/// An error of a connection that several requests waited for.
#[derive(Clone, Debug)]
pub(in crate::http) struct DialError(pub(super) SharedError);

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
