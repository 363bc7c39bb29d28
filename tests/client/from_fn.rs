//! Clients whose requests an application's tests answer.

use std::{
    convert::Infallible,
    future::IntoFuture,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower_headless::{
    Endpoint, Route, StaticEndpoints,
    http::{Client, Error, RequestBody, ResponseBody},
};

use super::kit::{get, know, text};

type Answer = Result<Response<String>, Error>;

/// Answers with the request that it got.
async fn echo(request: Request<RequestBody>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    let route = head.extensions.get::<Route>();
    let pod = route.and_then(Route::requested_pod).unwrap_or("any");
    let text = format!("{} {} {body} at {pod}", head.method, head.uri);
    Ok(Response::new(text))
}

#[tokio::test(start_paused = true)]
async fn a_function_answers_all_request_methods_of_the_client() {
    let client = Client::from_fn(echo);
    let response = client.post("/a?b").body("body").await.expect("a response");
    assert_eq!(response.body().endpoint(), None);
    assert_eq!(
        text(response).await,
        "POST http://from-fn.test/a?b body at any"
    );
    let response = client.pod("web-3").get("/").await.expect("a response");
    assert_eq!(text(response).await, "GET http://from-fn.test/  at web-3");
    assert!(client.endpoints().is_empty());
    assert!(
        client
            .get("no path")
            .await
            .expect_err("no path")
            .is_request()
    );
}

#[test]
fn from_fn_needs_no_runtime() {
    let client = Client::from_fn(echo);
    let response = futures::executor::block_on(client.get("/").into_future());
    assert_eq!(response.expect("a response").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_s_own_timeout_counts_with_from_fn() {
    let client = Client::from_fn(async |_| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(Response::new(""))
    });
    let late = client.get("/").timeout(Duration::from_secs(59));
    assert!(late.await.expect_err("it is late").is_timeout());
    let in_time = client.get("/").timeout(Duration::from_secs(61));
    assert_eq!(in_time.await.expect("in time").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_error_from_the_function_reaches_the_caller_unchanged() {
    let client = Client::from_fn(async |_: Request<RequestBody>| -> Answer {
        let nobody = Client::builder("http://web.default".parse().expect("a URI"));
        let nobody = nobody.discovery(StaticEndpoints::new([])).build();
        Err(nobody
            .expect("a client")
            .get("/")
            .await
            .expect_err("nobody is there"))
    });
    let error = client.get("/").await.expect_err("the function's");
    assert!(error.is_no_endpoints() && !error.is_layer(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_is_a_layer_error() {
    let broken = tower::service_fn(async |_: Request<RequestBody>| {
        Err::<Response<ResponseBody>, _>(io::Error::other("broken"))
    });
    let error = get(&Client::from_service(broken), "/").await;
    let error = error.expect_err("it is broken");
    assert!(error.is_layer() && !error.is_unexecuted(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_client_with_pods_can_be_answered_by_a_layer() {
    let pod = Endpoint::new(([10, 0, 0, 1], 80).into());
    let named = pod.clone();
    let answer = tower::service_fn(move |_: Request<RequestBody>| {
        let mut response = Response::new(ResponseBody::from("ok"));
        response.extensions_mut().insert(named.clone());
        async move { Ok::<_, Infallible>(response) }
    });
    let client = Client::builder("http://web.default".parse().expect("a URI"))
        .discovery(StaticEndpoints::new([pod.address()]))
        .build()
        .expect("a client")
        .layer(tower::layer::layer_fn(move |_| answer.clone()));
    know(&client).await;
    assert_eq!(client.endpoints().len(), 1);
    let response = client.get("/").await.expect("a response");
    assert_eq!(response.body().endpoint(), Some(&pod));
    let all = client.get("/").broadcast().all().await.expect("all answer");
    assert_eq!(all.answered.len(), 1);
}

#[tokio::test]
async fn a_response_s_body_can_be_text_bytes_a_stream_or_nothing() {
    let bodies = [
        ResponseBody::from("text"),
        ResponseBody::from(String::from("text")),
        ResponseBody::from(Bytes::from_static(b"text")),
        ResponseBody::from(b"text".to_vec()),
        ResponseBody::from_stream(stream::iter(
            ["te", "xt"].map(|it| Ok::<_, Infallible>(Bytes::from(it))),
        )),
        ResponseBody::new(ResponseBody::from("text")),
    ];
    for body in bodies {
        assert_eq!(text(Response::new(body)).await, "text");
    }
    for body in [
        ResponseBody::default(),
        ResponseBody::empty(),
        ().into(),
        "".into(),
    ] {
        assert!(http_body::Body::is_end_stream(&body));
        assert_eq!(text(Response::new(body)).await, "");
    }
    let client = Client::from_fn(async |_| {
        let broken = [Ok(Bytes::from("te")), Err(io::Error::other("broken"))];
        Ok(Response::new(ResponseBody::from_stream(stream::iter(
            broken,
        ))))
    });
    let response = client.get("/").await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let error = response.into_body().collect().await.expect_err("broken");
    assert!(error.is_layer(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_function_gets_no_request_that_pods_would_not_get() {
    let client = Client::from_fn(echo);
    let error = client.get("http://evil/x").await.expect_err("another");
    assert!(error.is_foreign(), "{error}");
    let long = client.post("/").header("content-length", "7").body("body");
    let error = long.await.expect_err("another length");
    assert!(error.is_request(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_about_a_function_s_response_names_no_pod() {
    let client = Client::from_fn(async |_: Request<RequestBody>| {
        let mut response = Response::new("no JSON");
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    });
    let response = client.get("/a?b").response_limit(2).await;
    let response = response.expect("a response");
    assert_eq!(response.endpoint(), None);
    let status = response.error_for_status_ref().map(drop);
    let status = status.expect_err("503");
    let text = "request to from-fn.test: GET /a was answered with 503 Service Unavailable";
    assert_eq!(status.to_string(), text);
    let limit = response.text().await.expect_err("more than two bytes");
    let json = client.get("/").await.expect("a response").json::<u8>();
    for error in [status, limit, json.await.expect_err("no JSON")] {
        assert_eq!((error.endpoint(), error.pod()), (None, None), "{error}");
        assert!(!error.to_string().contains("0.0.0.0"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_body_keeps_failing() {
    let client = Client::from_fn(async |_| {
        let broken = [Ok(Bytes::from("te")), Err(io::Error::other("broken"))];
        Ok(Response::new(ResponseBody::from_stream(stream::iter(
            broken,
        ))))
    });
    let mut response = client.get("/").await.expect("a response");
    assert_eq!(
        response.chunk().await.expect("a piece").as_deref(),
        Some(&b"te"[..])
    );
    for _ in 0..3 {
        let error = response.chunk().await.expect_err("broken");
        assert!(error.is_layer(), "{error}");
        assert!(!http_body::Body::is_end_stream(response.body()));
    }
}

#[tokio::test]
async fn a_function_can_read_the_request_s_body() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = seen.clone();
    let client = Client::from_fn(move |request: Request<RequestBody>| {
        let seen = seen.clone();
        async move {
            let text = request.into_body().text().await.expect("a body");
            seen.lock().expect("no panic").push(text);
            Ok(Response::new(""))
        }
    });
    let chunks = ["a ", "stream"].map(|it| Ok::<_, Infallible>(Bytes::from(it)));
    let streamed = RequestBody::from_stream(stream::iter(chunks));
    client.post("/").body(streamed).await.expect("a response");
    client.post("/").json(&[1, 2]).await.expect("a response");
    client.get("/").await.expect("a response");
    assert_eq!(*all.lock().expect("no panic"), ["a stream", "[1,2]", ""]);
    let broken = RequestBody::from_stream(stream::iter([Err(io::Error::other("broken"))]));
    let error = broken.bytes().await.expect_err("it is broken");
    assert_eq!(error.to_string(), "broken");
    client.discovered().await.expect("it needs none");
}
