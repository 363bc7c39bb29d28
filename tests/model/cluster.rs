//! The pods as discovery reports them: which there are, their identities, and when their lives begin and end.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;
use tower_headless::{BoxError, Discovery, Endpoint, EndpointStatus};

use crate::{
    life::Life,
    lock::lock,
    plan::{By, Config, Hosts, Locality, Mood, Names},
    pod::Pod,
};

pub(crate) const HOSTS: u8 = 6;

/// The pods, one for each address.
pub(crate) struct Cluster {
    locality: Locality,
    names: Names,
    /// Whether the balancer chooses a subset of the pods: then lives begin when it makes their services.
    is_part: bool,
    pods: Vec<PodFacts>,
    /// Discovery's last answer.
    pub(crate) set: Option<Hosts>,
    /// All of discovery's answers.
    pub(crate) told: Vec<Told>,
    /// How many sets discovery has told, or the balancer was seen to choose.
    pub(crate) version: u32,
    /// Lives that have ended.
    pub(crate) departed: Vec<(Arc<Life>, Instant)>,
    pub(crate) source: Source,
    births: Births,
    /// Lives that have begun since the last look, if the balancer chooses.
    made: Vec<Arc<Life>>,
}

/// A set that discovery has told.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) set: Hosts,
    /// For each address, the number of its pod's name, unless names aren't told.
    names: [u8; 8],
}

/// Which pods a request may go to, if it is limited.
pub(crate) type Wanted = Option<(By, u8)>;

impl Told {
    /// Whether there is a pod at the address, and it is one that is wanted.
    pub(crate) fn fits(&self, wanted: Wanted, host: u8) -> bool {
        let is_named = |pin: By, number| match pin.is_by_address() {
            true => host == number,
            false => self.names[usize::from(host)] == number,
        };
        let is_wanted = wanted.is_none_or(|(pin, number)| is_named(pin, number) != pin.is_others());
        self.set.contains(host) && is_wanted
    }

    /// Whether there is a pod that is wanted.
    pub(crate) fn has(&self, wanted: Wanted) -> bool {
        self.set.iter().any(|host| self.fits(wanted, host))
    }
}

/// The state of the pod at an address.
#[derive(Clone)]
struct PodFacts {
    /// The number of its name.
    name: u8,
    /// The number that the balancer knows.
    known_name: u8,
    /// How the pod behaves, for lives that begin later; and since when it has been there and answered at once.
    mood: Mood,
    prompt_since: Option<Instant>,
    is_there: bool,
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

/// The lives that have no service yet.
#[derive(Clone, Default)]
pub(crate) struct Births {
    queue: Arc<Mutex<VecDeque<Arc<Life>>>>,
    pub(crate) faults: Arc<Mutex<Vec<String>>>,
}

impl Births {
    /// The service of the next life.
    fn make(&self, host: u8, known: &Arc<AtomicU32>) -> Pod {
        let mut queue = lock(&self.queue);
        let place = queue.iter().position(|life| life.host == host);
        let life = place.and_then(|place| queue.remove(place));
        let life = life.unwrap_or_else(|| {
            lock(&self.faults).push(format!("a service is made for {host}, which stayed"));
            Life::new(host, known.load(Relaxed), known)
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

/// The pods' names, numbered as in a StatefulSet.
pub(crate) fn name(number: u8) -> String {
    format!("pod-{number}")
}

pub(crate) fn host(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("there are none"),
    }
}

impl Cluster {
    pub(crate) fn new(config: &Config) -> Self {
        let pod = |host| PodFacts {
            name: host,
            known_name: 0,
            mood: Mood::Well,
            prompt_since: None,
            is_there: false,
            uid: 0,
            is_uid_told: false,
            known_uid: None,
            weight: 1,
            zone: 0,
            life: None,
            fails_checks: false,
            checks_pass_since: None,
            failed_checks: 0,
        };
        Self {
            locality: config.locality,
            names: config.names,
            is_part: config.subset > 0,
            pods: (0..HOSTS + 2).map(pod).collect(),
            set: None,
            told: Vec::new(),
            version: 0,
            departed: Vec::new(),
            source: Source::default(),
            births: Births::default(),
            made: Vec::new(),
        }
    }

    /// The balancer's `make`, which it calls for each life.
    pub(crate) fn make(&mut self, endpoint: &Endpoint) -> Pod {
        let (host, known) = (host(endpoint), &self.source.known);
        if !self.is_part {
            return self.births.make(host, known);
        }
        let life = Life::new(host, known.load(Relaxed), known);
        life.set(self.pods[usize::from(host)].mood);
        self.made.push(life.clone());
        Pod::new(&life)
    }

    /// Notes which pods the balancer has chosen, by its `endpoints`.
    pub(crate) fn note_chosen(&mut self, shown: &[EndpointStatus]) {
        if !self.is_part {
            return;
        }
        let shown = shown.iter().map(|status| host(&status.endpoint));
        let shown = shown.fold(Hosts::default(), Hosts::toggle);
        let mut is_change = false;
        for life in std::mem::take(&mut self.made) {
            let host = life.host;
            self.leave(host);
            self.pod(host).life = Some(life);
            is_change = true;
        }
        for host in 1..=HOSTS {
            if !shown.contains(host) && self.life(host).is_some() {
                self.leave(host);
                is_change = true;
            }
        }
        self.version += u32::from(is_change);
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

    pub(crate) fn behave(&mut self, host: u8, mood: Mood) {
        let pod = self.pod(host);
        if pod.is_there {
            pod.mood = mood;
            let since = pod.prompt_since.filter(|_| mood.is_prompt());
            pod.prompt_since = since.or_else(|| mood.is_prompt().then(Instant::now));
        }
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
            self.behave(host, Mood::Well);
            self.check(host, true);
        }
    }

    /// Makes all pods alike.
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

    /// Reschedules the pod at the address to another one.
    pub(crate) fn reschedule(&mut self, host: u8, to: u8) {
        let Some(set) = self.set.filter(|set| set.contains(host) && host != to) else {
            return;
        };
        let names = [host, to].map(|host| self.pods[usize::from(host)].name);
        (self.pod(host).name, self.pod(to).name) = (names[1], names[0]);
        self.pod(to).uid += 1;
        self.pod(host).uid += 1;
        let moved = match set.contains(to) {
            true => set,
            false => set.toggle(host).toggle(to),
        };
        self.set(moved);
    }

    /// Has discovery report the present pods.
    pub(crate) fn tell(&mut self) {
        let set = self.set.unwrap_or_default();
        let mut endpoints = Vec::new();
        for host in 1..=HOSTS {
            if set.contains(host) {
                endpoints.push(self.endpoint(host));
                self.stay_or_join(host);
            } else {
                self.pod(host).is_there = false;
                if !self.is_part {
                    self.leave(host);
                }
            }
        }
        self.version += 1;
        self.told.push(Told {
            at: Instant::now(),
            set,
            names: std::array::from_fn(|host| match self.names {
                Names::Untold => 0,
                Names::Pods | Names::Hostnames => self.pods[host].name,
            }),
        });
        self.source.say(Ok(endpoints));
    }

    fn endpoint(&self, host: u8) -> Endpoint {
        let pod = &self.pods[usize::from(host)];
        let endpoint = Endpoint::new(address(host)).with_weight(pod.weight.into());
        let mut endpoint = match self.names {
            Names::Pods => endpoint.with_pod_name(name(pod.name)),
            Names::Hostnames => endpoint.with_hostname(name(pod.name)),
            Names::Untold => endpoint,
        };
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
        let names = self.names;
        let pod = self.pod(host);
        let told = pod.is_uid_told.then_some(pod.uid);
        let is_same = pod.known_uid.is_none() || told.is_none() || pod.known_uid == told;
        let is_named = names == Names::Untold || pod.known_name == pod.name;
        pod.known_name = pod.name;
        if std::mem::replace(&mut pod.is_there, true) && is_same && is_named {
            pod.known_uid = told.or(pod.known_uid);
            return;
        }
        pod.known_uid = told;
        (pod.mood, pod.prompt_since) = (Mood::Well, Some(Instant::now()));
        pod.failed_checks = 0;
        pod.fails_checks = false;
        pod.checks_pass_since = Some(Instant::now());
        if !self.is_part {
            self.leave(host);
            let life = Life::new(host, self.told.len() as u32 + 1, &self.source.known);
            lock(&self.births.queue).push_back(life.clone());
            self.pod(host).life = Some(life);
        }
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

    /// The result of a check of the pod at this address.
    pub(crate) fn run_check(&mut self, host: u8) -> Result<(), BoxError> {
        let pod = self.pod(host);
        if pod.fails_checks {
            pod.failed_checks += 1;
            return Err("unwell".into());
        }
        Ok(())
    }

    /// Since when the pod at this address has been there and would have answered at once, whether or not it is used.
    pub(crate) fn prompt_since(&self, host: u8) -> Option<Instant> {
        let pod = &self.pods[usize::from(host)];
        pod.prompt_since.filter(|_| pod.is_there)
    }

    /// The number of the pod's name, or else of its address.
    pub(crate) fn identity(&self, host: u8) -> u8 {
        match self.names {
            Names::Untold => host,
            Names::Pods | Names::Hostnames => self.pods[usize::from(host)].name,
        }
    }

    pub(crate) fn weight(&self, host: u8) -> u8 {
        self.pods[usize::from(host)].weight
    }

    /// Whether all pods have the same weight.
    pub(crate) fn are_alike(&self) -> bool {
        self.pods.iter().all(|pod| pod.weight == 1)
    }

    /// The set that the balancer knows when it has taken `known` sets.
    pub(crate) fn told(&self, known: u32) -> Option<&Told> {
        self.told.get((known as usize).checked_sub(1)?)
    }

    /// The sets that may have been known at that time, without the empty one before the first.
    pub(crate) fn told_by(&self, at: Instant) -> impl Iterator<Item = &Told> {
        let last = self.told.iter().rposition(|told| told.at < at);
        let told = self.told[last.unwrap_or(0)..].iter();
        told.take_while(move |told| told.at <= at)
    }

    pub(crate) fn checks_pass_since(&self, host: u8) -> Option<Instant> {
        self.pods[usize::from(host)].checks_pass_since
    }

    pub(crate) fn failed_checks(&self, host: u8) -> u32 {
        self.pods[usize::from(host)].failed_checks
    }
}

/// Other changes of a pod.
pub(crate) enum Change {
    Replace,
    Uid(bool),
    Weight(u8),
    Zone(u8),
}

type Answer = Result<Vec<Endpoint>, BoxError>;

/// Discovery with scripted answers. Its clones send them.
#[derive(Clone, Default)]
pub(crate) struct Source {
    answers: Arc<Mutex<(VecDeque<Answer>, Option<Waker>)>>,
    /// How many sets the balancer has taken.
    pub(crate) known: Arc<AtomicU32>,
}

impl Source {
    pub(crate) fn say(&self, answer: Answer) {
        let mut state = lock(&self.answers);
        state.0.push_back(answer);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether the balancer has dropped its end.
    pub(crate) fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.answers) == 1
    }
}

impl Discovery for Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = lock(&self.answers);
        match state.0.pop_front() {
            Some(answer) => {
                self.known.fetch_add(answer.is_ok().into(), Relaxed);
                Poll::Ready(answer)
            }
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
