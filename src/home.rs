//! Which runtime something lives in.
//!
//! Timers, sockets and tasks belong to the tokio runtime that they were made in. When it ends they are dead, and where
//! nobody drives it (a current-thread runtime between two calls of `block_on`) they stand still. A client may live longer
//! than its first runtime, and be used in several: what it keeps from one request to the next knows its runtime, and is
//! made anew in another one.

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

/// A runtime. tokio numbers them, and gives no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) id: Id,
    /// It has threads of its own, so that its tasks run whatever anybody does.
    runs_by_itself: bool,
}

impl Home {
    /// The runtime that this is called in.
    pub(crate) fn here() -> Option<Self> {
        Handle::try_current().ok().as_ref().map(Self::of)
    }

    pub(crate) fn of(runtime: &Handle) -> Self {
        Self {
            id: runtime.id(),
            runs_by_itself: runtime.runtime_flavor() != RuntimeFlavor::CurrentThread,
        }
    }

    /// Whether its tasks run while whoever calls this waits for them, unless it has ended.
    #[inline]
    pub(crate) fn runs_beside_us(&self) -> bool {
        self.runs_by_itself || self.is_here()
    }

    /// Whether its tasks stand still while nobody drives it.
    #[cfg(feature = "http")]
    pub(crate) fn may_stand_still(&self) -> bool {
        !self.runs_by_itself
    }

    /// Whether this is called in it.
    pub(crate) fn is_here(&self) -> bool {
        Self::here().is_some_and(|here| here.id == self.id)
    }
}

/// A timer that may be polled in another runtime than before, or outside of any.
#[derive(Debug)]
pub(crate) struct Timer {
    due: Instant,
    sleep: Option<(Home, Pin<Box<Sleep>>)>,
    outside: Outside,
}

/// How the time passes for whoever waits outside of a runtime.
#[derive(Debug)]
enum Outside {
    /// In the runtime where the timer was made, should somebody have to wait.
    Runtime(Handle),
    Waits(Sleeper),
    /// There is no runtime, or it has ended.
    Nowhere,
}

/// A task that sleeps, for as long as somebody waits for it.
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

    /// A time beyond the end of time is in thirty years.
    pub(crate) fn after(time: Duration) -> Self {
        const THIRTY_YEARS: Duration = Duration::from_secs(86_400 * 365 * 30);
        let now = Instant::now();
        Self::at(now.checked_add(time).unwrap_or(now + THIRTY_YEARS))
    }

    /// When it is due; as it was, if that is the same time.
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

    /// Outside of a runtime somebody else has to wake whoever waits. Where nobody can, it is due only for who looks.
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
