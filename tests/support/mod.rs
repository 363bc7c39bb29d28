//! What only this crate's own tests need, around [`tower_headless::test_util`]: real servers, pods as processes, pods that
//! answer bytes from a script, an API server, loads, a terminal.
//!
//! Nothing here sleeps for luck: tests wait for events (`wait_until`, `next_query`), and every wait is bounded by
//! [`within`], so that a bug fails a test instead of hanging it.
//!
//! Real sockets need real time: don't use the kit under `start_paused`, where tokio's clock jumps past every timeout
//! while a packet is on its way.

// Each test binary uses its own part of the kit; none uses all of it. `pub` says what is offered to them, though nothing of a
// private module is reachable from outside the crate.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod api_server;
#[cfg(feature = "json")]
pub mod browser;
pub mod client;
pub mod cluster;
pub mod dns;
pub mod example;
pub mod http;
#[cfg(feature = "http")]
pub mod load;
mod lock;
pub mod logs;
pub mod pod;
pub mod process;
pub mod scripted;
pub mod servers;
pub mod terminal;
pub mod tls;

pub(crate) use lock::lock;
pub use tower_headless::test_util::{PATIENCE, within};

/// Refuses connections at an address that nobody listens at. It is bound for good: else it may become that of another test.
pub fn refuse_at(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    // Connections that the port has had may not be over.
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a port");
    let socket: &tokio::net::TcpSocket = Box::leak(Box::new(socket));
    socket.local_addr().expect("an address")
}
