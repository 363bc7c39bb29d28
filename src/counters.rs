//! Counters of requests and connections, for each endpoint and for a balancer as a whole.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `counters/tally.rs` | the counters that requests write: relaxed atomics; in `tally/` those of one endpoint, and of waits |
//! | `counters/connections.rs` | the counters that connection pools write |
//! | `counters/count.rs` | a single counter |
//! | `counters/counts.rs` | plain numbers, for readers |
//! | `counters/latencies.rs` | the latency histogram, as atomics and as plain numbers |
//!
//! A request writes two words of its own endpoint, and no word that all endpoints share. Sums are made only when
//! somebody reads. The balancer keeps an endpoint's counters from the moment it joins. When an endpoint has left and
//! its last request has ended, its counters are added to the balancer's sums, so totals never go down.

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
