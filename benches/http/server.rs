//! The pods: ten listeners in their own process, so that their computing time isn't counted as the client's.

use std::{
    convert::Infallible,
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
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
};
use tonic::body::Body;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;

pub(crate) const PODS: u8 = 10;

/// The argument that makes this program the pods.
const SERVE: &str = "--serve-pods";

/// The argument, of this program and of the pods, by which these never sleep.
const SPIN: &str = "--spin";

/// An answer of a typical length for a small API.
const BODY: &[u8] = &[b'x'; 128];

/// The client's handle of the pods' process.
pub(crate) struct Server {
    child: Child,
    pub(crate) pods: Vec<SocketAddr>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let this = env::current_exe().expect("the path of this program");
        let spin = env::args().find(|argument| argument == SPIN);
        let mut child = Command::new(this)
            .arg(SERVE)
            .args(spin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped above");
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("the addresses of the pods");
        let pods = line.split_whitespace().map(|pod| pod.parse());
        let pods: Result<Vec<_>, _> = pods.collect();
        let pods = pods.expect("addresses");
        assert_eq!(pods.len(), usize::from(PODS), "the pods listen");
        Self { child, pods }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process ends when its input does.
        self.child.stdin = None;
        let _ = self.child.wait();
    }
}

/// Runs the pods, to the end of the process, if it was started for that.
pub(crate) fn serve_if_told() {
    if !env::args().any(|argument| argument == SERVE) {
        return;
    }
    thread::spawn(|| {
        // Ends with the parent, however that ends, because the system closes its pipes.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    if env::args().any(|argument| argument == SPIN) {
        runtime.spawn(spin());
    }
    runtime.block_on(serve());
}

/// Always has something to do, so that the runtime polls its sockets and never sleeps.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn serve() {
    let mut addresses = Vec::new();
    for host in 1..=PODS {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).await;
        let listener = listener.expect("an address of the loopback network");
        addresses.push(listener.local_addr().expect("bound").to_string());
        let (_, health) = tonic_health::server::health_reporter();
        tokio::spawn(pod(listener, health));
    }
    println!("{}", addresses.join(" "));
    io::stdout().flush().expect("the parent listens");
    std::future::pending().await
}

async fn pod<H: Health>(listener: TcpListener, health: HealthServer<H>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, health.clone()));
    }
}

async fn connection<H: Health>(stream: TcpStream, health: HealthServer<H>) {
    stream.set_nodelay(true).expect("a connection");
    let service = service_fn(move |request| answer(&health, request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer<H: Health>(
    health: &HealthServer<H>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<H> {
    if request.uri().path() != "/" {
        return Either::Left(health.clone().call(request));
    }
    let body = Body::new(Full::new(Bytes::from_static(BODY)));
    Either::Right(ready(Ok(Response::new(body))))
}
