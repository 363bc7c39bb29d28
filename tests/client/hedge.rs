//! Late answers: a second pod is asked, and the pod that loses sees its request cancelled.

use std::{
    future::IntoFuture,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use http::{Method, header::SET_COOKIE};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower::ServiceExt;
use tower_headless::{
    EndpointState, Hedge, Route, StaticEndpoints,
    http::{Client, ClientBuilder, Error, Protocol, RequestBuilder, Sessions},
};

use crate::{
    kit::{self, Peer, in_flight, text, upgrading, wait_until},
    support::{
        pod::{Mode, Pod},
        within,
    },
};

const MILLI: Duration = Duration::from_millis(1);
const HEDGE_AFTER: Duration = Duration::from_millis(500);

async fn pods() -> [Pod; 2] {
    let pod = || Pod::start((Ipv4Addr::LOCALHOST, 0).into());
    [pod().await, pod().await].map(|pod| pod.expect("a free port"))
}

/// A client of both pods that hedges soon.
fn client(
    pods: &[Pod; 2],
    protocol: Protocol,
    change: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
) -> Client {
    let builder = kit::builder(pods.iter().map(Pod::addr)).protocol(protocol);
    let builder = builder.hedge(Hedge::after(20 * MILLI));
    change(builder).build().expect("a client")
}

/// Waits long enough for pods to answer in time even on a busy machine.
fn hedging_late(builder: ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints> {
    builder.hedge(Hedge::after(HEDGE_AFTER))
}

async fn answer(request: RequestBuilder) -> String {
    text(
        within("an answer", request.into_future())
            .await
            .expect("an answer"),
    )
    .await
}

fn requests(pods: &[Pod; 2]) -> usize {
    pods.iter().map(Pod::requests).sum()
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn the_losing_pod_sees_its_request_cancelled() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods[0].set(Mode::Hung);
        // Each pod gets one request.
        for _ in 0..2 {
            answer(client.get("/")).await;
        }
        assert!(pods[0].requests() > 0);
        let is_http1 = protocol == Protocol::Http1;
        let cancelled = pods[0]
            .wait_until(|stats| stats.in_flight == 0 && (stats.connections == 0 || !is_http1));
        let stats = within("the cancellation", cancelled).await;
        assert_eq!(stats.connections, usize::from(!is_http1), "{protocol:?}");
        wait_until("nothing in flight", || in_flight(&client) == 0).await;
        let is_in = |state| state == EndpointState::Available;
        assert!(client.endpoints().iter().all(|pod| is_in(pod.state)));
    }
}

/// A POST may be sent again, but not to two pods at once.
#[tokio::test]
async fn a_post_is_never_hedged() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods.iter().for_each(|pod| pod.set(Mode::Hung));
        let posts = [
            client.post("/").idempotent(),
            client.post("/").body("hello").idempotent(),
            client.request(Method::PUT, "/"),
            client.request(Method::DELETE, "/").idempotent(),
            client.get("/").body("a query").idempotent(),
        ];
        for (sent, request) in posts.into_iter().enumerate() {
            let request = request.timeout(200 * MILLI).into_future();
            within("its end", request).await.expect_err("no answer");
            assert_eq!(requests(&pods), sent + 1);
        }
        let get = client.get("/").timeout(200 * MILLI).into_future();
        within("its end", get).await.expect_err("no answer");
        assert_eq!(requests(&pods), 5 + 2, "the other one is asked, too");
    }
}

#[tokio::test]
async fn an_upgrade_is_never_hedged() {
    let pods = pods().await;
    let client = client(&pods, Protocol::Http1, |builder| {
        builder.timeout(200 * MILLI)
    });
    pods.iter().for_each(|pod| pod.set(Mode::Hung));
    let request = client.clone().oneshot(upgrading(&Method::GET, "/"));
    within("its end", request).await.expect_err("no answer");
    assert_eq!(requests(&pods), 1);
}

#[tokio::test]
async fn a_broadcast_is_never_hedged() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods.iter().for_each(|pod| pod.set(Mode::Slow(100 * MILLI)));
        let all = client.get("/").broadcast().all().into_future();
        let all = within("the answers", all).await.expect("pods");
        assert_eq!((all.answered.len(), requests(&pods)), (2, 2));
    }
}

#[tokio::test]
async fn a_request_for_one_pod_is_never_hedged() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods.iter().for_each(|pod| pod.set(Mode::Slow(100 * MILLI)));
        let first = pods[0].addr();
        answer(client.pod(first).get("/")).await;
        answer(client.get("/").route(Route::new().pod(first))).await;
        assert_eq!((pods[0].requests(), pods[1].requests()), (2, 0));
    }
}

/// Begins a session with the first pod; returns its cookie.
async fn session(client: &Client, pods: &[Pod; 2]) -> String {
    loop {
        let response = within("an answer", client.get("/").into_future()).await;
        let response = response.expect("an answer");
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        let pod = response.body().endpoint().expect("a pod").address();
        text(response).await;
        if pod == pods[0].addr() {
            return cookie;
        }
    }
}

#[tokio::test]
async fn a_strict_session_is_never_hedged() {
    let pods = pods().await;
    let sessions = Sessions::cookie("lb", [7; 32]).strict(true);
    let client = client(&pods, Protocol::Http1, |builder| builder.sessions(sessions));
    let cookie = session(&client, &pods).await;
    let before = pods.each_ref().map(Pod::requests);
    pods[0].set(Mode::Slow(100 * MILLI));
    answer(client.get("/").header("cookie", cookie)).await;
    let after = pods.each_ref().map(Pod::requests);
    assert_eq!(after, [before[0] + 1, before[1]]);
}

#[tokio::test]
async fn a_session_stays_with_a_pod_that_is_only_late() {
    let pods = pods().await;
    let sessions = Sessions::cookie("lb", [7; 32]);
    let sessions = sessions.on_lost(|lost| panic!("{} is only late", lost.old_pod()));
    let client = client(&pods, Protocol::Http1, |it| {
        hedging_late(it).sessions(sessions)
    });
    let cookie = session(&client, &pods).await;
    for (mode, expected) in [(Mode::Hung, 1), (Mode::Healthy, 0)] {
        pods[0].set(mode);
        let request = client.get("/").header("cookie", &*cookie);
        let response = within("an answer", request.into_future()).await;
        let response = response.expect("an answer");
        assert_eq!(
            response.body().endpoint().expect("a pod").address(),
            pods[expected].addr()
        );
        assert!(!response.headers().contains_key(SET_COOKIE));
        text(response).await;
    }
    // A request without a session begins one with the pod that answers.
    pods[0].set(Mode::Hung);
    for _ in 0..2 {
        let response = within("an answer", client.get("/").into_future()).await;
        let response = response.expect("an answer");
        assert!(response.headers().contains_key(SET_COOKIE));
        text(response).await;
    }
}

/// Pods that the test answers for.
struct Hands(Vec<(TcpListener, SocketAddr)>);

impl Hands {
    async fn of(count: usize) -> Self {
        Self(join_all((0..count).map(|_| kit::listen())).await)
    }

    /// A client of these pods that hedges soon.
    fn client(
        &self,
        change: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
    ) -> Client {
        let builder = kit::builder(self.0.iter().map(|(_, address)| *address));
        let client = change(builder.hedge(Hedge::after(20 * MILLI)));
        client.build().expect("a client")
    }

    /// Sends a request with such a client.
    fn get(
        &self,
        change: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
    ) -> Asked {
        let client = self.client(change);
        tokio::spawn(async move {
            let response = client.get("/").into_future().await?;
            Ok(response.status().as_u16())
        })
    }

    /// Waits for the next pod that gets the request.
    async fn asked(&self) -> Peer<TcpStream> {
        let mut accepted: FuturesUnordered<_> =
            self.0.iter().map(|(pod, _)| kit::accept(pod)).collect();
        let mut peer = accepted.next().await.expect("pods");
        peer.head().await;
        peer
    }
}

/// The status that the caller gets.
type Asked = JoinHandle<Result<u16, Error>>;

/// Sends the pod's answer, and waits until the client has read it.
async fn say(mut pod: Peer<TcpStream>, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    pod.write(answer).await;
    pod.closed().await;
}

async fn end(asked: Asked) -> u16 {
    let status = within("an answer", asked).await.expect("no panic");
    status.expect("an answer")
}

/// gRPC statuses of calls that fail without a body.
const GRPC: [&str; 2] = ["200 OK\r\ngrpc-status: 14", "200 OK\r\ngrpc-status: 8"];

#[tokio::test]
async fn a_bad_answer_waits_for_the_other_pod() {
    let bad = [
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ];
    for status in bad.into_iter().chain(GRPC) {
        for is_hedge_s in [true, false] {
            let pods = Hands::of(2).await;
            // The hedge's time counts from when it goes on alone.
            let asked = pods.get(|it| match is_hedge_s {
                true => it.retry_statuses([]),
                false => hedging_late(it).retry_statuses([]),
            });
            let (first, hedge) = (pods.asked().await, pods.asked().await);
            let [bad, good] = if is_hedge_s {
                [hedge, first]
            } else {
                [first, hedge]
            };
            say(bad, status).await;
            say(good, "204 No Content").await;
            assert_eq!(end(asked).await, 204, "{status}");
        }
    }
}

#[tokio::test]
async fn a_good_answer_does_not_wait_for_the_other_pod() {
    for status in ["404 Not Found", "200 OK", "304 Not Modified"] {
        let pods = Hands::of(2).await;
        let asked = pods.get(|builder| builder);
        let _first = pods.asked().await;
        say(pods.asked().await, status).await;
        assert_eq!(end(asked).await.to_string(), status[..3]);
    }
}

#[tokio::test]
async fn if_both_answers_are_bad_the_first_counts() {
    for [one, other] in [["429", "500"], ["500", "429"], ["503", "500"]] {
        let pods = Hands::of(2).await;
        let asked = pods.get(|builder| builder);
        let (first, hedge) = (pods.asked().await, pods.asked().await);
        say(hedge, &format!("{one} No Good")).await;
        say(first, &format!("{other} No Good")).await;
        assert_eq!(end(asked).await.to_string(), one);
    }
}

#[tokio::test]
async fn an_answer_set_aside_counts_if_the_hedge_hangs() {
    for status in ["500 Internal Server Error", "503 Service Unavailable"] {
        let pods = Hands::of(2).await;
        let asked = pods.get(|builder| builder);
        let (first, mut hedge) = (pods.asked().await, pods.asked().await);
        say(first, status).await;
        assert_eq!(end(asked).await.to_string(), status[..3]);
        hedge.closed().await;
    }
}

#[tokio::test]
async fn an_answer_set_aside_counts_when_the_request_times_out() {
    let pods = Hands::of(2).await;
    let asked = pods.get(|builder| builder.timeout(1_000 * MILLI));
    let (mut first, hedge) = (pods.asked().await, pods.asked().await);
    say(hedge, "500 Internal Server Error").await;
    assert_eq!(end(asked).await, 500);
    first.closed().await;
}

/// The session's pod gives a bad answer while its hedge is out, which gives a good one. Returns how often the session
/// moves.
async fn moves(
    status: &str,
    change: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
) -> usize {
    let lost = Arc::new(AtomicUsize::new(0));
    let hook = lost.clone();
    let sessions = Sessions::cookie("lb", [7; 32]);
    let sessions = sessions.on_lost(move |_| {
        hook.fetch_add(1, Relaxed);
    });
    let pods = Hands::of(2).await;
    let client = pods.client(|it| change(hedging_late(it).sessions(sessions)));
    let get = |cookie: Option<String>| {
        let request = client.get("/");
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        tokio::spawn(request.into_future())
    };
    let begun = get(None);
    say(pods.asked().await, "204 No Content").await;
    let begun = within("an answer", begun).await.expect("no panic");
    let begun = begun.expect("an answer");
    let cookie = begun.headers()[SET_COOKIE].to_str().expect("text");
    let cookie = cookie.split(';').next().map(str::to_owned);
    let asked = get(cookie);
    let (home, hedge) = (pods.asked().await, pods.asked().await);
    say(home, status).await;
    say(hedge, "204 No Content").await;
    let response = within("an answer", asked).await.expect("no panic");
    let response = response.expect("an answer");
    assert_eq!(response.status(), 204);
    assert_ne!(
        response.body().endpoint().expect("a pod"),
        begun.body().endpoint().expect("a pod")
    );
    let is_told = response.headers().contains_key(SET_COOKIE);
    let lost = lost.load(Relaxed);
    assert_eq!(usize::from(is_told), lost);
    lost
}

#[tokio::test]
async fn a_session_moves_only_for_answers_that_are_retried() {
    assert_eq!(moves("500 Internal Server Error", |it| it).await, 0);
    assert_eq!(moves("429 Too Many Requests", |it| it).await, 0);
    let unavailable = "503 Service Unavailable";
    assert_eq!(moves(unavailable, |it| it.retries(0)).await, 0);
    assert_eq!(moves(unavailable, |it| it).await, 1);
}

/// As without hedging.
#[tokio::test]
async fn a_503_is_retried_although_its_hedge_is_out() {
    let pods = Hands::of(3).await;
    let asked = pods.get(|builder| builder);
    let (first, _hedge) = (pods.asked().await, pods.asked().await);
    say(first, "503 Service Unavailable").await;
    say(pods.asked().await, "204 No Content").await;
    assert_eq!(end(asked).await, 204);
}

#[tokio::test]
async fn the_timeout_covers_both_attempts() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods.iter().for_each(|pod| pod.set(Mode::Hung));
        let request = client.get("/").timeout(100 * MILLI).into_future();
        let error = within("its end", request).await.expect_err("no answer");
        assert!(error.is_timeout(), "{error}");
        for pod in &pods {
            let over = pod.wait_until(|stats| stats.requests == 1 && stats.in_flight == 0);
            within("the cancellation", over).await;
        }
        wait_until("nothing in flight", || in_flight(&client) == 0).await;
    }
}

#[tokio::test]
async fn hedging_works_without_retries() {
    let pods = pods().await;
    let client = client(&pods, Protocol::Http1, |it| hedging_late(it).retries(0));
    pods[0].set(Mode::Hung);
    for _ in 0..2 {
        answer(client.get("/")).await;
    }
    assert!(pods[0].requests() > 0);
    pods[0].set(Mode::CloseWithoutAnswer);
    pods[1].set(Mode::CloseWithoutAnswer);
    let before = requests(&pods);
    client.get("/").into_future().await.expect_err("it is lost");
    assert_eq!(requests(&pods), before + 1, "nothing is sent again");
}
