//! The counters that requests write.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    connections::ConnectionTally,
    count::Count,
    counts::{
        BalanceCounts, DiscoveryCounts, EjectionCounts, EndpointCounts, FailureCounts, RetryCounts,
        WaitCounts, Waits,
    },
    latencies::Latencies,
};
use crate::sync::{
    CheckedMutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The counters of one endpoint, for one life of it.
///
/// The fields that every request writes come first.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct EndpointTally {
    requests: Count,
    latencies: Latencies,
    failures: [Count; 3],
    overloads: Count,
    cancelled: Count,
    turned_down: [Count; 3],
    trials: Count,
    ejections: [Count; 5],
    unreachable: Count,
    retries: Count,
    hedges: Count,
    overtaken: Count,
    /// When the last failure was (the balancer's age in milliseconds, plus one) and what it was: see [`LastFailure`].
    last_failure: AtomicU64,
    /// Set if its connections are counted.
    connections: OnceLock<Arc<ConnectionTally>>,
}

/// Bounds the memory for each counted endpoint. Not under the interleaving checkers, whose atomics are larger.
#[cfg(not(any(tower_headless_loom, tower_headless_shuttle)))]
const _: () = assert!(size_of::<EndpointTally>() <= 512);

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Answered,
    Unanswered,
    GivenUp,
}

/// How an endpoint turned a request down before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedDown {
    NotReady,
    HandedBack,
    Busy,
}

/// An endpoint's last failure, of the kind that has no error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastFailure {
    /// The balancer's age then, in milliseconds.
    pub(crate) age: u64,
    pub(crate) what: WhatFailed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhatFailed {
    /// An answer, with its status if known.
    Answer(Option<u16>),
    Error,
    GivenUp,
}

/// Codes for what failed. They can't collide with HTTP statuses, which have three digits.
const NO_STATUS: u64 = 1;
const ERROR: u64 = 2;
const GIVEN_UP: u64 = 3;
const CODE: u32 = 16;

impl EndpointTally {
    #[inline]
    pub(crate) fn picked(&self, is_trial: bool) {
        self.requests.add(1);
        if is_trial {
            self.trials.add(1);
        }
    }

    /// Counts a success, whose answer began after `nanos`.
    #[inline]
    pub(crate) fn succeeded(&self, nanos: u64) {
        self.latencies.add(nanos);
    }

    /// Counts a failure at this `age` of the balancer, in milliseconds.
    pub(crate) fn failed(&self, how: Failed, age: u64) {
        self.failures[how as usize].add(1);
        let code = match how {
            // `note_status` has just noted it, with its status.
            Failed::Answered if self.has_status(age) => return,
            Failed::Answered => NO_STATUS,
            Failed::Unanswered => ERROR,
            Failed::GivenUp => GIVEN_UP,
        };
        self.note_failure(code, age);
    }

    /// Notes the status of an answer that counts as a failure or an overload.
    #[cfg(any(
        feature = "http-body",
        all(test, not(any(tower_headless_loom, tower_headless_shuttle)))
    ))]
    pub(crate) fn note_status(&self, status: u16, age: u64) {
        self.note_failure(u64::from(status), age);
    }

    fn note_failure(&self, code: u64, age: u64) {
        self.last_failure.store(((age + 1) << CODE) | code, Relaxed);
    }

    fn has_status(&self, age: u64) -> bool {
        /// The time that a body may take after its head has told the status.
        const NEAR: u64 = 1_000;
        let last = self.last_failure.load(Relaxed);
        last & ((1 << CODE) - 1) > GIVEN_UP && (last >> CODE) + NEAR > age
    }

    pub(crate) fn last_failure(&self) -> Option<LastFailure> {
        let last = self.last_failure.load(Relaxed);
        let age = (last >> CODE).checked_sub(1)?;
        let what = match last & ((1 << CODE) - 1) {
            NO_STATUS => WhatFailed::Answer(None),
            ERROR => WhatFailed::Error,
            GIVEN_UP => WhatFailed::GivenUp,
            status => WhatFailed::Answer(Some(status as u16)),
        };
        Some(LastFailure { age, what })
    }

    pub(crate) fn overloaded(&self) {
        self.overloads.add(1);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.add(1);
    }

    pub(crate) fn turned_down(&self, how: TurnedDown) {
        self.turned_down[how as usize].add(1);
    }

    /// Counts an ejection; `reason` is the reason's index among all.
    pub(crate) fn ejected(&self, reason: usize) {
        self.ejections[reason].add(1);
    }

    pub(crate) fn became_unreachable(&self) {
        self.unreachable.add(1);
    }

    pub(crate) fn retried_here(&self) {
        self.retries.add(1);
    }

    pub(crate) fn hedged_here(&self) {
        self.hedges.add(1);
    }

    pub(crate) fn overtaken(&self) {
        self.overtaken.add(1);
    }

    /// Counts its connections with these counters.
    pub(crate) fn set_connections(&self, connections: Arc<ConnectionTally>) {
        // An endpoint joins once.
        let _ = self.connections.set(connections);
    }

    /// Whether nobody counts its connections any more: they may outlive its requests.
    fn is_over(&mut self) -> bool {
        let connections = self.connections.get_mut();
        connections.is_none_or(|it| Arc::get_mut(it).is_some())
    }

    pub(crate) fn counts(&self) -> EndpointCounts {
        // Ends are read before beginnings, so that no request seems to end before it began.
        let latency = self.latencies.counts();
        let [answered, unanswered, given_up] = self.failures.each_ref().map(Count::get);
        let [refused, handed_back, busy] = self.turned_down.each_ref().map(Count::get);
        let [
            consecutive_failures,
            success_rate,
            unresponsive,
            check_failed,
            slow,
        ] = self.ejections.each_ref().map(Count::get);
        EndpointCounts {
            successes: latency.count(),
            latency,
            failures: FailureCounts {
                answered,
                unanswered,
                given_up,
            },
            overloads: self.overloads.get(),
            cancelled: self.cancelled.get(),
            refused,
            handed_back,
            busy,
            trials: self.trials.get(),
            ejections: EjectionCounts {
                consecutive_failures,
                success_rate,
                unresponsive,
                check_failed,
                slow,
            },
            unreachable: self.unreachable.get(),
            retries: self.retries.get(),
            hedges: self.hedges.get(),
            overtaken: self.overtaken.get(),
            connections: self
                .connections
                .get()
                .map(|it| it.counts())
                .unwrap_or_default(),
            requests: self.requests.get(),
        }
    }
}

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

#[derive(Debug, Default)]
struct WaitTally {
    begun: Count,
    ended: Count,
    nanos: Count,
    now: WaitingNow,
}

/// The requests that wait now, in one word so that both parts are of one moment. The low bits hold how many wait. The
/// high bits hold the sum of the balancer's ages, in milliseconds, at which they began.
#[derive(Debug, Default)]
struct WaitingNow(Count);

/// The bits for the number: 16 million requests. The sum above may overflow, because only its difference to now
/// matters.
const WAITING: u32 = 24;

impl WaitingNow {
    fn of(since: u64) -> u64 {
        (since << WAITING) | 1
    }

    fn begin(&self, since: u64) {
        self.0.add(Self::of(since));
    }

    fn end(&self, since: u64) {
        self.0.0.fetch_sub(Self::of(since), Relaxed);
    }

    /// How many wait, and for how long on average.
    fn read(&self, now: u64) -> (u64, Duration) {
        let word = self.0.get();
        let waiting = word & ((1 << WAITING) - 1);
        let begun = word & !((1 << WAITING) - 1);
        let waited = (now << WAITING).wrapping_mul(waiting).wrapping_sub(begun);
        // Negative if a request began to wait after `now` was read.
        let waited = (waited.cast_signed() >> WAITING).max(0).unsigned_abs();
        (waiting, Duration::from_millis(waited / waiting.max(1)))
    }
}

/// What a request waits for before an endpoint gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitCause {
    Discovery,
    Unreachable,
    Connection,
    Pod,
}

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

impl WaitTally {
    fn counts(&self) -> Waits {
        let ended = self.ended.get();
        Waits {
            ended,
            sum_micros: self.nanos.get() / 1_000,
            begun: self.begun.get(),
        }
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

    #[test]
    fn the_last_failure_is_known_by_its_status() {
        let tally = EndpointTally::default();
        assert_eq!(tally.last_failure(), None);
        let what = |tally: &EndpointTally| tally.last_failure().map(|last| (last.age, last.what));
        tally.note_status(503, 7);
        tally.failed(Failed::Answered, 8);
        let status = WhatFailed::Answer(Some(503));
        assert_eq!(what(&tally), Some((7, status)));
        tally.failed(Failed::GivenUp, 9);
        assert_eq!(what(&tally), Some((9, WhatFailed::GivenUp)));
        tally.failed(Failed::Answered, 9);
        assert_eq!(what(&tally), Some((9, WhatFailed::Answer(None))));
        assert_eq!(tally.counts().failures.total(), 3);
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
