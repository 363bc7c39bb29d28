//! How to keep reqwest: one `reqwest::Client` for each pod, under the balancer.
//!
//! ```text
//! cargo run --features test-util --example reqwest     # starts its own cluster; needs nothing but loopback
//! ```
//!
//! reqwest resolves names by itself, and reuses its connections. So a plain reqwest client speaks to few pods of a
//! headless Service, and learns of others late. Here each pod has a client that resolves the service's name to that
//! pod's address: it connects to the pod, while `Host` (and TLS's server name) is the service's.
//!
//! Limits:
//!
//! - The URL's host has to be exactly the service's name. reqwest looks up any other host itself, also one that a
//!   redirect leads to.
//! - All pods have the URL's port, because reqwest ignores the port that discovery found. So ports from SRV records
//!   don't work.
//! - reqwest connects after it got the request. So a refused request goes to another pod only if it was copied before,
//!   which isn't possible if its body is a stream. Each request is copied for that.
//! - A request that dies with its pod is not sent again. `tower::retry` above the balancer can do that; reqwest's own
//!   retries go to the same pod.
//! - Cookies, and everything else that a client keeps, are kept for each pod separately.
//!
//! `tower_headless::http::Client` has none of these limits, but lacks some of reqwest's features.

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
            cluster.kill(0).await; // DNS goes on naming it
        }
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
        let response = balance.clone().oneshot(request).await?;
        // Back to reqwest's own type, for `text`, `json` and the like.
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        // These pods name themselves.
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

/// A client that resolves the service's name to this pod's address.
fn client_of(pod: &Endpoint) -> reqwest::Client {
    let client = reqwest::Client::builder()
        .resolve(SERVICE, pod.address())
        // A proxy would resolve the name itself.
        .no_proxy()
        // A node that has vanished doesn't refuse: without this timeout, connecting takes minutes.
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
        // Refused before a byte was sent. If it is handed back, it goes to another pod, and this pod is passed over.
        (Err(error), Some(copy)) if error.is_connect() => Err(Unsent::new(copy, error).into()),
        (Err(error), _) => Err(error.into()),
    }
}
