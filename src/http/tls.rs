//! HTTPS: the pod is dialled, and the service is spoken to.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::protocol::Protocol;
use crate::{endpoint::Endpoint, error::BoxError};

/// Settings of TLS: whom to trust, and who to be.
///
/// A pod's address is dialled, but its certificate has to name the *service*, and so does the server name that it is told
/// (SNI): an address that has been given to another service's pod is refused, and the pod passed over. With
/// [`pod_names`](Self::pod_names) it is the pod's own name, `web-0.nginx-headless.default`, where its hostname is known.
///
/// ```
/// # fn roots() -> &'static [u8] { b"" }
/// use tower_headless::http::Tls;
///
/// let tls = Tls::new().trust_pem(roots())?;
/// # Ok::<(), tower_headless::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    roots: RootCertStore,
    identity: Option<Arc<Identity>>,
    pod_names: bool,
}

#[derive(Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// Trusts nobody yet.
    pub fn new() -> Self {
        Self {
            roots: RootCertStore::empty(),
            identity: None,
            pod_names: false,
        }
    }

    /// Trusts the authorities whose certificates stand in `pem`, such as a cluster's or a cert-manager issuer's.
    ///
    /// # Errors
    ///
    /// If `pem` has something that is no certificate.
    pub fn trust_pem(mut self, pem: &[u8]) -> Result<Self, BoxError> {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            self.roots.add(certificate?)?;
        }
        Ok(self)
    }

    /// Trusts the authorities that Mozilla trusts, as this crate was built with them.
    #[cfg(feature = "tls-webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-webpki-roots")))]
    pub fn trust_webpki_roots(mut self) -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        self.roots.extend(roots);
        self
    }

    /// Trusts the authorities that the system trusts.
    ///
    /// # Errors
    ///
    /// If the system has none that can be read.
    #[cfg(feature = "tls-native-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-native-roots")))]
    pub fn trust_native_roots(mut self) -> Result<Self, BoxError> {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = self.roots.add_parsable_certificates(found.certs);
        match found.errors.into_iter().next() {
            Some(error) if added == 0 => Err(error.into()),
            None if added == 0 => Err("the system has no certificates".into()),
            _ => Ok(self),
        }
    }

    /// Shows pods this certificate, with its chain, when they ask for one.
    ///
    /// # Errors
    ///
    /// If `chain` has no certificate, or `key` no private key.
    pub fn identity_pem(mut self, chain: &[u8], key: &[u8]) -> Result<Self, BoxError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
        if chain.is_empty() {
            return Err("no certificate in the chain".into());
        }
        let key = PrivateKeyDer::from_pem_slice(key)?;
        self.identity = Some(Arc::new(Identity { chain, key }));
        Ok(self)
    }

    /// Whether a pod's certificate has to name the pod itself, where its hostname is known, instead of the service.
    pub fn pod_names(mut self, pod_names: bool) -> Self {
        self.pod_names = pod_names;
        self
    }

    /// `service` is the name that certificates have.
    pub(super) fn handshake(
        self,
        service: &str,
        protocol: Protocol,
    ) -> Result<Handshake, BoxError> {
        // An IPv6 address has brackets in a URI, and none in a certificate.
        let service = service.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(service.to_owned())?;
        let provider = Arc::new(provider()?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots);
        let mut config = match self.identity.as_deref() {
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        };
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = match protocol {
            Protocol::Negotiated => vec![http2, http1],
            Protocol::Http1 => vec![http1],
            Protocol::Http2 => vec![http2],
        };
        Ok(Handshake {
            connector: TlsConnector::from(Arc::new(config)),
            service: service.into(),
            name,
            pod_names: self.pod_names,
        })
    }
}

/// The provider of cryptography that this crate was built with.
#[allow(unreachable_code, reason = "the features may both be on")]
fn provider() -> Result<CryptoProvider, BoxError> {
    #[cfg(feature = "tls-ring")]
    return Ok(rustls::crypto::ring::default_provider());
    #[cfg(feature = "tls-aws-lc")]
    return Ok(rustls::crypto::aws_lc_rs::default_provider());
    Err("no provider of cryptography: enable the feature tls-ring or tls-aws-lc".into())
}

/// How connections become TLS connections.
#[derive(Clone)]
pub(super) struct Handshake {
    connector: TlsConnector,
    service: Arc<str>,
    name: ServerName<'static>,
    pod_names: bool,
}

impl Handshake {
    /// The TLS connection, and whether HTTP/2 is to be spoken over it.
    pub(super) async fn handshake<T>(
        &self,
        pod: &Endpoint,
        protocol: Protocol,
        stream: T,
    ) -> Result<(TlsStream<T>, bool), BoxError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match pod.hostname().filter(|_| self.pod_names) {
            Some(hostname) => ServerName::try_from(format!("{hostname}.{}", self.service))?,
            None => self.name.clone(),
        };
        let stream = self.connector.connect(name, stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if protocol == Protocol::Http2 && !http2 {
            let refused = io::Error::other("the pod does not speak HTTP/2");
            return Err(refused.into());
        }
        Ok((stream, http2))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
