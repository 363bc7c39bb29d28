//! What a failed request says of itself and of its pod.

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

/// Of a request that was written, if only in part, or that hyper doesn't give back.
pub(super) fn failure(
    error: hyper::Error,
    connection: &Reserved,
    limits: &WireLimits,
    pool: &Weak<Pool>,
) -> BoxError {
    if is_not_accepted(&error) {
        // So it does with all connections: it is passed over, as one that refuses them at once.
        let (outcome, source) = (Outcome::Unprocessed, error.into());
        return Suspect(Failure { outcome, source }.into()).into();
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
    // Whose connection breaks may have more broken ones.
    let is_broken = outcome != Outcome::Abandoned && !error.is_parse() && !is_cut_off;
    if is_broken && let Some(pool) = pool.upgrade() {
        let Origin { pod, service } = &*pool.named.origin;
        let why = Line(&error);
        debug!(CONNECTIONS, service, endpoint = %pod, error = %why, "a connection broke; closing the idle ones");
        pool.distrust();
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

/// What is no failure of the pod's, over HTTP/2: hyper's own errors don't tell.
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

/// A pod that lets the time for its first byte pass is passed over until it answers again.
pub(super) fn late(bound: Duration) -> BoxError {
    Suspect(
        Failure {
            outcome: Outcome::Unknown,
            source: NoFirstByte(bound).into(),
        }
        .into(),
    )
    .into()
}

/// What became of the request. The protocol may say that it was not processed: HTTP/2 streams that are refused, or above the
/// last one that a GOAWAY names (RFC 9113 §6.8 and §8.7). h2 ends the latter, and no others, with the peer's GOAWAY.
fn outcome(error: &hyper::Error) -> Outcome {
    let Some(cause) = h2_cause(error) else {
        return Outcome::Unknown;
    };
    if is_refused(cause) || (cause.is_remote() && cause.is_go_away()) {
        return Outcome::Unprocessed;
    }
    Outcome::Unknown
}

/// The end of a request or a response whose connection `is_cut_off`, unless the pod has ended it before.
pub(super) fn is_end_of_runtime(error: &hyper::Error, is_cut_off: bool) -> bool {
    is_cut_off && !h2_cause(error).is_some_and(h2::Error::is_remote)
}

/// The pod keeps the connection and refuses this one stream. A GOAWAY is none of that: the pod may go on over another one.
fn is_refused(cause: &h2::Error) -> bool {
    cause.is_remote() && cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// The pod has refused the connection after the handshake looked done, and so has read nothing of the request.
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

/// Whether a request has failed because its connection has: streams fail one by one, too, and some were never opened.
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
