//! When a connection stops taking requests: it is too old, or has carried enough of them.
//!
//! Both bounds are drawn for each connection, so that connections made together don't end together. This code reads the
//! clock only if there is a bound, and draws from the generator it is given.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::{backoff::jittered, http::renewal::Vintage};

/// The largest relative difference between a connection's age limit and the client's setting.
const JITTER: f64 = 0.1;

/// A client's limits for its connections.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::http) struct AgeLimits {
    pub(in crate::http) age: Option<Duration>,
    pub(in crate::http) requests: Option<usize>,
}

/// One connection's age, and its bounds.
#[derive(Debug)]
pub(in crate::http) struct Age {
    made: Instant,
    expires: Option<Instant>,
    /// After this many requests another connection should take over.
    enough: usize,
    /// It never carries more than this many.
    most: usize,
    begun: AtomicUsize,
    /// None if the settings it was made with can't change.
    vintage: Option<Vintage>,
}

impl Age {
    pub(in crate::http) fn new(limits: AgeLimits, now: Instant, rng: &mut impl Rng) -> Self {
        let most = limits.requests.unwrap_or(usize::MAX);
        let enough = match limits.requests {
            Some(most) => rng.random_range(most - most / 10..=most),
            None => most,
        };
        Self {
            made: now,
            expires: limits.age.map(|age| now + jittered(age, JITTER, rng)),
            enough,
            most,
            begun: AtomicUsize::new(0),
            vintage: None,
        }
    }

    /// Sets the version of the settings that the connection was made with.
    pub(in crate::http) fn of(self, vintage: Option<Vintage>) -> Self {
        Self { vintage, ..self }
    }

    /// Whether its settings are outdated. Then it takes no request, even without a successor.
    pub(in crate::http) fn is_outdated(&self) -> bool {
        self.vintage.as_ref().is_some_and(Vintage::is_over)
    }

    /// Whether another connection should take over.
    pub(in crate::http) fn is_reached(&self) -> bool {
        self.begun.load(Relaxed) >= self.enough
            || self.expires.is_some_and(|at| Instant::now() >= at)
    }

    /// Whether it may carry one more request, too old or not.
    pub(in crate::http) fn allows_one_more(&self) -> bool {
        self.begun.load(Relaxed) < self.most
    }

    /// Counts one more request.
    pub(in crate::http) fn count(&self) {
        if self.most != usize::MAX {
            self.begun.fetch_add(1, Relaxed);
        }
    }

    pub(in crate::http) fn made(&self) -> Instant {
        self.made
    }

    pub(in crate::http) fn expires(&self) -> Option<Instant> {
        self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    fn ages(limits: AgeLimits) -> Vec<Age> {
        let rng = &mut SmallRng::seed_from_u64(3);
        let now = Instant::now();
        (0..1_000).map(|_| Age::new(limits, now, rng)).collect()
    }

    #[test]
    fn without_limits_a_connection_is_never_too_old() {
        let age = &ages(AgeLimits::default())[0];
        (0..1_000).for_each(|_| age.count());
        assert!(age.allows_one_more() && !age.is_reached());
        assert_eq!(age.expires(), None);
    }

    #[test]
    fn ages_differ_by_a_tenth_and_no_more() {
        let limits = AgeLimits {
            age: Some(Duration::from_secs(100)),
            requests: None,
        };
        let seconds = |age: &Age| (age.expires().expect("a bound") - age.made()).as_secs_f64();
        let all: Vec<_> = ages(limits).iter().map(seconds).collect();
        assert!(all.iter().all(|age| (90.0..=110.0).contains(age)));
        assert!(all.iter().any(|age| *age < 92.0) && all.iter().any(|age| *age > 108.0));
    }

    #[test]
    fn requests_never_exceed_what_is_allowed() {
        for (most, least) in [(1, 1), (2, 2), (9, 9), (10, 9), (1_000, 900)] {
            let limits = AgeLimits {
                age: None,
                requests: Some(most),
            };
            let all = ages(limits);
            let enough = || all.iter().map(|age| age.enough);
            assert_eq!(enough().min(), Some(least));
            assert_eq!(enough().max(), Some(most));
            let age = &all[0];
            (0..age.enough).for_each(|_| age.count());
            assert!(age.is_reached());
            assert_eq!(age.allows_one_more(), age.enough < most);
        }
    }
}
