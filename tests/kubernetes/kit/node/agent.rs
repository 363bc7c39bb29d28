//! What happens to pods, told to their kubelets; a pod without a node gets one.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{Notice, Running, State, kubelet};

/// How long until we try again while the API server is away.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it is dropped, and all pods with it.
pub(super) async fn run(state: Arc<State>) {
    let api: Api<Pod> = Api::namespaced(state.client.clone(), &state.namespace);
    let mut agent = Agent {
        api: api.clone(),
        state,
        kubelets: JoinSet::new(),
        next: 0,
    };
    let events = watcher(api, watcher::Config::default());
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => agent.hear(event).await,
                // The API server is away. The watcher tries again when it is asked for more.
                Some(Err(_)) => sleep(PAUSE).await,
                None => return,
            },
            Some(ended) = agent.kubelets.join_next() => ended.expect("no kubelet panics"),
        }
    }
}

struct Agent {
    api: Api<Pod>,
    state: Arc<State>,
    kubelets: JoinSet<()>,
    /// The node that the next pod gets.
    next: usize,
}

impl Agent {
    async fn hear(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => self.applied(pod).await,
            Event::Delete(pod) => self.notify(&pod, Notice::Forgotten),
            Event::Init | Event::InitDone => {}
        }
    }

    async fn applied(&mut self, pod: Pod) {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let is_known = self.state.lock().pods.contains_key(&uid(&pod));
        match &spec.node_name {
            None if pod.metadata.deletion_timestamp.is_none() => self.bind(&pod).await,
            None => {}
            Some(_) if is_known => {
                if pod.metadata.deletion_timestamp.is_some() {
                    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
                    let grace = Duration::from_secs(grace.try_into().unwrap_or(0));
                    self.notify(&pod, Notice::Deleted { grace });
                }
            }
            Some(node) => {
                let node = node.clone();
                self.start(pod, node);
            }
        }
    }

    /// In turn, over those that aren't lost.
    async fn bind(&mut self, pod: &Pod) {
        let lost = self.state.lock().lost.clone();
        let nodes = self.state.nodes.iter();
        let nodes: Vec<_> = nodes.filter(|node| !lost.contains(&node.name)).collect();
        let node = nodes[self.next % nodes.len()];
        self.next += 1;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": pod.name_any() },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node.name },
        });
        let binding = serde_json::to_vec(&binding).expect("JSON");
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/binding",
            self.state.namespace,
            pod.name_any()
        );
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(binding);
        let client = self.api.clone().into_client();
        // It may be gone already, or bound by the request that we repeat.
        let _ = client
            .request::<serde_json::Value>(request.expect("a request"))
            .await;
    }

    fn start(&mut self, pod: Pod, node: String) {
        if pod.metadata.deletion_timestamp.is_some() && is_over(&pod) {
            return;
        }
        let (notices, heard) = mpsc::unbounded_channel();
        let name = pod.name_any();
        let mut shared = self.state.lock();
        let addresses = shared.addresses.assign(&name);
        let running = Running {
            name,
            node,
            addresses: addresses.clone(),
            notices,
        };
        shared.pods.insert(uid(&pod), running);
        drop(shared);
        self.kubelets
            .spawn(kubelet::run(self.state.clone(), pod, addresses, heard));
    }

    fn notify(&self, pod: &Pod, notice: Notice) {
        if let Some(running) = self.state.lock().pods.get(&uid(pod)) {
            // One that has just ended has no ears.
            let _ = running.notices.send(notice);
        }
    }
}

pub(super) fn uid(pod: &Pod) -> String {
    pod.uid().expect("the API server gives it one")
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
