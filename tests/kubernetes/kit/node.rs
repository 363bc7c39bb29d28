//! The nodes of a test, the only part of the cluster that is ours: scheduler and kubelet for one Kubernetes namespace.
//!
//! A pod is a real process on an address of its own. It is bound to a node, started, probed, reported on, and ended as
//! kubelet does it; and it can be made to misbehave, as pods and nodes do.

mod addresses;
mod agent;
mod api;
mod container;
mod environment;
mod hole;
mod hook;
mod image;
mod kubelet;
mod log;
mod persistence;
mod probe;
mod registration;
mod status;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use kube::Client;
use tokio::{sync::mpsc, task::JoinSet};

use crate::support::{lock, servers::TempDir};
use addresses::Addresses;

use super::control_plane::ControlPlane;

/// How a pod ends that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// As kubelet ends it: the `preStop` hook, the image's stop signal, the grace period.
    #[default]
    Drained,
    /// Where it stands, without a word to its clients.
    Killed,
}

/// What a pod is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Its process is killed; kubelet starts it again.
    Crash,
    /// Its process does nothing from here on, while the kernel goes on accepting connections for it.
    Hang,
    /// Undoes `Hang`.
    GoOn,
    /// Its readiness is this, whatever its probe says; `None` lets the probe decide again.
    Ready(Option<bool>),
}

/// What the kubelet of a pod hears.
#[derive(Debug)]
enum Notice {
    Order(Order),
    /// The API server wants it to end.
    Deleted {
        grace: std::time::Duration,
    },
    /// The API server doesn't know it any more.
    Forgotten,
    /// Its node has lost its power.
    NodeLost,
}

/// The nodes of one test. Everything they run is killed when they are dropped.
pub(crate) struct Nodes {
    state: Arc<State>,
    /// The agent, and with it all kubelets; and the API.
    _tasks: JoinSet<()>,
}

/// A node's name and zone.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) zone: String,
}

/// What the agent and the kubelets share with the test.
struct State {
    plane: &'static ControlPlane,
    client: Client,
    namespace: String,
    nodes: Vec<Node>,
    folder: TempDir,
    /// Where the API server asks for logs.
    port: u16,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    end: End,
    addresses: Addresses,
    /// By their pods' unique IDs.
    pods: BTreeMap<String, Running>,
    lost: Vec<String>,
}

/// A pod that is bound to one of our nodes.
struct Running {
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
    /// Where the log of its container begins in the file, which is that of all pods of this name.
    log_begins: u64,
    /// Its container is not to be started again.
    is_over: bool,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Nodes {
    /// Registers nodes, one in each of the zones, and runs what is to be run in the Kubernetes namespace.
    pub(crate) async fn start(
        plane: &'static ControlPlane,
        client: Client,
        namespace: &str,
        zones: &[&str],
    ) -> Self {
        let node = |(i, zone): (usize, &&str)| Node {
            name: format!("{namespace}-{i}"),
            zone: (*zone).to_owned(),
        };
        let listener = api::listen().await;
        let state = Arc::new(State {
            plane,
            client,
            namespace: namespace.to_owned(),
            nodes: zones.iter().enumerate().map(node).collect(),
            folder: TempDir::new().expect("a folder of its own"),
            port: listener.local_addr().expect("it listens").port(),
            shared: Mutex::default(),
        });
        for node in &state.nodes {
            registration::register(&state, node).await;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(agent::run(state.clone()));
        tasks.spawn(api::serve(listener, state.clone()));
        Self {
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn all(&self) -> &[Node] {
        &self.state.nodes
    }

    /// How pods end from now on that are deleted.
    pub(crate) fn set_end(&self, end: End) {
        lock(&self.state.shared).end = end;
    }

    /// The next pod of this name gets this address.
    pub(crate) fn reserve(&self, pod: &str, address: IpAddr) {
        lock(&self.state.shared).addresses.reserve(pod, address);
    }

    /// A pod's addresses, IPv4 first. The latest pod of that name is meant.
    pub(crate) fn addresses_of(&self, pod: &str) -> Vec<IpAddr> {
        let shared = lock(&self.state.shared);
        let running = shared.pods.values().find(|running| running.name == pod);
        let running = running.unwrap_or_else(|| panic!("no pod {pod} runs here"));
        running.addresses.clone()
    }

    /// The names of the pods that run on a node.
    pub(crate) fn on(&self, node: &str) -> Vec<String> {
        let shared = lock(&self.state.shared);
        let there = shared.pods.values().filter(|running| running.node == node);
        there.map(|running| running.name.clone()).collect()
    }

    /// The names of the pods whose processes haven't ended.
    pub(crate) fn running(&self) -> Vec<String> {
        let shared = lock(&self.state.shared);
        let names = shared.pods.values().map(|running| running.name.clone());
        names.collect()
    }

    /// Tells a pod to misbehave, or to behave again.
    pub(crate) fn order(&self, pod: &str, order: Order) {
        let shared = lock(&self.state.shared);
        let running = shared.pods.values().find(|running| running.name == pod);
        let running = running.unwrap_or_else(|| panic!("no pod {pod} runs here"));
        // One that ends just now has no ears.
        let _ = running.notices.send(Notice::Order(order));
    }

    /// A node loses its power: packets to its pods vanish, nothing comes from them, and nobody reports.
    ///
    /// The API server goes on believing that all is well there, until [`report_lost`](Self::report_lost).
    pub(crate) async fn lose(&self, node: &str) {
        let addresses = {
            let mut shared = lock(&self.state.shared);
            shared.lost.push(node.to_owned());
            let there = shared.pods.values().filter(|running| running.node == node);
            let mut addresses = Vec::new();
            for running in there {
                let _ = running.notices.send(Notice::NodeLost);
                addresses.extend(running.addresses.iter().copied());
            }
            addresses
        };
        for address in addresses {
            hole::swallow(address).await;
        }
    }

    /// What the node lifecycle controller does when a node has been silent for 40 s: the node is not ready, nor are its
    /// pods.
    pub(crate) async fn report_lost(&self, node: &str) {
        registration::report_lost(&self.state, node).await;
    }

    /// What a pod's process has written, of the latest pod of that name.
    pub(crate) fn log(&self, pod: &str) -> String {
        std::fs::read_to_string(self.state.log_file(pod)).unwrap_or_default()
    }
}

impl State {
    fn update(&self, uid: &str, change: impl FnOnce(&mut Running)) {
        if let Some(running) = lock(&self.shared).pods.get_mut(uid) {
            change(running);
        }
    }

    fn log_file(&self, pod: &str) -> PathBuf {
        super::log_file(&format!("{}/{pod}.log", self.namespace))
    }
}
