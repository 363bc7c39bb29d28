//! Subsets: how a client's pods are chosen, how even that is, and what stays while pods and peers come and go.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{IntoFuture, pending},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use http_body_util::BodyExt;
use support::{
    client::dns,
    cluster::Cluster,
    scripted::{
        Behaviour, PodService, Pods, Request, Script, Scripted, World, discovery, endpoint, settle,
    },
    within,
};
use tokio::{sync::mpsc, time::sleep};
use tower::{Layer, ServiceExt};
use tower_headless::{
    Balance, BalanceBuilder, BalanceLayer, BoxError, ConsistentHash, Discovery, Dns, Endpoint,
    EndpointState, EndpointStatus, Error, HealthCheck, MembershipChange, OutlierDetection, PodId,
    Proximity, Route, StaticEndpoints, Subset, http::Client,
};

const SECOND: Duration = Duration::from_secs(1);

type Change<'a> = &'a dyn Fn(BalanceBuilder<Scripted>) -> BalanceBuilder<Scripted>;

/// A balancer with a subset, over `set`.
async fn balance(
    set: Vec<Endpoint>,
    subset: Subset,
    change: Change<'_>,
) -> (Script, Pods, Balance<PodService>) {
    let world = World::of(set, |builder| change(builder.subset(subset).seed(5))).await;
    (world.script, world.pods, world.balance)
}

fn set(hosts: Range<u8>) -> Vec<Endpoint> {
    hosts.map(endpoint).collect()
}

fn host(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => unreachable!("pods are on IPv4"),
    }
}

fn hosts<S>(balance: &Balance<S>) -> BTreeSet<u8> {
    let pods = balance.endpoints().into_iter();
    pods.map(|pod| host(&pod.endpoint)).collect()
}

async fn send(balance: &Balance<PodService>) -> Result<u8, Error> {
    let response = balance.clone().oneshot(Request(1)).await;
    response.map(|(endpoint, _)| host(&endpoint))
}

/// Sends requests, none of which may fail. Returns which pods answered.
async fn answering(balance: &Balance<PodService>, requests: usize) -> BTreeSet<u8> {
    let mut answering = BTreeSet::new();
    for _ in 0..requests {
        answering.insert(send(balance).await.expect("a pod that is well"));
    }
    answering
}

#[tokio::test(start_paused = true)]
async fn a_subset_is_all_that_a_balancer_knows_of() {
    let (script, pods, balance) = balance(set(0..100), Subset::of(10), &|it| it).await;
    let chosen = hosts(&balance);
    assert_eq!(chosen.len(), 10);
    assert_eq!(answering(&balance, 100).await, chosen);
    let made = (0..100).filter(|&host| pods.counts(host).made > 0);
    assert_eq!(made.collect::<BTreeSet<_>>(), chosen);
    let mut watch = balance.watch();
    let change = watch.next().await.expect("the set");
    let MembershipChange { joined, left, .. } = change;
    let joined = joined.iter().map(host).collect::<BTreeSet<_>>();
    assert_eq!((joined, left.len()), (chosen.clone(), 0));
    // The same answer again, in another order.
    script.answer((0..100).rev());
    settle().await;
    assert_eq!(hosts(&balance), chosen);
}

#[tokio::test(start_paused = true)]
async fn a_set_smaller_than_the_subset_is_used_whole_and_size_zero_is_one() {
    for size in [10, 11, 1000] {
        let (_script, _, balance) = balance(set(0..10), Subset::of(size), &|it| it).await;
        assert_eq!(hosts(&balance).len(), 10);
    }
    let (script, _, balance) = balance(set(0..10), Subset::of(0), &|it| it).await;
    assert_eq!(hosts(&balance).len(), 1);
    script.answer([]);
    settle().await;
    assert_eq!(hosts(&balance).len(), 0);
    assert!(
        send(&balance)
            .await
            .is_err_and(|error| error.is_no_endpoints())
    );
}

#[tokio::test(start_paused = true)]
async fn a_clients_identity_decides_its_subset() {
    let chosen = async |subset| hosts(&balance(set(0..100), subset, &|it| it).await.2);
    let of = |id: &str| Subset::of(10).client_id(id);
    assert_eq!(chosen(of("shop-0")).await, chosen(of("shop-0")).await);
    assert_ne!(chosen(of("shop-0")).await, chosen(of("shop-1")).await);
    let seeded = |seed| Subset::of(10).seed(seed);
    assert_eq!(chosen(seeded(1)).await, chosen(seeded(1)).await);
    assert_ne!(chosen(seeded(1)).await, chosen(seeded(2)).await);
    // Each balancer of a layer is a client of its own.
    let layer = BalanceLayer::new(StaticEndpoints::from_iter(set(0..100)));
    let layer = layer.subset(Subset::of(10));
    let [one, two] = [(); 2].map(|()| layer.layer(Pods::default().make()));
    settle().await;
    assert_eq!([&one, &two].map(|it| hosts(it).len()), [10, 10]);
    assert_ne!(hosts(&one), hosts(&two));
}

type Answer = Result<Vec<Endpoint>, BoxError>;

/// The client's peers, with scripted answers. Clones would take each other's answers; a subset makes only one.
#[derive(Clone)]
struct Peers(Arc<Mutex<mpsc::UnboundedReceiver<Answer>>>);

fn peers() -> (mpsc::UnboundedSender<Answer>, Peers) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Peers(Arc::new(Mutex::new(receiver))))
}

impl Discovery for Peers {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut answers = self.0.lock().expect("no panic");
        match answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

fn clients(count: u8) -> Vec<Endpoint> {
    let client = |host| Endpoint::new(([10, 1, 0, host], 0).into());
    (0..count).map(client).collect()
}

/// How many of the balancers use each pod.
fn counts(balancers: &[(Script, Pods, Balance<PodService>)]) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for host in balancers.iter().flat_map(|(_, _, balance)| hosts(balance)) {
        *counts.entry(host).or_insert(0) += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn peers_share_the_pods_out_evenly_while_pods_come_and_go() {
    let source = StaticEndpoints::from_iter(clients(10));
    let mut balancers = Vec::new();
    for client in 0..10 {
        let subset = Subset::of(6).peers(source.clone(), format!("10.1.0.{client}"));
        balancers.push(balance(set(0..30), subset, &|it| it).await);
    }
    let all = |count| {
        (0..30)
            .map(|host| (host, count))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(counts(&balancers), all(2));
    // A rolling update, pod by pod.
    for step in 0..30_u8 {
        let before: Vec<_> = balancers.iter().map(|(_, _, it)| hosts(it)).collect();
        for (script, _, balance) in &balancers {
            script.answer((step + 1..30).chain(100..=100 + step));
            answering(balance, 12).await;
        }
        settle().await;
        let after = balancers.iter().map(|(_, _, it)| hosts(it));
        for (before, after) in before.iter().zip(after) {
            assert_eq!(after.len(), 6);
            assert!(before.difference(&after).count() <= 2);
        }
        assert!(counts(&balancers).into_values().all(|count| count == 2));
    }
    // The balancers have dropped the pods that are gone.
    let alive = balancers
        .iter()
        .flat_map(|(_, pods, _)| (0..30).map(|host| pods.alive(host)));
    assert_eq!(alive.sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_among_its_peers_uses_a_random_part_or_the_last_one() {
    let (sender, source) = peers();
    let tell = async |answer| {
        sender.send(answer).expect("the balancer listens");
        settle().await;
    };
    let subset = Subset::of(10).peers(source, "10.1.0.3");
    let (_script, _, balance) = balance(set(0..100), subset, &|it| it).await;
    let alone = hosts(&balance);
    assert_eq!(alone.len(), 10, "nothing is known of peers");
    tell(Err("SERVFAIL".into())).await;
    tell(Ok(Vec::new())).await;
    tell(Ok(clients(3))).await;
    assert_eq!(hosts(&balance), alone);
    tell(Ok(clients(5))).await;
    let ranked = hosts(&balance);
    assert_ne!(ranked, alone);
    // For a while the client isn't ready, or DNS has no answer.
    tell(Ok(clients(3))).await;
    tell(Err("SERVFAIL".into())).await;
    tell(Ok(Vec::new())).await;
    assert_eq!(hosts(&balance), ranked);
    tell(Ok(clients(50))).await;
    assert_ne!(hosts(&balance), ranked, "others have come");
    tell(Ok(clients(5))).await;
    assert_eq!(hosts(&balance), ranked);
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_known_first_change_nothing_before_there_are_pods() {
    let (script, source) = discovery();
    let peers = StaticEndpoints::from_iter(clients(5));
    let subset = Subset::of(10).peers(peers, "10.1.0.3");
    let balance = Balance::builder(source)
        .subset(subset)
        .build(Pods::default().make());
    settle().await;
    assert_eq!(balance.staleness(), None);
    let request = tokio::spawn({
        let balance = balance.clone();
        async move { send(&balance).await }
    });
    sleep(SECOND).await;
    assert!(!request.is_finished(), "it waits for discovery");
    script.answer(0..100);
    let answered = request.await.expect("no panic").expect("an answer");
    assert!(hosts(&balance).contains(&answered));
}

#[tokio::test(start_paused = true)]
async fn no_request_fails_while_a_pod_outside_of_the_subset_is_well() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    answering(&balance, 12).await;
    // Half of it is enough.
    let bad: Vec<_> = own.iter().copied().take(3).collect();
    pods.set(bad.clone(), Behaviour::NotReady);
    answering(&balance, 12).await;
    settle().await;
    assert_eq!(hosts(&balance), own);
    // All of it, and all others but two.
    let well: Vec<_> = (0..60).filter(|host| !own.contains(host)).take(2).collect();
    pods.set(
        (0..60).filter(|host| !well.contains(host)),
        Behaviour::NotReady,
    );
    assert!(
        answering(&balance, 20)
            .await
            .is_subset(&well.iter().copied().collect())
    );
    assert!(hosts(&balance).is_superset(&own));
    // They are back, and so is the subset.
    pods.set(0..60, Behaviour::Answer);
    sleep(20 * SECOND).await;
    settle().await;
    assert_eq!(hosts(&balance), own);
    assert_eq!(answering(&balance, 12).await, own);
}

#[tokio::test(start_paused = true)]
async fn substitutes_are_as_many_as_are_missing() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    pods.set(own.iter().copied().take(4), Behaviour::NotReady);
    answering(&balance, 20).await;
    settle().await;
    assert_eq!(hosts(&balance).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_bad_pod_keeps_only_the_substitutes_it_needs() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(3), &|it| it).await;
    let own = hosts(&balance);
    let bad = *own.first().expect("three");
    pods.set(0..60, Behaviour::NotReady);
    let waiting = tokio::spawn({
        let balance = balance.clone();
        async move { send(&balance).await }
    });
    sleep(SECOND).await;
    assert_eq!(hosts(&balance).len(), 60, "an outage");
    pods.set((0..60).filter(|host| *host != bad), Behaviour::Answer);
    waiting.await.expect("no panic").expect("an answer");
    sleep(30 * SECOND).await;
    settle().await;
    assert_eq!(hosts(&balance).len(), 4);
    assert_eq!(answering(&balance, 30).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_substitute_whose_service_could_not_be_made_joins_a_little_later() {
    let (script, source) = discovery();
    let (pods, faults) = (Pods::default(), Arc::new(AtomicUsize::new(0)));
    let mut make = pods.make();
    let broken = faults.clone();
    let balance = Balance::builder(source)
        .subset(Subset::of(1))
        .seed(5)
        .build(move |endpoint: &Endpoint| {
            let take = |left: usize| left.checked_sub(1);
            let is_broken = broken.fetch_update(Relaxed, Relaxed, take).is_ok();
            assert!(!is_broken, "a bug in what makes services");
            make(endpoint)
        });
    script.answer(0..60);
    settle().await;
    let own = hosts(&balance);
    pods.set(own.clone(), Behaviour::NotReady);
    // The source doesn't answer again.
    faults.store(2, Relaxed);
    let answered = send(&balance).await.expect("a substitute");
    assert!(!own.contains(&answered));
    assert_eq!(hosts(&balance).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_tried_yet_need_no_substitutes() {
    let check = HealthCheck::by(|_| pending::<Result<(), BoxError>>());
    let check = check.require_initial_pass(true).timeout(10 * SECOND);
    let (_script, _, balance) = balance(set(0..60), Subset::of(6), &|builder| {
        builder.health_check(check.clone())
    })
    .await;
    sleep(5 * SECOND).await;
    settle().await;
    assert_eq!(hosts(&balance).len(), 6, "their checks are under way");
    sleep(6 * SECOND).await;
    settle().await;
    assert!(hosts(&balance).len() > 6, "they have failed them");
}

fn zoned(counts: [u8; 3]) -> Vec<Endpoint> {
    let zones = ["a", "b", "c"].into_iter().zip(counts);
    let zones = zones.flat_map(|(zone, count)| std::iter::repeat_n(zone, count.into()));
    let pod = |(zone, host)| endpoint(host).with_zone(zone);
    zones.zip(0..).map(pod).collect()
}

/// How many of the subset are near, and how many of 100 requests go to them.
async fn near(counts: [u8; 3], zone: &'static str, size: usize) -> (usize, usize) {
    let subset = Subset::of(size);
    let (_script, _, balance) =
        balance(zoned(counts), subset, &|builder| builder.prefer_zone(zone)).await;
    let near = balance.endpoints().into_iter();
    let near = near.filter(|pod| pod.proximity == Some(Proximity::Near));
    let near: BTreeSet<_> = near.map(|pod| host(&pod.endpoint)).collect();
    let mut stayed = 0;
    for _ in 0..100 {
        let answered = send(&balance).await.expect("an answer");
        stayed += usize::from(near.contains(&answered));
    }
    (near.len(), stayed)
}

#[tokio::test(start_paused = true)]
async fn a_subset_is_near_and_keeps_the_zones_shares() {
    assert_eq!(near([20, 20, 20], "b", 6).await, (6, 100));
    // Too few to fill it, but their fair share of all.
    assert_eq!(near([4, 4, 4], "b", 6).await, (4, 100));
    // In zone c, 10 ÷ 50 × 3 of the requests stay.
    assert_eq!(near([20, 20, 10], "b", 10).await, (10, 100));
    assert_eq!(near([20, 20, 10], "c", 10).await, (6, 60));
    // 60 % of three are two of them, and they get 60 %.
    assert_eq!(near([20, 20, 10], "c", 3).await, (2, 60));
}

/// A watch knows the pods' names; DNS, its fallback, doesn't.
#[tokio::test(start_paused = true)]
async fn a_source_that_forgets_the_pods_names_moves_no_pod() {
    let (script, _, balance) = balance(named(0..60), Subset::of(6).seed(1), &|it| it).await;
    let own = hosts(&balance);
    script.answer(0..60);
    settle().await;
    assert_eq!(hosts(&balance), own);
    script.answer(0..61);
    settle().await;
    assert!(own.difference(&hosts(&balance)).count() <= 1);
}

fn named(hosts: Range<u8>) -> Vec<Endpoint> {
    let named = |host| endpoint(host).with_pod_name(format!("kv-{host}"));
    hosts.map(named).collect()
}

async fn ask(balance: &Balance<PodService>, pod: u8) -> Result<u8, Error> {
    let route = Route::new().pod(format!("kv-{pod}"));
    let response = balance.call_with(Request(1), route).await;
    response.map(|(endpoint, _)| host(&endpoint))
}

#[tokio::test(start_paused = true)]
async fn a_pod_outside_of_the_subset_gets_the_requests_for_it_and_no_others() {
    let (script, pods, balance) = balance(named(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    let other = (0..60).find(|host| !own.contains(host)).expect("many");
    for _ in 0..3 {
        assert_eq!(ask(&balance, other).await.expect("it is there"), other);
    }
    assert_eq!(answering(&balance, 60).await, own);
    assert_eq!(pods.counts(other).calls, 3);
    // It moves.
    let moved = endpoint(200).with_pod_name(format!("kv-{other}"));
    let mut set = named(0..60);
    set[usize::from(other)] = moved;
    script.endpoints(set.clone());
    settle().await;
    assert_eq!(ask(&balance, other).await.expect("it is there"), 200);
    assert_eq!(answering(&balance, 60).await, own);
    // A request waits for a pod that isn't there.
    let waiting = tokio::spawn({
        let balance = balance.clone();
        async move { ask(&balance, 77).await }
    });
    sleep(3 * SECOND).await;
    assert!(!waiting.is_finished());
    set.extend(named(77..78));
    script.endpoints(set);
    assert_eq!(waiting.await.expect("no panic").expect("it has come"), 77);
    let missing = ask(&balance, 99).await.expect_err("there is none");
    assert!(missing.is_unreachable());
}

#[tokio::test(start_paused = true)]
async fn a_substitute_that_a_request_waits_for_by_name_stays_when_the_others_leave() {
    let (_script, pods, balance) = balance(named(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    pods.set(own.iter().copied().take(4), Behaviour::NotReady);
    answering(&balance, 20).await;
    settle().await;
    let substitutes = hosts(&balance);
    let substitute = substitutes.into_iter().find(|host| !own.contains(host));
    let substitute = substitute.expect("four");
    pods.set([substitute], Behaviour::NotReady);
    let waiting = tokio::spawn({
        let balance = balance.clone();
        async move { ask(&balance, substitute).await }
    });
    sleep(SECOND).await;
    pods.set(0..60, Behaviour::Answer);
    let answered = waiting.await.expect("no panic").expect("it is back");
    assert_eq!(answered, substitute);
    sleep(20 * SECOND).await;
    settle().await;
    let mut expected = own.clone();
    expected.insert(substitute);
    assert_eq!(hosts(&balance), expected);
    assert_eq!(pods.counts(substitute).made, 1, "with its connections");
    assert_eq!(answering(&balance, 60).await, own);
}

#[tokio::test(start_paused = true)]
async fn a_pod_outside_of_the_subset_is_reached_by_its_address_and_its_number_too() {
    let (_script, _, balance) = balance(named(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    let others: Vec<_> = (0..60).filter(|host| !own.contains(host)).collect();
    let address = endpoint(others[1]).address();
    for (pod, expected) in [
        (PodId::ordinal(others[0].into()), others[0]),
        (PodId::from(address), others[1]),
        (PodId::from(endpoint(others[2]).address().ip()), others[2]),
    ] {
        let route = Route::new().pod(pod.clone());
        let response = balance.call_with(Request(1), route).await;
        let (endpoint, _) = response.expect("it is there");
        assert_eq!(host(&endpoint), expected, "{pod}");
    }
    assert_eq!(answering(&balance, 60).await, own);
}

#[tokio::test(start_paused = true)]
async fn requests_that_never_wait_reach_a_pod_outside_of_the_subset() {
    let never_waits: Change<'_> = &|it| it.fail_fast();
    let (script, _, balance) = balance(named(0..60), Subset::of(6), never_waits).await;
    let own = hosts(&balance);
    let other = (0..60).find(|host| !own.contains(host)).expect("many");
    assert_eq!(ask(&balance, other).await.expect("it is there"), other);
    let error = ask(&balance, 60).await.expect_err("it isn't");
    let error = error.to_string();
    assert!(!error.contains("it left"), "{error}");
    let mut set = named(0..60);
    set.remove(usize::from(other));
    script.endpoints(set);
    settle().await;
    let error = ask(&balance, other).await.expect_err("it has gone");
    let error = error.to_string();
    assert!(error.contains("it left"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_found_by_name_at_its_new_address_even_if_the_old_one_is_in_the_set() {
    let hosted = |host: u8| endpoint(host).with_hostname(format!("kv-{host}"));
    let set: Vec<_> = (0..60).map(hosted).collect();
    let (script, _, balance) = balance(set, Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    let mine = *own.first().expect("six");
    // Some names are no longer reported; one of these pods has another address.
    let mut set: Vec<_> = (0..60).map(endpoint).collect();
    set.push(endpoint(200).with_hostname(format!("kv-{mine}")));
    script.endpoints(set);
    settle().await;
    assert_eq!(ask(&balance, mine).await.expect("it is there"), 200);
}

#[tokio::test(start_paused = true)]
async fn names_that_no_pod_has_leave_nothing_behind() {
    let (script, _, balance) = balance(named(0..60), Subset::of(6), &|it| it).await;
    let before = hosts(&balance);
    assert!(ask(&balance, 99).await.is_err());
    sleep(SECOND).await;
    script.endpoints(named(0..60));
    settle().await;
    // It joins when no request asks for it any more.
    let mut set = named(0..60);
    set.extend(named(99..100));
    script.endpoints(set);
    settle().await;
    assert!(!hosts(&balance).contains(&99) || before.contains(&99));
}

/// Every pod answers one broadcast.
async fn ask_all(balance: &Balance<PodService>, pods: Range<u8>) {
    let broadcast = balance.broadcast_with(|_| Request(1));
    let collected = broadcast.all().await.expect("pods");
    assert!(collected.is_complete());
    let answered = collected.answered.iter();
    let answered: Vec<_> = answered.map(|(pod, _)| host(pod)).collect();
    assert_eq!(answered.len(), pods.len(), "once each");
    assert_eq!(BTreeSet::from_iter(answered), pods.collect());
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_the_pods_outside_of_the_subset_and_leaves_none_behind() {
    for fails_fast in [false, true] {
        let (_script, pods, balance) =
            balance(set(0..60), Subset::of(6), &|builder| match fails_fast {
                true => builder.fail_fast(),
                false => builder,
            })
            .await;
        let own = hosts(&balance);
        for _ in 0..2 {
            ask_all(&balance, 0..60).await;
            settle().await;
            assert_eq!(hosts(&balance), own);
        }
        let alive = (0..60).filter(|&host| pods.alive(host) > 0);
        assert_eq!(alive.collect::<BTreeSet<_>>(), own);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_never_wait_get_substitutes() {
    let never_waits: Change<'_> = &|it| it.fail_fast();
    let (_script, pods, balance) = balance(set(0..60), Subset::of(6), never_waits).await;
    pods.set(hosts(&balance), Behaviour::NotReady);
    send(&balance).await.expect("there are others");
    pods.set(0..60, Behaviour::NotReady);
    let error = send(&balance).await.expect_err("there are none");
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_left_out_pod_gets_a_substitute_if_there_is_no_other() {
    for (size, timeout) in [(1, SECOND), (1, Duration::ZERO), (2, SECOND)] {
        let change: Change<'_> = &|it| it.ready_timeout(timeout);
        let (script, pods, balance) = balance(set(0..60), Subset::of(size), change).await;
        let own = hosts(&balance);
        let myself = *own.first().expect("some");
        let rest = own.iter().copied().filter(|host| *host != myself);
        pods.set(rest, Behaviour::NotReady);
        let others = balance.others(endpoint(myself).address());
        let (answering, _) = others.oneshot(Request(1)).await.expect("others");
        assert!(!own.contains(&host(&answering)));
        // Pods that aren't left out stay as they were, or there are none.
        script.answer([myself]);
        settle().await;
        let others = balance.others(endpoint(myself).address());
        let error = others.oneshot(Request(1)).await.expect_err("no other");
        assert!(error.is_no_endpoints(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_no_longer_left_out_loses_its_substitute() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(2), &|it| it).await;
    let own = hosts(&balance);
    let (myself, other) = (own.first().expect("two"), own.last().expect("two"));
    let ask_others = async || {
        let others = balance.others(endpoint(*myself).address());
        let (answering, _) = others.oneshot(Request(1)).await.expect("others");
        host(&answering)
    };
    pods.set([*other], Behaviour::NotReady);
    assert!(!own.contains(&ask_others().await));
    pods.set([*other], Behaviour::Answer);
    sleep(60 * SECOND).await;
    settle().await;
    assert_eq!(
        hosts(&balance).len(),
        3,
        "one that leaves it out may be next"
    );
    sleep(600 * SECOND).await;
    settle().await;
    assert_eq!(hosts(&balance), own);
    assert_eq!(ask_others().await, *other);
}

fn is_ejected(pod: &EndpointStatus) -> bool {
    matches!(pod.state, EndpointState::Ejected(_))
}

/// The pods with weight, and how many of the set are ejected.
fn used(balance: &Balance<PodService>) -> (BTreeSet<u8>, usize) {
    let pods = balance.endpoints();
    let used = pods.iter().filter(|pod| pod.endpoint.weight() > 0);
    let used = used.map(|pod| host(&pod.endpoint)).collect();
    (used, pods.iter().filter(|pod| is_ejected(pod)).count())
}

/// Sends requests all the time, whatever comes of them.
async fn keep_asking(balance: &Balance<PodService>, times: usize) {
    for _ in 0..times {
        let _ = send(balance).await;
        sleep(SECOND / 50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failing_pods_get_substitutes_even_if_not_all_may_be_ejected() {
    for (size, every) in [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (7, 1)] {
        let (_script, pods, balance) = balance(set(0..60), Subset::of(size), &|it| it).await;
        let own = hosts(&balance);
        // All requests, or every other one.
        for time in 0..60 * size {
            let behaviour = match time % every == 0 {
                true => Behaviour::Fail,
                false => Behaviour::Answer,
            };
            pods.set(own.clone(), behaviour);
            keep_asking(&balance, 1).await;
        }
        let (substituted, ejected) = used(&balance);
        assert_eq!((substituted.len(), ejected), (2 * size, size), "{every}");
        assert!(substituted.is_superset(&own));
        for _ in 0..3 {
            pods.set(own.clone(), Behaviour::Fail);
            assert!(answering(&balance, 3 * size).await.is_disjoint(&own));
            assert_eq!(used(&balance), (substituted.clone(), size), "they stay");
        }
        pods.set(own.clone(), Behaviour::Answer);
        keep_asking(&balance, 3000).await;
        assert_eq!((hosts(&balance), used(&balance).1), (own, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn failing_pods_get_substitutes_even_while_a_broadcast_has_all_pods_there() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(4), &|it| it).await;
    let own = hosts(&balance);
    pods.set(own.clone(), Behaviour::Fail);
    keep_asking(&balance, 100).await;
    let (next, _) = used(&balance);
    pods.set(own.clone(), Behaviour::Answer);
    keep_asking(&balance, 3000).await;
    assert_eq!(hosts(&balance), own);
    let held = (0..60).find(|host| !next.contains(host)).expect("many");
    pods.set([held], Behaviour::Hold);
    let mut answers = balance.broadcast_with(|_| Request(1)).await.expect("pods");
    for _ in 0..59 {
        let (_, answer) = answers.next().await.expect("an answer");
        answer.expect("no failure");
    }
    pods.set(own.clone(), Behaviour::Fail);
    keep_asking(&balance, 100).await;
    assert_eq!(hosts(&balance).len(), 60, "it is under way");
    assert_eq!((next.len(), used(&balance)), (8, (next, 4)));
    assert!(answering(&balance, 8).await.is_disjoint(&own));
    drop(answers);
}

#[tokio::test(start_paused = true)]
async fn a_pod_there_by_name_is_tried_only_by_requests_for_it() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(3), &|it| it).await;
    let own = hosts(&balance);
    let other = (0..60).find(|host| !own.contains(host)).expect("many");
    let ask = || balance.call_with(Request(1), Route::new().pod(endpoint(other).address()));
    pods.set([other], Behaviour::Fail);
    for _ in 0..10 {
        ask().await.expect_err("it fails");
        sleep(SECOND / 50).await;
    }
    assert_eq!(used(&balance), (own.clone(), 1));
    sleep(10 * SECOND).await;
    let before = pods.counts(other).calls;
    let first = endpoint(*own.first().expect("three"));
    for _ in 0..20 {
        send(&balance).await.expect("those are well");
        let again = Route::new().avoid(&first);
        let again = balance.call_with(Request(1), again).await;
        assert_ne!(again.expect("those are well").0.address(), first.address());
        sleep(SECOND / 10).await;
    }
    assert_eq!(pods.counts(other).calls, before);
    pods.set([other], Behaviour::Answer);
    ask().await.expect("its trial");
    keep_asking(&balance, 100).await;
    assert_eq!(used(&balance), (own, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_to_a_pod_there_by_name_only_if_none_of_the_subset_accepts_it() {
    let change: Change<'_> = &|it| {
        it.policy(ConsistentHash::new())
            .slow_start(1000 * SECOND)
            .outlier_detection(OutlierDetection::off())
    };
    let (script, pods, balance) = balance(set(0..60), Subset::of(2), change).await;
    let own: Vec<_> = hosts(&balance).into_iter().collect();
    // One pod has no room, and the other one is new.
    pods.set(own.clone(), Behaviour::Hold);
    let held = (0..40).map(|_| {
        let balance = balance.clone();
        tokio::spawn(async move { send(&balance).await })
    });
    let held: Vec<_> = held.collect();
    settle().await;
    script.answer((0..60).filter(|host| *host != own[1]));
    settle().await;
    let new = hosts(&balance).into_iter().find(|host| !own.contains(host));
    let new = new.expect("the next one");
    let named = (0..60).find(|host| *host != new && !own.contains(host));
    let named = named.expect("many");
    let route = Route::new().pod(endpoint(named).address());
    balance.call_with(Request(1), route).await.expect("there");
    let before = [new, named].map(|host| pods.counts(host).calls);
    for key in 0..100 {
        let route = Route::new().key(format!("user-{key}"));
        let request = balance.call_with(Request(1), route);
        // Requests that the full pod gets wait there.
        let _ = tokio::time::timeout(SECOND / 1000, request).await;
    }
    let calls = [new, named].map(|host| pods.counts(host).calls);
    assert!(calls[0] > before[0]);
    assert_eq!(calls[1], before[1]);
    held.iter().for_each(|request| request.abort());
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_before_discovery_has_answered_waits_for_all_pods() {
    let (script, source) = discovery();
    let builder = Balance::builder(source).subset(Subset::of(6));
    let balance = builder.build(Pods::default().make());
    let asking = tokio::spawn({
        let balance = balance.clone();
        async move { ask_all(&balance, 0..60).await }
    });
    sleep(SECOND).await;
    assert!(!asking.is_finished());
    script.answer(0..60);
    asking.await.expect("all of them");
}

#[tokio::test(start_paused = true)]
async fn pods_there_for_a_broadcast_get_nothing_else_and_stay_until_the_last_one_ends() {
    let (script, pods, balance) = balance(set(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    pods.set([*own.first().expect("some")], Behaviour::Hold);
    let begin = || async {
        let broadcast = balance.broadcast_with(|_| Request(1)).include_joining(true);
        let mut answers = broadcast.await.expect("pods");
        for _ in 0..59 {
            let (_, answer) = answers.next().await.expect("an answer");
            answer.expect("no failure");
        }
        answers
    };
    let (first, mut second) = (begin().await, begin().await);
    pods.set([*own.first().expect("some")], Behaviour::Answer);
    assert_eq!(answering(&balance, 60).await, own);
    drop(first);
    settle().await;
    assert_eq!(hosts(&balance).len(), 60, "one is under way");
    // Most pods that join are outside of the subset.
    script.answer(0..100);
    let mut later = 0;
    while let Some((_, answer)) = second.next().await {
        answer.expect("no failure");
        later += 1;
        settle().await;
    }
    assert_eq!(later, 41, "the one that held, and those that joined");
    settle().await;
    assert_eq!(
        hosts(&balance).len(),
        6,
        "it has ended, though its stream is still there"
    );
    drop(second);
    ask_all(&balance, 0..100).await;
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_cancelled_before_it_begins_takes_in_no_pods() {
    let (_script, _, balance) = balance(set(0..60), Subset::of(6), &|it| it).await;
    let own = hosts(&balance);
    let broadcast = balance.broadcast_with(|_| Request(1)).into_future();
    assert!(broadcast.now_or_never().is_none());
    settle().await;
    assert_eq!(hosts(&balance), own);
}

#[tokio::test(start_paused = true)]
async fn pods_outside_of_the_subset_leave_after_the_last_answer_even_if_the_stream_is_held() {
    let (_script, pods, balance) = balance(set(0..60), Subset::of(6), &|it| it).await;
    let mut answers = balance.broadcast_with(|_| Request(1)).await.expect("pods");
    while answers.size_hint() != (0, Some(0)) {
        let (_, answer) = answers.next().await.expect("one that is left");
        answer.expect("no failure");
    }
    settle().await;
    assert_eq!(hosts(&balance).len(), 6);
    // Pods without time left are reported, but not asked.
    pods.set(0..60, Behaviour::Hold);
    let broadcast = balance.broadcast_with(|_| Request(1)).deadline(SECOND);
    let mut answers = broadcast.await.expect("pods");
    let (_, answer) = answers.next().await.expect("the first");
    assert!(answer.expect_err("no time").is_timeout());
    settle().await;
    assert_eq!((hosts(&balance).len(), answers.size_hint().0), (6, 59));
}

/// The background task is in a runtime that ends before the broadcast.
#[test]
fn a_broadcast_reaches_all_pods_in_another_runtime_than_the_first() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (script, _, balance) = runtime().block_on(balance(set(0..60), Subset::of(6), &|it| it));
    runtime().block_on(within("the broadcast", ask_all(&balance, 0..60)));
    drop(script);
}

/// The background task is in a runtime that isn't driven meanwhile.
#[test]
fn a_broadcast_whose_time_is_over_before_the_task_hears_of_it_has_an_error_of_each_known_pod() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build();
        runtime.expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let (_script, pods, balance) = first.block_on(balance(set(0..60), Subset::of(6), &|it| it));
    let own = hosts(&balance);
    let broadcast = balance.broadcast_with(|_| Request(1)).deadline(SECOND);
    let collected = second.block_on(broadcast.all()).expect("they are known");
    let errors = collected.failed.iter();
    assert!(
        errors
            .clone()
            .all(|(_, error)| error.is_timeout() && error.is_unsent())
    );
    assert_eq!(
        errors.map(|(pod, _)| host(pod)).collect::<BTreeSet<_>>(),
        own
    );
    assert_eq!(
        (0..60).map(|host| pods.counts(host).calls).sum::<usize>(),
        0
    );
    first.block_on(settle());
    assert_eq!(hosts(&balance), own);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_moves_no_key() {
    for subset in [6, 100] {
        let (_script, pods, balance) = balance(set(0..60), Subset::of(subset), &|builder| {
            builder.policy(ConsistentHash::new().load_factor(None))
        })
        .await;
        let route = || Route::new().key("user-42");
        let home = async || {
            let response = balance.call_with(Request(1), route()).await;
            host(&response.expect("a pod").0)
        };
        let before = home().await;
        ask_all(&balance, 0..60).await;
        assert_eq!(home().await, before);
        let calls = (0..60).map(|host| pods.counts(host).calls);
        assert_eq!(calls.sum::<usize>(), 62);
        // While it runs, a key's pod stays the same.
        pods.set([before], Behaviour::Hold);
        let mut answers = balance.broadcast_with(|_| Request(1)).await.expect("pods");
        for _ in 0..59 {
            let (_, answer) = answers.next().await.expect("an answer");
            answer.expect("no failure");
        }
        pods.set([before], Behaviour::Answer);
        assert_eq!(home().await, before);
    }
}

/// Clients of one DNS server: of a service's pods, and of their own.
struct Fleet {
    cluster: Cluster,
    clients: Vec<(IpAddr, Client)>,
}

const CLIENTS: &str = "clients.default.svc.cluster.local.";

impl Fleet {
    async fn start(pods: usize, clients: u8, size: usize) -> Self {
        let cluster = Cluster::start(pods).await;
        let addresses = || (1..=clients).map(|host| Ipv4Addr::new(127, 200, 0, host));
        cluster.dns().set_a(CLIENTS, 1, addresses());
        let client = |me: Ipv4Addr| {
            let name = CLIENTS.trim_end_matches('.');
            let peers = format!("dns://{}/{name}:80", cluster.dns().addr());
            let peers = Dns::new(peers.parse().expect("a target")).allow_loopback(true);
            let client = Client::builder("http://web.default:80".parse().expect("a URI"))
                .discovery(dns(&cluster))
                .subset(Subset::of(size).peers(peers, me.to_string()))
                .build();
            (IpAddr::V4(me), client.expect("a client"))
        };
        let clients = addresses().map(client).collect();
        Self { cluster, clients }
    }

    /// How many clients use each pod, fewest first.
    fn counts(&self) -> Vec<usize> {
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let pods = self.cluster.pods();
        counts.extend(pods.iter().map(|pod| (pod.addr(), 0)));
        for pod in self
            .clients
            .iter()
            .flat_map(|(_, client)| client.endpoints())
        {
            *counts.entry(pod.endpoint.address()).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable();
        counts
    }

    async fn agree(&self, counts: &[usize]) {
        within("the clients' agreement", async {
            while self.counts() != counts {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Each client asks each of its pods once, by round robin.
    async fn send(&self) {
        for (_, client) in &self.clients {
            for _ in client.endpoints() {
                let response = client.get("/").await.expect("a response");
                response.into_body().collect().await.expect("its body");
            }
        }
    }
}

#[tokio::test]
async fn ten_clients_share_thirty_pods_by_what_dns_says_of_both() {
    let mut fleet = Fleet::start(30, 10, 6).await;
    fleet.agree(&[2; 30]).await;
    fleet.send().await;
    let pods = fleet.cluster.pods();
    assert!(pods.iter().all(|pod| pod.requests() == 2));
    assert_eq!(pods.iter().map(|pod| pod.connections()).sum::<usize>(), 60);
    // A pod leaves and another one joins.
    fleet.cluster.remove_pod(7).await;
    fleet.cluster.add_pod().await;
    fleet.agree(&[2; 30]).await;
    fleet.send().await;
    // A client leaves: 9 × 6 ÷ 30.
    let (gone, _) = fleet.clients.remove(4);
    let left = fleet.clients.iter().map(|(address, _)| *address);
    let left = left.filter_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    fleet.cluster.dns().set_a(CLIENTS, 1, left);
    let few_and_many = [vec![1; 6], vec![2; 24]].concat();
    fleet.agree(&few_and_many).await;
    fleet.send().await;
    assert!(fleet.clients.iter().all(|(address, _)| *address != gone));
}

/// Weights of zero in all of the set are equal weights.
#[tokio::test(start_paused = true)]
async fn in_a_set_without_weights_a_pod_that_is_there_by_name_gets_no_others_requests() {
    let weightless = |host| endpoint(host).with_weight(0);
    let (_script, _, balance) =
        balance((0..60).map(weightless).collect(), Subset::of(3), &|it| it).await;
    let own = hosts(&balance);
    let other = (0..60).find(|host| !own.contains(host)).expect("many");
    let route = Route::new().pod(endpoint(other).address());
    let (answering_pod, _) = balance
        .call_with(Request(1), route)
        .await
        .expect("it is there");
    assert_eq!(host(&answering_pod), other);
    assert_eq!(hosts(&balance).len(), 4);
    assert_eq!(answering(&balance, 100).await, own);
    assert_eq!(used(&balance).0.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn in_a_set_without_weights_a_subset_keeps_the_zones_shares() {
    for counts in [[10, 10, 10], [10, 10, 5], [1, 30, 29]] {
        for size in [4, 10] {
            for zone in ["a", "b", "c"] {
                let mut near_pods = Vec::new();
                for weight in [1, 0] {
                    let set = zoned(counts)
                        .into_iter()
                        .map(|it| it.with_weight(weight))
                        .collect();
                    let (_script, _, balance) =
                        balance(set, Subset::of(size), &|it| it.prefer_zone(zone)).await;
                    let pods = balance.endpoints().into_iter();
                    near_pods.push(pods.filter(|pod| pod.endpoint.zone() == Some(zone)).count());
                }
                assert_eq!(near_pods[0], near_pods[1], "{counts:?} {size} {zone}");
            }
        }
    }
}
