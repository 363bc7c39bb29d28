//! What a request without a connection waits for.

use std::fmt;

use futures_util::future::{BoxFuture, Shared};

use super::{dialed::Dialed, freed::NextFreed, room::InUse, settling::Settling};
use crate::{
    error::{BoxError, SharedError, is_timeout, timed_out},
    home::Home,
    http::error::RuntimeEnded,
};

/// What a request without a connection waits for.
pub(in crate::http) enum Wait {
    /// A connection of its own.
    Dial(Dialed, Option<InUse>),
    /// A connection for all who wait, dialled in this runtime.
    Shared(SharedDial, Home, Option<InUse>),
    /// A connection that will be ready soon.
    Settling(Settling),
    /// Another request to free a connection.
    Freed(NextFreed),
}

pub(in crate::http) type SharedDial = Shared<BoxFuture<'static, Result<(), DialError>>>;

/// The error of a connection that several requests waited for.
#[derive(Clone, Debug)]
pub(in crate::http) struct DialError(pub(super) SharedError);

impl DialError {
    pub(in crate::http) fn into_error(self) -> BoxError {
        if self.0.is::<RuntimeEnded>() {
            return RuntimeEnded.into();
        }
        // By its kind, the balancer sees that it is no refusal.
        match is_timeout(&*self.0) {
            true => timed_out(self),
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
