//! A [`Notify`] that the background task can poll.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{Notify, futures::OwnedNotified};

/// Rings when it is notified, once for any number of times.
pub(super) struct Bell {
    notify: Arc<Notify>,
    notified: Pin<Box<OwnedNotified>>,
}

impl Bell {
    pub(super) fn new(notify: Arc<Notify>) -> Self {
        let notified = Box::pin(notify.clone().notified_owned());
        Self { notify, notified }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rung = self.notified.as_mut().poll(cx);
        if rung.is_ready() {
            self.notified = Box::pin(self.notify.clone().notified_owned());
        }
        rung
    }
}
