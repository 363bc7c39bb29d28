//! Settings of tracing.

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Whether each request has a [span](crate::guide::observability#spans) of tracing's, with OpenTelemetry's attributes; off by default. Where nobody
    /// subscribes to them, they aren't made.
    pub fn request_spans(mut self, are_made: bool) -> Self {
        self.has_spans = are_made;
        self
    }
}
