//! A load test of a service that changes: how the client copes with pods that come, go and die.
//!
//! ```text
//! cargo run --features test-util --example http_client              # starts its own cluster; needs nothing but loopback
//! cargo run --features test-util --example http_client -- --help
//! cargo run --features test-util --example http_client -- --policy least-connections
//! cargo run --features test-util --example http_client -- --url http://nginx-headless.default:80
//! cargo run --features test-util,kube-latest --example http_client -- --url http://nginx-headless.default:80 --watch
//! cargo run --features test-util --example http_client -- --service _http._tcp.nginx-headless.default --pod web-0   # or --key, --all
//! ```
//!
//! Without arguments it starts a DNS server and three pods, and sends requests at a steady rate while the service is
//! scaled 3 → 5 → 2 and one pod is killed without DNS knowing. With `--url` or `--service`, it does the same to a
//! service of yours, and you make the changes. With `--watch` it finds pods by the API server, which needs the right to
//! list and watch EndpointSlices.
//!
//! With `--observe` (features `inspect` and `metrics`) it serves `/metrics` for Prometheus, and a page that shows the
//! client's view of its pods.
//!
//! On a terminal it redraws a table. If its output is a pipe or a file, if `TERM` is `dumb`, or if `RUST_LOG` brings
//! logs to the same terminal, it writes a line each second instead.
//!
//! To learn how the crate is used, read [`run`], and `request` and `get` in `load.rs`. The rest is for show: `load.rs`
//! keeps the rate, `report.rs` and `screen.rs` show the results, `observe.rs` serves them, `story.rs` runs the cluster.

mod args;
mod load;
mod observe;
mod report;
mod screen;
mod story;
mod table;
mod watch;

use std::{convert::Infallible, env, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use futures::{StreamExt, future::OptionFuture};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{interval, sleep},
};
use tower_headless::{ConsistentHash, http::Client};
use tracing_subscriber::EnvFilter;

use args::Args;
use report::Report;
use story::Story;

/// How long a request may take, on top of the ready timeout, so that an error says why it waited.
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG=tower_headless=debug shows what the client does. Not on stdout, which has the table.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let failed = run(&args).await;
    ExitCode::from(u8::from(failed > 0))
}

/// The whole run. Returns how many requests failed.
async fn run(args: &Args) -> usize {
    let own = !args.has_service();
    let story = OptionFuture::from(own.then(Story::begin)).await;
    let (service, name_server) = match &story {
        Some(story) => (story.uri(), Some(story.name_server())),
        None => (args.uri(), args.nameserver),
    };
    // A pod on a loopback address is a mistake in a cluster, but not in the story.
    let allow_loopback = args.allow_loopback || story.is_some();

    let policy = match &args.key {
        // This policy sends a key to the pod that had it before. All requests have the same key, so with a bound on
        // load, its pod would leave some of them to the next one.
        Some(_) => ConsistentHash::new().load_factor(None).into(),
        None => args.policy.clone(),
    };
    // A service's name is all it takes; every setting has a default. Clone the client wherever requests come from:
    // clones share the pods and their connections.
    // A pod that refuses costs a request nothing: it goes to another one. A request that dies with its pod is sent
    // again if that is safe, as it is for a GET. An answer that breaks off after its headers has already reached the
    // caller, who gets the error.
    let client = Client::builder(service.clone())
        .policy(policy)
        .zone(args.zone.as_str())
        .node(args.node.as_str())
        .dns(|dns| dns.name_servers(name_server).allow_loopback(allow_loopback))
        .ready_timeout(args.ready_timeout)
        .timeout(args.ready_timeout + TIMEOUT);
    let client = match args.watch {
        true => client.discovery(watch::discovery(args, &service)).build(),
        false => client.build(),
    };
    let client = client.unwrap_or_else(|error| args.reject(error));

    let report = Arc::new(Report::new(
        &service,
        args,
        story.as_ref().map(|_| story::TTL),
    ));
    // Set in the manifest by the downward API.
    if let (Ok(pod), Ok(node)) = (env::var("POD_NAME"), env::var("NODE_NAME")) {
        report.note("client", &format!("in pod {pod} on node {node}"));
    }
    observe::serve(&client, args, &report).await;
    let mut interrupts = Interrupts::new();
    let mut requests = JoinSet::new();
    let told = OptionFuture::from(story.as_ref().map(|story| story.tell(&report)));
    tokio::select! {
        () = sleep(args.duration) => {}
        () = interrupts.next() => report.note("client", "interrupted"),
        never = load::send(&client, args, &mut requests, &report) => match never {},
        never = follow(&client, &report) => match never {},
        Some(never) = told => match never {},
    }
    // Requests that are under way may finish. A second interrupt doesn't wait for them.
    tokio::select! {
        () = async { while requests.join_next().await.is_some() {} } => {}
        () = interrupts.next() => report.note("client", "interrupted again: some answers are missing"),
    }
    report.summary(&client.endpoints())
}

/// ^C, and SIGTERM, which kubelet sends. An interrupt isn't lost if it comes while nobody waits for it.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Self {
        let catch = |kind| signal(kind).expect("a signal that can be caught");
        Self {
            interrupt: catch(SignalKind::interrupt()),
            terminate: catch(SignalKind::terminate()),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Shows the pods as they come, go and change. Reading them costs the requests nothing.
async fn follow(client: &Client, report: &Report) -> Infallible {
    let mut changes = client.watch();
    let mut frames = interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            Some(change) = changes.next() => report.membership(&change),
            _ = frames.tick() => report.frame(&client.endpoints()),
        }
    }
}
