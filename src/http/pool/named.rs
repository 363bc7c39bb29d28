//! A pod as its responses name it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use http::Extensions;

use crate::endpoint::Endpoint;

/// The address of no pod.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Each response has a clone.
#[derive(Clone)]
pub(in crate::http) struct Named {
    pub(in crate::http) pod: Arc<Endpoint>,
    /// With the pod in them: they are cheaper copied than made for each response.
    pub(in crate::http) extensions: Extensions,
}

impl Named {
    /// Whether there is a pod.
    pub(in crate::http) fn is_known(&self) -> bool {
        self.pod.address() != NOBODY
    }

    pub(super) fn new(pod: Endpoint) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(pod.clone());
        Self {
            pod: Arc::new(pod),
            extensions,
        }
    }

    /// Of a response that no pod has sent: it names [`NOBODY`], where no pod can be.
    pub(in crate::http) fn nobody() -> Self {
        Self {
            pod: Arc::new(Endpoint::new(NOBODY)),
            extensions: Extensions::new(),
        }
    }
}
