//! An ejected pod and its trial request.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BoxError, Endpoint, EndpointState, OnBodyEnd, OutlierDetection, StaticEndpoints,
};

const MILLI: Duration = Duration::from_millis(1);

fn address(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 80).into()
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A pod; number 1 answers 503 with a body that never ends.
#[derive(Clone)]
struct Pod(SocketAddr);

impl Service<Request<()>> for Pod {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let response = if self.0 == address(1) {
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        } else {
            Response::new(Empty::new().boxed_unsync())
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}

type Pods = Balance<Pod, OnBodyEnd>;

async fn get(balance: &mut Pods) -> Response<tower_headless::CountedBody<Body>> {
    let request = Request::get("/").body(()).expect("a request");
    let ready = ServiceExt::<Request<()>>::ready(balance)
        .await
        .expect("ready");
    ready.call(request).await.expect("a response")
}

fn state(balance: &Pods) -> EndpointState {
    let all = balance.endpoints().into_iter();
    let mut one = all.filter(|status| status.endpoint.address() == address(1));
    one.next().expect("one of the set").state
}

fn is_out(balance: &Pods) -> bool {
    matches!(state(balance), EndpointState::Ejected(_))
}

#[tokio::test(start_paused = true)]
async fn a_trial_request_answered_with_503_does_not_bring_its_pod_back() {
    let detection = OutlierDetection::new()
        .consecutive_failures(1)
        .ejection_time(Duration::from_millis(200), Duration::from_secs(60));
    let mut balance: Pods = Balance::builder(StaticEndpoints::new([1, 2].map(address)))
        .outlier_detection(detection)
        .completion(OnBodyEnd::new())
        .build(|endpoint: &Endpoint| Pod(endpoint.address()));
    drop(get(&mut balance).await);
    while !is_out(&balance) {
        drop(get(&mut balance).await);
        sleep(MILLI).await;
    }
    // Until its trial request, whose response is held.
    let trial = loop {
        let response = get(&mut balance).await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            break response;
        }
        sleep(MILLI).await;
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        sleep(10 * MILLI).await;
        assert!(
            is_out(&balance),
            "{:?} after the pod has answered its trial request with 503 it is {:?}",
            begun.elapsed(),
            state(&balance)
        );
        drop(get(&mut balance).await);
    }
    drop(trial);
}
