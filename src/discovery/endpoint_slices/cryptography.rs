//! The crypto provider for the connection to the API server.
//!
//! kube takes rustls' default provider for the process. It panics if there is none and the linked crates don't settle
//! it, because they have two providers or none. So a default is installed before kube looks: the application's own if
//! it has installed one, or else that of this crate's features, ring before aws-lc, as in the HTTP client.

use std::{error::Error, io};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

use super::error::Reason;
use crate::error::chain;

/// Makes sure that there is a default provider.
pub(super) fn provide() -> Result<(), Reason> {
    if CryptoProvider::get_default().is_some() {
        return Ok(());
    }
    let provider = provider().ok_or(Reason::NoCryptography)?;
    // This fails only if another thread has just installed one, which is as good.
    let _ = provider.install_default();
    Ok(())
}

/// The certificates in a kubeconfig's PEM text.
pub(super) fn authorities(pem: &[u8]) -> Result<Vec<Vec<u8>>, Reason> {
    let authorities = CertificateDer::pem_slice_iter(pem);
    let authorities = authorities.map(|authority| Ok(authority?.to_vec()));
    let authorities: Result<_, pem::Error> = authorities.collect();
    authorities.map_err(|error| {
        let error = chain(&error);
        Reason::Configuration(format!("the kubeconfig's certificate-authority: {error}"))
    })
}

/// Whether an error comes from TLS.
pub(super) fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        // The source of an I/O error isn't the error that it wraps, but that one's source.
        cause = match error.downcast_ref().map(io::Error::get_ref) {
            Some(wrapped) => wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

#[cfg(any(feature = "kube-ring", feature = "tls-ring"))]
fn provider() -> Option<CryptoProvider> {
    Some(rustls::crypto::ring::default_provider())
}

#[cfg(not(any(feature = "kube-ring", feature = "tls-ring")))]
fn provider() -> Option<CryptoProvider> {
    #[cfg(any(feature = "kube-aws-lc", feature = "tls-aws-lc"))]
    return Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(any(feature = "kube-aws-lc", feature = "tls-aws-lc")))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_certificates_are_an_error_that_names_their_field() {
        let pem = "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n";
        let error = authorities(pem.as_bytes()).expect_err("no certificate");
        assert!(
            error.to_string().contains("certificate-authority"),
            "{error}"
        );
    }
}
