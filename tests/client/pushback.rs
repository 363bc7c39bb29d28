//! Pods that say when they want to be asked again.

use std::{future::IntoFuture, net::SocketAddr};

use futures::{StreamExt, future::join_all};
use tokio::net::TcpStream;
use tower_headless::{OutlierDetection, http::Client};

use crate::{
    kit::{Count, OK, Peer, builder, client, pod, sets, text, unresolved},
    support::within,
};

/// A pod that answers each request like this, and how many it has had.
async fn saying(answer: String) -> (SocketAddr, Count) {
    let requests = Count::default();
    let seen = requests.clone();
    let say = move |mut peer: Peer<TcpStream>| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            while peer.try_head().await.is_some() {
                seen.add();
                peer.write(&answer).await;
            }
        }
    };
    (pod(say).await, requests)
}

fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n")
}

/// gRPC's `UNAVAILABLE`, without a body.
fn unavailable(pushback: &str) -> String {
    let headers = format!(
        "content-type: application/grpc\r\ngrpc-status: 14\r\ngrpc-retry-pushback-ms: {pushback}\r\n"
    );
    answer("200 OK", &headers)
}

async fn status(client: &Client) -> u16 {
    let response = within("a response", client.get("/").into_future()).await;
    let response = response.expect("a response");
    let status = response.status().as_u16();
    text(response).await;
    status
}

async fn know(client: &Client) {
    within("the pods", client.watch().next()).await;
}

#[tokio::test]
async fn a_negative_or_malformed_pushback_ends_retries() {
    for pushback in ["-1", "-2147483648", "soon", "99999999999999999999", ""] {
        let pods = join_all((0..3).map(|_| saying(unavailable(pushback)))).await;
        let client = client(pods.iter().map(|(address, _)| *address));
        know(&client).await;
        assert_eq!(status(&client).await, 200);
        let asked: usize = pods.iter().map(|(_, requests)| requests.get()).sum();
        assert_eq!(asked, 1, "{pushback}");
    }
}

#[tokio::test]
async fn a_negative_pushback_ends_retries_of_plain_http_too() {
    let never = || answer("503 Service Unavailable", "grpc-retry-pushback-ms: -1\r\n");
    let pods = join_all((0..3).map(|_| saying(never()))).await;
    let client = client(pods.iter().map(|(address, _)| *address));
    assert_eq!(status(&client).await, 503);
    let asked: usize = pods.iter().map(|(_, requests)| requests.get()).sum();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn without_a_pushback_and_with_a_positive_one_the_next_pod_is_asked_at_once() {
    for unwell in [
        answer("503 Service Unavailable", ""),
        answer("503 Service Unavailable", "retry-after: 3600\r\n"),
        answer("503 Service Unavailable", "retry-after: -1\r\n"),
        answer("503 Service Unavailable", "retry-after: soon\r\n"),
        answer(
            "503 Service Unavailable",
            "retry-after: 99999999999999999999999\r\n",
        ),
        answer(
            "503 Service Unavailable",
            "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
        ),
        unavailable("2147483647"),
        unavailable("0"),
    ] {
        let (bad, _) = saying(unwell.clone()).await;
        let (good, requests) = saying(OK.to_owned()).await;
        let client = client([bad, good]);
        know(&client).await;
        for _ in 0..4 {
            assert_eq!(status(&client).await, 200, "{unwell}");
        }
        assert_eq!(requests.get(), 4, "{unwell}");
    }
}

/// How many retries of a third pod's failed requests go to a pod that answers like this, besides its third of all first
/// attempts.
async fn retries_at(asking: String) -> usize {
    let (bad, _) = saying(answer("502 Bad Gateway", "")).await;
    let (asks, asked) = saying(asking).await;
    let (good, _) = saying(OK.to_owned()).await;
    let (sets, discovery) = sets(vec![asks]);
    let client = unresolved("http")
        .discovery(discovery)
        .outlier_detection(OutlierDetection::off());
    let client = client.build().expect("a client");
    let mut changes = client.watch();
    within("the pod", changes.next()).await;
    status(&client).await;
    assert_eq!(asked.get(), 1);
    sets.send_replace(vec![bad, asks, good]);
    within("the others", changes.next()).await;
    for _ in 0..3 * THIRD {
        status(&client).await;
    }
    asked.get() - 1 - THIRD
}

const THIRD: usize = 32;

#[tokio::test]
async fn retries_pass_over_a_pod_that_has_asked_for_a_delay() {
    let late = "retry-after: 3600\r\n";
    for asking in [
        answer("503 Service Unavailable", late),
        answer("429 Too Many Requests", late),
        unavailable("60000"),
    ] {
        assert_eq!(retries_at(asking.clone()).await, 0, "{asking}");
    }
}

#[tokio::test]
async fn a_pod_that_asks_for_no_delay_gets_its_share_of_the_retries() {
    for asking in [
        answer("429 Too Many Requests", ""),
        answer("429 Too Many Requests", "retry-after: garbage\r\n"),
        answer("200 OK", "retry-after: 3600\r\n"),
    ] {
        assert!(retries_at(asking.clone()).await > 0, "{asking}");
    }
}

#[tokio::test]
async fn a_lone_pod_gets_requests_although_it_has_asked_for_a_delay() {
    let (address, requests) =
        saying(answer("503 Service Unavailable", "retry-after: 3600\r\n")).await;
    let client = builder([address]).build().expect("a client");
    for turn in 1..=3 {
        assert_eq!(status(&client).await, 503);
        assert_eq!(requests.get(), turn, "first attempts go there as ever");
    }
}
