//! The wait for a connection that is dialled for one request.

use std::{
    future::Future,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{connection::Http1, settling::Shelf};
use crate::error::BoxError;

/// None if the pod turned out to speak HTTP/2, so that all requests share a connection.
pub(super) type Made = Result<Option<Box<Http1>>, BoxError>;

/// The wait for the connection. If it is dropped before it is read, the next request gets the connection.
pub(in crate::http) struct Dialed {
    made: oneshot::Receiver<Made>,
    shelf: Weak<dyn Shelf>,
}

impl Dialed {
    pub(super) fn new(made: oneshot::Receiver<Made>, shelf: Weak<dyn Shelf>) -> Self {
        Self { made, shelf }
    }
}

impl Future for Dialed {
    type Output = Result<Made, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.made).poll(cx)
    }
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.made.close();
        if let Ok(Ok(Some(unused))) = self.made.try_recv()
            && let Some(shelf) = self.shelf.upgrade()
        {
            shelf.put_back(unused);
        }
    }
}
