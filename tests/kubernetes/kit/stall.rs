//! Measures how long the machine kept this process waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// How often it measures.
const BEAT: Duration = Duration::from_millis(1);

/// Measures stalls from its start on. A test must not count them against the code under test.
pub(crate) struct Stall {
    worst: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Stall {
    pub(crate) fn start() -> Self {
        let worst = Arc::<AtomicU64>::default();
        let mut task = JoinSet::new();
        let shared = worst.clone();
        task.spawn(async move {
            loop {
                let since = Instant::now();
                sleep(BEAT).await;
                let late = since.elapsed().saturating_sub(BEAT).as_micros();
                shared.fetch_max(late.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { worst, _task: task }
    }

    /// The longest stall so far.
    pub(crate) fn worst(&self) -> Duration {
        Duration::from_micros(self.worst.load(Ordering::Relaxed))
    }
}
