//! What hyper's errors mean, if hyper has no method to ask.

use std::{error::Error, io};

/// Whether the head of a message was too large. hyper has a method for this, but only for servers.
pub(super) fn is_too_large(error: &hyper::Error) -> bool {
    error.is_parse() && error.to_string() == "message head is too large"
}

pub(super) fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    cause_of(error)
}

/// Whether the pod has violated the protocol: its data can't be parsed, or nobody asked for it.
pub(super) fn is_breach(error: &hyper::Error) -> bool {
    // hyper has no method for this one.
    let is_unasked = error.to_string() == "received unexpected message from connection";
    if error.is_parse() || is_unasked {
        return true;
    }
    if let Some(h2) = h2_cause(error) {
        // A pod that ends the connection or one stream violates nothing.
        let is_error = h2.reason().is_some_and(|it| it != h2::Reason::NO_ERROR);
        return is_error && !h2.is_remote();
    }
    // A body's chunks, or a TLS record.
    let io = cause_of::<io::Error>(error).map(io::Error::kind);
    io.is_some_and(|it| matches!(it, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

pub(super) fn cause_of<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}
