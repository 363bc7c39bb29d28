//! The pods of the throughput and memory suites: listeners on loopback addresses, on one thread of their own.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use bytes::Bytes;
use futures::future::{Either, ready};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
};
use tonic::body::Body;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

/// What the pods' threads are called, so that what they compute is told from what the clients do.
pub const THREAD: &str = "pods";

/// As long as an answer of a small API may be.
const BODY: &[u8] = &[b'x'; 128];

/// Pods that answer HTTP/1.1, HTTP/2, and gRPC's health checks, until they are dropped.
pub struct Pods {
    pub addresses: Vec<SocketAddr>,
    _stop: oneshot::Sender<()>,
}

impl Pods {
    pub fn start(len: u8) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tell.send(listen(len).await).expect("the caller waits");
                let _ = stopped.await;
            });
        };
        let named = thread::Builder::new().name(THREAD.to_owned());
        named.spawn(serve).expect("a thread");
        Self {
            addresses: told.recv().expect("pods listen"),
            _stop: stop,
        }
    }
}

async fn listen(len: u8) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for host in 1..=len {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, host), 0)).await;
        let listener = listener.expect("an address of the loopback network");
        addresses.push(listener.local_addr().expect("bound"));
        let (_, health) = tonic_health::server::health_reporter();
        tokio::spawn(pod(listener, health));
    }
    addresses
}

async fn pod<H: Health>(listener: TcpListener, health: HealthServer<H>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, health.clone()));
    }
}

async fn connection<H: Health>(stream: TcpStream, health: HealthServer<H>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(&health, request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(crate) fn answer<H: Health>(
    health: &HealthServer<H>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<H> {
    if request.uri().path() != "/" {
        return Either::Left(health.clone().call(request));
    }
    let body = Body::new(Full::new(Bytes::from_static(BODY)));
    Either::Right(ready(Ok(Response::new(body))))
}
