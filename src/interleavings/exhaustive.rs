//! All interleavings, by loom.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How often a thread may be interrupted where it could go on. Loom's authors have found most faults with two or three.
const INTERRUPTIONS: usize = 3;

/// Runs `story` in every order of its threads. Returns the number of orders.
pub(crate) fn explore(story: impl Fn() + Send + Sync + 'static) -> usize {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = orders.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(INTERRUPTIONS);
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        story();
    });
    orders.load(Relaxed)
}

/// Runs a story of one thread, which has one order.
pub(crate) fn once<T: Send + 'static>(story: impl Fn() -> T + Send + Sync + 'static) -> T {
    let told = Arc::new(Mutex::new(None));
    let result = told.clone();
    let orders = explore(move || *result.lock().unwrap() = Some(story()));
    assert_eq!(orders, 1);
    told.lock().unwrap().take().unwrap()
}
