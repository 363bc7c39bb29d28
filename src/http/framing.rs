//! Where a request's body ends according to its headers.
//!
//! The pod reads the next request where this one's body ends. With a wrong length, the next caller's request would
//! become a part of this body, or the rest of this body a request (RFC 9112 §11.2). So the caller's headers are
//! compared with the body, and hyper gets the truth.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};
use http_body::{Body, SizeHint};

use super::{body::RequestBody, error::Error};

/// The body's length according to the headers, if they tell it.
///
/// # Errors
///
/// If they contradict each other, or are neither a length nor `chunked`.
pub(super) fn declared(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    // Most requests have none of these, and a walk through few headers is faster than hashing three names.
    let is_one =
        |it: &HeaderName| *it == CONTENT_LENGTH || *it == TRANSFER_ENCODING || *it == CONNECTION;
    if headers.is_empty() || !headers.keys().any(is_one) {
        return Ok(None);
    }
    let length = only(headers, &CONTENT_LENGTH)?.map(length).transpose()?;
    if let Some(coding) = only(headers, &TRANSFER_ENCODING)? {
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            let why = format_args!("the Transfer-Encoding is {coding:?}: only \"chunked\" is sent");
            return Err(Error::request(why));
        }
        // RFC 9112 §6.2
        if length.is_some() {
            let why = "there is a Content-Length beside a Transfer-Encoding: leave one of them out";
            return Err(Error::request(why));
        }
    }
    check_connection_header(headers)?;
    Ok(length)
}

/// The only line of this name: with several, one server may believe another line than the next server does.
pub(super) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Error> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    match lines.next() {
        Some(_) => Err(Error::request(format_args!(
            "there is more than one {name} header: leave all but one out"
        ))),
        None => Ok(first),
    }
}

/// Parses a length: only digits (RFC 9110 §8.6), no sign, no list.
fn length(value: &HeaderValue) -> Result<u64, Error> {
    let text = value.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| {
        Error::request(format_args!(
            "the Content-Length is {value:?}: write one number"
        ))
    })
}

/// Checks that `Connection` names no framing header: a proxy would remove what it names (RFC 9110 §7.6.1).
fn check_connection_header(headers: &HeaderMap) -> Result<(), Error> {
    let lines = headers.get_all(CONNECTION).iter();
    let options = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    for option in options.map(<[u8]>::trim_ascii) {
        let is_named = |name: &HeaderName| option.eq_ignore_ascii_case(name.as_str().as_bytes());
        if let Some(name) = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST]
            .iter()
            .find(|it| is_named(it))
        {
            return Err(Error::request(format_args!(
                "the Connection header names {name}, which is not a header of the connection"
            )));
        }
    }
    Ok(())
}

/// Compares a body with its declared length.
pub(super) fn compare(declared: u64, body: &impl Body) -> Result<(), Error> {
    let hint = match body.is_end_stream() {
        true => SizeHint::with_exact(0),
        false => body.size_hint(),
    };
    let is_possible = |hint: &SizeHint| {
        hint.lower() <= declared && hint.upper().is_none_or(|upper| declared <= upper)
    };
    match is_possible(&hint) {
        true => Ok(()),
        false => Err(Error::request(Mismatch { declared, hint })),
    }
}

/// Checks that a request has no body if its method allows none, and declares an empty body if needed.
pub(super) fn check<B: Body>(request: &mut Request<B>) -> Result<(), Error> {
    check_body(request)?;
    declare_empty_body(request);
    Ok(())
}

/// RFC 9110 §9.3.6 and §9.3.8
pub(super) fn check_body<B: Body>(request: &Request<B>) -> Result<(), Error> {
    let method = request.method();
    if matches!(*method, Method::CONNECT | Method::TRACE) && !request.body().is_end_stream() {
        return Err(Error::request(format_args!("{method} has no body")));
    }
    Ok(())
}

struct Mismatch {
    declared: u64,
    hint: SizeHint,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the Content-Length is {}, and the body has ",
            self.declared
        )?;
        match (self.hint.exact(), self.hint.upper()) {
            (Some(exact), _) => write!(f, "{exact} bytes")?,
            (None, Some(upper)) if self.declared > upper => write!(f, "at most {upper}")?,
            (None, _) => write!(f, "at least {}", self.hint.lower())?,
        }
        f.write_str(": leave the header out, the client adds it")
    }
}

/// Declares an empty body if a body has a meaning for the method (RFC 9110 §8.6).
fn declare_empty_body<B: Body>(request: &mut Request<B>) {
    let has_meaning = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if has_meaning && request.body().is_end_stream() {
        let headers = request.headers_mut();
        headers
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from_static("0"));
    }
}

/// Makes HTTP/1.1 send a body of unknown length in chunks. hyper does so by itself, except for GET, HEAD and CONNECT,
/// whose bodies it drops otherwise.
pub(super) fn frame_http1(request: &mut Request<RequestBody>) {
    let body = request.body();
    if !body.is_empty() && body.size_hint().exact().is_none() {
        let headers = request.headers_mut();
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
