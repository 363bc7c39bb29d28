//! How a pod treats requests, and its numbers.

use std::time::Duration;

use http::StatusCode;

/// What a pod does with a request once it has read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The pod's answer.
    #[default]
    Healthy,
    /// The pod's answer, this much later.
    Slow(Duration),
    /// An answer with this status.
    Status(StatusCode),
    /// gRPC's answer with this [status code](https://grpc.io/docs/guides/status-codes/): 14 is `UNAVAILABLE`.
    Grpc(u8),
    /// No answer, ever; the connection stays open.
    Hung,
    /// The connection is closed instead of an answer (HTTP/2: the stream is reset).
    CloseWithoutAnswer,
}

/// A pod's numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests begun, since the pod was first started.
    pub requests: usize,
    /// Requests begun whose response body has neither ended nor been dropped.
    pub in_flight: usize,
    /// Connections accepted since the pod was first started.
    pub accepted: usize,
    /// Connections open.
    pub connections: usize,
}
