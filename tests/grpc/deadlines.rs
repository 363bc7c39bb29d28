//! `grpc-timeout`: how long a call may take, for the client and for its pods.

use std::{future::IntoFuture, sync::atomic::Ordering::Relaxed, time::Duration};

use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tower_headless::{
    StaticEndpoints,
    http::{Client, ClientBuilder, Idempotent, Protocol},
};

use crate::{
    SERVICE, ask, in_flight, known,
    scripted::{Does, ScriptedPod, Seen, Then},
    serving,
    support::within,
};

/// Long enough for a call to reach its pod and for its answer to begin.
const BRIEF: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn builder(pods: &[&ScriptedPod]) -> ClientBuilder<StaticEndpoints> {
    let pods = StaticEndpoints::new(pods.iter().map(|pod| pod.address));
    Client::builder(SERVICE.parse().expect("a URI"))
        .discovery(pods)
        .protocol(Protocol::Http2)
}

fn call(timeout: Duration) -> tonic::Request<tonic_health::pb::HealthCheckRequest> {
    let mut call = tonic::Request::new(ask(""));
    call.set_timeout(timeout);
    call
}

/// A `grpc-timeout` in microseconds.
fn micros(timeout: &str) -> u64 {
    let (digits, unit) = timeout.split_at(timeout.len() - 1);
    let number: u64 = digits.parse().expect("digits");
    match unit {
        "n" => number / 1000,
        "u" => number,
        "m" => number * 1000,
        _ => panic!("{timeout} is longer than any here"),
    }
}

#[tokio::test]
async fn a_call_to_a_pod_that_hangs_ends_at_its_deadline() {
    let pod = ScriptedPod::start(Does::Hang).await;
    // The client's own timeout is far longer.
    let client = builder(&[&pod]).timeout(LONG).build().expect("a client");
    let mut health = HealthClient::new(client.clone());
    let status = within("a status", health.check(call(BRIEF))).await;
    let status = status.expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no answer"), "{status}");
    assert_eq!(in_flight(&client), [0]);
    let is_told = |seen: &Seen| {
        let resets = seen.resets.lock().expect("nobody panics");
        *resets == [h2::Reason::CANCEL]
    };
    within("the reset", pod.seen.until(is_told)).await;
}

#[tokio::test]
async fn the_clients_timeout_counts_if_it_is_shorter_and_the_pod_is_told() {
    let pod = ScriptedPod::start(Does::Hang).await;
    let client = builder(&[&pod]).timeout(BRIEF);
    let client = client.build().expect("a client");
    let mut health = HealthClient::new(client);
    let status = within("a status", health.check(call(LONG))).await;
    assert_eq!(
        status.expect_err("no answer").code(),
        Code::DeadlineExceeded
    );
    let told = pod.seen.timeouts();
    assert!(micros(&told[0]) <= 1_000_000, "{told:?}");
}

#[tokio::test]
async fn a_stream_is_under_the_calls_deadline_to_its_end() {
    let pod = ScriptedPod::start(Does::Begin(Then::Hang)).await;
    let client = builder(&[&pod]).build().expect("a client");
    let mut health = HealthClient::new(client.clone());
    let stream = within("a stream", health.watch(call(BRIEF))).await;
    let mut stream = stream.expect("a stream").into_inner();
    let first = within("a message", stream.message()).await;
    assert_eq!(first.expect("in time"), Some(serving()));
    let status = within("a status", stream.message()).await;
    let status = status.expect_err("it is too late");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(in_flight(&client), [0]);
    // The deadline is over.
    let end = within("the end", stream.message()).await;
    assert_eq!(end.expect("no more errors"), None);
}

#[tokio::test]
async fn a_retry_s_pod_is_told_the_time_that_is_left() {
    let busy = ScriptedPod::start(Does::Status(http::StatusCode::OK, "14")).await;
    let good = ScriptedPod::start(Does::Answer).await;
    let client = builder(&[&busy, &good]).build().expect("a client");
    let mut health = HealthClient::new(client);
    // One of the two calls goes to the busy pod first.
    for _ in 0..2 {
        let mut call = call(LONG);
        call.extensions_mut().insert(Idempotent::default());
        let answer = within("an answer", health.check(call)).await;
        assert_eq!(answer.expect("the good pod's").into_inner(), serving());
    }
    let (first, then) = (busy.seen.timeouts(), good.seen.timeouts());
    assert_eq!((first.len(), then.len()), (1, 2));
    let least = then.iter().map(|told| micros(told)).min();
    assert!(least < Some(micros(&first[0])), "{first:?}, {then:?}");
    assert!(micros(&first[0]) <= 60_000_000);
}

#[tokio::test]
async fn a_malformed_timeout_is_passed_on_and_means_nothing() {
    let pod = ScriptedPod::start(Does::Answer).await;
    let client = builder(&[&pod]).timeout(LONG).build().expect("a client");
    let mut health = HealthClient::new(client);
    for malformed in ["1s", "soon", "123456789n"] {
        let mut call = tonic::Request::new(ask(""));
        let value = malformed.parse().expect("a value");
        call.metadata_mut().insert("grpc-timeout", value);
        within("an answer", health.check(call))
            .await
            .expect("an answer");
    }
    assert_eq!(pod.seen.timeouts(), ["1s", "soon", "123456789n"]);
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_none() {
    let pod = ScriptedPod::start(Does::Answer).await;
    let client = builder(&[&pod]).timeout(LONG).build().expect("a client");
    let mut health = HealthClient::new(client);
    health.check(ask("")).await.expect("an answer");
    assert!(pod.seen.timeouts().is_empty());
}

#[tokio::test]
async fn a_call_without_any_time_is_late_at_once_and_nothing_is_sent() {
    let pod = ScriptedPod::start(Does::Answer).await;
    let hasty = builder(&[&pod]).timeout(Duration::ZERO);
    let clients = [
        (
            builder(&[&pod]).build().expect("a client"),
            call(Duration::ZERO),
        ),
        (hasty.build().expect("a client"), call(LONG)),
    ];
    for (client, call) in clients {
        known(&client, 1).await;
        let mut health = HealthClient::new(client.clone());
        let status = within("a status", health.check(call)).await;
        let status = status.expect_err("no time");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let error = within(
            "an error",
            client.get("/").timeout(Duration::ZERO).into_future(),
        )
        .await;
        assert!(error.expect_err("no time").is_timeout());
    }
    assert_eq!(pod.seen.connections.load(Relaxed), 0);
    assert!(pod.seen.heads.lock().expect("nobody panics").is_empty());
}
