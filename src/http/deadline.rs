//! When a request, or a part of it, has to be over.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::home::Timer;

/// When the time of a request that goes through layers is over. It travels in the request's extensions.
#[derive(Clone, Copy)]
pub(super) struct Until {
    at: Instant,
    whole: Duration,
}

impl Until {
    /// Of a time that begins now. None beyond the end of time.
    pub(super) fn after(whole: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(whole)?;
        Some(Self { at, whole })
    }

    /// The one that is over first.
    pub(super) fn first(of: impl IntoIterator<Item = Self>) -> Option<Self> {
        of.into_iter().min_by_key(|until| until.at)
    }

    /// What is left of it.
    pub(super) fn time(self) -> Time {
        Time {
            left: self.at.saturating_duration_since(Instant::now()),
            whole: self.whole,
        }
    }
}

/// How long a request may take from now on, and from its beginning.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) left: Duration,
    pub(super) whole: Duration,
}

impl From<Duration> for Time {
    fn from(whole: Duration) -> Self {
        Self { left: whole, whole }
    }
}

/// The end of some time, and how long that is from its beginning. Most requests have none of these: it is one word.
pub(super) struct Deadline(Box<(Timer, Duration)>);

impl Deadline {
    /// Of a time that runs from now on.
    pub(super) fn of(time: Time) -> Self {
        Self(Box::new((Timer::after(time.left), time.whole)))
    }

    /// How long it is from its beginning.
    pub(super) fn whole(&self) -> Duration {
        self.0.1
    }

    /// Waits for it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.0.poll(cx)
    }
}
