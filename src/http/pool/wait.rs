//! Room for connections, and what requests wait for that have none.

use std::{fmt, pin::Pin, sync::Arc};

use futures::future::{BoxFuture, Shared};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::OwnedNotified, oneshot};

use super::connection::Http1;
use crate::error::{BoxError, SharedError};

/// The right to one connection, for as long as that is open.
pub(super) struct Room {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

/// What a request without a connection waits for.
pub(in crate::http) enum Wait {
    /// A connection of its own; none where the pod speaks HTTP/2 by now, and there is one for all.
    Dial(oneshot::Receiver<Result<Option<Http1>, BoxError>>),
    /// A connection for all who wait.
    Shared(SharedDial),
    /// That somebody needs theirs no more.
    Freed(Pin<Box<OwnedNotified>>),
}

pub(in crate::http) type SharedDial = Shared<BoxFuture<'static, Result<(), DialError>>>;

/// An error of a connection that several requests waited for.
#[derive(Clone, Debug)]
pub(in crate::http) struct DialError(pub(super) SharedError);

impl Room {
    /// Room for one more connection of `all`, or the wait for it.
    pub(super) fn take(all: &Arc<Semaphore>, freed: &Arc<Notify>) -> Result<Self, Wait> {
        // Listens before it looks: what is freed in between is not missed.
        let mut next = Box::pin(freed.clone().notified_owned());
        next.as_mut().enable();
        match all.clone().try_acquire_owned() {
            Ok(permit) => Ok(Self {
                permit: Some(permit),
                freed: freed.clone(),
            }),
            Err(_full) => Err(Wait::Freed(next)),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.permit = None;
        self.freed.notify_one();
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
