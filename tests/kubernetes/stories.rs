//! The stories.

mod manifests;
pub(crate) mod scale;

use std::net::IpAddr;

use futures::StreamExt;
use tower_headless::http::Client;

use crate::{kit::namespace::Namespace, support::within};

/// Waits until the client's pods are those that the control plane has ready, `count` of them.
async fn settles(client: &Client, namespace: &Namespace, service: &str, count: usize) {
    let mut changes = client.watch();
    let settled = async {
        loop {
            let ready = namespace.ready(service).await;
            if ready.len() == count && addresses(client) == ready {
                return;
            }
            let pause = tokio::time::sleep(std::time::Duration::from_millis(20));
            tokio::select! {
                _ = changes.next() => {}
                () = pause => {}
            }
        }
    };
    within(&format!("{count} pods of {service}"), settled).await;
}

/// The addresses of the pods that a client knows, in order.
fn addresses(client: &Client) -> Vec<IpAddr> {
    let endpoints = client.endpoints().into_iter();
    let mut addresses: Vec<_> = endpoints.map(|it| it.endpoint.address().ip()).collect();
    addresses.sort_unstable();
    addresses
}
