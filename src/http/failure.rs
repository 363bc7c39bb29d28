//! What a failure says of the request and of its pod.

use std::{io, sync::Weak, time::Duration};

use super::{
    cause::{h2_cause, is_too_large},
    error::{Failure, NoFirstByte, NotAccepted, Outcome, RuntimeEnded},
    pool::{Origin, Pool, Reserved, Stream},
    wire_limits::{TooLarge, WireLimits},
};
use crate::{
    error::{BoxError, Refused, Suspect},
    logs::{CONNECTIONS, Line, debug},
};

/// The failure of a request that was written, at least in part, or that hyper doesn't give back.
pub(super) fn failure(
    error: hyper::Error,
    connection: &Reserved,
    limits: &WireLimits,
    pool: &Weak<Pool>,
) -> BoxError {
    if is_not_accepted(&error) {
        // It does so with all connections, so it is passed over, like a pod that refuses them at once.
        let (outcome, source) = (Outcome::Unprocessed, error.into());
        return Suspect::Refuses(Failure { outcome, source }.into()).into();
    }
    if let Some(source) = connection.take_body_error() {
        let outcome = Outcome::Abandoned;
        return Failure { outcome, source }.into();
    }
    let own = match connection {
        Reserved::Http1(_) if is_too_large(&error) => Some(too_large(limits.http1_head())),
        Reserved::Http1(_) => None,
        Reserved::Http2(stream) => http2_failure(stream, limits),
    };
    if let Some(failure) = own {
        return failure.into();
    }
    let is_cut_off = is_end_of_runtime(&error, connection.is_cut_off());
    let outcome = match connection {
        _ if is_cut_off => Outcome::Unknown,
        Reserved::Http1(_) if error.is_user() => Outcome::Abandoned,
        _ => outcome(&error),
    };
    // Other connections to this pod may be broken, too.
    let is_broken = outcome != Outcome::Abandoned && !error.is_parse() && !is_cut_off;
    if is_broken && let Some(pool) = pool.upgrade() {
        let Origin { pod, service } = &*pool.named.origin;
        let why = Line(&error);
        debug!(CONNECTIONS, service, endpoint = %pod, error = %why, "a connection broke; closing the idle ones");
        pool.close_idle();
    }
    let is_refused = h2_cause(&error).is_some_and(is_refused);
    let source = match is_cut_off {
        true => RuntimeEnded.into(),
        false => error.into(),
    };
    let failure = Failure { outcome, source }.into();
    match is_refused {
        true => Refused(failure).into(),
        false => failure,
    }
}

/// Failures over HTTP/2 that are not the pod's: hyper's errors don't tell.
fn http2_failure(stream: &Stream, limits: &WireLimits) -> Option<Failure> {
    if stream.fate().was_held_back() {
        return Some(Failure {
            outcome: Outcome::Unprocessed,
            source: "the connection ended before the request was written".into(),
        });
    }
    let has_overrun = stream.http2().seen.has_overrun();
    has_overrun.then(|| too_large(TooLarge::Block(limits.block_size())))
}

/// The pod has answered with more than the client reads.
pub(super) fn too_large(source: TooLarge) -> Failure {
    Failure {
        outcome: Outcome::Limit,
        source: source.into(),
    }
}

/// Passes over a pod that has missed the time for its first byte, until it answers again.
pub(super) fn late(bound: Duration) -> BoxError {
    Suspect::Late(
        Failure {
            outcome: Outcome::Unknown,
            source: NoFirstByte(bound).into(),
        }
        .into(),
    )
    .into()
}

/// What became of the request. HTTP/2 can say that it was not processed: its stream was refused, or is above the last
/// one that a GOAWAY names (RFC 9113 §6.8 and §8.7). Only the latter end with the peer's GOAWAY in h2.
fn outcome(error: &hyper::Error) -> Outcome {
    let Some(cause) = h2_cause(error) else {
        return Outcome::Unknown;
    };
    if is_refused(cause) || (cause.is_remote() && cause.is_go_away()) {
        return Outcome::Unprocessed;
    }
    Outcome::Unknown
}

/// Whether a request or a response ended with its runtime, and not because the pod ended it before.
pub(super) fn is_end_of_runtime(error: &hyper::Error, is_cut_off: bool) -> bool {
    is_cut_off && !h2_cause(error).is_some_and(h2::Error::is_remote)
}

/// Whether the pod refused only this stream, and keeps the connection. A GOAWAY doesn't count: the pod may go on over
/// another connection.
fn is_refused(cause: &h2::Error) -> bool {
    cause.is_remote() && cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// Whether the pod refused the connection after the handshake looked complete, and so has read nothing of the request.
pub(super) fn is_not_accepted(error: &hyper::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<io::Error>();
        if io
            .and_then(io::Error::get_ref)
            .is_some_and(|it| it.is::<NotAccepted>())
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether a request failed together with its connection: streams also fail one by one, and some were never opened.
pub(super) fn is_lost_with_connection(error: &hyper::Error, connection: &Reserved) -> bool {
    match connection {
        Reserved::Http1(_) => true,
        Reserved::Http2(stream) => {
            h2_cause(error).is_none_or(h2::Error::is_io)
                && !error.is_user()
                && !stream.fate().was_held_back()
        }
    }
}
