//! Keeps a connection ready before a request needs it, and replaces it when it is lost.
//!
//! The balancer makes the first one: it makes a joining pod ready, and tries a refusing pod again. This module takes
//! over afterwards.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{Pool, keeper::OnEnd, wait::Wait};
use crate::{
    backoff::{Backoff, LONGEST_RECONNECT},
    error::BoxError,
};

impl Pool {
    /// What a connection holds from its dial on, to report its end.
    pub(super) fn on_end(self: &Arc<Self>) -> OnEnd {
        if !self.config.ahead {
            return OnEnd::nobody();
        }
        let (end, task) = self.keeper.on_end();
        if let Some(ended) = task {
            let keeps = Keeps(Arc::downgrade(self));
            self.runtime().spawn(keep(keeps, ended));
        }
        end
    }

    /// Notes that there is a connection to keep.
    pub(super) fn connected(&self) {
        if self.config.ahead {
            self.keeper.connected();
        }
    }

    /// Whether there was a connection, but now there is none, and none is being made.
    fn misses_one(&self) -> bool {
        self.is_bare() && self.keeper.take_connected()
    }

    fn is_bare(&self) -> bool {
        self.rooms.are_free()
    }

    /// Replaces the kept connection, because it has grown too old.
    pub(super) fn replace_kept(self: &Arc<Self>) {
        if self.config.ahead {
            // The dial goes on without a waiter, and leaves the connection for the next request.
            drop(self.connect());
        }
    }
}

/// Notes the end of the task that keeps a connection, for example with its runtime: the next dial starts another.
struct Keeps(Weak<Pool>);

impl Drop for Keeps {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.keeper.has_ended();
        }
    }
}

/// Connects again whenever the last connection is lost, until the pool is dropped.
async fn keep(keeps: Keeps, ended: Arc<Notify>) {
    let pool = keeps.0.clone();
    let new = Backoff::of_reconnects;
    let (mut backoff, mut made) = (new(), Instant::now());
    loop {
        ended.notified().await;
        let Some(misses_one) = pool.upgrade().map(|pool| pool.misses_one()) else {
            return;
        };
        if made.elapsed() > LONGEST_RECONNECT {
            backoff = new();
        }
        let mut tries = misses_one;
        while tries {
            let Some(config) = pool.upgrade().map(|pool| pool.config.clone()) else {
                return;
            };
            let pause = backoff.next(&mut &config.generator);
            if !pool_outlives(pause, &pool, &ended).await {
                return;
            }
            // A request may have connected meanwhile.
            let bare = pool.upgrade().filter(|pool| pool.is_bare());
            let Some(wait) = bare.map(|pool| pool.connect()) else {
                break;
            };
            made = Instant::now();
            tries = finish(wait, &pool).await.is_err();
        }
    }
}

/// Pauses. Returns whether the pool still exists afterwards.
async fn pool_outlives(pause: Duration, pool: &Weak<Pool>, ended: &Notify) -> bool {
    let due = Instant::now() + pause;
    while timeout_at(due, ended.notified()).await.is_ok() {
        if pool.strong_count() == 0 {
            return false;
        }
    }
    true
}

/// Leaves the connection for the next request.
async fn finish(wait: Wait, pool: &Weak<Pool>) -> Result<(), BoxError> {
    match wait {
        Wait::Dial(dialed, awaited) => {
            // A request that needs the room comes first.
            drop(awaited);
            if let Some(connection) = dialed.await?? {
                Pool::release(pool, connection);
            }
        }
        Wait::Shared(dialed, _, awaited) => {
            drop(awaited);
            dialed.await?;
        }
        Wait::Settling(_) | Wait::Freed(_) => {}
    }
    Ok(())
}
