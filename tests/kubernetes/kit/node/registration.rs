//! Registers a node with the API server.

use k8s_openapi::{
    api::core::v1::{Node as NodeObject, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Node, State, status::NODE_ADDRESS};

/// Registers a node. This must come before any pod is bound to it: otherwise the endpointslice controller skips the
/// pod, and may take a minute to look again.
pub(super) async fn register(state: &State, node: &Node) {
    let object = serde_json::from_value(json!({
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "topology.kubernetes.io/zone": node.zone,
            },
        },
    }));
    let nodes: Api<NodeObject> = Api::all(state.client.clone());
    let created = nodes
        .create(&PostParams::default(), &object.expect("a Node"))
        .await;
    created.expect("a node of that name is new");
    report(state, &node.name, "True").await;
}

/// Reports that the node and its pods are not ready.
pub(super) async fn report_lost(state: &State, node: &str) {
    report(state, node, "Unknown").await;
    let pods: Api<Pod> = Api::namespaced(state.client.clone(), &state.namespace);
    let there = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let status = json!({ "status": { "conditions": [{
        "type": "Ready",
        "status": "False",
        "reason": "NodeNotReady",
        "lastTransitionTime": Timestamp::now().to_string(),
    }] } });
    for pod in pods.list(&there).await.expect("a list of pods") {
        let patch = Patch::Strategic(&status);
        let (name, parameters) = (pod.name_any(), PatchParams::default());
        let patched = pods.patch_status(&name, &parameters, &patch).await;
        patched.expect("a pod's status can be changed");
    }
}

async fn report(state: &State, node: &str, ready: &str) {
    let nodes: Api<NodeObject> = Api::all(state.client.clone());
    let now = Timestamp::now().to_string();
    let status = json!({ "status": {
        "conditions": [{
            "type": "Ready",
            "status": ready,
            "reason": "Reported",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }],
        // The endpointslice controller weighs zones by their CPUs.
        "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
        "capacity": { "cpu": "4", "memory": "8Gi", "pods": "110" },
        "addresses": [{ "type": "InternalIP", "address": NODE_ADDRESS }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": state.port } },
    } });
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&status));
    let patched = nodes.patch_status(node, &parameters, &patch).await;
    patched.expect("a node's status can be changed");
}
