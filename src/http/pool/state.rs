//! The connections that a pool has.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use tracing::debug;

use super::{
    connection::{Http1, Http2},
    wait::SharedDial,
};
use crate::home::Home;

#[derive(Default)]
pub(super) struct State {
    /// HTTP/1.1 connections without a request, the last used on top.
    pub(super) idle: Vec<Http1>,
    pub(super) http2: Vec<Arc<Http2>>,
    /// A connection that is being made for all, and by which runtime.
    pub(super) dialing: Option<(Home, SharedDial)>,
    /// A task waits for the next idle connection to grow too old. It ends with this.
    pub(super) reaper: Option<(Home, oneshot::Sender<()>)>,
}

impl State {
    /// The last used one that the pod has not closed and that somebody drives.
    pub(super) fn pop_idle(&mut self) -> Option<Http1> {
        for at in (0..self.idle.len()).rev() {
            if !self.idle[at].sender.is_ready() {
                self.idle.remove(at);
            } else if self.idle[at].is_driven() {
                return Some(self.idle.remove(at));
            }
        }
        None
    }

    /// The connection that is being made for all, if it will come while somebody waits for it here.
    pub(super) fn dialing(&self) -> Option<&SharedDial> {
        let (home, dial) = self.dialing.as_ref()?;
        (dial.peek().is_none() && home.runs_beside_us()).then_some(dial)
    }

    /// Whether a task closes idle connections in time.
    pub(super) fn is_reaped(&self) -> bool {
        let reaper = self.reaper.as_ref();
        reaper.is_some_and(|(home, alive)| home.runs_beside_us() && !alive.is_closed())
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
