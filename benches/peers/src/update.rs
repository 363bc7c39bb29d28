//! What a change of the set costs: one endpoint out, another one in.
//!
//! Clocked is what the balancer does once it is told of the change: until the new endpoint can be chosen. Ours, pingora
//! and volo are told the whole set, tower is told the two changes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Waker},
};

use async_trait::async_trait;
use futures::{FutureExt, stream};
use pingora_load_balancing::{
    Backend, Backends, LoadBalancer as Pingora,
    discovery::ServiceDiscovery,
    selection::{Random, RoundRobin},
};
use tokio::{runtime::Runtime, sync::mpsc, task::yield_now};
use tower::{
    Service,
    balance::p2c,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_headless::{Balance, Endpoint, StreamDiscovery};
use volo::{
    discovery::{Change as VoloChange, Instance, StaticDiscover},
    loadbalance::{LoadBalance, random::WeightedRandomBalance},
    net::Address,
};

use crate::{
    pick::runtime,
    race::{Plan, Race, Rounds},
    results::{Measure, Results},
    support::{NoOp, address, burst::clock},
};

const TABLE: &str = "Replacing a pod of the set";

/// So many changes are made before the clock starts.
const BATCH: u64 = 16;

pub fn measure(results: &mut Results, plan: Plan) {
    for (len, column) in [(100, "one of 100"), (1_000, "one of 1,000")] {
        let measure = Measure::less(TABLE, column, "µs").apart(0.1);
        for (peer, rounds) in plan.repeat(|plan| race(len, plan)) {
            let micros = rounds.into_iter().map(|nanos| nanos / 1e3).collect();
            results.add(&measure, peer, micros);
        }
    }
}

fn race(len: usize, plan: Plan) -> Rounds {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut race = Race::default();
    race.add("ours", ours(&runtime, len));
    race.add("tower p2c (`PendingRequests`)", tower(len));
    race.add("pingora `RoundRobin`", pingora::<RoundRobin>(len));
    race.add("pingora `Random`", pingora::<Random>(len));
    race.add("volo `WeightedRandomBalance`", volo(len));
    race.run(plan)
}

/// A set whose oldest endpoint leaves at each change.
struct Set {
    pods: VecDeque<SocketAddr>,
    next: usize,
}

/// One change of it.
struct Step {
    left: SocketAddr,
    joined: SocketAddr,
}

impl Set {
    fn new(len: usize) -> Self {
        Self {
            pods: (0..len).map(address).collect(),
            next: len,
        }
    }

    fn step(&mut self) -> Step {
        let joined = address(self.next);
        self.next += 1;
        let left = self.pods.pop_front().expect("never empty");
        self.pods.push_back(joined);
        Step { left, joined }
    }

    fn all<T>(&self, one: impl Fn(SocketAddr) -> T) -> impl Iterator<Item = T> {
        self.pods.iter().copied().map(one)
    }
}

/// Clocks `update` on what `tell` makes of the changes before the clock starts.
fn timed<T>(
    len: usize,
    tell: impl Fn(&Set, Step) -> T,
    mut update: impl FnMut(T),
) -> impl FnMut(u64) -> f64 {
    let mut set = Set::new(len);
    move |times| {
        let (mut left, mut spent) = (times, 0.0);
        while left > 0 {
            let batch = left.min(BATCH);
            let told: Vec<_> = (0..batch)
                .map(|_| {
                    let step = set.step();
                    tell(&set, step)
                })
                .collect();
            spent += clock(1, || told.into_iter().for_each(&mut update));
            left -= batch;
        }
        spent / times as f64
    }
}

/// By way of its task, as it is told in life. The task has swapped the set by the time that others run again.
fn ours(runtime: &Runtime, len: usize) -> impl FnMut(u64) -> f64 {
    let (sets, mut receiver) = mpsc::unbounded_channel::<Vec<Endpoint>>();
    let made = Arc::new(AtomicU64::new(0));
    let counter = made.clone();
    let discovery = StreamDiscovery::new(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    let balance = Balance::builder(discovery).build(move |_: &Endpoint| {
        counter.fetch_add(1, Relaxed);
        NoOp::default()
    });
    let mut expected = len as u64;
    let mut update = move |set: Vec<Endpoint>| {
        sets.send(set).expect("the balancer lives");
        runtime.block_on(async {
            while made.load(Relaxed) < expected {
                yield_now().await;
            }
        });
        expected += 1;
        // It ends with the last handle.
        let _ = &balance;
    };
    update(Set::new(len).all(Endpoint::new).collect());
    timed(len, |set, _| set.all(Endpoint::new).collect(), update)
}

type Told = Change<SocketAddr, PendingRequests<NoOp>>;

fn insert(pod: SocketAddr) -> Told {
    let service = PendingRequests::new(NoOp::default(), CompleteOnResponse::default());
    Change::Insert(pod, service)
}

fn tower(len: usize) -> impl FnMut(u64) -> f64 {
    let (changes, mut receiver) = mpsc::unbounded_channel::<Told>();
    let told = stream::poll_fn(move |cx| {
        let change = receiver.poll_recv(cx);
        change.map(|change| change.map(Ok::<_, std::convert::Infallible>))
    });
    let mut balance = p2c::Balance::new(told);
    let mut look = move || {
        let ready =
            Service::<()>::poll_ready(&mut balance, &mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready(), "there are endpoints");
    };
    for pod in Set::new(len).pods {
        assert!(changes.send(insert(pod)).is_ok(), "the balancer lives");
    }
    look();
    timed(
        len,
        |_, step| [Change::Remove(step.left), insert(step.joined)],
        move |told| {
            for change in told {
                assert!(changes.send(change).is_ok(), "the balancer lives");
            }
            look();
        },
    )
}

type Backing = Arc<Mutex<BTreeSet<Backend>>>;

/// Tells the set that was put here.
struct Scripted(Backing);

#[async_trait]
impl ServiceDiscovery for Scripted {
    async fn discover(
        &self,
    ) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>), Box<pingora_core::Error>> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((std::mem::take(&mut *set), HashMap::new()))
    }
}

fn pingora<S>(len: usize) -> impl FnMut(u64) -> f64
where
    S: pingora_load_balancing::selection::BackendSelection + 'static,
    S::Iter: pingora_load_balancing::selection::BackendIter,
{
    let backend = |pod: SocketAddr| Backend::new(&pod.to_string()).expect("an address");
    let told = Backing::default();
    let pods = Pingora::<S>::from_backends(Backends::new(Box::new(Scripted(told.clone()))));
    let update = move |set| {
        *told.lock().unwrap_or_else(PoisonError::into_inner) = set;
        let updated = pods.update().now_or_never();
        updated.expect("never waits").expect("never fails");
    };
    update(Set::new(len).all(backend).collect());
    timed(len, move |set, _| set.all(backend).collect(), update)
}

fn instance(pod: SocketAddr) -> Arc<Instance> {
    Arc::new(Instance {
        address: Address::Ip(pod),
        weight: 1,
        tags: HashMap::new(),
    })
}

fn volo(len: usize) -> impl FnMut(u64) -> f64 {
    let discover = StaticDiscover::from(Vec::from(Set::new(len).pods));
    let balance = WeightedRandomBalance::with_discover(&discover);
    let service = volo::context::Endpoint::new("web".into());
    let picker = balance.get_picker(&service, &discover).now_or_never();
    drop(picker.expect("static").expect("never fails"));
    let tell = |set: &Set, step: Step| VoloChange {
        key: (),
        all: set.all(instance).collect(),
        added: vec![instance(step.joined)],
        updated: Vec::new(),
        removed: vec![instance(step.left)],
    };
    let update = move |change| LoadBalance::<StaticDiscover>::rebalance(&balance, change);
    timed(len, tell, update)
}
