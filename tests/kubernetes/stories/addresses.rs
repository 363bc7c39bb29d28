//! Addresses that pass to other pods, and pods that get other addresses.

use tokio::time::sleep;

use super::{MOMENT, Use, WEB, addresses_of, gets, manifests, settles, until, web};
use crate::{
    kit::namespace::Namespace,
    source::{Source, named_uri, uri},
};

/// When a StatefulSet's pod is deleted, the next one has its name, and another address.
pub(crate) async fn a_name_returns_at_another_address(source: Source) {
    let (namespace, client) = web(source, "same-name", Use::Shared, "StatefulSet", 3).await;
    let by_name = source.client_of(&namespace, &named_uri(&namespace, WEB));
    settles(&by_name, &namespace, WEB, 3).await;
    let load = gets(&client, 100);
    let old = namespace.nodes.addresses_of("web-1")[0];
    namespace.kubectl.run("delete pod web-1 --wait=true").await;
    let address = |client: &tower_headless::http::Client| {
        let mut endpoints = client.endpoints().into_iter();
        let web_1 = endpoints.find(|it| it.endpoint.hostname() == Some("web-1"));
        web_1.map(|it| it.endpoint.address().ip())
    };
    until("web-1 at another address", async || {
        address(&by_name).is_some_and(|new| new != old)
    })
    .await;
    settles(&by_name, &namespace, WEB, 3).await;
    assert_eq!(
        address(&by_name),
        Some(namespace.nodes.addresses_of("web-1")[0])
    );
    settles(&client, &namespace, WEB, 3).await;
    load.stop().await.assert_none_failed();
}

/// When a pod of one Service ends, the next pod of another Service gets its address.
pub(crate) async fn an_address_passes_to_another_service(source: Source) {
    let (namespace, client) = web(source, "address-passes", Use::Shared, "StatefulSet", 3).await;
    let others = [
        manifests::headless("other"),
        manifests::nginx("StatefulSet", "other", 1),
    ];
    namespace.kubectl.apply(&others.concat()).await;
    let other = source.client(&namespace, "other", 80);
    settles(&other, &namespace, "other", 1).await;
    let load = gets(&client, 100);
    let address = namespace.nodes.addresses_of("web-2")[0];
    // Scaled to two of three, so that web-2 doesn't return.
    namespace.scale("statefulset/web", 2).await;
    until("the end of web-2", async || {
        !namespace.nodes.running().contains(&"web-2".to_owned())
    })
    .await;
    namespace.nodes.reserve("other-1", address);
    namespace.scale("statefulset/other", 2).await;
    settles(&other, &namespace, "other", 2).await;
    assert!(addresses_of(&other).contains(&address));
    settles(&client, &namespace, WEB, 2).await;
    assert!(!addresses_of(&client).contains(&address));
    load.stop().await.assert_none_failed();
    // From here on each client gets only its own pods' answers.
    for (client, theirs) in [(&client, false), (&other, true)] {
        let load = gets(client, 100);
        sleep(MOMENT).await;
        let report = load.stop().await;
        report.assert_none_failed();
        let pods = report.requests.iter().filter_map(|it| it.pod());
        let is_used = pods.map(|pod| pod.ip()).any(|ip| ip == address);
        assert_eq!(is_used, theirs);
    }
}

/// Only one of each pod's two addresses is used.
pub(crate) async fn dual_stack(source: Source) {
    let namespace = Namespace::create(&source.namespace("dual-stack"), Use::Shared).await;
    let manifests = [
        manifests::dual_stack(WEB),
        manifests::nginx("StatefulSet", WEB, 3),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    let client = source.client(&namespace, WEB, 80);
    settles(&client, &namespace, WEB, 3).await;
    let ipv6 = source.ipv6_client_of(&namespace, &uri(&namespace, WEB, 80));
    let expected = || {
        let names = ["web-0", "web-1", "web-2"];
        let mut addresses = names.map(|name| namespace.nodes.addresses_of(name)[1]);
        addresses.sort_unstable();
        addresses
    };
    until("three pods by IPv6", async || {
        addresses_of(&ipv6) == expected()
    })
    .await;
    for client in [client, ipv6] {
        let load = gets(&client, 100);
        sleep(MOMENT).await;
        load.stop().await.assert_none_failed();
    }
}
