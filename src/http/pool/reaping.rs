//! Closes connections that are idle for too long, or too old: one task for each pool, as long as it has connections.

use std::{
    future::pending,
    sync::{Arc, Weak},
};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Origin, Pool,
    state::{Reaper, State},
};
use crate::{
    home::Home,
    http::renewal::Renewals,
    logs::{CONNECTIONS, debug},
};

impl Pool {
    /// Makes sure that idle connections are closed when they are due, the first of them at `due`.
    pub(super) fn reap_later(self: &Arc<Self>, state: &mut State, due: Instant, runtime: &Handle) {
        // An earlier task may have ended with its runtime.
        if let Some(reaper) = &mut state.reaper
            && reaper.is_running()
        {
            if due < reaper.due {
                reaper.set(due);
            }
            return;
        }
        let due = (state.reaper.as_ref()).map_or(due, |before| before.due.min(due));
        let (reaper, told) = Reaper::new(due, Home::of(runtime));
        state.reaper = Some(reaper);
        let renewals = self.config.connector.renewals.clone();
        runtime.spawn(Self::reap_when_due(Arc::downgrade(self), told, renewals));
    }

    /// Ends when the pool is dropped, or has nothing left to close later.
    async fn reap_when_due(
        pool: Weak<Self>,
        mut due: watch::Receiver<Instant>,
        renewals: Option<Arc<Renewals>>,
    ) {
        let mut renewed = renewals.as_ref().map(|renewals| renewals.watch());
        loop {
            let next = *due.borrow_and_update();
            // Read after the watch has begun, so that no renewal is missed.
            let end = renewals.as_ref().and_then(|renewals| renewals.next_end());
            tokio::select! {
                changed = due.changed() => match changed {
                    Ok(()) => continue,
                    Err(_pool_is_gone) => return,
                },
                () = sleep_until(end.map_or(next, |end| end.min(next))) => {}
                () = changed(&mut renewed) => {}
            }
            let Some(pool) = pool.upgrade() else { return };
            if !pool.reap() {
                return;
            }
        }
    }

    /// Returns whether anything is left to check later.
    fn reap(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        let reaped = state.reap(self.config.idle_timeout, self.config.ahead);
        let (closed, Origin { pod, service }) = (reaped.closed, &*self.named.origin);
        if closed > 0 {
            debug!(CONNECTIONS, service, endpoint = %pod, closed, "idle connections closed");
        }
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

/// Waits for the next change of TLS settings, if there can be one.
async fn changed(renewed: &mut Option<watch::Receiver<()>>) {
    if let Some(renewed) = renewed
        && renewed.changed().await.is_ok()
    {
        return;
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{SECOND, pool, runtime},
        *,
    };
    use crate::http::connect::Connector;

    fn idle() -> Arc<Pool> {
        pool(([10, 0, 0, 1], 80).into(), Connector::default())
    }

    /// When the pool is checked next.
    fn due(pool: &Pool) -> Option<Instant> {
        pool.state.lock().reaper.as_ref().map(|reaper| reaper.due)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_reaper_takes_over_what_was_due_with_an_ended_one() {
        let (pool, now) = (idle(), Instant::now());
        let (first, here) = (runtime(), Handle::current());
        pool.reap_later(&mut pool.state.lock(), now + 10 * SECOND, first.handle());
        first.shutdown_background();
        pool.reap_later(&mut pool.state.lock(), now + 60 * SECOND, &here);
        assert_eq!(due(&pool), Some(now + 10 * SECOND));
    }

    /// Otherwise several runtimes that use a pool in turn would each start one.
    #[tokio::test(start_paused = true)]
    async fn a_reaper_of_another_runtime_is_replaced_only_when_it_is_late() {
        let (pool, now) = (idle(), Instant::now());
        let (other, here) = (runtime(), Handle::current());
        pool.reap_later(&mut pool.state.lock(), now + 10 * SECOND, other.handle());
        let tasks = || here.metrics().num_alive_tasks();
        let before = tasks();
        pool.reap_later(&mut pool.state.lock(), now + 60 * SECOND, &here);
        assert_eq!(tasks(), before, "it may be driven");
        tokio::time::advance(12 * SECOND).await;
        pool.reap_later(&mut pool.state.lock(), now + 60 * SECOND, &here);
        assert_eq!(tasks(), before + 1);
        other.shutdown_background();
    }
}
