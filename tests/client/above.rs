//! What a client does above its layers: a request's timeout, gRPC statuses, and which service an error names.

use std::{
    convert::Infallible,
    future::{Future, IntoFuture, pending, ready},
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tower::{
    Service, ServiceBuilder, ServiceExt, layer::layer_fn, limit::ConcurrencyLimitLayer, service_fn,
};
use tower_headless::{
    BoxError, StaticEndpoints,
    http::{Client, Error, Protocol, RequestBody, ResponseBody},
};
use tower_http::{follow_redirect::FollowRedirectLayer, trace::TraceLayer};

use super::kit::{
    Count, Never, answering, builder, client, know, losing, refusing, silent, stream_of,
    unresolved, wait_until,
};
use crate::support::{logs::Logs, within};

const SECOND: Duration = Duration::from_secs(1);

const NAME: &str = "web.default.svc.cluster.local";

fn never() -> Client {
    Client::from_fn(|_| pending::<Result<Response<()>, Error>>())
}

fn call() -> Request<Full<Bytes>> {
    let call = Request::post("/shop.Orders/List").header(CONTENT_TYPE, "application/grpc");
    call.body(Full::default()).expect("a request")
}

fn get() -> Request<RequestBody> {
    Request::new(RequestBody::empty())
}

fn status(response: &Response<ResponseBody>) -> &str {
    let status = &response.headers()["grpc-status"];
    status.to_str().expect("a code")
}

#[tokio::test]
async fn a_failed_grpc_call_is_an_error_in_a_layered_broadcast() {
    let (lost, _) = losing().await;
    let client = builder([lost]).protocol(Protocol::Http2).fail_fast();
    let client = client.build().expect("a client");
    know(&client).await;
    let client = client.layer(TraceLayer::new_for_grpc());
    let all = within("all", client.broadcast(call()).all()).await;
    let all = all.expect("pods");
    assert_eq!((all.answered.len(), all.failed.len()), (0, 1));
    let alone = within("an answer", client.oneshot(call())).await;
    assert_eq!(status(&alone.expect("a status")), "14");
}

#[tokio::test]
async fn layers_get_a_grpc_call_s_error_and_its_caller_gets_a_status() {
    let errors = Count::default();
    let seen = errors.clone();
    let see = layer_fn(move |client: Client| {
        let seen = seen.clone();
        ServiceExt::<Request<RequestBody>>::map_err(client, move |error: Error| {
            seen.add();
            error
        })
    });
    let client = builder([refusing().await]).protocol(Protocol::Http2);
    let client = client.fail_fast().build().expect("a client").layer(see);
    let response = within("an answer", client.oneshot(call())).await;
    assert_eq!(status(&response.expect("a status")), "14");
    assert_eq!(errors.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_gets_a_layer_s_timeout_and_its_own_as_statuses() {
    let late = never().layer(ServiceBuilder::new().timeout(SECOND));
    let response = late.oneshot(call()).await.expect("a status");
    assert_eq!(status(&response), "4");
    let tokios = never().layer(layer_fn(|client: Client| {
        service_fn(move |request: Request<RequestBody>| {
            let answer = tokio::time::timeout(SECOND, client.clone().oneshot(request));
            async move { answer.await?.map_err(BoxError::from) }
        })
    }));
    let response = tokios.oneshot(call()).await.expect("a status");
    assert_eq!(status(&response), "4");
    let broken = never().layer(layer_fn(|_| Broken));
    let response = broken.oneshot(call()).await.expect("a status");
    assert_eq!(status(&response), "14");
    let mut brief = call();
    let time = HeaderValue::from_static("1S");
    brief.headers_mut().insert("grpc-timeout", time);
    let response = never().oneshot(brief).await.expect("a status");
    assert_eq!(status(&response), "4");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_to_from_fn_gets_errors_as_statuses_in_its_body_too() {
    let broken = Client::from_fn(async |_| {
        let broken = [Ok(Bytes::from("te")), Err(io::Error::other("broken"))];
        let stream = futures::stream::iter(broken);
        Ok(Response::new(ResponseBody::from_stream(stream)))
    });
    let response = broken.oneshot(call()).await.expect("a response");
    let body = response.into_body().collect().await.expect("trailers");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "14");
}

#[tokio::test]
async fn default_headers_can_turn_a_post_into_a_grpc_call() {
    let grpc = HeaderValue::from_static("application/grpc");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, grpc)]);
    let plain = builder([refusing().await]).default_headers(headers.clone());
    let plain = plain.grpc_status(false).build().expect("a client");
    let error = plain.post("/a.B/C").await.expect_err("over HTTP/1.1");
    assert!(
        error.is_request() && error.to_string().contains("gRPC needs HTTP/2"),
        "{error}"
    );
    let layered = builder([refusing().await]).default_headers(headers);
    let layered = layered.protocol(Protocol::Http2).fail_fast().build();
    let layered = layered.expect("a client").layer(TraceLayer::new_for_grpc());
    let response = within("an answer", layered.post("/a.B/C").into_future()).await;
    assert_eq!(response.expect("a status").headers()["grpc-status"], "14");
}

#[tokio::test(start_paused = true)]
async fn a_request_times_out_while_its_layers_are_not_ready() {
    let client = never().layer(ConcurrencyLimitLayer::new(1));
    let mut stuck = client.get("/").into_future();
    assert!((&mut stuck).now_or_never().is_none());
    let error = client.get("/").timeout(SECOND).await.expect_err("late");
    assert!(
        error.is_timeout() && error.is_unsent() && error.is_unexecuted(),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .ends_with("not sent within 1s (`timeout`): the client's layers were not ready for it"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_request_that_waited_for_layers_was_not_sent() {
    let silent = layer_fn(|_: Client| {
        service_fn(|_: Request<RequestBody>| {
            pending::<Result<Response<ResponseBody>, Infallible>>()
        })
    });
    let pods = StaticEndpoints::new(["10.0.0.1:80".parse().expect("an address")]);
    let client = unresolved("http")
        .discovery(pods)
        .build()
        .expect("a client");
    let client = client.layer(silent).layer(ConcurrencyLimitLayer::new(1));
    let mut stuck = client.get("/").into_future();
    assert!((&mut stuck).now_or_never().is_none());
    let all = client.get("/").broadcast().endpoint_timeout(SECOND).all();
    let all = all.await.expect("pods");
    let (_, error) = &all.failed[0];
    assert!(error.is_timeout() && error.is_unsent(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_layer_copies_has_only_the_rest_of_its_timeout() {
    let ended = Count::default();
    let seen = ended.clone();
    let slow = layer_fn(move |client: Client| {
        let seen = seen.clone();
        service_fn(move |request: Request<RequestBody>| {
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                tokio::time::sleep(SECOND).await;
                let answer = client.oneshot(request).await;
                seen.add();
                answer
            }
        })
    });
    let client = unresolved("http")
        .discovery(Never)
        .ready_timeout(SECOND * 3600);
    let client = client.build().expect("a client").layer(slow);
    let error = client.get("/").timeout(SECOND * 2).await.expect_err("late");
    assert_eq!(ended.get(), 1, "the client below has not ended it: {error}");
    assert!(
        error.to_string().contains("within 2s (`timeout`)"),
        "{error}"
    );
}

/// A client with a layer that sends the caller's request until it has ended or `wait` has, and then another one, which
/// no pod gets.
fn twice<F>(client: Client, wait: impl Fn() -> F + Clone + Send + Sync + 'static) -> Client
where
    F: Future<Output = ()> + Send + 'static,
{
    client.layer(layer_fn(move |client: Client| {
        let wait = wait.clone();
        service_fn(move |request: Request<RequestBody>| {
            let (client, wait) = (client.clone(), wait());
            async move {
                tokio::select! {
                    biased;
                    _ = client.clone().oneshot(request) => {}
                    () = wait => {}
                }
                let away = Request::get("http://elsewhere/").body(RequestBody::empty());
                client.oneshot(away.expect("a request")).await
            }
        })
    }))
}

/// The errors of POSTs through such a layer, once with and once without more layers around it.
async fn errors(client: Client) -> Vec<Error> {
    let more = client.clone().layer(TraceLayer::new_for_http());
    let more = more.layer(FollowRedirectLayer::new());
    let mut errors = Vec::new();
    for client in [client, more] {
        let error = within("an error", client.post("/orders").into_future()).await;
        let error = error.expect_err("that of the second request");
        assert!(error.is_foreign(), "{error}");
        errors.push(error);
    }
    errors
}

#[track_caller]
fn assert_executed(errors: Vec<Error>) {
    let text = "may have been executed; the last request that a layer made from it was not sent: \
                http://elsewhere is not this client's service";
    for error in errors {
        assert!(!error.is_unexecuted() && !error.is_unsent(), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_layer_s_unsent_request_after_an_answered_one_is_not_unexecuted() {
    let (pod, _) = answering().await;
    assert_executed(errors(twice(client([pod]), pending)).await);
}

#[tokio::test]
async fn a_layer_s_unsent_request_after_a_lost_one_is_not_unexecuted() {
    let (pod, _) = losing().await;
    assert_executed(errors(twice(client([pod]), pending)).await);
}

#[tokio::test]
async fn a_layer_s_unsent_request_after_a_cancelled_one_is_not_unexecuted() {
    let (pod, requests) = silent().await;
    let client = twice(client([pod]), move || {
        let (before, requests) = (requests.get(), requests.clone());
        async move { wait_until("the request", || requests.get() > before).await }
    });
    assert_executed(errors(client).await);
}

#[tokio::test]
async fn several_unsent_requests_of_a_layer_are_unexecuted() {
    let refused = builder([refusing().await]).fail_fast();
    let refused = twice(refused.build().expect("a client"), pending);
    let given_up = unresolved("http").discovery(Never).build();
    let given_up = twice(given_up.expect("a client"), || ready(()));
    for client in [refused, given_up] {
        for error in errors(client).await {
            assert!(error.is_unexecuted() && error.is_unsent(), "{error}");
            assert!(error.to_string().starts_with("http://elsewhere"), "{error}");
        }
    }
}

/// A service that is never ready.
#[derive(Clone)]
struct Broken;

impl Service<Request<RequestBody>> for Broken {
    type Response = Response<ResponseBody>;
    type Error = io::Error;
    type Future = std::future::Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Err(io::Error::other("broken")))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn an_error_from_layers_that_are_not_ready_is_in_the_request_s_span() {
    let logs = Logs::new();
    let client = builder([]).request_spans(true).build();
    let mut client = client.expect("a client").layer(layer_fn(|_| Broken));
    let ready = ServiceExt::<Request<RequestBody>>::ready(&mut client).await;
    let answer = ready.expect("it says so with the response").call(get());
    answer.await.map(drop).expect_err("broken");
    let request = &logs.of_name("request")[0];
    assert!(request.is_closed);
    assert_eq!(request.field("error.type"), "layer");
    let why = request.field("otel.status_description");
    assert!(why.contains("broken"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn every_error_names_its_service() {
    let client = client([]);
    let error = |what: &str, error: Error| {
        assert_eq!(error.service(), Some(NAME), "{what}: {error}");
    };
    let broken = client.clone().layer(layer_fn(|_| Broken));
    error("ready", broken.get("/").await.expect_err("broken"));
    let mut service = broken;
    let ready = ServiceExt::<Request<RequestBody>>::ready(&mut service).await;
    let answer = ready.expect("it says so with the response").call(get());
    error("poll_ready", answer.await.map(drop).expect_err("broken"));
    let failing = client.clone().layer(layer_fn(|_| {
        service_fn(async |_: Request<RequestBody>| {
            Err::<Response<ResponseBody>, _>(io::Error::other("broken"))
        })
    }));
    error("a layer", failing.get("/").await.expect_err("broken"));
    let silent = client.clone().layer(layer_fn(|_| {
        service_fn(|_: Request<RequestBody>| {
            pending::<Result<Response<ResponseBody>, Infallible>>()
        })
    }));
    error(
        "late",
        silent.get("/").timeout(SECOND).await.expect_err("late"),
    );
    for client in [&client, &silent] {
        error("build", client.get("no path").build().expect_err("no path"));
        let none = client.get("no path").broadcast().all();
        error("broadcast", none.await.expect_err("no path"));
        let stream = Request::post("/").body(stream_of(&["body"]));
        let none = client.broadcast(stream.expect("a request")).all();
        error("a stream", none.await.expect_err("a stream"));
    }
    let replaced = client.layer(layer_fn(|_| {
        service_fn(async |_: Request<RequestBody>| {
            let broken = stream_of(&["ok"])
                .map_err(drop)
                .map_err(|()| io::Error::other(""));
            let mut response = Response::new(ResponseBody::new(broken));
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        })
    }));
    let response = replaced.get("/").await.expect("a response");
    error("a status", response.error_for_status().expect_err("404"));
}

#[tokio::test]
async fn a_layered_broadcast_of_an_invalid_request_fails_as_a_whole() {
    let client = client([refusing().await, refusing().await]);
    let client = client.layer(TraceLayer::new_for_http());
    let length = client.post("/").header("content-length", "7").body("body");
    for request in [client.get("http://elsewhere/"), length] {
        let error = request.broadcast().all().await.expect_err("no sense");
        assert!(error.is_request(), "{error}");
    }
}
