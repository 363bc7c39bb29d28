//! Connections that end with their runtime, through no fault of the pod.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    thread,
};

use pin_project_lite::pin_project;

pin_project! {
    /// A connection's task. Written by hand, because every request polls it several times.
    pub(super) struct UntilEnd<T, F: FnOnce()> {
        // Declared first, so that it is dropped first.
        guard: Guard<F>,
        #[pin]
        connection: T,
    }
}

/// A connection's task. Calls `cut_off` if it is dropped before its end, as tasks are when their runtime ends, and
/// before any request notices.
pub(super) fn until_end<T: Future, F: FnOnce()>(connection: T, cut_off: F) -> UntilEnd<T, F> {
    UntilEnd {
        guard: Guard(Some(cut_off)),
        connection,
    }
}

impl<T: Future, F: FnOnce()> Future for UntilEnd<T, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // The requests in flight get its error.
        let _ = ready!(this.connection.poll(cx));
        this.guard.0 = None;
        Poll::Ready(())
    }
}

struct Guard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Guard<F> {
    fn drop(&mut self) {
        // A request's body that panics ends its connection's task, too, but that isn't the runtime's end.
        if let Some(cut_off) = self.0.take()
            && !thread::panicking()
        {
            cut_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use std::future::pending;

    struct OnDrop<'a>(&'static str, &'a Mutex<Vec<&'static str>>);

    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            let mut dropped = self.1.lock();
            dropped.push(self.0);
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_is_cut_off_before_its_requests_learn_of_it() {
        for is_polled in [false, true] {
            let dropped = Mutex::default();
            let request = OnDrop("request", &dropped);
            let connection = async move {
                let _request = request;
                pending::<()>().await;
            };
            let cut_off = || drop(OnDrop("cut off", &dropped));
            let mut task = Box::pin(until_end(connection, cut_off));
            if is_polled {
                assert!(futures::poll!(&mut task).is_pending());
            }
            drop(task);
            let dropped = dropped.into_inner();
            assert_eq!(dropped, ["cut off", "request"], "polled: {is_polled}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_by_itself_is_not_cut_off() {
        until_end(async {}, || panic!("cut off")).await;
    }
}
