//! kubelet's API, from which the API server fetches what `kubectl logs` shows.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    State,
    log::{self, Part},
    status::NODE_ADDRESS,
};
use crate::support::tls::Identity;

type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) async fn listen() -> TcpListener {
    let listener = TcpListener::bind((NODE_ADDRESS, 0)).await;
    listener.expect("the namespace has the node's address")
}

/// Answers until it is dropped; all connections end with it.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    // The API server accepts any certificate, unless it is given a CA.
    let acceptor = Identity::new("kubelet").acceptor();
    let acceptor = acceptor.expect("a certificate that was made for it");
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a port to listen on");
        connections.spawn(converse(acceptor.clone(), stream, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream, state: Arc<State>) {
    // Errors here mean that the API server broke off, because its client has read enough.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| {
        let state = state.clone();
        async { Ok::<_, Infallible>(answer(state, request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// `/containerLogs/NAMESPACE/POD/CONTAINER?tailLines=N&follow=true`
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let path: Vec<_> = request.uri().path().split('/').skip(1).collect();
    let ["containerLogs", _, pod, _] = path[..] else {
        return refusal(
            StatusCode::NOT_FOUND,
            "the node serves logs only".to_owned(),
        );
    };
    let part = match part(request.uri().query().unwrap_or_default()) {
        Ok(part) => part,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, why),
    };
    match log::read(state, pod, part).await {
        None => refusal(StatusCode::NOT_FOUND, format!("no pod {pod} runs here")),
        Some(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Some(Ok(log)) => Response::new(StreamBody::new(log).boxed_unsync()),
    }
}

/// Parses which part of the log is wanted.
fn part(query: &str) -> Result<Part, String> {
    let mut part = Part::default();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let unknown = || format!("the node's logs know no option {option}");
        match option.split_once('=') {
            Some(("follow", follow)) => part.follow = follow == "true",
            Some(("tailLines", lines)) => {
                part.tail = Some(lines.parse().map_err(|_| unknown())?);
            }
            _ => return Err(unknown()),
        }
    }
    Ok(part)
}

fn refusal(status: StatusCode, why: String) -> Response<Body> {
    let body = Full::from(why).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
