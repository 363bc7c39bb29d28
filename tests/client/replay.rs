//! Which requests are sent again, where to, and what the errors of the others say.

use std::{
    future::{IntoFuture, Ready, ready},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{join, join_all},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tower::{
    Service, ServiceExt,
    retry::{self, budget::TpsBudget},
};
use tower_headless::{
    Endpoint, Route,
    http::{Client, Error, Idempotent, RequestBuilder, ResponseBody},
};

use crate::{
    kit::{
        Count, OK, Peer, accept, answering, builder, client, get, in_flight, know, listen, losing,
        pod, refuse_at, refusing, sets, silent, stream_of, text, unresolved, wait_until,
    },
    support::within,
};

async fn post(client: &Client, path: &str) -> Result<String, Error> {
    let request = client.post(path).body("hello").into_future();
    Ok(text(within("a response", request).await?).await)
}

/// Runs `test` in a runtime that polls its sockets before each task.
fn attentive(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build();
    runtime.expect("a runtime").block_on(test);
}

/// Polls every other task twice; the runtime polls the sockets in between.
///
/// Idle tasks are queued before those whose sockets are ready. For [`attentive`] tests.
async fn look_at_sockets() {
    let decoys: Vec<_> = (0..8)
        .map(|_| tokio::spawn(std::future::poll_fn(again)))
        .collect();
    for _ in 0..3 {
        let mut polled = false;
        std::future::poll_fn(|cx| match std::mem::replace(&mut polled, true) {
            true => Poll::Ready(()),
            false => again(cx),
        })
        .await;
    }
    decoys.iter().for_each(tokio::task::JoinHandle::abort);
}

fn again(cx: &mut Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Makes a connection answer once, and has its pod close it before the connection's task can notice.
async fn close_unseen(client: &Client, listener: &TcpListener, before: impl AsyncFnOnce()) {
    let serve = async {
        let mut peer = accept(listener).await;
        peer.answer(OK).await;
        peer
    };
    let (peer, response) = join(serve, get(client, "/first")).await;
    response.expect("a response");
    before().await;
    drop(peer);
    look_at_sockets().await;
}

#[test]
fn an_unwritten_request_of_any_kind_goes_to_another_pod() {
    attentive(async {
        let (listener, closing) = listen().await;
        let (other, requests) = answering().await;
        let (sets, discovery) = sets(vec![closing]);
        // An unwritten request isn't a retry, and doesn't count as one.
        let client = unresolved("http").discovery(discovery).retries(0).build();
        let client = client.expect("a client");
        let mut members = client.watch();
        within("the pod", members.next()).await;
        close_unseen(&client, &listener, async || {
            sets.send_replace(vec![closing, other]);
            within("the other pod", members.next()).await;
        })
        .await;
        drop(listener);
        refuse_at(closing);
        // Two requests, so that one goes to the pod that has closed.
        let posts = join(
            client.post("/").into_future(),
            client.post("/").into_future(),
        );
        let (first, second) = within("responses", posts).await;
        for response in [first, second] {
            let response = response.expect("a response");
            assert_eq!(response.body().endpoint().expect("a pod").address(), other);
        }
        assert_eq!(requests.get(), 2);
    });
}

/// Pods close idle connections: they are healthy.
#[test]
fn a_stale_connection_costs_a_lone_pod_no_pause() {
    attentive(async {
        let (listener, pod) = listen().await;
        // With `fail_fast`, a request that has to wait for the pod fails.
        let client = builder([pod]).retries(0).fail_fast().build();
        let client = client.expect("a client");
        know(&client).await;
        close_unseen(&client, &listener, async || {}).await;
        let ask = async {
            let response = post(&client, "/second").await;
            response.expect("no pause");
        };
        join(async { accept(&listener).await.answer(OK).await }, ask).await;
    });
}

#[tokio::test]
async fn a_get_that_is_lost_is_sent_to_another_pod() {
    let (bad, lost) = losing().await;
    let (good, answered) = answering().await;
    let client = client([bad, good]);
    for _ in 0..10 {
        get(&client, "/").await.expect("a response");
    }
    assert_eq!(answered.get(), 10);
    assert_eq!(
        lost.get(),
        5,
        "every other turn: what is sent again takes none"
    );
}

#[tokio::test]
async fn a_lost_post_is_an_error_that_may_have_been_executed() {
    let (bad, lost) = losing().await;
    let client = client([bad]);
    let error = post(&client, "/").await.expect_err("it was lost");
    assert_eq!(lost.get(), 1, "{error}");
    assert_eq!(error.endpoint().map(Endpoint::address), Some(bad));
    assert!(!error.is_unexecuted() && !error.is_unreachable() && !error.is_timeout());
    assert!(
        error.to_string().contains("may have been executed"),
        "{error}"
    );
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_get_with_a_body_that_is_lost_is_not_sent_again() {
    let (bad, lost) = losing().await;
    let (good, answered) = answering().await;
    let client = client([bad, good]);
    let ask = || client.get("/").body("b").into_future();
    let (first, second) = (ask().await, ask().await);
    assert_eq!(u8::from(first.is_err()) + u8::from(second.is_err()), 1);
    assert_eq!((lost.get(), answered.get() > 0), (1, true));
}

#[tokio::test]
async fn an_idempotent_request_that_is_lost_is_sent_again() {
    let (bad, lost) = losing().await;
    let (good, _) = answering().await;
    let client = client([bad, good]);
    for _ in 0..4 {
        let request = client.request(Method::PUT, "/").idempotent();
        text(request.await.expect("a response")).await;
    }
    assert_eq!(lost.get(), 2);
}

/// A pod that reads a request's whole body and closes the connection.
async fn losing_bodies() -> SocketAddr {
    pod(|mut peer: Peer<TcpStream>| async move {
        peer.head().await;
        peer.until("0\r\n\r\n").await;
    })
    .await
}

/// A pod that answers chunked requests with the length of their bodies.
async fn measuring() -> SocketAddr {
    pod(|mut peer: Peer<TcpStream>| async move {
        while peer.try_head().await.is_some() {
            let length = peer.until("0\r\n\r\n").await.len().to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                length.len()
            );
            peer.write(head + &length).await;
        }
    })
    .await
}

/// Sends a streamed body of ten bytes twice, recording `record` of them; one of the two is lost.
async fn streamed(record: usize) -> Vec<Result<String, Error>> {
    let client = client([losing_bodies().await, measuring().await]);
    let mut results = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/").extension(Idempotent { record });
        let request = request
            .body(stream_of(&["01234", "56789"]))
            .expect("a request");
        let response = within("a response", client.clone().oneshot(request)).await;
        results.push(match response {
            Ok(response) => Ok(text(response).await),
            Err(error) => Err(error),
        });
    }
    results
}

#[tokio::test]
async fn a_recorded_stream_is_sent_again() {
    for result in streamed(10).await {
        assert_eq!(
            result.expect("a response"),
            "25",
            "both chunks and the last"
        );
    }
}

#[tokio::test]
async fn a_stream_longer_than_its_recording_is_not_sent_again() {
    let results = streamed(9).await;
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert!(!errors[0].is_unexecuted());
}

#[tokio::test]
async fn a_request_whose_response_has_begun_is_never_sent_again() {
    let broken = pod(|mut peer: Peer<TcpStream>| async move {
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            .await;
    });
    let broken = broken.await;
    let client = client([broken]);
    let response = client.get("/").await.expect("a response");
    assert_eq!(response.endpoint().map(Endpoint::address), Some(broken));
    let error = within("the end", response.into_body().collect()).await;
    let error = error.expect_err("half a body");
    assert_eq!(error.endpoint().map(Endpoint::address), Some(broken));
    assert!(!error.is_unexecuted() && !error.is_unreachable() && !error.is_request());
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn with_zero_retries_nothing_is_sent_again() {
    let (bad, lost) = losing().await;
    let (good, _) = answering().await;
    let client = builder([bad, good]).retries(0).build().expect("a client");
    let answers = [get(&client, "/").await, get(&client, "/").await];
    let errors = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!((errors, lost.get()), (1, 1));
}

#[tokio::test]
async fn a_request_is_sent_again_as_often_as_allowed() {
    for retries in [1, 3] {
        let (bad, lost) = losing().await;
        let client = builder([bad]).retries(retries).build().expect("a client");
        let error = get(&client, "/").await.expect_err("the pod loses all");
        assert_eq!(lost.get(), retries + 1, "{error}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    const REQUESTS: usize = 1_000;
    let pods = [losing().await, losing().await, losing().await];
    let begun = Instant::now();
    let client = client(pods.iter().map(|pod| pod.0));
    for _ in 0..REQUESTS / 10 {
        let lost = join_all((0..10).map(|_| get(&client, "/"))).await;
        assert!(lost.iter().all(Result::is_err));
    }
    let attempts: usize = pods.iter().map(|(_, lost)| lost.get()).sum();
    // The budget's share of all requests, and ten a second; the ten seconds of a window may be spent at once. On a busy
    // machine a window is half as long: tower counts a second and a bit without a request as two.
    let windows = 1.0 + begun.elapsed().as_secs_f64() / 5.0;
    let allowed = REQUESTS as f64 * 1.2 + 100.0 * windows;
    assert!(attempts as f64 <= allowed, "{attempts} > {allowed}");
    assert!(attempts > REQUESTS, "some are sent again");
}

#[tokio::test]
async fn a_get_without_a_byte_of_answer_in_time_is_sent_to_another_pod() {
    let (mute, swallowed) = silent().await;
    let (good, _) = answering().await;
    let client = builder([mute, good]).first_byte_timeout(Duration::from_millis(500));
    let client = client.build().expect("a client");
    for _ in 0..6 {
        get(&client, "/").await.expect("a response");
    }
    let tried = swallowed.get();
    assert!(
        (1..=2).contains(&tried),
        "it is passed over after the first: {tried}"
    );
}

#[tokio::test]
async fn a_post_without_a_byte_of_answer_in_time_is_a_timeout() {
    let (mute, _) = silent().await;
    let client = builder([mute]).first_byte_timeout(Duration::from_millis(50));
    let client = client.build().expect("a client");
    let error = post(&client, "/").await.expect_err("no answer");
    assert!(error.is_timeout() && !error.is_unexecuted(), "{error}");
    assert_eq!(error.endpoint().map(Endpoint::address), Some(mute));
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn the_whole_timeout_covers_all_attempts() {
    let (mute, swallowed) = silent().await;
    let client = builder([mute])
        .first_byte_timeout(Duration::from_millis(20))
        .timeout(Duration::from_millis(400))
        .retries(100);
    let client = client.build().expect("a client");
    let error = get(&client, "/").await.expect_err("no answer");
    assert!(error.is_timeout() && !error.is_unexecuted(), "{error}");
    assert!(error.endpoint().is_none(), "not one pod's alone: {error}");
    assert!(swallowed.get() >= 1);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_request_s_own_timeout_overrides_the_client_s() {
    let (mute, _) = silent().await;
    let client = builder([mute]).timeout(Duration::from_secs(600));
    let client = client.build().expect("a client");
    let request = client.get("/").timeout(Duration::from_millis(50));
    let error = within("the timeout", request.into_future()).await;
    let error = error.expect_err("no answer");
    assert!(error.is_timeout());
    // Only this pod has the request.
    assert_eq!(error.endpoint().map(Endpoint::address), Some(mute));
    assert_eq!(
        error.to_string(),
        format!(
            "request to web.default.svc.cluster.local: no answer of pod {mute} within 50ms (`timeout`)"
        )
    );
}

#[tokio::test]
async fn a_request_timeout_of_duration_max_removes_the_client_s() {
    let (good, _) = answering().await;
    let plain = || builder([good]).timeout(Duration::ZERO).build();
    let layered = plain()
        .expect("a client")
        .layer(tower::layer::util::Identity::new());
    for client in [plain().expect("a client"), layered] {
        let late = within("an end", client.get("/").into_future()).await;
        assert!(late.expect_err("no time").is_timeout());
        let request = client.get("/").timeout(Duration::MAX);
        let response = within("a response", request.into_future()).await;
        assert_eq!(response.expect("an answer").status(), 200);
    }
}

/// One attempt may have been executed, and so may the request, even if the next attempt found no pod.
#[tokio::test]
async fn a_lost_request_that_finds_no_other_pod_may_have_been_executed() {
    let (listener, leaving) = listen().await;
    let client = builder([leaving]).ready_timeout(Duration::from_millis(50));
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        drop(listener);
        refuse_at(leaving);
    };
    let ((), result) = join(serve, get(&client, "/")).await;
    let error = result.expect_err("the pod is gone");
    assert!(!error.is_unexecuted(), "{error:?}");
}

fn avoiding(pods: &[SocketAddr]) -> Request<Empty<Bytes>> {
    let route = pods
        .iter()
        .fold(Route::new(), |route, &pod| route.avoid(&Endpoint::new(pod)));
    let request = Request::get("/").extension(route);
    request.body(Empty::new()).expect("a request")
}

#[tokio::test]
async fn an_avoided_pod_gets_no_request() {
    let (avoided, unwanted) = answering().await;
    let (other, wanted) = answering().await;
    let client = client([avoided, other]);
    know(&client).await;
    for _ in 0..10 {
        let response = client.clone().oneshot(avoiding(&[avoided])).await;
        text(response.expect("a response")).await;
    }
    assert_eq!((unwanted.get(), wanted.get()), (0, 10));
}

#[tokio::test]
async fn a_retry_keeps_to_its_caller_s_route() {
    let (avoided, unwanted) = answering().await;
    let (bad, (good, _)) = ([losing().await, losing().await], answering().await);
    let client = client([avoided, bad[0].0, bad[1].0, good]);
    know(&client).await;
    for _ in 0..40 {
        let route = Route::new().avoid(&Endpoint::new(avoided));
        assert_eq!(answer(client.get("/").route(route)).await, (200, good));
    }
    assert_eq!(unwanted.get(), 0);
    let lost = bad[0].1.get() + bad[1].1.get();
    assert!(lost > 0, "some are sent again");
}

#[tokio::test]
async fn an_avoided_pod_gets_requests_if_there_is_no_other() {
    let (only, _) = answering().await;
    let lone = client([only]);
    let response = lone.clone().oneshot(avoiding(&[only])).await;
    text(response.expect("a response")).await;
    let other = client([only, refusing().await]);
    for _ in 0..4 {
        let response = within("a response", other.clone().oneshot(avoiding(&[only])));
        text(response.await.expect("a response")).await;
    }
}

/// The second choice refuses; a third pod comes before the avoided one.
#[tokio::test]
async fn an_avoided_pod_comes_last_when_another_refuses() {
    for _ in 0..3 {
        let (avoided, unwanted) = answering().await;
        let (other, _) = answering().await;
        let client = client([avoided, refusing().await, other]);
        for _ in 0..6 {
            let response = client.clone().oneshot(avoiding(&[avoided])).await;
            text(response.expect("a response")).await;
        }
        assert_eq!(unwanted.get(), 0);
    }
}

/// A tower policy that retries a 503 at another pod.
#[derive(Clone)]
struct Elsewhere(u8);

impl<E> retry::Policy<Request<Empty<Bytes>>, Response<ResponseBody>, E> for Elsewhere {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<ResponseBody>, E>,
    ) -> Option<Ready<()>> {
        let response = result.as_ref().ok()?;
        self.0 = self.0.checked_sub(1)?;
        let pod = response.body().endpoint()?;
        let route: Option<Route> = request.extensions_mut().remove();
        let route = route.unwrap_or_default().avoid(pod);
        request.extensions_mut().insert(route);
        response.status().is_server_error().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_custom_tower_policy_retries_at_another_pod() {
    let (good, answered) = answering().await;
    let pods = [busy().await.0, good, busy().await.0];
    let client = builder(pods).retries(0).build().expect("a client");
    let mut service = retry::Retry::new(Elsewhere(2), client);
    for _ in 0..6 {
        let ready = within("readiness", service.ready()).await.expect("ready");
        let response = ready.call(avoiding(&[])).await.expect("a response");
        assert_eq!(response.body().endpoint().expect("a pod").address(), good);
        text(response).await;
    }
    assert_eq!(answered.get(), 6);
}

// ---------------------------------------------------------------- answers that are retried

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

/// A pod that answers every request with this, and how many requests and connections it has had.
async fn always(answer: &'static str) -> (SocketAddr, Count, Count) {
    let (requests, connections) = (Count::default(), Count::default());
    let seen = (requests.clone(), connections.clone());
    let serve = move |mut peer: Peer<TcpStream>| {
        let (requests, connections) = seen.clone();
        connections.add();
        async move {
            while peer.try_head().await.is_some() {
                requests.add();
                peer.write(answer).await;
            }
        }
    };
    (pod(serve).await, requests, connections)
}

async fn busy() -> (SocketAddr, Count, Count) {
    always(BUSY).await
}

/// The status and the pod of an answer, after its body has been read.
async fn answer(request: RequestBuilder) -> (u16, SocketAddr) {
    let response = within("a response", request.into_future()).await;
    let response = response.expect("a response");
    let answer = (
        response.status().as_u16(),
        response.body().endpoint().expect("a pod").address(),
    );
    text(response).await;
    answer
}

#[tokio::test]
async fn a_get_answered_with_a_retried_status_goes_to_another_pod() {
    for status in ["502 Bad Gateway", "503 Busy", "504 Gateway Timeout"] {
        let busy = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let (bad, asked, _) = always(busy.leak()).await;
        let (good, _) = answering().await;
        let client = client([bad, good]);
        know(&client).await;
        for _ in 0..10 {
            assert_eq!(answer(client.get("/")).await, (200, good));
        }
        assert_eq!(asked.get(), 5, "every other turn");
        assert_eq!(in_flight(&client), 0);
    }
}

/// The discarded answer is read all the same, so that its connection can be used again.
#[tokio::test]
async fn a_retried_answer_costs_no_connection() {
    let (bad, asked, connections) = busy().await;
    let (received, answers) = (Count::default(), Arc::new(Semaphore::new(0)));
    let seen = (received.clone(), answers.clone());
    let good = pod(move |mut peer: Peer<TcpStream>| {
        let (received, answers) = seen.clone();
        async move {
            while peer.try_head().await.is_some() {
                received.add();
                answers.acquire().await.expect("it is open").forget();
                peer.write(OK).await;
            }
        }
    });
    let client = client([bad, good.await]);
    know(&client).await;
    for round in 1..=10 {
        // The second pod answers only after the first one's answer has been read.
        let read = wait_until("the first answer's end", || {
            received.get() == round && in_flight(&client) == 1
        });
        let permit = async {
            read.await;
            answers.add_permits(1);
        };
        let (answer, ()) = join(answer(client.get("/")), permit).await;
        assert_eq!(answer.0, 200);
    }
    assert_eq!((asked.get(), connections.get()), (5, 1));
}

#[tokio::test]
async fn a_retried_answer_that_never_ends_is_dropped() {
    let endless = "HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n";
    let (bad, asked, _) = always(endless).await;
    let (good, _) = answering().await;
    let client = client([bad, good]);
    know(&client).await;
    for _ in 0..4 {
        assert_eq!(answer(client.get("/")).await, (200, good));
    }
    assert_eq!(asked.get(), 2);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_post_keeps_its_first_answer() {
    let ((bad, asked, _), (good, _)) = (busy().await, answering().await);
    let client = client([bad, good]);
    know(&client).await;
    let answers = [
        answer(client.post("/")).await,
        answer(client.post("/")).await,
    ];
    let statuses = answers.map(|(status, _)| status);
    assert!(
        statuses.contains(&503) && statuses.contains(&200),
        "{statuses:?}"
    );
    let marked = [
        answer(client.post("/").idempotent()).await,
        answer(client.post("/").idempotent()).await,
    ];
    assert_eq!(marked, [(200, good); 2]);
    assert_eq!(asked.get(), 2);
}

#[tokio::test]
async fn answers_with_other_statuses_are_returned_at_once() {
    for status in [
        "500 Internal Server Error",
        "429 Too Many Requests",
        "404 Not Found",
    ] {
        let other = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let (bad, asked, _) = always(other.leak()).await;
        let client = client([bad, answering().await.0]);
        for _ in 0..2 {
            answer(client.get("/")).await;
        }
        assert_eq!(asked.get(), 1, "{status}");
    }
}

#[tokio::test]
async fn the_retried_statuses_can_be_set() {
    let teapot = "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n";
    let ((bad, _, _), (worse, _, _)) = (busy().await, always(teapot).await);
    let build = |statuses: &[StatusCode]| {
        let builder = builder([bad, worse]).retry_statuses(statuses.iter().copied());
        builder.build().expect("a client")
    };
    let client = build(&[StatusCode::IM_A_TEAPOT]);
    for _ in 0..2 {
        assert_eq!(answer(client.get("/")).await, (503, bad));
    }
    let client = build(&[]);
    let answers = [answer(client.get("/")).await, answer(client.get("/")).await];
    assert!(answers.contains(&(418, worse)), "{answers:?}");
}

/// The caller gets the last pod's answer, including its body.
#[tokio::test]
async fn when_all_pods_have_been_asked_the_last_answer_is_returned() {
    let pods = [busy().await, busy().await, busy().await];
    let client = builder(pods.each_ref().map(|pod| pod.0)).retries(9);
    let client = client.build().expect("a client");
    know(&client).await;
    for round in 1..=5 {
        let response = within("a response", client.get("/").into_future()).await;
        let response = response.expect("no error is made of it");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(response).await, "busy");
        let asked = pods.each_ref().map(|pod| pod.1.get());
        assert_eq!(asked, [round; 3], "once each");
    }
    assert_eq!(in_flight(&client), 0);
}

/// The other pod disappears just when it is asked: the first answer must not be lost.
#[tokio::test]
async fn an_answer_stands_if_no_other_pod_takes_the_request() {
    let (bad, asked, _) = busy().await;
    let other = refusing().await;
    let client = client([bad, other]);
    know(&client).await;
    for _ in 0..4 {
        let response = within("a response", client.get("/").into_future()).await;
        let response = response.expect("no error is made of it");
        assert_eq!(response.body().endpoint().expect("a pod").address(), bad);
        assert_eq!(text(response).await, "busy");
    }
    assert!(asked.get() >= 4);
    assert_eq!(in_flight(&client), 0);
}

/// A pod that answers 503 and disappears, so that the next attempt finds no pod.
#[tokio::test]
async fn an_answer_stands_when_its_pod_is_gone_and_so_are_the_others() {
    let (listener, leaving) = listen().await;
    let (sets, discovery) = sets(vec![leaving]);
    let client = unresolved("http").discovery(discovery).fail_fast();
    let client = client.build().expect("a client");
    know(&client).await;
    let other = refusing().await;
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        let mut members = client.watch();
        sets.send_replace(vec![other]);
        within("the other pod", async {
            while client.endpoints()[0].endpoint.address() != other {
                members.next().await;
            }
        })
        .await;
        peer.write(BUSY).await;
    };
    let (response, ()) = join(client.get("/").into_future(), serve).await;
    let response = response.expect("no error is made of it");
    assert_eq!(
        response.body().endpoint().expect("a pod").address(),
        leaving
    );
    let body = within("the body", response.into_body().collect()).await;
    assert_eq!(body.expect("a body").to_bytes(), "busy");
}

#[tokio::test]
async fn a_custom_budget_limits_retries() {
    let pods = [busy().await, busy().await, busy().await];
    let client = builder(pods.each_ref().map(|pod| pod.0)).retry_budget(TpsBudget::new(
        Duration::from_secs(60),
        0,
        0.5,
    ));
    let client = client.build().expect("a client");
    for _ in 0..20 {
        answer(client.get("/")).await;
    }
    let asked: usize = pods.iter().map(|pod| pod.1.get()).sum();
    assert_eq!(asked, 30);
}
