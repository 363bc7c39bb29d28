//! How much a client reads and buffers of what pods send. [`ClientBuilder`](super::ClientBuilder) documents each limit.

use http::HeaderMap;
use http_body::Frame;

/// Limits of a client's connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireLimits {
    /// Bytes of a response's head, and of its trailers.
    pub(super) header_size: u32,
    /// Headers of an HTTP/1.1 response's head. Trailers may be as many, but at most [`OWN_HEADERS`].
    pub(super) http1_headers: usize,
    /// Bytes of a response that may be in transit or unread.
    pub(super) stream_window: u32,
    /// Bytes of all responses of an HTTP/2 connection that may be in transit or unread.
    pub(super) connection_window: u32,
    /// Bytes of an HTTP/2 frame.
    pub(super) frame_size: u32,
    /// How many cancelled streams an HTTP/2 connection remembers, to recognize late answers.
    pub(super) reset_streams: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self {
            header_size: 1 << 20,
            http1_headers: 256,
            stream_window: 2 << 20,
            connection_window: 1 << 30,
            frame_size: 16 << 10,
            reset_streams: 10_000,
        }
    }
}

/// The headers, and trailers, for which hyper has room by itself.
pub(super) const OWN_HEADERS: usize = 100;

/// How many times [`WireLimits::header_size`] h2 itself reads.
///
/// h2 drops what is beyond its own limit, for trailers silently, and closes the connection at four times that. So its
/// limit is far above ours, and a response between the two fails only its own request.
const H2_TIMES: u32 = 16;

/// How many times [`WireLimits::header_size`] a block of headers may have on the wire before the connection is closed.
///
/// At half of what h2 reads, nothing can be dropped unnoticed. h2 drops the first header that crosses its limit. If
/// that header has at most 15 times our size, those before it exceed our limit already. If it has more, it exceeds this
/// limit on the wire: Huffman's shortest code has 5 bits for a byte, and 15 × 5/8 > 8; and HPACK's table of 4 KiB can't
/// hold such a header.
const BLOCK_TIMES: u32 = 8;

/// A map holds no more names than this (`http::HeaderMap`); h2 drops the rest.
const MOST_NAMES: usize = 24_576;

/// What HPACK counts for each header besides its text (RFC 7541 §4.1).
const HEADER: usize = 32;
/// `:status` and its value.
const STATUS: usize = 7 + 3 + HEADER;

/// A response that is larger than this client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooLarge {
    #[error("its head is larger than {0} bytes (`max_response_header_size`)")]
    Head(u32),
    #[error(
        "its head is larger than {size} bytes (`max_response_header_size`) or has more than {headers} headers \
         (`http1_max_headers`)"
    )]
    Http1Head { size: u32, headers: usize },
    #[error("its trailers are larger than {0} bytes (`max_response_header_size`)")]
    Trailers(u32),
    #[error(
        "its trailers are larger than {size} bytes (`max_response_header_size`) or more than {headers} \
         (`http1_max_headers`, and at most {OWN_HEADERS})"
    )]
    Http1Trailers { size: u32, headers: usize },
    #[error("its trailers have {MOST_NAMES} names or more")]
    Names,
    #[error(
        "a head or trailers on its connection are larger than {0} bytes (8 × `max_response_header_size`)"
    )]
    Block(usize),
}

impl WireLimits {
    /// How much h2 reads of a head or of trailers.
    pub(super) fn h2_header_size(&self) -> u32 {
        self.header_size.saturating_mul(H2_TIMES)
    }

    /// How much a head or trailers may take on the wire.
    pub(super) fn block_size(&self) -> usize {
        self.header_size.saturating_mul(BLOCK_TIMES) as usize
    }

    /// Checks the head of an HTTP/2 response.
    pub(super) fn check_head(&self, headers: &HeaderMap) -> Result<(), TooLarge> {
        match STATUS + size(headers) > self.header_size as usize {
            true => Err(TooLarge::Head(self.header_size)),
            false => Ok(()),
        }
    }

    /// Checks a frame of an HTTP/2 response, which may be its trailers.
    pub(super) fn check_frame<D>(&self, frame: &Frame<D>) -> Result<(), TooLarge> {
        let Some(trailers) = frame.trailers_ref() else {
            return Ok(());
        };
        if size(trailers) > self.header_size as usize {
            return Err(TooLarge::Trailers(self.header_size));
        }
        match trailers.keys_len() < MOST_NAMES {
            true => Ok(()),
            false => Err(TooLarge::Names),
        }
    }

    pub(super) fn http1_head(&self) -> TooLarge {
        TooLarge::Http1Head {
            size: self.header_size,
            headers: self.http1_headers,
        }
    }

    pub(super) fn http1_trailers(&self) -> TooLarge {
        TooLarge::Http1Trailers {
            size: self.header_size,
            headers: self.http1_headers.min(OWN_HEADERS),
        }
    }
}

/// The size as HPACK and `SETTINGS_MAX_HEADER_LIST_SIZE` count it.
fn size(headers: &HeaderMap) -> usize {
    let fields = headers.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn of(text: usize) -> HeaderMap {
        let name = HeaderName::from_static("a");
        let value = HeaderValue::from_bytes(&vec![b'x'; text]).expect("a value");
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn the_size_of_a_head_is_that_of_hpack() {
        let limits = WireLimits::default();
        let most = (1 << 20) - STATUS - HEADER - 1;
        assert_eq!(limits.check_head(&of(most)), Ok(()));
        assert_eq!(
            limits.check_head(&of(most + 1)),
            Err(TooLarge::Head(1 << 20))
        );
    }

    #[test]
    fn trailers_with_more_names_than_a_map_holds_are_an_error() {
        let limits = WireLimits {
            header_size: 1 << 30,
            ..WireLimits::default()
        };
        let named = |names: usize| {
            let names =
                (0..names).map(|at| HeaderName::try_from(format!("x{at}")).expect("a name"));
            let headers = names.map(|name| (name, HeaderValue::from_static("")));
            Frame::<()>::trailers(headers.collect())
        };
        assert_eq!(limits.check_frame(&named(MOST_NAMES - 1)), Ok(()));
        assert_eq!(limits.check_frame(&named(MOST_NAMES)), Err(TooLarge::Names));
    }

    #[test]
    fn errors_name_the_limit_and_its_setting() {
        let limits = WireLimits::default();
        for (error, headers) in [
            (limits.http1_head(), "256 headers"),
            (limits.http1_trailers(), "more than 100 "),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("1048576 bytes") && text.contains(headers),
                "{text}"
            );
            assert!(text.contains("max_response_header_size"), "{text}");
            assert!(text.contains("http1_max_headers"), "{text}");
        }
    }
}
