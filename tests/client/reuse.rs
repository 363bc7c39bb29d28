//! Connections are used again as soon as a response has ended, and never after the pod has announced that it closes
//! them.

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use futures::future::join;
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio_test::{assert_pending, task};
use tower::ServiceExt;
use tower_headless::http::Client;

use crate::{
    kit::{Count, OK, Peer, accept, client, get, listen, pod, stream_of, text, written},
    support::within,
};

/// A pod that reads each request completely, and answers by its path; and how many connections it has had.
async fn whole() -> (SocketAddr, Count) {
    let connections = Count::default();
    let seen = connections.clone();
    let pod = pod(move |mut peer: Peer<TcpStream>| {
        seen.add();
        async move {
            while let Some(head) = peer.try_head().await {
                if head.contains("transfer-encoding: chunked") {
                    peer.until("0\r\n\r\n").await;
                } else if head.contains("content-length: 4\r\n") {
                    peer.bytes::<4>().await;
                }
                peer.write(answer(&head)).await;
            }
        }
    });
    (pod.await, connections)
}

fn answer(head: &str) -> &'static str {
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n";
    const NOTHING: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    match () {
        () if head.starts_with("HEAD") => HEAD,
        () if head.contains(" /chunked ") => CHUNKED,
        () if head.contains(" /nothing ") => NOTHING,
        () => OK,
    }
}

/// A thousand requests, one after another.
async fn thousand(client: &Client, method: Method, path: &str, body: &'static str) {
    for _ in 0..1_000 {
        let request = client.request(method.clone(), path).body(body);
        let response = within("a response", request.into_future()).await;
        text(response.expect("a response")).await;
    }
}

/// All kinds of requests that end with their response.
async fn one_after_another() {
    let asked = [
        (Method::GET, "/", ""),
        (Method::GET, "/chunked", ""),
        (Method::GET, "/nothing", ""),
        (Method::HEAD, "/", ""),
        (Method::POST, "/", "body"),
        (Method::POST, "/nothing", "body"),
    ];
    for (method, path, body) in asked {
        let (pod, connections) = whole().await;
        let client = client([pod]);
        thousand(&client, method.clone(), path, body).await;
        assert_eq!(connections.get(), 1, "{method} {path}");
    }
}

/// The test's main task runs beside the runtime's threads, which drive the connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_from_the_main_task_use_one_connection() {
    one_after_another().await;
}

#[tokio::test]
async fn a_thousand_requests_on_one_thread_use_one_connection() {
    one_after_another().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_of_a_task_use_one_connection() {
    let task = tokio::spawn(one_after_another());
    task.await.expect("no panic");
}

/// The connection is stuck in a request that the pod has answered early. The next request waits for it only a moment.
#[tokio::test]
async fn a_connection_that_does_not_become_ready_blocks_no_request() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (body, unread) = written();
    let request = Request::post("/").body(unread).expect("a request");
    let serve = async {
        let mut stuck = accept(&listener).await;
        stuck.answer(OK).await;
        let mut other = accept(&listener).await;
        for _ in 0..3 {
            other.answer(OK).await;
        }
        (stuck, other)
    };
    let ask = async {
        text(client.clone().oneshot(request).await.expect("a response")).await;
        for _ in 0..3 {
            get(&client, "/").await.expect("over another connection");
        }
    };
    let (_peers, ()) = join(serve, within("all", ask)).await;
    drop(body);
}

/// Callers who only look at the status need no connection for each request.
#[tokio::test]
async fn a_response_that_is_dropped_after_it_has_arrived_keeps_its_connection() {
    let (pod, connections) = whole().await;
    let client = client([pod]);
    for _ in 0..3 {
        let response = client.get("/").into_future();
        drop(within("a response", response).await.expect("a response"));
    }
    assert_eq!(connections.get(), 1);
}

/// A waiting request gets another connection meanwhile. The new connection is kept for the next request.
#[tokio::test]
async fn a_connection_that_no_request_needs_any_more_is_kept() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let asked = client.clone();
    let first = tokio::spawn(async move { get(&asked, "/first").await });
    let mut peer = accept(&listener).await;
    peer.head().await;
    let asked = client.clone();
    let mut second = task::spawn(async move { get(&asked, "/second").await });
    assert_pending!(second.poll());
    let mut other = accept(&listener).await;
    while !second.is_woken() {
        tokio::task::yield_now().await;
    }
    peer.write(OK).await;
    first.await.expect("no panic").expect("a response");
    assert_pending!(second.poll());
    let head = peer.head().await;
    assert!(head.contains(" /second "), "{head}");
    let third = tokio::spawn(async move { get(&client, "/third").await });
    let head = other.answer(OK).await;
    assert!(head.contains(" /third "), "{head}");
    third.await.expect("no panic").expect("a response");
}

/// Bodies of unknown length are usually written completely before the pod answers, too.
#[tokio::test]
async fn streams_that_are_read_before_the_answer_share_a_connection() {
    let (pod, connections) = whole().await;
    let client = client([pod]);
    for _ in 0..100 {
        let request = Request::post("/").body(stream_of(&["bo", "dy"]));
        let asked = client.clone().oneshot(request.expect("a request"));
        text(asked.await.expect("a response")).await;
    }
    assert_eq!(connections.get(), 1);
}

/// An answer with this `Keep-Alive` header.
fn announcing(keep_alive: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n{keep_alive}\r\n\r\nok"
    )
}

#[tokio::test]
async fn an_idle_connection_is_closed_a_second_before_the_pod_would() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut first = accept(&listener).await;
        first.answer(&announcing("Keep-Alive: timeout=2")).await;
        first.answer(&announcing("Keep-Alive: timeout=2")).await;
        first.closed().await;
        first
    };
    let ask = async {
        get(&client, "/").await.expect("a response");
        get(&client, "/").await.expect("over the same");
    };
    join(serve, ask).await;
    let serve = async { accept(&listener).await.answer(OK).await };
    let (_, response) = join(serve, get(&client, "/")).await;
    response.expect("over another connection");
}

/// A POST that is written while the pod closes would be lost.
#[tokio::test]
async fn a_connection_that_the_pod_is_about_to_close_is_not_used() {
    for last in [
        "Keep-Alive: timeout=1",
        "keep-alive: timeout = 0",
        "Keep-Alive: max=0, timeout=60",
        "Keep-Alive: timeout=60\r\nKeep-Alive: timeout=1",
    ] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            for _ in 0..3 {
                let mut peer = accept(&listener).await;
                peer.answer(&announcing(last)).await;
                peer.closed().await;
            }
        };
        let ask = async {
            for _ in 0..3 {
                let posted = client.post("/").body("").into_future();
                let response = within("a response", posted).await;
                text(response.expect(last)).await;
            }
        };
        join(serve, ask).await;
    }
}

/// A response that is read more slowly than this time ends the connection, too.
#[tokio::test]
async fn the_keep_alive_time_counts_from_the_response_s_head() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nkeep-alive: timeout=2\r\n\r\nab";
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(begun).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        peer.write("cd").await;
        peer.closed().await;
    };
    let ((), response) = join(serve, get(&client, "/")).await;
    assert_eq!(response.expect("a response"), "abcd");
}

#[tokio::test]
async fn a_pod_gets_no_more_requests_on_a_connection_than_it_has_announced() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(&announcing("Keep-Alive: timeout=60, max=2"))
            .await;
        // The pod announces it once, and keeps to it.
        peer.answer(OK).await;
        peer.answer(OK).await;
        peer.closed().await;
        accept(&listener).await.answer(OK).await;
    };
    let ask = async {
        for _ in 0..4 {
            get(&client, "/").await.expect("a response");
        }
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn an_unusable_keep_alive_changes_nothing() {
    for garbage in [
        "Keep-Alive: timeout=soon, max=-1",
        "Keep-Alive:",
        "Keep-Alive: timeout=99999999999999999999999999, max=99999999999999999999999999",
        "Keep-Alive: 1",
        "X-Keep-Alive: timeout=0",
    ] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            for _ in 0..3 {
                peer.answer(&announcing(garbage)).await;
            }
        };
        let ask = async {
            for _ in 0..3 {
                get(&client, "/").await.expect(garbage);
            }
        };
        join(serve, ask).await;
    }
}
