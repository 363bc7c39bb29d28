//! When an endpoint that refuses requests is tried again. Pure: takes `now` and the generator.
//!
//! ```text
//!                refuses                    back-off over               is ready
//!  ┌───────────┐ ──────▶ ┌─────────────┐ ───────────────▶ ┌─────────┐ ──────────▶ ┌──────────────────┐
//!  │ available │         │ unreachable │                  │ attempt │             │ handed requests  │
//!  └───────────┘         └─────────────┘ ◀─────────────── └─────────┘             │ back? then trial │
//!       ▲                      ▲             fails                                └──────────────────┘
//!       │                      └──────────────── the trial request is refused ────────┘      │
//!       └───────────────────────────────────────────────────────── no, or it is accepted ────┘
//! ```
//!
//! An attempt drives an endpoint's `poll_ready` in the background, so that no caller pays for finding out. For a
//! service that connects there, that is proof enough. If a service has handed requests back, its readiness proves
//! little, so it gets one request first, as a trial.

use std::time::Duration;

use futures_util::future::AbortHandle;
use rand::Rng;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// The longest pause while requests wait for this endpoint, or for any: an endpoint that is back has to be found within
/// a second.
const MAX_HURRIED_PAUSE: Duration = Duration::from_millis(500);

/// Each endpoint that refuses adds this much to that pause, so that a large set isn't tried too often.
const PAUSE_PER_ENDPOINT: Duration = Duration::from_millis(1);

/// How an endpoint refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// It was not ready, with an error.
    NotReady,
    /// It took the request and handed it back.
    HandedBack,
}

/// The state of a member that refuses requests.
#[derive(Debug)]
pub(super) struct Reconnect {
    refusal: RefusalKind,
    backoff: Backoff,
    since: Instant,
    due: Instant,
    /// Until when requests wait for this very endpoint.
    wanted_until: Option<Instant>,
    /// An attempt or a trial request is under way.
    is_busy: bool,
    has_refused: bool,
}

impl Reconnect {
    pub(super) fn new(refusal: RefusalKind, now: Instant, rng: &mut impl Rng) -> Self {
        let mut new = Self::at_once(refusal, now);
        new.refused(refusal, now, rng);
        new
    }

    /// The state of an endpoint that has not refused yet, but is tried before it gets requests.
    pub(super) fn at_once(refusal: RefusalKind, now: Instant) -> Self {
        Self {
            refusal,
            backoff: Backoff::of_reconnects(),
            since: now,
            due: now,
            wanted_until: None,
            is_busy: false,
            has_refused: false,
        }
    }

    /// The endpoint has refused a request or an attempt again.
    pub(super) fn refused(&mut self, refusal: RefusalKind, now: Instant, rng: &mut impl Rng) {
        self.refusal = refusal;
        self.since = now;
        self.due = now + self.backoff.next(rng);
        self.is_busy = false;
        self.has_refused = true;
        if self.wanted_until.is_some_and(|until| until > now) {
            self.due = self.hurried(0);
        }
    }

    /// Requests wait for this very endpoint, at most until then.
    pub(super) fn want(&mut self, until: Instant) {
        self.wanted_until = self.wanted_until.max(Some(until));
        self.due = self.hurried(0);
    }

    /// Whether it has ever refused, and isn't just new.
    pub(super) fn has_refused(&self) -> bool {
        self.has_refused
    }

    pub(super) fn refusal(&self) -> RefusalKind {
        self.refusal
    }

    /// When to try it again, unless it is being tried.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.is_busy).then_some(self.due)
    }

    /// When to try it again while none of `refusing` endpoints accepts requests.
    pub(super) fn hurried_due(&self, refusing: usize) -> Option<Instant> {
        (!self.is_busy).then(|| self.hurried(refusing))
    }

    fn hurried(&self, refusing: usize) -> Instant {
        let refusing = u32::try_from(refusing).unwrap_or(u32::MAX);
        let pause = MAX_HURRIED_PAUSE.max(PAUSE_PER_ENDPOINT.saturating_mul(refusing));
        self.due.min(self.since + pause)
    }

    /// An attempt begins. If it fails, [`refused`](Self::refused) is called; if it succeeds, this is dropped.
    pub(super) fn begin(&mut self) {
        self.is_busy = true;
    }
}

/// Aborts an attempt or a check when it is dropped, as when its member leaves the set.
#[derive(Debug)]
pub(super) struct Running(AbortHandle);

impl Running {
    pub(super) fn new(handle: AbortHandle) -> Self {
        Self(handle)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn pauses_double_from_a_fifth_of_a_second_to_five() {
        let (mut now, rng) = (Instant::now(), &mut SmallRng::seed_from_u64(5));
        let mut reconnect = Reconnect::new(RefusalKind::NotReady, now, rng);
        let mut expected = 0.2_f64;
        for _ in 0..10 {
            let due = reconnect.due().expect("it waits");
            let pause = (due - now).as_secs_f64();
            let bounds = expected * 0.799..=expected * 1.201;
            assert!(bounds.contains(&pause), "{pause}");
            reconnect.begin();
            assert_eq!(reconnect.due(), None, "one attempt at a time");
            expected = (expected * 2.0).min(5.0);
            now = due;
            reconnect.refused(RefusalKind::NotReady, now, rng);
        }
    }

    #[test]
    fn an_endpoint_that_requests_wait_for_is_tried_within_half_a_second() {
        let (now, rng) = (Instant::now(), &mut SmallRng::seed_from_u64(5));
        let mut reconnect = Reconnect::new(RefusalKind::NotReady, now, rng);
        (0..10).for_each(|_| reconnect.refused(RefusalKind::NotReady, now, rng));
        assert!(reconnect.due() > Some(now + 2 * MAX_HURRIED_PAUSE));
        assert_eq!(reconnect.hurried_due(100), Some(now + MAX_HURRIED_PAUSE));
        let many = reconnect.hurried_due(2_000);
        assert_eq!(many, Some(now + Duration::from_secs(2)), "spread out");
        reconnect.want(now + Duration::from_secs(5));
        assert_eq!(reconnect.due(), Some(now + MAX_HURRIED_PAUSE));
        let later = now + Duration::from_secs(4);
        reconnect.refused(RefusalKind::NotReady, later, rng);
        assert_eq!(reconnect.due(), Some(later + MAX_HURRIED_PAUSE));
        let later = now + Duration::from_secs(6);
        reconnect.refused(RefusalKind::NotReady, later, rng);
        assert!(
            reconnect.due() > Some(later + MAX_HURRIED_PAUSE),
            "nobody waits any more"
        );
    }
}
