//! A connection that is there before a request needs it, and is replaced when it is lost.
//!
//! The first one is the balancer's: it makes a pod ready that joins, and tries one again that refuses. This is about the
//! time after.

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
    /// What a connection that is about to be dialled holds.
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

    /// There is a connection to keep.
    pub(super) fn connected(&self) {
        if self.config.ahead {
            self.keeper.connected();
        }
    }

    /// Whether there was a connection, and now there is none, nor one being made.
    fn misses_one(&self) -> bool {
        self.is_bare() && self.keeper.take_connected()
    }

    fn is_bare(&self) -> bool {
        self.rooms.are_free()
    }

    /// The connection that was kept has grown too old.
    pub(super) fn replace_kept(self: &Arc<Self>) {
        if self.config.ahead {
            // It goes on without anybody who waits for it, and is put where the next request finds it.
            drop(self.connect());
        }
    }
}

/// Says when the task that keeps a connection has ended, with its runtime perhaps: the next dial begins another.
struct Keeps(Weak<Pool>);

impl Drop for Keeps {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.keeper.has_ended();
        }
    }
}

/// Makes a connection whenever there was one and is none, until the pool is gone.
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
            // A request may have made one meanwhile.
            let bare = pool.upgrade().filter(|pool| pool.is_bare());
            let Some(wait) = bare.map(|pool| pool.connect()) else {
                break;
            };
            made = Instant::now();
            tries = finish(wait, &pool).await.is_err();
        }
    }
}

/// Waits for so long; whether the pool is still there then.
async fn pool_outlives(pause: Duration, pool: &Weak<Pool>, ended: &Notify) -> bool {
    let due = Instant::now() + pause;
    while timeout_at(due, ended.notified()).await.is_ok() {
        if pool.strong_count() == 0 {
            return false;
        }
    }
    true
}

/// The connection is put where the next request finds it.
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
