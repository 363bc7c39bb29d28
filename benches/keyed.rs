//! What it costs to find the pod of a key, how evenly keys are shared out, and how many move: `cargo bench --bench keyed`.
//!
//! The ring is that of `ConsistentHash`, built into this benchmark from its source. It is compared, in the same rounds,
//! with:
//!
//! - `rendezvous`: the highest hash of the key with each name, computed plainly; and `hrw-hash`, a crate for that.
//! - `maglev`: Google's table of at least 100 entries for each pod (Eisenbud et al., 2016).
//! - `ketama`: Cloudflare's crate for pingora, with 160 points for each pod, as nginx and memcached have.
//! - `anchor`: the crate anchorhash, with room for a quarter more pods. It depends on its own past, so the same one is
//!   used before and after a change: a client that starts after the change disagrees.
//! - `jump`: the crate jumpch, over the pods in order: when one leaves, those behind it move up.
//!
//! All look up the key's bytes, including the hashing. Moved keys are counted between a client that starts before a
//! change and one that starts after it, because two clients should agree. A whole pick is a look-up through the
//! snapshot, with the guard of a request.

#![allow(
    clippy::duplicate_mod,
    reason = "the ring is there once more by itself: what is within the policy can't be named from here"
)]

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

#[allow(dead_code, reason = "what isn't used here is used in the crate")]
#[path = "../src/policy/consistent_hash/ring.rs"]
mod ring;

use std::{
    collections::VecDeque,
    hash::{BuildHasherDefault, DefaultHasher},
    hint,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anchorhash::{AnchorHash, Builder};
use hrw_hash::{HrwNode, HrwNodes};
use pingora_ketama::{Bucket, Continuum};
use rand::{SeedableRng, rngs::SmallRng};

use endpoint::Endpoint;
use in_flight::InFlight;
use locality::LocalityPreference;
use policy::{AnyPolicy, ConsistentHash, Random};
use ring::{Node, Ring};
use route::Route;
use signals::Signals;
use snapshot::{Current, Writer};
use stable_hash::{mix, stable_hash};
use support::{Field, Goals, NoOp, Plan, address, burst::clock};

const SIZES: [usize; 6] = [3, 10, 30, 100, 1_000, 10_000];

fn main() {
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    let keys = Keys::new(if plan.is_full() { 1_000_000 } else { 2_000 });
    for len in SIZES {
        look_ups(len, &plan, &keys, &mut goals);
        builds(len, &plan, &mut goals);
        quality(len, &plan, &keys, &mut goals);
        picks(len, &plan, &keys, &mut goals);
    }
    goals.print();
}

/// Keys of sixteen bytes.
struct Keys(Vec<[u8; 16]>);

impl Keys {
    fn new(count: u64) -> Self {
        let key = |number: u64| {
            let mut key = *b"user-0000000000-";
            key[5..15].copy_from_slice(format!("{number:010}").as_bytes());
            key
        };
        Self((0..count).map(key).collect())
    }

    /// An endless cycle of this many keys.
    fn clock(&self, mut look_up: impl FnMut(&[u8; 16])) -> impl FnMut(u64) -> f64 {
        let mut next = 0;
        move |times| {
            clock(times, || {
                for _ in 0..times {
                    look_up(&self.0[next]);
                    next = (next + 1) % self.0.len();
                }
            })
        }
    }
}

/// One way to find a key's pod among numbered pods.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Built for these pods, without the one that has left.
    build: fn(&[usize], Option<usize>) -> LookUp,
    /// Whether a look-up takes longer with more pods.
    scans: bool,
}

type LookUp = Box<dyn Fn(&[u8; 16]) -> usize>;

const RING: &str = "ring";
const UPDATED: &str = "ring, one for another";
const KETAMA: &str = "ketama";
const HRW: &str = "hrw-hash";

const WAYS: [Way; 7] = [
    way(RING, our_ring, false),
    way("rendezvous", rendezvous, true),
    way(HRW, hrw_hash, true),
    way("maglev", maglev, false),
    way(KETAMA, ketama, false),
    way("anchor", anchor, false),
    way("jump", jump, false),
];

const fn way(name: &'static str, build: fn(&[usize], Option<usize>) -> LookUp, scans: bool) -> Way {
    Way { name, build, scans }
}

fn name(pod: usize) -> String {
    format!("cache-{pod}")
}

fn hash(pod: usize) -> u64 {
    stable_hash(name(pod).as_bytes())
}

fn without(pods: &[usize], gone: Option<usize>) -> Vec<usize> {
    let left = pods.iter().copied().filter(|&pod| Some(pod) != gone);
    left.collect()
}

fn our_ring(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = without(pods, gone).into_boxed_slice();
    let ring = ring_of(&nodes(&pods), None);
    Box::new(move |key| {
        let first = ring.onwards(stable_hash(key)).next();
        pods[first.expect("a pod")]
    })
}

fn nodes(pods: &[usize]) -> Vec<Node> {
    let node = |&pod: &usize| Node {
        hash: hash(pod),
        weight: 1,
    };
    pods.iter().map(node).collect()
}

fn ring_of(nodes: &[Node], before: Option<(&Ring, &[Node])>) -> Ring {
    let order: Vec<_> = (0..nodes.len()).collect();
    Ring::new(nodes, &order, before)
}

fn rendezvous(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = &without(pods, gone)[..];
    let pods: Vec<_> = pods.iter().map(|&pod| (hash(pod), pod)).collect();
    Box::new(move |key| {
        let key = stable_hash(key);
        let highest = pods.iter().max_by_key(|&&(name, _)| mix(key, name));
        highest.expect("a pod").1
    })
}

#[derive(Debug, Hash, PartialEq, Eq)]
struct HrwPod(usize);

impl HrwNode for HrwPod {}

fn hrw_hash(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = &without(pods, gone)[..];
    let nodes = HrwNodes::new(pods.iter().map(|&pod| HrwPod(pod)));
    Box::new(move |key| nodes.sorted(key).next().expect("a pod").0)
}

fn maglev(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = &without(pods, gone)[..];
    let is_prime = |number: &usize| {
        (2..)
            .take_while(|of| of * of <= *number)
            .all(|of| !number.is_multiple_of(of))
    };
    // The same one before and after a change.
    let room = (pods.len() + 1).next_power_of_two();
    let size = (room * 100 + 1..).find(is_prime).expect("no end of primes");
    let mut walks: Vec<_> = pods
        .iter()
        .map(|&pod| {
            let hash = hash(pod) as usize;
            (hash % size, mix(hash as u64, 1) as usize % (size - 1) + 1)
        })
        .collect();
    let mut table = vec![u32::MAX; size];
    let mut left = size;
    'fill: loop {
        for (at, (next, skip)) in walks.iter_mut().enumerate() {
            while table[*next] != u32::MAX {
                *next = (*next + *skip) % size;
            }
            table[*next] = at as u32;
            left -= 1;
            if left == 0 {
                break 'fill;
            }
        }
    }
    let pods: Box<[usize]> = pods.into();
    Box::new(move |key| pods[table[stable_hash(key) as usize % size] as usize])
}

fn ketama(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = &without(pods, gone)[..];
    let buckets: Vec<_> = pods
        .iter()
        .map(|&pod| Bucket::new(address(pod), 1))
        .collect();
    let continuum = Continuum::new(&buckets);
    Box::new(move |key| number(continuum.node(key).expect("a pod")))
}

/// The number of the pod at an address.
fn number(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) & 0xff_ffff) as usize,
        IpAddr::V6(_) => unreachable!("addresses are IPv4"),
    }
}

type Hasher = BuildHasherDefault<DefaultHasher>;

fn anchor(pods: &[usize], gone: Option<usize>) -> LookUp {
    let room = (pods.len() * 5 / 4 + 1) as u16;
    // Its default hash differs between processes.
    let mut anchor: AnchorHash<[u8; 16], usize, _> = Builder::with_hasher(Hasher::default())
        .with_resources(pods.iter().copied())
        .build(room);
    if let Some(gone) = gone {
        anchor.remove_resource(&gone).expect("it is there");
    }
    Box::new(move |key| *anchor.get_resource(*key).expect("a pod"))
}

fn jump(pods: &[usize], gone: Option<usize>) -> LookUp {
    let pods = &without(pods, gone)[..];
    let pods: Box<[usize]> = pods.into();
    Box::new(move |key| pods[jumpch::hash(stable_hash(key), pods.len() as u32) as usize])
}

fn pods(len: usize) -> Vec<usize> {
    (0..len).collect()
}

fn look_ups(len: usize, plan: &Plan, keys: &Keys, goals: &mut Goals) {
    let mut field = Field::new(format_args!("{len} pods, a look-up"));
    for way in WAYS {
        let look_up = (way.build)(&pods(len), None);
        let look_up = move |key: &[u8; 16]| {
            hint::black_box(look_up(key));
        };
        field.add(way.name, keys.clock(look_up));
    }
    let times = field.measure(plan);
    if len == 1_000 {
        let nanos = times.typical(RING);
        goals.at_most("keyed/look_up/n=1000/nanoseconds", nanos, 100.0);
    }
    for peer in [KETAMA, HRW] {
        let ratio = times.ratio(RING, peer);
        goals.at_most(format_args!("keyed/look_up/n={len}/{peer}"), ratio, 1.0);
    }
}

fn builds(len: usize, plan: &Plan, goals: &mut Goals) {
    let mut field = Field::new(format_args!("{len} pods, to build it"));
    for way in WAYS {
        let pods = pods(len);
        field.add(way.name, move |times| {
            clock(times, || {
                (0..times).for_each(|_| drop(hint::black_box((way.build)(&pods, None))));
            })
        });
    }
    // Replaces one pod by another, as in a rolling update.
    let [before, after] = [0..len, 1..len + 1].map(|pods| nodes(&pods.collect::<Vec<_>>()));
    let ring = ring_of(&before, None);
    field.add(UPDATED, move |times| {
        clock(times, || {
            for _ in 0..times {
                hint::black_box(ring_of(&after, Some((&ring, &before))));
            }
        })
    });
    // Some take a second.
    let times = field.measure(&plan.shorter(if len > 100 { 3 } else { 11 }));
    // It has 3.2 times as many points.
    let ratio = times.ratio(RING, KETAMA);
    goals.note(format_args!(
        "beside keyed/build/n={len}/{KETAMA} {ratio:.3}"
    ));
    for way in WAYS {
        let pods = pods(len);
        let mut built = None;
        let seen = allocation_counter::measure(|| built = Some((way.build)(&pods, None)));
        let kib = seen.bytes_current as f64 / 1024.0;
        println!("  {:<28} {kib:>12.1} KiB", way.name);
        drop(built);
    }
}

/// The largest share of keys relative to the mean; and, times n, how many keys move when one of n pods leaves. As many
/// move when one joins.
fn quality(len: usize, plan: &Plan, keys: &Keys, goals: &mut Goals) {
    println!("\n{len} pods, {} keys\n", keys.0.len());
    for way in WAYS {
        if way.name == HRW || way.scans && len > 1_000 {
            // `rendezvous` shares out keys as any rendezvous does; the others would take hours.
            continue;
        }
        let homes = |gone: Option<usize>| {
            let look_up = (way.build)(&pods(len), gone);
            keys.0.iter().map(look_up).collect::<Vec<_>>()
        };
        let before = homes(None);
        let mut shares = vec![0_u32; len];
        before.iter().for_each(|&home| shares[home] += 1);
        let most = shares.iter().max().copied().unwrap_or_default();
        let spread = f64::from(most) * len as f64 / keys.0.len() as f64;
        let leavers: Vec<_> = (0..4).map(|nth| (2 * nth + 1) * len / 8).collect();
        let (mut moved, mut between) = (0, 0);
        for &leaver in &leavers {
            for (home, after) in before.iter().zip(homes(Some(leaver))) {
                moved += usize::from(*home != after);
                between += usize::from(*home != after && *home != leaver);
            }
        }
        let of_n = |count: usize| count as f64 * len as f64 / (leavers.len() * keys.0.len()) as f64;
        println!(
            "  {:<28} max/mean {spread:>6.3}   moved × n {:>10.3}   of them between others {:>10.3}",
            way.name,
            of_n(moved),
            of_n(between)
        );
        if way.name == RING && plan.is_full() {
            if [10, 100, 1_000].contains(&len) {
                goals.at_most(format_args!("keyed/max_of_mean/n={len}"), spread, 1.25);
            }
            if len <= 1_000 {
                goals.at_most(
                    format_args!("keyed/moved/n={len}/times_n"),
                    of_n(moved),
                    1.1,
                );
            }
            goals.at_most(
                format_args!("keyed/moved_between_others/n={len}"),
                of_n(between),
                0.0,
            );
        }
    }
}

const IDLE: &str = "pick";
const LOADED: &str = "pick, 4 in flight for each";
const UNBOUNDED: &str = "the same without bound";
const HOT: &str = "the same, one key of all";
const RANDOM: &str = "random, 4 in flight for each";

/// Whole picks, of requests that end when this many are in flight.
fn picks(len: usize, plan: &Plan, keys: &Keys, goals: &mut Goals) {
    let routes: Vec<_> = keys
        .0
        .iter()
        .take(4_096)
        .map(|key| Route::new().key(&key[..]))
        .collect();
    let hot = vec![Route::new().key("hot")];
    let unbounded = ConsistentHash::new().load_factor(None);
    let bounded = ConsistentHash::new;
    let mut field = Field::new(format_args!("{len} pods, a pick"));
    field.add(IDLE, picked(AnyPolicy::new(bounded()), len, 0, &routes));
    field.add(
        LOADED,
        picked(AnyPolicy::new(bounded()), len, 4 * len, &routes),
    );
    field.add(
        UNBOUNDED,
        picked(AnyPolicy::new(unbounded), len, 4 * len, &routes),
    );
    field.add(HOT, picked(AnyPolicy::new(bounded()), len, 4 * len, &hot));
    field.add(
        RANDOM,
        picked(AnyPolicy::new(Random::new()), len, 4 * len, &routes),
    );
    let times = field.measure(plan);
    if len <= 1_000 {
        let more = times.difference(LOADED, RANDOM);
        goals.more_at_most(format_args!("keyed/pick/n={len}/random"), more, 100.0);
    }
    let mut pick = picked(AnyPolicy::new(bounded()), len, 4 * len, &routes);
    // The collection of requests gets its room first.
    pick(8 * len as u64);
    let seen = allocation_counter::measure(|| {
        pick(1_000);
    });
    let name = format!("keyed/pick/n={len}/allocations");
    goals.at_most(name, seen.count_total as f64, 0.0);
}

fn picked<'a>(
    policy: AnyPolicy,
    len: usize,
    in_flight: usize,
    routes: &'a [Route],
) -> impl FnMut(u64) -> f64 + 'a {
    let current = set(policy, len);
    let mut rng = SmallRng::seed_from_u64(7);
    let mut running: VecDeque<InFlight> = VecDeque::with_capacity(in_flight + 2);
    let mut next = 0;
    move |times| {
        clock(times, || {
            for _ in 0..times {
                let snapshot = current.load();
                let picked = snapshot.pick(&routes[next], &mut rng).expect("a pod");
                running.push_back(picked.in_flight);
                if running.len() > in_flight {
                    running.pop_front();
                }
                next = (next + 1) % routes.len();
            }
        })
    }
}

fn set(policy: AnyPolicy, len: usize) -> Current<NoOp> {
    let mut rng = SmallRng::seed_from_u64(1);
    let make: fn(&Endpoint) -> NoOp = |_| NoOp::default();
    let signals = Arc::new(Signals::new(tokio::time::Instant::now()));
    let locality = LocalityPreference::default();
    let (mut writer, current) = Writer::new(policy, locality, make, signals, &mut rng);
    let pods = (0..len).map(|pod| Endpoint::new(address(pod)).with_hostname(name(pod)));
    writer.replace(
        &current,
        pods.collect(),
        locality::Proximities::Look,
        &mut rng,
    );
    current
}
