//! Connections that end with their runtime, which no pod is to blame for.

use std::{future::Future, pin::pin, thread};

/// A connection's task. `cut_off` is called if it is dropped before its end, as tasks are whose runtime ends, and before any
/// request learns of that.
pub(super) fn until_end(
    connection: impl Future + Send,
    cut_off: impl FnOnce() + Send,
) -> impl Future<Output = ()> + Send {
    let guard = Guard(Some(cut_off));
    async move {
        // Named first, and so dropped first, should this never be polled.
        let (guard, connection) = (guard, connection);
        let connection = pin!(connection);
        // Declared last, and so dropped first.
        let mut guard = guard;
        // Its error reaches the requests in flight.
        let _ = connection.await;
        guard.0 = None;
    }
}

struct Guard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Guard<F> {
    fn drop(&mut self) {
        // A request's body that panics ends its connection's task, too.
        if let Some(cut_off) = self.0.take()
            && !thread::panicking()
        {
            cut_off();
        }
    }
}
