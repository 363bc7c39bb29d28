//! How late a client is: measured from what the control plane has said, and beside a bare watcher of the slices.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{MOMENT, Use, WEB, deploy, gets, settles};
use crate::{
    kit::{
        control_plane::{Component, processor},
        namespace::Namespace,
    },
    source::Source,
    support::load::Report,
};

/// Six pods, restarted at 3 s, nine at 18 s, four at 33 s.
pub(crate) async fn freshness(sources: &[Source]) {
    let namespace = Namespace::create("all-freshness", Use::Alone).await;
    deploy(&namespace, "Deployment", 6).await;
    let watched = Watched::start(&namespace);
    let mut clients = Vec::new();
    for source in sources {
        let client = source.client(&namespace, WEB, 80);
        settles(&client, &namespace, WEB, 6).await;
        let load = gets(&client, 500);
        clients.push((*source, client, load));
    }
    let coredns = namespace.plane.process_id(Component::CoreDns);
    let coredns = coredns.expect("it runs");
    let before = processor::time_of(coredns);
    let times = tell(&namespace).await;
    let mut reports = Vec::new();
    for (source, client, load) in clients {
        settles(&client, &namespace, WEB, 4).await;
        sleep(MOMENT).await;
        reports.push((source, load.stop().await));
    }
    let cost = processor::time_of(coredns) - before;
    println!("CoreDNS: {cost:.2?} in {:.0?}", times.began.elapsed());
    let seen = watched.stop();
    for (source, report) in reports {
        assert_is_fresh(source, &report, &seen, &times);
    }
}

/// When the story turned.
struct Times {
    began: Instant,
    restarted: Instant,
    scaled: Instant,
}

async fn tell(namespace: &Namespace) -> Times {
    let began = Instant::now();
    sleep_until(began + Duration::from_secs(3)).await;
    let restarted = Instant::now();
    namespace
        .kubectl
        .run("rollout restart deployment/web")
        .await;
    sleep_until(began + Duration::from_secs(18)).await;
    let scaled = Instant::now();
    namespace.scale("deployment/web", 9).await;
    sleep_until(began + Duration::from_secs(33)).await;
    namespace.scale("deployment/web", 4).await;
    Times {
        began,
        restarted,
        scaled,
    }
}

fn assert_is_fresh(source: Source, report: &Report, seen: &Seen, times: &Times) {
    println!("{source:?}: {report}");
    report.assert_none_failed();
    let roll = seen.lateness(report, times.restarted..times.scaled);
    let scaling = seen.lateness(report, times.scaled..Instant::now());
    println!("  while rolled: {roll}\n  while scaled: {scaling}");
    assert!(roll.joined.len() >= 6 && scaling.joined.len() >= 3);
    let bounds = source.lateness();
    assert!(roll.worst() <= bounds.rolled, "{roll}");
    assert!(scaling.worst() <= bounds.at_rest, "{scaling}");
}

/// A bare watcher: when each address became ready, and when it ceased to be.
struct Watched {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    slices: BTreeMap<String, Vec<IpAddr>>,
    joined: BTreeMap<IpAddr, Instant>,
    left: BTreeMap<IpAddr, Instant>,
}

/// How late the client was, pod by pod.
#[derive(Debug, Default)]
struct Lateness {
    /// From ready to its first request.
    joined: Vec<Duration>,
    /// From not ready to the last request that it was given.
    left: Vec<Duration>,
}

impl Watched {
    fn start(namespace: &Namespace) -> Self {
        let api: Api<EndpointSlice> = Api::namespaced(namespace.client.clone(), &namespace.name);
        let label = format!("kubernetes.io/service-name={WEB}");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut task = JoinSet::new();
        let shared = seen.clone();
        task.spawn(async move {
            let events = watcher(api, watcher::Config::default().labels(&label));
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let mut seen = shared.lock().expect("no panic under it");
                match event.expect("the API server is there") {
                    Event::Apply(slice) | Event::InitApply(slice) => seen.applied(&slice),
                    Event::Delete(slice) => seen.applied(&EndpointSlice {
                        endpoints: None,
                        ..slice
                    }),
                    Event::Init | Event::InitDone => {}
                }
            }
        });
        Self { seen, _task: task }
    }

    fn stop(self) -> Seen {
        self.seen.lock().expect("no panic under it").clone()
    }
}

impl Seen {
    fn applied(&mut self, slice: &EndpointSlice) {
        let now = Instant::now();
        let name = slice.metadata.name.clone().unwrap_or_default();
        let endpoints = slice.endpoints.iter().flatten();
        let ready = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|it| it.ready).unwrap_or(true)
        });
        let ready = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
        let ready: Vec<IpAddr> = ready.collect();
        let before = self.slices.insert(name, ready.clone()).unwrap_or_default();
        for address in before.iter().filter(|it| !ready.contains(it)) {
            self.left.insert(*address, now);
        }
        for address in ready {
            self.joined.entry(address).or_insert(now);
        }
    }

    /// Of the pods that came and went in this time.
    fn lateness(&self, report: &Report, then: std::ops::Range<Instant>) -> Lateness {
        let mut lateness = Lateness::default();
        let sent = |address: IpAddr| {
            let requests = report.requests.iter();
            let there = requests.filter(move |it| it.pod().is_some_and(|pod| pod.ip() == address));
            there.map(|it| it.sent)
        };
        for (&address, &at) in self.joined.iter().filter(|(_, at)| then.contains(at)) {
            let first = sent(address).min().expect("every pod is used");
            lateness.joined.push(first.saturating_duration_since(at));
        }
        for (&address, &at) in self.left.iter().filter(|(_, at)| then.contains(at)) {
            let last = sent(address).max();
            let late = last.map(|last| last.saturating_duration_since(at));
            lateness.left.push(late.unwrap_or_default());
        }
        lateness
    }
}

impl Lateness {
    fn worst(&self) -> Duration {
        let all = self.joined.iter().chain(&self.left);
        all.max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (what, all) in [("joined", &self.joined), ("left", &self.left)] {
            let mut all = all.clone();
            all.sort_unstable();
            let median = all.get(all.len() / 2).copied().unwrap_or_default();
            let worst = all.last().copied().unwrap_or_default();
            let count = all.len();
            parts.push(format!(
                "{count} {what}, {median:.2?} late (median), {worst:.2?} (worst)"
            ));
        }
        f.write_str(&parts.join("; "))
    }
}
