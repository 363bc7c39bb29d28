//! Which protocol pods are spoken to in.

/// Which protocol pods are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Over TLS, what the pod chooses of the two (ALPN); in clear, HTTP/1.1.
    #[default]
    Negotiated,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear with prior knowledge (RFC 9113 §3.3), as gRPC has it.
    Http2,
}
