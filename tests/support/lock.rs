//! A lock that a panic doesn't close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Poison adds nothing: a test that panicked elsewhere says so itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
