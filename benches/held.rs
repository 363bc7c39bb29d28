//! How much memory a client holds for responses that nobody reads, and for cancelled requests.
//!
//! `cargo bench --bench held` prints the figures in the documentation of `http::ClientBuilder`. The pod is in its own
//! process (this program, started as a pod), so that only the client's memory is measured: that of its process, as the
//! system counts it (`VmRSS`, Linux).

use std::{
    convert::Infallible,
    fs,
    future::IntoFuture,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, time::sleep};
use tower_headless::{
    StaticEndpoints,
    http::{Client, Protocol},
};

const MIB: usize = 1 << 20;
const STALLED: usize = 100;
const GIVEN_UP: usize = 100_000;
/// How many requests are cancelled at once.
const AT_ONCE: usize = 100;

const POD: &str = "--be-a-pod";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if std::env::args().any(|argument| argument == POD) {
        return runtime.block_on(serve());
    }
    // This one first, so that memory left by the other doesn't hide what it takes.
    runtime.block_on(given_up());
    runtime.block_on(stalled());
}

/// `/large` has 4 MiB; `/late` answers when its request has been cancelled.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/large" => Bytes::from(vec![0; 4 * MIB]),
        "/late" => {
            sleep(Duration::from_secs(3_600)).await;
            Bytes::new()
        }
        _ => Bytes::from("ok"),
    };
    Ok(Response::new(Full::new(body)))
}

async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(1_000);
            // Ends with the connection, with or without an error.
            let _ = server
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

struct Pod(Child, SocketAddr);

impl Pod {
    fn start() -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut child = Command::new(this)
            .arg(POD)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a pod");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("its address");
        Self(child, line.trim().parse().expect("an address"))
    }

    async fn client(&self) -> Client {
        let client = Client::builder("http://web:80".parse().expect("a URI"))
            .protocol(Protocol::Http2)
            .discovery(StaticEndpoints::new([self.1]))
            .build()
            .expect("a client");
        client.get("/").await.expect("a response");
        client
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse().expect("a number")
}

fn report(what: &str, before: usize, each: usize) {
    let more = resident().saturating_sub(before);
    println!(
        "{what}: {:.1} MiB, {:.1} KiB each",
        more as f64 / 1024.0,
        more as f64 / each as f64
    );
}

async fn stalled() {
    let pod = Pod::start();
    let client = pod.client().await;
    let before = resident();
    let heads = join_all((0..STALLED).map(|_| client.get("/large").into_future())).await;
    // Waits until the pod has filled the windows.
    sleep(Duration::from_secs(3)).await;
    report("100 unread responses of 4 MiB", before, STALLED);
    client.get("/").await.expect("a response meanwhile");
    drop(heads);
}

async fn given_up() {
    let pod = Pod::start();
    let client = pod.client().await;
    let before = resident();
    for _ in 0..GIVEN_UP / AT_ONCE {
        let mut asked = join_all((0..AT_ONCE).map(|_| client.get("/late").into_future()));
        assert!(futures::poll!(&mut asked).is_pending());
        // Waits until the pod has them.
        sleep(Duration::from_millis(20)).await;
    }
    report("100,000 requests given up", before, GIVEN_UP);
    report("for each of 10,000 that are remembered", before, 10_000);
    client
        .get("/")
        .await
        .expect("a response, over the same connection");
}
