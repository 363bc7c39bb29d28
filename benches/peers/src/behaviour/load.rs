//! A steady load, and what its callers see.

use std::sync::Arc;

use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use super::client::Client;

/// 200 requests a second.
const EVERY: Duration = Duration::from_millis(5);

/// When callers give up.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Of 100 requests.
    pub(super) failed: f64,
    /// Milliseconds that all but one of 100 took at most, of those that succeeded; none if none did.
    pub(super) slowest: Option<f64>,
}

/// Sends requests at fixed times, however long their answers take.
pub(super) async fn load(client: Arc<Client>, time: Duration) -> Seen {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = Vec::new();
    for _ in 0..time.as_millis() / EVERY.as_millis() {
        ticks.tick().await;
        let client = client.clone();
        requests.push(tokio::spawn(async move {
            let begun = Instant::now();
            let answer = timeout(PATIENCE, client.send()).await;
            (matches!(answer, Ok(Ok(()))), begun.elapsed())
        }));
    }
    let (len, mut took) = (requests.len(), Vec::new());
    for request in requests {
        let (is_well, time) = request.await.expect("requests don't panic");
        took.extend(is_well.then_some(time));
    }
    took.sort_unstable();
    let slowest = took.get(took.len() * 99 / 100);
    Seen {
        failed: (len - took.len()) as f64 * 100.0 / len as f64,
        slowest: slowest.map(|time| time.as_secs_f64() * 1e3),
    }
}
