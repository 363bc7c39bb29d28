//! One pod of a cluster.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::super::pod::{Pod, Settings, builder::PodBuilder};

/// The settings that all pods of a cluster share.
pub(super) struct Template {
    /// The name of their StatefulSet, if they have one.
    pub(super) stateful_set: Option<String>,
    /// All but a pod's own address and name.
    pub(super) pods: PodBuilder,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) pod: Arc<Pod>,
    /// Its place in the StatefulSet.
    pub(super) ordinal: usize,
    /// Its own label below the Service's name.
    pub(super) hostname: String,
    pub(super) ready: bool,
}

impl Template {
    pub(super) async fn start(&self, address: SocketAddr, ordinal: usize) -> io::Result<Member> {
        let set = self.stateful_set.as_ref();
        let name = set.map(|set| format!("{set}-{ordinal}"));
        let settings = Settings {
            name: name.clone(),
            ..self.pods.settings.clone()
        };
        let pod = PodBuilder { address, settings }.start().await?;
        Ok(Member {
            // CoreDNS names a pod without a hostname in this way.
            hostname: name.unwrap_or_else(|| pod.ip().to_string().replace('.', "-")),
            pod: Arc::new(pod),
            ordinal,
            ready: true,
        })
    }
}

impl Member {
    /// Its IPv4 address: all addresses of a cluster are of this family.
    pub(super) fn ip(&self) -> Option<Ipv4Addr> {
        match self.pod.addr() {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        }
    }
}
