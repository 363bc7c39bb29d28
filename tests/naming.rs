//! How clients and balancers can be stored, and what can be done with them and their futures. Most of it is proved by
//! compiling.

use std::{convert::Infallible, future::IntoFuture, sync::LazyLock};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_headless::{
    Answers, Balance, BoxError, Broadcast, Connected, Connections, Endpoint, Error as BalanceError,
    OnBodyEnd, OnResponse, Pinned, ResponseFuture as BalanceFuture, Retry, RetryFailed, RetryLayer,
    RetryUnavailable, StaticEndpoints,
    http::{
        Client, ClientBuilder, Error, PodClient, RequestBody, RequestBuilder, ResponseBody,
        ResponseFuture,
    },
};
use tower_http::trace::TraceLayer;
use tracing::Instrument;

/// The service of a pod, which answers with its port.
type Pod = BoxCloneSyncService<u32, u32, BoxError>;

fn balance() -> Balance<Pod> {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    Balance::builder(pods).build(|endpoint: &Endpoint| {
        let port = u32::from(endpoint.address().port());
        Pod::new(service_fn(
            move |request: u32| async move { Ok(port + request) },
        ))
    })
}

/// The service of a pod that speaks HTTP.
type HttpPod = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

/// A balancer that counts requests to the end of their bodies.
fn http_balance() -> Balance<HttpPod, OnBodyEnd> {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let balance = Balance::builder(pods).completion(OnBodyEnd::new());
    balance.build(|_: &Endpoint| {
        let answer = async |_| Ok::<_, BoxError>(Response::new(Full::from("ok")));
        HttpPod::new(service_fn(answer))
    })
}

/// A balancer over connections, each in a box, with retries around it.
type Retried = Retry<Balance<Connected<Pod>>, RetryFailed>;

fn retried() -> Retried {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let connect = service_fn(|endpoint: Endpoint| async move {
        let port = u32::from(endpoint.address().port());
        let answer = move |request: u32| async move { Ok::<_, BoxError>(port + request) };
        Ok::<_, BoxError>(Pod::new(service_fn(answer)))
    });
    let balance = Balance::builder(pods).build_connected(Connections::pooled(8, connect));
    RetryLayer::new(RetryFailed).layer(balance)
}

fn client() -> Client {
    Client::from_fn(async |_| Ok(Response::new("ok")))
}

fn is_kept_anywhere<T: Clone + Send + Sync + 'static>() {}
fn is_moved<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + 'static>() {}

#[test]
fn clients_and_balancers_can_be_cloned_and_shared_between_threads() {
    is_kept_anywhere::<Client>();
    is_kept_anywhere::<PodClient>();
    is_kept_anywhere::<Balance<Pod>>();
    is_kept_anywhere::<Balance<HttpPod, OnBodyEnd>>();
    is_kept_anywhere::<Pinned<Pod>>();
    is_kept_anywhere::<Pinned<Balance<HttpPod, OnBodyEnd>>>();
    is_kept_anywhere::<Retry<Balance<Pod>, RetryUnavailable>>();
    is_kept_anywhere::<Retried>();
    is_shared::<ClientBuilder>();
    is_shared::<RequestBuilder>();
}

#[test]
fn futures_can_move_between_threads_and_borrow_across_an_await() {
    is_moved::<ResponseFuture>();
    is_moved::<<RequestBuilder as IntoFuture>::IntoFuture>();
    is_moved::<BalanceFuture<Pod, u32, OnResponse>>();
    is_moved::<Broadcast<Response<ResponseBody>, Error>>();
    is_moved::<Answers<Response<ResponseBody>, Error>>();
    is_shared::<Request<RequestBody>>();
    is_shared::<Response<ResponseBody>>();
    is_shared::<Error>();
    is_shared::<BalanceError>();
}

#[tokio::test(start_paused = true)]
async fn requests_can_be_spawned_joined_and_instrumented() {
    let client = client();
    let spawned = tokio::spawn(client.get("/").into_future());
    assert!(spawned.await.expect("no panic").is_ok());
    let borrowed = client.clone();
    let in_a_task = tokio::spawn(async move {
        let response = borrowed.get("/").await?;
        tokio::task::yield_now().await;
        Ok::<_, Error>(response.status())
    });
    assert_eq!(in_a_task.await.expect("no panic").expect("a response"), 200);
    let answers = join_all((0..3).map(|_| client.get("/").into_future())).await;
    assert!(answers.iter().all(Result::is_ok));
    let span = tracing::info_span!("request");
    let instrumented = tokio::spawn(client.get("/").into_future().instrument(span.clone()));
    assert!(instrumented.await.expect("no panic").is_ok());

    let balance = balance();
    let spawned = tokio::spawn(balance.clone().oneshot(7));
    assert_eq!(spawned.await.expect("no panic").expect("a response"), 87);
    // `oneshot` doesn't compile in an async block, because the pods' error is a `BoxError`.
    let in_a_task = tokio::spawn({
        let (balance, pod) = (balance.clone(), balance.pod("127.0.0.1:80"));
        async move { (balance.send(7).await, pod.send(7).await.is_err()) }
    });
    let (any, _) = in_a_task.await.expect("no panic");
    assert_eq!(any.expect("a response"), 87);
    let answers = join_all((0..3).map(|_| balance.clone().oneshot(7))).await;
    assert!(answers.iter().all(Result::is_ok));
    let instrumented = tokio::spawn(balance.oneshot(7).instrument(span));
    assert!(instrumented.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_service_becomes_a_trait_object() {
    type Http = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody>, Error>;
    let request = || Request::get("/").body(Full::default()).expect("a request");
    for client in [client(), client().layer(TraceLayer::new_for_http())] {
        let boxed = Http::new(client);
        let response = boxed.clone().oneshot(request()).await;
        assert_eq!(response.expect("a response").status(), 200);
    }
    let pod = Http::new(client().pod("web-0"));
    assert!(pod.oneshot(request()).await.is_ok());

    let boxed = BoxCloneSyncService::<u32, u32, BalanceError>::new(balance());
    assert_eq!(boxed.oneshot(7).await.expect("a response"), 87);
}

/// A trait of your own, which hides the balancer's type.
trait CloneService: Service<u32, Response = u32, Error = BalanceError, Future: Send> {
    fn cloned(&self) -> Box<dyn CloneService<Future = Self::Future> + Send + Sync>;
}

impl<S> CloneService for S
where
    S: Service<u32, Response = u32, Error = BalanceError, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    fn cloned(&self) -> Box<dyn CloneService<Future = Self::Future> + Send + Sync> {
        Box::new(self.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_becomes_a_trait_object_of_your_own_trait() {
    let mut boxed = balance().cloned();
    let answer = boxed.ready().await.expect("it is ready").call(7);
    assert_eq!(answer.await.expect("a response"), 87);
}

static CLIENT: LazyLock<Client> = LazyLock::new(client);
static BALANCE: LazyLock<Balance<Pod>> = LazyLock::new(balance);

#[tokio::test(start_paused = true)]
async fn a_client_in_a_static_can_be_used_directly() {
    assert_eq!(CLIENT.get("/").await.expect("a response").status(), 200);
    assert_eq!(BALANCE.clone().oneshot(7).await.expect("a response"), 87);
}

/// Balancers of more complex types than `Balance<MyService>`, in fields.
struct Kept {
    http: Balance<HttpPod, OnBodyEnd>,
    retried: Retried,
}

#[tokio::test(start_paused = true)]
async fn a_field_s_type_names_the_completion_the_connection_or_the_retries() {
    let kept = Kept {
        http: http_balance(),
        retried: retried(),
    };
    let request = Request::get("/").body(Full::default());
    let response = kept.http.oneshot(request.expect("a request")).await;
    assert_eq!(response.expect("a response").status(), 200);
    assert_eq!(kept.retried.oneshot(7).await.expect("a response"), 87);
}

/// Code that only sends requests, and fields that hold the service.
struct Shop<S> {
    pods: S,
    client: Client,
}

impl<S> Shop<S>
where
    S: Service<u32, Response = u32, Error: Into<BoxError>> + Clone,
{
    async fn price(&self) -> Result<u32, BoxError> {
        let _ = self.client.get("/").await?;
        self.pods.clone().oneshot(7).await.map_err(Into::into)
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_is_a_type_or_a_parameter() {
    let shop = Shop {
        pods: balance(),
        client: client(),
    };
    assert_eq!(shop.price().await.expect("a price"), 87);
    let pods = service_fn(async |request: u32| Ok::<_, Infallible>(request));
    let shop = Shop {
        pods,
        client: client(),
    };
    assert_eq!(shop.price().await.expect("a price"), 7);
}

#[tokio::test(start_paused = true)]
async fn axum_keeps_a_client_as_its_state() {
    use axum::{Router, extract::State, routing::get};
    async fn front(State(pods): State<Client>) -> String {
        let response = pods.get("/").await.expect("a response");
        let body = response.into_body().collect().await.expect("a body");
        String::from_utf8(body.to_bytes().to_vec()).expect("text")
    }
    let app = Router::new().route("/", get(front)).with_state(client());
    let request = Request::get("/").body(Empty::<Bytes>::new());
    let response = app.oneshot(request.expect("a request")).await;
    let body = response.expect("a response").into_body().collect().await;
    assert_eq!(body.expect("a body").to_bytes(), "ok");
}
