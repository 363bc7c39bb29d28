//! The server's side of TLS, if the build has it.

#[cfg(not(feature = "tls"))]
use std::convert::Infallible;
use std::io;

use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use {
    crate::{error::BoxError, http::cryptography},
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    std::sync::Arc,
    tokio_rustls::{TlsAcceptor, server::TlsStream},
};

/// A pod's TLS configuration.
#[derive(Clone)]
pub(in crate::test_util) struct Tls(
    #[cfg(feature = "tls")] TlsAcceptor,
    #[cfg(not(feature = "tls"))] Infallible,
);

#[cfg(feature = "tls")]
impl Tls {
    /// Takes a certificate chain and its key, in PEM. It offers HTTP/2 and HTTP/1.1.
    pub(in crate::test_util) fn new(chain: &[u8], key: &[u8]) -> Result<Self, BoxError> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(cryptography()?))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(super) async fn accept(&self, _: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}
