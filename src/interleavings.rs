//! What the tests of interleavings share.
//!
//! They run the real code under a checker that chooses which thread goes on at each access to [`sync`](crate::sync).
//! Loom tries all orders of a few threads, and all values that relaxed accesses may see. Shuttle draws random orders of
//! more and longer threads, and treats every access as sequentially consistent. `.ci/interleavings` runs both.

#[cfg(tower_headless_loom)]
mod exhaustive;
#[cfg(tower_headless_shuttle)]
mod random;

#[cfg(tower_headless_loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(tower_headless_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};
use std::sync::TryLockError;

#[cfg(tower_headless_loom)]
pub(crate) use exhaustive::{explore, once};
#[cfg(tower_headless_shuttle)]
pub(crate) use random::{Step, explore, step};

/// The checker's lock, in the place of [`sync::Mutex`](crate::sync::Mutex).
#[derive(Debug, Default)]
pub(crate) struct CheckedMutex<T>(Mutex<T>);

impl<T> CheckedMutex<T> {
    pub(crate) fn new(it: T) -> Self {
        Self(Mutex::new(it))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|it| it.into_inner())
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(locked) => Some(locked),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
