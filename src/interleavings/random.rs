//! Random interleavings, by shuttle.
//!
//! A story that fails prints the seed of its order, or the order itself. `SHUTTLE_RANDOM_SEED=<seed>` runs it again.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How many orders of a story each of the two schedulers tries, unless its time is up before.
const ORDERS: usize = 1_000;
const TIME: Duration = Duration::from_secs(4);

/// How many orders are tried between checks of the clock. Shuttle's own time limit isn't used, because it prints a seed
/// as if that order had failed.
const BATCH: usize = 50;

/// The most interruptions in the right places that a fault may need to be found (PCT's depth).
const DEPTH: usize = 3;

/// The most steps of a story. A longer one waits for something that never comes.
const STEPS: usize = 5_000;

const STACK: usize = 1 << 18;

/// Runs `story` in some orders of its threads.
pub(crate) fn explore(story: impl Fn() + Send + Sync + 'static) {
    let story = Arc::new(story);
    let random = run(|| RandomScheduler::new(BATCH), &story);
    let interrupted = run(|| PctScheduler::new(DEPTH, BATCH), &story);
    println!("{random} and {interrupted} orders");
}

fn run<S: Scheduler + 'static>(
    scheduler: impl Fn() -> S,
    story: &Arc<impl Fn() + Send + Sync + 'static>,
) -> usize {
    let (begun, mut orders) = (Instant::now(), 0);
    while orders < ORDERS && begun.elapsed() < TIME {
        let (story, config) = (story.clone(), config());
        orders += Runner::new(scheduler(), config).run(move || story());
    }
    orders
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config
}

/// A primitive that the checker doesn't know: before each access, other threads may run.
#[derive(Debug)]
pub(crate) struct Step<T> {
    it: T,
    turn: AtomicUsize,
}

pub(crate) fn step<T>(it: T) -> Step<T> {
    Step {
        it,
        turn: AtomicUsize::new(0),
    }
}

impl<T> Deref for Step<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.turn.load(Relaxed);
        &self.it
    }
}
