//! Settings of how much is read and buffered, and the list of all such bounds.

use super::ClientBuilder;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The smallest and the largest frame of HTTP/2, and its largest window (RFC 9113 §4.2 and §6.9.1).
const FRAMES: (u32, u32) = (1 << 14, (1 << 24) - 1);
const WINDOWS: (u32, u32) = ((1 << 16) - 1, (1 << 31) - 1);
/// A header map holds no more headers than this.
const MOST_HEADERS: usize = 24_000;

/// # What bounds a connection
///
/// Every window, limit and bound, including those of the libraries below (hyper, h2), that can end, delay or truncate a
/// request or a connection. If a response exceeds one of the client's own bounds, that is the client's error
/// ([`Error::is_limit`](crate::http::Error::is_limit)): the pod isn't blamed, and no other pod is asked.
///
/// **Responses, both protocols**
///
/// | bound | value | why | setting | beyond it |
/// | --- | --- | --- | --- | --- |
/// | bytes of a head, and of trailers | 1 MiB | 64 times the usual size; hyper's are 408 KiB and 16 KiB | [`max_response_header_size`](Self::max_response_header_size) | `is_limit` for this request |
/// | headers of an HTTP/1.1 head | 256 | hyper's is 100, which pages with many cookies exceed | [`http1_max_headers`](Self::http1_max_headers) | `is_limit` for this request; its connection closes |
/// | headers for which an HTTP/1.1 connection has room from the start | 100 | hyper's; more room costs every request, and few services need it | – | the connection closes after its response; the client's later connections have the full room |
/// | HTTP/1.1 trailers | 100 | hyper's | [`http1_max_headers`](Self::http1_max_headers), if it is less | `is_limit` for this request; its connection closes |
/// | bytes of a body that is read as a whole (`bytes`, `text`, `json`) | 64 MiB | 6 times the largest default of others (Armeria's 10 MiB): no service meets it by accident, and no single response can fill the process's memory | [`response_limit`](Self::response_limit) | `is_limit` for this request; what is left is cancelled |
/// | names in an HTTP/2 head or trailers | 24,575 | what a header map holds | – | head: its stream is reset, as if malformed; trailers: `is_limit` |
///
/// **HTTP/1.1**
///
/// | bound | value | why | setting | beyond it |
/// | --- | --- | --- | --- | --- |
/// | read buffer, and write buffer | 408 KiB, or as much as a head may have | hyper's | [`max_response_header_size`](Self::max_response_header_size) | reads and writes wait |
/// | extensions of chunks, bytes in a body | 16 KiB | hyper's | – | the body breaks off |
///
/// **HTTP/2: what a response takes**
///
/// | bound | value | why | setting | beyond it |
/// | --- | --- | --- | --- | --- |
/// | stream window | 2 MiB | hyper's, tonic's and reqwest's: 1 GB/s at 2 ms | [`http2_initial_stream_window_size`](Self::http2_initial_stream_window_size) | that response waits to be read |
/// | connection window | 1 GiB | Go's client's: 512 unread responses block no other; with hyper's 5 MiB, three would | [`http2_initial_connection_window_size`](Self::http2_initial_connection_window_size) | all responses on the connection wait |
/// | small DATA frames that wait to be read | half the connection window, counting 256 bytes less their payload each | h2's | the same | the connection closes |
/// | empty DATA frames, over a connection's life | no bound | h2 would close the connection after 100; they are skipped before h2 sees them | – | – |
/// | frame | 16 KiB | the protocol's default: larger ones make other streams wait | [`http2_max_frame_size`](Self::http2_max_frame_size) | the connection closes: the pod has been told |
/// | header list size that pods are told (`SETTINGS_MAX_HEADER_LIST_SIZE`) | 1 MiB | what a head may have | [`max_response_header_size`](Self::max_response_header_size) | – |
/// | a block of headers on the wire | 8 times that | a block between the two sizes is read and refused, so that it harms no other stream | the same | the connection closes, `is_limit` for all on it |
/// | a block of headers, decompressed | 16 times that | h2's limit is set there, because beyond it h2 cuts trailers silently | the same | its stream is reset |
/// | a block of headers, decompressed, at which h2 gives up | 64 times that | h2's: four times its limit | the same | the connection closes |
/// | CONTINUATION frames of a block | 1,280 | h2's, from its limit | the same | the connection closes |
/// | table of compressed headers | 4 KiB | the protocol's default | – | – |
/// | pushed responses | none | refused in our SETTINGS | – | the connection closes |
///
/// **HTTP/2: requests**
///
/// | bound | value | why | setting | beyond it |
/// | --- | --- | --- | --- | --- |
/// | requests at once | as the pod's SETTINGS say | none are sent before they arrive | [`max_connections`](Self::max_connections) | another connection; then they wait |
/// | bytes of a body that h2 holds for each request | 1 MiB | hyper's | – | reading the body pauses |
/// | cancelled streams that are remembered | 10,000 a connection, for 30 s | a late answer to one is dropped; 4 MB at most | [`http2_max_concurrent_reset_streams`](Self::http2_max_concurrent_reset_streams) | a late answer is reset again, harmless |
/// | late or malformed answers that are reset | no bound | hyper would close the connection, with all requests on it, after 1,024 | – | – |
/// | streams over a connection's life | 2³⁰ | the protocol's | – | another connection |
/// | silence after a ping | 5 s | – | [`http2_ping`](Self::http2_ping): whether there are pings | the connection closes |
///
/// # Memory
///
/// A response that nobody reads holds up to a stream window. `cargo bench --bench held` measures it:
///
/// | | memory |
/// | --- | --- |
/// | 100 responses of 4 MiB each, on one connection, of which only the heads are read | 201 MiB: a stream window each |
/// | after 100,000 cancelled requests, on one connection | 3.7 MiB |
/// | each cancelled stream that is remembered | 0.4 KiB |
impl<D> ClientBuilder<D> {
    /// How many bytes the head of a response may have, and its trailers; 1 MiB by default. HTTP/2 counts 32 bytes more
    /// for each header, as `SETTINGS_MAX_HEADER_LIST_SIZE` does.
    ///
    /// If a response has more, only its own request fails ([`is_limit`](crate::http::Error::is_limit)); it may have
    /// been executed. 1 KiB at least, 64 MiB at most.
    pub fn max_response_header_size(mut self, bytes: usize) -> Self {
        self.connector.limits.header_size = clamped(bytes, (KIB as u32, 64 * MIB as u32));
        self
    }

    /// How many headers an HTTP/1.1 response may have; 256 by default. For HTTP/2 only their
    /// [size](Self::max_response_header_size) counts.
    ///
    /// If a response has more, only its own request fails ([`is_limit`](crate::http::Error::is_limit)); it may have
    /// been executed. 1 at least, 24,000 at most. Trailers may be as many, but 100 at most.
    ///
    /// Connections begin with room for 100, or for this many if it is less. A head with more closes its connection
    /// after its response. The rest of the request isn't sent then, and the pod sees the end of the stream, at which
    /// some servers end their response, too. From then on the client's new connections make room for this many headers
    /// while they read a head, 64 bytes each: at 1,000 a small request takes half as long again.
    pub fn http1_max_headers(mut self, headers: usize) -> Self {
        self.connector.limits.http1_headers = headers.clamp(1, MOST_HEADERS);
        self
    }

    /// How many bytes of an HTTP/2 response may be in transit or unread before the pod must wait; 2 MiB by default.
    ///
    /// It bounds the memory of an unread response, and the speed of a read one: a window for each round trip. 65,535 at
    /// least, 2³¹ − 1 at most.
    pub fn http2_initial_stream_window_size(mut self, bytes: usize) -> Self {
        self.connector.limits.stream_window = clamped(bytes, WINDOWS);
        self
    }

    /// How many bytes of all responses of an HTTP/2 connection may be in transit or unread before the pod must wait; 1
    /// GiB by default.
    ///
    /// When unread responses have used it up, all others on the connection wait. So leave room for as many [stream
    /// windows](Self::http2_initial_stream_window_size) as responses may be unread at once. 65,535 at least, 2³¹ − 1 at
    /// most.
    pub fn http2_initial_connection_window_size(mut self, bytes: usize) -> Self {
        self.connector.limits.connection_window = clamped(bytes, WINDOWS);
        self
    }

    /// How many bytes a frame of an HTTP/2 response may have; 16 KiB by default, which is also the least. 2²⁴ − 1 at
    /// most.
    pub fn http2_max_frame_size(mut self, bytes: usize) -> Self {
        self.connector.limits.frame_size = clamped(bytes, FRAMES);
        self
    }

    /// How many cancelled HTTP/2 streams each connection remembers, for 30 s; 10,000 by default.
    ///
    /// The answer to a cancelled request may be in transit. If its stream is remembered, the answer is dropped; if not,
    /// the pod gets another reset.
    pub fn http2_max_concurrent_reset_streams(mut self, streams: usize) -> Self {
        self.connector.limits.reset_streams = streams;
        self
    }
}

fn clamped(value: usize, (least, most): (u32, u32)) -> u32 {
    u32::try_from(value).unwrap_or(most).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_all(value: usize) -> [usize; 6] {
        let builder = ClientBuilder::new("http://web:80".parse().expect("a URI"))
            .max_response_header_size(value)
            .http1_max_headers(value)
            .http2_initial_stream_window_size(value)
            .http2_initial_connection_window_size(value)
            .http2_max_frame_size(value)
            .http2_max_concurrent_reset_streams(value);
        let limits = builder.connector.limits;
        [
            limits.header_size as usize,
            limits.http1_headers,
            limits.stream_window as usize,
            limits.connection_window as usize,
            limits.frame_size as usize,
            limits.reset_streams,
        ]
    }

    #[test]
    fn absurd_limits_are_bounded() {
        assert_eq!(with_all(0), [1 << 10, 1, 65_535, 65_535, 1 << 14, 0]);
        let (window, frame) = ((1 << 31) - 1, (1 << 24) - 1);
        let most = [64 << 20, 24_000, window, window, frame, usize::MAX];
        assert_eq!(with_all(usize::MAX), most);
        let usual = [20_000, 20_000, 65_535, 65_535, 20_000, 20_000];
        assert_eq!(with_all(20_000), usual);
    }
}
