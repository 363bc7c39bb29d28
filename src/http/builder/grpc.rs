//! Settings of gRPC calls.

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Whether gRPC calls get their errors as gRPC statuses, as gRPC's libraries expect; on by default. See
    /// [gRPC](super::super::Client#grpc).
    ///
    /// If it is off, such a call fails with the client's own [`Error`](super::super::Error), like any request. tonic
    /// turns most of these into `Unknown`.
    pub fn grpc_status(mut self, is_told: bool) -> Self {
        self.grpc_status = is_told;
        self
    }
}
