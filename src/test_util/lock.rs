//! A lock that a panic elsewhere doesn't close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A test that panicked elsewhere says so itself: poison adds nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
