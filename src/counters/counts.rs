//! Counters as plain numbers.

use std::{ops::AddAssign, time::Duration};

use super::latencies::LatencyCounts;

/// What an endpoint's requests have come to since it joined, or those of all endpoints since the balancer was built.
///
/// Each is a count that never goes down, except [`ConnectionCounts::idle`]. `requests` counts at the pick, all others later:
/// `requests` is `successes + failures + overloads + cancelled + refused + handed_back + busy`, and those in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct EndpointCounts {
    /// Requests that were brought here by a pick. One that goes on to another endpoint counts there as well.
    pub requests: u64,
    /// Requests that came to a [success](crate::Outcome::Success).
    pub successes: u64,
    /// Requests that came to a [failure](crate::Outcome::Failure), by kind.
    pub failures: FailureCounts,
    /// Requests that the endpoint had no room for ([`Outcome::Overload`](crate::Outcome::Overload)).
    pub overloads: u64,
    /// Requests that say nothing of the endpoint ([`Outcome::Ignored`](crate::Outcome::Ignored)): most were cancelled.
    pub cancelled: u64,
    /// Requests that the endpoint refused before it had them: it wasn't ready, as when a connection can't be made. They went
    /// elsewhere.
    pub refused: u64,
    /// Requests that the endpoint's service handed back [unsent](crate::Unsent). They went elsewhere.
    pub handed_back: u64,
    /// Requests that the endpoint had no connection for: [all were in use](crate::Connections::wait_timeout). They went elsewhere, or
    /// failed.
    pub busy: u64,
    /// Requests that were sent to find out how an endpoint is that gets no others.
    pub trials: u64,
    /// Retries that were brought here first, of those requests.
    pub retries: u64,
    /// Hedges that were brought here first, of those requests.
    pub hedges: u64,
    /// Requests here whose hedge, at another endpoint, was answered first.
    pub overtaken: u64,
    /// How often it was ejected, by reason.
    pub ejections: EjectionCounts,
    /// How often it became unreachable.
    pub unreachable: u64,
    /// How long its successes took.
    pub latency: LatencyCounts,
    /// Its connections, where the client makes them itself: an [`http::Client`](crate::http::Client) does.
    pub connections: ConnectionCounts,
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Connections that were made, all handshakes included.
    pub opened: u64,
    /// Connections that could not be made, by why.
    pub failed: ConnectionFailures,
    /// Connections of those that were made that have ended, by why.
    pub closed: ConnectionEnds,
    /// How many are open without a request: the only count here that goes down.
    pub idle: u64,
}

impl ConnectionCounts {
    /// How many are open now.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed.total())
    }

    /// How many of those have requests.
    pub fn active(&self) -> u64 {
        self.open().saturating_sub(self.idle)
    }
}

/// Connections that could not be made, by why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ConnectionFailures {
    /// The pod refused it, or reset it: nothing listens there.
    pub refused: u64,
    /// It took too long: `connect_timeout`, or the system's own limit.
    pub timeout: u64,
    /// TLS failed: a certificate that isn't trusted, for one.
    pub tls: u64,
    /// Anything else, as that there is no route, or that the pod doesn't speak HTTP.
    pub other: u64,
}

impl ConnectionFailures {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.refused + self.timeout + self.tls + self.other
    }
}

/// Connections that have ended, by why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ConnectionEnds {
    /// It was without a request for too long, or there were enough of them.
    pub idle: u64,
    /// It was too old, or had had its number of requests, or was made with settings that don't hold any more.
    pub age: u64,
    /// The pod closed it, or said that it would, and no request was lost with it.
    pub peer: u64,
    /// It broke off while it had a request, or nothing came back from the pod's node any more.
    pub lost: u64,
    /// Its pod had left the set, before it was used perhaps, or the client had ended.
    pub left: u64,
    /// The pod broke the protocol.
    pub protocol: u64,
    /// The client closed it: a request on it was given up, or it had become doubtful.
    pub client: u64,
}

impl ConnectionEnds {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.idle + self.age + self.peer + self.lost + self.left + self.protocol + self.client
    }
}

impl AddAssign<&ConnectionCounts> for ConnectionCounts {
    fn add_assign(&mut self, other: &Self) {
        self.opened += other.opened;
        self.failed.refused += other.failed.refused;
        self.failed.timeout += other.failed.timeout;
        self.failed.tls += other.failed.tls;
        self.failed.other += other.failed.other;
        self.closed.idle += other.closed.idle;
        self.closed.age += other.closed.age;
        self.closed.peer += other.closed.peer;
        self.closed.lost += other.closed.lost;
        self.closed.left += other.closed.left;
        self.closed.protocol += other.closed.protocol;
        self.closed.client += other.closed.client;
        self.idle += other.idle;
    }
}

/// Failures by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct FailureCounts {
    /// There was an answer, which was one itself (over HTTP 502, 503 or 504), or broke off.
    pub answered: u64,
    /// There was an error in the place of an answer, as when a connection is lost or a time is up.
    pub unanswered: u64,
    /// The caller gave it up after the endpoint had long [answered nobody](crate::OutlierDetection::unresponsive_after).
    pub given_up: u64,
}

impl FailureCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.answered + self.unanswered + self.given_up
    }
}

/// Ejections by [reason](crate::EjectionReason).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct EjectionCounts {
    /// Too many failures in a row.
    pub consecutive_failures: u64,
    /// Too few successes.
    pub success_rate: u64,
    /// Requests waited, and none was answered.
    pub unresponsive: u64,
    /// A health check failed.
    pub check_failed: u64,
    /// Others had answered several of its requests first.
    pub slow: u64,
}

impl EjectionCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        let requests = self.consecutive_failures + self.success_rate + self.unresponsive;
        requests + self.check_failed + self.slow
    }
}

/// What a balancer has counted as a whole. Each is a count that never goes down, except
/// [`ConnectionCounts::idle`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct BalanceCounts {
    /// The sum of all endpoints', those that have left included.
    pub endpoints: EndpointCounts,
    /// Requests that failed without any endpoint: there was none, or none that accepted them in time.
    pub unplaced: u64,
    /// Requests that had to wait before an endpoint had them, by what for.
    pub waits: WaitCounts,
    /// Requests that were sent again, by why.
    pub retries: RetryCounts,
    /// Hedges that were sent.
    pub hedges: u64,
    /// Hedges of those that were answered before the request that they were the hedge of.
    pub hedges_won: u64,
    /// Requests that were not hedged when they were late, for want of a share or of the retries' budget. They may have been later.
    pub hedges_refused: u64,
    /// Discovery's answers, by what they were.
    pub discovery: DiscoveryCounts,
}

/// Waits by what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct WaitCounts {
    /// For discovery's first answer.
    pub discovery: Waits,
    /// For an endpoint that accepts requests, where all refused.
    pub unreachable: Waits,
    /// For the endpoint that was picked to be ready: a connection is made, or a limit is reached.
    pub connection: Waits,
    /// For the one pod that the request is for.
    pub pod: Waits,
}

/// Requests that waited. One that waits twice counts twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Waits {
    /// How many have begun to wait.
    pub begun: u64,
    /// How many of them wait no longer, for whatever reason.
    pub ended: u64,
    /// How long those have waited, together, in microseconds.
    pub sum_micros: u64,
}

impl Waits {
    /// How many wait now.
    pub fn waiting(&self) -> u64 {
        self.begun.saturating_sub(self.ended)
    }

    /// How long those that wait no longer have waited, together.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }
}

/// Retries by why. A client's own, and those of a [`RetryLayer`](crate::RetryLayer).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct RetryCounts {
    /// The answer was one that is retried, such as a 503.
    pub answered: u64,
    /// The request was lost.
    pub lost: u64,
    /// The endpoint said that it had not processed the request.
    pub unprocessed: u64,
    /// No endpoint had taken it.
    pub unsent: u64,
    /// Requests that were not sent again because the budget was spent.
    pub budget_refused: u64,
}

impl RetryCounts {
    /// All that were sent again.
    pub fn total(&self) -> u64 {
        self.answered + self.lost + self.unprocessed + self.unsent
    }
}

/// Discovery's answers, by what they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct DiscoveryCounts {
    /// Sets with endpoints.
    pub found: u64,
    /// Sets without any.
    pub empty: u64,
    /// Failures.
    pub failed: u64,
}

impl AddAssign<&EndpointCounts> for EndpointCounts {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.successes += other.successes;
        self.failures.answered += other.failures.answered;
        self.failures.unanswered += other.failures.unanswered;
        self.failures.given_up += other.failures.given_up;
        self.overloads += other.overloads;
        self.cancelled += other.cancelled;
        self.refused += other.refused;
        self.handed_back += other.handed_back;
        self.busy += other.busy;
        self.trials += other.trials;
        self.retries += other.retries;
        self.hedges += other.hedges;
        self.overtaken += other.overtaken;
        self.ejections.consecutive_failures += other.ejections.consecutive_failures;
        self.ejections.success_rate += other.ejections.success_rate;
        self.ejections.unresponsive += other.ejections.unresponsive;
        self.ejections.check_failed += other.ejections.check_failed;
        self.ejections.slow += other.ejections.slow;
        self.unreachable += other.unreachable;
        self.latency.add(&other.latency);
        self.connections += &other.connections;
    }
}
