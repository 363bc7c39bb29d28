//! Tower's middleware around the client; and the balancer alone, over an HTTP client of your own.
//!
//! ```text
//! cargo run --features test-util --example layer                              # needs nothing but loopback
//! RUST_LOG=tower_http=debug cargo run --features test-util --example layer    # what TraceLayer sees
//! ```
//!
//! Both send the same requests. Half-way, one of three pods is killed while DNS goes on naming it. The output shows
//! what that costs.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use clap::Command;
use http::{Request, Response, Uri, header::HOST, uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client as LegacyClient, rt::TokioExecutor};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_headless::{
    Balance, BoxError, Endpoint, OnBodyEnd, http::ResponseBody, test_util::Cluster,
};
use tower_http::trace::TraceLayer;
use tracing_subscriber::EnvFilter;

const REQUESTS: usize = 60;

type HttpRequest = Request<Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("layer")
        .about(
            "Tower's layers around the client, and the balancer as a layer over hyper-util's\n\
             legacy client: what it costs either when one of three pods is killed.",
        )
        .override_usage("cargo run --features test-util --example layer")
        .after_help("RUST_LOG=tower_http=debug shows what TraceLayer sees.")
        .get_matches();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    println!("layers around the client");
    around_the_client(&Cluster::start(3).await).await?;
    println!("\nthe balancer over hyper-util's legacy client");
    over_a_legacy_client(&Cluster::start(3).await).await
}

/// The client with layers around it. They see one service, whichever pod answers.
async fn around_the_client(cluster: &Cluster) -> Result<(), BoxError> {
    // In a cluster: `Client::builder("http://web.default:80".parse()?)`.
    let client = cluster.client().build()?;
    let stack = ServiceBuilder::new()
        // Spans and events for each request. A request that is retried is one request here.
        .layer(TraceLayer::new_for_http())
        // This ends at the head of the response. The client's own `timeout` lasts to the end of the body.
        .timeout(Duration::from_secs(2))
        // Further requests wait in `poll_ready`, which the timeout above doesn't count.
        .concurrency_limit(100)
        // `TraceLayer` replaces the client's body, which knows its pod, by its own.
        .map_response(|mut response: Response<ResponseBody>| {
            if let Some(pod) = response.body().endpoint().cloned() {
                response.extensions_mut().insert(pod);
            }
            response
        })
        .service(client);
    send(cluster, stack).await
}

/// The balancer as a layer, if you want to keep your own client.
///
/// The legacy client connects to the URI's host, so each request's URI gets the pod's address. Compared with
/// `tower_headless::http::Client`, that has these drawbacks:
///
/// - **A refused connection consumes the request.** The legacy client connects after it got the request, and doesn't
///   give it back, so the caller gets the error. The balancer doesn't learn that the pod refuses, and sends it more.
///   (For requests that can be copied, `reqwest.rs` shows a way out.)
/// - **Requests that die with their pod aren't sent again**, not even GETs. `tower::retry` above the balancer does
///   that.
/// - **`Host` has to be set by hand**, because the URI names the pod. HTTP/2's `:authority`, and the name that a
///   certificate must have, still come from the URI, so they are the pod's address.
/// - **Connections are pooled by the URI's host.** One client for all pods would keep the connections of pods that have
///   left. One client for each pod, as here, goes with its pod.
/// - **Connecting has no timeout**: it takes minutes if a node has vanished, unless you set one on `HttpConnector`.
/// - **Responses don't name their pod**, unless you add it.
async fn over_a_legacy_client(cluster: &Cluster) -> Result<(), BoxError> {
    // In a cluster: `Dns::new("web.default:80".parse()?)`.
    let balance = Balance::builder(cluster.discovery())
        // Requests count as in flight to the end of the body, as they always do with the client above.
        .completion(OnBodyEnd::new())
        .into_layer();
    let stack = ServiceBuilder::new()
        .timeout(Duration::from_secs(2))
        .layer(balance)
        .service(|pod: &Endpoint| {
            let (asked, answered) = (pod.clone(), pod.clone());
            LegacyClient::builder(TokioExecutor::new())
                .build_http()
                .map_request(move |request| to_pod(&asked, request))
                .map_response(move |mut response: Response<_>| {
                    response.extensions_mut().insert(answered.clone());
                    response
                })
        });
    send(cluster, stack).await
}

/// Puts the pod's address into the request's URI. The service's name stays in `Host`.
fn to_pod(pod: &Endpoint, mut request: HttpRequest) -> HttpRequest {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(service) = parts.authority.take() {
        let host = service.as_str().parse().expect("an authority is a header");
        request.headers_mut().insert(HOST, host);
    }
    parts.scheme = Some(uri::Scheme::HTTP);
    let address = pod.address().to_string();
    parts.authority = Some(address.parse().expect("an address is an authority"));
    *request.uri_mut() = Uri::from_parts(parts).expect("it has all its parts");
    request
}

/// Sends requests, kills a pod half-way, and shows which pods answered.
async fn send<S, B>(cluster: &Cluster, service: S) -> Result<(), BoxError>
where
    S: Service<HttpRequest, Response = Response<B>, Error = BoxError> + Clone,
    B: Body<Error: Into<BoxError>>,
{
    let mut answers = BTreeMap::<Endpoint, [usize; 2]>::new();
    let mut failed = [0; 2];
    for i in 0..REQUESTS {
        if i == REQUESTS / 2 {
            cluster.kill(0).await;
        }
        let half = i / (REQUESTS / 2);
        let request = Request::get(cluster.uri()).body(Full::default())?;
        match service.clone().oneshot(request).await {
            Ok(response) => {
                let pod = response.extensions().get::<Endpoint>().cloned();
                answers.entry(pod.expect("put there")).or_default()[half] += 1;
                response.into_body().collect().await.map_err(Into::into)?;
            }
            Err(_) => failed[half] += 1,
        }
    }
    println!("answers of               three pods   one of them killed");
    for (pod, [before, after]) in answers {
        println!("{:21}    {before:>10}   {after:>18}", pod.to_string());
    }
    println!("{:21}    {:>10}   {:>18}", "failed", failed[0], failed[1]);
    Ok(())
}
