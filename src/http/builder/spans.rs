//! Settings of what is recorded of each request.

use super::ClientBuilder;

impl<D> ClientBuilder<D> {
    /// Whether each request has a [tracing span](crate::guide::observability#spans) with OpenTelemetry's attributes;
    /// off by default. Spans that nobody subscribes to aren't made.
    pub fn request_spans(mut self, are_made: bool) -> Self {
        self.has_spans = are_made;
        self
    }

    /// Whether each response and each error has a log of its attempts, as if each request had [asked for
    /// it](crate::http::RequestBuilder::attempts); off by default. It costs each request a few allocations.
    pub fn request_attempts(mut self, are_told: bool) -> Self {
        self.has_attempts = are_told;
        self
    }
}
