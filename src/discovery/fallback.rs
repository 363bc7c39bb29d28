//! One source with another under it.
//!
//! ```text
//!               the first answers
//!   ┌──────────────────────────────────────┐
//!   ▼                                      │
//!  first ── it fails before it has ever ──▶ both: the second one's sets are told, and the first goes on trying
//!   alone    answered, or is silent for
//!            2 s; or it has failed for a
//!            minute
//! ```
//!
//! While the first one works the second one isn't polled: it costs nothing, and asks nobody. Switching over, either way,
//! is an update like any other: pods that both sources name keep their connections and counters.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::info;

use super::Discovery;
use crate::{endpoint::Endpoint, error::BoxError};

/// How long the first source may take to say its first word. Callers wait for the first endpoints 5 s by default.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a first source that fails is still believed: a control plane that restarts is no reason to take another one's
/// word.
const TRUST: Duration = Duration::from_secs(60);

/// A source of endpoints with another one under it, for when the first can't be asked. Made by [`Discovery::or`].
///
/// The first source's sets are used as long as it works. The second one's are used
///
/// - from the start, when the first fails, or hasn't said anything for two seconds;
/// - later, when the first has failed for a minute. Up to then its last set stays.
///
/// The first source goes on trying meanwhile, and has the word again as soon as it answers. The second one is asked
/// nothing while the first works. A pod that both name keeps its connections when the word passes on.
///
/// ```
/// use tower_headless::{Discovery, StaticEndpoints};
/// # fn of_your_own() -> impl Discovery { StaticEndpoints::new([]) }
///
/// let discovery = of_your_own().or(StaticEndpoints::new(["10.244.1.7:80".parse()?]));
/// # drop(discovery);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Fallback<A, B> {
    first: A,
    second: B,
    turn: Turn,
    /// The first one has answered.
    answered: bool,
}

/// Whose sets are told.
enum Turn {
    /// Nothing has been asked yet.
    Nobodys,
    /// The first one's; if it fails or is silent, until a time.
    Firsts(Option<Pin<Box<Sleep>>>),
    /// The second one's, until the first answers.
    Seconds,
}

impl<A, B> Fallback<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Self {
            first,
            second,
            turn: Turn::Nobodys,
            answered: false,
        }
    }

    fn begin(&mut self) {
        if matches!(self.turn, Turn::Nobodys) {
            self.turn = Turn::until(Instant::now() + SILENCE);
        }
    }

    fn on_answer(&mut self) {
        if matches!(self.turn, Turn::Seconds) {
            info!("the first source of endpoints answers; the second one is asked no longer");
        }
        self.answered = true;
        self.turn = Turn::Firsts(None);
    }

    fn on_error(&mut self) {
        match (&self.turn, self.answered) {
            (Turn::Firsts(None), true) => self.turn = Turn::until(Instant::now() + TRUST),
            (Turn::Firsts(_), false) => self.pass_on(),
            _ => {}
        }
    }

    fn pass_on(&mut self) {
        info!("the first source of endpoints fails; the second one is asked");
        self.turn = Turn::Seconds;
    }

    /// Waits until the first one has failed for long enough.
    fn poll_turn(&mut self, cx: &mut Context<'_>) {
        if let Turn::Firsts(Some(until)) = &mut self.turn
            && until.as_mut().poll(cx).is_ready()
        {
            self.pass_on();
        }
    }
}

impl Turn {
    fn until(time: Instant) -> Self {
        Self::Firsts(Some(Box::pin(sleep_until(time))))
    }
}

impl<A: Discovery, B: Discovery> Discovery for Fallback<A, B> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.begin();
        if let Poll::Ready(answer) = self.first.poll_next(cx) {
            match &answer {
                Ok(_) => self.on_answer(),
                Err(_) => self.on_error(),
            }
            return Poll::Ready(answer);
        }
        self.poll_turn(cx);
        match self.turn {
            Turn::Seconds => self.second.poll_next(cx),
            _ => Poll::Pending,
        }
    }

    fn refresh(&mut self) {
        self.first.refresh();
        if matches!(self.turn, Turn::Seconds) {
            self.second.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.first.refused(endpoint);
        if matches!(self.turn, Turn::Seconds) {
            self.second.refused(endpoint);
        }
    }
}

/// Begins anew: a clone finds out for itself whose turn it is.
impl<A: Clone, B: Clone> Clone for Fallback<A, B> {
    fn clone(&self) -> Self {
        Self::new(self.first.clone(), self.second.clone())
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Fallback<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("first", &self.first)
            .field("second", &self.second)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
