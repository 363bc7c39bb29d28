//! The errors of discovery by EndpointSlices.

use std::{fmt, net::IpAddr, time::Duration};

use super::{ports::UnknownPort, rbac::Forbidden};

/// Why the EndpointSlices of a Service can't be listed or watched.
///
/// It is opaque: ask it with the `is_*` methods. The last endpoints stay, and the watch is tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("EndpointSlices of {service}: {reason}")]
pub struct EndpointSlicesError {
    service: String,
    pub(super) reason: Reason,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("can't connect to the API server: {0}")]
    Configuration(String),
    /// Why neither the kubeconfig nor the pod's service account can be used.
    #[error("{0}; and no service account of a pod: {1}")]
    Nowhere(String, String),
    /// The plugin, and what it did.
    #[error("the kubeconfig's exec plugin {0:?} {1}")]
    Exec(String, String),
    #[error("{from} names the proxy {proxy}, {}", way_out(.host, *.is_own))]
    Proxy {
        from: &'static str,
        proxy: String,
        host: String,
        is_own: bool,
    },
    /// The URL isn't shown, because it may contain a password.
    #[error("{from} is not a proxy URL ({error}): {}", correction(.host, *.is_own))]
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
    #[error("the API server rejected the client's credentials (401): {0}")]
    Unauthorized(String),
    #[error("the API server answered {code}: {message}")]
    Status { code: u16, message: String },
    /// Too many requests (429). The pause is what the server asks for, if it says so.
    #[error("the API server answered 429: {message}")]
    Throttled {
        message: String,
        pause: Option<Duration>,
    },
    /// The API server no longer has the events after this version (410), so the slices must be listed again.
    #[error("the API server has no history from the watch's last version (410)")]
    Expired,
    #[error("the API server can't be reached, or its answer makes no sense: {0}")]
    Transport(String),
    /// A certificate isn't trusted, or TLS fails otherwise.
    #[error("the API server can't be reached: {0}")]
    Tls(String),
    #[error("the API server has not answered within {0:?}")]
    Timeout(Duration),
    #[error("the API server ends every watch at once")]
    Ended,
    #[error("{0}")]
    UnknownPort(UnknownPort),
    /// The text that should be a pod's address.
    #[error("no pod has a valid address: {0:?} is invalid")]
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
        "which this build doesn't support: {exception}enable kube's feature `http-proxy` or `socks5` in the application, \
         or pass a client of your own"
    )
}

impl EndpointSlicesError {
    pub(super) fn new(service: impl fmt::Display, reason: Reason) -> Self {
        Self {
            service: service.to_string(),
            reason,
        }
    }

    /// The client isn't allowed to list or watch EndpointSlices in that namespace (403). The message has the Role to
    /// apply.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.reason, Reason::Forbidden(_))
    }

    /// The API server rejected the client's token or certificate (401). They are read again before the next attempt.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.reason, Reason::Unauthorized(_))
    }

    /// The pods don't have the requested port. The message lists the ports that they have.
    pub fn is_unknown_port(&self) -> bool {
        matches!(self.reason, Reason::UnknownPort(_))
    }

    /// The API server didn't answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::Timeout(_))
    }
}
