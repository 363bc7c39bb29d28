//! Keys through a whole balancer, with pods that restart, refuse, fail and are new.

mod support;

use std::{collections::BTreeMap, time::Duration};

use support::scripted::{Behaviour, Request, World as Cluster, endpoint, settle};
use tokio::time::sleep;
use tower_headless::{ConsistentHash, Endpoint, Route};

const SECOND: Duration = Duration::from_secs(1);

/// Pods of a StatefulSet, each at its current address.
fn set(pods: &BTreeMap<u8, u8>) -> Vec<Endpoint> {
    let pod = |(number, &host): (&u8, &u8)| endpoint(host).with_hostname(format!("web-{number}"));
    pods.iter().map(pod).collect()
}

impl Cluster {
    /// Five pods, and slow start over 10 s.
    async fn new() -> (Self, BTreeMap<u8, u8>) {
        let hosts = (0..5).zip(1..6).collect();
        let cluster = Self::of(set(&hosts), |builder| {
            let builder = builder.policy(ConsistentHash::new());
            builder.slow_start(10 * SECOND)
        });
        (cluster.await, hosts)
    }

    async fn publish(&self, hosts: &BTreeMap<u8, u8>) {
        self.set(set(hosts)).await;
    }

    /// The name of the pod that answers for a key.
    async fn home(&self, key: &str) -> String {
        let route = Route::new().key(key);
        let answered = self.balance.call_with(Request(1), route).await;
        let (endpoint, _) = answered.expect("a response");
        let all = self.balance.endpoints();
        let mut statuses = all.iter().map(|status| &status.endpoint);
        let found = statuses.find(|known| known.address() == endpoint.address());
        found.expect("one of the set").stable_name().into_owned()
    }

    async fn homes(&self) -> Vec<String> {
        let mut homes = Vec::new();
        for key in 0..200 {
            homes.push(self.home(&format!("user-{key}")).await);
        }
        homes
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rolling_restart_each_key_goes_to_the_pod_of_the_same_name() {
    let (cluster, mut hosts) = Cluster::new().await;
    let before = cluster.homes().await;
    for number in (0..5).rev() {
        hosts.remove(&number);
        cluster.publish(&hosts).await;
        let away = cluster.homes().await;
        for (home, now) in before.iter().zip(&away) {
            assert_eq!(home == now, *home != format!("web-{number}"));
        }
        // Back at another address, and new.
        hosts.insert(number, 20 - number);
        cluster.publish(&hosts).await;
        let mut last = away;
        for _ in 0..11 {
            let now = cluster.homes().await;
            for ((home, was), now) in before.iter().zip(&last).zip(&now) {
                assert!(now == home || now == was, "a key goes home, or stays");
                assert!(was != home || now == home, "and is there for good");
            }
            last = now;
            sleep(SECOND).await;
        }
        assert_eq!(cluster.homes().await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_pod_that_refuses_are_at_their_second_choice_until_it_accepts() {
    let (cluster, hosts) = Cluster::new().await;
    let before = cluster.homes().await;
    cluster.pods.set([hosts[&2]], Behaviour::HandBack);
    let away = cluster.homes().await;
    assert_eq!(away, cluster.homes().await);
    for (home, now) in before.iter().zip(&away) {
        assert_eq!(home == now, home != "web-2");
    }
    let mut without = hosts.clone();
    without.remove(&2);
    cluster.publish(&without).await;
    assert_eq!(away, cluster.homes().await, "one that is gone is no other");
    cluster.publish(&hosts).await;
    cluster.pods.set([hosts[&2]], Behaviour::Answer);
    sleep(30 * SECOND).await;
    // The first request of one of its own keys is its trial.
    cluster.homes().await;
    settle().await;
    sleep(30 * SECOND).await;
    assert_eq!(before, cluster.homes().await);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_is_out_and_its_own_keys_bring_it_back() {
    let (cluster, hosts) = Cluster::new().await;
    let before = cluster.homes().await;
    cluster.pods.set([hosts[&3]], Behaviour::Fail);
    // A failed request counts as in flight for a while, and its pod has no room for more meanwhile.
    for key in 0..200 {
        let route = Route::new().key(format!("user-{key}"));
        let _ = cluster.balance.call_with(Request(1), route).await;
        sleep(SECOND / 20).await;
    }
    let away = cluster.homes().await;
    for (home, now) in before.iter().zip(&away) {
        assert_eq!(home == now, home != "web-3");
    }
    cluster.pods.set([hosts[&3]], Behaviour::Answer);
    let calls = cluster.pods.counts(hosts[&3]).calls;
    sleep(10 * SECOND).await;
    for (key, _) in before
        .iter()
        .enumerate()
        .filter(|(_, home)| *home != "web-3")
    {
        cluster.home(&format!("user-{key}")).await;
    }
    assert_eq!(
        cluster.pods.counts(hosts[&3]).calls,
        calls,
        "no other key tries it"
    );
    cluster.homes().await;
    sleep(SECOND).await;
    assert_eq!(before, cluster.homes().await);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_pod_is_left_out_is_at_its_second_choice_and_comes_home_without_that() {
    let (cluster, _) = Cluster::new().await;
    let before = cluster.homes().await;
    let get = async |route: Route| {
        let answered = cluster.balance.call_with(Request(1), route).await;
        answered.expect("a response").0
    };
    let all = cluster.balance.endpoints();
    for (key, home) in before.iter().enumerate() {
        let key = format!("user-{key}");
        let mut pods = all.iter().map(|status| &status.endpoint);
        let pod = pods.find(|pod| pod.stable_name() == *home).expect("home");
        let second = get(Route::new().key(&*key).avoid(pod)).await;
        let leaving_out = Route::new().key(&*key).leave_out(&**home);
        assert_eq!(get(leaving_out.clone()).await.address(), second.address());
        let neither = get(leaving_out.avoid(&second)).await;
        assert!(![pod.address(), second.address()].contains(&neither.address()));
    }
    assert_eq!(cluster.homes().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_to_a_pod_that_it_avoids_rather_than_to_the_one_that_it_leaves_out() {
    let (cluster, hosts) = Cluster::new().await;
    cluster
        .pods
        .set((0..3).map(|number| hosts[&number]), Behaviour::HandBack);
    let avoided = endpoint(hosts[&3]);
    for key in 0..50 {
        let route = Route::new().key(key).leave_out("web-4").avoid(&avoided);
        let answered = cluster.balance.call_with(Request(1), route).await;
        let (endpoint, _) = answered.expect("better than none");
        assert_eq!(endpoint.address(), avoided.address());
    }
    assert_eq!(cluster.pods.counts(hosts[&4]).calls, 0);
}
