//! Logging: the service of events, their levels, how many there are, and no secrets. And the spans of requests.

mod support;

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Request as HttpRequest, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use support::{
    logs::{Event, Logs, Span},
    pod::{Mode, Pod},
    scripted::{Behaviour, Request, World, endpoint, settle},
    within,
};
use tokio::{sync::Notify, time::sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_headless::{
    ConsistentHash, Error, Hedge, OutlierDetection, Retry, RetryLayer, RetryPolicy, Route,
    StaticEndpoints,
    http::{Client, ClientBuilder, Protocol, RequestBody},
};
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

/// All requests may be retried and hedged.
#[derive(Clone, Copy, Debug)]
struct Again;

impl<Res> RetryPolicy<Request, Res> for Again {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }

    fn may_hedge(&self, _: &Request) -> bool {
        true
    }
}

async fn send<S: Service<Request> + Clone>(service: &S) -> Result<S::Response, S::Error> {
    service.clone().oneshot(Request(1)).await
}

/// Checks that all events name the service, and that each at `debug` is one line.
fn assert_well_told(logs: &Logs) {
    let events = logs.events();
    assert!(!events.is_empty());
    for event in &events {
        let service = event.fields.get("service").map(String::as_str);
        assert_eq!(service, Some("web"), "{event:?}");
        let is_one_line = event.fields.values().all(|text| !text.contains('\n'));
        assert!(event.level < Level::DEBUG || is_one_line, "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_of_a_story_names_its_service() {
    let logs = Logs::new();
    let detection = OutlierDetection::new().ejection_time(SECOND, SECOND);
    let world = World::of((1..=4).map(endpoint).collect(), |builder| {
        builder.name("web").outlier_detection(detection)
    })
    .await;
    let client: Retry<_, _> = RetryLayer::new(Again)
        .hedge(Hedge::after(Duration::from_millis(100)))
        .layer(world.balance.clone());
    send(&client).await.expect("an answer");
    assert_eq!(logs.count(Level::INFO, "endpoints changed"), 1);
    assert_eq!(logs.count(Level::DEBUG, "endpoint joined"), 4);

    world.pods.set([1], Behaviour::NotReady);
    for _ in 0..4 {
        send(&client).await.expect("another pod's answer");
    }
    settle().await;
    assert_eq!(logs.count(Level::DEBUG, "endpoint refused the request"), 1);
    assert_eq!(logs.count(Level::INFO, "endpoint refuses requests"), 1);
    world.pods.set([1], Behaviour::Answer);
    sleep(10 * SECOND).await;
    assert_eq!(
        logs.count(Level::INFO, "endpoint accepts requests again"),
        1
    );

    world.pods.set([2], Behaviour::Fail);
    for _ in 0..40 {
        send(&client).await.expect("another pod's answer");
    }
    settle().await;
    assert_eq!(logs.count(Level::INFO, "endpoint ejected"), 1);
    assert!(logs.count(Level::DEBUG, "request sent again") >= 5);
    world.pods.set([2], Behaviour::Answer);
    sleep(2 * SECOND).await;
    for _ in 0..8 {
        send(&client).await.expect("an answer");
    }
    settle().await;
    assert_eq!(logs.count(Level::INFO, "endpoint readmitted"), 1);

    world.pods.set([3], Behaviour::After(SECOND));
    for _ in 0..4 {
        send(&client).await.expect("an answer");
    }
    assert!(logs.count(Level::DEBUG, "request hedged") >= 1);

    world.script.fail("SERVFAIL\nand more");
    world.script.fail("SERVFAIL\nand more");
    settle().await;
    assert_eq!(logs.count(Level::WARN, "discovery failed"), 1);
    assert_eq!(logs.count(Level::DEBUG, "discovery failed"), 1);
    world.set((1..=3).map(endpoint).collect()).await;
    assert_eq!(logs.count(Level::INFO, "discovery succeeds again"), 1);
    assert_eq!(logs.count(Level::DEBUG, "endpoint left"), 1);
    assert_well_told(&logs);
}

#[tokio::test]
async fn a_pod_that_times_out_is_not_said_to_refuse() {
    // It accepts connections, and says nothing on them.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let at = silent.local_addr().expect("an address");
    let hung = pod(Mode::Hung).await;
    let tick = Duration::from_millis(20);
    let connect = builder([at]).protocol(Protocol::Http2).ready_timeout(tick);
    for client in [
        connect.connect_timeout(tick),
        builder([hung.addr()]).first_byte_timeout(tick),
    ] {
        let logs = Logs::new();
        let client = client.build().expect("a client");
        let answer = within("an error", client.get("/").send()).await;
        answer.expect_err("it times out");
        let told = async {
            while logs.count(Level::INFO, "endpoint doesn't answer in time") == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within("the event", told).await;
        assert_eq!(logs.count(Level::INFO, "endpoint refuses requests"), 0);
        let it = client.explain();
        let why = &it.endpoints[0].why;
        assert!(why.starts_with("doesn't answer in time: "), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_the_policy_ignores_are_told_once() {
    let set = || vec![endpoint(1), endpoint(2)];
    let key = || Route::new().key("user-42");
    let ask = async |world: &World, route| {
        let answer = world.balance.call_with(Request(1), route);
        answer.await.expect("an answer");
    };
    let (logs, ignored) = (Logs::new(), "the policy ignores keys");
    let world = World::of(set(), |it| it.name("web")).await;
    ask(&world, Route::new()).await;
    // These go to their pod under any policy.
    ask(&world, key().pod(endpoint(1).address())).await;
    ask(&world, key().prefer(endpoint(1).address())).await;
    assert_eq!(logs.count(Level::WARN, ignored), 0);
    assert!(world.balance.explain().trouble.is_empty());
    for _ in 0..3 {
        ask(&world, key()).await;
    }
    assert_eq!(logs.count(Level::WARN, ignored), 1);
    assert_well_told(&logs);
    let trouble = world.balance.explain().trouble;
    let says = "requests have keys, but the policy (round-robin) ignores them";
    assert_eq!(trouble, [says]);

    let logs = Logs::new();
    let world = World::of(set(), |it| it.policy(ConsistentHash::new())).await;
    ask(&world, key()).await;
    assert_eq!(logs.count(Level::WARN, ignored), 0);
    assert!(world.balance.explain().trouble.is_empty());
}

/// The `info` events about single endpoints.
fn told(logs: &Logs) -> Vec<Event> {
    let mut events = logs.events();
    events.retain(|it| it.level == Level::INFO && it.target == "tower_headless::endpoints");
    events
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_is_logged_as_a_few_lines_and_a_sum() {
    let logs = Logs::new();
    let world = World::of((1..=250).map(endpoint).collect(), |it| it.name("web")).await;
    world.pods.set(1..=250, Behaviour::NotReady);
    send(&world.balance).await.expect_err("all refuse");
    settle().await;
    // The event of the beginning, and the first 20 refusals.
    assert_eq!(told(&logs).len(), 1 + 20);
    assert_eq!(logs.count(Level::DEBUG, "endpoint refuses requests"), 230);
    sleep(61 * SECOND).await;
    let sum = told(&logs).pop().expect("it is told");
    assert_eq!(sum.fields["refused"], "230", "{sum:?}");
    assert_eq!(told(&logs).len(), 1 + 20 + 1);
    assert_well_told(&logs);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_warning_however_many_endpoints_have_changed() {
    let logs = Logs::new();
    let world = World::of((1..=100).map(endpoint).collect(), |it| it.name("web")).await;
    world.pods.set(1..=40, Behaviour::NotReady);
    for _ in 0..100 {
        send(&world.balance).await.expect("another pod's answer");
    }
    settle().await;
    assert_eq!(told(&logs).len(), 1 + 20, "no more are told one by one");
    world.pods.set(41..=100, Behaviour::Fail);
    for _ in 0..600 {
        send(&world.balance).await.expect_err("all fail");
    }
    settle().await;
    assert_eq!(logs.count(Level::WARN, "too few endpoints are healthy"), 1);
    assert_well_told(&logs);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_coming_and_going_is_logged_a_few_times_a_minute() {
    let logs = Logs::new();
    let world = World::of(vec![endpoint(1), endpoint(2)], |it| it.name("web")).await;
    let minutes = 10;
    for _ in 0..60 * minutes / 6 {
        world.pods.set([1], Behaviour::NotReady);
        for _ in 0..2 {
            send(&world.balance).await.expect("the other's answer");
        }
        settle().await;
        world.pods.set([1], Behaviour::Answer);
        sleep(6 * SECOND).await;
    }
    let changes = logs.count(Level::INFO, "requests");
    assert!(changes <= 21 * minutes + 21, "{changes}");
}

// ---------------------------------------------------------------- requests

async fn pod(mode: Mode) -> Pod {
    let pod = Pod::start(([127, 0, 0, 1], 0).into()).await;
    let pod = pod.expect("a free port");
    pod.set(mode);
    pod
}

fn builder(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    Client::builder("http://web:8080".parse().expect("a URI"))
        .discovery(StaticEndpoints::new(pods))
        .request_spans(true)
}

async fn known(client: &Client) {
    within("the pods", client.watch().next()).await;
}

fn assert_fields(span: &Span, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(span.field(name), *value, "{name} of {span:?}");
    }
}

#[tokio::test]
async fn a_request_has_one_span_that_ends_with_its_body_and_one_for_its_attempt() {
    let logs = Logs::new();
    let pod = pod(Mode::Healthy).await;
    let client = builder([pod.addr()]).build().expect("a client");
    let response = client.get("/users/42?token=hunter2").send();
    let response = within("an answer", response).await.expect("an answer");
    let [request] = &logs.of_name("request")[..] else {
        panic!("{:?}", logs.spans());
    };
    assert!(!request.is_closed, "the body is not read");
    let port = pod.addr().port().to_string();
    let peer = [
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", &*port),
    ];
    let fields = [
        ("service", "web"),
        ("otel.kind", "client"),
        ("otel.name", "GET"),
        ("http.request.method", "GET"),
        ("server.address", "web"),
        ("server.port", "8080"),
        ("url.full", "http://web:8080/users/42"),
        ("http.response.status_code", "200"),
        ("http.request.resend_count", ""),
        ("error.type", ""),
        ("otel.status_code", ""),
    ];
    assert_fields(request, &fields);
    assert_fields(request, &peer);
    let [attempt] = &logs.of_name("attempt")[..] else {
        panic!("{:?}", logs.spans());
    };
    assert!(attempt.is_closed && attempt.parent == Some(0));
    assert_fields(attempt, &peer);
    assert_fields(
        attempt,
        &[
            ("http.response.status_code", "200"),
            ("otel.kind", "internal"),
        ],
    );
    within("the body", response.bytes()).await.expect("a body");
    assert!(logs.spans()[0].is_closed);
}

#[tokio::test]
async fn a_retry_is_a_second_attempt_in_the_same_span() {
    let logs = Logs::new();
    let (bad, good) = (
        pod(Mode::Status(StatusCode::SERVICE_UNAVAILABLE)).await,
        pod(Mode::Healthy).await,
    );
    let client = builder([bad.addr(), good.addr()])
        .build()
        .expect("a client");
    known(&client).await;
    for _ in 0..2 {
        let text = client.get("/").await.expect("an answer").text();
        within("the body", text).await.expect("a body");
    }
    let spans = logs.spans();
    let again =
        |span: &&Span| span.name == "request" && span.field("http.request.resend_count") == "1";
    let again: Vec<_> = spans.iter().filter(again).collect();
    let [request] = &again[..] else {
        panic!("{spans:?}")
    };
    assert_fields(
        request,
        &[
            ("http.response.status_code", "200"),
            ("otel.status_code", ""),
        ],
    );
    let place = spans.iter().position(|it| std::ptr::eq(it, *request));
    let attempts: Vec<_> = spans.iter().filter(|it| it.parent == place).collect();
    let [first, second] = &attempts[..] else {
        panic!("{spans:?}")
    };
    assert_fields(
        first,
        &[
            ("http.response.status_code", "503"),
            ("error.type", "503"),
            ("otel.status_code", "ERROR"),
        ],
    );
    assert_fields(
        second,
        &[
            ("http.response.status_code", "200"),
            ("http.request.resend_count", "1"),
        ],
    );
    let retried = logs
        .events()
        .into_iter()
        .find(|it| it.message() == "request sent again");
    let retried = retried.expect("it is told").fields;
    assert_eq!(
        ["method", "reason", "outcome"].map(|field| &*retried[field]),
        ["GET", "503 Service Unavailable", "answered"]
    );
    assert_eq!(retried["endpoint"], bad.addr().to_string());
    assert_well_told(&logs);
}

#[tokio::test]
async fn a_hedge_is_an_attempt_and_the_loser_is_cancelled() {
    let logs = Logs::new();
    let (slow, good) = (pod(Mode::Hung).await, pod(Mode::Healthy).await);
    let hedge = Hedge::after(Duration::from_millis(500));
    let client = builder([slow.addr(), good.addr()])
        .hedge(hedge)
        .build()
        .expect("a client");
    known(&client).await;
    for _ in 0..2 {
        let response = within("an answer", client.get("/").into_future()).await;
        drop(response.expect("an answer"));
    }
    let attempts = logs.of_name("attempt");
    let lost: Vec<_> = attempts
        .iter()
        .filter(|it| it.field("error.type") == "cancelled")
        .collect();
    let [lost] = &lost[..] else {
        panic!("{attempts:?}")
    };
    assert_fields(
        lost,
        &[("network.peer.port", &slow.addr().port().to_string())],
    );
    assert!(logs.spans().iter().all(|it| it.is_closed));
    assert_eq!(logs.count(Level::DEBUG, "request hedged"), 1);
}

#[tokio::test]
async fn a_timeout_and_a_cancelled_request_say_so() {
    let logs = Logs::new();
    let pod = pod(Mode::Hung).await;
    let client = builder([pod.addr()]).build().expect("a client");
    let late = client.get("/").timeout(Duration::from_millis(20)).send();
    within("the end", late).await.expect_err("it is late");
    let [request] = &logs.of_name("request")[..] else {
        panic!("no span")
    };
    assert!(request.is_closed);
    assert_fields(
        request,
        &[("error.type", "timeout"), ("otel.status_code", "ERROR")],
    );
    assert!(
        request
            .field("otel.status_description")
            .contains("`timeout`")
    );

    let cancelled = client.get("/").send();
    tokio::select! {
        _ = cancelled => panic!("the pod hangs"),
        _ = pod.wait_until(|stats| stats.requests == 2) => {}
    }
    let requests = logs.of_name("request");
    assert!(requests[1].is_closed);
    assert_fields(
        &requests[1],
        &[
            ("error.type", "cancelled"),
            ("http.response.status_code", ""),
        ],
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_spans_error() {
    let logs = Logs::new();
    let breaks = Arc::new(Notify::new());
    let told = breaks.clone();
    let pod = Pod::builder().answer(move |_, _| {
        let told = told.clone();
        let broken = async move {
            told.notified().await;
            Err("gone")
        };
        let begun = stream::iter([Ok(Frame::data(Bytes::from("some")))]);
        let body = StreamBody::new(begun.chain(stream::once(Box::pin(broken))));
        async { Ok::<_, &str>(Response::new(body)) }
    });
    let pod = pod.start().await.expect("a free port");
    let client = builder([pod.addr()]).build().expect("a client");
    let response = within("an answer", client.get("/").into_future()).await;
    let response = response.expect("an answer");
    breaks.notify_one();
    let body = within("an end", response.bytes()).await;
    body.expect_err("it breaks off");
    let [request] = &logs.of_name("request")[..] else {
        panic!("no span")
    };
    assert!(request.is_closed);
    assert_fields(
        request,
        &[("error.type", "lost"), ("otel.status_code", "ERROR")],
    );
}

#[tokio::test]
async fn a_grpc_call_has_its_names_and_its_status_from_head_or_trailers() {
    let logs = Logs::new();
    let pod = Pod::builder().answer(|_, _| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().expect("a value"));
        let body =
            Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
        Ok::<_, &str>(Response::new(body))
    });
    let pod = pod.start().await.expect("a free port");
    let client = builder([pod.addr()])
        .protocol(Protocol::Http2)
        .build()
        .expect("a client");
    let call = || {
        let call = HttpRequest::post("/shop.Carts/Add").header("content-type", "application/grpc");
        call.body(Full::new(Bytes::from_static(&[0; 5])))
            .expect("a request")
    };
    let response = within("an answer", client.clone().oneshot(call())).await;
    let body = response.expect("an answer").into_body();
    within("the end", body.collect()).await.expect("trailers");
    pod.kill().await;
    let response = within("an answer", client.clone().oneshot(call())).await;
    response.expect("a status");
    let calls = logs.of_name("request");
    let names = [
        ("otel.name", "shop.Carts/Add"),
        ("rpc.system", "grpc"),
        ("rpc.service", "shop.Carts"),
        ("rpc.method", "Add"),
        ("otel.status_code", "ERROR"),
    ];
    for (call, status) in calls.iter().zip(["5", "14"]) {
        assert!(call.is_closed);
        assert_fields(call, &names);
        assert_fields(
            call,
            &[("rpc.grpc.status_code", status), ("error.type", status)],
        );
    }
    assert_eq!(calls.len(), 2);
}

#[tokio::test]
async fn layers_are_in_the_one_span_of_their_request() {
    let logs = Logs::new();
    let pod = pod(Mode::Healthy).await;
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let inject = move |mut request: HttpRequest<RequestBody>| {
        let id = tracing::Span::current().id();
        *noted.lock().expect("no panic") = Some(id.expect("a span"));
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        request
            .headers_mut()
            .insert("traceparent", value.parse().expect("a value"));
        request
    };
    let client = builder([pod.addr()]).build().expect("a client");
    let client = client.layer(ServiceBuilder::new().map_request(inject));
    let client = client.layer(ServiceBuilder::new().map_request(|it: HttpRequest<RequestBody>| it));
    for words in [true, false] {
        let body = match words {
            true => within("an answer", client.get("/").into_future())
                .await
                .expect("an answer")
                .into_body(),
            false => {
                let request = HttpRequest::get("/")
                    .body(RequestBody::default())
                    .expect("a request");
                let answer = within("an answer", client.clone().oneshot(request)).await;
                answer.expect("an answer").into_body()
            }
        };
        within("the end", body.collect()).await.expect("a body");
        assert!(seen.lock().expect("no panic").take().is_some());
    }
    let requests = logs.of_name("request");
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|it| it.is_closed && it.field("http.response.status_code") == "200")
    );
    let attempts = logs.of_name("attempt");
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|it| it.parent.is_some()));
}

#[tokio::test]
async fn by_default_there_are_no_spans() {
    let logs = Logs::new();
    let pod = pod(Mode::Healthy).await;
    let client = builder([pod.addr()])
        .request_spans(false)
        .build()
        .expect("a client");
    within("an answer", client.get("/").into_future())
        .await
        .expect("an answer");
    assert!(logs.spans().is_empty());
}

#[tokio::test]
async fn the_span_of_a_request_for_another_service_names_that_service() {
    let logs = Logs::new();
    let client = builder([]).build().expect("a client");
    let client = client.layer(ServiceBuilder::new());
    let away = client.get("https://other.default:8443/x?token=hunter2");
    within("an error", away.into_future())
        .await
        .expect_err("it is foreign");
    let fields = [
        ("url.full", "https://other.default:8443/x"),
        ("server.address", "other.default"),
        ("server.port", "8443"),
        ("error.type", "invalid_request"),
    ];
    assert_fields(&logs.of_name("request")[0], &fields);
}

#[tokio::test]
async fn no_event_and_no_span_has_a_secret_of_a_request() {
    let logs = Logs::new();
    let (bad, good) = (
        pod(Mode::CloseWithoutAnswer).await,
        pod(Mode::Healthy).await,
    );
    let gone = pod(Mode::Healthy).await;
    gone.kill().await;
    let pods = [bad.addr(), good.addr(), gone.addr()];
    let client = builder(pods)
        .allow_foreign_authority(true)
        .build()
        .expect("a client");
    known(&client).await;
    let layered = client.clone().layer(ServiceBuilder::new());
    for path in [
        "/?token=hunter2",
        "http://me:hunter2@web:8080/?token=hunter2",
        // By the syntax of URIs, the host ends at the first slash.
        "http://hunter2:hunter2/hunter2@web/?token=hunter2",
        "http://hunter2/?token=hunter2@web/",
    ] {
        for n in 0..6 {
            for client in [&client, &layered] {
                let request = HttpRequest::get(path)
                    .header("authorization", "Bearer hunter2")
                    .header("cookie", "session=hunter2");
                let request = match n {
                    0 => request.header("content-type", "application/grpc"),
                    _ => request,
                };
                let request = request.body(RequestBody::default()).expect("a request");
                let _ = within("an end", client.clone().oneshot(request)).await;
            }
        }
    }
    assert!(logs.count(Level::DEBUG, "connecting failed") > 0);
    assert!(logs.count(Level::DEBUG, "request sent again") > 0);
    let told = format!("{:?}{:?}", logs.events(), logs.spans());
    assert!(!told.contains("hunter2"), "{told}");
    assert_well_told(&logs);
}
