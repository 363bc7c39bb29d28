//! A primary source of endpoints, and a fallback for when the primary fails.
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
//! While the primary works the fallback isn't polled, so it costs nothing. A switch, either way, is an update like any
//! other: pods that both sources name keep their connections and counters.
//!
//! The switch asks the fallback to look anew. Until it answers, the last set stays. Its answer may be old:
//!
//! | the fallback's set | then |
//! | --- | --- |
//! | was fetched after the primary began to fail, or up to 12 s before | it is used at once |
//! | is older than that, but newer than the set in use | it is used if neither a newer one nor an error comes within 12 s |
//! | was yielded in an earlier use, or stored since | likewise, unless it is empty |
//! | is older than the set in use, by the age that it came with | it is never used |
//!
//! A source that polls answers within 12 s. A source that is silent for so long yields only changes, so its last set
//! still holds. But silence is no reason to drop all endpoints.
//!
//! If there is no set in use yet, any set is used at once.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{task::unconstrained, time::Instant};

use super::{Discovery, DiscoveryReport};
use crate::logs::{DISCOVERY, here, info};
use crate::{endpoint::Endpoint, error::BoxError, home::Timer};

/// How long the primary may take for its first answer. Callers wait for the first endpoints 5 s by default.
const SILENCE: Duration = Duration::from_secs(2);

/// How long the last set of a failing primary is used: a control plane that restarts is no reason to switch. A set that
/// is older than this when the primary yields it doesn't count as an answer.
const TRUST: Duration = Duration::from_secs(60);

/// How long the fallback has for a look. A DNS look takes at most 4 s; a look at the API server, which has 10 s for its
/// answer, about 11 s. A walk over a search list takes one look per name, so it may take longer. But DNS walks only if
/// its last set was empty, or it has yielded none.
const LOOK: Duration = Duration::from_secs(12);

/// How many answers are skipped in one poll, so that a source that is always ready can't block the task.
const MOST: usize = 1000;

/// A primary source of endpoints, with a fallback for when it fails. Made by [`Discovery::or`].
///
/// The primary's sets are used as long as it works. The fallback's sets are used
///
/// - at the start, if the primary's first answer is an error, or doesn't come within two seconds;
/// - later, once the primary has failed for a minute. Until then its last set stays.
///
/// The primary goes on trying, and is used again as soon as it answers. The fallback isn't polled while the primary
/// works. A pod that both sources name keeps its connections at the switch.
///
/// Each time the fallback comes into use again, it is asked to look anew ([`Discovery::refresh`]). The primary's last
/// set stays until the fallback answers, and while the fallback fails too. If the fallback says nothing for 12 seconds,
/// the last set that it yielded is used, unless that is empty: a source may yield its set only when it changes.
///
/// An empty set from the primary is an answer, not a failure: the fallback isn't used.
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
    /// The primary has answered at least once.
    answered: bool,
    /// The primary's last answer was an empty set: an error right after it is the reason, not a failure.
    emptied: bool,
    /// When the set in use came, from either source.
    arrival: Option<Arrival>,
    /// The fallback's last set, yielded or not.
    last: Option<(Vec<Endpoint>, Arrival)>,
    /// The fallback has been used before, and may have answers stored since.
    was_used: bool,
}

/// When a set came, and how old it was then.
#[derive(Clone, Copy)]
struct Arrival {
    at: Instant,
    age: Duration,
}

impl Arrival {
    fn now(age: Duration) -> Self {
        let at = Instant::now();
        Self { at, age }
    }

    /// Whether it was already older when it came than the set in use is now.
    fn is_older_than(self, in_use: Option<Duration>) -> bool {
        in_use.is_some_and(|in_use| self.age > in_use)
    }

    /// How old it is by now.
    fn age(self) -> Duration {
        self.age + self.at.elapsed()
    }
}

/// Whose sets are used.
enum Active {
    /// Nothing has been asked yet.
    Neither,
    /// The primary's. `Failing` if it fails or hasn't answered yet.
    Primary(Option<Failing>),
    /// The fallback's, until the primary answers.
    Fallback(Substitute),
}

/// A primary that fails, or hasn't answered yet.
struct Failing {
    since: Instant,
    until: Timer,
}

/// A fallback in use.
struct Substitute {
    /// When the primary began to fail.
    since: Instant,
    /// When to stop waiting for its answer; none once it has come.
    until: Option<Timer>,
}

/// What to do with a set from the fallback.
enum SetUse {
    Now,
    /// It is newer than the set in use, but was fetched before the primary failed.
    Later,
    Never,
}

impl<P, F> Fallback<P, F> {
    pub(crate) fn new(primary: P, fallback: F) -> Self {
        Self {
            primary,
            fallback,
            active: Active::Neither,
            answered: false,
            emptied: false,
            arrival: None,
            last: None,
            was_used: false,
        }
    }

    fn begin(&mut self) {
        if matches!(self.active, Active::Neither) {
            self.active = Active::Primary(Some(Failing::lasting(SILENCE)));
        }
    }

    fn on_answer(&mut self, set: &[Endpoint]) {
        if matches!(self.active, Active::Fallback(_)) {
            info!(
                DISCOVERY,
                here(),
                "the primary source of endpoints answers; the fallback is no longer used"
            );
        }
        self.answered = true;
        self.emptied = set.is_empty();
        self.active = Active::Primary(None);
    }

    fn note_arrival(&mut self, age: Duration) {
        self.arrival = Some(Arrival::now(age));
    }

    /// How old the set in use is.
    fn in_use(&self) -> Option<Duration> {
        self.arrival.map(Arrival::age)
    }
}

impl Failing {
    fn lasting(time: Duration) -> Self {
        let since = Instant::now();
        let until = Timer::at(since + time);
        Self { since, until }
    }
}

impl Substitute {
    /// Judges a set of this `age`, given the age of the set in use.
    fn use_of(&self, age: Duration, in_use: Option<Duration>) -> SetUse {
        match in_use {
            Some(in_use) if age > in_use => SetUse::Never,
            Some(_) if age > self.since.elapsed() + LOOK => SetUse::Later,
            _ => SetUse::Now,
        }
    }
}

impl<P: Discovery, F: Discovery> Fallback<P, F> {
    /// Polls the primary for an answer to yield.
    fn poll_primary(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        for _ in 0..MOST {
            let answer = ready!(self.primary.poll_next(cx));
            let age = self.primary.age();
            match &answer {
                // An old set is no sign that the primary works, and no better than the fallback's.
                Ok(_) if age > TRUST && matches!(self.active, Active::Fallback(_)) => continue,
                Ok(_) if age > TRUST => self.note_arrival(age),
                Ok(set) => {
                    self.note_arrival(age);
                    self.on_answer(set);
                }
                Err(_) => self.on_error(cx),
            }
            return Poll::Ready(answer);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn on_error(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.emptied) {
            return;
        }
        match (&self.active, self.answered) {
            (Active::Primary(None), true) => {
                self.active = Active::Primary(Some(Failing::lasting(TRUST)));
            }
            (Active::Primary(_), false) => self.fall_back(Instant::now(), cx),
            _ => {}
        }
    }

    /// Falls back once the primary has failed for long enough.
    fn poll_active(&mut self, cx: &mut Context<'_>) {
        if let Active::Primary(Some(failing)) = &mut self.active
            && failing.until.poll(cx).is_ready()
        {
            let since = failing.since;
            self.fall_back(since, cx);
        }
    }

    /// Begins to use the fallback. The primary has failed since `since`.
    fn fall_back(&mut self, since: Instant, cx: &mut Context<'_>) {
        info!(
            DISCOVERY,
            here(),
            "the primary source of endpoints fails; the fallback is used"
        );
        // On its first use a source looks by itself.
        if std::mem::replace(&mut self.was_used, true) {
            self.take_kept(cx);
            self.fallback.refresh();
        }
        self.active = Active::Fallback(Substitute {
            since,
            until: Some(Timer::at(Instant::now() + LOOK)),
        });
    }

    /// Drains answers that the fallback has stored since its last use. They may be older than the set in use, even if
    /// the source says otherwise.
    fn take_kept(&mut self, cx: &mut Context<'_>) {
        for _ in 0..MOST {
            // Unconstrained: if tokio's task budget ran out here, what is left would later be taken for new.
            let next = unconstrained(poll_fn(|cx| self.fallback.poll_next(cx)));
            let Poll::Ready(answer) = pin!(next).poll(cx) else {
                return;
            };
            let arrival = Arrival::now(self.fallback.age());
            if let Ok(set) = answer
                && !arrival.is_older_than(self.in_use())
            {
                self.last = Some((set, arrival));
            }
        }
    }

    /// Polls the fallback, if it is in use, for an answer to yield.
    fn poll_fallback(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        for _ in 0..MOST {
            let in_use = self.in_use();
            let Active::Fallback(substitute) = &mut self.active else {
                return Poll::Pending;
            };
            let Poll::Ready(answer) = self.fallback.poll_next(cx) else {
                return self.poll_silence(cx);
            };
            let Ok(set) = answer else {
                substitute.until = None;
                return Poll::Ready(answer);
            };
            let arrival = Arrival::now(self.fallback.age());
            match substitute.use_of(arrival.age, in_use) {
                SetUse::Now => {
                    substitute.until = None;
                    self.arrival = Some(arrival);
                    self.last = Some((set.clone(), arrival));
                    return Poll::Ready(Ok(set));
                }
                SetUse::Later => {
                    self.last = Some((set, arrival));
                    let until = || Timer::at(arrival.at + LOOK);
                    substitute.until.get_or_insert_with(until);
                }
                SetUse::Never => {}
            }
        }
        cx.waker().wake_by_ref();
        self.poll_silence(cx)
    }

    /// Uses the fallback's last set once it has been silent for [`LOOK`].
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let Active::Fallback(substitute) = &mut self.active else {
            return Poll::Pending;
        };
        let Some(until) = &mut substitute.until else {
            return Poll::Pending;
        };
        ready!(until.poll(cx));
        substitute.until = None;
        let in_use = self.in_use();
        let holds =
            |(set, arrival): &&(Vec<_>, Arrival)| !set.is_empty() && !arrival.is_older_than(in_use);
        let Some((set, arrival)) = self.last.as_ref().filter(holds) else {
            return Poll::Pending;
        };
        let (set, age) = (set.clone(), arrival.age());
        self.note_arrival(age);
        Poll::Ready(Ok(set))
    }
}

impl<P: Discovery, F: Discovery> Discovery for Fallback<P, F> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.begin();
        if let Poll::Ready(answer) = self.poll_primary(cx) {
            return Poll::Ready(answer);
        }
        self.poll_active(cx);
        self.poll_fallback(cx)
    }

    fn refresh(&mut self) {
        self.primary.refresh();
        if matches!(self.active, Active::Fallback(_)) {
            self.fallback.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.primary.refused(endpoint);
        if matches!(self.active, Active::Fallback(_)) {
            self.fallback.refused(endpoint);
        }
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        self.primary.accepted(endpoint);
        if matches!(self.active, Active::Fallback(_)) {
            self.fallback.accepted(endpoint);
        }
    }

    /// Tells both sources, because either may be used next.
    fn wanted(&mut self, pod: &str) -> bool {
        let of_primary = self.primary.wanted(pod);
        self.fallback.wanted(pod) || of_primary
    }

    fn age(&self) -> Duration {
        self.arrival.map_or(Duration::ZERO, |arrival| arrival.age)
    }

    /// The report of the source in use.
    fn report(&self) -> DiscoveryReport {
        match self.active {
            Active::Neither | Active::Primary(_) => self.primary.report(),
            Active::Fallback(_) => DiscoveryReport {
                is_fallback: true,
                ..self.fallback.report()
            },
        }
    }

    /// The primary's name, or else the fallback's.
    fn name(&self) -> Option<String> {
        self.primary.name().or_else(|| self.fallback.name())
    }
}

/// A clone begins anew, and finds out for itself whether the primary works.
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
