//! The atomics and the lock by which requests and the background task meet.
//!
//! They are std's. Only the tests of interleavings put those of a model checker in their place: the
//! checker then chooses, at each access, which thread goes on and what it sees. `Arc` is std's there too: loom's has no
//! `Weak`, and shuttle's is std's.

#[cfg(all(test, tower_headless_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(all(test, tower_headless_shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(all(test, any(tower_headless_loom, tower_headless_shuttle))))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// Something of tokio's or another crate's by which threads meet, and which the checkers don't know: to shuttle, each access
/// to it is a step, before which others may come. Otherwise it is just what it is.
#[cfg(not(all(test, tower_headless_shuttle)))]
pub(crate) type Step<T> = T;

/// Makes each access to `it` a step.
#[cfg(not(all(test, tower_headless_shuttle)))]
#[inline]
pub(crate) fn step<T>(it: T) -> Step<T> {
    it
}

#[cfg(all(test, tower_headless_shuttle))]
pub(crate) use crate::interleavings::{Step, step};
