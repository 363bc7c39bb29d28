//! How the benchmarks measure: interleaved rounds, medians, and one line per goal.
//!
//! The machines are shared and their clocks drift, so nothing is measured for long at a stretch. In every round each
//! candidate runs for a few milliseconds. The result is the median over the rounds, and for two candidates the
//! median of their ratios round by round, in which most of the drift cancels out. Times are printed, never asserted.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::{
    convert::Infallible,
    fmt,
    future::{Future, Ready, ready},
    hint,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::runtime::{Builder, Runtime};
use tower::Service;

pub(crate) mod burst;

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    rounds: usize,
    window: f64,
}

impl Plan {
    /// By the command line: in full under `cargo bench`; otherwise (`cargo test --benches`, `--test`) just enough to
    /// see that everything runs.
    pub(crate) fn from_args() -> Self {
        let said = |word| std::env::args().any(|argument| argument == word);
        if said("--bench") && !said("--test") {
            Self {
                rounds: 61,
                window: 2e6,
            }
        } else {
            Self {
                rounds: 1,
                window: 1e4,
            }
        }
    }

    /// Whether to measure in full.
    pub(crate) fn is_full(&self) -> bool {
        self.rounds > 1
    }

    /// Limits the rounds to this many, for candidates that take long.
    pub(crate) fn shorter(self, rounds: usize) -> Self {
        Self {
            rounds: self.rounds.min(rounds),
            ..self
        }
    }
}

/// Something to measure: runs the given number of times, and returns the nanoseconds that one run took.
pub(crate) type Burst<'a> = Box<dyn FnMut(u64) -> f64 + 'a>;

/// Candidates that are measured side by side.
pub(crate) struct Field<'a> {
    title: String,
    candidates: Vec<(&'static str, Burst<'a>)>,
}

impl<'a> Field<'a> {
    pub(crate) fn new(title: impl fmt::Display) -> Self {
        Self {
            title: title.to_string(),
            candidates: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, burst: impl FnMut(u64) -> f64 + 'a) {
        self.candidates.push((name, Box::new(burst)));
    }

    /// Measures all candidates, once in every round, and prints their medians.
    pub(crate) fn measure(mut self, plan: &Plan) -> Times {
        let calibrate = |(name, mut burst): (&'static str, Burst<'a>)| {
            let times = calibrate(&mut burst, plan.window);
            (name, burst, times, Vec::with_capacity(plan.rounds))
        };
        let mut runs: Vec<_> = self.candidates.drain(..).map(calibrate).collect();
        for round in 0..plan.rounds {
            // Each round begins with another candidate, so that none always inherits the same one's caches.
            let first = round % runs.len();
            runs.rotate_left(first);
            for (_, burst, times, seen) in &mut runs {
                // The first run fills the caches, which the candidates before have evicted.
                burst(*times);
                seen.push(burst(*times));
            }
            runs.rotate_right(first);
        }
        let times = Times(
            runs.into_iter()
                .map(|(name, .., seen)| (name, seen))
                .collect(),
        );
        println!("\n{}\n{times}", self.title);
        times
    }
}

/// A runtime of one thread beside this one, because the pods take the other core of a small machine. With two, the client's
/// and the pods' threads compete for the cores.
pub(crate) fn one_worker() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// How many runs fill the window. Finding out is the warm-up.
pub(crate) fn calibrate(burst: &mut Burst<'_>, window: f64) -> u64 {
    let mut times = 1;
    loop {
        let took = burst(times).max(0.1) * times as f64;
        if took >= window / 2.0 {
            return ((times as f64 * window / took) as u64).max(1);
        }
        times = (times as f64 * (window / took).clamp(2.0, 10.0)) as u64;
    }
}

/// The results: for each candidate, the nanoseconds of every round.
pub(crate) struct Times(Vec<(&'static str, Vec<f64>)>);

impl Times {
    fn of(&self, name: &str) -> &[f64] {
        let found = self.0.iter().find(|(candidate, _)| *candidate == name);
        &found.expect("a candidate that was measured").1
    }

    /// The median in nanoseconds.
    pub(crate) fn typical(&self, name: &str) -> f64 {
        median(self.of(name).iter().copied())
    }

    /// The median of the ratios of each round.
    pub(crate) fn ratio(&self, dividend: &str, divisor: &str) -> f64 {
        let rounds = self.of(dividend).iter().zip(self.of(divisor));
        median(rounds.map(|(dividend, divisor)| dividend / divisor))
    }

    /// The median of the differences of each round.
    pub(crate) fn difference(&self, minuend: &str, subtrahend: &str) -> f64 {
        let rounds = self.of(minuend).iter().zip(self.of(subtrahend));
        median(rounds.map(|(minuend, subtrahend)| minuend - subtrahend))
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, seen) in &self.0 {
            let fastest = seen.iter().copied().fold(f64::INFINITY, f64::min);
            let median = median(seen.iter().copied());
            writeln!(
                f,
                "  {name:<28} {median:>12.1} ns   fastest {fastest:>12.1} ns"
            )?;
        }
        Ok(())
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The goals' lines, printed together at the end.
#[derive(Default)]
pub(crate) struct Goals(Vec<String>);

impl Goals {
    pub(crate) fn at_most(&mut self, name: impl fmt::Display, value: f64, bound: f64) {
        self.0
            .push(format!("ratio {name} {value:.3} goal <= {bound}"));
    }

    pub(crate) fn at_least(&mut self, name: impl fmt::Display, value: f64, bound: f64) {
        self.0
            .push(format!("ratio {name} {value:.3} goal >= {bound}"));
    }

    /// A difference, in nanoseconds.
    pub(crate) fn more_at_most(&mut self, name: impl fmt::Display, nanos: f64, bound: f64) {
        self.0
            .push(format!("difference {name} {nanos:.1} ns goal <= {bound}"));
    }

    pub(crate) fn note(&mut self, note: impl fmt::Display) {
        self.0.push(note.to_string());
    }

    pub(crate) fn print(&self) {
        println!();
        self.0.iter().for_each(|line| println!("{line}"));
    }
}

/// A service that does nothing, and is cloned like a real client: by incrementing a count that its clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct NoOp(Arc<()>);

impl Service<()> for NoOp {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        hint::black_box(&self.0);
        ready(Ok(()))
    }
}

/// A service that does nothing, and answers at the second poll while it is told to be slow. All its clones are told at
/// once.
#[derive(Clone, Debug, Default)]
pub(crate) struct TakesTime(pub(crate) Arc<AtomicBool>);

impl Service<()> for TakesTime {
    type Response = ();
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        Answer {
            pends: self.0.load(Relaxed),
        }
    }
}

pub(crate) struct Answer {
    pends: bool,
}

impl Future for Answer {
    type Output = Result<(), Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pends) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

/// The address of a made-up pod.
pub(crate) fn address(host: usize) -> SocketAddr {
    let [.., b, c, d] = host.to_be_bytes();
    SocketAddr::from(([10, b, c, d], 80))
}
