//! When a request, or a part of it, must be over.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::home::Timer;

/// A deadline, and the whole time that it allows. Layers pass it on in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    at: Instant,
    whole: Duration,
}

impl Until {
    /// A deadline counted from now. None if it is beyond what a clock can hold: that is no limit.
    pub(super) fn after(whole: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(whole)?;
        Some(Self { at, whole })
    }

    /// The earliest of several deadlines.
    pub(super) fn first(of: impl IntoIterator<Item = Self>) -> Option<Self> {
        of.into_iter().min_by_key(|until| until.at)
    }

    /// The time left.
    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The whole time that it allows.
    pub(super) fn whole(self) -> Duration {
        self.whole
    }
}

/// A deadline with its timer. Boxed, because most requests have none: one word.
pub(super) struct Deadline(Box<Ends>);

struct Ends {
    timer: Timer,
    until: Until,
}

impl Deadline {
    pub(super) fn of(until: Until) -> Self {
        let timer = Timer::at(until.at);
        Self(Box::new(Ends { timer, until }))
    }

    /// The whole time that it allows.
    pub(super) fn whole(&self) -> Duration {
        self.0.until.whole
    }

    /// Waits for the deadline.
    ///
    /// Reads the clock besides the timer, so that nested deadlines of the same time pass together, whichever timer
    /// fires first.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Ends { timer, until } = &mut *self.0;
        match Instant::now() >= until.at {
            true => Poll::Ready(()),
            false => timer.poll(cx),
        }
    }
}
