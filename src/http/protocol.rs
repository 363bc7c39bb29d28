//! Which protocol the client speaks to pods.

/// Which protocol a client speaks to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Over TLS, HTTP/2 or HTTP/1.1, as the pod chooses (ALPN); without TLS, HTTP/1.1.
    #[default]
    Negotiated,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only. Without TLS by prior knowledge (RFC 9113 §3.3), as gRPC does.
    Http2,
}
