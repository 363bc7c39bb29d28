//! Near pods first, over sockets: clients in three zones, real pods, and hints as the control plane gives them.

mod support;

use std::{ops::Range, time::Duration};

use futures::future::join_all;
use http_body_util::BodyExt;
use support::{
    pod::Pod,
    scripted::{Behaviour, Pods, Request, Script, Scripted, discovery, endpoint},
    within,
};
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, Endpoint, EndpointState, LeastConnections, Policy, Proximity, RoundRobin, http::Client,
};

const ZONES: [&str; 3] = ["eu-1a", "eu-1b", "eu-1c"];

/// How many requests each client sends.
const REQUESTS: usize = 500;

/// Pods in three zones, and a client in each.
struct Fleet {
    pods: Vec<Pod>,
    zones: Vec<usize>,
    clients: Vec<Client>,
    scripts: Vec<Script>,
}

impl Fleet {
    async fn start<P: Policy + Clone>(policy: P, counts: [usize; 3]) -> Self {
        let zones: Vec<_> = (0..3)
            .flat_map(|zone| std::iter::repeat_n(zone, counts[zone]))
            .collect();
        let pods = (1..=zones.len() as u8).map(|host| Pod::start(([127, 0, 0, host], 0).into()));
        let pods = join_all(pods).await;
        let (scripts, clients) = ZONES.map(|zone| client(&policy, zone)).into_iter().unzip();
        let fleet = Self {
            pods: pods.into_iter().map(|pod| pod.expect("a pod")).collect(),
            zones,
            clients,
            scripts,
        };
        fleet.announce(true);
        fleet
    }

    /// Gives all clients the same answer of discovery.
    fn announce(&self, hints: bool) {
        let pods = self.pods.iter().zip(&self.zones);
        let set = pods.map(|(pod, &zone)| {
            let endpoint = Endpoint::new(pod.addr()).with_zone(ZONES[zone]);
            let hint = hints.then_some(ZONES[zone]);
            endpoint.with_zone_hints(hint)
        });
        let set: Vec<_> = set.collect();
        for script in &self.scripts {
            script.endpoints(set.clone());
        }
    }

    /// Makes every client send its requests, and counts them at the pods.
    async fn send(&self) -> Vec<usize> {
        let before = self.requests();
        within("the answers", join_all(self.clients.iter().map(send))).await;
        let after = self.requests().into_iter();
        after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect()
    }

    /// The fraction of the requests of zone `zone`'s client that the pods `which` get.
    async fn part(&self, zone: usize, which: Range<usize>) -> f64 {
        let before: usize = self.requests()[which.clone()].iter().sum();
        within("the answers", send(&self.clients[zone])).await;
        let after: usize = self.requests()[which].iter().sum();
        (after - before) as f64 / REQUESTS as f64
    }

    fn requests(&self) -> Vec<usize> {
        self.pods.iter().map(Pod::requests).collect()
    }

    /// Sends requests until zone `zone`'s client knows that this many pods are unreachable.
    async fn until_unreachable(&self, zone: usize, unreachable: usize) {
        let client = &self.clients[zone];
        let count = || {
            let pods = client.endpoints().into_iter();
            pods.filter(|pod| pod.state == EndpointState::Unreachable)
                .count()
        };
        within("the pods' new states", async {
            while count() != unreachable {
                get(client).await;
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn client<P: Policy + Clone>(policy: &P, zone: &str) -> (Script, Client) {
    let (script, discovery) = discovery();
    let uri = "http://web.default:80".parse().expect("a URI");
    let client = Client::builder(uri)
        .discovery(discovery)
        .policy(policy.clone())
        .zone(zone)
        .build();
    (script, client.expect("a client"))
}

async fn get(client: &Client) {
    let response = client.get("/").await.expect("a response");
    response.into_body().collect().await.expect("its body");
}

async fn send(client: &Client) {
    for _ in 0..REQUESTS {
        get(client).await;
    }
}

async fn zones_of_equal_size_keep_their_requests(policy: impl Policy + Clone) {
    let fleet = Fleet::start(policy, [3, 3, 3]).await;
    for (at, zone) in ZONES.iter().enumerate() {
        let stayed = fleet.part(at, at * 3..at * 3 + 3).await;
        assert!(stayed >= 0.99, "{stayed} stayed in {zone}");
    }
}

#[tokio::test]
async fn zones_of_equal_size_keep_99_in_100_requests() {
    zones_of_equal_size_keep_their_requests(RoundRobin::new()).await;
    zones_of_equal_size_keep_their_requests(LeastConnections::new()).await;
}

#[tokio::test]
async fn a_zone_with_too_few_pods_spills_and_every_pod_stays_within_25_percent_of_fair() {
    let fleet = Fleet::start(RoundRobin::new(), [4, 4, 2]).await;
    let shares = fleet.send().await;
    let fair = (3 * REQUESTS) as f64 / 10.0;
    let most = *shares.iter().max().expect("pods") as f64 / fair;
    assert!(most <= 1.25, "{shares:?}");
    let least = *shares.iter().min().expect("pods") as f64 / fair;
    assert!(least >= 0.75, "{shares:?}");
    let stayed = fleet.part(2, 8..10).await;
    assert!((stayed - 0.6).abs() < 0.02, "{stayed} of c's stayed there");
    assert!(fleet.part(0, 0..4).await >= 0.99);
}

#[tokio::test]
async fn hints_may_disappear_and_come_back_without_new_connections() {
    let fleet = Fleet::start(RoundRobin::new(), [3, 3, 3]).await;
    assert!(fleet.part(0, 0..3).await >= 0.99);
    fleet.announce(false);
    proximity(&fleet.clients[0], None).await;
    let stayed = fleet.part(0, 0..3).await;
    assert!((stayed - 1.0 / 3.0).abs() < 0.02, "{stayed} without hints");
    fleet.announce(true);
    proximity(&fleet.clients[0], Some(Proximity::Near)).await;
    assert!(fleet.part(0, 0..3).await >= 0.99);
    let connections = fleet.pods[0].stats().accepted;
    assert_eq!(connections, 1, "hints cost no connection");
}

/// Waits until the client sees the first pod as `expected`.
async fn proximity(client: &Client, expected: Option<Proximity>) {
    within("the hints", async {
        while client.endpoints().first().and_then(|pod| pod.proximity) != expected {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn killed_pods_reduce_their_zones_share_until_they_are_back() {
    let fleet = Fleet::start(RoundRobin::new(), [4, 4, 4]).await;
    for pod in &fleet.pods[..2] {
        pod.kill().await;
    }
    fleet.until_unreachable(0, 2).await;
    let stayed = fleet.part(0, 0..4).await;
    assert!(
        (stayed - 0.6).abs() < 0.05,
        "{stayed}: 2 of 10, three zones"
    );
    for pod in &fleet.pods[..2] {
        pod.restart().await.expect("the same port");
    }
    fleet.until_unreachable(0, 0).await;
    assert!(fleet.part(0, 0..4).await >= 0.99, "they are back");
}

type ScriptedBalance = Balance<support::scripted::PodService>;

/// A balancer in zone a. Pods 1 and 2 are in zone a, pods 3 to 6 in zone b.
async fn balance(pods: &Pods) -> (Script, ScriptedBalance) {
    let (script, discovery): (_, Scripted) = discovery();
    let mut balance = Balance::builder(discovery).zone("a").build(pods.make());
    let zone = |host| if host <= 2 { "a" } else { "b" };
    script.endpoints(
        (1..=6)
            .map(|host| endpoint(host).with_zone_hints([zone(host)]))
            .collect(),
    );
    balance.ready().await.expect("readiness never fails");
    (script, balance)
}

async fn calls(balance: &ScriptedBalance, pods: &Pods) -> Vec<usize> {
    let counts = |pods: &Pods| {
        (1..=6)
            .map(|host| pods.counts(host).calls)
            .collect::<Vec<_>>()
    };
    let before = counts(pods);
    for _ in 0..120 {
        let mut balance = balance.clone();
        let ready = balance.ready().await.expect("ready");
        ready.call(Request(1)).await.expect("an answer");
        // Let the background task run.
        tokio::task::yield_now().await;
    }
    let after = counts(pods).into_iter();
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_near_share_follows_refusals_without_a_new_set() {
    let pods = Pods::default();
    let (_script, balance) = balance(&pods).await;
    // 2 of 6 pods, two zones: 2/3 of the 120 requests stay near.
    assert_eq!(calls(&balance, &pods).await, [40, 40, 10, 10, 10, 10]);
    pods.set([1], Behaviour::NotReady);
    calls(&balance, &pods).await;
    // 1 of 5 pods, two zones: 2/5 stay near.
    assert_eq!(calls(&balance, &pods).await, [0, 48, 18, 18, 18, 18]);
    pods.set([2], Behaviour::NotReady);
    calls(&balance, &pods).await;
    assert_eq!(calls(&balance, &pods).await, [0, 0, 30, 30, 30, 30]);
    pods.set([1, 2], Behaviour::Answer);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(calls(&balance, &pods).await, [40, 40, 10, 10, 10, 10]);
    pods.set(3..=6, Behaviour::NotReady);
    calls(&balance, &pods).await;
    assert_eq!(calls(&balance, &pods).await, [60, 60, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_show_which_pods_are_near() {
    let pods = Pods::default();
    let (script, balance) = balance(&pods).await;
    pods.set([1], Behaviour::NotReady);
    calls(&balance, &pods).await;
    let said: Vec<_> = balance
        .endpoints()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(said[0], "10.0.0.1:80: near, unreachable, 0 in flight");
    assert_eq!(said[1], "10.0.0.2:80: near, available, 0 in flight");
    assert_eq!(said[2], "10.0.0.3:80: far, available, 0 in flight");
    script.answer(1..=6);
    sleep(Duration::from_millis(1)).await;
    let endpoints = balance.endpoints();
    assert!(endpoints.iter().all(|status| status.proximity.is_none()));
    assert_eq!(pods.counts(1).made, 1, "the same pods, whatever is known");
}
