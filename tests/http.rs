//! Balances real HTTP: what counts as in flight, and where requests go.

mod support;

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use http_body_util::BodyExt;
use support::{
    client::{HttpBalance, NoBody, balance, dns, get},
    cluster::Cluster,
    pod::Mode,
    within,
};
use tower::{Service, ServiceExt};
use tower_headless::{LeastConnections, RoundRobin};

fn in_flight(balance: &HttpBalance) -> Vec<u32> {
    let endpoints = balance.endpoints().into_iter();
    endpoints.map(|status| status.in_flight).collect()
}

fn request(path: &'static str) -> http::Request<NoBody> {
    let mut request = http::Request::new(NoBody::new());
    *request.uri_mut() = http::Uri::from_static(path);
    request
}

#[tokio::test]
async fn a_request_is_in_flight_to_the_end_of_its_body() {
    let cluster = Cluster::start(1).await;
    let mut balance = balance(dns(&cluster), RoundRobin::new());
    let ready = within("readiness", balance.ready()).await.expect("ready");
    let response = ready
        .call(request("/stream/3/1"))
        .await
        .expect("a response");
    assert_eq!(in_flight(&balance), [1], "the headers are not the end");
    let mut body = response.into_body();
    body.frame().await.expect("a frame").expect("no error");
    assert_eq!(in_flight(&balance), [1]);
    body.collect().await.expect("the rest");
    assert_eq!(in_flight(&balance), [0]);
}

#[tokio::test]
async fn a_body_that_is_dropped_or_breaks_ends_its_request() {
    let cluster = Cluster::start(1).await;
    let mut balance = balance(dns(&cluster), RoundRobin::new());
    let ready = within("readiness", balance.ready()).await.expect("ready");
    let dropped = ready
        .call(request("/stream/1000/10"))
        .await
        .expect("a response");
    let mut broken = ready
        .call(request("/stream/1000/10"))
        .await
        .expect("a response")
        .into_body();
    assert_eq!(in_flight(&balance), [2]);
    drop(dropped);
    assert_eq!(in_flight(&balance), [1]);
    cluster.kill(0).await;
    let broken = within("the end", async {
        loop {
            match broken.frame().await {
                Some(Ok(_)) => {}
                end => break end,
            }
        }
    });
    assert!(broken.await.is_some_and(|end| end.is_err()));
    assert_eq!(
        in_flight(&balance),
        [0],
        "while the caller still holds the body"
    );
}

#[tokio::test]
async fn least_connections_moves_load_away_from_a_slow_pod() {
    let cluster = Cluster::start(5).await;
    let mut balance = balance(dns(&cluster), LeastConnections::new());
    within("readiness", balance.ready()).await.expect("ready");
    cluster.pod(0).set(Mode::Slow(Duration::from_millis(100)));
    for pod in 1..5 {
        cluster.pod(pod).set(Mode::Slow(Duration::from_millis(2)));
    }
    let callers = (0..10).map(|_| async {
        for _ in 0..40 {
            get(&balance, "/").await.expect("a response");
        }
    });
    join_all(callers).await;
    let slow = cluster.pod(0).requests();
    assert!(slow <= 60, "a fair share is 80, the slow pod got {slow}");
}

#[tokio::test]
async fn many_concurrent_requests_are_spread_evenly() {
    let cluster = Cluster::start(4).await;
    let mut balance = balance(dns(&cluster), RoundRobin::new());
    within("readiness", balance.ready()).await.expect("ready");
    let pods = join_all((0..203).map(|_| get(&balance, "/"))).await;
    let mut shares = BTreeMap::<_, u32>::new();
    for pod in pods {
        *shares.entry(pod.expect("a response")).or_default() += 1;
    }
    assert!(
        shares.values().all(|share| (50..=51).contains(share)),
        "{shares:?}"
    );
}
