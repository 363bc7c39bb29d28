//! What a look costs: `cargo bench --bench resolve`.
//!
//! A look is `Dns::resolve()`: it queries the A and the AAAA records of a full name at once, and returns the pods,
//! sorted. The name has only A records, as in most clusters, so a look ends when those are there. Up to 72 of them fit
//! into a packet of 1,232 bytes here; more are queried over UDP and then over TCP. It is compared, in the same rounds,
//! with bare hickory: its resolver, without cache and hosts file, queries the same records of the same server at the
//! same time, until the A records are there, unsorted. It gets its name already parsed.
//!
//! - `hickory`: a resolver without a connection, because ours begins without one too. It is made before the clock
//!   starts, because the cache that it builds, even if disabled, is no part of a look. The goal is relative to this
//!   one.
//! - `hickory, made`: the same, including making it, as in `Dns::resolve()`.
//! - `hickory, kept`: one resolver for all looks. Over UDP it uses a new socket for each query, as all do; it keeps its
//!   TCP connection.
//!
//! What a program does repeatedly isn't `Dns::resolve()` but a refresh, which also keeps its connection, and remembers
//! which answers don't fit into a packet. Refreshes come at most every 10 ms, so their figure is the time that this
//! thread spends computing for one, compared with a kept hickory that is queried as often; both wait for both record
//! types.
//!
//! hickory's name server, by its source, keeps TCP connections for as long as its resolver lives, and tries UDP first each
//! time (`hickory-resolver`, `name_server.rs` and `name_server_pool.rs`).

mod support;

#[path = "resolve/server.rs"]
mod server;

use std::{
    fs,
    future::{Future, poll_fn},
    hint,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    task::Poll,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{interval, sleep, timeout},
};
use tower_headless::{Discovery, Dns};

use server::{Asked, Server};
use support::{Field, Goals, Plan, address, burst::clock, median};

const SIZES: [usize; 4] = [10, 100, 1_000, 4_000];

const NAME: &str = "nginx-headless.default.svc.cluster.local.";

const OURS: &str = "resolve";
const HICKORY: &str = "hickory";
const MADE: &str = "hickory, made";
const KEPT: &str = "hickory, kept";

fn main() {
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    for len in SIZES {
        let bench = Bench::new(len);
        looks(&bench, &plan, &mut goals);
        counts(&bench, &mut goals);
    }
    for len in SIZES {
        refreshes(&Bench::new(len), &mut goals);
    }
    goals.print();
}

/// The address of a made-up pod, as a record has it.
fn pod(host: usize) -> Ipv4Addr {
    match address(host).ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Both clients and their queries. The server works in another thread.
struct Bench {
    len: usize,
    server: Server,
    runtime: Runtime,
    name: Name,
    dns: Dns,
    config: ResolverConfig,
}

impl Bench {
    fn new(len: usize) -> Self {
        let name = Name::from_ascii(NAME).expect("a full name");
        let server = Server::start(&name, len);
        let runtime = Builder::new_current_thread().enable_all().build();
        let target = format!("{NAME}:80").parse().expect("a target");
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|mut connection| {
            connection.port = server.address.port();
            connection
        });
        let name_server = NameServerConfig::new(server.address.ip(), true, connections.to_vec());
        Self {
            len,
            runtime: runtime.expect("a runtime"),
            name,
            dns: Dns::new(target).name_servers([server.address]),
            config: ResolverConfig::from_parts(None, Vec::new(), vec![name_server]),
            server,
        }
    }

    fn hickory(&self) -> TokioResolver {
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(self.config.clone(), provider);
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().expect("a resolver without TLS")
    }

    async fn resolve(&self) {
        let found = self.dns.resolve().await.expect("an answer");
        assert_eq!(found.endpoints().len(), self.len);
        hint::black_box(&found);
    }

    /// Ends with the A records, like a look: the AAAA query is polled meanwhile, and dropped if it is slower.
    async fn ask(&self, hickory: &TokioResolver) {
        let mut v4 = pin!(hickory.lookup(self.name.clone(), RecordType::A));
        let mut v6 = pin!(hickory.lookup(self.name.clone(), RecordType::AAAA));
        let mut asking_v6 = true;
        let found = poll_fn(|cx| {
            if let Poll::Ready(found) = v4.as_mut().poll(cx) {
                return Poll::Ready(found);
            }
            if asking_v6 {
                asking_v6 = v6.as_mut().poll(cx).is_pending();
            }
            Poll::Pending
        });
        self.check(found.await);
    }

    /// Ends with both, like a refresh.
    async fn ask_both(&self, hickory: &TokioResolver) {
        let (v4, v6) = tokio::join!(
            hickory.lookup(self.name.clone(), RecordType::A),
            hickory.lookup(self.name.clone(), RecordType::AAAA)
        );
        assert!(v6.is_err(), "there are none");
        self.check(v4);
    }

    /// Includes the last look's AAAA query, for which the look may not have waited.
    fn asked_so_far(&self) -> Asked {
        let moment = async { sleep(PACE).await };
        self.runtime.block_on(moment);
        self.server.asked()
    }

    fn check(&self, found: Result<Lookup, NetError>) {
        let found = found.expect("an answer");
        let records = found.answers().iter();
        let addresses = records.filter_map(|record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let addresses: Vec<_> = addresses.collect();
        assert_eq!(addresses.len(), self.len);
        hint::black_box(addresses);
    }
}

fn looks(bench: &Bench, plan: &Plan, goals: &mut Goals) {
    let mut field = Field::new(format_args!("{} records, a look", bench.len));
    let run = |times: u64, look: &mut dyn FnMut()| clock(times, || (0..times).for_each(|_| look()));
    field.add(OURS, move |times| {
        run(times, &mut || bench.runtime.block_on(bench.resolve()))
    });
    field.add(HICKORY, move |times| {
        let made: Vec<_> = (0..times).map(|_| bench.hickory()).collect();
        let mut made = made.iter();
        run(times, &mut || {
            let hickory = made.next().expect("one for each time");
            bench.runtime.block_on(bench.ask(hickory));
        })
    });
    field.add(MADE, move |times| {
        run(times, &mut || {
            bench.runtime.block_on(bench.ask(&bench.hickory()))
        })
    });
    let kept = bench.hickory();
    field.add(KEPT, move |times| {
        run(times, &mut || bench.runtime.block_on(bench.ask(&kept)))
    });
    let times = field.measure(plan);
    let name = format!("resolve/n={}", bench.len);
    let ratio = times.ratio(OURS, HICKORY);
    goals.at_most(format_args!("{name}/hickory"), ratio, 1.2);
    for (other, label) in [(MADE, "hickory_made"), (KEPT, "hickory_kept")] {
        let ratio = times.ratio(OURS, other);
        goals.note(format_args!("beside {name}/{label} {ratio:.3}"));
    }
}

/// How many queries and allocations a look makes.
fn counts(bench: &Bench, goals: &mut Goals) {
    let kept = bench.hickory();
    let mut count = |client: &str, look: &dyn Fn()| {
        const LOOKS: u64 = 16;
        look();
        let before = bench.asked_so_far();
        let seen = allocation_counter::measure(|| (0..LOOKS).for_each(|_| look()));
        let asked = bench.asked_so_far().since(before);
        let per_look = |count: u64| count as f64 / LOOKS as f64;
        let (allocations, bytes) = (seen.count_total / LOOKS, seen.bytes_total / LOOKS);
        goals.note(format_args!(
            "count resolve/n={}/{client} udp {:.2} tcp {:.2} connections {:.2} allocations {allocations} bytes {bytes}",
            bench.len,
            per_look(asked.udp),
            per_look(asked.tcp),
            per_look(asked.connections),
        ));
    };
    count("ours", &|| bench.runtime.block_on(bench.resolve()));
    count("hickory_made", &|| {
        bench.runtime.block_on(bench.ask(&bench.hickory()));
    });
    count("hickory_kept", &|| bench.runtime.block_on(bench.ask(&kept)));
}

/// The shortest time between two refreshes.
const PACE: Duration = Duration::from_millis(10);

/// The thread's own time for one refresh. Linux only: elsewhere it can't be read without `unsafe`.
fn refreshes(bench: &Bench, goals: &mut Goals) {
    if computed().is_none() {
        return;
    }
    let (rounds, window) = match std::env::args().any(|argument| argument == "--bench") {
        true => (7, Duration::from_millis(400)),
        false => (1, Duration::from_millis(50)),
    };
    let mut dns = bench.dns.clone().refresh_interval(PACE);
    let kept = bench.hickory();
    let mut seen = Vec::new();
    for _ in 0..rounds {
        let ours = refresh(bench, window, drive(&mut dns));
        let hickory = refresh(bench, window, repeat(bench, &kept));
        seen.push((ours, hickory));
    }
    let ours = median(seen.iter().map(|(ours, _)| *ours));
    let hickory = median(seen.iter().map(|(_, hickory)| *hickory));
    let ratio = median(seen.iter().map(|(ours, hickory)| ours / hickory));
    println!("\n{} records, a refresh's own time", bench.len);
    println!("  {:<28} {ours:>12.1} ns", "refresh");
    println!("  {KEPT:<28} {hickory:>12.1} ns");
    goals.note(format_args!(
        "beside resolve/refresh/n={}/hickory_kept {ratio:.3}",
        bench.len
    ));
}

async fn drive(dns: &mut Dns) {
    loop {
        // An error says that there are no AAAA records, if that comes first.
        let _ = hint::black_box(poll_fn(|cx| dns.poll_next(cx)).await);
    }
}

async fn repeat(bench: &Bench, hickory: &TokioResolver) {
    let mut due = interval(PACE);
    loop {
        due.tick().await;
        bench.ask_both(hickory).await;
    }
}

/// The nanoseconds of this thread's own time that a refresh costs, averaged over those that `work` makes within
/// `window`.
fn refresh(bench: &Bench, window: Duration, work: impl Future<Output = ()>) -> f64 {
    let (asked, before) = (bench.server.asked(), computed().unwrap_or_default());
    bench.runtime.block_on(async {
        let _ = timeout(window, work).await;
    });
    let spent = computed().unwrap_or_default() - before;
    let answers = bench.server.asked().since(asked).answered;
    spent as f64 / answers as f64
}

/// The nanoseconds that this thread has spent computing so far.
fn computed() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
