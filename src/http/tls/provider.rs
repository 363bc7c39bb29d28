//! The cryptography provider.

use rustls::crypto::CryptoProvider;

use crate::error::BoxError;

/// The provider of this build's features.
#[allow(unreachable_code, reason = "the features may both be on")]
pub(crate) fn provider() -> Result<CryptoProvider, BoxError> {
    #[cfg(feature = "tls-ring")]
    return Ok(rustls::crypto::ring::default_provider());
    #[cfg(feature = "tls-aws-lc")]
    return Ok(rustls::crypto::aws_lc_rs::default_provider());
    Err("no provider of cryptography: enable the feature tls-ring or tls-aws-lc".into())
}
