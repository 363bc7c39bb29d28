//! The client in axum's handlers: JSON in and out, bodies passed on, and answers for the client's errors.
//!
//! ```text
//! cargo run --features json,test-util --example axum     # starts its own cluster; needs nothing but loopback
//! ```
//!
//! | the client's error | answer | because |
//! | --- | --- | --- |
//! | `is_request` | 400 | the caller's path or a header isn't valid |
//! | `is_unexecuted` | 503 | no pod executed the request: there is none, or none accepts requests. The caller may ask again |
//! | `is_timeout` | 504 | a pod got the request, and didn't answer in time |
//! | `status` | the pod's | `error_for_status` turned the pod's answer into an error |
//! | any other | 502 | the pod failed, or its answer isn't what was asked for |

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_headless::{
    BoxError,
    http::{Client, Error, RequestBody},
    test_util::{Cluster, Mode},
};

/// A handler's error. It lets `?` convert the client's errors.
struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let error = self.0;
        let status = match &error {
            error if error.is_request() => StatusCode::BAD_REQUEST,
            error if error.is_unexecuted() => StatusCode::SERVICE_UNAVAILABLE,
            error if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            error => error.status().unwrap_or(StatusCode::BAD_GATEWAY),
        };
        // The text names the service and the pod. For strangers, log it instead.
        (status, format!("{error}\n")).into_response()
    }
}

/// JSON from a pod. The path is passed on as it came, percent-encoded.
async fn show(State(pods): State<Client>, uri: Uri) -> Result<Json<Value>, Failed> {
    let cart = pods.get(uri.path()).await?.error_for_status()?;
    Ok(Json(cart.json().await?))
}

/// JSON to a pod, and its answer back, whatever it is. A POST is sent again only if no pod has executed it.
async fn add(
    State(pods): State<Client>,
    uri: Uri,
    Json(item): Json<Value>,
) -> Result<Response, Failed> {
    let answer = pods.post(uri.path()).json(&item).await?;
    Ok(answer.into_inner().map(Body::new))
}

/// Passes bodies on as they come, both ways: no more is in memory than a connection holds.
async fn upload(State(pods): State<Client>, uri: Uri, body: Body) -> Result<Response, Failed> {
    let answer = pods.put(uri.path()).body(RequestBody::new(body)).await?;
    Ok(answer.into_inner().map(Body::new))
}

fn app(pods: Client) -> Router {
    Router::new()
        .route("/carts/{user}", get(show).post(add))
        .route("/files/{name}", put(upload))
        .with_state(pods)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    clap::Command::new("axum")
        .about(
            "The client in axum's handlers, over two pods: JSON in and out, a body passed\n\
             on, and what is answered when the pods hang or are down.",
        )
        .override_usage("cargo run --features json,test-util --example axum")
        .get_matches();
    let pod = pod();
    let cluster = Cluster::builder()
        .pods(2)
        .answer(move |_, request| pod.clone().oneshot(request))
        .start()
        .await;
    // In a cluster: `Client::builder("http://carts-headless.shop:80".parse()?)`.
    let pods = cluster
        .client()
        .timeout(Duration::from_secs(2)) // a hung pod would keep a handler for ever
        .ready_timeout(Duration::from_millis(500)) // how long requests wait while every pod is down
        .build()?;
    // In a cluster: `axum::serve(listener, app(pods)).await`.
    let app = app(pods);

    assert_eq!(ask(&app, "GET", "/carts/ada", "").await?, 200);
    assert_eq!(
        ask(&app, "POST", "/carts/ada", r#"{"name":"tea"}"#).await?,
        201
    );
    assert_eq!(ask(&app, "PUT", "/files/notes", "hello").await?, 200);
    assert_eq!(ask(&app, "GET", "/carts/bob", "").await?, 404);
    for pod in cluster.pods() {
        pod.set(Mode::Hung);
    }
    println!("\nboth pods hang");
    assert_eq!(ask(&app, "GET", "/carts/ada", "").await?, 504);
    cluster.kill(0).await;
    cluster.kill(1).await;
    println!("\nboth pods are down");
    assert_eq!(ask(&app, "GET", "/carts/ada", "").await?, 503);
    Ok(())
}

/// Asks the application as its callers do, and prints what they get.
async fn ask(
    app: &Router,
    method: &str,
    path: &str,
    body: &'static str,
) -> Result<StatusCode, BoxError> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.body(Body::from(body))?;
    let response = app.clone().oneshot(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await?;
    let body = String::from_utf8_lossy(&body);
    println!("{method:4} {path:12} {status}: {}", body.trim_end());
    Ok(status)
}

// ---------------------------------------------------------------- the pods

fn pod() -> Router {
    let cart = async |uri: Uri| match uri.path() {
        "/carts/ada" => Json(json!([{ "name": "bread" }])).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    let added = async |Json(item): Json<Value>| (StatusCode::CREATED, Json(item));
    let stored = async |body: String| format!("{} bytes", body.len());
    Router::new()
        .route("/carts/{user}", get(cart).post(added))
        .route("/files/{name}", put(stored))
}
