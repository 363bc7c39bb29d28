//! The stories, and what they share.

pub(crate) mod addresses;
pub(crate) mod control_plane;
pub(crate) mod deploy;
pub(crate) mod freshness;
mod manifests;
pub(crate) mod names;
pub(crate) mod near;
pub(crate) mod pods;
pub(crate) mod rights;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod services;
pub(crate) mod watchers;

use std::{future::IntoFuture, net::IpAddr, time::Duration};

use futures::StreamExt;
use tokio::time::{sleep, timeout};
use tower_headless::http::Client;

use crate::{
    kit::namespace::{Namespace, Use},
    source::Source,
    support::{load::Load, within},
};

/// The name of the headless Service and of its pods' owner.
const WEB: &str = "web";

/// Longer than a cluster takes to settle: after an outage of the API server its clients pause for up to 30 s, and now
/// and then for twice that.
const PATIENCE: Duration = Duration::from_secs(100);

/// Long enough for each pod to get some of a load's requests.
const MOMENT: Duration = Duration::from_millis(500);

/// How often conditions are checked.
const POLL: Duration = Duration::from_millis(20);

/// Deploys the Service `web` with nginx pods, and makes a client that knows them all.
async fn web(
    source: Source,
    story: &str,
    usage: Use,
    kind: &str,
    replicas: usize,
) -> (Namespace, Client) {
    let namespace = Namespace::create(&source.namespace(story), usage).await;
    deploy(&namespace, kind, replicas).await;
    let client = source.client(&namespace, WEB, 80);
    settles(&client, &namespace, WEB, replicas).await;
    (namespace, client)
}

/// Deploys the headless Service `web` with nginx pods, as a Deployment or a StatefulSet (`kind`).
async fn deploy(namespace: &Namespace, kind: &str, replicas: usize) {
    let pods = manifests::nginx(kind, WEB, replicas);
    let manifests = [manifests::headless(WEB), pods];
    namespace.kubectl.apply(&manifests.concat()).await;
}

/// Sends GETs at a steady rate.
fn gets(client: &Client, rate: u32) -> Load {
    let client = client.clone();
    Load::start(rate, move || client.get("/").into_future())
}

/// Waits until the control plane has `count` ready pods, and the client has the same ones.
async fn settles(client: &Client, namespace: &Namespace, service: &str, count: usize) {
    let mut changes = client.watch();
    let settled = async {
        loop {
            let ready = namespace.ready(service).await;
            if ready.len() == count && addresses_of(client) == ready {
                return;
            }
            tokio::select! {
                _ = changes.next() => {}
                () = sleep(POLL) => {}
            }
        }
    };
    let settled = timeout(PATIENCE, settled).await;
    settled.unwrap_or_else(|_| panic!("{service} hasn't come to {count} pods: {client:?}"));
}

/// Waits until the client's pods are these.
async fn becomes(client: &Client, addresses: &[IpAddr]) {
    let mut changes = client.watch();
    let arrived = async {
        while addresses_of(client) != addresses {
            changes.next().await;
        }
    };
    within(&format!("{addresses:?}"), arrived).await;
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let arrived = async {
        while !holds().await {
            sleep(POLL).await;
        }
    };
    let arrived = timeout(PATIENCE, arrived).await;
    arrived.unwrap_or_else(|_| panic!("{what} hasn't come within {PATIENCE:?}"));
}

/// The addresses of the pods that a client knows, sorted.
fn addresses_of(client: &Client) -> Vec<IpAddr> {
    let endpoints = client.endpoints().into_iter();
    let mut addresses: Vec<_> = endpoints.map(|it| it.endpoint.address().ip()).collect();
    addresses.sort_unstable();
    addresses
}

/// Whether a request failed because the Service is known to have no pods.
fn has_no_pods(error: &tower_headless::http::Error) -> bool {
    error.is_no_endpoints()
}
