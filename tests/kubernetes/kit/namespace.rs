//! A Kubernetes namespace with its own nodes: everything that a test needs of the cluster.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, api::ListParams};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    control_plane::{ControlPlane, User},
    kubectl::Kubectl,
    node::Nodes,
};

/// One test's part of the cluster. Dropping it ends its pods.
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) plane: &'static ControlPlane,
    pub(crate) client: Client,
    pub(crate) kubectl: Kubectl,
    pub(crate) nodes: Nodes,
    turn: Option<Turn>,
}

/// How a test uses the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Alongside others.
    Shared,
    /// Alone: it loads both cores of a small machine, or stops something that all tests need.
    Alone,
}

/// A test's right to run.
#[derive(Debug)]
enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Turn {
    async fn take(usage: Use) -> Self {
        static TURNS: RwLock<()> = RwLock::const_new(());
        match usage {
            Use::Shared => Self::Shared {
                _guard: TURNS.read().await,
            },
            Use::Alone => Self::Alone {
                _guard: TURNS.write().await,
            },
        }
    }
}

impl Namespace {
    /// Creates one with a node in each of three zones.
    pub(crate) async fn create(name: &str, usage: Use) -> Self {
        Self::create_in(name, usage, &["a", "b", "c"]).await
    }

    /// Creates one with a node for each of these zones.
    pub(crate) async fn create_in(name: &str, usage: Use, zones: &[&str]) -> Self {
        let turn = Turn::take(usage).await;
        let plane = ControlPlane::shared().await;
        let client = plane.client(User::Admin).await;
        let kubectl = plane.kubectl(name);
        kubectl.run(&format!("create namespace {name}")).await;
        // A controller makes the namespace's default account, and pods need its tokens.
        let account = "wait --for=create serviceaccount/default --timeout=30s";
        kubectl.run(account).await;
        let nodes = Nodes::start(plane, client.clone(), name, zones).await;
        Self {
            name: name.to_owned(),
            plane,
            client,
            kubectl,
            nodes,
            turn: Some(turn),
        }
    }

    /// Gives up its turn, so that tests that must run alone can, while this one waits.
    pub(crate) fn give_way(&mut self) {
        self.turn = None;
    }

    /// Changes the number of a Deployment's or a StatefulSet's replicas.
    pub(crate) async fn scale(&self, what: &str, replicas: usize) {
        let arguments = format!("scale {what} --replicas={replicas}");
        self.kubectl.run(&arguments).await;
    }

    /// A Service's full name.
    pub(crate) fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local", self.name)
    }

    /// The addresses of a Service's ready endpoints in the control plane, sorted.
    pub(crate) async fn ready(&self, service: &str) -> Vec<IpAddr> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.name);
        let label = format!("kubernetes.io/service-name={service}");
        let slices = slices.list(&ListParams::default().labels(&label)).await;
        let slices = slices.unwrap_or_else(|error| panic!("no slices of {service}: {error}"));
        let endpoints = slices
            .into_iter()
            .filter(|slice| slice.address_type == "IPv4");
        let endpoints = endpoints.flat_map(|slice| slice.endpoints.unwrap_or_default());
        let ready = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|it| it.ready).unwrap_or(true)
        });
        let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_unstable();
        addresses
    }
}
