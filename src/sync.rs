//! The atomics and the lock that requests and the background task share.
//!
//! They are std's. Only the tests of interleavings replace them by those of a model checker, which
//! chooses, at each access, which thread goes on and what it sees. `Arc` is std's there too: loom's has no
//! `Weak`, and shuttle's is std's.

#[cfg(all(test, tower_headless_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(all(test, tower_headless_shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(all(test, any(tower_headless_loom, tower_headless_shuttle))))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// A synchronisation primitive of another crate, such as tokio's, that the checkers don't know. In shuttle's tests,
/// other threads may run before each access to it. Otherwise it is plain `T`.
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
