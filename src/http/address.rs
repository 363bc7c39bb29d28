//! Which service a request names, whichever pod gets it.

use std::{net::Ipv6Addr, sync::Arc};

use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::HOST,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;

use super::{body::RequestBody, error::Error, framing, secrets};

/// The service, as requests name it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) scheme: Scheme,
    /// Without a port that the scheme implies (RFC 9110 §4.2.3).
    pub(super) authority: Authority,
    /// The authority's host, for errors.
    pub(super) name: Arc<str>,
    host: HeaderValue,
    /// Whether requests may name other services.
    allow_foreign: bool,
}

impl Service {
    pub(super) fn new(scheme: Scheme, authority: &Authority) -> Self {
        let authority = without_default_port(&scheme, authority);
        let host = HeaderValue::from_str(authority.as_str());
        Self {
            scheme,
            name: authority.host().into(),
            authority,
            host: host.expect("an authority is of visible ASCII"),
            allow_foreign: false,
        }
    }

    pub(super) fn allow_foreign(mut self, allow: bool) -> Self {
        self.allow_foreign = allow;
        self
    }

    /// Checks a request. A plain path without a `Host` stays as it is; anything else becomes a whole URI. Its authority
    /// is that of the URI if that names another service, else the caller's `Host`, else the service's.
    pub(super) fn check<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let uri = request.uri();
        // RFC 9112 §3.2.4
        if uri.path().starts_with('*') && !is_asterisk(request) {
            return Err(Error::request(
                "\"*\" is not a path: only OPTIONS may have it",
            ));
        }
        let headers = request.headers();
        let has_host = !headers.is_empty() && headers.keys().any(|name| *name == HOST);
        let is_path = uri.authority().is_none() && uri.scheme().is_none();
        if has_host || !is_path || *request.method() == Method::CONNECT {
            self.make_whole(request)?;
        }
        Ok(())
    }

    fn make_whole<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let host = framing::only(request.headers(), &HOST)?.map(authority);
        let host = host.transpose()?;
        request.headers_mut().remove(HOST);
        let is_extended = request.extensions().get::<Protocol>().is_some();
        if request.method() == Method::CONNECT && !is_extended {
            *request.uri_mut() = tunnel(request.uri())?;
            return Ok(());
        }
        self.check_origin(request.uri())?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = match (parts.authority, host) {
            // The URI wins over a `Host`, which after a redirect may name yet another service (RFC 9112 §3.2.2).
            (Some(authority), _) if !self.is_own(&authority) => {
                let scheme = parts.scheme.as_ref().unwrap_or(&self.scheme);
                Some(without_default_port(scheme, &authority))
            }
            // The service's own name, whatever its spelling.
            (_, host) => host,
        };
        *request.uri_mut() = self.whole(parts)?;
        Ok(())
    }

    /// Whether a request names another service; the client may allow that. A target of CONNECT doesn't count.
    pub(super) fn is_foreign<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        let Some((scheme, authority)) = uri.scheme().zip(uri.authority()) else {
            return false;
        };
        *scheme != self.scheme || !self.is_own(authority)
    }

    /// Checks which service a URI names: it must be this one, unless the client passes on others.
    fn check_origin(&self, uri: &Uri) -> Result<(), Error> {
        let Some(other) = uri.authority() else {
            return Ok(());
        };
        no_user_information(other)?;
        let Some(scheme) = uri.scheme() else {
            let why = format_args!("{uri} is only a host, which is for CONNECT: write a path");
            return Err(Error::request(why));
        };
        if ![Scheme::HTTP, Scheme::HTTPS].contains(scheme) {
            let uri = secrets::shown_uri(uri);
            let why = format_args!("{uri:?} is neither http nor https: write http:// or https://");
            return Err(Error::request(why));
        }
        if self.allow_foreign || (*scheme == self.scheme && self.is_own(other)) {
            return Ok(());
        }
        // What was parsed as the host may be the beginning of a password.
        if uri
            .path_and_query()
            .is_some_and(|rest| rest.as_str().contains('@'))
        {
            return Err(self.foreign(scheme, "…"));
        }
        Err(self.foreign(scheme, other.as_str()))
    }

    fn foreign(&self, scheme: &Scheme, other: &str) -> Error {
        Error::foreign((scheme, other), (&self.scheme, &self.authority))
    }

    /// Checks the text of a URI. An '@' that parsing drops, in a fragment or after two slashes, may end user
    /// information.
    pub(super) fn check_text(text: &str) -> Result<(), Error> {
        let fragment = text.split_once('#').map(|(_, fragment)| fragment);
        let lost = match text.starts_with("//") {
            true => Some(text),
            false => fragment.filter(|_| !secrets::is_plain_path(text)),
        };
        match lost.is_some_and(|lost| lost.contains('@')) {
            true => Err(user_information()),
            false => Ok(()),
        }
    }

    /// The error for a path that begins with two slashes: as a URI reference it names a host (RFC 3986 §4.2).
    pub(super) fn another_host(&self, path: &str) -> Error {
        let path = secrets::shown(path);
        let host = path.trim_start_matches('/').split('/').next();
        match host.unwrap_or_default().parse() {
            Ok(other) if !self.allow_foreign && !self.is_own(&other) => {
                self.foreign(&self.scheme, other.as_str())
            }
            _ => Error::request(format_args!(
                "{path:?}: a path begins with one '/' and no backslash: write the whole URI, {}://{}{path}",
                self.scheme, self.authority
            )),
        }
    }

    /// Whether the authority is the service's in another spelling: in case, with a trailing dot, or with the default
    /// port.
    fn is_own(&self, other: &Authority) -> bool {
        if *other == self.authority {
            return true;
        }
        let port = |authority: &Authority| match authority.port_u16() {
            None if !has_port(authority) => Some(default_port(&self.scheme)),
            port => port,
        };
        port(other).is_some()
            && port(other) == port(&self.authority)
            && is_same_host(other.host(), self.authority.host())
    }

    /// Adds the scheme and the authority to a path, for code that needs a whole URI. Leaves all else unchanged.
    pub(super) fn name_whole(&self, uri: &mut Uri) {
        if uri.authority().is_none() && uri.path().starts_with('/') {
            let parts = uri.clone().into_parts();
            *uri = self.whole(parts).unwrap_or_else(|_| std::mem::take(uri));
        }
    }

    fn whole(&self, mut parts: Parts) -> Result<Uri, Error> {
        parts.scheme.get_or_insert_with(|| self.scheme.clone());
        let service = || self.authority.clone();
        parts.authority.get_or_insert_with(service);
        let root = || PathAndQuery::from_static("/");
        parts.path_and_query.get_or_insert_with(root);
        Uri::from_parts(parts).map_err(Error::request)
    }

    /// Puts the service into `Host`, and only the path into the first line, as HTTP/1.1 does (RFC 9112 §3.2.1). If that
    /// changes the URI, returns the old one.
    pub(super) fn address_http1(
        &self,
        request: &mut Request<RequestBody>,
    ) -> Result<Option<Box<Uri>>, Error> {
        if request.extensions().get::<Protocol>().is_some() {
            // RFC 8441
            return Err(Error::request("an extended CONNECT needs HTTP/2"));
        }
        *request.version_mut() = Version::HTTP_11;
        let authority = request.uri().authority();
        let host = match authority.filter(|authority| **authority != self.authority) {
            Some(other) => HeaderValue::from_str(other.as_str()).map_err(Error::request)?,
            None => self.host.clone(),
        };
        let is_path = authority.is_none();
        request.headers_mut().insert(HOST, host);
        framing::frame_http1(request);
        if is_path || *request.method() == Method::CONNECT {
            return Ok(None);
        }
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or(PathAndQuery::from_static("/")).into();
        Ok(Some(Box::new(std::mem::replace(request.uri_mut(), path))))
    }

    /// Completes the URI, because HTTP/2 takes `:scheme`, `:authority` and `:path` from it.
    pub(super) fn address_http2(&self, request: &mut Request<RequestBody>) -> Result<(), Error> {
        *request.version_mut() = Version::HTTP_2;
        if request.uri().authority().is_none() {
            let parts = std::mem::take(request.uri_mut()).into_parts();
            *request.uri_mut() = self.whole(parts)?;
        }
        Ok(())
    }
}

/// It would be sent unencrypted, to someone it isn't meant for (RFC 9110 §4.2.4).
fn no_user_information(authority: &Authority) -> Result<(), Error> {
    match authority.as_str().contains('@') {
        true => Err(user_information()),
        false => Ok(()),
    }
}

fn user_information() -> Error {
    Error::request("a host has no user information: send credentials in a header (`basic_auth`)")
}

/// The authority in a `Host` header.
fn authority(host: &HeaderValue) -> Result<Authority, Error> {
    let authority = Authority::try_from(host.as_bytes()).map_err(Error::request)?;
    no_user_information(&authority)?;
    match has_port(&authority) && authority.port_u16().is_none() {
        true => Err(Error::request(format_args!(
            "the Host is {host:?}: its port is not a number up to 65535"
        ))),
        false => Ok(authority),
    }
}

/// The host and port that CONNECT names (RFC 9110 §9.3.6); they have nothing to do with the service.
fn tunnel(uri: &Uri) -> Result<Uri, Error> {
    let far = uri.authority().filter(|far| far.port_u16().is_some());
    let far = far.ok_or_else(|| Error::request("CONNECT needs a host and a port"))?;
    no_user_information(far)?;
    Ok(far.clone().into())
}

/// Whether it is `OPTIONS *`, for the whole server.
fn is_asterisk<B>(request: &Request<B>) -> bool {
    let path = request.uri().path_and_query();
    *request.method() == Method::OPTIONS && path.is_some_and(|path| path.as_str() == "*")
}

fn default_port(scheme: &Scheme) -> u16 {
    match *scheme == Scheme::HTTPS {
        true => 443,
        false => 80,
    }
}

/// Whether something follows the host and its colon, a number or not.
fn has_port(authority: &Authority) -> bool {
    let text = authority.as_str();
    let named = text.rsplit_once('@').map_or(text, |(_, named)| named);
    let after = named.strip_prefix(authority.host()).unwrap_or_default();
    !matches!(after, "" | ":")
}

/// Drops an empty or default port (RFC 9110 §4.2.3).
fn without_default_port(scheme: &Scheme, authority: &Authority) -> Authority {
    let is_needed = has_port(authority) && authority.port_u16() != Some(default_port(scheme));
    match is_needed || authority.as_str().contains('@') {
        true => authority.clone(),
        false => authority
            .host()
            .parse()
            .unwrap_or_else(|_| authority.clone()),
    }
}

fn is_same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| {
        let host = host.strip_prefix('[')?.strip_suffix(']')?;
        host.parse::<Ipv6Addr>().ok()
    };
    let name = |host: &str| {
        let host = host.strip_suffix('.').unwrap_or(host);
        without_port_name(host).to_ascii_lowercase()
    };
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        _ => name(one) == name(other),
    }
}

/// Drops a port's name before the service's, `_http._tcp.`, which a client's URI may have.
fn without_port_name(host: &str) -> &str {
    match host.starts_with('_') {
        true => host.splitn(3, '.').nth(2).unwrap_or(host),
        false => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(uri: &'static str) -> Service {
        let uri = Uri::from_static(uri).into_parts();
        let authority = uri.authority.expect("an authority");
        Service::new(uri.scheme.expect("a scheme"), &authority)
    }

    #[test]
    fn only_a_default_port_is_left_out() {
        for (uri, host) in [
            ("http://web.default:80", "web.default"),
            ("https://web.default:443", "web.default"),
            ("http://web.default:443", "web.default:443"),
            ("https://web.default:80", "web.default:80"),
            ("http://web.default:8080", "web.default:8080"),
            ("http://web:", "web"),
            ("http://[fd00::1]:80", "[fd00::1]"),
            ("http://[fd00::80]", "[fd00::80]"),
            ("https://[fd00::1]:8443", "[fd00::1]:8443"),
            ("http://10.0.0.1:80", "10.0.0.1"),
            ("http://8080:8080", "8080:8080"),
            ("http://80:80", "80"),
        ] {
            let service = service(uri);
            assert_eq!(service.authority.as_str(), host, "{uri}");
            assert_eq!(service.host, host, "{uri}");
        }
    }

    #[test]
    fn every_spelling_of_the_service_is_accepted_and_no_other_service() {
        let is_own = |service: &Service, uri: &'static str| {
            service.check_origin(&Uri::from_static(uri)).is_ok()
        };
        let web = service("http://web.default:80");
        for uri in [
            "http://web.default/a",
            "http://web.default:80",
            "http://web.default:",
            "http://WEB.Default./",
            "http://web.default.:80/a?b",
            "http://_http._tcp.web.default/a",
            "/a",
        ] {
            assert!(is_own(&web, uri), "{uri}");
        }
        for uri in [
            "https://web.default/a",
            "https://web.default:80/a",
            "http://web.default:443/a",
            "http://web.default:8080/a",
            "http://web.default:99999/a",
            "http://web/a",
            "http://web.default.svc/a",
            "http://other/a",
            "http://_web/a",
            "http://_http._tcp.other/a",
            "web.default:80",
        ] {
            assert!(!is_own(&web, uri), "{uri}");
        }
        let six = service("https://[fd00::1]");
        assert!(is_own(&six, "https://[FD00:0::1]:443/"));
        assert!(!is_own(&six, "https://[fd00::2]/"));
    }
}
