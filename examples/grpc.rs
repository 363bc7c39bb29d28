//! gRPC: a client that tonic generated, balanced call by call over the pods of a headless Service.
//!
//! ```text
//! cargo run --features test-util --example grpc     # starts its own DNS server and three pods; needs nothing but loopback
//! ```
//!
//! gRPC's calls share long-lived connections. So a client that balances connections, or leaves that to Kubernetes,
//! speaks to one pod for ever. `tower_headless::http::Client` replaces tonic's `Channel`, and picks a pod for each
//! call. The generated client here is that of `tonic-health`; use yours in the same way.

use std::{collections::BTreeMap, time::Duration};

use clap::Command;
use tonic::{Code, Request, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceExt;
use tower_headless::{BoxError, Endpoint, http::Protocol, test_util::Cluster};

const CALLS: usize = 300;
const WATCHES: usize = 4;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    Command::new("grpc")
        .about(
            "tonic's generated client, balanced call by call over three pods: 300 unary calls\n\
             and 4 streams, how many each pod got, and what an error says.",
        )
        .override_usage("cargo run --features test-util --example grpc")
        .get_matches();
    let cluster = start_cluster().await;

    // The transport. It is cheap to clone: all generated clients of a program share one, and its pods' connections.
    // In a cluster: `Client::builder("http://health.default:50051".parse()?)`.
    let client = cluster
        .client()
        .protocol(Protocol::Http2)
        // A stream may be silent for hours. Pings notice a pod that has vanished.
        .http2_ping(Some(Duration::from_secs(20)))
        .build()?;

    // `:authority` is the service's name; `HealthClient::with_origin(transport, uri)` sets another one. For an
    // interceptor, use `HealthClient::with_interceptor(transport, interceptor)`.
    let mut health = HealthClient::new(client.clone());

    // Calls one after the other, over one client: each goes to the next pod.
    let mut calls = BTreeMap::<Endpoint, usize>::new();
    for _ in 0..CALLS {
        let mut request = Request::new(HealthCheckRequest::default());
        // The deadline holds for the client and the pod: both give up then.
        request.set_timeout(Duration::from_secs(1));
        let answer = health.check(request).await?;
        // The pod that answered is in the extensions.
        let pod = answer.extensions().get::<Endpoint>();
        *calls.entry(pod.expect("put there").clone()).or_default() += 1;
    }

    // A stream counts as in flight while it runs, so least connections would see it.
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let watch = health.watch(HealthCheckRequest::default()).await?;
        let mut watch = watch.into_inner();
        watch.message().await?.expect("the state as it is now");
        watches.push(watch);
    }
    let watching = client.endpoints();
    // Dropping a stream cancels it.
    drop(watches);
    let idle = client.endpoints();

    println!(
        "{CALLS} unary calls and {WATCHES} streams to {}\n",
        cluster.uri()
    );
    println!("pod                    calls   in flight while watching   after");
    for (watching, idle) in watching.iter().zip(&idle) {
        let pod = &watching.endpoint;
        println!(
            "{:21}  {:>5}   {:>24}   {:>5}",
            pod.to_string(),
            calls.get(pod).copied().unwrap_or_default(),
            watching.in_flight,
            idle.in_flight
        );
    }

    // To the balancer, a pod's own errors are answers: they arrive unchanged.
    let unknown = HealthCheckRequest {
        service: "shop.Orders".to_owned(),
    };
    let error = health.check(unknown).await.expect_err("no such service");
    assert_eq!(error.code(), Code::NotFound);
    println!("\nasked for a service that no pod knows: {error}");

    // The client's errors are statuses, too.
    let mut nobody = HealthClient::new(client.pod("health-7"));
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(100));
    let error = nobody.check(request).await.expect_err("no such pod");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    println!("asked for a pod that isn't there: {error}");
    Ok(())
}

// ---------------------------------------------------------------- a cluster of its own

/// Three pods, each with tonic's services.
async fn start_cluster() -> Cluster {
    let (_, health) = tonic_health::server::health_reporter();
    let services = Routes::new(health);
    Cluster::builder()
        .service("health.default.svc.cluster.local")
        .answer(move |_, request| services.clone().oneshot(request))
        .start()
        .await
}
