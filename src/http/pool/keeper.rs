//! Tells the task that keeps a connection that one has ended, or that the pool was dropped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Keeper {
    ended: Arc<Notify>,
    runs: AtomicBool,
    /// Whether there has been a connection since this was last asked.
    connected: AtomicBool,
}

/// Held by a connection, from its dial to its end.
pub(super) struct OnEnd(Option<Arc<Notify>>);

impl Keeper {
    /// For a connection that is kept. Also returns what the task that keeps it waits for, if this is the first one and
    /// the task must be started.
    pub(super) fn on_end(&self) -> (OnEnd, Option<Arc<Notify>>) {
        let is_first = !self.runs.swap(true, Relaxed);
        let task = is_first.then(|| self.ended.clone());
        (OnEnd(Some(self.ended.clone())), task)
    }

    /// Notes that the task has ended.
    pub(super) fn has_ended(&self) {
        self.runs.store(false, Relaxed);
    }

    /// Notes that there is a connection to keep.
    pub(super) fn connected(&self) {
        self.connected.store(true, Relaxed);
    }

    /// Whether there was a connection since the last call.
    pub(super) fn take_connected(&self) -> bool {
        self.connected.swap(false, Relaxed)
    }
}

impl OnEnd {
    /// For a connection that is not kept.
    pub(super) fn nobody() -> Self {
        Self(None)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(ended) = &self.0 {
            ended.notify_one();
        }
    }
}
