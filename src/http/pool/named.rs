//! A pod as its responses name it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use http::Extensions;

use crate::endpoint::Endpoint;

/// Each response has a clone.
#[derive(Clone)]
pub(in crate::http) struct Named {
    pub(in crate::http) pod: Arc<Endpoint>,
    /// With the pod in them: they are cheaper copied than made for each response.
    pub(in crate::http) extensions: Extensions,
}

impl Named {
    pub(in crate::http) fn new(pod: Endpoint) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(pod.clone());
        Self {
            pod: Arc::new(pod),
            extensions,
        }
    }

    /// Of a response that no pod has sent.
    pub(in crate::http) fn nobody() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            pod: Arc::new(nowhere.into()),
            extensions: Extensions::new(),
        }
    }
}
