//! The atomics and the lock that requests and the background task share.
//!
//! They are std's. Only the tests of interleavings replace them by those of a model checker, which
//! chooses, at each access, which thread goes on and what it sees. `Arc` is std's there too: loom's has no
//! `Weak`, and shuttle's is std's.

use std::{
    fmt,
    sync::{self, MutexGuard, PoisonError, TryLockError},
};

#[cfg(all(test, tower_headless_loom))]
pub(crate) use loom::sync::atomic;
#[cfg(all(test, tower_headless_shuttle))]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(all(test, any(tower_headless_loom, tower_headless_shuttle))))]
pub(crate) use std::sync::atomic;

/// A lock that stays usable after a panic.
///
/// After a panic, std's lock refuses everybody. Here only the request that panicked fails, and its error says so. The
/// data behind each lock is consistent wherever anything can panic, so others can go on with it.
#[derive(Default)]
pub(crate) struct Mutex<T: ?Sized>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(it: T) -> Self {
        Self(sync::Mutex::new(it))
    }

    pub(crate) fn into_inner(self) -> T {
        let it = self.0.into_inner();
        it.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let locked = self.0.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while another thread holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(locked) => Some(locked),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        let it = self.0.get_mut();
        it.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(all(test, any(tower_headless_loom, tower_headless_shuttle)))]
pub(crate) use crate::interleavings::CheckedMutex;
/// A [`Mutex`] that requests and the background task share. The checkers replace it by their own.
#[cfg(not(all(test, any(tower_headless_loom, tower_headless_shuttle))))]
pub(crate) use Mutex as CheckedMutex;

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

#[cfg(test)]
mod tests {
    use super::Mutex;
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        thread,
    };

    #[test]
    fn a_panic_does_not_close_a_lock() {
        let mut mutex = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _locked = mutex.lock();
            panic!("with the lock");
        }));
        panicked.expect_err("a panic");
        *mutex.lock() += 1;
        assert_eq!(mutex.try_lock().as_deref(), Some(&2));
        assert_eq!(*mutex.get_mut(), 2);
        assert_eq!(mutex.into_inner(), 2);
    }

    #[test]
    fn a_lock_that_somebody_has_is_not_had_twice() {
        let mutex = Mutex::new(());
        let locked = mutex.lock();
        thread::scope(|scope| {
            scope.spawn(|| assert!(mutex.try_lock().is_none()));
        });
        drop(locked);
        assert!(mutex.try_lock().is_some());
    }
}
