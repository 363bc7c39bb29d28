//! Whether hyper still reads a request's body, and why the body has failed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame};

use super::begun::panicked;
use crate::{error::BoxError, sync::Mutex};

/// Whether there may be more to read of a request's body. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Reading(Arc<State>);

#[derive(Debug, Default)]
struct State {
    goes_on: AtomicBool,
    /// Kept here because hyper drops the error once the head of a response has arrived.
    error: Mutex<Option<BoxError>>,
    /// Whether nobody needs the rest of the body any more.
    is_stopped: AtomicBool,
    /// Wakes hyper, which waits for more of the body.
    reader: AtomicWaker,
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

    /// Ends the body, although there may be more of it. hyper then ends the connection.
    pub(in crate::http) fn stop(&self) {
        self.0.is_stopped.store(true, Relaxed);
        self.0.reader.wake();
    }

    /// Why the body failed, if it has.
    pub(in crate::http) fn take_error(&self) -> Option<BoxError> {
        self.0.error.lock().take()
    }
}

impl Reader {
    /// Reads on in the body. If it panics, that is its error: hyper's task must not panic, because then nobody would
    /// learn why.
    pub(super) fn poll_frame(
        &self,
        body: &mut (impl Body<Data = Bytes, Error = BoxError> + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let read = || Pin::new(body).poll_frame(cx);
        let frame = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(frame) => frame,
            Err(panic) => Poll::Ready(Some(Err(panicked(&*panic)))),
        };
        if frame.is_pending() {
            self.0.0.reader.register(cx.waker());
            if self.0.0.is_stopped.load(Relaxed) {
                return Poll::Ready(Some(Err("nobody needs the rest of the request".into())));
            }
        }
        frame.map_err(|error| self.failed(error))
    }

    /// Notes that the body has failed. Returns the error for hyper.
    fn failed(&self, error: BoxError) -> BoxError {
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
