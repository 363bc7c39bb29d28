//! The connections that a pool has.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::AbortHandle, time::Instant};
use tracing::debug;

use super::{
    connection::{Http1, Http2},
    wait::SharedDial,
};

#[derive(Default)]
pub(super) struct State {
    /// HTTP/1.1 connections without a request, the last used on top.
    pub(super) idle: Vec<Http1>,
    pub(super) http2: Vec<Arc<Http2>>,
    /// The last dial for all, and the task that it is.
    pub(super) dialing: Option<(AbortHandle, SharedDial)>,
    /// A task waits for the next idle connection to grow too old. It ends with this.
    pub(super) reaper: Option<oneshot::Sender<()>>,
}

impl State {
    /// The dial for all that is on its way. What one that is over has come to is for those who have waited for it, if any
    /// still do.
    pub(super) fn dialing(&mut self) -> Option<SharedDial> {
        self.dialing.take_if(|(task, _)| task.is_finished());
        self.dialing.as_ref().map(|(_, dial)| dial.clone())
    }

    /// The last used one that the pod has not closed.
    pub(super) fn pop_idle(&mut self) -> Option<Http1> {
        loop {
            let last = self.idle.pop()?;
            if last.sender.is_ready() {
                return Some(last);
            }
        }
    }

    /// Closes what has been idle for too long, and says when to look again; never, where nothing is left that may be idle.
    pub(super) fn reap(&mut self, timeout: Duration) -> Option<Instant> {
        let now = Instant::now();
        let is_old = |since: Instant| now >= since + timeout;
        let before = self.idle.len() + self.http2.len();
        self.idle
            .retain(|it| !it.sender.is_closed() && !is_old(it.idle_since));
        let is_unused = |it: &Http2| it.idle_since().is_some_and(is_old);
        self.http2.retain(|it| !it.is_over() && !is_unused(it));
        let left = self.idle.len() + self.http2.len();
        if left < before {
            debug!(closed = before - left, left, "idle connections closed");
        }
        let idle = self.idle.iter().map(|it| it.idle_since);
        let since = |it: &Arc<Http2>| it.idle_since().unwrap_or(now);
        let http2 = self.http2.iter().map(since);
        Some(idle.chain(http2).min()? + timeout)
    }
}
