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
//!
//! The last set stays after the switch until the fallback, which is asked to look anew, has said something:
//!
//! | the fallback's set is | it is |
//! | --- | --- |
//! | from a time since the primary fails, or shortly before | used at once |
//! | from a time before that, but after the set in use | used if neither a newer one nor an error comes within 12 s |
//! | one that it has told in an earlier use, or kept since | used likewise, unless it is empty |
//! | older than the set in use, by the age that it came with | never used |
//!
//! A source that looks again and again answers within that time. One that doesn't tells changes alone: what it has said last
//! still holds. But silence is no reason to drop all endpoints.
//!
//! Where there is no set in use yet, any is used at once.

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

/// How long the last set of a primary that fails is still used: a control plane that restarts is no reason to take
/// another source's word. A set that is older when the primary yields it does not count as an answer.
const TRUST: Duration = Duration::from_secs(60);

/// How long the fallback has for a look. One in DNS takes 4 s at most, and one at the API server, which has 10 s for its
/// answer, about 11 s. A walk over a search list may take longer, of which each name takes a look; but DNS walks only where
/// it has told an empty set, or none.
const LOOK: Duration = Duration::from_secs(12);

/// How many answers are passed over in one go, lest a source that always has one be waited for.
const MOST: usize = 1000;

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
/// The fallback is asked to look anew ([`Discovery::refresh`]) whenever it is used again. The primary's last set stays until it
/// answers, and for as long as it fails as well. If it says nothing for 12 seconds, the last set that it told holds, unless
/// that is empty: a source may tell its set only when it changes.
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
    /// The set that was yielded last.
    told: Option<Told>,
    /// The fallback's last set, whether it was yielded or not.
    last: Option<(Vec<Endpoint>, Told)>,
    /// The fallback has been used before, and may have kept something since.
    was_used: bool,
}

/// When a set came, and how old it was then.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    age: Duration,
}

impl Told {
    fn now(age: Duration) -> Self {
        let at = Instant::now();
        Self { at, age }
    }

    /// Whether it was older when it came than the set in use is now.
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
    /// The primary's; for how long, if it fails or is silent.
    Primary(Option<Trouble>),
    /// The fallback's, until the primary answers.
    Fallback(Substitute),
}

/// A primary that fails, or hasn't answered yet.
struct Trouble {
    since: Instant,
    until: Timer,
}

/// A fallback in use.
struct Substitute {
    /// Since when the primary fails.
    since: Instant,
    /// How long its answer is waited for; none once that has come.
    until: Option<Timer>,
}

/// What becomes of a set of the fallback's.
enum Verdict {
    Use,
    /// It is newer than the set in use, but from before the primary failed.
    Keep,
    PassOver,
}

impl<P, F> Fallback<P, F> {
    pub(crate) fn new(primary: P, fallback: F) -> Self {
        Self {
            primary,
            fallback,
            active: Active::Neither,
            answered: false,
            emptied: false,
            told: None,
            last: None,
            was_used: false,
        }
    }

    fn begin(&mut self) {
        if matches!(self.active, Active::Neither) {
            self.active = Active::Primary(Some(Trouble::lasting(SILENCE)));
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

    fn tell(&mut self, age: Duration) {
        self.told = Some(Told::now(age));
    }

    /// How old the set in use is.
    fn in_use(&self) -> Option<Duration> {
        self.told.map(Told::age)
    }
}

impl Trouble {
    fn lasting(time: Duration) -> Self {
        let since = Instant::now();
        let until = Timer::at(since + time);
        Self { since, until }
    }
}

impl Substitute {
    /// Of a set that is so old, where the one in use is as old as that.
    fn verdict(&self, age: Duration, in_use: Option<Duration>) -> Verdict {
        match in_use {
            Some(in_use) if age > in_use => Verdict::PassOver,
            Some(_) if age > self.since.elapsed() + LOOK => Verdict::Keep,
            _ => Verdict::Use,
        }
    }
}

impl<P: Discovery, F: Discovery> Fallback<P, F> {
    /// Waits for an answer of the primary that is to be yielded.
    fn poll_primary(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        for _ in 0..MOST {
            let answer = ready!(self.primary.poll_next(cx));
            let age = self.primary.age();
            match &answer {
                // It had nothing better: an old set is no sign that it works, and no better than the fallback's.
                Ok(_) if age > TRUST && matches!(self.active, Active::Fallback(_)) => continue,
                Ok(_) if age > TRUST => self.tell(age),
                Ok(set) => {
                    self.tell(age);
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
                self.active = Active::Primary(Some(Trouble::lasting(TRUST)));
            }
            (Active::Primary(_), false) => self.fall_back(Instant::now(), cx),
            _ => {}
        }
    }

    /// Falls back if the primary has failed for long enough.
    fn poll_active(&mut self, cx: &mut Context<'_>) {
        if let Active::Primary(Some(trouble)) = &mut self.active
            && trouble.until.poll(cx).is_ready()
        {
            let since = trouble.since;
            self.fall_back(since, cx);
        }
    }

    /// The primary fails since then.
    fn fall_back(&mut self, since: Instant, cx: &mut Context<'_>) {
        info!(
            DISCOVERY,
            here(),
            "the primary source of endpoints fails; the fallback is used"
        );
        // One that begins looks anyway.
        if std::mem::replace(&mut self.was_used, true) {
            self.take_kept(cx);
            self.fallback.refresh();
        }
        self.active = Active::Fallback(Substitute {
            since,
            until: Some(Timer::at(Instant::now() + LOOK)),
        });
    }

    /// Takes what the fallback has kept since it was used: that may be older than the set in use, whatever it says itself.
    fn take_kept(&mut self, cx: &mut Context<'_>) {
        for _ in 0..MOST {
            // All of it: a task's budget would end with something left, which would be taken for new.
            let next = unconstrained(poll_fn(|cx| self.fallback.poll_next(cx)));
            let Poll::Ready(answer) = pin!(next).poll(cx) else {
                return;
            };
            let told = Told::now(self.fallback.age());
            if let Ok(set) = answer
                && !told.is_older_than(self.in_use())
            {
                self.last = Some((set, told));
            }
        }
    }

    /// Waits for an answer of the fallback that is to be yielded, if it is in use.
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
            let told = Told::now(self.fallback.age());
            match substitute.verdict(told.age, in_use) {
                Verdict::Use => {
                    substitute.until = None;
                    self.told = Some(told);
                    self.last = Some((set.clone(), told));
                    return Poll::Ready(Ok(set));
                }
                Verdict::Keep => {
                    self.last = Some((set, told));
                    let until = || Timer::at(told.at + LOOK);
                    substitute.until.get_or_insert_with(until);
                }
                Verdict::PassOver => {}
            }
        }
        cx.waker().wake_by_ref();
        self.poll_silence(cx)
    }

    /// Waits until the fallback has said nothing for so long that its last set holds.
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
        let holds = |(set, told): &&(Vec<_>, Told)| !set.is_empty() && !told.is_older_than(in_use);
        let Some((set, told)) = self.last.as_ref().filter(holds) else {
            return Poll::Pending;
        };
        let (set, age) = (set.clone(), told.age());
        self.tell(age);
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

    /// Both are told: the other one may be used next.
    fn wanted(&mut self, pod: &str) -> bool {
        let of_primary = self.primary.wanted(pod);
        self.fallback.wanted(pod) || of_primary
    }

    fn age(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| told.age)
    }

    /// That of the source in use.
    fn report(&self) -> DiscoveryReport {
        match self.active {
            Active::Neither | Active::Primary(_) => self.primary.report(),
            Active::Fallback(_) => DiscoveryReport {
                is_fallback: true,
                ..self.fallback.report()
            },
        }
    }

    /// The primary's, if it has one.
    fn name(&self) -> Option<String> {
        self.primary.name().or_else(|| self.fallback.name())
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
