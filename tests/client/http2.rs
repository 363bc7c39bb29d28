//! HTTP/2 connections, which many requests share.

use std::{convert::Infallible, future::IntoFuture, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::future::{join, join_all};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header::HOST};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tower::{ServiceExt, retry::budget::TpsBudget};
use tower_headless::{
    AttemptCause, AttemptOutcome, BoxError, Endpoint, FailureCounts, StaticEndpoints,
    http::{Client, ClientBuilder, Protocol, RequestBody, ResponseBody},
};
use tracing::Level;

use crate::{
    frames::{CANCEL, Frames, HEADERS, NO_ERROR, PING, REFUSED_STREAM},
    kit::{
        self, Count, SERVICE, accept, assert_blames_no_pod, in_flight, listen, outliers, pod, sets,
        text, unresolved, wait_until, written,
    },
    support::{logs::Logs, within},
};

fn builder(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    kit::builder(pods).protocol(Protocol::Http2)
}

fn client(pods: impl IntoIterator<Item = SocketAddr>) -> Client {
    builder(pods).build().expect("a client")
}

async fn greet(listener: &TcpListener, streams: Option<u32>) -> Frames<TcpStream> {
    Frames::greet(accept(listener).await, streams).await
}

type Answer = Response<Full<Bytes>>;

/// A pod that answers with `answer`, and how many connections it has had.
async fn serving<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Count)
where
    F: Future<Output = Answer> + Send + 'static,
{
    serving_many(200, answer).await
}

/// A pod like `serving` that takes `streams` requests at once on a connection.
async fn serving_many<F>(
    streams: u32,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Count)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let connections = Count::default();
    let seen = connections.clone();
    let serve = move |peer: kit::Peer<TcpStream>| {
        let (answer, seen) = (answer.clone(), seen.clone());
        async move {
            seen.add();
            let service = service_fn(move |request| {
                let response = answer(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(streams);
            // Ends with the connection, whatever the result.
            let _ = server
                .serve_connection(TokioIo::new(peer.into_inner()), service)
                .await;
        }
    };
    (pod(serve).await, connections)
}

fn answer(text: String) -> Answer {
    Response::new(Full::from(text))
}

async fn get(client: &Client, path: &str) -> String {
    let response = within("a response", client.get(path).into_future()).await;
    text(response.expect("a response")).await
}

/// Waits for the response's head; returns the rest of its body, for the test to read.
async fn head(
    client: &Client,
    path: &str,
) -> Result<Response<ResponseBody>, tower_headless::http::Error> {
    let response = within("a response", client.get(path).into_future()).await?;
    Ok(response.into_inner())
}

#[tokio::test]
async fn the_service_is_the_authority_whatever_pod_is_dialled() {
    let (pod, _) =
        serving(async |request| answer(format!("{} {:?}", request.uri(), request.version()))).await;
    let client = builder([pod]).allow_foreign_authority(true);
    let client = client.build().expect("a client");
    let seen = get(&client, "/a?b").await;
    assert_eq!(seen, format!("http://{SERVICE}/a?b {:?}", Version::HTTP_2));
    let seen = get(&client, "http://other:81/").await;
    assert!(seen.starts_with("http://other:81/ "), "{seen}");
}

#[tokio::test]
async fn a_default_port_is_not_in_the_authority() {
    let (pod, _) = serving(async |request| answer(request.uri().to_string())).await;
    let client = Client::builder("http://web.default:80".parse().expect("a URI"));
    let client = client.discovery(StaticEndpoints::new([pod]));
    let client = client.protocol(Protocol::Http2).build().expect("a client");
    for uri in ["/a", "http://web.default:80/a", "http://WEB.default./a"] {
        assert_eq!(get(&client, uri).await, "http://web.default/a", "{uri}");
    }
}

/// RFC 9113 §8.2.2: connection-specific headers of HTTP/1.1 must not be sent.
#[tokio::test]
async fn connection_specific_headers_are_left_out() {
    let (pod, _) = serving(async |request: Request<Incoming>| {
        let names = request.headers().keys().map(ToString::to_string);
        answer(format!(
            "{} {:?}",
            request.uri().path(),
            names.collect::<Vec<_>>()
        ))
    })
    .await;
    let client = client([pod]);
    let request = Request::builder().method(Method::OPTIONS).uri("*");
    let request = request.header("content-length", "0");
    let request = request
        .header("connection", "keep-alive, upgrade, x-hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "close")
        .header("upgrade", "websocket")
        .header("te", "gzip")
        .header("x-hop", "1")
        .header("x-kept", "1");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = within("a response", client.oneshot(request)).await;
    let seen = text(response.expect("a response")).await;
    assert_eq!(seen, "* [\"content-length\", \"x-kept\"]");
}

/// RFC 9113 §8.3.1: a `Host` must not differ from `:authority`.
#[tokio::test]
async fn the_caller_s_host_is_the_authority() {
    let (pod, _) = serving(async |request: Request<Incoming>| {
        let host = request
            .headers()
            .get(HOST)
            .map_or("-", |it| it.to_str().expect("text"));
        let authority = request.uri().authority().map_or("-", |it| it.as_str());
        answer(format!("{authority} {host}"))
    })
    .await;
    let client = client([pod]);
    let response = client.get("/").header("host", "other").await;
    let seen = text(response.expect("a response")).await;
    let (authority, host) = seen.split_once(' ').expect("two words");
    assert_eq!(authority, "other");
    assert!(host == "-" || host == authority, "{host}");
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let (pod, _) = serving(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await.expect("a body");
        let sum = body.trailers().map(|trailers| trailers["sum"].clone());
        let text = format!("{:?} {sum:?}", body.to_bytes());
        answer(text)
    })
    .await;
    let trailers = HeaderMap::from_iter([("sum".parse().expect("a name"), HeaderValue::from(2))]);
    let frames = [Frame::data(Bytes::from("ab")), Frame::trailers(trailers)];
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, BoxError>)));
    let request = Request::post("/").body(body).expect("a request");
    let response = within("a response", client([pod]).oneshot(request)).await;
    assert_eq!(
        text(response.expect("a response")).await,
        "b\"ab\" Some(\"2\")"
    );
}

/// More than a task may do before tokio makes it yield.
#[tokio::test]
async fn a_thousand_requests_at_once_share_one_connection() {
    let (pod, connections) = serving_many(1_000, async |_| answer("ok".into())).await;
    let client = client([pod]);
    get(&client, "/").await;
    let answers = join_all((0..1_000).map(|_| get(&client, "/"))).await;
    assert!(answers.iter().all(|answer| answer == "ok"));
    assert_eq!(connections.get(), 1);
}

#[tokio::test]
async fn a_caller_s_broken_body_fails_only_its_own_request() {
    let (pod, connections) = serving(async |request: Request<Incoming>| {
        let _broken = request.into_body().collect().await;
        answer("ok".into())
    })
    .await;
    let client = client([pod]);
    let frames = [
        Ok(Frame::data(Bytes::from("a part"))),
        Err(BoxError::from("the disk is gone")),
    ];
    let body = StreamBody::new(futures::stream::iter(frames));
    let request = Request::post("/").body(body).expect("a request");
    let asked = within("an error", client.clone().oneshot(request)).await;
    let error = asked.expect_err("no body");
    assert!(
        error.is_request_body() && error.endpoint().is_none(),
        "{error:?}"
    );
    assert!(!error.is_unexecuted(), "a part has been sent");
    assert_eq!(get(&client, "/").await, "ok");
    assert_eq!(connections.get(), 1, "the connection is none the worse");
}

#[tokio::test]
async fn fifty_requests_share_one_connection() {
    let (pod, connections) = serving(async |_| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer("ok".into())
    })
    .await;
    let client = client([pod]);
    let answers = join_all((0..50).map(|_| get(&client, "/"))).await;
    assert_eq!(answers, vec!["ok"; 50]);
    assert_eq!(connections.get(), 1);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_request_ends_with_its_body_though_the_connection_goes_on() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.ok(stream).await;
        let stream = frames.stream().await;
        frames.ok(stream).await;
    };
    let ask = async {
        let response = head(&client, "/").await.expect("a response");
        assert_eq!(in_flight(&client), 0, "it ended at its head");
        head(&client, "/").await.expect("a response");
        drop(response);
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_waiting_request_gets_the_connection_though_the_first_is_cancelled() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let mut first = Box::pin(head(&client, "/first"));
    let mut second = Box::pin(head(&client, "/second"));
    // The pods become known after a while, and then the connection is begun.
    while in_flight(&client) < 2 {
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    drop(first);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.ok(stream).await;
        frames
    };
    let (_frames, response) = join(serve, second).await;
    response.expect("a response");
}

/// A pod that allows two streams on each connection, and answers when there are permits.
async fn narrow(permits: &'static Semaphore) -> (SocketAddr, Count) {
    let connections = Count::default();
    let seen = connections.clone();
    let serve = move |peer| {
        let seen = seen.clone();
        async move {
            seen.add();
            let mut frames = Frames::greet(peer, Some(2)).await;
            let mut open = Vec::new();
            loop {
                tokio::select! {
                    () = frames.arrived() => match frames.frame().await {
                        frame if frame.kind == HEADERS => open.push(frame.stream),
                        _ => {}
                    },
                    permit = permits.acquire(), if !open.is_empty() => {
                        permit.expect("open").forget();
                        frames.ok(open.remove(0)).await;
                    }
                }
            }
        }
    };
    (pod(serve).await, connections)
}

/// Those who waited for it have got its error, or were cancelled.
#[tokio::test]
async fn an_old_dial_failure_does_not_fail_a_new_request() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).fail_fast();
    let client = client.build().expect("a client");
    wait_until("the pods", || !client.endpoints().is_empty()).await;
    // Its caller gives up before the dial fails.
    let mut hasty = Box::pin(client.get("/").into_future());
    let mut peer = tokio::select! {
        _ = &mut hasty => panic!("nobody has answered"),
        peer = accept(&listener) => peer,
    };
    drop(hasty);
    // The dial notices this by itself: nobody else polls it.
    peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .await;
    peer.closed().await;
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.ok(stream).await;
        frames
    };
    let ask = async { within("a response", client.get("/").into_future()).await };
    let (_frames, response) = join(serve, ask).await;
    response.expect("the pod is well");
}

#[tokio::test]
async fn when_a_connection_is_full_another_is_opened() {
    static PERMITS: Semaphore = Semaphore::const_new(0);
    let (pod, connections) = narrow(&PERMITS).await;
    let client = client([pod]);
    PERMITS.add_permits(1);
    head(&client, "/")
        .await
        .expect("a response, and the pod's settings");
    let requests = (0..5).map(|_| head(&client, "/"));
    let enough = async {
        wait_until("three connections", || connections.get() == 3).await;
        PERMITS.add_permits(5);
    };
    let (responses, ()) = join(join_all(requests), enough).await;
    for response in responses {
        response.expect("a response");
    }
}

/// Like the test before, but without an earlier request: the pod's limit must be known before it is relied on.
#[tokio::test]
async fn a_new_connection_is_not_overfilled() {
    static PERMITS: Semaphore = Semaphore::const_new(0);
    let (pod, connections) = narrow(&PERMITS).await;
    let client = client([pod]);
    let requests = (0..5).map(|_| head(&client, "/"));
    let enough = async {
        wait_until("three connections", || connections.get() == 3).await;
        PERMITS.add_permits(5);
    };
    let (responses, ()) = join(join_all(requests), enough).await;
    for response in responses {
        response.expect("a response");
    }
}

#[tokio::test]
async fn requests_beyond_all_connections_wait() {
    static PERMITS: Semaphore = Semaphore::const_new(0);
    let (pod, connections) = narrow(&PERMITS).await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    PERMITS.add_permits(6);
    head(&client, "/")
        .await
        .expect("a response, and the pod's settings");
    let responses = join_all((0..5).map(|_| head(&client, "/"))).await;
    for response in responses {
        response.expect("a response");
    }
    assert_eq!(connections.get(), 1);
}

#[tokio::test]
async fn after_a_go_away_a_connection_finishes_its_requests_and_gets_no_new_ones() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut old = greet(&listener, None).await;
        let first = old.stream().await;
        old.go_away(first, NO_ERROR).await;
        let mut new = greet(&listener, None).await;
        let second = new.stream().await;
        new.ok(second).await;
        old.ok(first).await;
        old.0.closed().await;
        new
    };
    let ask = async {
        let mut first = Box::pin(head(&client, "/first"));
        // Until the pod has sent GOAWAY.
        let told = tokio::time::timeout(Duration::from_millis(50), &mut first);
        assert!(told.await.is_err());
        head(&client, "/second").await.expect("a response");
        first.await.expect("a response");
    };
    join(serve, ask).await;
}

/// A pod may close connections whenever it likes (nginx does so after a number of requests): it is healthy.
#[tokio::test]
async fn a_go_away_costs_a_lone_pod_no_pause() {
    let (listener, pod) = listen().await;
    // With `fail_fast`, a request that has to wait for the pod fails.
    let client = builder([pod]).fail_fast().build().expect("a client");
    kit::know(&client).await;
    let serve = async {
        let mut old = greet(&listener, None).await;
        let first = old.stream().await;
        old.go_away(first, NO_ERROR).await;
        let mut new = greet(&listener, None).await;
        let second = new.stream().await;
        new.ok(second).await;
        old.ok(first).await;
        new
    };
    let ask = async {
        let mut first = Box::pin(head(&client, "/first"));
        let told = tokio::time::timeout(Duration::from_millis(50), &mut first);
        assert!(told.await.is_err());
        head(&client, "/second").await.expect("no pause");
        first.await.expect("a response");
    };
    join(serve, ask).await;
}

fn post() -> Request<Full<Bytes>> {
    let body = Full::from("hello");
    Request::post("/").body(body).expect("a request")
}

#[tokio::test]
async fn requests_above_a_go_away_s_last_stream_are_sent_again() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut old = greet(&listener, None).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(old.stream().await);
        }
        old.go_away(streams[0], NO_ERROR).await;
        let mut new = greet(&listener, None).await;
        for _ in 0..2 {
            let stream = new.stream().await;
            new.ok(stream).await;
        }
        old.ok(streams[0]).await;
        (old, new)
    };
    let posts = join_all((0..3).map(|_| within("a response", client.clone().oneshot(post()))));
    let (_connections, responses) = join(serve, posts).await;
    for response in responses {
        response.expect("a response");
    }
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        for _ in 0..3 {
            let stream = frames.stream().await;
            frames.reset(stream, REFUSED_STREAM).await;
        }
        let stream = frames.stream().await;
        frames.end_of(stream).await;
        frames.ok(stream).await;
        frames
    };
    let (_frames, response) = join(serve, within("a response", client.oneshot(post()))).await;
    response.expect("a response");
}

#[tokio::test]
async fn a_refused_stream_is_logged_as_an_attempt() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.reset(stream, REFUSED_STREAM).await;
        let stream = frames.stream().await;
        frames.ok(stream).await;
        frames
    };
    let request = client.get("/").attempts().into_future();
    let (_frames, response) = join(serve, within("a response", request)).await;
    let response = response.expect("a response");
    let attempts = response.attempts().expect("asked for");
    let [refused, answered] = &attempts.list[..] else {
        panic!("{attempts}");
    };
    let outcome = &refused.outcome;
    assert!(
        matches!(outcome, AttemptOutcome::Unprocessed { .. }),
        "{outcome}"
    );
    assert_eq!(answered.cause, AttemptCause::RetryUnprocessed);
    assert_eq!(
        answered.outcome,
        AttemptOutcome::Answered { status: Some(200) }
    );
}

/// A pod that keeps its connections and refuses every stream, and how many it has refused.
async fn refusing() -> (SocketAddr, Count) {
    let refused = Count::default();
    let seen = refused.clone();
    let serve = move |peer| {
        let seen = seen.clone();
        async move {
            let mut frames = Frames::greet(peer, None).await;
            while let Some(frame) = frames.try_frame().await {
                if frame.kind == HEADERS {
                    seen.add();
                    frames.reset(frame.stream, REFUSED_STREAM).await;
                }
            }
        }
    };
    (pod(serve).await, refused)
}

/// A budget that allows no retry.
fn no_budget() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(1), 0, 0.0)
}

#[tokio::test]
async fn a_pod_that_refuses_every_stream_is_passed_over() {
    let ((bad, refused), (good, _)) = (
        refusing().await,
        serving(async |_| answer("ok".into())).await,
    );
    let client = client([bad, good]);
    for _ in 0..250 {
        let posts = (0..4).map(|_| within("a response", client.clone().oneshot(post())));
        for response in join_all(posts).await {
            let response = response.expect("the other pod's");
            assert_eq!(response.body().endpoint().expect("a pod").address(), good);
            text(response).await;
        }
    }
    let refused = refused.get();
    assert!((1..=20).contains(&refused), "{refused} of 1,000");
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn every_stream_that_a_pod_refuses_counts_as_overload_also_when_it_is_passed_over() {
    let logs = Logs::new();
    let (pod, refused) = refusing().await;
    let client = builder([pod]).retries(0).build().expect("a client");
    for _ in 0..3 {
        let error = within("an error", client.clone().oneshot(post())).await;
        error.map(drop).expect_err("it is refused");
    }
    assert_eq!(refused.get(), 3);
    let explanation = client.explain();
    let counts = explanation.endpoints[0].counts.as_ref().expect("counted");
    assert_eq!(counts.overloads, 3, "{counts:?}");
    assert_eq!(counts.failures, FailureCounts::default(), "{counts:?}");
    // It had the last request, which is not offered to another pod.
    assert_eq!(logs.count(Level::DEBUG, "request lost"), 1);
    assert_eq!(logs.count(Level::DEBUG, "endpoint refused the request"), 0);
}

#[tokio::test]
async fn a_request_that_all_pods_but_one_refuse_costs_no_budget() {
    let bad = [refusing().await, refusing().await, refusing().await];
    let (good, _) = serving(async |_| answer("ok".into())).await;
    let pods = bad.iter().map(|pod| pod.0).chain([good]);
    let client = builder(pods).retry_budget(no_budget()).retries(1).build();
    let client = client.expect("a client");
    for _ in 0..8 {
        let response = within("a response", client.clone().oneshot(post())).await;
        text(response.expect("the good pod's")).await;
    }
    assert!(bad.iter().any(|pod| pod.1.get() > 0));
}

#[tokio::test]
async fn requests_left_unprocessed_by_a_go_away_go_to_other_pods() {
    const EACH: usize = 10;
    let (listener, going) = listen().await;
    let (other, _) = serving(async |_| answer("ok".into())).await;
    let client = builder([going, other]).retry_budget(no_budget()).build();
    let client = client.expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let mut streams = Vec::new();
        for _ in 0..EACH {
            streams.push(frames.stream().await);
        }
        frames.go_away(streams[0], NO_ERROR).await;
        frames.ok(streams[0]).await;
        frames
    };
    let posts = (0..2 * EACH).map(|_| within("a response", client.clone().oneshot(post())));
    let (_frames, responses) = join(serve, join_all(posts)).await;
    let mut pods = Vec::new();
    for response in responses {
        let response = response.expect("none fails");
        pods.push(response.body().endpoint().expect("a pod").address());
        text(response).await;
    }
    let processed = pods.iter().filter(|pod| **pod == going).count();
    assert_eq!(processed, 1, "the others' went elsewhere");
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_stream_refused_too_often_was_not_executed() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).retries(0).build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.reset(stream, REFUSED_STREAM).await;
        frames
    };
    let (_frames, response) = join(serve, client.oneshot(post())).await;
    let error = response.expect_err("it was refused");
    assert!(
        error.is_unexecuted() && !error.is_unreachable(),
        "{error:?}"
    );
    assert_eq!(error.endpoint().map(Endpoint::address), Some(pod));
    assert!(error.to_string().contains("was not executed"), "{error}");
}

#[tokio::test]
async fn a_post_on_a_connection_that_breaks_may_have_been_executed() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        // The pod may have processed its stream.
        frames.go_away(stream, NO_ERROR).await;
    };
    let ((), response) = join(serve, within("an error", client.oneshot(post()))).await;
    let error = response.expect_err("it was lost");
    assert!(!error.is_unexecuted(), "{error:?}");
}

#[tokio::test]
async fn a_stream_reset_with_another_code_may_have_been_executed() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.reset(stream, CANCEL).await;
        frames
    };
    let (_frames, response) = join(serve, within("an error", client.oneshot(post()))).await;
    let error = response.expect_err("it was lost");
    assert!(!error.is_unexecuted(), "{error:?}");
}

/// The client has put the request on a connection, where it waits for its turn: its stream was never opened.
#[tokio::test]
async fn a_stream_that_was_never_opened_is_sent_again() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut old = greet(&listener, Some(1)).await;
        let first = old.stream().await;
        old.ok(first).await;
        let second = old.stream().await;
        old.end_of(second).await;
        old.go_away(second, NO_ERROR).await;
        let mut new = greet(&listener, None).await;
        let third = new.stream().await;
        new.ok(third).await;
        old.ok(second).await;
        (old, new)
    };
    let ask = async {
        let send = || within("a response", client.clone().oneshot(post()));
        send().await.expect("a response, and the pod's settings");
        let (second, third) = join(send(), send()).await;
        second.expect("a response");
        third.expect("a response");
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_cancelled_request_resets_its_stream_and_leaves_the_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let mut first = Box::pin(head(&client, "/first"));
    let serve = async {
        let mut frames = greet(&listener, None).await;
        frames.stream().await;
        frames
    };
    let mut frames = tokio::select! {
        frames = serve => frames,
        _ = &mut first => panic!("not answered yet"),
    };
    assert_eq!(in_flight(&client), 1);
    drop(first);
    assert_eq!(in_flight(&client), 0);
    let serve = async {
        let stream = frames.stream().await;
        frames.ok(stream).await;
    };
    let (response, ()) = join(head(&client, "/second"), serve).await;
    response.expect("over the same connection");
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_and_one_in_use_is_not() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).idle_timeout(Duration::from_millis(50));
    let client = client.build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        frames.ok(stream).await;
        frames
    };
    let (mut frames, response) = join(serve, head(&client, "/")).await;
    response.expect("a response");
    frames.0.closed().await;
}

#[tokio::test]
async fn a_removed_pod_s_shared_connection_closes_when_its_last_request_ends() {
    let (listener, leaving) = listen().await;
    let (staying, _) = serving(async |_| answer("ok".into())).await;
    let (sets, discovery) = sets(vec![leaving]);
    let client = unresolved("http")
        .protocol(Protocol::Http2)
        .discovery(discovery);
    let client = client.build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        sets.send_replace(vec![staying]);
        let is_gone = || client.endpoints()[0].endpoint.address() == staying;
        wait_until("the removal", is_gone).await;
        frames.ok(stream).await;
        frames.0.closed().await;
    };
    let ((), response) = join(serve, get(&client, "/")).await;
    assert_eq!(response, "");
}

#[tokio::test]
async fn pings_are_limited_to_ten_a_second() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).http2_ping(Some(Duration::ZERO)).build();
    let client = client.expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let (begun, mut pings) = (Instant::now(), 0);
        let stream = frames.stream().await;
        while pings < 3 {
            pings += u32::from(frames.frame().await.kind == PING);
        }
        assert!(begun.elapsed() >= Duration::from_millis(250), "too often");
        frames.ok(stream).await;
        frames
    };
    let (_frames, response) = join(serve, head(&client, "/")).await;
    response.expect("a response");
}

#[tokio::test]
async fn a_connection_whose_pod_answers_no_ping_is_closed() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).http2_ping(Some(Duration::from_millis(100)));
    let client = client.retries(0).build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener, None).await;
        frames.stream().await;
        // Keeps reading, and never answers.
        frames.0.closed().await;
    };
    let ((), response) = join(serve, head(&client, "/")).await;
    let error = response.expect_err("no answer");
    assert!(
        !error.is_unexecuted() && error.endpoint().is_some(),
        "{error:?}"
    );
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_pod_that_sends_no_settings_is_not_connected() {
    let (mute, _) = kit::silent().await;
    let (good, _) = serving(async |_| answer("ok".into())).await;
    let client = builder([mute, good]).connect_timeout(Duration::from_millis(100));
    let client = client.first_byte_timeout(Duration::from_secs(2)).build();
    let client = client.expect("a client");
    // What a bad connection had taken would be lost with it.
    for _ in 0..4 {
        let request = client.post("/").into_future();
        within("a response", request).await.expect("a response");
    }
}

/// hyper takes a reset with `NO_ERROR`, and a GOAWAY with it, for the end of the body.
#[tokio::test]
async fn a_response_that_is_reset_before_its_end_is_an_error_whatever_the_code() {
    for by_go_away in [false, true] {
        for reason in [NO_ERROR, CANCEL] {
            for is_upload in [false, true] {
                let (listener, pod) = listen().await;
                let client = client([pod]);
                let (_sender, body) = written();
                let serve = async {
                    let mut frames = greet(&listener, None).await;
                    let stream = frames.stream().await;
                    frames.begin(stream).await;
                    match by_go_away {
                        false => frames.reset(stream, reason).await,
                        true => frames.go_away(0, reason).await,
                    }
                    frames
                };
                let ask = async {
                    let request = match is_upload {
                        true => Request::post("/").body(RequestBody::new(body)),
                        false => Request::get("/").body(RequestBody::default()),
                    };
                    let request = request.expect("a request");
                    let response = within("a head", client.clone().oneshot(request)).await;
                    let body = response.expect("a head").into_body();
                    within("the end", body.collect()).await
                };
                let (_frames, body) = join(serve, ask).await;
                let error = body.expect_err("it was cut off");
                assert!(error.is_body() && error.endpoint().is_some(), "{error:?}");
            }
        }
    }
}

/// RFC 9113 §8.1
#[tokio::test]
async fn a_response_that_is_reset_after_its_end_is_complete() {
    for reason in [NO_ERROR, CANCEL] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let (_sender, body) = written();
        let serve = async {
            let mut frames = greet(&listener, None).await;
            let stream = frames.stream().await;
            frames.begin(stream).await;
            frames.finish(stream).await;
            frames.reset(stream, reason).await;
            // The next answer comes after the reset, so that it has been seen.
            let next = frames.stream().await;
            frames.ok(next).await;
            frames
        };
        let ask = async {
            let request = Request::post("/").body(body).expect("a request");
            let response = within("a head", client.clone().oneshot(request)).await;
            let response = response.expect("a head");
            head(&client, "/").await.expect("a response");
            text(response).await
        };
        let (_frames, body) = join(serve, ask).await;
        assert_eq!(body, "abcd");
    }
}

#[tokio::test]
async fn informational_responses_are_skipped() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, None).await;
        let stream = frames.stream().await;
        frames.early_hints(stream).await;
        frames.early_hints(stream).await;
        frames.begin(stream).await;
        frames.finish(stream).await;
        frames
    };
    let (_frames, body) = join(serve, get(&client, "/")).await;
    assert_eq!(body, "abcd");
}

/// Cancels requests at every point, with and without a body that goes on.
#[tokio::test]
async fn requests_cancelled_at_any_point_leave_nothing_behind() {
    let slow = async |_| {
        tokio::task::yield_now().await;
        answer("an answer".to_owned())
    };
    let (pod, connections) = serving_many(1, slow).await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    for polls in 0..200 {
        let (_sender, goes_on) = written();
        let body = match polls % 3 {
            0 => RequestBody::default(),
            1 => RequestBody::new(goes_on),
            _ => RequestBody::new(kit::stream_of(&["a ", "body"])),
        };
        let request = Request::post("/").body(body).expect("a request");
        let mut request = Box::pin(async {
            let response = client.clone().oneshot(request).await;
            text(response.expect("a response")).await
        });
        for _ in 0..polls % 40 {
            if futures::poll!(&mut request).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
        assert_eq!(in_flight(&client), 0, "after {polls} polls");
    }
    for _ in 0..3 {
        assert_eq!(get(&client, "/").await, "an answer");
    }
    assert_eq!(connections.get(), 1);
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let (pod, _) = serving(async |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = upgrade.await.expect("a stream");
            let mut stream = TokioIo::new(stream);
            let (mut read, mut write) = tokio::io::split(&mut stream);
            // Ends when the client has gone.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Response::new(Full::default())
    })
    .await;
    let client = client([pod]);
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("far.example:443");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = within("a response", client.clone().oneshot(request)).await;
    let mut response = response.expect("a response");
    let stream = within("a stream", tower_headless::http::upgrade(&mut response));
    let mut stream = stream.await.expect("a stream");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"ping")
        .await
        .expect("written");
    let mut echo = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut echo);
    within("the echo", read).await.expect("the echo");
    assert_eq!(&echo, b"ping");
    assert_eq!(in_flight(&client), 1);
    drop(stream);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_caller_s_body_that_fails_after_the_head_is_not_blamed_on_the_pod() {
    let begins = |peer| async move {
        let mut frames = Frames::greet(peer, None).await;
        while let Some(frame) = frames.try_frame().await {
            if frame.kind == HEADERS {
                frames.begin(frame.stream).await;
            }
        }
    };
    let client = outliers(builder([pod(begins).await, pod(begins).await]));
    assert_blames_no_pod(&client).await;
}
