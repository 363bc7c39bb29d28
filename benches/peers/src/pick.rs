//! What choosing costs: one whole request to a service that is ready and does nothing.
//!
//! `pingora-load-balancing`, `volo` and `reqwest-lb` choose an address and no more: the service, its connection, and
//! the count of its requests are their callers' business, and not in their figures.

use std::{hint, net::SocketAddr};

use futures::FutureExt;
use http::Extensions;
use pingora_load_balancing::{
    LoadBalancer as Pingora,
    selection::{self, BackendIter, BackendSelection},
};
use reqwest_lb::{LoadBalancer, LoadBalancerPolicy, LoadBalancerTrait, supplier::Supplier};
use tokio::{
    runtime::{Builder, Runtime},
    time::Duration,
};
use tower::{
    Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma as TowerEwma, PendingRequests},
};
use tower_headless::{
    Balance, LeastConnections, PeakEwma, Policy, PowerOfTwo, Random, RoundRobin, StaticEndpoints,
};
use volo::{
    context::Endpoint,
    discovery::StaticDiscover,
    loadbalance::{LoadBalance, random::WeightedRandomBalance},
};

use crate::{
    race::{Plan, Race, Rounds},
    results::{Measure, Results},
    support::{
        NoOp, address,
        burst::{awaited_requests, clock, requests},
    },
};

const TABLE: &str = "Choosing a pod";

pub fn measure(results: &mut Results, plan: Plan) {
    for len in [6, 100] {
        let column = format!("{len} pods");
        let measure = Measure::less(TABLE, &column, "ns").slack(2.0);
        for (peer, rounds) in plan.repeat(|plan| race(len, plan)) {
            results.add(&measure, peer, rounds);
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("timers need nothing of the system")
}

fn race(len: usize, plan: Plan) -> Rounds {
    let runtime = runtime();
    let _entered = runtime.enter();
    // Runtimes of their own, so that no other task takes the workers' time.
    let workers = [self::runtime(), self::runtime()];
    let mut race = Race::default();
    race.add("ours: `RoundRobin`", ours(&runtime, RoundRobin::new(), len));
    race.add("ours: `PowerOfTwo`", ours(&runtime, PowerOfTwo::new(), len));
    let least = ours(&runtime, LeastConnections::new(), len);
    race.add("ours: `LeastConnections`", least);
    race.add("ours: `PeakEwma`", ours(&runtime, PeakEwma::new(), len));
    race.add("ours: `Random`", ours(&runtime, Random::new(), len));
    race.add("tower p2c (`PendingRequests`)", requests(pending(len)));
    race.add("tower p2c (`PeakEwma`)", requests(ewma(len)));
    let [pending_worker, ewma_worker] = &workers;
    let pending = pending_worker.block_on(async { Buffer::new(pending(len), 1024) });
    race.add(
        "tower p2c (`PendingRequests`) + `Buffer`",
        awaited_requests(pending_worker, pending),
    );
    let ewma = ewma_worker.block_on(async { Buffer::new(ewma(len), 1024) });
    race.add(
        "tower p2c (`PeakEwma`) + `Buffer`",
        awaited_requests(ewma_worker, ewma),
    );
    race.add(
        "pingora `RoundRobin` (address only)",
        pingora::<selection::RoundRobin>(len),
    );
    race.add(
        "pingora `Random` (address only)",
        pingora::<selection::Random>(len),
    );
    race.add("volo `WeightedRandomBalance` (address only)", volo(len));
    race.add("reqwest-lb `RoundRobin` (address only)", reqwest_lb(len));
    race.run(plan)
}

/// A balancer that has heard of its endpoints.
fn ours<P: Policy>(runtime: &Runtime, policy: P, len: usize) -> impl FnMut(u64) -> f64 + use<P> {
    let balance = runtime.block_on(async {
        let mut balance = Balance::builder(StaticEndpoints::new((0..len).map(address)))
            .policy(policy)
            .build(|_: &_| NoOp::default());
        let ready = balance.ready().await;
        ready.expect("readiness never fails");
        balance
    });
    requests(balance)
}

type P2c<S> = p2c::Balance<ServiceList<Vec<S>>, ()>;

fn p2c<S>(len: usize, service: impl Fn() -> S) -> P2c<S>
where
    S: Service<()> + Load,
    S::Metric: std::fmt::Debug,
    S::Error: Into<tower::BoxError>,
{
    let services = (0..len).map(|_| service()).collect();
    p2c::Balance::new(ServiceList::new::<()>(services))
}

fn pending(len: usize) -> P2c<PendingRequests<NoOp>> {
    p2c(len, || {
        PendingRequests::new(NoOp::default(), CompleteOnResponse::default())
    })
}

/// With the settings of tower's own example.
fn ewma(len: usize) -> P2c<TowerEwma<NoOp>> {
    p2c(len, || {
        let (rtt, decay) = (Duration::from_millis(5), 1e9 * 10.0);
        TowerEwma::new(NoOp::default(), rtt, decay, CompleteOnResponse::default())
    })
}

fn pingora<S>(len: usize) -> impl FnMut(u64) -> f64
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let pods = Pingora::<S>::try_from_iter((0..len).map(address)).expect("addresses");
    move |times| {
        clock(times, || {
            for _ in 0..times {
                // As its documentation says for round robin: no key, and as many tries as one likes.
                hint::black_box(pods.select(b"", 256)).expect("a pod");
            }
        })
    }
}

fn volo(len: usize) -> impl FnMut(u64) -> f64 {
    let pods: Vec<SocketAddr> = (0..len).map(address).collect();
    let discover = StaticDiscover::from(pods);
    let balance = WeightedRandomBalance::with_discover(&discover);
    let service = Endpoint::new("web".into());
    move |times| {
        clock(times, || {
            for _ in 0..times {
                let picker = balance.get_picker(&service, &discover).now_or_never();
                let mut picker = picker.expect("static").expect("never fails");
                hint::black_box(picker.next()).expect("a pod");
            }
        })
    }
}

/// The set as its middleware has it: a list that never changes.
pub(crate) struct Fixed<T>(pub(crate) Vec<T>);

impl<T: Clone> Supplier for Fixed<T> {
    type Element = T;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Vec<T>, Self::Error>>;

    fn get(&self) -> Self::Future {
        std::future::ready(Ok(self.0.clone()))
    }
}

fn reqwest_lb(len: usize) -> impl FnMut(u64) -> f64 {
    let pods: Vec<SocketAddr> = (0..len).map(address).collect();
    let balancer = LoadBalancer::new(Fixed(pods), LoadBalancerPolicy::<SocketAddr>::RoundRobin);
    move |times| {
        clock(times, || {
            for _ in 0..times {
                let mut extensions = Extensions::new();
                let chosen = balancer.choose(&mut extensions).now_or_never();
                hint::black_box(chosen)
                    .expect("static")
                    .expect("never fails");
            }
        })
    }
}
