//! One watch under way: what it says, and for how long it has said nothing.

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

/// A watch that has been open for so long without a word has nothing to tell: the set is as it is known. Also the shortest
/// pause between two tries, however urgent.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// The API server sends a bookmark each minute or so. Silence for this long means that it is gone, or that it sends none.
pub(super) const SILENCE: Duration = Duration::from_secs(100);

/// A watch under way.
pub(super) struct Open {
    events: Events,
    since: Instant,
    /// When the server last said something; the beginning counts.
    heard: Instant,
    /// It has said something, or has been open for so long that there is nothing to say.
    settled: bool,
    timer: Pin<Box<Sleep>>,
}

/// What comes of a watch.
pub(super) enum Heard {
    Event(Box<Event>),
    /// It is there, and silent.
    Settled,
    /// It has been silent for too long.
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

    /// Waits until it says something, or has been silent for long.
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

    /// For how long it has said nothing.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.settled = true;
        self.timer.as_mut().reset(self.heard + SILENCE);
    }
}
