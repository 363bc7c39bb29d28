//! Whether hyper still reads a request's body, and why the body has failed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{error::BoxError, sync::Mutex};

/// Whether there may be more to read of a request's body. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Reading(Arc<State>);

#[derive(Debug, Default)]
struct State {
    goes_on: AtomicBool,
    /// Kept here because hyper drops the error once the head of a response has arrived.
    error: Mutex<Option<BoxError>>,
}

/// Held by a body while it is read. hyper drops a body that it has read to its end, or to its declared length.
pub(super) struct Reader(Reading);

impl Reading {
    pub(in crate::http) fn goes_on(&self) -> bool {
        self.0.goes_on.load(Relaxed)
    }

    pub(super) fn begin(&self) -> Reader {
        self.0.goes_on.store(true, Relaxed);
        Reader(self.clone())
    }

    /// Why the body failed, if it has.
    pub(in crate::http) fn take_error(&self) -> Option<BoxError> {
        self.0.error.lock().take()
    }
}

impl Reader {
    /// Notes that the body has failed. Returns the error for hyper.
    pub(super) fn failed(&self, error: BoxError) -> BoxError {
        let state = &self.0.0;
        *state.error.lock() = Some(error);
        "the request's own body failed".into()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.goes_on.store(false, Relaxed);
    }
}
