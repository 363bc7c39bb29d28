//! How late a client was, compared with a bare watcher of the slices.

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
use tokio::{task::JoinSet, time::Instant};

use crate::{kit::namespace::Namespace, stories::WEB, support::load::Report};

/// A bare watcher that notes when each address became ready, and when it ceased to be.
pub(super) struct Watched {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    slices: BTreeMap<String, Vec<IpAddr>>,
    joined: BTreeMap<IpAddr, Instant>,
    left: BTreeMap<IpAddr, Instant>,
}

/// How late the client was, pod by pod.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// From ready to its first request.
    pub(super) joined: Vec<Duration>,
    /// From not ready to the last request that it got.
    pub(super) left: Vec<Duration>,
}

impl Watched {
    pub(super) fn start(namespace: &Namespace) -> Self {
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

    pub(super) fn stop(self) -> Seen {
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

    /// The lateness for the pods that came and went in this time.
    pub(super) fn lateness(&self, report: &Report, then: std::ops::Range<Instant>) -> Lateness {
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
    pub(super) fn worst(&self) -> Duration {
        let all = self.joined.iter().chain(&self.left);
        all.max().copied().unwrap_or_default()
    }
}

fn percentile<'a>(all: impl Iterator<Item = &'a Duration>, percent: usize) -> Duration {
    let mut all: Vec<_> = all.copied().collect();
    all.sort_unstable();
    let rank = (all.len() * percent).div_ceil(100);
    let index = rank.saturating_sub(1);
    all.get(index).copied().unwrap_or_default()
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |what, all: &Vec<Duration>| {
            let [median, p99] = [50, 99].map(|percent| percentile(all.iter(), percent));
            let count = all.len();
            format!("{count} {what}, {median:.2?} late (median), {p99:.2?} (p99)")
        };
        let (joined, left) = (part("joined", &self.joined), part("left", &self.left));
        write!(f, "{joined}; {left}")
    }
}
