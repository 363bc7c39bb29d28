//! The nodes of a test, the only part of the cluster that is our own: a scheduler and kubelets for one Kubernetes
//! namespace.
//!
//! A pod is a real process with its own address. It is bound to a node, started, probed, reported on and ended as by
//! kubelet. It can also be made to misbehave, as pods and nodes do.

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

/// How a deleted pod ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// As by kubelet: the `preStop` hook, the image's stop signal, the grace period.
    #[default]
    Drained,
    /// At once, without closing its connections properly.
    Killed,
}

/// A way for a pod to misbehave, or to stop doing so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Its process is killed; kubelet starts it again.
    Crash,
    /// Its process hangs, while the kernel goes on accepting connections for it.
    Hang,
    /// Undoes `Hang`.
    GoOn,
    /// Sets its readiness, whatever its probe says; `None` lets the probe decide again.
    Ready(Option<bool>),
}

/// A message to a pod's kubelet.
#[derive(Debug)]
enum Notice {
    Order(Order),
    /// The pod was deleted in the API server.
    Deleted {
        grace: std::time::Duration,
    },
    /// The API server doesn't know the pod any more.
    Forgotten,
    /// Its node has lost its power.
    NodeLost,
}

/// The nodes of one test. Everything they run is killed when they are dropped.
pub(crate) struct Nodes {
    state: Arc<State>,
    /// The agent with all kubelets, and the node's API.
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
    /// The port where the API server asks for logs.
    port: u16,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    end: End,
    addresses: Addresses,
    /// The pods, by UID.
    pods: BTreeMap<String, Running>,
    lost: Vec<String>,
}

/// A pod that is bound to one of our nodes.
struct Running {
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
    /// Where its container's log begins in the file, which all pods of this name share.
    log_begins: u64,
    /// Its container has ended and isn't started again.
    is_over: bool,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Nodes {
    /// Registers nodes, one in each of the zones, and runs the pods of the Kubernetes namespace.
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

    /// Sets how deleted pods end from now on.
    pub(crate) fn set_end(&self, end: End) {
        lock(&self.state.shared).end = end;
    }

    /// The next pod of this name gets this address.
    pub(crate) fn reserve(&self, pod: &str, address: IpAddr) {
        lock(&self.state.shared).addresses.reserve(pod, address);
    }

    /// The addresses of the latest pod of this name, IPv4 first.
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
        // This fails if the pod is just ending.
        let _ = running.notices.send(Notice::Order(order));
    }

    /// Makes a node lose its power: packets to and from its pods vanish, and nobody reports their status.
    ///
    /// The API server goes on believing that the pods are ready, until [`report_lost`](Self::report_lost).
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

    /// Does what the node lifecycle controller does when a node has been silent for 40 s: marks the node and its pods
    /// as not ready.
    pub(crate) async fn report_lost(&self, node: &str) {
        registration::report_lost(&self.state, node).await;
    }

    /// What the processes of pods of this name have written.
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
