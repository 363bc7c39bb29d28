//! A pod of the HTTP benchmarks: it answers HTTP/1.1, HTTP/2, and gRPC's health checks.

use std::convert::Infallible;

use bytes::Bytes;
use futures::future::{Either, ready};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

/// An answer of a typical length for a small API.
const BODY: &[u8] = &[b'x'; 128];

/// Accepts connections until its task is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let (_, health) = tonic_health::server::health_reporter();
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
