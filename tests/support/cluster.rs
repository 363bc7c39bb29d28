//! The crate's own cluster, and certificates for its pods.

use std::ops::Deref;

#[cfg(feature = "tls")]
use super::tls::Identity;
use tower_headless::test_util;

/// The name of the Service unless a test chooses another.
pub const SERVICE: &str = "web.default.svc.cluster.local.";

/// A [`test_util::Cluster`] whose pods may have a certificate.
#[must_use = "the cluster ends when it is dropped"]
pub struct Cluster {
    cluster: test_util::Cluster,
    #[cfg(feature = "tls")]
    identity: Option<Identity>,
}

impl Cluster {
    /// Starts a Service of `n` pods, published with a TTL of 1 s.
    pub async fn start(n: usize) -> Self {
        Self {
            cluster: test_util::Cluster::start(n).await,
            #[cfg(feature = "tls")]
            identity: None,
        }
    }

    /// Like [`start`](Self::start), with pods that speak TLS, with a certificate for the Service's name.
    #[cfg(feature = "tls")]
    pub async fn start_tls(n: usize) -> Self {
        Self::start_tls_as(SERVICE, n).await
    }

    /// Like [`start_tls`](Self::start_tls), with a certificate for another name.
    #[cfg(feature = "tls")]
    pub async fn start_tls_as(certified: &str, n: usize) -> Self {
        let identity = Identity::new(certified);
        let (chain, key) = (identity.certificate_pem(), identity.key_pem());
        let builder = test_util::Cluster::builder().pods(n);
        let builder = builder.tls(chain.as_bytes(), key.as_bytes());
        Self {
            cluster: builder.expect("a certificate").start().await,
            identity: Some(identity),
        }
    }

    /// The pods' certificate, which is its own authority.
    ///
    /// # Panics
    ///
    /// If the pods speak no TLS.
    #[cfg(feature = "tls")]
    pub fn trust_pem(&self) -> &str {
        let identity = self.identity.as_ref();
        identity.expect("pods with TLS").certificate_pem()
    }
}

impl Deref for Cluster {
    type Target = test_util::Cluster;

    fn deref(&self) -> &test_util::Cluster {
        &self.cluster
    }
}
