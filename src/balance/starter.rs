//! The start of the background task: when the balancer is built, or when it is first used.

use std::sync::PoisonError;

use futures::future::BoxFuture;
use tokio::runtime;

use crate::sync::Mutex;

/// Starts the background task, when there is a runtime to do so.
pub(super) struct Starter {
    /// The task, as long as it could not be started for want of a runtime.
    driver: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Starter {
    pub(super) fn new(driver: BoxFuture<'static, ()>) -> Self {
        Self {
            driver: Mutex::new(Some(driver)),
        }
    }

    /// The background task, for those who run it themselves.
    #[cfg(all(test, tower_headless_shuttle))]
    pub(super) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.driver.lock().unwrap().take()
    }

    /// Starts the background task if that has not been done and there is a runtime to do it.
    pub(super) fn start(&self) {
        if let Ok(runtime) = runtime::Handle::try_current() {
            let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(driver) = driver.take() {
                runtime.spawn(driver);
            }
        }
    }
}
