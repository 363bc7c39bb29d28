//! Settings of gRPC calls.

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Whether errors of gRPC calls are told by gRPC's statuses, as gRPC's libraries understand them; on by default. See
    /// [gRPC](super::super::Client#grpc).
    ///
    /// Where it is off, such a call fails with the client's own [`Error`](super::super::Error), as any request does. tonic takes
    /// most of these for `Unknown`.
    pub fn grpc_status(mut self, is_told: bool) -> Self {
        self.grpc_status = is_told;
        self
    }
}
