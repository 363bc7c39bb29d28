//! The settings of [`EndpointSlices`](super::EndpointSlices).

use std::path::PathBuf;

use kube::Client;

use super::target::ServiceTarget;

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
    /// By the kubeconfig that is found, or else by the pod's service account.
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
}
