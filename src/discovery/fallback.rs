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
//! A set of the fallback is never used in place of a newer one. So the last set stays after the switch, until the fallback
//! has looked anew:
//!
//! | the fallback's set is from | it is |
//! | --- | --- |
//! | a time since the primary fails, or shortly before | used at once |
//! | a time before that, but after the set in use | used if nothing newer comes within 5 s, nor an error |
//! | a time before the set in use | never used |
//!
//! Where there is no set in use yet, any is used at once.

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

/// How long the fallback has for a look: one in DNS takes 4 s at most, and is followed by the next one after 5 s at most. So
/// a set that was so old when the primary failed tells of that time, and who hasn't a newer one by then won't have it soon.
const LOOK: Duration = Duration::from_secs(5);

/// How many answers are passed over that the fallback has kept, lest one that never ends be waited for.
const MOST_KEPT: usize = 1000;

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
/// What the fallback has told or kept from before the primary failed doesn't replace a newer set of the primary's: that one
/// stays until the fallback has looked anew, and for as long as the fallback fails as well. A source of your own that tells
/// its set only when it changes, and is used as a fallback a second time, tells it again at a [`refresh`](Discovery::refresh).
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
    /// The fallback has been used before, and may have kept something since.
    was_used: bool,
}

/// When a set was yielded, and how old it was then.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    age: Duration,
}

impl Told {
    fn age(self, now: Instant) -> Duration {
        self.age + now.duration_since(self.at)
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
    /// Its last set, while a newer one may come.
    kept: Option<(Vec<Endpoint>, Told)>,
    until: Timer,
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
            info!("the primary source of endpoints answers; the fallback is no longer used");
        }
        self.answered = true;
        self.emptied = set.is_empty();
        self.active = Active::Primary(None);
    }

    fn tell(&mut self, age: Duration) {
        let at = Instant::now();
        self.told = Some(Told { at, age });
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
    fn verdict(&self, age: Duration, in_use: Option<Duration>, now: Instant) -> Verdict {
        match in_use {
            Some(in_use) if age > in_use => Verdict::PassOver,
            Some(_) if age > now.duration_since(self.since) + LOOK => Verdict::Keep,
            _ => Verdict::Use,
        }
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
    }

    fn on_error(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.emptied) {
            return;
        }
        match (&self.active, self.answered) {
            (Active::Primary(None), true) => {
                self.active = Active::Primary(Some(Trouble::lasting(TRUST)));
                self.pass_over_kept(cx);
            }
            (Active::Primary(_), false) => self.fall_back(Instant::now()),
            _ => {}
        }
    }

    /// What the fallback has kept since it was used is older than the primary's last set, whatever it says itself.
    fn pass_over_kept(&mut self, cx: &mut Context<'_>) {
        let most = if self.was_used { MOST_KEPT } else { 0 };
        for _ in 0..most {
            if self.fallback.poll_next(cx).is_pending() {
                break;
            }
        }
    }

    /// Falls back if the primary has failed for long enough.
    fn poll_active(&mut self, cx: &mut Context<'_>) {
        if let Active::Primary(Some(trouble)) = &mut self.active
            && trouble.until.poll(cx).is_ready()
        {
            let since = trouble.since;
            self.fall_back(since);
        }
    }

    /// The primary fails since then.
    fn fall_back(&mut self, since: Instant) {
        info!("the primary source of endpoints fails; the fallback is used");
        // One that begins looks anyway.
        if std::mem::replace(&mut self.was_used, true) {
            self.fallback.refresh();
        }
        self.active = Active::Fallback(Substitute {
            since,
            kept: None,
            until: Timer::at(Instant::now() + LOOK),
        });
    }

    /// Waits for an answer of the fallback that is to be yielded, if it is in use.
    fn poll_fallback(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let Active::Fallback(substitute) = &mut self.active else {
            return Poll::Pending;
        };
        while let Poll::Ready(answer) = self.fallback.poll_next(cx) {
            let Ok(set) = answer else {
                substitute.kept = None;
                return Poll::Ready(answer);
            };
            let (now, age) = (Instant::now(), self.fallback.age());
            let in_use = self.told.map(|told| told.age(now));
            match substitute.verdict(age, in_use, now) {
                Verdict::Use => {
                    substitute.kept = None;
                    self.tell(age);
                    return Poll::Ready(Ok(set));
                }
                Verdict::Keep => substitute.kept = Some((set, Told { at: now, age })),
                Verdict::PassOver => {}
            }
        }
        if substitute.kept.is_none() || substitute.until.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let Some((set, kept)) = substitute.kept.take() else {
            return Poll::Pending;
        };
        self.tell(kept.age(Instant::now()));
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
    fn wanted(&mut self, pod: &str) {
        self.primary.wanted(pod);
        self.fallback.wanted(pod);
    }

    fn age(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| told.age)
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
