//! Which tokio runtime something lives in.
//!
//! Timers, sockets and tasks belong to the tokio runtime that they were made in. They are dead when it ends, and stand
//! still while nobody drives it (a current-thread runtime between two calls of `block_on`). A client may outlive its
//! first runtime, and be used in several. So whatever it keeps between requests knows its runtime, and is made anew in
//! another one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

/// A runtime, by tokio's number for it, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) id: Id,
    /// It has its own worker threads, so its tasks run without anybody driving it.
    runs_by_itself: bool,
}

impl Home {
    /// The current runtime.
    pub(crate) fn here() -> Option<Self> {
        Handle::try_current().ok().as_ref().map(Self::of)
    }

    pub(crate) fn of(runtime: &Handle) -> Self {
        Self {
            id: runtime.id(),
            runs_by_itself: runtime.runtime_flavor() != RuntimeFlavor::CurrentThread,
        }
    }

    /// Whether its tasks run while the caller waits for them. (They don't if it has ended, which isn't checked.)
    #[inline]
    pub(crate) fn runs_beside_us(&self) -> bool {
        self.runs_by_itself || self.is_here()
    }

    /// Whether its tasks stand still while nobody drives it.
    #[cfg(feature = "http")]
    pub(crate) fn may_stand_still(&self) -> bool {
        !self.runs_by_itself
    }

    /// Whether it is the current runtime.
    pub(crate) fn is_here(&self) -> bool {
        Self::here().is_some_and(|here| here.id == self.id)
    }
}

/// A timer that may be polled in any runtime, a different one each time, or outside of any.
#[derive(Debug)]
pub(crate) struct Timer {
    due: Instant,
    sleep: Option<(Home, Pin<Box<Sleep>>)>,
    outside: Outside,
}

/// How the timer works when polled outside of a runtime.
#[derive(Debug)]
enum Outside {
    /// By a task in the runtime where the timer was made, spawned when it is needed.
    Runtime(Handle),
    Waits(Sleeper),
    /// There is no runtime, or it has ended.
    Nowhere,
}

/// A task that sleeps; dropping this ends it.
#[derive(Debug)]
struct Sleeper(JoinHandle<()>);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Timer {
    pub(crate) fn at(due: Instant) -> Self {
        let outside = Handle::try_current().map_or(Outside::Nowhere, Outside::Runtime);
        Self {
            due,
            sleep: None,
            outside,
        }
    }

    /// A timer due after `time`, or after thirty years if that overflows.
    pub(crate) fn after(time: Duration) -> Self {
        const THIRTY_YEARS: Duration = Duration::from_secs(86_400 * 365 * 30);
        let now = Instant::now();
        Self::at(now.checked_add(time).unwrap_or(now + THIRTY_YEARS))
    }

    /// Sets when it is due. Does nothing if that is unchanged.
    pub(crate) fn reset(&mut self, due: Instant) {
        if self.due != due {
            self.due = due;
            if let Some((_, sleep)) = &mut self.sleep {
                sleep.as_mut().reset(due);
            }
            if let (Outside::Waits(_), Ok(here)) = (&self.outside, Handle::try_current()) {
                self.outside = Outside::Runtime(here);
            }
        }
    }

    /// Waits until it is due.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(here) = Home::here() else {
            return self.poll_outside(cx);
        };
        if self.sleep.as_ref().is_none_or(|(home, _)| *home != here) {
            self.sleep = Some((here, Box::pin(sleep_until(self.due))));
        }
        match &mut self.sleep {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Outside of a runtime, a task in another runtime wakes the caller. If there is none, nothing wakes it, and the
    /// timer only fires when it is polled after its time.
    #[cold]
    fn poll_outside(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        if Instant::now() >= due {
            return Poll::Ready(());
        }
        if let Outside::Runtime(runtime) = &self.outside {
            let sleeper = runtime.spawn(async move { sleep_until(due).await });
            self.outside = Outside::Waits(Sleeper(sleeper));
        }
        let Outside::Waits(Sleeper(sleeper)) = &mut self.outside else {
            return Poll::Pending;
        };
        let slept = ready!(Pin::new(sleeper).poll(cx));
        self.outside = Outside::Nowhere;
        match slept {
            Ok(()) => Poll::Ready(()),
            Err(_runtime_has_ended) => Poll::Pending,
        }
    }
}
