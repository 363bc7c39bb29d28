//! The counters of one endpoint.

use std::sync::{Arc, OnceLock};

use super::super::{
    connections::ConnectionTally,
    count::Count,
    counts::{EjectionCounts, EndpointCounts, FailureCounts},
    latencies::Latencies,
};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    pub(super) fn is_over(&mut self) -> bool {
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

#[cfg(all(test, not(any(tower_headless_loom, tower_headless_shuttle))))]
mod tests {
    use super::*;

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
}
