//! Pods by name, and keys that stay with a name: what a StatefulSet's names are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::IntoFuture,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::StatusCode;
use tokio::time::sleep;
use tower_headless::{ConsistentHash, Route, http::Client};

use super::{MOMENT, Use, WEB, settles, until, web};
use crate::{
    kit::{namespace::Namespace, node::End},
    source::{Source, named_uri, uri},
    support::load::Load,
};

const PODS: usize = 5;

/// Longer than a pod is away, even on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// `web-3` is rescheduled three times, and answers every request for it, wherever it is. It is found by SRV records
/// (with the port's name), and by its own address records (with the port's number). A pod refuses requests for another
/// pod's name.
pub(crate) async fn one_pod_is_followed(source: Source) {
    let (namespace, _) = web(source, "followed", Use::Shared, "StatefulSet", PODS).await;
    let uris = [named_uri(&namespace, WEB), uri(&namespace, WEB, 80)];
    let clients =
        uris.map(|uri| source.client_with(&namespace, &uri, |it| it.ready_timeout(READY)));
    let wrong = format!("web-3.{}", namespace.host(WEB));
    let misdirected = clients[0].pod("web-0").get("/").header("host", wrong);
    let refused = misdirected.await.expect("an answer").status();
    assert_eq!(refused, StatusCode::MISDIRECTED_REQUEST);
    let loads = clients.each_ref().map(|client| {
        let pod = client.pod("web-3").own_host();
        Load::start(50, move || pod.get("/").into_future())
    });
    let mut homes = BTreeSet::new();
    for end in [
        None,
        Some(End::Drained),
        Some(End::Killed),
        Some(End::Drained),
    ] {
        if let Some(end) = end {
            namespace.nodes.set_end(end);
            namespace.kubectl.run("delete pod web-3 --wait=true").await;
        }
        until("web-3 where it was not before", async || {
            clients.iter().all(|client| {
                let pod = client.endpoint("web-3");
                pod.is_some_and(|pod| !homes.contains(&pod.address().ip()))
            })
        })
        .await;
        homes.insert(namespace.nodes.addresses_of("web-3")[0]);
        sleep(MOMENT).await;
    }
    assert_eq!(homes.len(), 4);
    for load in loads {
        let report = load.stop().await;
        println!("web-3 {source:?}: {report}");
        report.assert_none_failed();
        let pods = report.requests.iter().filter_map(|it| it.pod());
        assert_eq!(pods.map(|pod| pod.ip()).collect::<BTreeSet<_>>(), homes);
    }
}

/// A rolling restart gives all pods other addresses. Each key still belongs to the pod of the same name.
pub(crate) async fn keys_stay_over_a_rolling_restart(source: Source) {
    const KEYS: u32 = 1_000;
    let (namespace, _) = web(source, "keys", Use::Shared, "StatefulSet", PODS).await;
    let by_key = |uri| source.client_with(&namespace, uri, |it| it.policy(ConsistentHash::new()));
    let client = by_key(&named_uri(&namespace, WEB));
    settles(&client, &namespace, WEB, PODS).await;
    let addresses = namespace.ready(WEB).await;
    let before = homes(&client, &namespace, KEYS).await;
    let of_each: BTreeSet<_> = before.iter().collect();
    assert_eq!(of_each.len(), PODS, "each pod has keys");

    let (keys, next) = (client.clone(), AtomicU32::new(0));
    let load = Load::start(100, move || {
        get(&keys, next.fetch_add(1, Ordering::Relaxed) % KEYS).into_future()
    });
    let restart = "rollout restart statefulset/web";
    namespace.kubectl.run(restart).await;
    let status = "rollout status statefulset/web --timeout=110s";
    namespace.kubectl.run(status).await;
    settles(&client, &namespace, WEB, PODS).await;
    load.stop().await.assert_none_failed();

    let now = namespace.ready(WEB).await;
    assert!(addresses.iter().all(|old| !now.contains(old)), "{now:?}");
    let after = homes(&client, &namespace, KEYS).await;
    let elsewhere = before.iter().zip(&after).filter(|(old, new)| old != new);
    assert_eq!(elsewhere.count(), 0, "of {KEYS} keys");
}

fn get(client: &Client, key: u32) -> tower_headless::http::RequestBuilder {
    let route = Route::new().key(format!("user-{key}"));
    client.get("/").route(route)
}

/// The name of each key's pod, as the node knows it.
async fn homes(client: &Client, namespace: &Namespace, keys: u32) -> Vec<String> {
    let name = |ordinal| format!("{WEB}-{ordinal}");
    let names = (0..PODS).map(|ordinal| {
        let address = namespace.nodes.addresses_of(&name(ordinal))[0];
        (address, name(ordinal))
    });
    let names: BTreeMap<IpAddr, String> = names.collect();
    let mut homes = Vec::new();
    for key in 0..keys {
        let response = get(client, key).await.expect("an answer");
        homes.push(names[&response.body().endpoint().expect("a pod").address().ip()].clone());
    }
    homes
}
