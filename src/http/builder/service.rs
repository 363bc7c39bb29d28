//! The service that a URI names: for requests, and for DNS.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

#[cfg(feature = "dns")]
use crate::discovery::dns::Dns;
use crate::http::secrets;

/// Why a client can't be built.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no client for {uri}: {why}")]
pub struct BuildError {
    /// With secrets hidden, as errors show it.
    uri: String,
    why: String,
}

impl BuildError {
    pub(super) fn new(uri: &Uri, why: impl fmt::Display) -> Self {
        Self {
            uri: secrets::shown_uri(uri),
            why: why.to_string(),
        }
    }

    /// An error about the service at `authority`.
    pub(super) fn of_service(
        scheme: &Scheme,
        authority: &Authority,
        why: impl fmt::Display,
    ) -> Self {
        Self {
            uri: secrets::shown(&format!("{scheme}://{authority}")),
            why: why.to_string(),
        }
    }
}

const USER_INFORMATION: &str = "a service's URI has no user information";

/// The service's name in requests: `_port._protocol.` is for DNS only.
pub(super) fn name(uri: &Uri) -> Result<(Scheme, Authority), BuildError> {
    let scheme = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => scheme.clone(),
        _ => return Err(BuildError::new(uri, "write http:// or https://")),
    };
    let Some(authority) = uri.authority() else {
        return Err(BuildError::new(uri, "the URI names no service"));
    };
    if authority.as_str().contains('@') {
        return Err(BuildError::new(uri, USER_INFORMATION));
    }
    if uri.query().is_some() {
        return Err(BuildError::new(
            uri,
            "a service's URI has no query: put it into the requests",
        ));
    }
    let host = match srv_name(authority) {
        Some(name) => name.splitn(3, '.').last().unwrap_or_default(),
        None => authority.host(),
    };
    // The trailing dot is for DNS only, too.
    let host = host.trim_end_matches('.');
    let service = match authority.port() {
        Some(port) => format!("{host}:{port}").parse(),
        None => host.parse(),
    };
    Ok((
        scheme,
        service.map_err(|error| BuildError::new(uri, error))?,
    ))
}

fn srv_name(authority: &Authority) -> Option<&str> {
    let name = authority.as_str();
    name.starts_with('_').then_some(name)
}

/// The discovery of a [`ClientBuilder`](super::ClientBuilder) without the feature `dns`: it finds nothing. Set a
/// [discovery](super::ClientBuilder::discovery).
#[cfg(not(feature = "dns"))]
#[derive(Debug)]
#[non_exhaustive]
pub struct NoDiscovery;

#[cfg(not(feature = "dns"))]
pub(super) fn discovery(_: &Uri) -> Result<NoDiscovery, BuildError> {
    Ok(NoDiscovery)
}

#[cfg(feature = "dns")]
pub(super) fn discovery(uri: &Uri) -> Result<Dns, BuildError> {
    let Some(authority) = uri.authority() else {
        return Err(BuildError::new(uri, "the URI names no service"));
    };
    let default = if uri.scheme() == Some(&Scheme::HTTPS) {
        443
    } else {
        80
    };
    let target = match (srv_name(authority), authority.port_u16()) {
        (Some(name), None) => name.to_owned(),
        (_, Some(_)) => authority.as_str().to_owned(),
        (None, None) => format!("{authority}:{default}"),
    };
    if authority.as_str().contains('@') {
        return Err(BuildError::new(uri, USER_INFORMATION));
    }
    let target = target
        .parse()
        .map_err(|error| BuildError::new(uri, error))?;
    Ok(Dns::new(target))
}
