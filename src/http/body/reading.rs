//! Whether hyper still reads a request's body.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether a connection's request has a body of which there may be more to read. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Reading(Arc<AtomicBool>);

/// Held by a body that is being read. hyper drops one that it has read to its end, or to the length that is declared.
pub(super) struct Reader(Reading);

impl Reading {
    pub(in crate::http) fn goes_on(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(super) fn begin(&self) -> Reader {
        self.0.store(true, Relaxed);
        Reader(self.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.store(false, Relaxed);
    }
}
