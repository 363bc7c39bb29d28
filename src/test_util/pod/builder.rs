//! The settings of a pod, before it starts.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{Pod, Settings, handler::Handler};
use crate::error::BoxError;

impl Pod {
    /// Builds a pod with settings of your own.
    pub fn builder() -> PodBuilder {
        PodBuilder {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            settings: Settings::default(),
        }
    }
}

/// Settings of a [`Pod`], before it starts.
#[must_use = "a builder does nothing until it starts a pod"]
pub struct PodBuilder {
    pub(in crate::test_util) address: SocketAddr,
    pub(in crate::test_util) settings: Settings,
}

impl PodBuilder {
    /// Sets where it listens; 127.0.0.1 and a free port by default. Port 0 takes a free port, and keeps it, killed or
    /// not.
    pub fn address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// Sets its name, which its answers have in `x-pod`; its IP address by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// Sets how it answers while it is [`Healthy`](super::super::Mode::Healthy) or slow: a function of the pod's name
    /// and the request. See [`ClusterBuilder::answer`](super::super::ClusterBuilder::answer).
    pub fn answer<F, R, B, E>(mut self, respond: F) -> Self
    where
        F: Fn(String, Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.settings.handler = Some(Handler::new(respond));
        self
    }

    /// Makes it speak TLS, with this certificate chain and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// If they aren't valid, or the build has no provider of cryptography (features `tls-ring`, `tls-aws-lc`).
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, chain: &[u8], key: &[u8]) -> Result<Self, BoxError> {
        self.settings.tls = Some(Tls::new(chain, key)?);
        Ok(self)
    }

    /// Starts the pod.
    ///
    /// # Errors
    ///
    /// If the address is taken or isn't this machine's, or the name isn't valid in a header.
    pub async fn start(self) -> io::Result<Pod> {
        if let Some(name) = &self.settings.name
            && HeaderValue::from_str(name).is_err()
        {
            let why = format!("a pod can't be called {name:?}: no header holds that");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Pod::start_with(self.address, self.settings).await
    }
}

impl fmt::Debug for PodBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodBuilder")
            .field("address", &self.address)
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}
