//! A pod as its responses name it.

use std::sync::Arc;

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
    pub(super) fn new(pod: Endpoint) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(pod.clone());
        Self {
            pod: Arc::new(pod),
            extensions,
        }
    }
}
