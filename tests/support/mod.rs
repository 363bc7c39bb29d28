//! The test kit: a DNS server, pods and a cluster of both, all inside the test's own process and on loopback.
//!
//! Nothing here sleeps for luck: tests wait for events (`wait_until`, `next_query`), and every wait is bounded by
//! [`within`], so that a bug fails a test instead of hanging it.
//!
//! Real sockets need real time: don't use the kit under `start_paused`, where tokio's clock jumps past every timeout
//! while a packet is on its way.

// Each test binary, and the example, uses its own part of the kit; none uses all of it. `pub` says what is offered to
// them, though nothing of a private module is reachable from outside the crate.
#![allow(dead_code, unreachable_pub)]

pub mod api_server;
pub mod client;
pub mod cluster;
pub mod dns;
pub mod example;
pub mod http;
#[cfg(feature = "http")]
pub mod load;
pub mod pod;
pub mod process;
pub mod scripted;
pub mod servers;
pub mod tls;

use std::{future::Future, time::Duration};

/// Far beyond what any wait takes on a busy machine: only a bug gets here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `event`, and panics saying `what` was missed if it doesn't come.
#[track_caller]
pub fn within<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: {what} didn't come within {PATIENCE:?}"),
        }
    }
}
