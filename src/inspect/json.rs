//! The JSON, made once for all clients that ask at the same time.

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

/// How long an answer is reused. A page asks every 2 s: a longer time would show, a shorter one would cost.
const FRESH: Duration = Duration::from_millis(250);

/// The JSON, or why it couldn't be made.
pub(super) type Made = Result<Bytes, Arc<str>>;

/// The JSON in the making, shared by all clients that ask meanwhile.
pub(super) type Making = Shared<BoxFuture<'static, Made>>;

pub(super) struct Json {
    balancers: Balancers,
    /// The last JSON, which may still be in the making, and when that began.
    last: Mutex<Option<(Instant, Making)>>,
}

impl Json {
    pub(super) fn new(balancers: Balancers) -> Self {
        let last = Mutex::new(None);
        Self { balancers, last }
    }

    /// The balancers' state as JSON, begun at most [`FRESH`] ago, or still in the making.
    pub(super) fn bytes(&self) -> Making {
        let mut last = self.last.lock();
        let now = Instant::now();
        if let Some((at, making)) = &*last {
            // A failure is not kept. A making that isn't done is joined, or more and more would run at once. It may be
            // done without anybody having polled it, if its client has gone: so it is polled here.
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

/// Makes the JSON on a blocking thread: thousands of endpoints take milliseconds, in which requests on this thread
/// would wait.
fn make(balancers: Balancers) -> Making {
    let making = match Handle::try_current() {
        Ok(_) => {
            let task = spawn_blocking(move || write(&balancers));
            // `unconstrained`: pending must mean that it isn't done, not that the caller's cooperative budget is spent.
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
