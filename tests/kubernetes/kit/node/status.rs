//! A pod's status, as kubelet reports it.

use std::net::IpAddr;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use super::{image::container, persistence::is_heard};

pub(super) const NODE_ADDRESS: &str = "10.244.255.1";

/// Reports one pod's status.
pub(super) struct Reporter {
    api: Api<Pod>,
    pod: Pod,
    addresses: Vec<IpAddr>,
    started: Timestamp,
    restarts: u32,
    /// When readiness last changed. Deployments count from then (`minReadySeconds`).
    since: Timestamp,
    ready: bool,
}

impl Reporter {
    pub(super) fn new(api: Api<Pod>, pod: Pod, addresses: Vec<IpAddr>) -> Self {
        Self {
            api,
            pod,
            addresses,
            started: Timestamp::now(),
            restarts: 0,
            since: Timestamp::now(),
            ready: false,
        }
    }

    pub(super) async fn running(&mut self, ready: bool) {
        if ready != self.ready {
            self.since = Timestamp::now();
            self.ready = ready;
        }
        let state = json!({ "running": { "startedAt": self.started.to_string() } });
        self.report("Running", state).await;
    }

    pub(super) async fn restarted(&mut self) {
        self.restarts += 1;
        self.running(false).await;
    }

    /// Reports that the container has ended and isn't started again.
    pub(super) async fn over(&mut self, code: i32) {
        self.ready = false;
        self.since = Timestamp::now();
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let state = json!({ "terminated": { "exitCode": code } });
        self.report(phase, state).await;
    }

    /// Deletes the pod's object, which frees its name.
    pub(super) async fn delete(&self) {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: self.pod.uid(),
                ..Preconditions::default()
            }),
            ..DeleteParams::default().grace_period(0)
        };
        let name = self.pod.name_any();
        while !is_heard(self.api.delete(&name, &parameters).await).await {}
    }

    async fn report(&self, phase: &str, state: Value) {
        let patch = json!({
            // The UID keeps another pod of the same name from being changed.
            "metadata": { "uid": self.pod.uid() },
            "status": self.status(phase, state),
        });
        let (name, parameters) = (self.pod.name_any(), PatchParams::default());
        let patch = Patch::Strategic(&patch);
        while !is_heard(self.api.patch_status(&name, &parameters, &patch).await).await {}
    }

    fn status(&self, phase: &str, state: Value) -> Value {
        let container = container(&self.pod);
        let addresses = self.addresses.iter().map(|ip| json!({ "ip": ip }));
        json!({
            "phase": phase,
            "hostIP": NODE_ADDRESS,
            "podIP": self.addresses[0],
            "podIPs": addresses.collect::<Vec<_>>(),
            "startTime": self.started.to_string(),
            "conditions": [
                self.condition("PodScheduled", true, self.started),
                self.condition("Initialized", true, self.started),
                self.condition("ContainersReady", self.ready, self.since),
                self.condition("Ready", self.ready, self.since),
            ],
            "containerStatuses": [{
                "name": container.name,
                "image": container.image,
                "imageID": container.image,
                "ready": self.ready,
                "started": true,
                "restartCount": self.restarts,
                "state": state,
            }],
        })
    }

    fn condition(&self, kind: &str, holds: bool, since: Timestamp) -> Value {
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "lastTransitionTime": since.to_string(),
        })
    }
}
