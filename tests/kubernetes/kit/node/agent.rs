//! Watches pods and tells their kubelets what happens; binds pods without a node to one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::support::lock;

use super::{
    Notice, Running, State, kubelet,
    persistence::{PAUSE, is_heard},
};

/// Runs until it is dropped; all pods end with it.
pub(super) async fn run(state: Arc<State>) {
    let api: Api<Pod> = Api::namespaced(state.client.clone(), &state.namespace);
    let mut agent = Agent {
        api: api.clone(),
        state,
        kubelets: JoinSet::new(),
        next: 0,
        listed: BTreeSet::new(),
    };
    let events = watcher(api, watcher::Config::default());
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => agent.hear(event).await,
                // The API server is away. The watcher tries again when it is polled.
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
    /// The UIDs of the pods in the list that is being read.
    listed: BTreeSet<String>,
}

impl Agent {
    async fn hear(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) => self.applied(pod).await,
            Event::InitApply(pod) => {
                self.listed.insert(uid(&pod));
                self.applied(pod).await;
            }
            Event::Delete(pod) => self.notify(&uid(&pod), Notice::Forgotten),
            Event::Init => self.listed.clear(),
            Event::InitDone => self.forget_others(),
        }
    }

    async fn applied(&mut self, pod: Pod) {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let grace = grace(&pod);
        match spec.node_name.clone() {
            // The API server deletes it by itself.
            None if grace.is_some() => {}
            None => self.bind(&pod).await,
            Some(node) => {
                let uid = uid(&pod);
                self.start_once(pod, node);
                if let Some(grace) = grace {
                    self.notify(&uid, Notice::Deleted { grace });
                }
            }
        }
    }

    /// Ends pods that disappeared while there was no watch.
    fn forget_others(&self) {
        let known: Vec<_> = lock(&self.state.shared).pods.keys().cloned().collect();
        for uid in known.iter().filter(|uid| !self.listed.contains(*uid)) {
            self.notify(uid, Notice::Forgotten);
        }
    }

    /// Binds a pod to the next node that isn't lost.
    async fn bind(&mut self, pod: &Pod) {
        let lost = lock(&self.state.shared).lost.clone();
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
        let (name, parameters) = (pod.name_any(), PostParams::default());
        loop {
            let bound = self
                .api
                .create_subresource("binding", &name, &parameters, &binding);
            let bound: kube::Result<Value> = bound.await;
            if is_heard(bound).await {
                return;
            }
        }
    }

    fn start_once(&mut self, pod: Pod, node: String) {
        let mut shared = lock(&self.state.shared);
        if shared.pods.contains_key(&uid(&pod)) {
            return;
        }
        let (notices, heard) = mpsc::unbounded_channel();
        let name = pod.name_any();
        let addresses = shared.addresses.assign(&name);
        let running = Running {
            name,
            node,
            addresses: addresses.clone(),
            log_begins: 0,
            is_over: false,
            notices,
        };
        shared.pods.insert(uid(&pod), running);
        drop(shared);
        let kubelet = kubelet::run(self.state.clone(), pod, addresses, heard);
        self.kubelets.spawn(kubelet);
    }

    fn notify(&self, uid: &str, notice: Notice) {
        if let Some(running) = lock(&self.state.shared).pods.get(uid) {
            // This fails if the pod has just ended.
            let _ = running.notices.send(notice);
        }
    }
}

/// The grace period of a deleted pod; none if it isn't deleted.
fn grace(pod: &Pod) -> Option<Duration> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    Some(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

pub(super) fn uid(pod: &Pod) -> String {
    pod.uid().expect("the API server gives it one")
}
