//! Near pods first, by the control plane's hints in the slices.

use std::{collections::BTreeMap, net::SocketAddr};

use http_body_util::BodyExt;
use tower_headless::{EndpointStatus, Proximity, http::Client};

use super::{Use, WEB, manifests, until};
use crate::{
    kit::{control_plane::User, namespace::Namespace},
    source::{client_by, slices, uri},
};

/// How many requests each client sends, one after the other.
const REQUESTS: u32 = 2_000;

/// With equally many pods in each zone, all requests stay near.
pub(crate) async fn near_pods_come_first() {
    let namespace = web("near", &["a", "b", "c"], 6).await;
    let client = client_in(&namespace, "b", 6).await;
    let answers = answers(&client).await;
    println!("near pods: {answers:?}");
    let kept = kept(&client, &answers);
    assert!(kept >= 0.99, "{kept}");
}

/// A zone with half as many pods as the others keeps only its fair share, and no pod gets much more than another.
pub(crate) async fn surplus_of_near_pods_spills_over() {
    // Two nodes in each of two zones, one in the third: four, four and two pods.
    let namespace = web("near-half", &["a", "b", "c", "a", "b"], 10).await;
    let mut all = BTreeMap::<SocketAddr, u32>::new();
    for (zone, expected) in [("a", 1.0), ("b", 1.0), ("c", 2.0 / 10.0 * 3.0)] {
        let client = client_in(&namespace, zone, 10).await;
        let answers = answers(&client).await;
        let kept = kept(&client, &answers);
        println!("near pods, half of them in zone c: {zone} keeps {kept}, {answers:?}");
        assert!((kept - expected).abs() <= 0.06, "{kept}");
        for (pod, count) in answers {
            *all.entry(pod).or_default() += count;
        }
    }
    let fair = REQUESTS * 3 / 10;
    assert_eq!(all.len(), 10);
    assert!(all.values().all(|&count| count * 4 <= fair * 5), "{all:?}");
}

/// Deploys the Service `web`, with pods on nodes in these zones.
async fn web(story: &str, zones: &[&str], replicas: usize) -> Namespace {
    let name = format!("watch-{story}");
    let namespace = Namespace::create_in(&name, Use::Shared, zones).await;
    let manifests = [
        manifests::same_zone(WEB),
        manifests::nginx("Deployment", WEB, replicas),
    ];
    namespace.kubectl.apply(&manifests.concat()).await;
    namespace
}

/// A client in `zone`, once it knows for all pods whether they are near.
async fn client_in(namespace: &Namespace, zone: &str, pods: usize) -> Client {
    let uri = uri(namespace, WEB, 80);
    let slices = slices(&uri, namespace.plane.kubeconfig(User::Admin));
    let client = client_by(&uri, slices).zone(zone).build();
    let client = client.expect("a client");
    let is_known = |it: &EndpointStatus| match it.endpoint.zone() == Some(zone) {
        true => it.proximity == Some(Proximity::Near),
        false => it.proximity == Some(Proximity::Far),
    };
    until("pods that are near and far", async || {
        let endpoints = client.endpoints();
        endpoints.len() == pods && endpoints.iter().all(is_known)
    })
    .await;
    client
}

/// How many requests each pod answers.
async fn answers(client: &Client) -> BTreeMap<SocketAddr, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..REQUESTS {
        let response = client.get("/").await.expect("pods are there");
        let pod = response.body().endpoint().expect("a pod").address();
        *answers.entry(pod).or_default() += 1;
        let body = response.into_body().collect().await;
        body.expect("a whole body");
    }
    answers
}

/// The near pods' share of the answers.
fn kept(client: &Client, answers: &BTreeMap<SocketAddr, u32>) -> f64 {
    let endpoints = client.endpoints().into_iter();
    let near = endpoints.filter(|it| it.proximity == Some(Proximity::Near));
    let near = near.filter_map(|it| answers.get(&it.endpoint.address()));
    f64::from(near.sum::<u32>()) / f64::from(REQUESTS)
}
