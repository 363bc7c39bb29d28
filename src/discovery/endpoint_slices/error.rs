//! What can go wrong with a watch.

use std::{fmt, net::IpAddr, time::Duration};

use super::{ports::UnknownPort, rbac::Forbidden};

/// Why the EndpointSlices of a Service are not known, or no longer followed.
///
/// Opaque: ask it with the `is_*` methods. The endpoints stay as they were, and the watch is tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("EndpointSlices of {service}: {reason}")]
pub struct EndpointSlicesError {
    service: String,
    pub(super) reason: Reason,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("no way to the API server: {0}")]
    Configuration(String),
    /// What is wrong with the kubeconfig, and with the cluster that this runs in.
    #[error("{0}; nor is there one inside of a cluster: {1}")]
    Nowhere(String, String),
    /// The plugin, and what it did.
    #[error("the kubeconfig's exec plugin {0:?} {1}")]
    Exec(String, String),
    #[error("{from} leads through the proxy {proxy}, {}", way_out(.host, *.is_own))]
    Proxy {
        from: &'static str,
        proxy: String,
        host: String,
        is_own: bool,
    },
    /// Not with its text, which may have a password in it.
    #[error("{from} is no URL of a proxy ({error}): {}", correction(.host, *.is_own))]
    ProxyUrl {
        from: &'static str,
        error: String,
        host: String,
        is_own: bool,
    },
    #[error(
        "no provider of cryptography: enable the feature kube-ring or kube-aws-lc, or install one as rustls' default"
    )]
    NoCryptography,
    #[error("{0}")]
    Forbidden(Forbidden),
    #[error("the API server doesn't know the client (401): {0}")]
    Unauthorized(String),
    #[error("the API server says {code}: {message}")]
    Status { code: u16, message: String },
    /// What happened after this version is not known any more (410): the slices are to be listed again.
    #[error("the API server has no history from where the watch stood (410)")]
    Expired,
    #[error("the API server can't be reached, or not understood: {0}")]
    Transport(String),
    #[error("the API server has not answered within {0:?}")]
    Timeout(Duration),
    #[error("the API server ends every watch at once")]
    Ended,
    #[error("{0}")]
    UnknownPort(UnknownPort),
    /// Something that ought to be a pod's address.
    #[error("no pod has an address that can be read: {0:?} is none")]
    Unreadable(String),
    #[error("no pod can have the address {0}: it is {1}")]
    Rejected(IpAddr, &'static str),
}

fn correction(host: &str, is_own: bool) -> String {
    if is_own {
        "correct it".to_owned()
    } else {
        format!("correct it, or add {host} to NO_PROXY to reach the API server without a proxy")
    }
}

fn way_out(host: &str, is_own: bool) -> String {
    let exception = if is_own {
        String::new()
    } else {
        format!("add {host} to NO_PROXY to reach the API server without it, ")
    };
    format!(
        "for which this build has no support: {exception}enable kube's feature `http-proxy` or `socks5` in the application, \
         or give a client of your own"
    )
}

impl EndpointSlicesError {
    pub(super) fn new(service: impl fmt::Display, reason: Reason) -> Self {
        Self {
            service: service.to_string(),
            reason,
        }
    }

    /// The client may not list or watch EndpointSlices in that namespace (403). The message has the Role to apply.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.reason, Reason::Forbidden(_))
    }

    /// The API server doesn't take the client's token or certificate (401). They are read again for the next try.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.reason, Reason::Unauthorized(_))
    }

    /// The pods don't have the port that was asked for. The message has those that they do have.
    pub fn is_unknown_port(&self) -> bool {
        matches!(self.reason, Reason::UnknownPort(_))
    }

    /// The API server did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::Timeout(_))
    }
}
