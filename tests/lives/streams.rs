//! A streaming response doesn't make its pod look unresponsive.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BoxError, Endpoint, EndpointState, LeastConnections, OnBodyEnd, PeakEwma, Policy,
    Route, StaticEndpoints,
};

const MILLI: Duration = Duration::from_millis(1);

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Calls = Arc<Mutex<BTreeMap<SocketAddr, usize>>>;

fn address(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 80).into()
}

#[derive(Clone)]
struct Pod {
    address: SocketAddr,
    takes: Duration,
    calls: Calls,
}

impl Service<Request<()>> for Pod {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        if request.uri().path() == "/stream" {
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            let body = StreamBody::new(frames).boxed_unsync();
            return Box::pin(std::future::ready(Ok(Response::new(body))));
        }
        *self
            .calls
            .lock()
            .expect("no panic")
            .entry(self.address)
            .or_default() += 1;
        let takes = self.takes;
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            Ok(Response::new(Empty::new().boxed_unsync()))
        })
    }
}

fn avoiding(others: &[SocketAddr]) -> Route {
    others
        .iter()
        .fold(Route::new(), |route, &other| route.avoid(&other.into()))
}

fn request(path: &str) -> Request<()> {
    Request::get(path).body(()).expect("a request")
}

fn balance(hosts: u8, takes: Duration, policy: impl Policy) -> (Balance<Pod, OnBodyEnd>, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let balance = Balance::builder(StaticEndpoints::new((1..=hosts).map(address)))
        .policy(policy)
        .completion(OnBodyEnd::new())
        .build(move |endpoint: &Endpoint| Pod {
            address: endpoint.address(),
            takes,
            calls: seen.clone(),
        });
    (balance, calls)
}

async fn get(balance: &mut Balance<Pod, OnBodyEnd>) {
    let ready = ServiceExt::<Request<()>>::ready(balance)
        .await
        .expect("ready");
    let response = ready.call(request("/")).await.expect("a response");
    drop(response);
}

fn state(balance: &Balance<Pod, OnBodyEnd>, host: u8) -> EndpointState {
    let all = balance.endpoints().into_iter();
    let mut one = all.filter(|status| status.endpoint.address() == address(host));
    one.next().expect("one of the set").state
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_answers_stream_is_not_unresponsive() {
    let (mut balance, _) = balance(4, Duration::ZERO, LeastConnections::new());
    get(&mut balance).await;
    let others = [2, 3, 4].map(address);
    let mut streams = Vec::new();
    for _ in 0..6 {
        let response = balance
            .call_with(request("/stream"), avoiding(&others))
            .await;
        streams.push(response.expect("a head, at once"));
    }
    for round in 0..2_000 {
        get(&mut balance).await;
        sleep(MILLI).await;
        assert_eq!(
            state(&balance, 1),
            EndpointState::Available,
            "after {round} ms; all six of its requests were answered at once"
        );
    }
    drop(streams);
}

/// Only half of the set may be ejected, and wrongly ejected streaming pods would use that up.
#[tokio::test(start_paused = true)]
async fn streaming_pods_leave_room_for_a_bad_one() {
    let (mut balance, _) = balance(4, Duration::ZERO, LeastConnections::new());
    get(&mut balance).await;
    let mut streams = Vec::new();
    for host in [1, 2] {
        let others: Vec<_> = (1..=4)
            .filter(|&other| other != host)
            .map(address)
            .collect();
        for _ in 0..6 {
            let response = balance
                .call_with(request("/stream"), avoiding(&others))
                .await;
            streams.push(response.expect("a head, at once"));
        }
    }
    for _ in 0..500 {
        get(&mut balance).await;
        sleep(MILLI).await;
    }
    let out = |host| matches!(state(&balance, host), EndpointState::Ejected(_));
    let wrongly_out = (1..=4).filter(|&host| out(host)).count();
    drop(streams);
    assert_eq!(wrongly_out, 0, "of four pods, all of which are well");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_does_not_count_an_open_stream_as_latency() {
    let (mut balance, calls) = balance(3, 10 * MILLI, PeakEwma::new());
    // All pods are known to take 10 ms.
    for _ in 0..60 {
        get(&mut balance).await;
        sleep(10 * MILLI).await;
    }
    let others = [2, 3].map(address);
    let stream = balance
        .call_with(request("/stream"), avoiding(&others))
        .await;
    let stream = stream.expect("a head, at once");
    calls.lock().expect("no panic").clear();
    // Two minutes, ten requests a second. A pod without requests becomes cheaper, so that each is tried from time to
    // time: with one request in flight it costs twice as much as an idle pod, and its decay makes up for that in 7 s.
    for _ in 0..1_200 {
        get(&mut balance).await;
        sleep(90 * MILLI).await;
    }
    drop(stream);
    let calls = calls.lock().expect("no panic");
    let got = calls.get(&address(1)).copied().unwrap_or_default();
    assert!(got > 0, "none of 1,200 requests in two minutes: {calls:?}");
}
