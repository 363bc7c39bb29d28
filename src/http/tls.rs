//! HTTPS: the client dials the pod, but verifies the service.

mod alert;
mod current;
mod file;
mod handle;
mod identity;
mod live;
mod pem;
mod provider;
mod settings;

pub use handle::TlsHandle;
#[cfg(feature = "test-util")]
pub(crate) use provider::provider as cryptography;
pub use settings::Tls;

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use self::{alert::Secured, live::Live};
use super::{protocol::Protocol, renewal::Renewals};
use crate::{endpoint::Endpoint, error::BoxError};

/// How connections become TLS connections.
#[derive(Clone)]
pub(super) struct Handshake {
    live: Arc<Live>,
    service: Arc<str>,
    name: ServerName<'static>,
    /// Finds what is known of a pod by now.
    known: Arc<OnceLock<Known>>,
}

type Known = Box<dyn Fn(&Endpoint) -> Option<Endpoint> + Send + Sync>;

impl Handshake {
    /// `service` is the name in certificates; `protocol` is what requests use.
    pub(super) fn new(tls: Tls, service: &str, protocol: Protocol) -> Result<Self, BoxError> {
        // An IPv6 address has brackets in a URI, but not in a certificate.
        let service = service.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            name: ServerName::try_from(service.to_owned())?,
            service: service.into(),
            live: Arc::new(Live::new(tls, service.into(), protocol)?),
            known: Arc::default(),
        })
    }

    /// Makes the TLS connection. Returns whether to speak HTTP/2 over it.
    pub(super) async fn handshake<T>(
        &self,
        pod: &Endpoint,
        protocol: Protocol,
        stream: T,
    ) -> Result<(Secured<T>, bool), BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.live.keep_fresh().await;
        let current = self.live.current();
        let name = match current.settings.has_pod_names() {
            true => self.pod_name(pod)?,
            false => self.name.clone(),
        };
        let connector = TlsConnector::from(current.config(protocol));
        let connected = connector.connect(name, stream).await;
        let stream = connected.map_err(|error| Failed { error })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if protocol == Protocol::Http2 && !http2 {
            let refused = io::Error::other("the pod does not speak HTTP/2");
            return Err(refused.into());
        }
        Ok((Secured::new(stream), http2))
    }

    /// Looks the pod up again, because its name may have been learnt after it joined.
    fn pod_name(&self, pod: &Endpoint) -> Result<ServerName<'static>, BoxError> {
        let known = self.known.get().and_then(|known| known(pod));
        Ok(match known.as_ref().unwrap_or(pod).hostname() {
            Some(hostname) => ServerName::try_from(format!("{hostname}.{}", self.service))?,
            None => self.name.clone(),
        })
    }

    /// Sets how to find what is known of a pod.
    pub(super) fn set_known(
        &self,
        known: impl Fn(&Endpoint) -> Option<Endpoint> + Send + Sync + 'static,
    ) {
        // A client has one balancer, so this is set only once.
        let _ = self.known.set(Box::new(known));
    }

    pub(super) fn handle(&self) -> TlsHandle {
        TlsHandle::new(&self.live)
    }

    pub(super) fn renewals(&self) -> Arc<Renewals> {
        self.live.renewals()
    }
}

/// A failed handshake, and advice.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {error}{}", advice(error))]
struct Failed {
    #[source]
    error: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    match error {
        // An authority of the same name but with another key isn't trusted either.
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) => " (the client trusts no authority that has signed it: see `Tls::trust_pem`)",
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            " (does the pod speak TLS at this port?)"
        }
        _ => "",
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
