//! The load, and what is seen of it.

use std::{fs, time::Instant};

use tokio::time::Duration;

use crate::{pods, support::burst::now};

pub const CALLERS: usize = 32;

/// Makes requests, each to the end of its response.
pub(crate) trait Caller: Clone + Send + 'static {
    fn request(&mut self) -> impl Future<Output = ()> + Send;
}

/// What was seen of a candidate in one round.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time that a request took, without the pods'.
    pub(crate) computed: f64,
}

/// All callers at once for so long, each with its next request as soon as it has the last answer. `helper` is a process
/// whose processor time counts too.
pub(crate) async fn load<C: Caller>(caller: &C, window: Duration, helper: Option<u32>) -> Seen {
    let spent = || computed(None) + helper.map_or(Duration::ZERO, |id| computed(Some(id)));
    let (start, before) = (now(), spent());
    let call = |_| tokio::spawn(call_until(caller.clone(), start + window));
    let callers: Vec<_> = (0..CALLERS).map(call).collect();
    let mut requests = 0;
    for caller in callers {
        requests += caller.await.expect("requests succeed");
    }
    let (elapsed, computed) = (start.elapsed(), spent() - before);
    Seen {
        rate: f64::from(requests) / elapsed.as_secs_f64(),
        computed: computed.as_secs_f64() * 1e6 / f64::from(requests),
    }
}

async fn call_until(mut caller: impl Caller, end: Instant) -> u32 {
    let mut requests = 0;
    while now() < end {
        caller.request().await;
        requests += 1;
    }
    requests
}

/// What a process has computed so far, the system's part included; of this one, without the threads of the pods.
fn computed(process: Option<u32>) -> Duration {
    let process = process.map_or("self".to_owned(), |id| id.to_string());
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let spent = threads.into_iter().flatten().filter_map(|thread| {
        let thread = thread.ok()?.path();
        let name = fs::read_to_string(thread.join("comm")).ok()?;
        let text = fs::read_to_string(thread.join("schedstat")).ok()?;
        let nanos = text.split_whitespace().next()?.parse::<u64>().ok()?;
        (name.trim() != pods::THREAD).then_some(nanos)
    });
    Duration::from_nanos(spent.sum())
}
