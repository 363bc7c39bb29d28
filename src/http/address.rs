//! Whom a request names, whatever pod gets it.

use http::{
    HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;

use super::{body::RequestBody, error::Error};

/// Makes the URI whole: the connection takes from it what its protocol wants, in HTTP/2 as `:authority`, in HTTP/1.1 as
/// `Host`. A `Host` of the caller's goes before what the URI says, and the service before nothing.
pub(super) fn address(
    request: &mut Request<RequestBody>,
    scheme: &Scheme,
    service: &Authority,
) -> Result<(), Error> {
    let host = request.headers_mut().remove(HOST);
    let is_extended = request.extensions().get::<Protocol>().is_some();
    if request.method() == Method::CONNECT && !is_extended {
        let target = request.uri().authority();
        let target = target.ok_or_else(|| Error::request("CONNECT needs a host and a port"))?;
        return no_user_information(target);
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    match &parts.scheme {
        None => parts.scheme = Some(scheme.clone()),
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
        Some(other) => return Err(Error::request(format_args!("the scheme is {other}"))),
    }
    if let Some(host) = host {
        let host = Authority::try_from(host.as_bytes());
        parts.authority = Some(host.map_err(Error::request)?);
    }
    no_user_information(parts.authority.get_or_insert_with(|| service.clone()))?;
    let root = || PathAndQuery::from_static("/");
    parts.path_and_query.get_or_insert_with(root);
    *request.uri_mut() = Uri::from_parts(parts).map_err(Error::request)?;
    tell_no_length(request);
    Ok(())
}

/// It would be sent in clear, to whom it isn't for (RFC 9110 §4.2.4).
fn no_user_information(authority: &Authority) -> Result<(), Error> {
    match authority.as_str().contains('@') {
        true => Err(Error::request("a host has no user information")),
        false => Ok(()),
    }
}

/// RFC 9110 §8.6: where a body has a meaning, one that is empty is to be said so.
fn tell_no_length(request: &mut Request<RequestBody>) {
    let has_meaning = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if has_meaning && request.body().is_empty() {
        let headers = request.headers_mut();
        headers
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from_static("0"));
    }
}
