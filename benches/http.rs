//! What an HTTP request costs: `cargo bench --bench http`.
//!
//! 64 callers, each with its next request as soon as it has read the last answer, over ten pods in another process. Every
//! round measures each candidate for a moment. Our client is compared, in the same rounds, with:
//!
//! - `limit`: hyper's bare connections, taken in turn. For HTTP/1.1 each pod has a list of idle ones.
//! - `legacy`: hyper-util's client with its pool; each request names the next pod.
//! - `p2c behind Buffer`: tower's balancer over one such client for each pod.
//! - `reqwest`: used like `legacy`.
//! - `balance_list`: tonic's channel, for gRPC.
//!
//! Two figures are compared: requests per second, and requests per second of this process's processor time, including
//! the system's part. The second figure is steadier, because the pods don't affect it.
//!
//! Pods that wait for requests sleep, and a client that writes to a sleeping pod pays for waking it: so a slower client
//! pays more. With `-- --spin` pods never sleep. The steadiest figure is how many instructions a request takes in this
//! process, outside of the system: `benches/http/instructions` counts them with callgrind.

mod support;

#[path = "http/load.rs"]
mod load;
#[path = "http/peers.rs"]
mod peers;
#[path = "http/pod.rs"]
mod pod;
#[path = "http/server.rs"]
mod server;

use std::net::SocketAddr;

use tower_headless::{LeastConnections, RoundRobin, http::Protocol};

use load::{Goal, Plan, Race};
use peers::{Get, Http1Limit, Reqwest};
use server::Server;
use support::{Goals, one_worker};

const OURS: &str = "round_robin";
const LEAST: &str = "least_connections";
const GET: &str = "get";
const LIMIT: &str = "limit";
const LEGACY: &str = "legacy";
const P2C: &str = "p2c behind Buffer";
const REQWEST: &str = "reqwest";
const CHANNEL: &str = "balance_list";

fn main() {
    server::serve_if_told();
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    let server = Server::start();
    http1(&server.pods, &plan, &mut goals);
    http2(&server.pods, &plan, &mut goals);
    grpc(&server.pods, &plan, &mut goals);
    goals.print();
}

/// Our goal relative to bare connections, which neither count nor choose.
const fn near_limit(requests: f64) -> Option<Goal> {
    Some(Goal { requests, p99: 1.1 })
}

const BETTER: Option<Goal> = Some(Goal {
    requests: 1.1,
    p99: 1.0,
});

fn http1(pods: &[SocketAddr], plan: &Plan, goals: &mut Goals) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("http1", &runtime);
    race.add(LIMIT, Http1Limit::new(pods));
    let protocol = Protocol::Http1;
    race.add(OURS, peers::ours(pods, protocol, RoundRobin::new()));
    race.add(LEAST, peers::ours(pods, protocol, LeastConnections::new()));
    race.add(GET, Get::new(pods, protocol));
    race.add(LEGACY, peers::legacy(pods, false));
    race.add(P2C, peers::p2c(pods, false));
    race.add(REQWEST, Reqwest::new(pods, false));
    let Some(results) = race.run(plan) else {
        return;
    };
    results.judge(goals, OURS, LIMIT, near_limit(0.91));
    results.judge(goals, OURS, LEGACY, BETTER);
    for peer in [P2C, REQWEST] {
        results.judge(goals, OURS, peer, None);
    }
    for ours in [LEAST, GET] {
        results.judge(goals, ours, LIMIT, None);
    }
}

fn http2(pods: &[SocketAddr], plan: &Plan, goals: &mut Goals) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("http2", &runtime);
    race.add(LIMIT, runtime.block_on(peers::http2_limit(pods)));
    let protocol = Protocol::Http2;
    race.add(OURS, peers::ours(pods, protocol, RoundRobin::new()));
    race.add(LEAST, peers::ours(pods, protocol, LeastConnections::new()));
    race.add(LEGACY, peers::legacy(pods, true));
    race.add(P2C, peers::p2c(pods, true));
    race.add(REQWEST, Reqwest::new(pods, true));
    let Some(results) = race.run(plan) else {
        return;
    };
    results.judge(goals, OURS, LIMIT, near_limit(0.97));
    for peer in [LEGACY, P2C, REQWEST] {
        results.judge(goals, OURS, peer, None);
    }
    results.judge(goals, LEAST, LIMIT, None);
}

fn grpc(pods: &[SocketAddr], plan: &Plan, goals: &mut Goals) {
    let runtime = one_worker();
    let _entered = runtime.enter();
    let mut race = Race::new("grpc", &runtime);
    race.add(LIMIT, runtime.block_on(peers::grpc_limit(pods)));
    race.add(OURS, peers::grpc_ours(pods, RoundRobin::new()));
    race.add(LEAST, peers::grpc_ours(pods, LeastConnections::new()));
    race.add(CHANNEL, peers::grpc_channel(pods));
    let Some(results) = race.run(plan) else {
        return;
    };
    results.judge(goals, OURS, LIMIT, near_limit(0.97));
    results.judge(goals, OURS, CHANNEL, BETTER);
    results.judge(goals, LEAST, LIMIT, None);
}
