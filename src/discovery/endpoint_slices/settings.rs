//! What the user of [`EndpointSlices`](super::EndpointSlices) has chosen.

use std::path::PathBuf;

use kube::Client;

use super::{client::ApiServer, slices::Slices, target::ServiceTarget, watcher::Watcher};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) target: ServiceTarget,
    pub(super) access: Access,
    pub(super) prefer_ipv6: bool,
    pub(super) allow_loopback: bool,
}

/// The way to the API server.
#[derive(Clone)]
pub(super) enum Access {
    /// By kubeconfig, or as a pod.
    Inferred,
    Kubeconfig(PathBuf),
    Client(Client),
}

impl Settings {
    pub(super) fn new(target: ServiceTarget) -> Self {
        Self {
            target,
            access: Access::Inferred,
            prefer_ipv6: false,
            allow_loopback: false,
        }
    }

    pub(super) fn slices(&self) -> Slices {
        let port = self.target.port().clone();
        Slices::new(port, self.prefer_ipv6, self.allow_loopback)
    }

    pub(super) fn watcher(&self) -> Watcher<ApiServer> {
        let api = ApiServer::new(self.clone());
        Watcher::new(self.target.clone(), self.slices(), api)
    }
}
