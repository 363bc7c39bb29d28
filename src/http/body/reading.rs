//! Whether hyper still reads a request's body, and why that has failed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{error::BoxError, sync::Mutex};

/// Whether a connection's request has a body of which there may be more to read. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Reading(Arc<State>);

#[derive(Debug, Default)]
struct State {
    goes_on: AtomicBool,
    /// hyper forgets the error where the head of a response has come.
    error: Mutex<Option<BoxError>>,
}

/// Held by a body that is being read. hyper drops one that it has read to its end, or to the length that is declared.
pub(super) struct Reader(Reading);

impl Reading {
    pub(in crate::http) fn goes_on(&self) -> bool {
        self.0.goes_on.load(Relaxed)
    }

    pub(super) fn begin(&self) -> Reader {
        self.0.goes_on.store(true, Relaxed);
        Reader(self.clone())
    }

    /// Why the body has failed, if it has.
    pub(in crate::http) fn take_error(&self) -> Option<BoxError> {
        self.0.error.lock().take()
    }
}

impl Reader {
    /// The body has failed. What hyper gets to know of it.
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
