//! Closes connections that have been idle for too long, or are too old: one task for a pool, as long as it has any.

use std::sync::{Arc, Weak};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Pool,
    state::{Reaper, State},
};

impl Pool {
    /// Sees to it that idle connections are closed when they grow too old, the first of them at `due`.
    pub(super) fn reap_later(self: &Arc<Self>, state: &mut State, due: Instant) {
        if let Some(reaper) = &mut state.reaper {
            if due < reaper.due {
                reaper.set(due);
            }
            return;
        }
        let (reaper, told) = Reaper::new(due);
        state.reaper = Some(reaper);
        tokio::spawn(Self::reap_when_due(Arc::downgrade(self), told));
    }

    /// Ends when the pool is gone, or has nothing that may grow too old.
    async fn reap_when_due(pool: Weak<Self>, mut due: watch::Receiver<Instant>) {
        loop {
            let next = *due.borrow_and_update();
            match timeout_at(next, due.changed()).await {
                Ok(Ok(())) => continue,
                Ok(Err(_pool_is_gone)) => return,
                Err(_elapsed) => {}
            }
            let Some(pool) = pool.upgrade() else { return };
            if !pool.reap() {
                return;
            }
        }
    }

    /// Whether there is anything left to look at later.
    fn reap(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let reaped = state.reap(self.config.idle_timeout, self.config.ahead);
        for old in &reaped.wanted {
            self.succeed(&mut state, old);
        }
        match (reaped.due, &mut state.reaper) {
            (Some(due), Some(reaper)) => reaper.set(due),
            _ => state.reaper = None,
        }
        let goes_on = state.reaper.is_some();
        let is_last = reaped.closed > 0 && state.is_empty();
        drop(state);
        if is_last {
            self.replace_kept();
        }
        goes_on
    }
}
