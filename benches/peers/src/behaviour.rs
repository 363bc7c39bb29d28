//! What callers see while pods and DNS fail.
//!
//! In each scenario all clients run at the same time, each with a cluster and a DNS server of its own
//! (`tower_headless::test_util`). The pod that fails is the one that the client has used most, so that it hits those too
//! that use one pod only. Clients have their own defaults; those that have DNS of their own ask for a TTL of 1 s.

mod client;
mod dns;
mod load;

use std::sync::Arc;

use http::StatusCode;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Duration, sleep, timeout},
};
use tower_headless::test_util::{Cluster, Fault, Mode, Pod, RecordType};

use crate::{
    pod, pods,
    results::{Measure, Results},
};
use client::{Client, PEERS};
use load::{Seen, load};

const FAILED: &str = "Failed requests";
const SLOWEST: &str = "Slow requests";
const NEW: &str = "Finding a new pod";

/// How fast the pods answer.
const USUAL: Duration = Duration::from_millis(5);

/// How long a client is watched, and how long it runs before.
const WATCHED: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);

/// A cluster's own.
const TTL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Killed,
    Hung,
    Slow,
    Unavailable,
    DnsOutage,
    NxDomain,
}

impl Scenario {
    /// Whether requests may fail of it.
    fn may_fail(self) -> bool {
        self != Self::Slow
    }

    /// Whether it is about how fast pods answer.
    fn may_slow(self) -> bool {
        !self.needs_dns()
    }

    fn needs_dns(self) -> bool {
        matches!(self, Self::DnsOutage | Self::NxDomain)
    }
}

const SCENARIOS: [(&str, Scenario); 6] = [
    ("a pod is killed", Scenario::Killed),
    ("a pod hangs", Scenario::Hung),
    ("a pod takes 50 ms", Scenario::Slow),
    ("a pod answers 503 or UNAVAILABLE", Scenario::Unavailable),
    ("DNS is silent, a pod restarts", Scenario::DnsOutage),
    ("NXDOMAIN for 2 s", Scenario::NxDomain),
];

pub fn measure(results: &mut Results, rounds: usize) {
    let stage = Stage::new();
    for (column, scenario) in SCENARIOS {
        let failed = Measure::less(FAILED, column, "%").apart(0.3).slack(2.0);
        let slowest_of = Measure::less(SLOWEST, column, "ms").apart(0.5).slack(10.0);
        let mut seen: Vec<Vec<Outcome>> = vec![Vec::new(); PEERS.len()];
        for _ in 0..rounds {
            let outcomes = stage.play(scenario);
            seen.iter_mut()
                .zip(outcomes)
                .for_each(|(seen, it)| seen.push(it));
        }
        for ((peer, _), seen) in PEERS.iter().zip(seen) {
            let seen: Result<Vec<Seen>, String> = seen.into_iter().collect();
            if scenario.may_fail() {
                let figures = seen.clone();
                add(
                    results,
                    &failed,
                    peer,
                    figures.map(|it| it.iter().map(|it| it.failed).collect()),
                );
            }
            if scenario.may_slow() {
                let slowest = |it: Vec<Seen>| it.iter().map(|it| it.slowest).collect::<Option<_>>();
                let figures = seen.and_then(|it| slowest(it).ok_or("all fail".to_owned()));
                add(results, &slowest_of, peer, figures);
            }
        }
    }
    new_pods(&stage, results, rounds);
}

/// How long it takes until a pod that DNS has just been told of gets a request.
fn new_pods(stage: &Stage, results: &mut Results, rounds: usize) {
    let column = "until it gets a request";
    let measure = Measure::less(NEW, column, "s").apart(0.3).slack(0.5);
    let mut seen: Vec<Vec<Result<f64, String>>> = vec![Vec::new(); PEERS.len()];
    for _ in 0..rounds {
        let found = stage.scale_up();
        seen.iter_mut()
            .zip(found)
            .for_each(|(seen, it)| seen.push(it));
    }
    for ((peer, _), seen) in PEERS.iter().zip(seen) {
        add(results, &measure, peer, seen.into_iter().collect());
    }
}

/// The figures of a client, or why there are none.
fn add(results: &mut Results, measure: &Measure, peer: &str, figures: Result<Vec<f64>, String>) {
    match figures {
        Ok(figures) => results.add(measure, peer, figures),
        Err(words) => results.say(measure, peer, &words),
    }
}

/// What was seen of a client, or why it wasn't there.
type Outcome = Result<Seen, String>;

/// Where clients and clusters live: the clusters in a runtime of their own.
struct Stage {
    pods: Runtime,
    clients: Runtime,
}

/// A client and its cluster.
struct Pair {
    cluster: Arc<Cluster>,
    client: Result<Arc<Client>, String>,
}

impl Stage {
    fn new() -> Self {
        let runtime = |name| {
            let mut builder = Builder::new_multi_thread();
            let builder = builder.worker_threads(1).thread_name(name).enable_all();
            builder.build().expect("a runtime")
        };
        Self {
            pods: runtime(pods::THREAD),
            clients: runtime("clients"),
        }
    }

    /// All clients, each before its own cluster, warmed up.
    fn pairs(&self) -> Vec<Pair> {
        let pair = |(_, kind): &(&str, client::Kind)| {
            let cluster = Arc::new(self.pods.block_on(start()));
            let client = self.clients.block_on(Client::new(*kind, &cluster));
            Pair {
                cluster,
                client: client.map(Arc::new),
            }
        };
        let pairs: Vec<_> = PEERS.iter().map(pair).collect();
        self.watch(&pairs, WARM_UP, |_| ());
        pairs
    }

    /// Loads all clients for so long, after `begin` has been done to their clusters.
    fn watch(&self, pairs: &[Pair], time: Duration, begin: impl Fn(&Pair)) -> Vec<Outcome> {
        pairs.iter().for_each(begin);
        let loads: Vec<_> = pairs
            .iter()
            .map(|pair| {
                let client = pair.client.clone()?;
                Ok(self.clients.spawn(load(client, time)))
            })
            .collect();
        let seen = |load: Result<tokio::task::JoinHandle<Seen>, String>| {
            Ok(self
                .clients
                .block_on(load?)
                .expect("the load doesn't panic"))
        };
        loads.into_iter().map(seen).collect()
    }

    fn play(&self, scenario: Scenario) -> Vec<Outcome> {
        let pairs = self.pairs();
        if scenario == Scenario::DnsOutage {
            pairs
                .iter()
                .for_each(|pair| dns_fault(&pair.cluster, &Fault::Silent));
            self.clients.block_on(async { sleep(TTL * 3 / 2).await });
        }
        let mut outcomes = self.watch(&pairs, WATCHED, |pair| {
            let is_grpc = pair.client.as_ref().is_ok_and(|client| client.is_grpc);
            self.pods.block_on(strike(scenario, &pair.cluster, is_grpc));
        });
        for (outcome, pair) in outcomes.iter_mut().zip(&pairs) {
            let has_dns = pair.client.as_ref().is_ok_and(|client| client.has_dns);
            if scenario.needs_dns() && pair.client.is_ok() && !has_dns {
                *outcome = Err("no DNS of its own".to_owned());
            }
        }
        outcomes
    }

    fn scale_up(&self) -> Vec<Result<f64, String>> {
        let pairs = self.pairs();
        let added = |pair: &Pair| self.pods.block_on(add_pod(&pair.cluster));
        let pods: Vec<_> = pairs.iter().map(added).collect();
        let begun = tokio::time::Instant::now();
        let limit = Duration::from_secs(8);
        let waits: Vec<_> = pods
            .into_iter()
            .map(|pod| self.pods.spawn(first_request(pod, begun, limit)))
            .collect();
        self.watch(&pairs, limit, |_| ());
        let found = waits.into_iter().zip(&pairs).map(|(wait, pair)| {
            let client = pair.client.as_ref().map_err(Clone::clone)?;
            let wait = self.pods.block_on(wait).expect("waiting doesn't panic");
            match client.has_dns {
                true => wait.ok_or_else(|| "never in 8 s".to_owned()),
                false => Err("no DNS of its own".to_owned()),
            }
        });
        found.collect()
    }
}

/// Six pods that answer HTTP and gRPC.
async fn start() -> Cluster {
    let (_, health) = tonic_health::server::health_reporter();
    let cluster = Cluster::builder()
        .pods(6)
        .answer(move |_, request| pod::answer(&health, request))
        .start()
        .await;
    cluster
        .pods()
        .iter()
        .for_each(|pod| pod.set(Mode::Slow(USUAL)));
    cluster
}

async fn add_pod(cluster: &Cluster) -> Arc<Pod> {
    let pod = cluster.add_pod().await;
    pod.set(Mode::Slow(USUAL));
    pod
}

/// The seconds until the pod gets a request.
async fn first_request(pod: Arc<Pod>, begun: tokio::time::Instant, limit: Duration) -> Option<f64> {
    let got = pod.wait_until(|stats| stats.requests > 0);
    timeout(limit, got).await.ok()?;
    Some(begun.elapsed().as_secs_f64())
}

/// The fault of a scenario.
async fn strike(scenario: Scenario, cluster: &Arc<Cluster>, is_grpc: bool) {
    let pods = cluster.pods();
    let used = pods.iter().max_by_key(|pod| pod.requests());
    let used = used.expect("there are pods");
    match scenario {
        Scenario::Killed => used.kill().await,
        Scenario::Hung => used.set(Mode::Hung),
        Scenario::Slow => used.set(Mode::Slow(USUAL * 10)),
        Scenario::Unavailable if is_grpc => used.set(Mode::Grpc(14)),
        Scenario::Unavailable => used.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE)),
        // DNS has been silent for longer than anyone may remember its answer.
        Scenario::DnsOutage => used.restart().await.expect("its address is still its own"),
        Scenario::NxDomain => {
            dns_fault(cluster, &Fault::NxDomain);
            let cluster = cluster.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                cluster.dns().clear_faults();
            });
        }
    }
}

fn dns_fault(cluster: &Cluster, fault: &Fault) {
    for record in [RecordType::A, RecordType::AAAA] {
        cluster
            .dns()
            .fault(cluster.service(), record, fault.clone());
    }
}
