//! The pods as discovery tells of them: which there are, who they are, and whose lives begin and end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;
use tower_headless::{BoxError, Discovery, Endpoint};

use crate::{
    life::{Life, lock},
    plan::{Config, Hosts, Locality, Mood},
    pod::Pod,
};

pub(crate) const HOSTS: u8 = 6;

/// The pods, one for each address.
pub(crate) struct Cluster {
    locality: Locality,
    pods: Vec<PodFacts>,
    /// What discovery has said last.
    pub(crate) set: Option<Hosts>,
    /// When it has said which, from the first time on.
    pub(crate) told: Vec<(Instant, Hosts)>,
    /// How many sets have been told.
    pub(crate) version: u32,
    /// Lives that have ended.
    pub(crate) departed: Vec<(Arc<Life>, Instant)>,
    pub(crate) source: Source,
    births: Births,
}

/// What is true of the pod at an address.
#[derive(Clone, Default)]
struct PodFacts {
    uid: u32,
    is_uid_told: bool,
    /// The UID that the balancer knows.
    known_uid: Option<u32>,
    weight: u8,
    zone: u8,
    life: Option<Arc<Life>>,
    fails_checks: bool,
    /// Since when its checks pass.
    checks_pass_since: Option<Instant>,
    failed_checks: u32,
}

/// The lives for which no service has been made yet.
#[derive(Clone, Default)]
pub(crate) struct Births {
    queue: Arc<Mutex<VecDeque<Arc<Life>>>>,
    pub(crate) faults: Arc<Mutex<Vec<String>>>,
}

impl Births {
    /// What the balancer calls for each life.
    pub(crate) fn make(&self, endpoint: &Endpoint) -> Pod {
        let host = host(endpoint);
        let mut queue = lock(&self.queue);
        let place = queue.iter().position(|life| life.host == host);
        let life = place.and_then(|place| queue.remove(place));
        let life = life.unwrap_or_else(|| {
            lock(&self.faults).push(format!("a service is made for {endpoint}, which stayed"));
            Life::new(host)
        });
        Pod::new(&life)
    }

    pub(crate) fn are_unborn(&self) -> bool {
        !lock(&self.queue).is_empty()
    }
}

pub(crate) fn address(host: u8) -> std::net::SocketAddr {
    ([10, 0, 0, host], 80).into()
}

/// What the pod at an address is called, one after another as in a StatefulSet.
pub(crate) fn name(host: u8) -> String {
    format!("pod-{host}")
}

pub(crate) fn host(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("there are none"),
    }
}

impl Cluster {
    pub(crate) fn new(config: &Config) -> Self {
        let pod = PodFacts {
            weight: 1,
            ..PodFacts::default()
        };
        Self {
            locality: config.locality,
            pods: vec![pod; usize::from(HOSTS) + 2],
            set: None,
            told: Vec::new(),
            version: 0,
            departed: Vec::new(),
            source: Source::default(),
            births: Births::default(),
        }
    }

    pub(crate) fn births(&self) -> Births {
        self.births.clone()
    }

    fn pod(&mut self, host: u8) -> &mut PodFacts {
        &mut self.pods[usize::from(host)]
    }

    /// The life of the pod that is in the set at this address.
    pub(crate) fn life(&self, host: u8) -> Option<&Arc<Life>> {
        self.pods[usize::from(host)].life.as_ref()
    }

    pub(crate) fn lives(&self) -> impl Iterator<Item = &Arc<Life>> {
        self.pods.iter().filter_map(|pod| pod.life.as_ref())
    }

    pub(crate) fn behave(&self, host: u8, mood: Mood) {
        if let Some(life) = self.life(host) {
            life.set(mood);
        }
    }

    pub(crate) fn all_become_well(&mut self) {
        let departed = self.departed.iter().map(|(life, _)| life);
        departed
            .chain(self.lives())
            .for_each(|life| life.set(Mood::Well));
        for host in 0..=HOSTS {
            self.check(host, true);
        }
    }

    /// The pods are alike from now on.
    pub(crate) fn all_become_alike(&mut self) {
        for pod in &mut self.pods {
            (pod.weight, pod.zone) = (1, 0);
        }
    }

    pub(crate) fn change(&mut self, host: u8, change: Change) {
        let pod = self.pod(host);
        match change {
            Change::Replace => pod.uid += 1,
            Change::Uid(is_told) => pod.is_uid_told = is_told,
            Change::Weight(weight) => pod.weight = weight,
            Change::Zone(zone) => pod.zone = zone,
        }
        if self.set.is_some() {
            self.tell();
        }
    }

    pub(crate) fn set(&mut self, set: Hosts) {
        self.set = Some(set);
        self.tell();
    }

    /// Has discovery say what is so.
    pub(crate) fn tell(&mut self) {
        let set = self.set.unwrap_or_default();
        let mut endpoints = Vec::new();
        for host in 1..=HOSTS {
            if set.contains(host) {
                endpoints.push(self.endpoint(host));
                self.stay_or_join(host);
            } else {
                self.leave(host);
            }
        }
        self.version += 1;
        self.told.push((Instant::now(), set));
        self.source.say(Ok(endpoints));
    }

    fn endpoint(&self, host: u8) -> Endpoint {
        let pod = &self.pods[usize::from(host)];
        let mut endpoint = Endpoint::new(address(host))
            .with_pod_name(name(host))
            .with_weight(pod.weight.into());
        if pod.is_uid_told {
            endpoint = endpoint.with_pod_uid(format!("{host}-{}", pod.uid));
        }
        if pod.zone > 0 && self.locality != Locality::Off {
            let zone = format!("z{}", pod.zone);
            endpoint = match self.locality {
                Locality::PreferZone => endpoint.with_zone(zone),
                _ => endpoint.with_zone_hints([&*zone]),
            };
        }
        endpoint
    }

    fn stay_or_join(&mut self, host: u8) {
        let pod = self.pod(host);
        let told = pod.is_uid_told.then_some(pod.uid);
        let is_same = pod.known_uid.is_none() || told.is_none() || pod.known_uid == told;
        if pod.life.is_some() && is_same {
            pod.known_uid = told.or(pod.known_uid);
            return;
        }
        self.leave(host);
        let life = Life::new(host);
        lock(&self.births.queue).push_back(life.clone());
        let pod = self.pod(host);
        pod.known_uid = told;
        pod.life = Some(life);
        pod.failed_checks = 0;
        pod.fails_checks = false;
        pod.checks_pass_since = Some(Instant::now());
    }

    fn leave(&mut self, host: u8) {
        if let Some(life) = self.pod(host).life.take() {
            self.departed.push((life, Instant::now()));
        }
    }

    pub(crate) fn check(&mut self, host: u8, passes: bool) {
        let pod = self.pod(host);
        pod.fails_checks = !passes;
        let since = pod.checks_pass_since.filter(|_| passes);
        pod.checks_pass_since = since.or_else(|| passes.then(Instant::now));
    }

    /// What a check of the pod at this address comes to.
    pub(crate) fn run_check(&mut self, host: u8) -> Result<(), BoxError> {
        let pod = self.pod(host);
        if pod.fails_checks {
            pod.failed_checks += 1;
            return Err("unwell".into());
        }
        Ok(())
    }

    pub(crate) fn checks_pass_since(&self, host: u8) -> Option<Instant> {
        self.pods[usize::from(host)].checks_pass_since
    }

    pub(crate) fn failed_checks(&self, host: u8) -> u32 {
        self.pods[usize::from(host)].failed_checks
    }
}

/// What else may change of a pod.
pub(crate) enum Change {
    Replace,
    Uid(bool),
    Weight(u8),
    Zone(u8),
}

type Answer = Result<Vec<Endpoint>, BoxError>;

/// Discovery that says what it is told to. Its clones are the other end.
#[derive(Clone, Default)]
pub(crate) struct Source(Arc<Mutex<(VecDeque<Answer>, Option<Waker>)>>);

impl Source {
    pub(crate) fn say(&self, answer: Answer) {
        let mut state = lock(&self.0);
        state.0.push_back(answer);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether the balancer has dropped its end.
    pub(crate) fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Discovery for Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = lock(&self.0);
        match state.0.pop_front() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
