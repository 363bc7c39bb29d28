//! The results of the requests, pod by pod.

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
    args::Args,
    screen::{Screen, Size},
    table::{MAX_ROWS, OTHER_LINES, Row, milliseconds, render},
};
use pod::{Latencies, Pod};

/// The span of time that shares are computed over.
const RECENTLY: Duration = Duration::from_secs(1);

/// How many different failures are printed.
const MAX_TOLD: usize = 10;

/// How many pods a line of plain output names, and how many new pods a screen has room for.
const MAX_NAMED: usize = 6;

/// Lines of a screen besides those of the table and of new pods: empty ones, the rest of a frame or of the summary, and
/// the cursor's.
const FRAME_LINES: usize = 4;
const SUMMARY_LINES: usize = 4;

/// Everything that is shown, shared by all tasks that report.
pub(crate) struct Report(Mutex<State>);

struct State {
    screen: Screen,
    began: Instant,
    /// For how long requests are sent.
    duration: Duration,
    route: String,
    /// The records' TTL, if DNS is our own.
    ttl: Option<Duration>,
    /// When DNS got more pods, if DNS is our own.
    scaled_up: Option<Instant>,
    /// Whether discovery has answered.
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
    pub(crate) fn new(service: &Uri, args: &Args, ttl: Option<Duration>) -> Self {
        let mut screen = Screen::new();
        screen.line(&format!("target {service}"));
        let began = Instant::now();
        Self(Mutex::new(State {
            screen,
            began,
            duration: args.duration,
            route: args.route(),
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

    /// Prints something that happened, and to whom.
    pub(crate) fn note(&self, whom: &str, what: &str) {
        self.lock().note(whom, what);
    }

    /// Notes that DNS is about to get more pods.
    pub(crate) fn scaled_up(&self) {
        self.lock().scaled_up = Some(Instant::now());
    }

    /// Counts a good answer of `pod`.
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

    /// Prints a change of the set of pods.
    pub(crate) fn membership(&self, change: &MembershipChange) {
        self.lock().membership(change);
    }

    /// Shows the current state. Called at a fixed interval.
    pub(crate) fn frame(&self, endpoints: &[EndpointStatus]) {
        let now = Instant::now();
        let mut state = self.lock();
        state.look_at(endpoints);
        state.forget_before(now - RECENTLY);
        if let Some(size) = state.screen.size().filter(|_| state.screen.is_live()) {
            let table = state.live(size);
            state.screen.table(&table);
        } else if now >= state.next_plain {
            state.next_plain += RECENTLY;
            let line = state.plain();
            state.note("client", &line);
        }
    }

    /// Shows the summary, and returns how many requests failed.
    pub(crate) fn summary(&self, endpoints: &[EndpointStatus]) -> usize {
        let mut state = self.lock();
        state.look_at(endpoints);
        let (table, text) = state.summary();
        state.screen.end(&table, &text);
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
        // There may be thousands of the same kind.
        if self.failures.len() < MAX_TOLD && !self.failures.contains(&failure) {
            self.note("client", &format!("FAILED: {failure}"));
            self.failures.insert(failure);
        }
    }

    fn membership(&mut self, change: &MembershipChange) {
        let now = Instant::now();
        for endpoint in &change.joined {
            let pod = self.pods.entry(named(endpoint)).or_default();
            // The pods of the first answer aren't new, nor is a pod that comes back.
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

    /// Takes over the balancer's view of its endpoints, and prints what has changed.
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
                news.push(format!("first answer of {ip} {after:.2} s {since}"));
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

    /// The pods' rows, gone pods last. Shares are `part` of `whole`.
    fn rows(&self, part: impl Fn(&Pod) -> u64, whole: u64) -> Vec<Row> {
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|(_, pod)| pod.is_gone());
        let row = |(endpoint, pod): (&Endpoint, &Pod)| pod.row(endpoint, part(pod), whole);
        pods.into_iter().map(row).collect()
    }

    /// The current table, and below it the progress of the run.
    fn live(&self, size: Size) -> String {
        let rows = self.rows(|pod| pod.recent, self.recent.len() as u64);
        let max_rows = size.rows.saturating_sub(OTHER_LINES + FRAME_LINES);
        let table = render(&rows, max_rows.min(MAX_ROWS), size.columns);
        let (route, ok, failed) = (&self.route, self.latencies.count(), self.failed);
        let (elapsed, duration) = (self.began.elapsed(), self.duration.as_secs_f64());
        let elapsed = elapsed.as_secs_f64();
        format!(
            "\n{table}\n{route}: {ok} answers, {failed} failed; {elapsed:.0} of {duration} s; ^C ends it\n"
        )
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

    /// The table of the whole run, and the text below it.
    fn summary(&self) -> (String, String) {
        let ok = self.latencies.count();
        let failed = self.failed;
        let all = &self.latencies;
        let newcomer = |(endpoint, pod): (&Endpoint, &Pod)| self.newcomer(endpoint, pod);
        let mut newcomers: Vec<_> = self.pods.iter().filter_map(newcomer).collect();
        let (mut max_rows, mut columns) = (MAX_ROWS, usize::MAX);
        if let Some(size) = self.screen.size() {
            if let Some(more @ 1..) = newcomers.len().checked_sub(MAX_NAMED) {
                newcomers.truncate(MAX_NAMED);
                newcomers.push(format!("           and {more} more\n"));
            }
            let others = OTHER_LINES + newcomers.len() + SUMMARY_LINES;
            max_rows = max_rows.min(size.rows.saturating_sub(others));
            columns = size.columns;
        }
        let rows = self.rows(Pod::answers, ok);
        let table = format!("\n{}", render(&rows, max_rows, columns));
        let mut text = String::new();
        if ok > 0 {
            text += &format!(
                "answers    {ok}: p50 {}, p99 {}, longest {}\n",
                milliseconds(all.quantile(0.5)),
                milliseconds(all.quantile(0.99)),
                milliseconds(all.quantile(1.0)),
            );
        }
        text += &newcomers.concat();
        text += &format!("sent {} ok {ok} failed {failed}\n", ok + failed as u64);
        (table, text)
    }

    /// Says how soon a pod that came during the run was used.
    fn newcomer(&self, endpoint: &Endpoint, pod: &Pod) -> Option<String> {
        pod.new_since?;
        let used = match pod.first_answer_after() {
            Some(after) => format!("first answer {:.2} s", after.as_secs_f64()),
            None => "no answer yet".to_owned(),
        };
        let ttl = self.ttl.map(|ttl| format!(" (TTL {} s)", ttl.as_secs()));
        let ttl = ttl.unwrap_or_default();
        let ip = endpoint.address().ip();
        let since = self.since();
        Some(format!("new pod    {ip}: {used} {since}{ttl}\n"))
    }

    /// What the times of new pods are counted from.
    fn since(&self) -> &'static str {
        match self.ttl {
            Some(_) => "after DNS had it",
            None => "after it was discovered",
        }
    }
}

/// A pod by its name and address only, because the rest may change.
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
