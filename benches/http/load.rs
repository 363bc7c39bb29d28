//! The load, and its figures: requests per second and per second of processor time, and how long they take.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

use crate::support::{Goals, burst::now, median};

const CALLERS: usize = 64;

/// Makes requests, each to the end of its response.
pub(crate) trait Caller: Clone + Send + 'static {
    fn request(&mut self) -> impl Future<Output = ()> + Send;
}

/// What to do with the candidates.
#[derive(Clone)]
pub(crate) enum Plan {
    /// Measure all of them: how often, and for how long.
    Race { rounds: usize, window: Duration },
    /// Let one of them make this many requests and do nothing else, for a tool that counts instructions.
    Count { candidate: String, requests: u32 },
}

impl Plan {
    /// By the command line: the options of the other benchmarks, or `--count http1/limit 10000`.
    pub(crate) fn from_args() -> Self {
        let said = |word| std::env::args().any(|argument| argument == word);
        let mut count = std::env::args().skip_while(|argument| argument != "--count");
        if count.next().is_some() {
            return Self::Count {
                candidate: count.next().expect("a race and a candidate"),
                requests: count
                    .next()
                    .and_then(|it| it.parse().ok())
                    .expect("how many"),
            };
        }
        let (rounds, window) = match said("--bench") && !said("--test") {
            true => (31, Duration::from_millis(100)),
            false => (1, Duration::from_millis(10)),
        };
        Self::Race { rounds, window }
    }
}

/// When callers stop.
#[derive(Clone, Copy)]
enum End {
    At(Instant),
    After(u32),
}

impl End {
    fn has_come(self, now: Instant, requests: usize) -> bool {
        match self {
            Self::At(end) => now >= end,
            Self::After(last) => requests >= last as usize,
        }
    }
}

/// A candidate's figures in one round.
#[derive(Clone, Copy)]
struct Seen {
    /// Requests per second.
    rate: f64,
    /// Requests per second of processor time.
    frugality: f64,
    /// The median time of a request, in microseconds.
    p50: f64,
    p99: f64,
}

type Run<'a> = Box<dyn FnMut(End) -> Seen + 'a>;

/// Candidates that are measured side by side.
pub(crate) struct Race<'a> {
    title: &'static str,
    runtime: &'a Runtime,
    candidates: Vec<(&'static str, Run<'a>)>,
}

impl<'a> Race<'a> {
    pub(crate) fn new(title: &'static str, runtime: &'a Runtime) -> Self {
        Self {
            title,
            runtime,
            candidates: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, caller: impl Caller) {
        let runtime = self.runtime;
        let run = move |end| runtime.block_on(load(&caller, end));
        self.candidates.push((name, Box::new(run)));
    }

    /// Does what is planned. There are results if all candidates were measured.
    pub(crate) fn run(self, plan: &Plan) -> Option<Results> {
        match plan {
            &Plan::Race { rounds, window } => Some(self.measure(rounds, window)),
            Plan::Count {
                candidate,
                requests,
            } => {
                self.count(candidate, *requests);
                None
            }
        }
    }

    fn count(mut self, wanted: &str, requests: u32) {
        let title = self.title;
        let is_wanted = |name: &str| format!("{title}/{name}") == wanted;
        if let Some((_, run)) = self.candidates.iter_mut().find(|(name, _)| is_wanted(name)) {
            run(End::After(requests / CALLERS as u32));
            println!("{wanted}: {requests} requests");
        }
    }

    /// Measures all candidates, once in every round, and prints their medians.
    fn measure(mut self, rounds: usize, window: Duration) -> Results {
        let mut seen = vec![Vec::with_capacity(rounds); self.candidates.len()];
        let after = |window| End::At(now() + window);
        for (_, run) in &mut self.candidates {
            // So that connections are made.
            run(after(window));
        }
        let len = self.candidates.len();
        for round in 0..rounds {
            for candidate in 0..len {
                // Each round begins with another candidate, so that none always inherits the same one's caches.
                let candidate = (round + candidate) % len;
                let (_, run) = &mut self.candidates[candidate];
                run(after(window / 5));
                seen[candidate].push(run(after(window)));
            }
        }
        let names = self.candidates.iter().map(|(name, _)| *name);
        let results = Results {
            title: self.title,
            seen: names.zip(seen).collect(),
        };
        println!("\n{results}");
        results
    }
}

/// Runs all callers at once, each with its next request as soon as it has the last answer.
async fn load<C: Caller>(caller: &C, end: End) -> Seen {
    let (start, before) = (now(), computed());
    let call = |_| tokio::spawn(call_until(caller.clone(), end));
    let callers: Vec<_> = (0..CALLERS).map(call).collect();
    let mut times = Vec::new();
    for caller in callers {
        times.push(caller.await.expect("requests succeed"));
    }
    let (elapsed, computed) = (start.elapsed(), computed() - before);
    let mut histogram = Histogram::<u64>::new(3).expect("three digits");
    for took in times.into_iter().flatten() {
        histogram += u64::from(took);
    }
    let requests = histogram.len() as f64;
    let microseconds = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Seen {
        rate: requests / elapsed.as_secs_f64(),
        frugality: requests / computed.as_secs_f64(),
        p50: microseconds(0.5),
        p99: microseconds(0.99),
    }
}

/// The nanoseconds that each request took.
async fn call_until(mut caller: impl Caller, end: End) -> Vec<u32> {
    // Room for all of a window: a few hundred requests a caller.
    let mut times = Vec::with_capacity(4096);
    let mut start = now();
    while !end.has_come(start, times.len()) {
        caller.request().await;
        let done = now();
        let took = (done - start).as_nanos();
        times.push(u32::try_from(took).unwrap_or(u32::MAX));
        start = done;
    }
    times
}

/// The time that this process has spent computing so far, in all its threads and in the system on their behalf. Linux
/// only: elsewhere it can't be read without `unsafe`.
fn computed() -> Duration {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let spent = threads.filter_map(|thread| {
        let statistics = thread.ok()?.path().join("schedstat");
        let text = fs::read_to_string(statistics).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Each candidate's figures, in every round.
pub(crate) struct Results {
    title: &'static str,
    seen: Vec<(&'static str, Vec<Seen>)>,
}

impl Results {
    /// Prints the figures of `ours` relative to `peer`, and the goal, if there is one.
    pub(crate) fn judge(&self, goals: &mut Goals, ours: &str, peer: &str, goal: Option<Goal>) {
        let rate = self.ratio(ours, peer, |seen| seen.rate);
        let frugality = self.ratio(ours, peer, |seen| seen.frugality);
        let p99 = self.ratio(ours, peer, |seen| seen.p99);
        let title = self.title;
        let label = peer.replace(' ', "_");
        let Some(goal) = goal else {
            let ours = ours.replace(' ', "_");
            goals.note(format_args!(
                "beside http/{title}/{ours}/{label} requests {rate:.3} cpu {frugality:.3} p99 {p99:.3}"
            ));
            return;
        };
        goals.at_least(
            format_args!("http/{title}/requests/{label}"),
            rate,
            goal.requests,
        );
        goals.at_least(
            format_args!("http/{title}/cpu/{label}"),
            frugality,
            goal.requests,
        );
        goals.at_most(format_args!("http/{title}/p99/{label}"), p99, goal.p99);
    }

    /// The median of the ratios of each round.
    fn ratio(&self, dividend: &str, divisor: &str, what: impl Fn(&Seen) -> f64) -> f64 {
        let rounds = self.of(dividend).iter().zip(self.of(divisor));
        median(rounds.map(|(dividend, divisor)| what(dividend) / what(divisor)))
    }

    fn of(&self, name: &str) -> &[Seen] {
        let found = self.seen.iter().find(|(candidate, _)| *candidate == name);
        &found.expect("a candidate that was measured").1
    }
}

/// Our goal relative to a peer: the least ratio of requests, per second and per second of processor time, and the
/// largest ratio of the 99th percentiles.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) requests: f64,
    pub(crate) p99: f64,
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {CALLERS} callers", self.title)?;
        for (name, seen) in &self.seen {
            let median = |what: fn(&Seen) -> f64| median(seen.iter().map(what));
            let (rate, frugality) = (median(|seen| seen.rate), median(|seen| seen.frugality));
            let (p50, p99) = (median(|seen| seen.p50), median(|seen| seen.p99));
            let computed = 1e6 / frugality;
            writeln!(
                f,
                "  {name:<28} {rate:>9.0} requests/s   {computed:>6.2} µs of processor time each   p50 {p50:>6.0} µs   p99 {p99:>6.0} µs"
            )?;
        }
        Ok(())
    }
}
