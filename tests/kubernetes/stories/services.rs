//! Services of other kinds, and Services that are deleted.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;

use super::{MOMENT, Use, WEB, becomes, gets, has_no_pods, manifests, settles, until, web};
use crate::{
    kit::namespace::Namespace,
    kit::node::Order,
    source::{Source, named_uri},
};

/// A Service deleted for a moment goes unnoticed by DNS, while a watch believes it. Deleted for longer, it has no pods.
/// Made again, everything works.
pub(crate) async fn a_service_is_deleted_and_made_again(source: Source) {
    let (namespace, client) = web(source, "service-again", Use::Shared, "Deployment", 3).await;
    let load = gets(&client, 100);
    namespace.kubectl.run("delete service web").await;
    namespace.kubectl.apply(&manifests::headless(WEB)).await;
    settles(&client, &namespace, WEB, 3).await;
    let report = load.stop().await;
    match source {
        Source::Dns => report.assert_none_failed(),
        // Requests fail at once, with the reason.
        Source::Watch => {
            let mut errors = report.failed().filter_map(|it| it.result.as_ref().err());
            assert!(errors.all(has_no_pods), "{report}");
        }
    }
    namespace.kubectl.run("delete service web").await;
    becomes(&client, &[]).await;
    let refused = client.get("/").await.expect_err("there is no Service");
    assert!(has_no_pods(&refused), "{refused:?}");
    namespace.kubectl.apply(&manifests::headless(WEB)).await;
    settles(&client, &namespace, WEB, 3).await;
    client.get("/").await.expect("three pods");
}

/// By DNS, the client logs what may be wrong after a minute with the same address. A watch finds its pods anyway.
pub(crate) async fn a_cluster_ip_is_asked_for_as_headless(source: Source) {
    let namespace = Namespace::create(&source.namespace("cluster-ip"), Use::Shared).await;
    let manifests = [
        manifests::cluster_ip(WEB),
        manifests::nginx("Deployment", WEB, 3),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    match source {
        Source::Dns => a_hint_comes(namespace).await,
        Source::Watch => {
            let client = source.client(&namespace, WEB, 80);
            settles(&client, &namespace, WEB, 3).await;
            let load = gets(&client, 100);
            sleep(MOMENT).await;
            let report = load.stop().await;
            report.assert_none_failed();
            let pods = report.requests.iter().filter_map(|it| it.pod());
            assert_eq!(pods.collect::<BTreeSet<_>>().len(), 3);
        }
    }
}

/// Waits for the hint in the log of a client in a pod, which uses the Service's short name.
async fn a_hint_comes(mut namespace: Namespace) {
    let client = manifests::client("client", WEB, Source::Dns, 90);
    namespace.kubectl.apply(&client).await;
    until("the client's start", async || {
        namespace.nodes.log("client").contains("10.96.")
    })
    .await;
    namespace.give_way();
    let hint = "if it has more, is `clusterIP: None` set?";
    until("the hint", async || {
        namespace.nodes.log("client").contains(hint)
    })
    .await;
}

/// The crate's own example, in a pod and with the Service's short name, ends well. The watch uses the pod's own
/// credentials.
pub(crate) async fn a_client_in_a_pod(source: Source) {
    let (namespace, _) = web(source, "in-a-pod", Use::Shared, "StatefulSet", 3).await;
    let role = manifests::role("default");
    let client = manifests::client("client", WEB, source, 5);
    namespace.kubectl.apply(&[role, client].concat()).await;
    until("the client's end", async || {
        let phase = namespace
            .kubectl
            .run("get pod client -o jsonpath={.status.phase}")
            .await;
        assert_ne!(phase, "Failed", "{}", namespace.nodes.log("client"));
        phase == "Succeeded"
    })
    .await;
    let log = namespace.nodes.log("client");
    assert!(!log.contains("WARN"), "{log}");
}

/// Pods are known before they are ready, as databases need it to find their peers.
pub(crate) async fn publish_not_ready_addresses(source: Source) {
    let namespace = Namespace::create(&source.namespace("not-ready"), Use::Shared).await;
    let manifests = [
        manifests::published_unready(WEB),
        manifests::nginx("StatefulSet", WEB, 2),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    let client = source.client(&namespace, WEB, 80);
    settles(&client, &namespace, WEB, 2).await;
    let load = gets(&client, 100);
    namespace.nodes.order("web-0", Order::Ready(Some(false)));
    until("an unready pod", async || {
        let ready = "get pod web-0 -o jsonpath={.status.containerStatuses[0].ready}";
        namespace.kubectl.run(ready).await == "false"
    })
    .await;
    // In its slice it counts as ready. One more look by DNS, and it is still there.
    sleep(Duration::from_secs(6)).await;
    settles(&client, &namespace, WEB, 2).await;
    load.stop().await.assert_none_failed();
}

/// The Service refers to the pods' port by name.
pub(crate) async fn a_named_port(source: Source) {
    let namespace = Namespace::create(&source.namespace("named-port"), Use::Shared).await;
    let pods = manifests::nginx("Deployment", WEB, 3);
    let pods = pods.replace("containerPort: 80", "containerPort: 8080");
    let manifests = [manifests::named_port(WEB), pods];
    namespace.kubectl.apply(&manifests.concat()).await;
    let client = source.client_of(&namespace, &named_uri(&namespace, WEB));
    settles(&client, &namespace, WEB, 3).await;
    let response = client.get("/").await.expect("three pods");
    assert_eq!(
        response.body().endpoint().expect("a pod").address().port(),
        8080
    );
}
