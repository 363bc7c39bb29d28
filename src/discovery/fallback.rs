//! A primary source of endpoints, and a fallback for when it can't be asked.
//!
//! ```text
//!                  the primary answers
//!   ┌──────────────────────────────────────────┐
//!   ▼                                          │
//!  primary ── it fails, or is silent for 2 s, ──▶ fallback: its sets are used, and the primary goes on trying
//!             before it has ever answered; or
//!             it has failed for a minute
//! ```
//!
//! While the primary works the fallback isn't polled: it costs nothing, and asks nobody. Switching over, either way, is an
//! update like any other: pods that both sources name keep their connections and counters.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tracing::info;

use super::Discovery;
use crate::{endpoint::Endpoint, error::BoxError, home::Timer};

/// How long the primary may take for its first answer. Callers wait for the first endpoints 5 s by default.
const SILENCE: Duration = Duration::from_secs(2);

/// How long the last set of a primary that fails is still used: a control plane that restarts is no reason to take
/// another source's word. A set that is older when the primary yields it does not count as an answer.
const TRUST: Duration = Duration::from_secs(60);

/// A primary source of endpoints with a fallback for when it can't be asked. Made by [`Discovery::or`].
///
/// The primary's sets are used as long as it works. The fallback's are used
///
/// - from the start, when the primary fails, or says nothing for two seconds;
/// - later, when the primary has failed for a minute. Up to then its last set stays.
///
/// The primary goes on trying meanwhile, and is used again as soon as it answers. The fallback is asked nothing while the
/// primary works. A pod that both name keeps its connections at the switch.
///
/// That the primary has no endpoints is an answer, not a failure: the fallback isn't asked.
///
/// ```
/// use tower_headless::{Discovery, StaticEndpoints};
/// # fn of_your_own() -> impl Discovery { StaticEndpoints::new([]) }
///
/// let discovery = of_your_own().or(StaticEndpoints::new(["10.244.1.7:80".parse()?]));
/// # drop(discovery);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Fallback<P, F> {
    primary: P,
    fallback: F,
    active: Active,
    /// The primary has answered.
    answered: bool,
    /// The primary's last answer was an empty set: an error right after it is the reason, and no failure.
    emptied: bool,
    /// How old the set was that was yielded last.
    age: Duration,
    /// The fallback's last set and when it was true, for the next time that it is used: not every source tells twice.
    told: Option<(Vec<Endpoint>, Instant)>,
    /// It is to be yielded again.
    is_due: bool,
}

/// Whose sets are used.
enum Active {
    /// Nothing has been asked yet.
    Neither,
    /// The primary's; if it fails or is silent, until a time.
    Primary(Option<Timer>),
    /// The fallback's, until the primary answers.
    Fallback,
}

impl<P, F> Fallback<P, F> {
    pub(crate) fn new(primary: P, fallback: F) -> Self {
        Self {
            primary,
            fallback,
            active: Active::Neither,
            answered: false,
            emptied: false,
            age: Duration::ZERO,
            told: None,
            is_due: false,
        }
    }

    fn begin(&mut self) {
        if matches!(self.active, Active::Neither) {
            self.active = Active::primary_until(Instant::now() + SILENCE);
        }
    }

    fn on_answer(&mut self, set: &[Endpoint]) {
        if matches!(self.active, Active::Fallback) {
            info!("the primary source of endpoints answers; the fallback is no longer used");
        }
        self.answered = true;
        self.emptied = set.is_empty();
        self.active = Active::Primary(None);
    }

    fn on_error(&mut self) {
        if std::mem::take(&mut self.emptied) {
            return;
        }
        match (&self.active, self.answered) {
            (Active::Primary(None), true) => {
                self.active = Active::primary_until(Instant::now() + TRUST);
            }
            (Active::Primary(_), false) => self.fall_back(),
            _ => {}
        }
    }

    fn fall_back(&mut self) {
        info!("the primary source of endpoints fails; the fallback is used");
        self.active = Active::Fallback;
        self.is_due = true;
    }

    /// Falls back if the primary has failed for long enough.
    fn poll_active(&mut self, cx: &mut Context<'_>) {
        if let Active::Primary(Some(until)) = &mut self.active
            && until.poll(cx).is_ready()
        {
            self.fall_back();
        }
    }
}

impl Active {
    fn primary_until(time: Instant) -> Self {
        Self::Primary(Some(Timer::at(time)))
    }
}

impl<P: Discovery, F: Discovery> Fallback<P, F> {
    /// Waits for an answer of the primary that is to be yielded.
    fn poll_primary(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        loop {
            let Poll::Ready(answer) = self.primary.poll_next(cx) else {
                return Poll::Pending;
            };
            let age = self.primary.age();
            match &answer {
                // It had nothing better: an old set is no sign that it works, and no better than the fallback's.
                Ok(_) if age > TRUST && matches!(self.active, Active::Fallback) => continue,
                Ok(_) if age > TRUST => self.age = age,
                Ok(set) => {
                    self.age = age;
                    self.on_answer(set);
                }
                Err(_) => self.on_error(),
            }
            return Poll::Ready(answer);
        }
    }
}

impl<P: Discovery, F: Discovery> Discovery for Fallback<P, F> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.begin();
        if let Poll::Ready(answer) = self.poll_primary(cx) {
            return Poll::Ready(answer);
        }
        self.poll_active(cx);
        if !matches!(self.active, Active::Fallback) {
            return Poll::Pending;
        }
        let answer = self.fallback.poll_next(cx);
        if let Poll::Ready(answer) = answer {
            if let Ok(set) = &answer {
                self.age = self.fallback.age();
                let at = Instant::now().checked_sub(self.age);
                self.told = at.map(|at| (set.clone(), at));
                self.is_due = false;
            }
            return Poll::Ready(answer);
        }
        let is_due = std::mem::take(&mut self.is_due);
        match self.told.as_ref().filter(|_| is_due) {
            Some((set, at)) => {
                self.age = at.elapsed();
                Poll::Ready(Ok(set.clone()))
            }
            None => Poll::Pending,
        }
    }

    fn refresh(&mut self) {
        self.primary.refresh();
        if matches!(self.active, Active::Fallback) {
            self.fallback.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.primary.refused(endpoint);
        if matches!(self.active, Active::Fallback) {
            self.fallback.refused(endpoint);
        }
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        self.primary.accepted(endpoint);
        if matches!(self.active, Active::Fallback) {
            self.fallback.accepted(endpoint);
        }
    }

    /// Both are told: the other one may be used next.
    fn wanted(&mut self, pod: &str) {
        self.primary.wanted(pod);
        self.fallback.wanted(pod);
    }

    fn age(&self) -> Duration {
        self.age
    }
}

/// Begins anew: a clone finds out for itself whether the primary works.
impl<P: Clone, F: Clone> Clone for Fallback<P, F> {
    fn clone(&self) -> Self {
        Self::new(self.primary.clone(), self.fallback.clone())
    }
}

impl<P: fmt::Debug, F: fmt::Debug> fmt::Debug for Fallback<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("primary", &self.primary)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
