//! The JSON, made once for all who ask at the same time.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, ready},
};
use tokio::{
    runtime::Handle,
    task::{spawn_blocking, unconstrained},
    time::Instant,
};

use crate::{explain::Balancers, sync::Mutex};

/// How long an answer is given to others. A page asks every 2 s; more would be seen, and less costs.
const FRESH: Duration = Duration::from_millis(250);

/// What there is to say, or why it can't be said.
pub(super) type Made = Result<Bytes, Arc<str>>;

/// One for all who ask meanwhile.
pub(super) type Making = Shared<BoxFuture<'static, Made>>;

pub(super) struct Json {
    balancers: Balancers,
    /// The last one, which may be in the making, and when that began.
    last: Mutex<Option<(Instant, Making)>>,
}

impl Json {
    pub(super) fn new(balancers: Balancers) -> Self {
        let last = Mutex::new(None);
        Self { balancers, last }
    }

    /// What the balancers know of themselves, at most [`FRESH`] ago, or since it was begun.
    pub(super) fn bytes(&self) -> Making {
        let mut last = self.last.lock();
        let now = Instant::now();
        if let Some((at, making)) = &*last {
            // A failure is not kept. One that isn't done is waited for, or more and more would be made at once. It may be done and
            // nobody has looked, for who had asked is gone: so it is looked at here.
            let is_usable = match making.clone().now_or_never() {
                Some(made) => made.is_ok() && now.duration_since(*at) < FRESH,
                None => true,
            };
            if is_usable {
                return making.clone();
            }
        }
        let making = make(self.balancers.clone());
        *last = Some((now, making.clone()));
        making
    }
}

/// Thousands of endpoints take milliseconds, in which requests on this thread would wait: a thread of its own makes it.
fn make(balancers: Balancers) -> Making {
    let making = match Handle::try_current() {
        Ok(_) => {
            let task = spawn_blocking(move || write(&balancers));
            // Pending is to mean that it isn't done, and not that the caller's budget is spent.
            let task = unconstrained(task);
            task.map(|done| done.unwrap_or_else(failed)).boxed()
        }
        Err(_) => ready(write(&balancers)).boxed(),
    };
    making.shared()
}

fn write(balancers: &Balancers) -> Made {
    let json = serde_json::to_vec(&balancers.explain());
    json.map(Bytes::from).or_else(failed)
}

fn failed(error: impl fmt::Display) -> Made {
    Err(error.to_string().into())
}
