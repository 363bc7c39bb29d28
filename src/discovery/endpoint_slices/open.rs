//! One open watch: its events, and how long it has been silent.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    api::{Event, Events},
    error::Reason,
};

/// A watch that has been silent for this long after opening has no events waiting: the known set is up to date. Also
/// the shortest pause between two attempts, however urgent.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// The API server sends a bookmark about once a minute. Silence for this long means that it is gone, or that it sends
/// none.
pub(super) const SILENCE: Duration = Duration::from_secs(100);

/// An open watch.
pub(super) struct Open {
    events: Events,
    since: Instant,
    /// When the last event came, or the watch was opened.
    heard: Instant,
    /// An event has come, or the watch has been silent for [`SETTLED`].
    settled: bool,
    timer: Pin<Box<Sleep>>,
}

/// What a watch reports.
pub(super) enum Heard {
    Event(Box<Event>),
    /// It has been silent for [`SETTLED`] since it was opened.
    Settled,
    /// It has been silent for [`SILENCE`].
    Silence,
    Failed(Reason),
    Ended {
        wordless: bool,
        since: Instant,
    },
}

impl Open {
    pub(super) fn new(events: Events) -> Self {
        let now = Instant::now();
        Self {
            events,
            since: now,
            heard: now,
            settled: false,
            timer: Box::pin(sleep_until(now + SETTLED)),
        }
    }

    /// Waits for an event, or for a silence that matters.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Poll::Ready(event) = self.events.poll_next_unpin(cx) {
            return Poll::Ready(match event {
                Some(Ok(event)) => {
                    self.heard();
                    Heard::Event(Box::new(event))
                }
                Some(Err(reason)) => Heard::Failed(reason),
                None => Heard::Ended {
                    wordless: !self.settled,
                    since: self.since,
                },
            });
        }
        ready!(self.timer.as_mut().poll(cx));
        let settled = std::mem::replace(&mut self.settled, true);
        self.timer.as_mut().reset(self.heard + SILENCE);
        Poll::Ready(match settled {
            false => Heard::Settled,
            true => Heard::Silence,
        })
    }

    /// How long it has been silent.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.settled = true;
        self.timer.as_mut().reset(self.heard + SILENCE);
    }
}
