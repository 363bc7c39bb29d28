//! The parts of the test kit that only this crate's own tests need, around [`tower_headless::test_util`]: real servers,
//! pods as processes, scripted pods, an API server, loads, a terminal.
//!
//! Nothing here sleeps and hopes: tests wait for events (`wait_until`, `next_query`), and [`within`] bounds every wait,
//! so that a bug fails a test instead of hanging it.
//!
//! Real sockets need real time. Don't use them under `start_paused`, because tokio's clock then jumps past every
//! timeout while a packet is on its way.

// No test binary uses all of the kit. `pub` marks what it offers to tests, though nothing in a private module is
// reachable from outside the crate.
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

/// Refuses connections at an address where nobody listens. The address stays bound, or another test could get it.
pub fn refuse_at(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    // Earlier connections of the port may still be in TIME_WAIT.
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a port");
    let socket: &tokio::net::TcpSocket = Box::leak(Box::new(socket));
    socket.local_addr().expect("an address")
}
