//! Counters as plain numbers.

use std::{ops::AddAssign, time::Duration};

use super::latencies::LatencyCounts;

/// Counts of one endpoint's requests since it joined, or of all endpoints' since the balancer was built.
///
/// No count goes down, except [`ConnectionCounts::idle`]. `requests` is counted at the pick, all others later. So
/// `requests` is `successes + failures + overloads + cancelled + refused + handed_back + busy`, plus the requests in
/// flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct EndpointCounts {
    /// Requests that a pick brought to this endpoint. A request that goes on to another endpoint counts there as well.
    pub requests: u64,
    /// Requests that ended as a [success](crate::Outcome::Success).
    pub successes: u64,
    /// Requests that ended as a [failure](crate::Outcome::Failure), by kind.
    pub failures: FailureCounts,
    /// Requests that the endpoint had no room for ([`Outcome::Overload`](crate::Outcome::Overload)).
    pub overloads: u64,
    /// Requests that say nothing about the endpoint ([`Outcome::Ignored`](crate::Outcome::Ignored)). Most of them were
    /// cancelled.
    pub cancelled: u64,
    /// Requests that the endpoint refused before it got them: it wasn't ready, for example because a connection
    /// couldn't be made. They went elsewhere.
    pub refused: u64,
    /// Requests that the endpoint's service handed back [unsent](crate::Unsent). They went elsewhere.
    pub handed_back: u64,
    /// Requests for which the endpoint had no connection: [all were in use](crate::Connections::wait_timeout). They
    /// went elsewhere, or failed.
    pub busy: u64,
    /// Trial requests: sent to an endpoint that gets no others, to find out whether it is well again.
    pub trials: u64,
    /// How many of `requests` were retries that went to this endpoint first.
    pub retries: u64,
    /// How many of `requests` were hedges that went to this endpoint first.
    pub hedges: u64,
    /// Requests here whose hedge, at another endpoint, was answered first.
    pub overtaken: u64,
    /// How often it was ejected, by reason.
    pub ejections: EjectionCounts,
    /// How often it became unreachable.
    pub unreachable: u64,
    /// How long its successes took.
    pub latency: LatencyCounts,
    /// Its connections, if this crate makes them: those of an [`http::Client`](crate::http::Client), and of
    /// [`Connections`](crate::Connections).
    pub connections: ConnectionCounts,
}

/// Counts of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Connections made, after all handshakes.
    pub opened: u64,
    /// Connections that could not be made, by cause.
    pub failed: ConnectionFailures,
    /// Connections that were made and have ended, by cause.
    pub closed: ConnectionEnds,
    /// How many are open without a request. This is the only count that can go down.
    pub idle: u64,
}

impl ConnectionCounts {
    /// How many are open now.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed.total())
    }

    /// How many open connections have a request.
    pub fn active(&self) -> u64 {
        self.open().saturating_sub(self.idle)
    }
}

/// Connections that could not be made, by cause.
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
    /// Anything else: there is no route, or the pod doesn't speak HTTP.
    pub other: u64,
}

impl ConnectionFailures {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.refused + self.timeout + self.tls + self.other
    }
}

/// Connections that have ended, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ConnectionEnds {
    /// It had no request for too long, or there were enough idle ones.
    pub idle: u64,
    /// It was too old, had carried its maximum of requests, or was made with settings that have changed since.
    pub age: u64,
    /// The pod closed it, or said that it would, and no request was lost with it.
    pub peer: u64,
    /// It broke off while it had a request, or the pod's node answered no more.
    pub lost: u64,
    /// Its pod left the set (perhaps before the connection was used), or the client ended.
    pub left: u64,
    /// The pod broke the protocol.
    pub protocol: u64,
    /// The client closed it: a request on it was cancelled, or its state had become doubtful.
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
    /// There was an answer that is a failure (over HTTP 502, 503 or 504), or that broke off.
    pub answered: u64,
    /// There was an error instead of an answer: a lost connection, a timeout.
    pub unanswered: u64,
    /// The caller cancelled the request after the endpoint had [answered
    /// nobody](crate::OutlierDetection::unresponsive_after) for long.
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
    /// Hedges at other endpoints had answered several of its requests first.
    pub slow: u64,
}

impl EjectionCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        let requests = self.consecutive_failures + self.success_rate + self.unresponsive;
        requests + self.check_failed + self.slow
    }
}

/// Counts of a balancer as a whole. None goes down, except [`ConnectionCounts::idle`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct BalanceCounts {
    /// The sums over all endpoints, including those that have left.
    pub endpoints: EndpointCounts,
    /// Requests that failed without reaching an endpoint: there was none, or none accepted them in time.
    pub unplaced: u64,
    /// Requests that had to wait before an endpoint got them, by cause.
    pub waits: WaitCounts,
    /// Requests that were sent again, by cause.
    pub retries: RetryCounts,
    /// Hedges that were sent.
    pub hedges: u64,
    /// Hedges that were answered before the request that they hedged.
    pub hedges_won: u64,
    /// Late requests that were not hedged at first, because the hedges' share or the retries' budget was spent. They
    /// may have been hedged later.
    pub hedges_refused: u64,
    /// Discovery's answers, by result.
    pub discovery: DiscoveryCounts,
}

/// Waits, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct WaitCounts {
    /// For discovery's first answer.
    pub discovery: Waits,
    /// For an endpoint that accepts requests, while all refuse.
    pub unreachable: Waits,
    /// For the picked endpoint to be ready: its connection is being made, or a limit is reached.
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
    /// How many requests have begun to wait.
    pub begun: u64,
    /// How many have stopped waiting, for whatever reason.
    pub ended: u64,
    /// The total time of the waits that have ended, in microseconds.
    pub sum_micros: u64,
}

impl Waits {
    /// How many wait now.
    pub fn waiting(&self) -> u64 {
        self.begun.saturating_sub(self.ended)
    }

    /// The total time of the waits that have ended.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }
}

/// Retries, by cause: a client's own, and those of a [`RetryLayer`](crate::RetryLayer).
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
    /// No endpoint had accepted the request.
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

/// Discovery's answers, by result.
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
