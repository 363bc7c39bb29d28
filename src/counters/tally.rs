//! The counters that requests write: those of a balancer as a whole, and its endpoints'.

mod endpoint;
mod waits;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub(crate) use endpoint::{EndpointTally, Failed, LastFailure, TurnedDown, WhatFailed};
pub(crate) use waits::WaitCause;

use waits::WaitTally;

use super::{
    count::Count,
    counts::{BalanceCounts, DiscoveryCounts, EndpointCounts, RetryCounts, WaitCounts},
};
use crate::sync::{
    CheckedMutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The counters of a balancer as a whole, and its endpoints' counters.
#[derive(Debug)]
pub(crate) struct BalanceTally {
    /// When the balancer was built: its ages count from here.
    epoch: Instant,
    endpoints: CheckedMutex<Endpoints>,
    unplaced: Count,
    waits: [WaitTally; 4],
    retries: [Count; 4],
    budget_refused: Count,
    /// When the budget last refused: the balancer's age in milliseconds, plus one; zero if never.
    last_budget_refused: AtomicU64,
    hedges: Count,
    hedges_won: Count,
    hedges_refused: Count,
    discovery: [Count; 3],
}

#[derive(Debug, Default)]
struct Endpoints {
    /// The sums of the endpoints that are gone.
    gone: EndpointCounts,
    /// All other endpoints, including those that have left but still have requests.
    all: Vec<Arc<EndpointTally>>,
    /// From this many on, `forget_gone` is worth its cost.
    enough: usize,
    #[cfg(test)]
    visited: usize,
}

/// The least number of endpoints for which a joining endpoint triggers `forget_gone`.
const FEW: usize = 64;

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retried {
    Answered,
    Lost,
    Unprocessed,
    Unsent,
}

impl BalanceTally {
    /// For a balancer that was built at `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            endpoints: CheckedMutex::default(),
            unplaced: Count::default(),
            waits: Default::default(),
            retries: Default::default(),
            budget_refused: Count::default(),
            last_budget_refused: AtomicU64::new(0),
            hedges: Count::default(),
            hedges_won: Count::default(),
            hedges_refused: Count::default(),
            discovery: Default::default(),
        }
    }

    /// Makes the counters of an endpoint that joins.
    pub(crate) fn endpoint(&self) -> Arc<EndpointTally> {
        let tally = Arc::<EndpointTally>::default();
        let mut endpoints = self.endpoints.lock();
        // Without this limit, each endpoint of a set that joins at once would walk all those before it.
        if endpoints.all.len() >= endpoints.enough {
            endpoints.forget_gone();
        }
        endpoints.all.push(tally.clone());
        tally
    }

    /// Counts a request that begins to wait, until the result is dropped.
    pub(crate) fn wait(self: &Arc<Self>, cause: WaitCause) -> Wait {
        let (waits, since) = (&self.waits[cause as usize], Instant::now());
        waits.begun.add(1);
        waits.now.begin(self.age(since));
        Wait {
            tally: self.clone(),
            cause,
            since,
        }
    }

    /// How many requests wait for `cause` now, and for how long on average.
    pub(crate) fn waiting(&self, cause: WaitCause, now: Instant) -> (u64, Duration) {
        self.waits[cause as usize].now.read(self.age(now))
    }

    /// The balancer's age at `now`, in milliseconds.
    fn age(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    pub(crate) fn unplaced(&self) {
        self.unplaced.add(1);
    }

    pub(crate) fn retried(&self, why: Retried) {
        self.retries[why as usize].add(1);
    }

    pub(crate) fn budget_refused(&self) {
        self.budget_refused.add(1);
        let age = self.age(Instant::now());
        self.last_budget_refused.store(age + 1, Relaxed);
    }

    /// How long ago the budget last refused a retry, if it ever did.
    pub(crate) fn since_budget_refused(&self, now: Instant) -> Option<Duration> {
        let last = self.last_budget_refused.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.age(now).saturating_sub(last)))
    }

    /// Counts a hedge that was due, and whether it was allowed.
    pub(crate) fn hedged(&self, is_allowed: bool) {
        match is_allowed {
            true => self.hedges.add(1),
            false => self.hedges_refused.add(1),
        }
    }

    /// Counts a hedge that was answered first.
    pub(crate) fn hedge_won(&self) {
        self.hedges_won.add(1);
    }

    /// Counts an answer of discovery: the number of endpoints, or `None` if it failed.
    pub(crate) fn discovered(&self, endpoints: Option<usize>) {
        let result = match endpoints {
            Some(0) => 1,
            Some(_) => 0,
            None => 2,
        };
        self.discovery[result].add(1);
    }

    pub(crate) fn counts(&self) -> BalanceCounts {
        let [discovery, unreachable, connection, pod] =
            self.waits.each_ref().map(WaitTally::counts);
        let [answered, lost, unprocessed, unsent] = self.retries.each_ref().map(Count::get);
        let [found, empty, failed] = self.discovery.each_ref().map(Count::get);
        BalanceCounts {
            endpoints: self.sum(),
            unplaced: self.unplaced.get(),
            waits: WaitCounts {
                discovery,
                unreachable,
                connection,
                pod,
            },
            retries: RetryCounts {
                answered,
                lost,
                unprocessed,
                unsent,
                budget_refused: self.budget_refused.get(),
            },
            // Ends are read before beginnings.
            hedges_won: self.hedges_won.get(),
            hedges: self.hedges.get(),
            hedges_refused: self.hedges_refused.get(),
            discovery: DiscoveryCounts {
                found,
                empty,
                failed,
            },
        }
    }

    fn sum(&self) -> EndpointCounts {
        let mut endpoints = self.endpoints.lock();
        endpoints.forget_gone();
        let mut sum = endpoints.gone.clone();
        for tally in &endpoints.all {
            sum += &tally.counts();
        }
        sum
    }
}

impl Endpoints {
    /// Adds up the counters that nobody writes any more, and drops them.
    fn forget_gone(&mut self) {
        let Self { gone, all, .. } = self;
        #[cfg(test)]
        {
            self.visited += all.len();
        }
        all.retain_mut(|tally| {
            // `get_mut` synchronises with the last writer's drop; reading the reference count alone wouldn't.
            let is_gone = Arc::get_mut(tally).is_some_and(EndpointTally::is_over);
            if is_gone {
                *gone += &tally.counts();
            }
            !is_gone
        });
        self.enough = (2 * all.len()).max(FEW);
    }
}

/// A request that waits. Drop it when the wait is over.
#[derive(Debug)]
pub(crate) struct Wait {
    tally: Arc<BalanceTally>,
    cause: WaitCause,
    since: Instant,
}

impl Wait {
    pub(crate) fn is_for(&self, cause: WaitCause) -> bool {
        self.cause == cause
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waits = &self.tally.waits[self.cause as usize];
        let nanos = self.since.elapsed().as_nanos();
        waits.nanos.add(u64::try_from(nanos).unwrap_or(u64::MAX));
        waits.now.end(self.tally.age(self.since));
        waits.ended.add(1);
    }
}

#[cfg(all(test, not(any(tower_headless_loom, tower_headless_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_has_left_still_counts_until_its_last_request_ends() {
        let tally = BalanceTally::new(Instant::now());
        let (stays, leaves) = (tally.endpoint(), tally.endpoint());
        stays.picked(false);
        leaves.picked(true);
        let running = leaves.clone();
        drop(leaves);
        assert_eq!(tally.counts().endpoints.requests, 2);
        running.succeeded(0);
        drop(running);
        for _ in 0..2 {
            let sum = tally.counts().endpoints;
            assert_eq!((sum.requests, sum.successes, sum.trials), (2, 1, 1));
        }
        let endpoints = tally.endpoints.lock();
        assert_eq!(
            endpoints.all.len(),
            1,
            "only sums are left of an endpoint that is gone"
        );
    }

    #[test]
    fn a_joining_set_costs_linear_time_to_count() {
        let tally = BalanceTally::new(Instant::now());
        let visited = |tally: &BalanceTally| {
            let endpoints = tally.endpoints.lock();
            (endpoints.visited, endpoints.all.len())
        };
        let all: Vec<_> = (0..5_000).map(|_| tally.endpoint()).collect();
        assert!(visited(&tally).0 <= 2 * all.len());
        drop(all);
        for _ in 0..20_000 {
            tally.endpoint().picked(false);
        }
        let (visited, kept) = visited(&tally);
        assert!(visited <= 50_000, "{visited}");
        assert!(
            kept <= 2 * FEW,
            "few of those that have left are kept: {kept}"
        );
        assert_eq!(tally.counts().endpoints.requests, 20_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_counts_from_its_beginning_to_its_drop() {
        let tally = Arc::new(BalanceTally::new(Instant::now()));
        let wait = tally.wait(WaitCause::Pod);
        assert_eq!(tally.counts().waits.pod.waiting(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(wait);
        let waits = tally.counts().waits.pod;
        assert_eq!(
            (waits.begun, waits.ended, waits.sum_micros),
            (1, 1, 2_000_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_mean_wait_of_the_requests_that_wait_now_is_known() {
        let tally = Arc::new(BalanceTally::new(Instant::now()));
        let waiting = || tally.waiting(WaitCause::Connection, Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(waiting(), (0, Duration::ZERO));
        for _ in 0..100 {
            tokio::time::advance(1_000 * second).await;
            let first = tally.wait(WaitCause::Connection);
            tokio::time::advance(2 * second).await;
            let second = tally.wait(WaitCause::Connection);
            assert_eq!(waiting(), (2, Duration::from_secs(1)));
            drop(second);
            assert_eq!(waiting(), (1, Duration::from_secs(2)));
            drop(first);
            assert_eq!(waiting(), (0, Duration::ZERO));
        }
        let all = (0..1_000).map(|_| tally.wait(WaitCause::Connection));
        let _all: Vec<_> = all.collect();
        assert_eq!(waiting(), (1_000, Duration::ZERO));
        tokio::time::advance(5 * second).await;
        assert_eq!(waiting(), (1_000, 5 * second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_since_the_budget_last_refused_is_known() {
        let tally = BalanceTally::new(Instant::now());
        let ago = || tally.since_budget_refused(Instant::now());
        assert_eq!(ago(), None);
        tally.budget_refused();
        assert_eq!(ago(), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(ago(), Some(Duration::from_secs(9)));
        tally.budget_refused();
        assert_eq!(ago(), Some(Duration::ZERO));
    }
}
