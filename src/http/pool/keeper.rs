//! What tells the task that keeps a connection: one has ended, or the pool is gone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Keeper {
    ended: Arc<Notify>,
    runs: AtomicBool,
    /// There has been a connection since the last one that was missed.
    connected: AtomicBool,
}

/// Held by a connection, from its dial to its end.
pub(super) struct OnEnd(Option<Arc<Notify>>);

impl Keeper {
    /// For a connection that is kept; and for the task that keeps it, which has to be begun, if this is the first one.
    pub(super) fn on_end(&self) -> (OnEnd, Option<Arc<Notify>>) {
        let is_first = !self.runs.swap(true, Relaxed);
        let task = is_first.then(|| self.ended.clone());
        (OnEnd(Some(self.ended.clone())), task)
    }

    /// The task has ended.
    pub(super) fn has_ended(&self) {
        self.runs.store(false, Relaxed);
    }

    /// There is a connection to keep.
    pub(super) fn connected(&self) {
        self.connected.store(true, Relaxed);
    }

    /// Whether there was a connection, since this was last asked.
    pub(super) fn take_connected(&self) -> bool {
        self.connected.swap(false, Relaxed)
    }
}

impl OnEnd {
    /// Of a connection that is not kept.
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
