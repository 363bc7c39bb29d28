//! A load test of a service that changes: what the balancer makes of pods that come, go and die.
//!
//! ```text
//! cargo run --example http_client                  # a cluster of its own; needs nothing but loopback
//! cargo run --example http_client -- --help
//! cargo run --example http_client -- --service nginx-headless.default.svc.cluster.local --port 80
//! ```
//!
//! Without arguments it starts a DNS server and three pods, and sends requests at a steady rate while the service is
//! scaled 3 → 5 → 2 and one pod is killed without DNS knowing. With `--service` it does the same to a service of yours,
//! and the changes are yours to make.
//!
//! To learn how the crate is used, read [`run`] and [`Resend`]: that is all of it. The rest is show: `load.rs` sends
//! requests, `report.rs` and `screen.rs` show what became of them, `story.rs` runs the cluster. What speaks HTTP to one
//! pod is `Connections`, in `tests/support/http.rs`; any tower service can stand in its place.

mod args;
mod load;
mod report;
mod screen;
mod story;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

use std::{
    convert::Infallible,
    future::Ready,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use futures::{StreamExt, future::OptionFuture};
use http::{Request, Response};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tower::{ServiceBuilder, ServiceExt, retry};
use tower_headless::{
    Balance, Dns, Endpoint, Error, LeastConnections, OnBodyEnd, Policy, Random, RoundRobin,
};
use tracing_subscriber::EnvFilter;

use args::{Args, PolicyName};
use report::Report;
use story::Story;
use support::http::Connections;

#[tokio::main]
async fn main() -> ExitCode {
    // RUST_LOG=tower_headless=debug shows what the balancer thinks. Not on stdout, which has the table.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    // The policy is part of the balancer's type, so that a pick costs no indirection.
    let failed = match args.policy {
        PolicyName::RoundRobin => run(&args, RoundRobin::new()).await,
        PolicyName::Random => run(&args, Random::new()).await,
        PolicyName::LeastConnections => run(&args, LeastConnections::new()).await,
    };
    ExitCode::from(u8::from(failed > 0))
}

/// The whole run: how many requests failed.
async fn run<P: Policy>(args: &Args, policy: P) -> usize {
    let story = OptionFuture::from(args.service.is_none().then(Story::begin)).await;
    let target = match &story {
        Some(story) => story.target(),
        None => args.target(),
    };
    let report = Arc::new(Report::new(&target, story.as_ref().map(|_| story::TTL)));
    let resend = Resend::new(3);
    let request = args.request(&target);

    // From a service's name to its pods. A pod on a loopback address is a mistake in a cluster, but not in the story.
    let discovery = Dns::new(target).allow_loopback(args.allow_loopback || story.is_some());

    // From the pods to one service. The closure says how a pod is spoken to: here by HTTP/1.1, and its answers are
    // marked with whose they are.
    let balance = Balance::builder(discovery)
        .policy(policy)
        .completion(OnBodyEnd)
        .build(|endpoint: &Endpoint| {
            let answered = endpoint.clone();
            Connections::new(endpoint.address()).map_response(move |mut response: Response<_>| {
                response.extensions_mut().insert(answered.clone());
                response
            })
        });

    // Tower's middleware goes around it as around any other service. Clone the client wherever requests come from.
    let client = ServiceBuilder::new()
        .retry(resend.clone())
        .service(balance.clone());

    let mut requests = JoinSet::new();
    let told = OptionFuture::from(story.as_ref().map(|story| story.tell(&report)));
    tokio::select! {
        () = sleep(args.duration) => {}
        _ = tokio::signal::ctrl_c() => report.note("client", "interrupted"),
        never = load::send(&client, &request, args.rate, &mut requests, &report) => match never {},
        never = follow(&balance, &report) => match never {},
        Some(never) = told => match never {},
    }
    requests.join_all().await;
    report.summary(&balance.endpoints(), resend.count())
}

/// Shows the endpoints as they come, go and change. Reading them costs the requests nothing.
async fn follow<S, P, C>(balance: &Balance<S, P, C>, report: &Report) -> Infallible
where
    S: Send + Sync + 'static,
    P: Policy,
{
    let mut changes = balance.watch();
    let mut frames = interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            Some(change) = changes.next() => report.membership(&change),
            _ = frames.tick() => report.frame(&balance.endpoints()),
        }
    }
}

/// Sends a request again that a pod has failed, where that is safe.
///
/// What a pod refuses, or what could not be written to it, goes to another pod without this: the balancer does that, and
/// it is safe for every request. Left are those that died with their pod, which may have executed them. Idempotent
/// methods may be repeated all the same (RFC 9110 §9.2.2). An answer whose body breaks off after its headers has been
/// handed over by then: that is for its reader to see.
#[derive(Clone, Debug)]
struct Resend {
    /// How many times yet, for one request.
    times: usize,
    /// How many there were in all, for the summary.
    count: Arc<AtomicUsize>,
}

impl Resend {
    fn new(times: usize) -> Self {
        Self {
            times,
            count: Arc::default(),
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl<B: Clone, R> retry::Policy<Request<B>, R, Error> for Resend {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<R, Error>) -> Option<Self::Future> {
        // The other errors come after the balancer's own patience is over: no use in trying again at once.
        if self.times == 0 || !result.as_ref().is_err_and(Error::is_endpoint) {
            return None;
        }
        self.times -= 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        request.method().is_idempotent().then(|| request.clone())
    }
}
