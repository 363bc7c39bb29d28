//! What a failed request says of itself and of its pod.

use std::{io, sync::Weak, time::Duration};

use super::{
    error::{Failure, NoFirstByte, NotAccepted, Outcome, RuntimeEnded},
    pool::Pool,
};
use crate::error::{BoxError, Refused, Suspect};

/// Of a request that was written, if only in part.
pub(super) fn failure(error: hyper::Error, pool: &Weak<Pool>) -> BoxError {
    if is_not_accepted(&error) {
        // So it does with all connections: it is passed over, as one that refuses them at once.
        let (outcome, source) = (Outcome::Unprocessed, error.into());
        return Suspect(Failure { outcome, source }.into()).into();
    }
    let outcome = outcome(&error);
    let is_cut_off = is_cut_off(&error);
    // Whose connection breaks may have more broken ones.
    let is_broken = outcome != Outcome::Abandoned && !error.is_parse() && !is_cut_off;
    if is_broken && let Some(pool) = pool.upgrade() {
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
    if is_cut_off(error) {
        return Outcome::Unknown;
    }
    if error.is_user() {
        return Outcome::Abandoned;
    }
    let Some(cause) = h2_cause(error) else {
        return Outcome::Unknown;
    };
    if is_refused(cause) || (cause.is_remote() && cause.is_go_away()) {
        return Outcome::Unprocessed;
    }
    // hyper resets the stream of a request whose body fails.
    match cause.is_reset() && !cause.is_remote() && !cause.is_library() {
        true => Outcome::Abandoned,
        false => Outcome::Unknown,
    }
}

/// The connection's task was dropped with its runtime. hyper calls that an error of its user's, and has no question for it.
fn is_cut_off(error: &hyper::Error) -> bool {
    const DROPPED: &str = "runtime dropped the dispatch task";
    let why = std::error::Error::source(error).map(ToString::to_string);
    error.is_user() && why.is_some_and(|why| why == DROPPED)
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

pub(super) fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
