//! What hyper's errors mean, where hyper has no question for it.

use std::{error::Error, io};

/// The head of a message has no room. hyper has a question for this, but for servers alone.
pub(super) fn is_too_large(error: &hyper::Error) -> bool {
    error.is_parse() && error.to_string() == "message head is too large"
}

pub(super) fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    cause_of(error)
}

/// Whether the pod has broken the protocol: what it has sent is none, or comes unasked.
pub(super) fn is_breach(error: &hyper::Error) -> bool {
    // hyper has no question for this one.
    let is_unasked = error.to_string() == "received unexpected message from connection";
    if error.is_parse() || is_unasked {
        return true;
    }
    if let Some(h2) = h2_cause(error) {
        // What the pod says of its own end, or of one stream, breaks nothing.
        let is_error = h2.reason().is_some_and(|it| it != h2::Reason::NO_ERROR);
        return is_error && !h2.is_remote();
    }
    // A body's chunks, or a record of TLS.
    let io = cause_of::<io::Error>(error).map(io::Error::kind);
    io.is_some_and(|it| matches!(it, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

pub(super) fn cause_of<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}
