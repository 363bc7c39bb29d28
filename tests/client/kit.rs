//! Pods made by hand, and other helpers for the client's tests.

// `pub` marks what other test files use; no other crate can reach it.
#![allow(unreachable_pub)]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};
use tower::ServiceExt;
use tower_headless::{
    BoxError, Discovery, Endpoint, EndpointState, OutlierDetection, StaticEndpoints,
    http::{Client, ClientBuilder, Error, ResponseBody},
};

pub use crate::support::refuse_at;
use crate::support::within;

pub const SERVICE: &str = "web.default.svc.cluster.local:8080";

/// An answer that keeps the connection open.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An answer after which the connection speaks another protocol.
pub const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// A builder of a client of the service, over these pods.
pub fn builder(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    unresolved("http").discovery(StaticEndpoints::new(pods))
}

pub fn unresolved(scheme: &str) -> ClientBuilder {
    let uri = format!("{scheme}://{SERVICE}");
    Client::builder(uri.parse().expect("a URI"))
}

pub fn client(pods: impl IntoIterator<Item = SocketAddr>) -> Client {
    builder(pods).build().expect("a client")
}

/// A listener for a test's pod, and its address.
pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// An address that refuses connections.
pub async fn refusing() -> SocketAddr {
    refuse_at(([127, 0, 0, 1], 0).into())
}

/// Accepts the client's next connection.
pub async fn accept(listener: &TcpListener) -> Peer<TcpStream> {
    let (stream, _) = within("a connection", listener.accept())
        .await
        .expect("a connection");
    Peer::new(stream)
}

/// The pod's side of a connection.
pub struct Peer<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Reads a request's head up to its empty line; none if the connection ends before that.
    pub async fn try_head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).expect("a head is text"))
    }

    pub async fn head(&mut self) -> String {
        within("a request", self.try_head())
            .await
            .expect("a request")
    }

    /// Reads the next bytes.
    pub async fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        within("bytes", self.0.read_exact(&mut bytes))
            .await
            .expect("bytes");
        bytes
    }

    /// Waits for something to read.
    pub async fn arrived(&mut self) {
        // An error is left for the next read.
        let _ = self.0.fill_buf().await;
    }

    /// Waits for something to read; returns whether there is any before the connection ends.
    pub async fn is_open(&mut self) -> bool {
        self.0.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Reads up to and including `last`.
    pub async fn until(&mut self, last: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(last.as_bytes()) {
            text.extend(self.bytes::<1>().await);
        }
        String::from_utf8(text).expect("text")
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // In some tests the client has gone, so errors are ignored.
        let _ = self.0.get_mut().write_all(bytes.as_ref()).await;
        let _ = self.0.get_mut().flush().await;
    }

    /// Writes, and returns whether the client still takes it.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).await.is_ok()
    }

    /// Reads a request's head and writes this response.
    pub async fn answer(&mut self, response: &str) -> String {
        let head = self.head().await;
        self.write(response).await;
        head
    }

    /// Waits for the client to close the connection, and discards what it sends before.
    pub async fn closed(&mut self) {
        let end = async { while self.0.read_u8().await.is_ok() {} };
        within("the connection's end", end).await;
    }

    /// Reads to the client's end of the stream. An error if the client didn't end it properly (TLS).
    pub async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let read = within("the request's end", self.0.read_to_end(&mut rest));
        read.await.map(|_| rest)
    }

    /// Whether the client has neither closed the connection nor sent anything. Only for the absence of events, which
    /// can't be awaited.
    pub async fn is_quiet(&mut self) -> bool {
        let moment = Duration::from_millis(50);
        tokio::time::timeout(moment, self.0.read_u8())
            .await
            .is_err()
    }

    /// The connection; nothing of it may have been read yet.
    pub fn into_inner(self) -> S {
        self.0.into_inner()
    }
}

/// Counts events.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A pod that passes each of its connections to `connection`.
pub async fn pod<F>(connection: impl Fn(Peer<TcpStream>) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(Peer::new(stream)));
        }
    });
    address
}

/// A pod that answers every request, and how many it has had. It would take a request's body for another request.
pub async fn answering() -> (SocketAddr, Count) {
    let requests = Count::default();
    let seen = requests.clone();
    let answer = move |mut peer: Peer<TcpStream>| {
        let seen = seen.clone();
        async move {
            while peer.try_head().await.is_some() {
                seen.add();
                peer.write(OK).await;
            }
        }
    };
    (pod(answer).await, requests)
}

/// A pod that reads a request's head and then closes the connection, and how many requests it has had.
pub async fn losing() -> (SocketAddr, Count) {
    let requests = Count::default();
    let seen = requests.clone();
    let lose = move |mut peer: Peer<TcpStream>| {
        let seen = seen.clone();
        async move {
            if peer.try_head().await.is_some() {
                seen.add();
            }
        }
    };
    (pod(lose).await, requests)
}

/// A request that upgrades its connection to another protocol.
pub fn upgrading(method: &Method, uri: &str) -> Request<Empty<Bytes>> {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("connection", "upgrade");
    let request = request.header("upgrade", "echo").body(Empty::new());
    request.expect("a request")
}

/// A pod that reads everything and never answers, and how many requests it has had.
pub async fn silent() -> (SocketAddr, Count) {
    let requests = Count::default();
    let seen = requests.clone();
    let swallow = move |mut peer: Peer<TcpStream>| {
        let seen = seen.clone();
        async move {
            while peer.try_head().await.is_some() {
                seen.add();
            }
        }
    };
    (pod(swallow).await, requests)
}

/// Waits until the client knows its pods, so that the first request goes to the first of them without waiting.
pub async fn know(client: &Client) {
    within("the pods", client.watch().next()).await;
}

/// How many requests are in flight, over all pods.
pub fn in_flight(client: &Client) -> u32 {
    let pods = client.endpoints().into_iter();
    pods.map(|pod| pod.in_flight).sum()
}

/// Polls until `condition` holds, for events that nothing signals, such as the end of another task.
pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, met).await;
}

/// Reads the whole body as text.
pub async fn text(response: impl Into<http::Response<ResponseBody>>) -> String {
    let body = response.into().into_body();
    let body = within("the body", body.collect()).await;
    let bytes = body.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Sends a request, and reads its response to the end.
pub async fn get(client: &Client, path: &str) -> Result<String, Error> {
    let response = within("a response", client.get(path).into_future()).await?;
    Ok(text(response).await)
}

/// A body of unknown length.
pub fn stream_of(
    chunks: &[&'static str],
) -> impl http_body::Body<Data = Bytes, Error = BoxError> + use<> {
    let frame = |&chunk: &&'static str| Ok(Frame::data(Bytes::from(chunk)));
    let frames: Vec<_> = chunks.iter().map(frame).collect();
    StreamBody::new(stream::iter(frames))
}

/// A body that a test writes piece by piece, and its sender.
pub fn written() -> (
    mpsc::UnboundedSender<&'static str>,
    impl http_body::Body<Data = Bytes, Error = BoxError> + use<>,
) {
    let (sender, mut chunks) = mpsc::unbounded_channel::<&'static str>();
    let frames = stream::poll_fn(move |cx| {
        let chunk = ready!(chunks.poll_recv(cx));
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    });
    (sender, StreamBody::new(frames))
}

/// A body with one piece, which fails when the test says so.
pub fn failing() -> (
    oneshot::Sender<()>,
    impl http_body::Body<Data = Bytes, Error = BoxError> + use<>,
) {
    let (fail, told) = oneshot::channel::<()>();
    let part = stream::iter([Ok(Frame::data(Bytes::from("a part")))]);
    let error = stream::once(async {
        let _ = told.await;
        Err("the disk is gone".into())
    });
    (fail, StreamBody::new(part.chain(error)))
}

/// A client that ejects a pod after one failure.
pub fn outliers(client: ClientBuilder<StaticEndpoints>) -> Client {
    let detection = OutlierDetection::new().consecutive_failures(1);
    let client = client.outlier_detection(detection);
    client.build().expect("a client")
}

/// Asserts that requests whose bodies fail after the response's head eject no pod.
pub async fn assert_blames_no_pod(client: &Client) {
    for _ in 0..12 {
        let (fail, body) = failing();
        let request = Request::post("/").body(body).expect("a request");
        let response = within("a head", client.clone().oneshot(request)).await;
        let body = response.expect("a head").into_body();
        fail.send(()).expect("somebody reads");
        let error = within("an error", body.collect()).await;
        let error = error.expect_err("no end");
        assert!(
            error.is_request_body() && !error.is_body() && error.endpoint().is_none(),
            "{error:?}"
        );
        assert_eq!(
            error.to_string(),
            "request to web.default.svc.cluster.local: the request's own body failed: the disk is gone"
        );
    }
    let states = client.endpoints().into_iter().map(|pod| pod.state);
    assert!(states.into_iter().all(|it| it == EndpointState::Available));
}

/// Discovery with sets that a test sends.
pub struct Sets(watch::Receiver<Vec<SocketAddr>>, Option<Waiting>);

type Waiting = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

pub fn sets(pods: Vec<SocketAddr>) -> (watch::Sender<Vec<SocketAddr>>, Sets) {
    let (sender, mut receiver) = watch::channel(pods);
    receiver.mark_changed();
    (sender, Sets(receiver, None))
}

impl Discovery for Sets {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let mut receiver = self.0.clone();
        let changed = self.1.get_or_insert_with(|| {
            Box::pin(async move {
                if receiver.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        ready!(changed.as_mut().poll(cx));
        self.1 = None;
        let set = self.0.borrow_and_update();
        Poll::Ready(Ok(set.iter().copied().map(Endpoint::new).collect()))
    }
}

/// Discovery that never answers.
pub struct Never;

impl Discovery for Never {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        Poll::Pending
    }
}
