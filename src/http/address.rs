//! Whom a request names, whatever pod gets it.

use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, HOST},
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;

use super::{body::RequestBody, error::Error};

/// The service, as requests name it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    host: HeaderValue,
}

impl Service {
    pub(super) fn new(scheme: Scheme, authority: Authority) -> Self {
        let host = HeaderValue::from_str(authority.as_str());
        Self {
            scheme,
            authority,
            host: host.expect("an authority is of visible ASCII"),
        }
    }

    /// Looks the request over. One that names a path alone stays as it is; any other URI is made whole, with a `Host` of
    /// the caller's before what the URI says, and the service before nothing.
    pub(super) fn check(&self, request: &mut Request<RequestBody>) -> Result<(), Error> {
        let uri = request.uri();
        let has_host = !request.headers().is_empty() && request.headers().contains_key(HOST);
        let is_path = uri.authority().is_none() && uri.scheme().is_none();
        if has_host || !is_path || *request.method() == Method::CONNECT {
            self.make_whole(request)?;
        }
        tell_no_length(request);
        Ok(())
    }

    fn make_whole(&self, request: &mut Request<RequestBody>) -> Result<(), Error> {
        let host = request.headers_mut().remove(HOST);
        let is_extended = request.extensions().get::<Protocol>().is_some();
        if request.method() == Method::CONNECT && !is_extended {
            let target = request.uri().authority();
            let target = target.ok_or_else(|| Error::request("CONNECT needs a host and a port"))?;
            return no_user_information(target);
        }
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        if let Some(other) = &parts.scheme
            && ![Scheme::HTTP, Scheme::HTTPS].contains(other)
        {
            return Err(Error::request(format_args!("the scheme is {other}")));
        }
        if let Some(host) = host {
            let host = Authority::try_from(host.as_bytes());
            parts.authority = Some(host.map_err(Error::request)?);
        }
        let uri = self.whole(parts)?;
        uri.authority().map_or(Ok(()), no_user_information)?;
        *request.uri_mut() = uri;
        Ok(())
    }

    fn whole(&self, mut parts: Parts) -> Result<Uri, Error> {
        parts.scheme.get_or_insert_with(|| self.scheme.clone());
        let service = || self.authority.clone();
        parts.authority.get_or_insert_with(service);
        let root = || PathAndQuery::from_static("/");
        parts.path_and_query.get_or_insert_with(root);
        Uri::from_parts(parts).map_err(Error::request)
    }

    /// HTTP/1.1 names the service in `Host`, and the path alone in the first line (RFC 9112 §3.2.1). Where that takes
    /// another URI, the one before is returned.
    pub(super) fn address_http1(
        &self,
        request: &mut Request<RequestBody>,
    ) -> Result<Option<Uri>, Error> {
        *request.version_mut() = Version::HTTP_11;
        let authority = request.uri().authority();
        let host = match authority.filter(|authority| **authority != self.authority) {
            Some(other) => HeaderValue::from_str(other.as_str()).map_err(Error::request)?,
            None => self.host.clone(),
        };
        let is_path = authority.is_none();
        request.headers_mut().insert(HOST, host);
        if is_path || *request.method() == Method::CONNECT {
            return Ok(None);
        }
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or(PathAndQuery::from_static("/")).into();
        Ok(Some(std::mem::replace(request.uri_mut(), path)))
    }

    /// HTTP/2 takes `:scheme`, `:authority` and `:path` from a whole URI.
    pub(super) fn address_http2(&self, request: &mut Request<RequestBody>) -> Result<(), Error> {
        *request.version_mut() = Version::HTTP_2;
        if request.uri().authority().is_none() {
            let parts = std::mem::take(request.uri_mut()).into_parts();
            *request.uri_mut() = self.whole(parts)?;
        }
        Ok(())
    }
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
