//! Whether anything may have arrived on a socket since its reader last read.
//!
//! hyper tries to read after everything it does, about five times a request, and finds something once. Each useless try
//! asks tokio for the socket's readiness and registers the task again, with a lock and several atomic operations. But
//! as long as tokio hasn't woken the task, there is nothing new.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

/// The state of a socket's reader.
pub(super) struct Arrivals {
    wait: Arc<ReaderWait>,
    /// Wakes `wait`.
    waker: Waker,
}

/// The state of one reading task.
struct ReaderWait {
    task: Waker,
    /// Whether the last read was pending, and tokio hasn't woken the task since.
    is_on: AtomicBool,
}

impl Wake for ReaderWait {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_on.store(false, Release);
        self.task.wake_by_ref();
    }
}

impl Arrivals {
    /// Before the first read.
    pub(super) fn new() -> Self {
        Self::of(Waker::noop())
    }

    fn of(task: &Waker) -> Self {
        let wait = Arc::new(ReaderWait {
            task: task.clone(),
            is_on: AtomicBool::new(false),
        });
        Self {
            waker: wait.clone().into(),
            wait,
        }
    }

    /// Calls `read`, unless it was pending for this task and hasn't woken it since.
    #[inline]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.wait.task.will_wake(cx.waker()) {
            *self = Self::of(cx.waker());
        }
        let is_on = &self.wait.is_on;
        if is_on.load(Acquire) {
            return Poll::Pending;
        }
        // Before the read, because it may wake the task.
        is_on.store(true, Release);
        let read = read(&mut Context::from_waker(&self.waker));
        if read.is_ready() {
            is_on.store(false, Release);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A stream that counts how often it is read.
    #[derive(Default)]
    struct Stream {
        read: usize,
        has_something: bool,
        reader: Option<Waker>,
    }

    impl Stream {
        fn poll(&mut self, arrivals: &mut Arrivals, task: &Arc<Task>) -> Poll<()> {
            let waker = task.clone().into();
            arrivals.poll(&mut Context::from_waker(&waker), |cx| {
                self.read += 1;
                self.reader = Some(cx.waker().clone());
                match self.has_something {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
        }

        fn arrive(&mut self) {
            self.has_something = true;
            self.reader.take().expect("a reader").wake();
        }
    }

    #[test]
    fn an_empty_stream_is_read_once_until_something_arrives() {
        let (mut arrivals, mut stream) = (Arrivals::new(), Stream::default());
        let task = Arc::new(Task::default());
        assert!(stream.poll(&mut arrivals, &task).is_pending());
        assert!(stream.poll(&mut arrivals, &task).is_pending());
        assert_eq!(stream.read, 1);
        stream.arrive();
        assert_eq!(task.0.load(Relaxed), 1, "woken");
        for read in 2..5 {
            assert!(stream.poll(&mut arrivals, &task).is_ready());
            assert_eq!(stream.read, read, "it may have more");
        }
    }

    #[test]
    fn data_that_arrives_during_a_read_is_not_missed() {
        let mut arrivals = Arrivals::new();
        let waker = Waker::from(Arc::new(Task::default()));
        let mut cx = Context::from_waker(&waker);
        let late = arrivals.poll(&mut cx, |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(late.is_pending());
        assert!(arrivals.poll(&mut cx, |_| Poll::Ready(())).is_ready());
    }

    #[test]
    fn a_new_reading_task_reads_at_once_and_is_woken_instead() {
        let (mut arrivals, mut stream) = (Arrivals::new(), Stream::default());
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        assert!(stream.poll(&mut arrivals, &first).is_pending());
        assert!(stream.poll(&mut arrivals, &second).is_pending());
        assert_eq!(stream.read, 2);
        stream.arrive();
        assert_eq!(first.0.load(Relaxed), 0);
        assert_eq!(second.0.load(Relaxed), 1);
    }
}
