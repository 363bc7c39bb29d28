//! Certificates for pods, made when needed.

use std::{io, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;
use tower::BoxError;

/// A certificate with its key. It is self-signed, so trusting it trusts nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    /// Makes a new certificate for this DNS name (without a trailing dot).
    pub fn new(name: &str) -> Self {
        let names = [name.trim_end_matches('.').to_owned()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("a DNS name");
        Self::from_pem(cert.pem(), signing_key.serialize_pem())
    }

    /// Takes a certificate that was made elsewhere.
    pub fn from_pem(certificate: String, key: String) -> Self {
        Self { certificate, key }
    }

    /// The certificate, for servers and for clients that should trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The server's side of TLS, which offers HTTP/2 and HTTP/1.1.
    pub fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let config = self.server_config().map_err(io::Error::other)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn server_config(&self) -> Result<ServerConfig, BoxError> {
        let certificates = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let certificates = certificates.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        // The provider is named, because a build with two providers has no default.
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}
