//! The peers, each shared between callers as its users would.

use std::{
    hint,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{
    Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    service_fn,
};
use tower_headless::{
    Policy, RoundRobin, StaticEndpoints,
    http::{Client, Protocol},
};

use crate::load::Caller;

type NoBody = Empty<Bytes>;

/// Gives each request the next item.
pub(crate) struct Turns<T> {
    things: Arc<[T]>,
    cursor: Arc<AtomicUsize>,
}

/// Clones share the turns.
impl<T> Clone for Turns<T> {
    fn clone(&self) -> Self {
        Self {
            things: self.things.clone(),
            cursor: self.cursor.clone(),
        }
    }
}

impl<T> Turns<T> {
    fn new(things: impl IntoIterator<Item = T>) -> Self {
        Self {
            things: things.into_iter().collect(),
            cursor: Arc::default(),
        }
    }

    fn next(&self) -> &T {
        match &*self.things {
            [only] => only,
            things => &things[self.cursor.fetch_add(1, Relaxed) % things.len()],
        }
    }
}

fn uris(pods: &[SocketAddr]) -> Turns<Uri> {
    let uri = |pod| format!("http://{pod}/").parse().expect("a URI");
    Turns::new(pods.iter().map(uri))
}

/// Sends requests to a service, each with the next of some URIs.
#[derive(Clone)]
pub(crate) struct Over<S> {
    service: S,
    uris: Turns<Uri>,
}

impl<S, B> Caller for Over<S>
where
    S: Service<Request<NoBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: std::fmt::Debug + Send,
{
    async fn request(&mut self) {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uris.next().clone();
        let ready = self.service.ready().await.expect("readiness");
        let response = ready.call(request).await.expect("a response");
        read(response.into_body()).await;
    }
}

async fn read<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    while let Some(frame) = body.frame().await {
        hint::black_box(frame.expect("a frame"));
    }
}

/// Our client.
pub(crate) fn ours<P: Policy>(pods: &[SocketAddr], protocol: Protocol, policy: P) -> Over<Client> {
    Over {
        service: client(pods, protocol, policy),
        uris: Turns::new([Uri::from_static("/")]),
    }
}

fn client<P: Policy>(pods: &[SocketAddr], protocol: Protocol, policy: P) -> Client {
    let service = Uri::from_static("http://nginx-headless.default:80");
    Client::builder(service)
        .discovery(StaticEndpoints::new(pods.iter().copied()))
        .protocol(protocol)
        .policy(policy)
        .build()
        .expect("a client")
}

/// Our client, called as a program would: `client.get("/").await`.
#[derive(Clone)]
pub(crate) struct Get(Client);

impl Get {
    pub(crate) fn new(pods: &[SocketAddr], protocol: Protocol) -> Self {
        Self(client(pods, protocol, RoundRobin::new()))
    }
}

impl Caller for Get {
    async fn request(&mut self) {
        let response = self.0.get("/").await.expect("a response");
        read(response.into_body()).await;
    }
}

/// The least that HTTP/1.1 can cost: the pod's connection that was used last.
#[derive(Clone)]
pub(crate) struct Http1Limit(Turns<Http1Pod>);

struct Http1Pod {
    address: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<http1::SendRequest<NoBody>>>,
}

impl Http1Limit {
    pub(crate) fn new(pods: &[SocketAddr]) -> Self {
        Self(Turns::new(pods.iter().map(|&address| Http1Pod {
            address,
            host: HeaderValue::from_static("nginx-headless.default:80"),
            idle: Mutex::default(),
        })))
    }
}

impl Http1Pod {
    async fn connection(&self) -> http1::SendRequest<NoBody> {
        if let Some(idle) = self.idle.lock().expect("no panics").pop() {
            return idle;
        }
        let io = TokioIo::new(dial(self.address).await);
        let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }
}

impl Caller for Http1Limit {
    async fn request(&mut self) {
        let pod = self.0.next();
        let mut request = Request::new(Empty::new());
        request.headers_mut().insert(HOST, pod.host.clone());
        let mut connection = pod.connection().await;
        connection.ready().await.expect("an open connection");
        let response = connection.send_request(request).await;
        read(response.expect("a response").into_body()).await;
        pod.idle.lock().expect("no panics").push(connection);
    }
}

async fn dial(pod: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(pod).await.expect("the pod listens");
    stream.set_nodelay(true).expect("a connection");
    stream
}

/// The least that HTTP/2 can cost: one connection for each pod, and each caller with its own handle.
pub(crate) async fn http2_limit(pods: &[SocketAddr]) -> Over<impl Http2Limit<NoBody>> {
    Over {
        service: http2_pods(pods).await,
        uris: Turns::new([Uri::from_static("http://nginx-headless.default:80/")]),
    }
}

/// A service of requests with such bodies over bare connections.
pub(crate) trait Http2Limit<B>:
    Service<Request<B>, Response = Response<Incoming>, Error = hyper::Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<B, S> Http2Limit<B> for S where
    S: Service<Request<B>, Response = Response<Incoming>, Error = hyper::Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

async fn http2_pods<B>(pods: &[SocketAddr]) -> impl Http2Limit<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let mut senders = Vec::new();
    for &pod in pods {
        let io = TokioIo::new(dial(pod).await);
        let handshake = http2::handshake(TokioExecutor::new(), io);
        let (sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        senders.push(sender);
    }
    let turns = Turns::new(0..pods.len());
    // hyper says that HTTP/2 connections are always ready.
    service_fn(move |request| senders[*turns.next()].send_request(request))
}

type Legacy = legacy::Client<HttpConnector, NoBody>;

fn legacy_client(http2: bool) -> Legacy {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector)
}

/// hyper-util's client with its pool. It can't balance, so each request names the next pod.
pub(crate) fn legacy(pods: &[SocketAddr], http2: bool) -> Over<Legacy> {
    Over {
        service: legacy_client(http2),
        uris: uris(pods),
    }
}

/// hyper-util's client for one pod.
#[derive(Clone)]
pub(crate) struct LegacyPod {
    client: Legacy,
    uri: Uri,
}

impl Service<Request<NoBody>> for LegacyPod {
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<NoBody>) -> Self::Future {
        *request.uri_mut() = self.uri.clone();
        self.client.request(request)
    }
}

type P2c = p2c::Balance<ServiceList<Vec<PendingRequests<LegacyPod>>>, Request<NoBody>>;
type Shared = Buffer<Request<NoBody>, <P2c as Service<Request<NoBody>>>::Future>;

/// tower's balancer over hyper-util's clients, shared in tower's way.
pub(crate) fn p2c(pods: &[SocketAddr], http2: bool) -> Over<Shared> {
    let pods = uris(pods);
    let service = |uri: &Uri| LegacyPod {
        client: legacy_client(http2),
        uri: uri.clone(),
    };
    let counted = |pod| PendingRequests::new(service(pod), CompleteOnResponse::default());
    let services = pods.things.iter().map(counted).collect();
    let balance = P2c::new(ServiceList::new::<Request<NoBody>>(services));
    Over {
        service: Buffer::new(balance, 1024),
        uris: Turns::new([Uri::from_static("/")]),
    }
}

/// reqwest. It can't balance, either.
#[derive(Clone)]
pub(crate) struct Reqwest {
    client: reqwest::Client,
    urls: Turns<reqwest::Url>,
}

impl Reqwest {
    pub(crate) fn new(pods: &[SocketAddr], http2: bool) -> Self {
        let mut builder = reqwest::Client::builder().no_proxy();
        if http2 {
            builder = builder.http2_prior_knowledge();
        }
        let url = |pod| format!("http://{pod}/").parse().expect("a URL");
        Self {
            client: builder.build().expect("a client"),
            urls: Turns::new(pods.iter().map(url)),
        }
    }
}

impl Caller for Reqwest {
    async fn request(&mut self) {
        let url = self.urls.next().clone();
        let request = reqwest::Request::new(reqwest::Method::GET, url);
        let response = self.client.execute(request).await.expect("a response");
        read(reqwest::Body::from(response)).await;
    }
}

/// gRPC's health check, by its generated client, over some transport.
#[derive(Clone)]
pub(crate) struct Check<T>(HealthClient<T>);

macro_rules! check {
    ($transport:ty $(, $($generic:tt)*)?) => {
        impl $(<$($generic)*>)? Caller for Check<$transport> {
            async fn request(&mut self) {
                let service = String::new();
                let checked = self.0.check(HealthCheckRequest { service }).await;
                hint::black_box(checked.expect("an answer"));
            }
        }
    };
}
check!(Channel);
check!(Client);
check!(Bare<S>, S: Http2Limit<tonic::body::Body>);

/// A transport of bare connections.
#[derive(Clone)]
pub(crate) struct Bare<S>(S);

impl<S: Http2Limit<tonic::body::Body>> Service<Request<tonic::body::Body>> for Bare<S> {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        self.0.call(request)
    }
}

pub(crate) fn grpc_ours<P: Policy>(pods: &[SocketAddr], policy: P) -> Check<Client> {
    Check(HealthClient::new(client(pods, Protocol::Http2, policy)))
}

pub(crate) async fn grpc_limit(
    pods: &[SocketAddr],
) -> Check<Bare<impl Http2Limit<tonic::body::Body>>> {
    let origin = Uri::from_static("http://nginx-headless.default:80");
    Check(HealthClient::with_origin(
        Bare(http2_pods(pods).await),
        origin,
    ))
}

/// tonic's own balancer: tower's p2c behind a Buffer.
pub(crate) fn grpc_channel(pods: &[SocketAddr]) -> Check<Channel> {
    let endpoint = |pod| Channel::from_shared(format!("http://{pod}")).expect("a URI");
    let channel = Channel::balance_list(pods.iter().map(endpoint));
    Check(HealthClient::new(channel))
}
