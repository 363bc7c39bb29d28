//! When a request, or a part of it, has to be over.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use crate::home::Timer;

/// The end of some time, and how long that is from its beginning. Most requests have none of these: it is one word.
pub(super) struct Deadline(Box<(Timer, Duration)>);

impl Deadline {
    /// Of a time that begins now.
    pub(super) fn after(whole: Duration) -> Self {
        Self(Box::new((Timer::after(whole), whole)))
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
