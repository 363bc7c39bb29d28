//! Requests a second, and the processor time of one, over HTTP/1.1, HTTP/2 and gRPC.

pub(crate) mod others;

use std::net::SocketAddr;

use tokio::{runtime::Runtime, time::Duration};
use tower_headless::{LeastConnections, RoundRobin, http::Protocol};

use crate::{
    clients::{self, Http1Limit, Reqwest},
    envoy::{Envoy, Protocol as EnvoyProtocol},
    load::{Caller, Seen, load},
    pods::Pods,
    results::{Measure, Results},
    support::one_worker,
};

/// How often and for how long to measure each candidate.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    pub window: Duration,
}

const OURS: &str = "ours";
const LEAST: &str = "ours: `LeastConnections`";
const BARE: &str = "bare hyper (turns by hand)";
const LEGACY: &str = "hyper-util's client (turns by hand)";
const REQWEST: &str = "reqwest (turns by hand)";
const P2C: &str = "tower p2c + `Buffer` over hyper-util's clients";
const REQWEST_LB: &str = "reqwest-lb";
const VOLO: &str = "volo-http";
const CHANNEL: &str = "tonic `balance_list`";
const GINEPRO: &str = "ginepro";
const ENVOY: &str = "Envoy behind hyper-util's client";
const ENVOY_TONIC: &str = "Envoy behind a tonic channel";

pub fn measure(results: &mut Results, plan: Plan) {
    let pods = Pods::start(6);
    let pods = &*pods.addresses;
    http1(pods, plan, results);
    http2(pods, plan, results);
    grpc(pods, plan, results);
}

fn http1(pods: &[SocketAddr], plan: Plan, results: &mut Results) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("HTTP/1.1", &runtime);
    let protocol = Protocol::Http1;
    race.add(OURS, clients::ours(pods, protocol, RoundRobin::new()));
    race.add(
        LEAST,
        clients::ours(pods, protocol, LeastConnections::new()),
    );
    race.add(BARE, Http1Limit::new(pods));
    race.add(LEGACY, clients::legacy(pods, false));
    race.add(P2C, clients::p2c(pods, false));
    race.add(REQWEST, Reqwest::new(pods, false));
    race.add(REQWEST_LB, others::ReqwestLb::new(pods));
    race.add(VOLO, others::Volo::new(pods));
    let envoy = Envoy::fixed(pods, EnvoyProtocol::Http1);
    race.add_proxied(ENVOY, &envoy, |proxy| clients::legacy(&[proxy], false));
    race.run(plan, results);
}

fn http2(pods: &[SocketAddr], plan: Plan, results: &mut Results) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("HTTP/2", &runtime);
    let protocol = Protocol::Http2;
    race.add(OURS, clients::ours(pods, protocol, RoundRobin::new()));
    race.add(
        LEAST,
        clients::ours(pods, protocol, LeastConnections::new()),
    );
    race.add(BARE, runtime.block_on(clients::http2_limit(pods)));
    race.add(LEGACY, clients::legacy(pods, true));
    race.add(P2C, clients::p2c(pods, true));
    race.add(REQWEST, Reqwest::new(pods, true));
    let envoy = Envoy::fixed(pods, EnvoyProtocol::Http2);
    race.add_proxied(ENVOY, &envoy, |proxy| clients::legacy(&[proxy], true));
    race.run(plan, results);
}

fn grpc(pods: &[SocketAddr], plan: Plan, results: &mut Results) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("gRPC", &runtime);
    race.add(OURS, clients::grpc_ours(pods, RoundRobin::new()));
    race.add(LEAST, clients::grpc_ours(pods, LeastConnections::new()));
    race.add(BARE, runtime.block_on(clients::grpc_limit(pods)));
    race.add(CHANNEL, clients::grpc_channel(pods));
    race.add(GINEPRO, runtime.block_on(others::Ginepro::new(pods)));
    let envoy = Envoy::fixed(pods, EnvoyProtocol::Http2);
    race.add_proxied(ENVOY_TONIC, &envoy, |proxy| clients::grpc_channel(&[proxy]));
    race.run(plan, results);
}

type Run<'a> = Box<dyn FnMut(Duration) -> Seen + 'a>;

/// Candidates of one protocol.
struct Race<'a> {
    protocol: &'static str,
    runtime: &'a Runtime,
    candidates: Vec<(&'static str, Run<'a>)>,
    /// Those that can't run, and why.
    missing: Vec<(&'static str, String)>,
}

impl<'a> Race<'a> {
    fn new(protocol: &'static str, runtime: &'a Runtime) -> Self {
        Self {
            protocol,
            runtime,
            candidates: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn add(&mut self, name: &'static str, caller: impl Caller) {
        self.add_with(name, caller, None);
    }

    fn add_with(&mut self, name: &'static str, caller: impl Caller, helper: Option<u32>) {
        let runtime = self.runtime;
        let run = move |window| runtime.block_on(load(&caller, window, helper));
        self.candidates.push((name, Box::new(run)));
    }

    /// A client of a proxy, whose processor time counts too.
    fn add_proxied<C: Caller>(
        &mut self,
        name: &'static str,
        envoy: &Result<Envoy, String>,
        client: impl FnOnce(SocketAddr) -> C,
    ) {
        match envoy {
            Ok(envoy) => self.add_with(name, client(envoy.address), Some(envoy.id())),
            Err(reason) => self.missing.push((name, reason.clone())),
        }
    }

    /// Measures all candidates, once in every round.
    fn run(mut self, plan: Plan, results: &mut Results) {
        let len = self.candidates.len();
        let mut seen = vec![Vec::with_capacity(plan.rounds); len];
        for (_, run) in &mut self.candidates {
            // Connections are made.
            run(plan.window);
        }
        for round in 0..plan.rounds {
            for candidate in 0..len {
                // Each round begins with another one, so that none always follows the same predecessor's caches.
                let candidate = (round + candidate) % len;
                let (_, run) = &mut self.candidates[candidate];
                run(plan.window / 5);
                seen[candidate].push(run(plan.window));
            }
        }
        let table = self.protocol;
        let rate = Measure::more(table, "requests a second", "thousands");
        let computed = Measure::less(table, "processor time of a request", "µs");
        for ((name, _), seen) in self.candidates.iter().zip(seen) {
            results.add(&rate, name, seen.iter().map(|it| it.rate / 1e3).collect());
            results.add(&computed, name, seen.iter().map(|it| it.computed).collect());
        }
        for (name, reason) in &self.missing {
            results.say(&rate, name, reason);
            results.say(&computed, name, reason);
        }
    }
}
