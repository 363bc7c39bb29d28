//! Requests that wait for a connection, or for room for one: one queue for each runtime.
//!
//! What is freed may be usable in only one runtime, and a runtime that isn't running can't react. So the first request
//! of each queue is told, and those that find nothing wait again. Usually there is one queue.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    task::{Context, Poll},
};

use tokio::{
    runtime::Id,
    sync::{Notify, futures::OwnedNotified},
};

use crate::sync::Mutex;

#[derive(Default)]
pub(super) struct Freed {
    /// How many requests wait in all queues.
    waiting: AtomicUsize,
    lines: Mutex<Vec<Line>>,
}

/// The queue of one runtime.
struct Line {
    home: Id,
    told: Arc<Notify>,
    waiting: usize,
}

/// A place in a queue. If it is told and dropped before it is polled, it tells the next one.
pub(in crate::http) struct NextFreed {
    home: Id,
    told: Pin<Box<OwnedNotified>>,
    freed: Arc<Freed>,
}

impl Freed {
    /// Queues a request of this runtime. A caller that checks for a free connection afterwards misses nothing.
    pub(super) fn next(self: &Arc<Self>, home: Id) -> NextFreed {
        let mut lines = self.lines.lock();
        let at = lines.iter().position(|line| line.home == home);
        let at = at.unwrap_or_else(|| {
            lines.push(Line {
                home,
                told: Arc::default(),
                waiting: 0,
            });
            lines.len() - 1
        });
        lines[at].waiting += 1;
        let mut told = Box::pin(lines[at].told.clone().notified_owned());
        drop(lines);
        told.as_mut().enable();
        self.waiting.fetch_add(1, Relaxed);
        // Before the caller's check. `tell_lines` reads `waiting` after something is freed, so one of the two sees the
        // other.
        fence(SeqCst);
        NextFreed {
            home,
            told,
            freed: self.clone(),
        }
    }

    /// Tells one request that there is a connection to use, or room for one.
    pub(super) fn tell_one(&self) {
        self.tell(Notify::notify_one);
    }

    /// Tells all requests: there may be several connections, or something else has changed.
    pub(super) fn tell_all(&self) {
        self.tell(Notify::notify_waiters);
    }

    /// Tells requests of other runtimes, because what is free may be usable only there.
    pub(super) fn tell_elsewhere(&self, home: Id) {
        self.tell_lines(|line| line.home != home, Notify::notify_one);
    }

    fn tell(&self, tell: impl Fn(&Notify)) {
        self.tell_lines(|_| true, tell);
    }

    fn tell_lines(&self, which: impl Fn(&Line) -> bool, tell: impl Fn(&Notify)) {
        fence(SeqCst);
        if self.waiting.load(Relaxed) > 0 {
            let lines = self.lines.lock();
            let lines = lines.iter().filter(|line| which(line));
            let lines: Vec<_> = lines.map(|line| line.told.clone()).collect();
            lines.iter().for_each(|line| tell(line));
        }
    }
}

impl Future for NextFreed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.told.as_mut().poll(cx)
    }
}

impl Drop for NextFreed {
    fn drop(&mut self) {
        let mut lines = self.freed.lines.lock();
        if let Some(line) = lines.iter_mut().find(|line| line.home == self.home) {
            line.waiting -= 1;
        }
        lines.retain(|line| line.waiting > 0);
        drop(lines);
        self.freed.waiting.fetch_sub(1, Relaxed);
    }
}
