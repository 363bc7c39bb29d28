//! `kubectl rollout restart` under load.

use tokio::time::sleep;

use super::{MOMENT, Use, WEB, gets, settles, web};
use crate::{kit::node::End, source::Source};

const PODS: usize = 6;
/// Requests a second.
const RATE: u32 = 500;

pub(crate) async fn rollout_restart_of_a_deployment(source: Source) {
    rollout_restart(source, "Deployment", End::Drained).await;
}

pub(crate) async fn rollout_restart_of_a_deployment_killed(source: Source) {
    rollout_restart(source, "Deployment", End::Killed).await;
}

pub(crate) async fn rollout_restart_of_a_statefulset(source: Source) {
    rollout_restart(source, "StatefulSet", End::Drained).await;
}

pub(crate) async fn rollout_restart_of_a_statefulset_killed(source: Source) {
    rollout_restart(source, "StatefulSet", End::Killed).await;
}

/// Replaces all pods, and asserts that no request fails.
async fn rollout_restart(source: Source, kind: &str, end: End) {
    let story = format!("rollout-{kind}-{end:?}").to_lowercase();
    let (namespace, client) = web(source, &story, Use::Alone, kind, PODS).await;
    namespace.nodes.set_end(end);
    let before = namespace.ready(WEB).await;
    let load = gets(&client, RATE);
    let kubectl = &namespace.kubectl;
    kubectl.run(&format!("rollout restart {kind}/{WEB}")).await;
    kubectl
        .run(&format!("rollout status {kind}/{WEB} --timeout=110s"))
        .await;
    settles(&client, &namespace, WEB, PODS).await;
    sleep(MOMENT).await;
    let report = load.stop().await;
    println!("{kind} {end:?}: {report}");
    report.assert_none_failed();
    let after = namespace.ready(WEB).await;
    assert!(before.iter().all(|old| !after.contains(old)), "{after:?}");
    // The new pods are in use.
    let pods = report.requests.iter().filter_map(|it| it.pod());
    let used: std::collections::BTreeSet<_> = pods.map(|pod| pod.ip()).collect();
    assert!(after.iter().all(|new| used.contains(new)), "{used:?}");
}
