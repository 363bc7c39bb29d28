//! When a request, or a part of it, has to be over.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::home::Timer;

/// When a request's time is over, and how long that is from its beginning. Through layers it travels in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    at: Instant,
    whole: Duration,
}

impl Until {
    /// Of a time that begins now. None beyond the end of time: that is no bound.
    pub(super) fn after(whole: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(whole)?;
        Some(Self { at, whole })
    }

    /// The one that is over first.
    pub(super) fn first(of: impl IntoIterator<Item = Self>) -> Option<Self> {
        of.into_iter().min_by_key(|until| until.at)
    }

    /// What is left of it.
    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// How long it is from its beginning.
    pub(super) fn whole(self) -> Duration {
        self.whole
    }
}

/// The end of some time, and how long that is from its beginning. Most requests have none of these: it is one word.
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

    /// How long it is from its beginning.
    pub(super) fn whole(&self) -> Duration {
        self.0.until.whole
    }

    /// Waits for it.
    ///
    /// By the clock and not by the timer alone: several deadlines of one time, around each other, are over together, whichever
    /// timer fires first.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Ends { timer, until } = &mut *self.0;
        match Instant::now() >= until.at {
            true => Poll::Ready(()),
            false => timer.poll(cx),
        }
    }
}
