//! For those who have reqwest and want to keep it: one `reqwest::Client` for each pod, under the balancer.
//!
//! ```text
//! cargo run --features test-util --example reqwest     # a cluster of its own; needs nothing but loopback
//! ```
//!
//! reqwest resolves names by itself and keeps to the connections that it has, so a client of its own speaks to few pods
//! of a headless Service and learns late of others. Here each pod has a client that takes the service's name for that
//! pod's address: `Host` (and TLS's server name) is the service's, while the pod is dialled.
//!
//! What that doesn't do:
//!
//! - The URL's host has to be exactly the service's name. Any other is looked up by reqwest as ever, and so are other
//!   hosts that a redirect leads to.
//! - The port is that of the URL, for all pods: reqwest ignores the one that discovery has found. So no SRV records.
//! - reqwest connects when it has the request already. What is refused goes to another pod only if the request could be
//!   copied before: not if its body is a stream. Each request is copied for that.
//! - A request that dies with its pod is not sent again. `tower::retry` above the balancer can do that; reqwest's own
//!   retries go to the same pod.
//! - Cookies, and all else that a client keeps, are kept for each pod apart.
//!
//! `tower_headless::http::Client` has none of these limits, and none of reqwest's comforts.

use std::{collections::BTreeMap, time::Duration};

use clap::Command;
use tower::{ServiceExt, service_fn};
use tower_headless::{Balance, BoxError, Endpoint, OnBodyEnd, Unsent, test_util::Cluster};

const SERVICE: &str = "web.default.svc.cluster.local";
const REQUESTS: usize = 60;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("reqwest")
        .about(
            "One reqwest client for each of three pods, under the balancer: 60 requests, and\n\
             none fails though one pod is killed half-way.",
        )
        .override_usage("cargo run --features test-util --example reqwest")
        .get_matches();
    let cluster = Cluster::start(3).await;
    let url = cluster.uri().to_string();

    // In a cluster: `Dns::new("web.default:80".parse()?)`.
    let balance = Balance::builder(cluster.discovery())
        .completion(OnBodyEnd::new())
        .build(|pod: &Endpoint| {
            let client = client_of(pod);
            service_fn(move |request| send(client.clone(), request))
        });

    let mut answers = BTreeMap::<String, [usize; 2]>::new();
    for i in 0..REQUESTS {
        if i == REQUESTS / 2 {
            cluster.kill(0).await; // DNS goes on telling of it
        }
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
        let response = balance.clone().oneshot(request).await?;
        // Back to reqwest's own type, for `text`, `json` and the like.
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        // These pods say who they are.
        let pod = response.headers()["x-pod"].to_str()?.to_owned();
        response.error_for_status()?.text().await?;
        answers.entry(pod).or_default()[i / (REQUESTS / 2)] += 1;
    }

    println!("{REQUESTS} requests to {url}, one after the other; none failed\n");
    println!("answers of          three pods   one of them killed");
    for (pod, [before, after]) in answers {
        println!("{pod:16}    {before:>10}   {after:>18}");
    }
    Ok(())
}

/// A client that takes the service's name for this pod's address.
fn client_of(pod: &Endpoint) -> reqwest::Client {
    let client = reqwest::Client::builder()
        .resolve(SERVICE, pod.address())
        // A proxy would look the name up for itself.
        .no_proxy()
        // A node that has vanished refuses nothing: without this it costs minutes.
        .connect_timeout(Duration::from_secs(1))
        .build();
    client.expect("without TLS there is nothing that could fail")
}

async fn send(
    client: reqwest::Client,
    request: reqwest::Request,
) -> Result<http::Response<reqwest::Body>, BoxError> {
    let copy = request.try_clone();
    match (client.execute(request).await, copy) {
        (Ok(response), _) => Ok(response.into()),
        // Refused: no byte of it was sent. Handed back, it goes to another pod, and this one is passed over.
        (Err(error), Some(copy)) if error.is_connect() => Err(Unsent::new(copy, error).into()),
        (Err(error), _) => Err(error.into()),
    }
}
