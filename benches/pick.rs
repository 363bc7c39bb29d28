//! What a pick costs: `cargo bench --bench pick`.
//!
//! Every figure is one whole request to a service that is ready and does nothing: `poll_ready`, `call`, and the future
//! to its end, including the guard and the health check. It is compared, in the same rounds, with:
//!
//! - `limit`: the least that any balancer over a swappable set can cost. It loads a snapshot, increments a shared
//!   cursor, clones the service that it points at, and calls it.
//! - `p2c`: tower's balancer, which needs `&mut` and so serves one caller only.
//! - `p2c behind Buffer`: the same, shared in tower's way, with a worker task in a current-thread runtime.

mod support;

use std::{
    convert::Infallible,
    future::Ready,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tower::{
    Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_headless::{
    Balance, BoxError, Discovery, Endpoint, LeastConnections, OutlierDetection, PeakEwma, Policy,
    PowerOfTwo, Random, RoundRobin, StaticEndpoints,
};

use support::{
    Field, Goals, NoOp, Plan, TakesTime, Times, address,
    burst::{
        awaited_requests, clock, cloned_requests, patient_request, request, requests,
        requests_on_two_threads,
    },
};

const SIZES: [usize; 5] = [3, 10, 100, 1_000, 10_000];

fn main() {
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    for len in SIZES {
        let times = measure(len, &plan);
        judge(len, &times, &mut goals);
        allocations(len, &mut goals);
        nearness(len, &plan, &mut goals);
    }
    for len in [10, 100] {
        watchfulness(len, &plan, &mut goals);
        counting(len, &plan, &mut goals);
    }
    thresholds(&plan);
    goals.print();
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("timers need nothing of the system")
}

/// A balancer that knows its endpoints.
fn balance<P: Policy>(runtime: &Runtime, policy: P, len: usize) -> Balance<NoOp> {
    runtime.block_on(async {
        let mut balance = Balance::builder(StaticEndpoints::new((0..len).map(address)))
            .policy(policy)
            .build(|_: &_| NoOp::default());
        let ready = balance.ready().await;
        ready.expect("readiness never fails");
        balance
    })
}

/// A balancer in one of two zones, which has a quarter of the endpoints: half of the requests stay there.
fn near<P: Policy>(runtime: &Runtime, policy: P, len: usize) -> Balance<NoOp> {
    runtime.block_on(async {
        let mut balance = Balance::builder(Zones(len))
            .policy(policy)
            .zone("a")
            .build(|_: &_| NoOp::default());
        let ready = balance.ready().await;
        ready.expect("readiness never fails");
        balance
    })
}

/// Discovery of this many endpoints in zones a and b, which answers once.
struct Zones(usize);

impl Discovery for Zones {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let endpoint = |host: usize| {
            let zone = if host.is_multiple_of(4) { "a" } else { "b" };
            Endpoint::new(address(host)).with_zone_hints([zone])
        };
        match std::mem::take(&mut self.0) {
            0 => Poll::Pending,
            len => Poll::Ready(Ok((0..len).map(endpoint).collect())),
        }
    }
}

type P2c = p2c::Balance<ServiceList<Vec<PendingRequests<NoOp>>>, ()>;

fn p2c(len: usize) -> P2c {
    let service = || PendingRequests::new(NoOp::default(), CompleteOnResponse::default());
    let services = (0..len).map(|_| service()).collect();
    p2c::Balance::new(ServiceList::new::<()>(services))
}

/// The least that picking from a swappable set can cost.
#[derive(Clone)]
struct Limit {
    services: Arc<ArcSwap<Vec<NoOp>>>,
    cursor: Arc<AtomicUsize>,
}

impl Limit {
    fn new(len: usize) -> Self {
        let services = (0..len).map(|_| NoOp::default()).collect();
        Self {
            services: Arc::new(ArcSwap::from_pointee(services)),
            cursor: Arc::default(),
        }
    }
}

impl Service<()> for Limit {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let services = self.services.load();
        let index = self.cursor.fetch_add(1, Relaxed) % services.len();
        let mut service = services[index].clone();
        service.call(())
    }
}

/// A policy's name in goals, and of its candidates: one thread, two threads, a clone per request, near endpoints first.
struct Names {
    policy: &'static str,
    one: &'static str,
    two: &'static str,
    cloned: &'static str,
    near: &'static str,
}

macro_rules! names {
    ($policy:literal) => {
        Names {
            policy: $policy,
            one: $policy,
            two: concat!($policy, ", two threads"),
            cloned: concat!($policy, ", cloned each"),
            near: concat!($policy, ", near first"),
        }
    };
}

const ROUND_ROBIN: Names = names!("round_robin");
const RANDOM: Names = names!("random");
const LEAST_CONNECTIONS: Names = names!("least_connections");
const POWER_OF_TWO: Names = names!("power_of_two");
const PEAK_EWMA: Names = names!("peak_ewma");
const POLICIES: [Names; 5] = [
    ROUND_ROBIN,
    RANDOM,
    LEAST_CONNECTIONS,
    POWER_OF_TWO,
    PEAK_EWMA,
];
const LIMIT: Names = names!("limit");
const P2C: &str = "p2c";
const P2C_BUFFER: &str = "p2c behind Buffer";

fn measure(len: usize, plan: &Plan) -> Times {
    let runtime = runtime();
    // Its own runtime, so that no other task takes the worker's time.
    let worker = self::runtime();
    let buffer = worker.block_on(async { Buffer::new(p2c(len), 1024) });
    let mut field = Field::new(format_args!("{len} endpoints, a request"));
    let limit = Limit::new(len);
    field.add(LIMIT.one, requests(limit.clone()));
    field.add(LIMIT.two, requests_on_two_threads(limit));
    add(
        &mut field,
        &ROUND_ROBIN,
        balance(&runtime, RoundRobin::new(), len),
    );
    add(&mut field, &RANDOM, balance(&runtime, Random::new(), len));
    let least = balance(&runtime, LeastConnections::new(), len);
    add(&mut field, &LEAST_CONNECTIONS, least);
    let two = balance(&runtime, PowerOfTwo::new(), len);
    add(&mut field, &POWER_OF_TWO, two);
    let ewma = balance(&runtime, PeakEwma::new(), len);
    add(&mut field, &PEAK_EWMA, ewma);
    field.add(P2C, requests(p2c(len)));
    field.add(P2C_BUFFER, awaited_requests(&worker, buffer));
    field.measure(plan)
}

fn add(field: &mut Field<'_>, names: &Names, balance: Balance<NoOp>) {
    field.add(names.one, requests(balance.clone()));
    field.add(names.two, requests_on_two_threads(balance.clone()));
    field.add(names.cloned, cloned_requests(balance));
}

fn judge(len: usize, times: &Times, goals: &mut Goals) {
    for names in POLICIES {
        let name = format!("pick/{}/n={len}", names.policy);
        let least_connections = names.policy == LEAST_CONNECTIONS.policy;
        if !least_connections {
            let ratio = times.ratio(names.one, LIMIT.one);
            goals.at_most(format_args!("{name}/limit"), ratio, 2.0);
            if ratio <= 1.5 {
                goals.note(format_args!("stretch {name}/limit {ratio:.3} <= 1.5"));
            }
        }
        if len <= if least_connections { 100 } else { 1_000 } {
            let ratio = times.ratio(P2C_BUFFER, names.one);
            goals.at_least(format_args!("{name}/p2c_buffer"), ratio, 6.0);
        }
        if len >= 10 {
            let ratio = times.ratio(names.two, names.one);
            goals.at_most(format_args!("{name}/two_threads"), ratio, 1.5);
            // The limit's threads also compete for its cursor.
            let ratio = times.ratio(names.two, LIMIT.two);
            goals.note(format_args!(
                "beside {name}/limit_on_two_threads {ratio:.3}"
            ));
        }
    }
}

fn allocations(len: usize, goals: &mut Goals) {
    let runtime = runtime();
    let mut count = |names: Names, allocations: f64| {
        let name = format!("pick/{}/n={len}/allocations", names.policy);
        goals.at_most(name, allocations, 0.0);
    };
    count(
        ROUND_ROBIN,
        per_pick(balance(&runtime, RoundRobin::new(), len)),
    );
    count(RANDOM, per_pick(balance(&runtime, Random::new(), len)));
    let least = balance(&runtime, LeastConnections::new(), len);
    count(LEAST_CONNECTIONS, per_pick(least));
    let two = balance(&runtime, PowerOfTwo::new(), len);
    count(POWER_OF_TWO, per_pick(two));
    let ewma = balance(&runtime, PeakEwma::new(), len);
    count(PEAK_EWMA, per_pick(ewma));
}

/// Allocations of one request, once thread-local state is set up.
fn per_pick(mut service: impl Service<()>) -> f64 {
    const PICKS: u64 = 10_000;
    request(&mut service);
    let seen = allocation_counter::measure(|| (0..PICKS).for_each(|_| request(&mut service)));
    seen.count_total as f64 / PICKS as f64
}

/// What near and far endpoints cost, compared with equal ones.
fn nearness(len: usize, plan: &Plan, goals: &mut Goals) {
    let runtime = runtime();
    let mut field = Field::new(format_args!("{len} endpoints, a request, near ones first"));
    beside(&mut field, &runtime, &ROUND_ROBIN, RoundRobin::new(), len);
    beside(&mut field, &runtime, &RANDOM, Random::new(), len);
    let least = LeastConnections::new();
    beside(&mut field, &runtime, &LEAST_CONNECTIONS, least, len);
    let two = PowerOfTwo::new();
    beside(&mut field, &runtime, &POWER_OF_TWO, two, len);
    let ewma = PeakEwma::new();
    beside(&mut field, &runtime, &PEAK_EWMA, ewma, len);
    let mut count = |names: Names, allocations: f64| {
        let name = format!("pick/near/{}/n={len}/allocations", names.policy);
        goals.at_most(name, allocations, 0.0);
    };
    count(
        ROUND_ROBIN,
        per_pick(near(&runtime, RoundRobin::new(), len)),
    );
    count(RANDOM, per_pick(near(&runtime, Random::new(), len)));
    count(LEAST_CONNECTIONS, per_pick(near(&runtime, least, len)));
    count(POWER_OF_TWO, per_pick(near(&runtime, two, len)));
    count(PEAK_EWMA, per_pick(near(&runtime, ewma, len)));
    let times = field.measure(plan);
    for names in POLICIES {
        let ratio = times.ratio(names.near, names.one);
        goals.note(format_args!(
            "beside pick/near/{}/n={len}/alike {ratio:.3}",
            names.policy
        ));
    }
}

fn beside<P: Policy + Clone>(
    field: &mut Field<'_>,
    runtime: &Runtime,
    names: &Names,
    policy: P,
    len: usize,
) {
    field.add(names.one, requests(balance(runtime, policy.clone(), len)));
    field.add(names.near, requests(near(runtime, policy, len)));
}

/// What outlier detection and latency cost: for requests that are answered at once (a pick), and for
/// requests that have to wait (a pick and a completion, which read the clock twice).
fn watchfulness(len: usize, plan: &Plan, goals: &mut Goals) {
    const UNWATCHED: [&str; 2] = ["without health", "without health, waits"];
    const WATCHED: [&str; 2] = ["with health", "with health, waits"];
    const TWO: [&str; 2] = ["power_of_two", "power_of_two, waits"];
    const EWMA: [&str; 2] = ["peak_ewma", "peak_ewma, waits"];
    let runtime = runtime();
    let mut field = Field::new(format_args!("{len} endpoints, a request, watched"));
    let round_robin = RoundRobin::new();
    watch(
        &mut field,
        &runtime,
        UNWATCHED,
        round_robin,
        OutlierDetection::off(),
        len,
    );
    watch(
        &mut field,
        &runtime,
        WATCHED,
        round_robin,
        OutlierDetection::new(),
        len,
    );
    watch(
        &mut field,
        &runtime,
        TWO,
        PowerOfTwo::new(),
        OutlierDetection::new(),
        len,
    );
    watch(
        &mut field,
        &runtime,
        EWMA,
        PeakEwma::new(),
        OutlierDetection::new(),
        len,
    );
    let times = field.measure(plan);
    for (name, [more, less]) in [("health", [WATCHED, UNWATCHED]), ("latency", [EWMA, TWO])] {
        let pick = times.difference(more[0], less[0]);
        goals.more_at_most(format_args!("pick/{name}/n={len}/pick"), pick, 10.0);
        let completion = times.difference(more[1], less[1]) - pick;
        goals.more_at_most(
            format_args!("pick/{name}/n={len}/completion"),
            completion,
            60.0,
        );
    }
}

fn watch<P: Policy + Clone>(
    field: &mut Field<'_>,
    runtime: &Runtime,
    names: [&'static str; 2],
    policy: P,
    health: OutlierDetection,
    len: usize,
) {
    for (name, waits) in names.into_iter().zip([false, true]) {
        let pends = Arc::new(AtomicBool::new(true));
        let service = TakesTime(pends.clone());
        let mut balance = runtime.block_on(async {
            let mut balance = Balance::builder(StaticEndpoints::new((0..len).map(address)))
                .policy(policy.clone())
                .outlier_detection(health.clone())
                .build(move |_: &_| service.clone());
            let ready = balance.ready().await;
            ready.expect("readiness never fails");
            balance
        });
        // By then every endpoint's latency is known.
        (0..len * 20).for_each(|_| patient_request(&mut balance));
        pends.store(waits, Relaxed);
        field.add(name, move |times| {
            clock(times, || {
                (0..times).for_each(|_| patient_request(&mut balance))
            })
        });
    }
}

/// What counting costs, for requests that are answered at once: for one thread, and for two that count at the same
/// endpoints.
///
/// Of two equal balancers one may be a nanosecond faster because of where it is in memory. So each candidate has
/// several, built in turn, and `off` is compared with its equal: that difference is the noise in the others.
fn counting(len: usize, plan: &Plan, goals: &mut Goals) {
    const OFF: &str = "counters off";
    const LIKE: &str = "counters off, its like";
    const ON: &str = "counters on";
    const TWO_THREADS: [&str; 2] = ["counters off, two threads", "counters on, two threads"];
    let runtime = runtime();
    let mut candidates = [(OFF, false), (LIKE, false), (ON, true)].map(|it| (it, Vec::new()));
    for _ in 0..LIKES {
        for ((_, on), balances) in &mut candidates {
            balances.push(counted(&runtime, len, *on));
        }
    }
    let mut field = Field::new(format_args!("{len} endpoints, a request, counted"));
    let limit = Limit::new(len);
    field.add(LIMIT.one, requests(limit));
    for ((name, _), balances) in candidates {
        field.add(name, requests_to_each(balances));
    }
    for (name, on) in TWO_THREADS.into_iter().zip([false, true]) {
        field.add(name, requests_on_two_threads(counted(&runtime, len, on)));
    }
    let times = field.measure(plan);
    let name = format!("pick/counters/n={len}");
    let off = times.ratio(OFF, LIMIT.one);
    goals.at_most(format_args!("{name}/off/limit"), off, 2.0);
    let by_chance = times.difference(OFF, LIKE).abs();
    goals.more_at_most(format_args!("{name}/counters_off"), by_chance, 1.0);
    let more = times.difference(ON, OFF);
    goals.more_at_most(format_args!("{name}/counters_on"), more, 20.0);
    // Two threads share an endpoint's counters when they share its count of requests in flight.
    let shared = times.ratio(TWO_THREADS[1], TWO_THREADS[0]);
    goals.at_most(format_args!("{name}/on/off, two threads"), shared, 1.5);
    for (which, on) in [("counters_off", false), ("counters_on", true)] {
        let allocations = per_pick(counted(&runtime, len, on));
        goals.at_most(format_args!("{name}/{which}/allocations"), allocations, 0.0);
    }
}

/// How many equal balancers a candidate has.
const LIKES: usize = 4;

/// Sends requests to one balancer after the other. Returns what one costs on average.
fn requests_to_each(balances: Vec<Balance<NoOp>>) -> impl FnMut(u64) -> f64 {
    let mut bursts: Vec<_> = balances.into_iter().map(requests).collect();
    move |times| {
        let each = times.div_ceil(bursts.len() as u64);
        let all: f64 = bursts.iter_mut().map(|burst| burst(each)).sum();
        all / bursts.len() as f64
    }
}

/// A balancer that counts its requests, or doesn't.
fn counted(runtime: &Runtime, len: usize, on: bool) -> Balance<NoOp> {
    runtime.block_on(async {
        let mut balance = Balance::builder(StaticEndpoints::new((0..len).map(address)))
            .counters(on)
            .build(|_: &_| NoOp::default());
        let ready = balance.ready().await;
        ready.expect("readiness never fails");
        balance
    })
}

/// Least connections around its threshold: up to 256 endpoints it reads all, above that 16. The difference to
/// round robin is what reading costs.
fn thresholds(plan: &Plan) {
    const SIZES: [(usize, &str); 8] = [
        (16, "all of 16"),
        (64, "all of 64"),
        (128, "all of 128"),
        (192, "all of 192"),
        (256, "all of 256"),
        (257, "16 of 257"),
        (512, "16 of 512"),
        (1_024, "16 of 1024"),
    ];
    let runtime = runtime();
    let mut field = Field::new("least connections, a request, by what it looks at");
    let none = balance(&runtime, RoundRobin::new(), 256);
    field.add("none (round robin of 256)", requests(none));
    for (len, name) in SIZES {
        let balance = balance(&runtime, LeastConnections::new(), len);
        field.add(name, requests(balance));
    }
    field.measure(plan);
}
