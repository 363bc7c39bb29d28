//! Answers that are late: a second pod is asked, and the one that loses sees that it is cancelled.

use std::{future::IntoFuture, net::Ipv4Addr, time::Duration};

use http::{Method, StatusCode, header::SET_COOKIE};
use tower::ServiceExt;
use tower_headless::{
    EndpointState, Hedge, Route, StaticEndpoints,
    http::{Client, ClientBuilder, Protocol, RequestBuilder, Sessions},
};

use crate::{
    kit::{self, in_flight, text, upgrading, wait_until},
    support::{
        pod::{Mode, Pod},
        within,
    },
};

const MILLI: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(500);

async fn pods() -> [Pod; 2] {
    let pod = || Pod::start((Ipv4Addr::LOCALHOST, 0).into());
    [pod().await, pod().await].map(|pod| pod.expect("a free port"))
}

/// A client of both that hedges soon.
fn client(
    pods: &[Pod; 2],
    protocol: Protocol,
    change: impl FnOnce(ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints>,
) -> Client {
    let builder = kit::builder(pods.iter().map(Pod::addr)).protocol(protocol);
    let builder = builder.hedge(Hedge::after(20 * MILLI));
    change(builder).build().expect("a client")
}

/// For pods that have to answer in time, on a busy machine too.
fn patient(builder: ClientBuilder<StaticEndpoints>) -> ClientBuilder<StaticEndpoints> {
    builder.hedge(Hedge::after(PATIENCE))
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
async fn the_pod_of_the_request_that_loses_sees_it_cancelled() {
    for protocol in BOTH {
        let pods = pods().await;
        let client = client(&pods, protocol, |builder| builder);
        pods[0].set(Mode::Hung);
        // Each pod has its turn.
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

/// It may be sent again, but not to two pods at once.
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
async fn what_is_for_one_pod_is_never_hedged() {
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

/// A session with the first pod: its cookie.
async fn session(client: &Client, pods: &[Pod; 2]) -> String {
    loop {
        let response = within("an answer", client.get("/").into_future()).await;
        let response = response.expect("an answer");
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        let pod = response.body().pod().address();
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
    let client = client(&pods, Protocol::Http1, |it| patient(it).sessions(sessions));
    let cookie = session(&client, &pods).await;
    for (mode, expected) in [(Mode::Hung, 1), (Mode::Healthy, 0)] {
        pods[0].set(mode);
        let request = client.get("/").header("cookie", &*cookie);
        let response = within("an answer", request.into_future()).await;
        let response = response.expect("an answer");
        assert_eq!(response.body().pod().address(), pods[expected].addr());
        assert!(!response.headers().contains_key(SET_COOKIE));
        text(response).await;
    }
    // One without a session begins it where the answer is from.
    pods[0].set(Mode::Hung);
    for _ in 0..2 {
        let response = within("an answer", client.get("/").into_future()).await;
        let response = response.expect("an answer");
        assert!(response.headers().contains_key(SET_COOKIE));
        text(response).await;
    }
}

#[tokio::test]
async fn a_503_of_the_hedge_does_not_win() {
    let pods = pods().await;
    let client = client(&pods, Protocol::Http1, |it| patient(it).retries(0));
    pods[0].set(Mode::Slow(3 * PATIENCE));
    pods[1].set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let mut failed = 0;
    // Each pod has its turn, and says what it says.
    for _ in 0..2 {
        let response = within("an answer", client.get("/").into_future()).await;
        failed += usize::from(!response.expect("an answer").status().is_success());
    }
    assert_eq!(failed, 1);
    assert_eq!((pods[0].requests(), pods[1].requests()), (1, 2));
}

#[tokio::test]
async fn the_time_of_the_request_holds_for_both() {
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
async fn without_retries_there_are_hedges_all_the_same() {
    let pods = pods().await;
    let client = client(&pods, Protocol::Http1, |it| patient(it).retries(0));
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
