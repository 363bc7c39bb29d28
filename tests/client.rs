//! The HTTP client over pods that do what a test tells them, byte by byte where that matters. No DNS: sets are given.

mod support;

#[path = "client/connections.rs"]
mod connections;
#[path = "client/frames.rs"]
mod frames;
#[path = "client/http2.rs"]
mod http2;
#[path = "client/kit.rs"]
mod kit;
#[path = "client/limits.rs"]
mod limits;
#[path = "client/places.rs"]
mod places;
#[path = "client/replay.rs"]
mod replay;
#[path = "client/requests.rs"]
mod requests;
#[path = "client/tls.rs"]
mod tls;
