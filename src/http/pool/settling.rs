//! An HTTP/1.1 connection whose response has ended, but whose own task has not yet said that it can take another
//! request.
//!
//! That takes microseconds, on another thread. The next request waits for it instead of dialling, but not for long: a
//! connection that is stuck is put aside.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use super::connection::Http1;
use crate::home::Timer;

/// Takes back connections that nobody waits for any longer.
pub(super) trait Shelf: Send + Sync {
    /// The one who waited has another connection, or was cancelled.
    fn put_back(self: Arc<Self>, connection: Box<Http1>);

    /// The connection won't be ready soon.
    fn put_aside(self: Arc<Self>, connection: Box<Http1>);
}

/// The wait for it. None if it isn't ready in time.
pub(in crate::http) struct Settling {
    connection: Option<Box<Http1>>,
    shelf: Weak<dyn Shelf>,
    deadline: Timer,
}

impl Settling {
    pub(super) fn new(connection: Box<Http1>, shelf: Weak<dyn Shelf>) -> Self {
        Self {
            deadline: Timer::at(connection.settles_until()),
            connection: Some(connection),
            shelf,
        }
    }
}

impl Future for Settling {
    type Output = Option<Box<Http1>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Box<Http1>>> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(None);
        };
        match connection.sender.poll_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(this.connection.take()),
            Poll::Ready(Err(_closed)) => {
                this.connection = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.deadline.poll(cx));
                if let Some(stuck) = this.connection.take()
                    && let Some(shelf) = this.shelf.upgrade()
                {
                    shelf.put_aside(stuck);
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Some(shelf) = self.shelf.upgrade()
        {
            shelf.put_back(connection);
        }
    }
}
