//! Requests whose timeout passes before a pod has them: they were not sent, and the error says what they waited for.

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use futures::future::{join, join_all};
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower::{ServiceExt, layer::layer_fn, service_fn};
use tower_headless::{
    Endpoint, Hedge, StaticEndpoints,
    http::{Client, ClientBuilder, Error, Protocol, RequestBody, RequestBuilder},
};
use tower_http::trace::TraceLayer;

use super::{
    frames::{Frames, NO_ERROR},
    kit::{
        Never, accept, builder, client, listen, refuse_at, refusing, silent, unresolved, wait_until,
    },
};
use crate::support::within;

const SECOND: Duration = Duration::from_secs(1);

fn named(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    let pods = pods.into_iter().zip(0..);
    let pods = pods.map(|(pod, n)| Endpoint::new(pod).with_hostname(format!("web-{n}")));
    unresolved("http").discovery(pods.collect())
}

async fn late(request: RequestBuilder) -> Error {
    let error = within("an error", request.into_future()).await;
    let error = error.expect_err("no pod");
    assert!(error.is_timeout(), "{error}");
    error
}

/// Asserts the text of an unsent request's timeout.
#[track_caller]
fn says(error: &Error, after: &str, why: &str) {
    assert!(error.is_unexecuted() && error.is_unsent(), "{error}");
    assert!(!error.is_unreachable() && !error.is_no_endpoints());
    let text = format!(
        "request to web.default.svc.cluster.local: not sent within {after} (`timeout`){why}"
    );
    assert_eq!(error.to_string(), text);
}

const REFUSED: &str = "Connection refused (os error 111)";

#[tokio::test]
async fn a_timeout_while_every_pod_refuses_names_the_last_refusal() {
    let pods = [refusing().await, refusing().await];
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = named(pods).protocol(protocol).build().expect("a client");
        let error = late(client.post("/").timeout(SECOND)).await;
        let n = usize::from(error.to_string().contains("pod web-1"));
        let why = format!(
            ": none of 2 endpoints accepts requests; pod web-{n} ({}) refused last: {REFUSED}",
            pods[n]
        );
        says(&error, "1s", &why);
        let source = std::error::Error::source(&error).expect("the refusal");
        assert_eq!(source.to_string(), REFUSED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_during_discovery_says_that_no_endpoint_was_found_so_far() {
    let client = unresolved("http").discovery(Never).timeout(SECOND);
    let error = late(client.build().expect("a client").get("/")).await;
    let why = ": no endpoints: discovery has found none so far";
    says(&error, "1s", why);
}

#[tokio::test]
async fn a_timeout_for_a_named_pod_tells_that_pod_s_state() {
    let refuses = refusing().await;
    let client = named([refuses]).build().expect("a client");
    let error = late(client.pod("web-0").get("/").timeout(SECOND)).await;
    let why = format!(": pod web-0 accepts no requests at {refuses}: {REFUSED}");
    says(&error, "1s", &why);
    let endpoint = error.endpoint().map(Endpoint::address);
    assert_eq!((error.pod(), endpoint), (Some("web-0"), Some(refuses)));

    let error = late(client.pod("web-7").get("/").timeout(SECOND)).await;
    says(&error, "1s", ": pod web-7 isn't there; there are web-0");
    assert_eq!((error.pod(), error.endpoint()), (Some("web-7"), None));
}

#[tokio::test]
async fn a_timeout_while_waiting_for_a_connection_names_its_pod() {
    let (busy, requests) = silent().await;
    let client = named([busy]).max_connections(1).build().expect("a client");
    let first = tokio::spawn(client.get("/").into_future());
    wait_until("the first one", || requests.get() == 1).await;
    let error = late(client.post("/").timeout(SECOND)).await;
    let why = format!(": pod web-0 ({busy}) had no free connection for it");
    says(&error, "1s", &why);
    assert_eq!(error.endpoint().map(Endpoint::address), Some(busy));
    first.abort();

    // A pod that never finishes its handshake.
    let client = named([busy]).protocol(Protocol::Http2);
    let client = client.build().expect("a client");
    says(&late(client.get("/").timeout(SECOND)).await, "1s", &why);
}

#[tokio::test]
async fn a_request_with_a_zero_timeout_is_not_sent() {
    let (unasked, requests) = silent().await;
    let client = client([unasked]);
    let layered = client.clone().layer(TraceLayer::new_for_http());
    for client in [client, layered] {
        let error = late(client.get("/").timeout(Duration::ZERO)).await;
        says(&error, "0ns", "");
    }
    assert_eq!(requests.get(), 0);
}

#[tokio::test]
async fn layers_pass_on_the_timeout_of_the_client_below() {
    let pods = [refusing().await];
    let client = builder(pods).timeout(SECOND).build();
    let layered = client.expect("a client").layer(TraceLayer::new_for_http());
    let error = late(layered.post("/")).await;
    assert!(error.is_unexecuted() && error.is_unsent(), "{error}");
    assert!(error.to_string().ends_with(REFUSED), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_s_request_after_the_timeout_is_not_sent() {
    let slow = layer_fn(|client: Client| {
        service_fn(move |request: Request<RequestBody>| {
            let client = client.clone();
            async move {
                tokio::time::sleep(SECOND).await;
                client.oneshot(request).await
            }
        })
    });
    let client = unresolved("http").discovery(Never).build();
    let client = client.expect("a client").layer(slow);
    says(&late(client.get("/").timeout(SECOND)).await, "1s", "");
}

#[tokio::test]
async fn a_hedged_request_whose_attempts_both_wait_is_not_sent() {
    let pods = [silent().await, silent().await];
    let client = named(pods.iter().map(|pod| pod.0)).max_connections(1);
    let client = client.hedge(Hedge::after(Duration::from_millis(20)));
    let client = client.build().expect("a client");
    // POSTs aren't safe, so they are not hedged.
    let busy = [client.post("/"), client.post("/")].map(|it| tokio::spawn(it.into_future()));
    wait_until("both", || pods.iter().all(|pod| pod.1.get() == 1)).await;
    let error = late(client.get("/").timeout(SECOND)).await;
    assert!(error.is_unexecuted() && error.is_unsent(), "{error}");
    assert!(error.to_string().ends_with("had no free connection for it"));
    busy.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_broadcast_s_requests_time_out_unsent_by_their_own_timeout() {
    let pods = [refusing().await, refusing().await];
    let client = named(pods).build().expect("a client");
    let all = client.get("/").timeout(SECOND).broadcast().all();
    let all = within("all", all).await.expect("pods");
    assert_eq!(all.failed.len(), 2);
    for (endpoint, error) in all.failed {
        assert!(error.is_timeout(), "{error}");
        let why = format!(": pod {endpoint} accepts no requests: {REFUSED}");
        says(&error, "1s", &why);
        assert_eq!(error.endpoint(), Some(&endpoint));
    }
}

#[tokio::test]
async fn an_unsent_grpc_call_times_out_with_deadline_exceeded() {
    let client = builder([refusing().await]).protocol(Protocol::Http2);
    let client = client.build().expect("a client");
    let layered = client.clone().layer(TraceLayer::new_for_grpc());
    let calls = [client, layered].map(|client| {
        let call = Request::post("/shop.Orders/List").header("content-type", "application/grpc");
        let call = call.header("grpc-timeout", "1S").body(Empty::new());
        within("a status", client.oneshot(call.expect("a request")))
    });
    for response in join_all(calls).await {
        let response = response.expect("a status");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "4");
        let message = response.headers()["grpc-message"].to_str().expect("text");
        assert!(message.contains("not sent within 1s"), "{message}");
        assert!(message.contains("Connection refused"), "{message}");
    }
}

/// The outcome of an earlier attempt.
enum Before {
    Lost,
    Unprocessed,
}

/// The error of a request whose only pod is gone after the first attempt.
async fn after(before: Before) -> Error {
    let (listener, leaving) = listen().await;
    let client = builder([leaving]).protocol(match before {
        Before::Lost => Protocol::Http1,
        Before::Unprocessed => Protocol::Http2,
    });
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        match before {
            Before::Lost => {
                peer.head().await;
                drop(listener);
                refuse_at(leaving);
            }
            Before::Unprocessed => {
                let mut frames = Frames::greet(peer, None).await;
                frames.stream().await;
                drop(listener);
                refuse_at(leaving);
                frames.go_away(0, NO_ERROR).await;
            }
        }
    };
    join(serve, late(client.get("/").timeout(SECOND))).await.1
}

#[tokio::test]
async fn a_timeout_after_a_lost_attempt_may_have_been_executed() {
    let error = after(Before::Lost).await;
    assert!(!error.is_unexecuted() && !error.is_unsent(), "{error}");
}

#[tokio::test]
async fn a_timeout_after_a_layer_s_lost_request_is_not_unexecuted() {
    let (listener, leaving) = listen().await;
    let again = layer_fn(|client: Client| {
        service_fn(move |request: Request<RequestBody>| {
            let client = client.clone();
            async move {
                let copy = Request::post(request.uri()).body(RequestBody::empty());
                client.clone().oneshot(request).await.expect_err("lost");
                client.oneshot(copy.expect("a request")).await
            }
        })
    });
    let client = builder([leaving]).timeout(SECOND).build();
    let client = client.expect("a client").layer(again);
    let serve = async {
        accept(&listener).await.head().await;
        drop(listener);
        refuse_at(leaving);
    };
    let error = join(serve, late(client.post("/orders"))).await.1;
    assert!(!error.is_unexecuted() && !error.is_unsent(), "{error}");
    let text = "request to web.default.svc.cluster.local may have been executed; the last request that \
                a layer made from it: not sent within 1s (`timeout`): the only endpoint";
    assert!(error.to_string().starts_with(text), "{error}");
}

#[tokio::test]
async fn a_timeout_after_an_unprocessed_refusal_was_sent_but_not_executed() {
    let error = after(Before::Unprocessed).await;
    assert!(error.is_unexecuted() && !error.is_unsent(), "{error}");
    let text = "not executed within 1s (`timeout`): the only endpoint accepts no requests";
    assert!(error.to_string().contains(text), "{error}");
}
