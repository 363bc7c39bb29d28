//! The cryptography of the connection to the API server.
//!
//! kube takes rustls' default for the process, and panics where there is none and the crates that happen to be linked
//! leave a choice: two providers, or none. So there is one before kube looks: the application's own, if it has installed
//! one, and else that of this crate's features, ring before aws-lc as in the HTTP client.

use rustls::crypto::CryptoProvider;

use super::error::Reason;

/// Makes sure of a default provider.
pub(super) fn provide() -> Result<(), Reason> {
    if CryptoProvider::get_default().is_some() {
        return Ok(());
    }
    let provider = provider().ok_or(Reason::NoCryptography)?;
    // If somebody else was faster there is one, too.
    let _ = provider.install_default();
    Ok(())
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
