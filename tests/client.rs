//! The HTTP client over the pods of a cluster: DNS, HTTP and time are real.

mod support;

use std::future::IntoFuture;

use std::time::Duration;

use http_body_util::BodyExt;
use support::{cluster::Cluster, within};
use tower_headless::http::Client;

async fn client(cluster: &Cluster) -> Client {
    let dns = support::client::dns(cluster);
    Client::builder(
        "http://web.default.svc.cluster.local"
            .parse()
            .expect("a URI"),
    )
    .discovery(dns)
    .build()
    .expect("a client")
}

#[tokio::test]
async fn smoke() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster).await;
    for _ in 0..10 {
        let response = within("a response", client.get("/").into_future())
            .await
            .expect("a response");
        let pod = response.body().pod().clone();
        let text = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert!(String::from_utf8_lossy(&text).contains(&pod.address().ip().to_string()));
    }
    for pod in cluster.pods() {
        assert_eq!(pod.connections(), 1);
    }
    cluster.kill(0).await;
    for _ in 0..10 {
        client.get("/").await.expect("a response");
    }
    let _ = Duration::ZERO;
}
