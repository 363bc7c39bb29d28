//! The client's identity: a certificate and its key.

use std::sync::Arc;

use rustls::{
    Error as RustlsError, InconsistentKeys, SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SigningKey},
};

use super::pem;
use crate::error::BoxError;

/// A certificate with its chain, and its key.
#[derive(Clone, Debug)]
pub(super) struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Takes the key that belongs to the first certificate.
    pub(super) fn from_pem(
        chain: &[u8],
        keys: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, BoxError> {
        let chain = pem::certificates(chain).map_err(|why| format!("the chain: {why}"))?;
        let keys = pem::private_keys(keys).map_err(|why| format!("the key: {why}"))?;
        let load = |key: PrivateKeyDer<'static>| provider.key_provider.load_private_key(key);
        let keys = keys.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let own = |key: &&Arc<dyn SigningKey>| belongs(&chain[0], key).unwrap_or(true);
        if let Some(key) = keys.iter().find(own) {
            let identity = CertifiedKey::new(chain.clone(), key.clone());
            return Ok(Self(Arc::new(identity)));
        }
        let is_owner = |certificate| {
            let belongs = |key| belongs(certificate, key) == Some(true);
            keys.iter().any(belongs)
        };
        match chain.iter().position(is_owner) {
            Some(index) => Err(format!(
                "the key belongs to certificate {} of the chain: that has to be the first",
                index + 1
            )
            .into()),
            None => Err("the key doesn't belong to the certificate".into()),
        }
    }
}

/// Whether the key belongs to the certificate; none if the key can't tell.
fn belongs(certificate: &CertificateDer<'static>, key: &Arc<dyn SigningKey>) -> Option<bool> {
    let pair = CertifiedKey::new(vec![certificate.clone()], key.clone());
    match pair.keys_match() {
        Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => None,
        matched => Some(matched.is_ok()),
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
