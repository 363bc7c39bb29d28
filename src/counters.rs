//! What is counted of requests, endpoint by endpoint and for a balancer as a whole.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `counters/tally.rs` | the counters themselves: relaxed atomics, which requests write |
//! | `counters/connections.rs` | those of connections, which pools write |
//! | `counters/count.rs` | one of them |
//! | `counters/counts.rs` | the same as plain numbers, for whoever reads |
//! | `counters/latencies.rs` | the histogram of both |
//!
//! A request writes two words of its own endpoint, and no word that all endpoints share. Nothing is summed up before somebody
//! reads. An endpoint's counters are kept by the balancer's from the endpoint's first moment, and added to its sums once the
//! last request of an endpoint that has left has ended: so totals never go down.

#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "the HTTP client's pools count connections")
)]
mod connections;
mod count;
mod counts;
mod latencies;
mod tally;

pub(crate) use connections::joining;
#[cfg(feature = "http")]
pub(crate) use connections::{Closed, ConnectionTally, HasIdle, NotConnected, claim};
pub use counts::{
    BalanceCounts, ConnectionCounts, ConnectionEnds, ConnectionFailures, DiscoveryCounts,
    EjectionCounts, EndpointCounts, FailureCounts, RetryCounts, WaitCounts, Waits,
};
pub use latencies::{LATENCY_BOUNDS, LatencyCounts};
pub(crate) use tally::{
    BalanceTally, EndpointTally, Failed, LastFailure, Retried, TurnedDown, Wait, WaitCause,
    WhatFailed,
};
