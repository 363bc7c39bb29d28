//! A Deployment that grows and shrinks, and a Service with very many endpoints.

use std::{net::IpAddr, ops::Range, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{Use, WEB, becomes, gets, has_no_pods, manifests, settles, until, web};
use crate::{kit::namespace::Namespace, source::Source};

pub(crate) async fn scale_3_10_1_0_3(source: Source) {
    let (namespace, client) = web(source, "scale", Use::Shared, "Deployment", 3).await;
    let load = gets(&client, 100);
    for count in [10, 1] {
        namespace.scale("deployment/web", count).await;
        settles(&client, &namespace, WEB, count).await;
    }
    load.stop().await.assert_none_failed();
    namespace.scale("deployment/web", 0).await;
    settles(&client, &namespace, WEB, 0).await;
    let refused = client.get("/").await.expect_err("no pod is left");
    assert!(has_no_pods(&refused), "{refused:?}");
    namespace.scale("deployment/web", 3).await;
    settles(&client, &namespace, WEB, 3).await;
    client.get("/").await.expect("three pods");
}

/// After a scale to zero, terminating pods still serve for a while: requests are answered until the last one ends.
pub(crate) async fn terminating_pods_are_the_last_resort(source: Source) {
    const DRAINED_FOR: Duration = Duration::from_secs(6);
    let namespace = Namespace::create(&source.namespace("last-resort"), Use::Shared).await;
    let pods = manifests::nginx("Deployment", WEB, 3);
    let pods = pods.replace(
        "seconds: 1\n",
        &format!("seconds: {}\n", DRAINED_FOR.as_secs()),
    );
    let manifests = [manifests::headless(WEB), pods];
    namespace.kubectl.apply(&manifests.concat()).await;
    let client = source.client(&namespace, WEB, 80);
    settles(&client, &namespace, WEB, 3).await;
    let load = gets(&client, 100);
    let deleted = Instant::now();
    namespace.scale("deployment/web", 0).await;
    until("no pod that is ready", async || {
        namespace.ready(WEB).await.is_empty()
    })
    .await;
    let unready = Instant::now();
    if source == Source::Watch {
        until("terminating pods only", async || {
            let endpoints = client.endpoints();
            !endpoints.is_empty() && endpoints.iter().all(|it| it.endpoint.is_terminating())
        })
        .await;
    }
    settles(&client, &namespace, WEB, 0).await;
    let report = load.stop().await;
    let resorted = report.requests.iter().filter(|it| it.sent > unready);
    assert!(
        resorted.filter(|it| it.result.is_ok()).count() > 0,
        "{report}"
    );
    // No pod ended before this, however slow the machine.
    let early = report.failed().find(|it| it.ended < deleted + DRAINED_FOR);
    assert!(early.is_none(), "{early:?}");
    let refused = client.get("/").await.expect_err("no pod is left");
    assert!(has_no_pods(&refused), "{refused:?}");
}

/// Ten slices of a hundred endpoints, then half of each moved to other slices, then fewer. Nobody listens there: only
/// the set is checked.
pub(crate) async fn a_thousand_endpoints(source: Source) {
    let namespace = Namespace::create(&source.namespace("thousand"), Use::Shared).await;
    namespace
        .kubectl
        .apply(&manifests::without_selector(WEB))
        .await;
    let slices = Slices::new(&namespace);
    for i in 0..10 {
        slices.write(i, i * 100..(i + 1) * 100).await;
    }
    let client = source.client(&namespace, WEB, 80);
    becomes(&client, &hosts(0..1_000)).await;
    // The same endpoints in smaller slices. On the way, some are in two slices.
    for i in 0..10 {
        slices.write(100 + i, i * 100..(i * 100 + 50)).await;
        slices.write(i, (i * 100 + 50)..((i + 1) * 100)).await;
    }
    becomes(&client, &hosts(0..1_000)).await;
    for i in 5..10 {
        slices.delete(i).await;
        slices.delete(100 + i).await;
    }
    becomes(&client, &hosts(0..500)).await;
}

/// EndpointSlices written by hand.
struct Slices(Api<EndpointSlice>);

impl Slices {
    fn new(namespace: &Namespace) -> Self {
        Self(Api::namespaced(namespace.client.clone(), &namespace.name))
    }

    /// Makes or replaces slice `i`.
    async fn write(&self, i: u16, endpoints: Range<u16>) {
        let name = format!("{WEB}-{i}");
        let endpoints = endpoints
            .map(|number| json!({ "addresses": [host(number)], "conditions": { "ready": true } }));
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "labels": { "kubernetes.io/service-name": WEB },
            },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
        });
        let parameters = PatchParams::apply("test").force();
        let patch = Patch::Apply(&slice);
        let written = self.0.patch(&name, &parameters, &patch);
        written.await.expect("a slice can be written");
    }

    async fn delete(&self, i: u16) {
        let name = format!("{WEB}-{i}");
        let deleted = self.0.delete(&name, &DeleteParams::default()).await;
        deleted.expect("a slice can be deleted");
    }
}

/// An address from the half of the range that no pod gets.
fn host(number: u16) -> IpAddr {
    let [high, low] = (0x8000 + number).to_be_bytes();
    [10, 244, high, low].into()
}

fn hosts(numbers: Range<u16>) -> Vec<IpAddr> {
    numbers.map(host).collect()
}
