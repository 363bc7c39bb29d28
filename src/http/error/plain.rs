//! How a connection has ended, in plain words: hyper and h2 talk about their internals.

use std::{error::Error, io};

/// The text for the end of a connection or a stream; none if the error's own text will do.
pub(super) fn words(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(words) = of(error) {
            return Some(words);
        }
        next = error.source();
    }
    None
}

fn of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        // hyper has no method for this. A server of TLS or HTTP/2 answers a request of HTTP/1.1 in its own protocol.
        if error.is_parse() && error.to_string().starts_with("invalid HTTP version") {
            let advice = "does the port want `https`, or `Protocol::Http2`?";
            return Some(format!("its answer is not HTTP/1.1 ({advice})"));
        }
        let is_early = error.is_incomplete_message();
        return is_early.then(|| "it closed the connection before the end of its response".into());
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
        return is_end.then(|| "it closed the connection before the end of its response".into());
    }
    let error = error.downcast_ref::<h2::Error>()?;
    let reason = error.reason().filter(|_| error.is_remote())?;
    if error.is_go_away() {
        return Some(format!(
            "it closed the HTTP/2 connection (GOAWAY: {reason:?})"
        ));
    }
    let what = match reason {
        h2::Reason::REFUSED_STREAM => "it refused the request",
        _ => "it reset the HTTP/2 stream",
    };
    error
        .is_reset()
        .then(|| format!("{what} (RST_STREAM: {reason:?})"))
}
