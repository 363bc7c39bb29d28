//! What an update costs, and how much it slows concurrent picks: `cargo bench --bench update`.
//!
//! The writer is not public, so its sources are built into this benchmark. An update replaces one pod of the set; its
//! answer is in a random order, as from a DNS server. It is compared, in the same rounds, with `limit`: sort the
//! addresses, merge them with the old ones, copy the entries that stay, swap the list.

mod support;

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    reason = "what isn't used here is used in the crate"
)]
#[path = "../src"]
mod source {
    pub(crate) mod attempts;
    pub(crate) mod comparison;
    pub(crate) mod counters;
    pub(crate) mod endpoint;
    pub(crate) mod error;
    pub(crate) mod in_flight;
    pub(crate) mod latency;
    pub(crate) mod locality;
    pub(crate) mod logs;
    pub(crate) mod member;
    pub(crate) mod outcome;
    pub(crate) mod policy;
    pub(crate) mod route;
    pub(crate) mod signals;
    pub(crate) mod snapshot;
    pub(crate) mod stable_hash;
    pub(crate) mod sync;
    #[cfg(feature = "serde")]
    pub(crate) mod times;
}
// The modules where the sources expect each other.
#[cfg(feature = "serde")]
use source::times;
use source::{
    attempts, comparison, counters, endpoint, error, in_flight, latency, locality, logs, member,
    outcome, policy, route, signals, snapshot, stable_hash, sync,
};

use std::{
    hint,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use endpoint::Endpoint;
use locality::LocalityPreference;
use policy::{AnyPolicy, RoundRobin};
use route::Route;
use signals::Signals;
use snapshot::{Current, Writer};
use support::{Field, Goals, NoOp, Plan, address, burst::clock};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

fn main() {
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    for len in SIZES {
        updates(len, &plan, &mut goals);
        unchanged(len, &mut goals);
    }
    for len in SIZES {
        picks_meanwhile(len, &plan, &mut goals);
    }
    goals.print();
}

fn updates(len: usize, plan: &Plan, goals: &mut Goals) {
    let mut field = Field::new(format_args!("{len} endpoints, an update"));
    let mut ours = Set::new(len);
    field.add("update", timed(len, move |set| ours.update(set)));
    let mut limit = Limit::default();
    field.add("limit", timed(len, move |set| limit.update(set)));
    let times = field.measure(plan);
    let ratio = times.ratio("update", "limit");
    goals.at_most(format_args!("update/n={len}/limit"), ratio, 2.0);
}

/// An answer with the same pods as before allocates nothing but itself.
fn unchanged(len: usize, goals: &mut Goals) {
    let mut set = Set::new(len);
    let mut answers = Answers::new(len);
    set.update(answers.same());
    let again = answers.same();
    let seen = allocation_counter::measure(|| set.update(again));
    let name = format!("update/unchanged/n={len}/allocations");
    goals.at_most(name, seen.count_total as f64, 0.0);
}

/// Answers of discovery, each in another order.
struct Answers {
    set: Vec<Endpoint>,
    /// The pod to join next.
    next: usize,
    rng: SmallRng,
}

impl Answers {
    fn new(len: usize) -> Self {
        Self {
            set: (0..len).map(|host| address(host).into()).collect(),
            next: len,
            rng: SmallRng::seed_from_u64(42),
        }
    }

    fn same(&mut self) -> Vec<Endpoint> {
        self.set.shuffle(&mut self.rng);
        self.set.clone()
    }

    /// Replaces a random pod by a new one.
    fn changed(&mut self) -> Vec<Endpoint> {
        self.set.shuffle(&mut self.rng);
        self.set[0] = address(self.next).into();
        // Cluster networks reuse their addresses.
        self.next = (self.next + 1) % (1 << 20);
        self.set.clone()
    }
}

/// Times `update` on answers that are made before the clock starts, a few at a time.
fn timed(len: usize, mut update: impl FnMut(Vec<Endpoint>)) -> impl FnMut(u64) -> f64 {
    const BATCH: u64 = 16;
    let mut answers = Answers::new(len);
    move |times| {
        let (mut left, mut spent) = (times, 0.0);
        while left > 0 {
            let batch = left.min(BATCH);
            let sets: Vec<_> = (0..batch).map(|_| answers.changed()).collect();
            spent += clock(1, || sets.into_iter().for_each(&mut update));
            left -= batch;
        }
        spent / times as f64
    }
}

/// A set under round robin, with its writer.
struct Set<M> {
    writer: Writer<M>,
    current: Arc<Current<NoOp>>,
    rng: SmallRng,
}

impl Set<fn(&Endpoint) -> NoOp> {
    fn new(len: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(1);
        let make: fn(&Endpoint) -> NoOp = |_| NoOp::default();
        let signals = Arc::new(Signals::new(tokio::time::Instant::now()));
        let policy = AnyPolicy::new(RoundRobin::new());
        let locality = LocalityPreference::default();
        let (writer, current) = Writer::new(policy, locality, make, signals, &mut rng);
        let mut set = Self {
            writer,
            current: Arc::new(current),
            rng,
        };
        set.update(Answers::new(len).same());
        set
    }

    fn update(&mut self, set: Vec<Endpoint>) {
        let change = self.writer.replace(
            &self.current,
            set,
            locality::Proximities::Look,
            &mut self.rng,
        );
        hint::black_box(&change);
    }
}

/// The least that an update of a sorted, swappable list of shared entries can cost.
#[derive(Default)]
struct Limit(ArcSwap<Vec<Arc<(SocketAddr, NoOp)>>>);

impl Limit {
    fn update(&mut self, mut set: Vec<Endpoint>) {
        set.sort_unstable_by_key(Endpoint::address);
        let old = self.0.load_full();
        let mut old = old.iter().peekable();
        let mut entries = Vec::with_capacity(set.len());
        for endpoint in set {
            let address = endpoint.address();
            while old.next_if(|entry| entry.0 < address).is_some() {}
            let kept = old.next_if(|entry| entry.0 == address);
            entries.push(kept.map_or_else(|| Arc::new((address, NoOp::default())), Arc::clone));
        }
        self.0.store(Arc::new(entries));
    }
}

/// How much slower picks are while the set changes every millisecond, by windows with and without changes in turn.
fn picks_meanwhile(len: usize, plan: &Plan, goals: &mut Goals) {
    let mut set = Set::new(len);
    let current = set.current.clone();
    let (changing, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut answers = Answers::new(len);
            while !over.load(Relaxed) {
                // The answer is also made and dropped in quiet windows, so that only the update differs.
                let answer = answers.changed();
                if changing.load(Relaxed) {
                    set.update(answer);
                }
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let mut field = Field::new(format_args!("{len} endpoints, a pick"));
        for (name, on) in [("quiet", false), ("updates", true)] {
            let (changing, mut picks) = (&changing, picks(&current));
            field.add(name, move |times| {
                changing.store(on, Relaxed);
                picks(times)
            });
        }
        let times = field.measure(plan);
        over.store(true, Relaxed);
        let ratio = times.ratio("updates", "quiet");
        goals.at_most(format_args!("update/picks_meanwhile/n={len}"), ratio, 1.1);
    });
}

/// Picks whose requests end at once.
fn picks(current: &Current<NoOp>) -> impl FnMut(u64) -> f64 {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut pick = move || {
        // If the system suspends a thread for long, its whole set may have left meanwhile, and it has to pick again.
        loop {
            let snapshot = current.load();
            if let Some(picked) = snapshot.pick(&Route::new(), &mut rng) {
                hint::black_box(picked.service.clone());
                break;
            }
        }
    };
    move |times| clock(times, || (0..times).for_each(|_| pick()))
}
