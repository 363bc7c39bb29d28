//! Routes of requests, and policies that use them: chosen by name, or of your own.

mod support;

use std::{net::SocketAddr, time::Duration};

use rand::{Rng, RngExt};
use support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt;
use tower_headless::{
    Balance, BalanceBuilder, BuiltInPolicy, Endpoint, Error, Members, Picker, PodId, Policy,
    Previous, Route, RouteKey,
};

const SECOND: Duration = Duration::from_secs(1);

fn named(host: u8, name: &str) -> Endpoint {
    endpoint(host).with_pod_name(name)
}

type Change<D> = fn(BalanceBuilder<D>) -> BalanceBuilder<D>;

/// A balancer over a StatefulSet of three pods.
async fn stateful(
    change: Change<support::scripted::Scripted>,
) -> (Script, Pods, Balance<PodService>) {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = change(Balance::builder(source)).build(pods.make());
    script.endpoints(vec![named(1, "kv-0"), named(2, "kv-1"), named(3, "kv-2")]);
    let ready = ServiceExt::<Request>::ready(&mut balance).await;
    ready.expect("readiness never fails");
    settle().await;
    (script, pods, balance)
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Sends a request for this pod. Returns the address that answers.
async fn ask(balance: &Balance<PodService>, pod: &str) -> Result<SocketAddr, Error> {
    let response = balance.call_with(Request(1), Route::new().pod(pod)).await;
    response.map(|(endpoint, _)| endpoint.address())
}

#[tokio::test(start_paused = true)]
async fn only_the_named_pod_gets_the_request() {
    let (script, pods, balance) = stateful(|builder| builder).await;
    for _ in 0..20 {
        let answered = ask(&balance, "kv-1").await.expect("it is there");
        assert_eq!(answered, endpoint(2).address());
    }
    // The pod is rescheduled to another address.
    script.endpoints(vec![named(1, "kv-0"), named(3, "kv-2")]);
    settle().await;
    let mut waiting = task::spawn(ask(&balance, "kv-1"));
    assert_pending!(waiting.poll());
    sleep(4 * SECOND).await;
    assert_pending!(waiting.poll());
    script.endpoints(vec![named(1, "kv-0"), named(9, "kv-1"), named(3, "kv-2")]);
    settle().await;
    let answered = assert_ready!(waiting.poll()).expect("it is back");
    assert_eq!(answered, endpoint(9).address());
    assert_eq!([1, 3].map(|host| pods.counts(host).calls), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_named_pod_that_is_away_is_waited_for_up_to_the_ready_timeout() {
    let (_script, pods, balance) = stateful(|builder| builder).await;
    let begun = Instant::now();
    let error = ask(&balance, "kv-7").await.expect_err("there is none");
    assert!(error.is_unreachable() && error.is_unsent(), "{error}");
    assert_eq!(
        error.to_string(),
        "pod kv-7 isn't there; there are kv-0, kv-1, kv-2"
    );
    let waited = begun.elapsed();
    assert!((5 * SECOND..6 * SECOND).contains(&waited), "{waited:?}");
    // Other requests were not affected.
    assert!(balance.call_with(Request(1), Route::new()).await.is_ok());
    assert_eq!(
        [1, 2, 3]
            .map(|host| pods.counts(host).calls)
            .iter()
            .sum::<usize>(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn fail_fast_never_waits_for_a_pod_and_wait_for_ready_waits_for_ever() {
    let (_script, _pods, balance) = stateful(|builder| builder.fail_fast()).await;
    let mut request = task::spawn(ask(&balance, "kv-7"));
    assert!(assert_ready!(request.poll()).is_err());
    let (script, _pods, balance) = stateful(|builder| builder.wait_for_ready()).await;
    let mut request = task::spawn(ask(&balance, "kv-7"));
    assert_pending!(request.poll());
    sleep(3_600 * SECOND).await;
    assert_pending!(request.poll());
    script.endpoints(vec![named(7, "kv-7")]);
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_named_pod_that_hands_requests_back_is_waited_for() {
    let (_script, pods, balance) = stateful(|builder| builder).await;
    pods.set([2], Behaviour::HandBack);
    let mut request = task::spawn(ask(&balance, "kv-1"));
    assert_pending!(request.poll());
    pods.set([2], Behaviour::Answer);
    sleep(SECOND).await;
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok(), "its trial");
    assert_eq!([1, 3].map(|host| pods.counts(host).calls), [0, 0]);
}

/// Sends a request that prefers this pod. Returns the address that answers.
async fn prefer(balance: &Balance<PodService>, pod: &str) -> Result<SocketAddr, Error> {
    let route = Route::new().prefer(pod);
    let response = balance.call_with(Request(1), route).await;
    response.map(|(endpoint, _)| endpoint.address())
}

#[tokio::test(start_paused = true)]
async fn a_preferred_pod_gets_the_request_while_it_accepts_it() {
    let policies: [Change<_>; 3] = [
        |builder| builder,
        |builder| builder.policy(BuiltInPolicy::LeastConnections(Default::default())),
        |builder| builder.policy(BuiltInPolicy::ConsistentHash(Default::default())),
    ];
    for policy in policies {
        let (script, pods, balance) = stateful(policy).await;
        let second = endpoint(2).address();
        for _ in 0..20 {
            assert_eq!(prefer(&balance, "kv-1").await.expect("one"), second);
        }
        let route = Route::new().prefer("kv-1").avoid(&named(2, "kv-1"));
        let avoiding = balance.call_with(Request(1), route).await;
        assert_ne!(avoiding.expect("another").0.address(), second);
        pods.set([2], Behaviour::HandBack);
        for _ in 0..20 {
            assert_ne!(prefer(&balance, "kv-1").await.expect("another"), second);
        }
        script.endpoints(vec![named(1, "kv-0"), named(9, "kv-1")]);
        settle().await;
        let moved = prefer(&balance, "kv-1").await.expect("it is elsewhere");
        assert_eq!(moved, endpoint(9).address());
        script.endpoints(vec![named(1, "kv-0")]);
        settle().await;
        let other = prefer(&balance, "kv-1").await.expect("another");
        assert_eq!(other, endpoint(1).address());
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_comes_back_by_a_request_that_prefers_it() {
    let policy: Change<_> =
        |builder| builder.policy(BuiltInPolicy::ConsistentHash(Default::default()));
    let (_script, pods, balance) = stateful(policy).await;
    let ask = async |route: Route| {
        let response = balance.call_with(Request(1), route).await;
        settle().await;
        response.map(|(endpoint, _)| endpoint.address())
    };
    let (first, second) = (endpoint(1).address(), endpoint(2).address());
    // A key whose requests wouldn't try the second pod by themselves.
    let mut key = 0;
    while ask(Route::new().key(key)).await.expect("one") != first {
        key += 1;
    }
    let route = || Route::new().key(key).prefer("kv-1");
    pods.set([2], Behaviour::Fail);
    while ask(route()).await.is_err() {}
    let calls = pods.counts(2).calls;
    for _ in 0..20 {
        assert_eq!(ask(route()).await.expect("the key's"), first);
    }
    assert_eq!(pods.counts(2).calls, calls);
    pods.set([2], Behaviour::Answer);
    sleep(30 * SECOND).await;
    for _ in 0..5 {
        let other = Route::new().key(key).prefer("kv-0");
        assert_eq!(ask(other).await.expect("it is there"), first);
    }
    for _ in 0..20 {
        assert_eq!(ask(route()).await.expect("it is back"), second);
    }
}

#[tokio::test(start_paused = true)]
async fn a_preferred_pod_that_is_left_out_gets_nothing() {
    let (_script, pods, balance) = stateful(|builder| builder).await;
    let others = balance.others("kv-1");
    for _ in 0..20 {
        let route = Route::new().prefer("kv-1");
        let response = others.call_with(Request(1), route.clone()).await;
        response.expect("another");
        let response = balance.call_with(Request(1), route.leave_out("kv-1")).await;
        response.expect("another");
    }
    assert_eq!(pods.counts(2).calls, 0);
    assert!([1, 3].iter().all(|&host| pods.counts(host).calls > 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_can_be_preferred_by_every_kind_of_id() {
    let (_script, _pods, balance) = stateful(|builder| builder).await;
    let second = endpoint(2);
    for pod in [
        PodId::ordinal(1),
        second.address().into(),
        second.address().ip().into(),
        (&named(2, "kv-1")).into(),
    ] {
        for _ in 0..6 {
            let route = Route::new().prefer(pod.clone());
            let response = balance.call_with(Request(1), route).await;
            let (answered, _) = response.expect("it is there");
            assert_eq!(answered.address(), second.address(), "{pod}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_name_goes_by_its_address() {
    let (script, _pods, balance) = stateful(|builder| builder).await;
    script.endpoints(vec![endpoint(11), endpoint(12), named(3, "kv-2")]);
    settle().await;
    let second = endpoint(12).address();
    for _ in 0..20 {
        let name = second.to_string();
        assert_eq!(prefer(&balance, &name).await.expect("one"), second);
        assert_eq!(ask(&balance, &name).await.expect("one"), second);
    }
}

#[tokio::test(start_paused = true)]
async fn an_avoided_pod_gets_the_request_only_if_no_other_takes_it() {
    let (_script, pods, balance) = stateful(|builder| builder).await;
    let route = Route::new().avoid(&endpoint(1)).avoid(&named(2, "kv-1"));
    for _ in 0..20 {
        let answered = balance.call_with(Request(1), route.clone()).await;
        assert_eq!(answered.expect("a response").0, endpoint(3));
    }
    pods.set([3], Behaviour::NotReady);
    let answered = balance.call_with(Request(1), route).await;
    assert_ne!(answered.expect("better than none").0, endpoint(3));
}

/// A policy that sends equal keys to the same pod, and requests without a key to any.
struct ByKey;

impl Policy for ByKey {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(ByKey)
    }
}

impl Picker for ByKey {
    fn pick(&self, members: &Members, route: &Route, _: &mut dyn Rng) -> Option<usize> {
        let keys = [RouteKey::from("a"), RouteKey::from("b"), RouteKey::from(3)];
        let key = route.requested_key()?;
        let index = keys.iter().position(|known| known == key)?;
        (index < members.len()).then_some(index)
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_reaches_a_custom_policy() {
    let (_script, pods, balance) = stateful(|builder| builder.policy(ByKey)).await;
    for _ in 0..5 {
        for (host, route) in [
            (1, Route::new().key("a")),
            (2, Route::new().key(String::from("b"))),
            (3, Route::new().key(3_u64)),
        ] {
            let answered = balance.call_with(Request(1), route).await;
            assert_eq!(
                answered.expect("a response").0.address(),
                endpoint(host).address()
            );
        }
    }
    // The key's pod refuses: any other one will do, because the policy has no second choice.
    pods.set([1], Behaviour::NotReady);
    for _ in 0..5 {
        let answered = balance.call_with(Request(1), Route::new().key("a")).await;
        assert_ne!(
            answered.expect("a response").0.address(),
            endpoint(1).address()
        );
    }
    assert!(
        balance
            .call_with(Request(1), Route::new().key("else"))
            .await
            .is_ok()
    );
}

/// A policy by an author who didn't think of empty sets.
struct AnyOfThem;

impl Policy for AnyOfThem {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(AnyOfThem)
    }
}

impl Picker for AnyOfThem {
    fn pick(&self, members: &Members, _: &Route, rng: &mut dyn Rng) -> Option<usize> {
        Some(rng.random_range(0..members.len()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_never_asked_to_choose_from_nothing() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source)
        .policy(AnyOfThem)
        .zone("a")
        .build(pods.make());
    let mut request = task::spawn(balance.call_with(Request(1), Route::new()));
    assert_pending!(request.poll());
    // All pods are near, so the far group is empty.
    script.endpoints(vec![endpoint(1).with_zone_hints(["a"])]);
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok());
    script.endpoints(vec![]);
    settle().await;
    let error = balance
        .call_with(Request(1), Route::new())
        .await
        .expect_err("no pods");
    assert!(error.is_no_endpoints());
}

/// A policy that chooses an endpoint that doesn't exist.
struct Nonsense;

impl Policy for Nonsense {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(Nonsense)
    }
}

impl Picker for Nonsense {
    fn pick(&self, members: &Members, _: &Route, _: &mut dyn Rng) -> Option<usize> {
        Some(members.len() + 7)
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_chooses_nonsense_costs_no_request() {
    let (_script, pods, balance) = stateful(|builder| builder.policy(Nonsense)).await;
    for _ in 0..300 {
        assert!(balance.call_with(Request(1), Route::new()).await.is_ok());
    }
    let calls = [1, 2, 3].map(|host| pods.counts(host).calls);
    assert!(calls.iter().all(|&calls| calls > 50), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_chosen_by_its_name_does_not_change_the_type() {
    let mut balances: Vec<Balance<PodService>> = Vec::new();
    for name in [
        "round-robin",
        "random",
        "least-connections",
        "power-of-two",
        "peak-ewma",
        "consistent-hash",
    ] {
        let policy: BuiltInPolicy = name.parse().expect("a policy");
        let (_script, source) = discovery();
        balances.push(
            Balance::builder(source)
                .policy(policy.clone())
                .build(Pods::default().make()),
        );
        let policy: Box<dyn Policy> = match name.len() > 10 {
            true => Box::new(policy),
            false => Box::new(ByKey),
        };
        let (_script, source) = discovery();
        balances.push(
            Balance::builder(source)
                .policy(policy)
                .build(Pods::default().make()),
        );
    }
    assert_eq!(balances.len(), 12);
    assert!("fastest".parse::<BuiltInPolicy>().is_err());
}
