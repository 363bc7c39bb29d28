//! Broadcasts over HTTP, to pods on loopback.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{join, join_all},
    stream,
};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::{io::AsyncReadExt, net::TcpListener, runtime::Handle};
use tower_headless::{
    BoxError, Endpoint, Route, StaticEndpoints, Subset,
    http::{Client, Error, Protocol, Response},
};

use crate::support::{
    pod::{Mode, Pod},
    refuse_at, within,
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

async fn pods(n: u16) -> Vec<Pod> {
    let start = (0..n).map(|number| {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, 15, high, low + u8::from(low == 0)), 0));
        async move { Pod::start(address).await.expect("a free port") }
    });
    join_all(start).await
}

fn client(pods: &[Pod], protocol: Protocol) -> Client {
    client_of(pods.iter().map(Pod::addr), protocol)
}

fn client_of(addresses: impl IntoIterator<Item = SocketAddr>, protocol: Protocol) -> Client {
    let uri = "http://web.default".parse().expect("a URI");
    Client::builder(uri)
        .discovery(StaticEndpoints::new(addresses))
        .protocol(protocol)
        .build()
        .expect("a client")
}

fn in_flight(client: &Client) -> u32 {
    let endpoints = client.endpoints();
    endpoints.iter().map(|status| status.in_flight).sum()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, met).await;
}

#[tokio::test]
async fn of_five_hundred_pods_five_hang_and_the_others_answer_meanwhile() {
    let pods = pods(500).await;
    let hung: BTreeSet<_> = pods.iter().skip(3).step_by(100).map(Pod::addr).collect();
    assert_eq!(hung.len(), 5);
    let hangs = pods.iter().filter(|pod| hung.contains(&pod.addr()));
    hangs.for_each(|pod| pod.set(Mode::Hung));
    let client = client(&pods, Protocol::Http1);
    let broadcast = client.post("/purge").body("user-42").broadcast();
    // Far longer than the other pods take, so that they don't time out.
    let broadcast = broadcast.endpoint_timeout(Duration::from_secs(10));
    let mut answers = within("the beginning", broadcast.into_future())
        .await
        .expect("pods");
    let mut answered = BTreeSet::new();
    for _ in 0..495 {
        let next = within("an answer", answers.next()).await;
        let (pod, answer) = next.expect("an answer");
        let response = answer.expect("an answer");
        assert_eq!(response.headers()["x-pod"], pod.address().ip().to_string());
        assert_eq!(response.headers()["x-method"], "POST");
        within("the body", response.into_body().collect())
            .await
            .expect("a body");
        answered.insert(pod.address());
    }
    assert_eq!(answered.len(), 495);
    assert!(answered.is_disjoint(&hung));
    let late: Vec<_> = within("the timeouts", answers.collect()).await;
    let late: BTreeSet<_> = late
        .into_iter()
        .map(|(pod, answer)| {
            let error = answer.expect_err("it hangs");
            assert!(error.is_timeout() && !error.is_unexecuted(), "{error}");
            assert_eq!(error.endpoint(), Some(&pod));
            pod.address()
        })
        .collect();
    assert_eq!(late, hung);
    assert_eq!(in_flight(&client), 0);
    assert!(pods.iter().all(|pod| pod.requests() == 1));
}

/// The pods outside of the subset have left the client's set again by the time that their bodies are read.
#[tokio::test]
async fn pods_outside_of_a_subset_answer_in_full_and_keep_no_connection() {
    for (protocol, ahead) in [
        (Protocol::Http1, false),
        (Protocol::Http1, true),
        (Protocol::Http2, false),
    ] {
        let pods = pods(20).await;
        let uri = "http://web.default".parse().expect("a URI");
        let client = Client::builder(uri)
            .discovery(StaticEndpoints::new(pods.iter().map(Pod::addr)))
            .protocol(protocol)
            .connect_ahead(ahead)
            .fail_fast()
            .subset(Subset::of(4))
            .build()
            .expect("a client");
        until("the first answer of discovery", || {
            client.staleness().is_some()
        })
        .await;
        let broadcast = client.post("/purge").body("user-42").broadcast();
        let collected = within("the answers", broadcast.all()).await.expect("pods");
        assert!(collected.is_complete(), "{:?}", collected.failed);
        until("the subset", || client.endpoints().len() == 4).await;
        for (pod, response) in collected.answered {
            assert_eq!(response.headers()["x-pod"], pod.address().ip().to_string());
            let body = response.into_body().collect();
            within("the body", body).await.expect("a body");
        }
        assert!(pods.iter().all(|pod| pod.requests() == 1));
        let own: BTreeSet<_> = client
            .endpoints()
            .iter()
            .map(|pod| pod.endpoint.address())
            .collect();
        let others = pods.iter().filter(|pod| !own.contains(&pod.addr()));
        for pod in others {
            pod.wait_until(|stats| stats.connections == 0).await;
        }
    }
}

#[tokio::test]
async fn dropping_a_broadcast_midway_ends_its_requests_and_closes_their_connections() {
    for protocol in PROTOCOLS {
        let pods = pods(20).await;
        let (quick, hung) = pods.split_at(10);
        hung.iter().for_each(|pod| pod.set(Mode::Hung));
        let before = Handle::current().metrics().num_alive_tasks();
        let client = client(&pods, protocol);
        let mut answers = client.get("/").broadcast().await.expect("pods");
        for _ in quick {
            let next = within("an answer", answers.next()).await;
            let (_, response) = next.expect("an answer");
            let body = response.expect("an answer").into_body();
            within("the body", body.collect()).await.expect("a body");
        }
        // The other requests are under way by now, or their connections are being made.
        let ahead = within("no more answers", async {
            for pod in hung {
                let asked = pod.wait_until(|stats| stats.in_flight == 1);
                tokio::select! {
                    _ = asked => {}
                    next = answers.next() => panic!("{next:?}"),
                }
            }
        });
        ahead.await;
        assert_eq!(in_flight(&client), 10);
        drop(answers);
        assert_eq!(in_flight(&client), 0);
        for pod in hung {
            pod.wait_until(|stats| stats.in_flight == 0).await;
            if protocol == Protocol::Http1 {
                pod.wait_until(|stats| stats.connections == 0).await;
            }
        }
        drop(client);
        for pod in &pods {
            pod.wait_until(|stats| stats.connections == 0).await;
        }
        let tasks = || Handle::current().metrics().num_alive_tasks();
        until("the end of all tasks", || tasks() <= before).await;
    }
}

#[tokio::test]
async fn a_post_goes_to_each_pod_with_its_body() {
    for protocol in PROTOCOLS {
        let pods = pods(20).await;
        let client = client(&pods, protocol);
        let request = Request::post("/purge?key=1")
            .header("x-key", "1")
            .body(Full::from("user-42"))
            .expect("a request");
        // The request's own route must be ignored.
        let mut request = request;
        let avoided = Endpoint::new(pods[3].addr());
        let route = Route::new().avoid(&avoided).pod("web-0");
        request.extensions_mut().insert(route);
        let all = within("all", client.broadcast(request).all()).await;
        let all = all.expect("pods");
        assert!(all.is_complete(), "{:?}", all.failed);
        assert_eq!(all.answered.len(), 20);
        for (pod, response) in all.answered {
            assert_eq!(response.headers()["x-pod"], pod.address().ip().to_string());
            assert_eq!(response.headers()["x-method"], "POST");
            assert_eq!(response.headers()["x-host"], "web.default");
            assert_eq!(*response.body().endpoint().expect("a pod"), pod);
            within("the body", response.into_body().collect())
                .await
                .expect("a body");
        }
        assert!(pods.iter().all(|pod| pod.requests() == 1));
    }
}

fn chunks() -> StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>>> {
    let chunks = ["user", "-", "42"];
    StreamBody::new(stream::iter(
        chunks.map(|chunk| Ok(Frame::data(chunk.into()))),
    ))
}

#[tokio::test]
async fn a_body_that_comes_as_a_stream_is_refused_unless_there_is_one_for_each_pod() {
    let pods = pods(3).await;
    let client = client(&pods, Protocol::Http1);
    let request = || Request::post("/").body(chunks()).expect("a request");
    let error = client.broadcast(request()).await.expect_err("one stream");
    assert!(error.is_request() && error.is_unexecuted(), "{error}");
    assert!(error.to_string().contains("broadcast_with"), "{error}");
    assert!(pods.iter().all(|pod| pod.stats().accepted == 0));
    let all = client.broadcast_with(move |_| request()).all();
    let all = within("all", all).await.expect("pods");
    assert!(all.is_complete(), "{:?}", all.failed);
    assert!(pods.iter().all(|pod| pod.requests() == 1));
}

#[tokio::test]
async fn an_invalid_request_is_refused_at_once() {
    let pods = pods(2).await;
    let client = client(&pods, Protocol::Http1);
    let error = client.post("no path").broadcast().all().await;
    assert!(error.expect_err("no path").is_request());
    let error = client
        .post("http://elsewhere/")
        .broadcast()
        .majority()
        .await;
    let error = error.expect_err("another service");
    assert!(error.is_unbegun());
    let source = std::error::Error::source(&error).expect("why");
    assert!(source.downcast_ref::<Error>().expect("ours").is_foreign());
}

#[tokio::test]
async fn an_error_status_is_an_answer_but_no_success() {
    let pods = pods(3).await;
    pods[1].set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let client = client(&pods, Protocol::Http1);
    let answers = client.get("/").broadcast().await.expect("pods");
    let answers: Vec<_> = within("the answers", answers.collect()).await;
    let status = |answer: &(Endpoint, Result<Response, Error>)| {
        let response = answer.1.as_ref().expect("an answer");
        (answer.0.address(), response.status())
    };
    let statuses: BTreeSet<_> = answers.iter().map(status).collect();
    assert!(statuses.contains(&(pods[1].addr(), StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(statuses.len(), 3);
    assert_eq!(pods[1].requests(), 1, "what it answered is not asked again");
    drop(answers);
    let all = within("all", client.get("/").broadcast().all()).await;
    let all = all.expect("pods");
    assert_eq!(all.answered.len(), 2);
    let (pod, error) = &all.failed[0];
    assert_eq!(pod.address(), pods[1].addr());
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(
        (error.endpoint(), error.is_unexecuted()),
        (Some(pod), false)
    );
    let quorum = client.get("/").broadcast().quorum(3);
    let error = within("no quorum", quorum).await.expect_err("two");
    assert_eq!(error.failed().len(), 1);
}

#[tokio::test]
async fn a_lost_request_is_sent_again_to_its_own_pod_if_that_is_safe() {
    for (method, times) in [(Method::GET, 4), (Method::POST, 1)] {
        let pods = pods(3).await;
        pods[1].set(Mode::CloseWithoutAnswer);
        let client = client(&pods, Protocol::Http1);
        let all = client.request(method.clone(), "/").broadcast().all();
        let all = within("all", all).await.expect("pods");
        let (pod, error) = &all.failed[0];
        assert_eq!(pod.address(), pods[1].addr());
        assert_eq!(error.endpoint(), Some(pod), "{error}");
        assert!(!error.is_unexecuted(), "{error}");
        let requests: Vec<_> = pods.iter().map(Pod::requests).collect();
        assert_eq!(requests, [1, times, 1], "{method}");
    }
}

#[tokio::test]
async fn out_of_time_a_request_that_was_lost_before_may_have_been_executed() {
    for is_lost in [false, true] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let pod = async {
            if is_lost {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let read = stream.read(&mut [0; 1024]).await;
                assert!(read.expect("a request") > 0);
            }
            // The pod is gone before the request is sent again.
            drop(listener);
            refuse_at(address);
        };
        let client = client_of([address], Protocol::Http1);
        let broadcast = client.get("/").broadcast();
        let all = broadcast.endpoint_timeout(Duration::from_secs(1)).all();
        let (all, ()) = within("the timeout", join(all, pod)).await;
        let all = all.expect("a pod");
        let (_, error) = &all.failed[0];
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.is_unexecuted(), !is_lost, "{error}");
    }
}

#[tokio::test]
async fn a_pod_that_is_down_is_an_error_and_one_that_comes_back_in_time_answers() {
    let pods = pods(4).await;
    pods[1].kill().await;
    pods[2].kill().await;
    let client = client(&pods, Protocol::Http1);
    let mut answers = client.post("/").broadcast().await.expect("pods");
    for _ in 0..2 {
        let next = within("an answer", answers.next()).await;
        let (_, answer) = next.expect("an answer");
        answer.expect("an answer");
    }
    pods[2].restart().await.expect("its port");
    let next = within("an answer", answers.next()).await;
    let (pod, answer) = next.expect("an answer");
    assert_eq!(pod.address(), pods[2].addr());
    answer.expect("an answer");
    let next = within("an error", answers.next()).await;
    let (pod, answer) = next.expect("an error");
    assert_eq!(pod.address(), pods[1].addr());
    let error = answer.expect_err("it is down");
    assert!(error.is_unreachable() && error.is_unexecuted(), "{error}");
    assert_eq!(error.endpoint(), Some(&pod));
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn after_the_deadline_hung_pods_are_errors() {
    let pods = pods(6).await;
    pods.iter().skip(3).for_each(|pod| pod.set(Mode::Hung));
    let client = client(&pods, Protocol::Http2);
    // The pods that answer come first, and answer before any time is over. Only the hung ones wait for the deadline.
    let broadcast = client.post("/").broadcast().concurrency(2);
    let all = broadcast.deadline(Duration::from_secs(2)).all();
    let all = within("the deadline", all).await.expect("pods");
    assert_eq!(all.answered.len(), 3, "{:?}", all.failed);
    assert!(all.failed.iter().all(|(_, error)| error.is_timeout()));
    drop(all.answered);
    let unasked = all.failed.iter().filter(|(_, error)| error.is_unexecuted());
    assert_eq!(unasked.count(), 1);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn others_broadcast_asks_the_other_pods_and_resends_lost_requests() {
    for protocol in PROTOCOLS {
        let pods = pods(4).await;
        pods[1].set(Mode::CloseWithoutAnswer);
        pods[2].set(Mode::Status(StatusCode::NOT_FOUND));
        let client = client(&pods, protocol);
        let layered = client
            .clone()
            .layer(tower::layer::layer_fn(|client| client));
        for client in [client, layered] {
            let before: Vec<_> = pods.iter().map(Pod::requests).collect();
            let peers = client.others(pods[3].addr());
            let all = peers
                .get("/part?secret")
                .response_limit(1)
                .broadcast()
                .all();
            let all = within("all", all).await.expect("pods");
            let requests = pods
                .iter()
                .zip(before)
                .map(|(pod, before)| pod.requests() - before);
            assert_eq!(requests.collect::<Vec<_>>(), [1, 4, 1, 0], "{protocol:?}");
            for (pod, error) in &all.failed {
                assert_eq!(error.endpoint(), Some(pod), "{error}");
            }
            let mut statuses = all.failed.iter().filter(|(_, error)| error.is_status());
            let (_, error) = statuses.next().expect("a status");
            assert!(error.to_string().contains("GET /part"), "{error}");
            let (_, answer) = all.answered.into_iter().next().expect("an answer");
            let error = answer.text().await.expect_err("it is longer than a byte");
            assert!(error.is_limit(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_broadcast_for_one_pod_or_without_an_empty_name_is_an_error() {
    let pods = pods(2).await;
    let client = client(&pods, Protocol::Http1);
    let error = client.pod(pods[0].addr()).get("/").broadcast().all().await;
    let error = error.expect_err("it is for one");
    assert!(error.is_request() && error.is_unexecuted(), "{error}");
    let error = client.others("").get("/").broadcast().all().await;
    let error = error.expect_err("whom it leaves out isn't known");
    assert!(
        error.is_absent() && error.to_string().contains("is a variable not set?"),
        "{error}"
    );
    assert!(pods.iter().all(|pod| pod.requests() == 0));
}
