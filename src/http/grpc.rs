//! gRPC over HTTP/2, as far as a transport needs it: which requests are calls, their timeout, and the status for each
//! of the client's errors.
//!
//! Follows gRPC's `PROTOCOL-HTTP2.md`.

use std::{error::Error as StdError, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::{deadline::Until, error::Error};
use crate::{error::chain, outcome::GRPC_STATUS};

/// The content type of a call and of its answer.
pub(super) const TYPE: HeaderValue = HeaderValue::from_static(GRPC);

const GRPC: &str = "application/grpc";

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a gRPC call. Most requests aren't POSTs, which saves the lookup.
///
/// gRPC-Web (`application/grpc-web`) doesn't count: it needs no HTTP/2, and has its status in its body.
#[inline]
pub(super) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::POST) && headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// Whether it is `application/grpc`, alone, with a format (`+proto`), or with parameters.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let Some((is, rest)) = content_type.as_bytes().split_at_checked(GRPC.len()) else {
        return false;
    };
    is.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// A call's `grpc-timeout`: up to eight digits, and a unit. A malformed one is ignored here, and left to the pod.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(&TIMEOUT)?.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 60 * 60)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// When a call's time is up. It is in the request's extensions, so that each attempt tells its pod what is left.
#[derive(Clone, Copy)]
pub(super) struct Expiry(Until);

impl Expiry {
    pub(super) fn of(until: Until) -> Self {
        Self(until)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.left().is_zero()
    }

    /// The whole time of the call.
    pub(super) fn whole(&self) -> Duration {
        self.0.whole()
    }
}

/// How a gRPC call ends.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// When its own time is up.
    pub(super) expiry: Option<Expiry>,
    pub(super) errors: Errors,
}

/// How a call's caller gets errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// As gRPC statuses.
    Statuses,
    /// Unchanged: there are layers around the client, and the statuses are made above them.
    Typed,
}

impl Call {
    /// The call's time, if it is up. The pod has the same deadline, so if it cancels the call now, that is a timeout,
    /// too.
    pub(super) fn over(&self) -> Option<Duration> {
        let expiry = self.expiry.filter(Expiry::is_over);
        expiry.map(|expiry| expiry.whole())
    }
}

/// Writes the time that is left into a call on its way to a pod: waiting and other pods have used some.
pub(super) fn tell_time_left<B>(request: &mut Request<B>) {
    let Some(expiry) = request.extensions().get::<Expiry>() else {
        return;
    };
    let left = expiry.0.left();
    if let Ok(left) = HeaderValue::try_from(timeout_text(left)) {
        request.headers_mut().insert(TIMEOUT.clone(), left);
    }
}

/// Formats a time for `grpc-timeout`: in the finest unit for which eight digits suffice, rounded up, because zero is
/// not allowed.
fn timeout_text(time: Duration) -> String {
    const MOST: u128 = 99_999_999;
    const SECOND: u128 = 1_000_000_000;
    let units = [
        ('n', 1),
        ('u', 1_000),
        ('m', 1_000_000),
        ('S', SECOND),
        ('M', 60 * SECOND),
    ];
    let nanos = time.as_nanos().max(1);
    let mut units = units.map(|(unit, each)| (unit, nanos.div_ceil(each)));
    match units.iter_mut().find(|(_, number)| *number <= MOST) {
        Some((unit, number)) => format!("{number}{unit}"),
        None => format!("{}H", nanos.div_ceil(60 * 60 * SECOND).min(MOST)),
    }
}

/// The gRPC codes for the client's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

/// `CANCELLED` in a header.
pub(super) const CANCELLED: &str = "1";

/// The headers, or trailers, for an error.
///
/// None if the caller's own body failed: the caller's library made that error, and knows its status.
pub(super) fn status(error: &Error) -> Option<HeaderMap> {
    let code = code(error)?;
    let message = percent_encode(chain(error).as_bytes(), ENCODED).to_string();
    let mut status = HeaderMap::new();
    status.insert(GRPC_STATUS.clone(), HeaderValue::from(code as u16));
    if let Ok(message) = HeaderValue::try_from(message) {
        status.insert(MESSAGE.clone(), message);
    }
    Some(status)
}

/// What is encoded in a message: everything except printable ASCII, and also `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

fn code(error: &Error) -> Option<Code> {
    Some(match error {
        _ if error.is_request_body() => return None,
        _ if error.is_timeout() || is_late_in_layers(error) => Code::DeadlineExceeded,
        _ if error.is_limit() => Code::ResourceExhausted,
        _ if error.is_request() => Code::Internal,
        _ if error.is_unexecuted() => Code::Unavailable,
        // The connection was lost, unless only the stream was reset.
        _ => reset(error).map_or(Code::Unavailable, of_reset),
    })
}

/// Whether a layer around the client has timed the call out, by tower's error or tokio's.
fn is_late_in_layers(error: &Error) -> bool {
    let mut next = error.source().filter(|_| error.is_layer());
    while let Some(cause) = next {
        if cause.is::<Error>() {
            return false;
        }
        if cause.is::<tower::timeout::error::Elapsed>() || cause.is::<tokio::time::error::Elapsed>()
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Whether the pod reset the call with `CANCEL`, without a status.
pub(super) fn is_cancelled(error: &Error) -> bool {
    code(error) == Some(Code::Cancelled)
}

/// Whether a head without a body, or trailers, say that the pod has cancelled the call.
pub(super) fn has_cancelled(status: &HeaderMap) -> bool {
    let status = status.get(&GRPC_STATUS);
    status.is_some_and(|status| status == CANCELLED)
}

/// Why a stream was reset, by the pod or because of what the pod sent.
fn reset(error: &Error) -> Option<h2::Reason> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<h2::Error>() {
            let is_of_connection = cause.is_io() || (cause.is_remote() && cause.is_go_away());
            return cause.reason().filter(|_| !is_of_connection);
        }
        next = cause.source();
    }
    None
}

/// The specification's table of HTTP/2 error codes.
fn of_reset(reason: h2::Reason) -> Code {
    match reason {
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a value");
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    }

    #[test]
    fn posts_of_grpcs_type_are_calls_and_grpc_web_is_not() {
        let is_call = |method, value| is_call(method, &headers("content-type", value));
        for value in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "Application/gRPC",
        ] {
            assert!(is_call(&Method::POST, value), "{value}");
            assert!(!is_call(&Method::GET, value), "{value}");
        }
        for value in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "application/json",
            "application",
            "",
        ] {
            assert!(!is_call(&Method::POST, value), "{value}");
        }
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let of = |value| timeout(&headers("grpc-timeout", value));
        for (value, seconds) in [
            ("2H", 7200.0),
            ("3M", 180.0),
            ("4S", 4.0),
            ("5m", 5e-3),
            ("6u", 6e-6),
            ("7n", 7e-9),
            ("0S", 0.0),
            ("99999999H", 359_999_996_400.0),
        ] {
            assert_eq!(of(value), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        for value in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "+1S",
            "-1S",
            " 1S",
            "1 S",
            "1.5S",
            "123456789n",
        ] {
            assert_eq!(of(value), None, "{value:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_written_timeout_is_neither_zero_nor_too_long() {
        assert_eq!(timeout_text(Duration::ZERO), "1n");
        assert_eq!(timeout_text(Duration::MAX), "99999999H");
    }

    proptest! {
        /// What is written reads as the same time, or as one that is longer by less than 0.001 %.
        #[test]
        fn a_time_is_read_as_it_was_written(nanos in any::<u64>()) {
            let time = Duration::from_nanos(nanos);
            let text = timeout_text(time);
            let read = timeout(&headers("grpc-timeout", &text)).expect("well-formed");
            prop_assert!(read >= time);
            let over = (read - time).as_nanos();
            prop_assert!(over <= 1 || over * 100_000 < u128::from(nanos), "{time:?}: {text}");
        }
    }

    #[test]
    fn a_message_is_printable_whatever_the_error_says() {
        let status = status(&Error::request("50 % of „web“\n")).expect("a status");
        assert_eq!(status["grpc-status"], "13");
        let expected = "invalid request: 50 %25 of %E2%80%9Eweb%E2%80%9C%0A";
        assert_eq!(status["grpc-message"], expected);
    }

    #[test]
    fn a_reset_has_the_specifications_code() {
        for (reason, code) in [
            (h2::Reason::NO_ERROR, Code::Internal),
            (h2::Reason::PROTOCOL_ERROR, Code::Internal),
            (h2::Reason::REFUSED_STREAM, Code::Unavailable),
            (h2::Reason::CANCEL, Code::Cancelled),
            (h2::Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (h2::Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
        ] {
            assert_eq!(of_reset(reason), code, "{reason}");
        }
    }
}
