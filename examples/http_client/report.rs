//! What became of the requests, pod by pod.

mod pod;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    error::Error,
    fmt::Write,
    iter::successors,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Uri;
use tokio::time::Instant;
use tower_headless::{Endpoint, EndpointStatus, MembershipChange};

use crate::{
    screen::Screen,
    table::{Row, milliseconds, render},
};
use pod::{Latencies, Pod};

/// Shares are those of this time.
const RECENTLY: Duration = Duration::from_secs(1);

/// How many failures are told, among those that differ.
const MAX_TOLD: usize = 10;

/// How many pods a line of plain output names.
const MAX_NAMED: usize = 6;

/// Everything that is shown. All who have something to tell share it.
pub(crate) struct Report(Mutex<State>);

struct State {
    screen: Screen,
    began: Instant,
    /// Of the records, where DNS is our own.
    ttl: Option<Duration>,
    /// When DNS was told of more pods, where DNS is our own.
    scaled_up: Option<Instant>,
    /// Discovery has answered.
    discovered: bool,
    pods: BTreeMap<Endpoint, Pod>,
    /// Answers of the last second, oldest first.
    recent: VecDeque<(Instant, Endpoint)>,
    latencies: Latencies,
    failed: usize,
    failures: HashSet<String>,
    next_plain: Instant,
}

impl Report {
    pub(crate) fn new(service: &Uri, ttl: Option<Duration>) -> Self {
        let mut screen = Screen::new();
        screen.line(&format!("target {service}"));
        let began = Instant::now();
        Self(Mutex::new(State {
            screen,
            began,
            ttl,
            scaled_up: None,
            discovered: false,
            pods: BTreeMap::new(),
            recent: VecDeque::new(),
            latencies: Latencies::default(),
            failed: 0,
            failures: HashSet::new(),
            next_plain: began + RECENTLY,
        }))
    }

    /// Something that happened, and to whom.
    pub(crate) fn note(&self, whom: &str, what: &str) {
        self.lock().note(whom, what);
    }

    /// DNS is about to tell of more pods.
    pub(crate) fn scaled_up(&self) {
        self.lock().scaled_up = Some(Instant::now());
    }

    /// `pod` gave a good answer.
    pub(crate) fn answered(&self, pod: Endpoint, took: Duration) {
        let (now, pod) = (Instant::now(), named(&pod));
        let mut state = self.lock();
        state.latencies.record(took);
        state
            .pods
            .entry(pod.clone())
            .or_default()
            .answered(now, took);
        state.recent.push_back((now, pod));
    }

    pub(crate) fn failed(&self, error: &(dyn Error + 'static)) {
        let chain: Vec<_> = successors(Some(error), |&error| error.source())
            .map(ToString::to_string)
            .collect();
        self.lock().failed(chain.join(": "));
    }

    /// The set of pods has changed.
    pub(crate) fn membership(&self, change: &MembershipChange) {
        self.lock().membership(change);
    }

    /// The time has come to show something.
    pub(crate) fn frame(&self, endpoints: &[EndpointStatus]) {
        let now = Instant::now();
        let mut state = self.lock();
        state.look_at(endpoints);
        state.forget_before(now - RECENTLY);
        if state.screen.is_terminal() {
            let rows = state.rows(|pod| pod.recent, state.recent.len() as u64);
            state.screen.table(format!("\n{}", render(&rows)));
        } else if now >= state.next_plain {
            state.next_plain += RECENTLY;
            let line = state.plain();
            state.note("client", &line);
        }
    }

    /// The end of the story: how many requests failed.
    pub(crate) fn summary(&self, endpoints: &[EndpointStatus]) -> usize {
        let mut state = self.lock();
        state.look_at(endpoints);
        let summary = state.summary();
        state.screen.end(&summary);
        state.failed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, whom: &str, what: &str) {
        let time = self.began.elapsed().as_secs_f64();
        self.screen.line(&format!("{time:5.1} s  {whom:7}  {what}"));
    }

    fn failed(&mut self, failure: String) {
        self.failed += 1;
        // A bad day has thousands of the same kind.
        if self.failures.len() < MAX_TOLD && !self.failures.contains(&failure) {
            self.note("client", &format!("FAILED: {failure}"));
            self.failures.insert(failure);
        }
    }

    fn membership(&mut self, change: &MembershipChange) {
        let now = Instant::now();
        for endpoint in &change.joined {
            let pod = self.pods.entry(named(endpoint)).or_default();
            // Those of the first answer are older than we are, and one that comes back is not new.
            if !std::mem::replace(&mut pod.known, true) {
                pod.new_since = self.discovered.then(|| self.scaled_up.unwrap_or(now));
            }
        }
        self.discovered = true;
        let changed = [("discovered", &change.joined), ("dropped", &change.left)];
        for (what, endpoints) in changed {
            if !endpoints.is_empty() {
                self.note("client", &format!("{what} {}", names(endpoints)));
            }
        }
    }

    /// Takes over what the balancer says of its endpoints, and tells what has changed.
    fn look_at(&mut self, endpoints: &[EndpointStatus]) {
        let since = self.since();
        let mut news = Vec::new();
        for status in endpoints {
            self.pods.entry(named(&status.endpoint)).or_default();
        }
        for (endpoint, pod) in &mut self.pods {
            let ip = endpoint.address().ip();
            // They come in the order of their addresses.
            let address = |status: &EndpointStatus| status.endpoint.address();
            let found = endpoints.binary_search_by_key(&endpoint.address(), address);
            let status = found.ok().map(|index| &endpoints[index]);
            let status = status.filter(|status| named(&status.endpoint) == *endpoint);
            if let Some(change) = pod.look_at(status) {
                news.push(format!("{ip} {change}"));
            }
            if let Some(after) = pod.take_into_use() {
                let after = after.as_secs_f64();
                news.push(format!("first answer of {ip}, {after:.2} s {since}"));
            }
        }
        for news in news {
            self.note("client", &news);
        }
    }

    fn forget_before(&mut self, limit: Instant) {
        while self.recent.front().is_some_and(|(when, _)| *when < limit) {
            self.recent.pop_front();
        }
        for pod in self.pods.values_mut() {
            pod.recent = 0;
        }
        for (_, endpoint) in &self.recent {
            if let Some(pod) = self.pods.get_mut(endpoint) {
                pod.recent += 1;
            }
        }
    }

    /// The pods, those that are gone last; shares are `part` of `whole`.
    fn rows(&self, part: impl Fn(&Pod) -> u64, whole: u64) -> Vec<Row> {
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|(_, pod)| pod.is_gone());
        let row = |(endpoint, pod): (&Endpoint, &Pod)| pod.row(endpoint, part(pod), whole);
        pods.into_iter().map(row).collect()
    }

    /// The table in one line.
    fn plain(&self) -> String {
        let answers = self.recent.len();
        let rows = self.rows(|pod| pod.recent, answers as u64);
        let in_flight: u32 = rows.iter().filter_map(|row| row.in_flight).sum();
        let failed = self.failed;
        let mut line =
            format!("{answers} answers/s, {failed} failed so far, {in_flight} in flight:");
        let used: Vec<_> = rows.iter().filter(|row| row.share > 0.0).collect();
        for row in used.iter().take(MAX_NAMED) {
            let _infallible = write!(line, "  {} {:.0} %", row.address.ip(), row.share * 100.0);
        }
        if let Some(more @ 1..) = used.len().checked_sub(MAX_NAMED) {
            let _infallible = write!(line, "  and {more} more");
        }
        line
    }

    fn summary(&self) -> String {
        let ok = self.latencies.count();
        let failed = self.failed;
        let all = &self.latencies;
        let rows = self.rows(Pod::answers, ok);
        let mut text = format!("\n{}\n", render(&rows));
        text += &format!(
            "requests   {}: p50 {}, p99 {}, longest {}\n",
            ok + failed as u64,
            milliseconds(all.quantile(0.5)),
            milliseconds(all.quantile(0.99)),
            milliseconds(all.quantile(1.0)),
        );
        text += &format!("failures   {failed}\n");
        for (endpoint, pod) in &self.pods {
            text += &self.newcomer(endpoint, pod).unwrap_or_default();
        }
        text + &format!("sent {} ok {ok} failed {failed}\n", ok + failed as u64)
    }

    /// How soon a pod that came during the run was used.
    fn newcomer(&self, endpoint: &Endpoint, pod: &Pod) -> Option<String> {
        pod.new_since?;
        let used = match pod.first_answer_after() {
            Some(after) => format!("first answer {:.2} s", after.as_secs_f64()),
            None => "no answer yet".to_owned(),
        };
        let ip = endpoint.address().ip();
        Some(format!("new pod    {ip}: {used} {}\n", self.since()))
    }

    /// What newcomers are timed from.
    fn since(&self) -> String {
        match self.ttl {
            Some(ttl) => format!("after DNS was told of it (TTL {} s)", ttl.as_secs()),
            None => "after it was discovered".to_owned(),
        }
    }
}

/// A pod by its name and address, whatever else is learnt of it on the way.
fn named(endpoint: &Endpoint) -> Endpoint {
    let address = Endpoint::new(endpoint.address());
    match endpoint.hostname() {
        Some(hostname) => address.with_hostname(hostname),
        None => address,
    }
}

fn names(endpoints: &[Endpoint]) -> String {
    let ip = |endpoint: &Endpoint| endpoint.address().ip().to_string();
    let names: Vec<_> = endpoints.iter().take(MAX_NAMED).map(ip).collect();
    match endpoints.len().checked_sub(MAX_NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", names.join(", ")),
        _ => names.join(", "),
    }
}
