//! The balancer's guarantees, under paused time, with scripted discovery and pods.

mod support;

use std::{
    collections::BTreeMap,
    error::Error as _,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_headless::{
    Balance, BalanceLayer, BoxError, Discovery, Endpoint, EndpointState, Error, LeastConnections,
    OnBodyEnd, Policy, RoundRobin, Route, StaticEndpoints,
};

const SECOND: Duration = Duration::from_secs(1);

type Pods3 = (Script, Pods, Balance<PodService>);

/// A balancer over the pods `hosts`.
async fn balance(hosts: impl IntoIterator<Item = u8>) -> Pods3 {
    balance_with(hosts, RoundRobin::new()).await
}

async fn balance_with<P: Policy>(
    hosts: impl IntoIterator<Item = u8>,
    policy: P,
) -> (Script, Pods, Balance<PodService>) {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(discovery)
        .policy(policy)
        .build(pods.make());
    script.answer(hosts);
    balance.ready().await.expect("readiness never fails");
    (script, pods, balance)
}

async fn send(balance: &Balance<PodService>) -> Result<Endpoint, Error> {
    let mut balance = balance.clone();
    let response = balance.ready().await?.call(Request(7)).await;
    response.map(|(endpoint, _)| endpoint)
}

/// Lets the background task catch up.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn in_flight(balance: &Balance<PodService>) -> u32 {
    balance
        .endpoints()
        .iter()
        .map(|status| status.in_flight)
        .sum()
}

fn unreachable(balance: &Balance<PodService>) -> Vec<Endpoint> {
    let endpoints = balance.endpoints().into_iter();
    let unreachable = endpoints.filter(|status| status.state == EndpointState::Unreachable);
    unreachable.map(|status| status.endpoint).collect()
}

#[test]
fn a_balancer_is_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Balance<PodService>>();
    check::<Balance<PodService, OnBodyEnd>>();
}

#[tokio::test(start_paused = true)]
async fn requests_are_spread_and_counted() {
    let (_script, pods, balance) = balance([1, 2, 3]).await;
    for _ in 0..10 {
        send(&balance).await.expect("a response");
    }
    let calls = [1, 2, 3].map(|host| pods.counts(host).calls);
    assert!(
        calls.iter().all(|calls| (3..=4).contains(calls)),
        "{calls:?}"
    );
    assert_eq!(in_flight(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_the_first_answer_in_every_clone() {
    let (script, discovery) = discovery();
    let balance = Balance::builder(discovery).build(Pods::default().make());
    let mut clones: Vec<_> = (0..3)
        .map(|_| {
            let mut balance = balance.clone();
            task::spawn(async move { balance.ready().await.map(|_| ()) })
        })
        .collect();
    for clone in &mut clones {
        assert_pending!(clone.poll());
    }
    script.answer([1]);
    settle().await;
    for clone in &mut clones {
        assert!(clone.is_woken(), "no wakeup is lost");
        assert!(assert_ready!(clone.poll()).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_calls_fail_after_the_ready_timeout_with_discoverys_error() {
    let (script, discovery) = discovery();
    let balance = Balance::builder(discovery).build(Pods::default().make());
    script.fail("SERVFAIL");
    let started = Instant::now();
    let error = send(&balance).await.expect_err("nobody to send to");
    assert_eq!(started.elapsed(), 5 * SECOND);
    assert!(error.is_no_endpoints() && error.is_unsent());
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("SERVFAIL")
    );
    let again = Instant::now();
    send(&balance).await.expect_err("still nobody");
    assert_eq!(again.elapsed(), Duration::ZERO, "nothing piles up");
    script.answer([1]);
    settle().await;
    send(&balance).await.expect("it recovers by itself");
}

#[tokio::test(start_paused = true)]
async fn discovered_fails_after_the_ready_timeout_and_can_be_awaited_again() {
    for is_hasty in [false, true] {
        let (script, discovery) = discovery();
        let builder = Balance::builder(discovery).name("web.default");
        let builder = if is_hasty {
            builder.fail_fast()
        } else {
            builder
        };
        let balance = builder.build(Pods::default().make());
        script.fail("SERVFAIL");
        for _ in 0..2 {
            let started = Instant::now();
            let error = balance.discovered().await.expect_err("no answer");
            assert_eq!(
                started.elapsed(),
                5 * SECOND,
                "each time, from when it is asked"
            );
            assert!(error.is_no_endpoints() && error.is_unsent(), "{error}");
            assert_eq!(error.service(), Some("web.default"));
            assert_eq!(
                error.source().map(ToString::to_string).as_deref(),
                Some("SERVFAIL")
            );
        }
        let mut waiting = task::spawn(balance.discovered());
        assert_pending!(waiting.poll());
        script.answer([1]);
        settle().await;
        assert!(waiting.is_woken() && assert_ready!(waiting.poll()).is_ok());
        let mut known = task::spawn(balance.discovered());
        assert!(assert_ready!(known.poll()).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_discovery_keeps_the_balancer_running() {
    let (script, discovery) = discovery();
    let balance = Balance::builder(discovery).build(Pods::default().make());
    let mut waiting = task::spawn(balance.discovered());
    drop(balance);
    assert_pending!(waiting.poll());
    script.answer([]);
    settle().await;
    assert!(
        assert_ready!(waiting.poll()).is_ok(),
        "that there are none is an answer"
    );
    drop(waiting);
    script.closed().await;
}

#[tokio::test(start_paused = true)]
async fn fail_fast_never_waits_and_wait_for_ready_never_fails() {
    let (_silent, source) = discovery();
    let hasty = Balance::builder(source)
        .fail_fast()
        .build(Pods::default().make());
    let started = Instant::now();
    assert!(
        send(&hasty)
            .await
            .is_err_and(|error| error.is_no_endpoints())
    );
    assert_eq!(started.elapsed(), Duration::ZERO);

    let (script, source) = discovery();
    let patient = Balance::builder(source)
        .wait_for_ready()
        .build(Pods::default().make());
    let mut request = task::spawn(send(&patient));
    assert_pending!(request.poll());
    tokio::time::advance(3600 * SECOND).await;
    settle().await;
    assert_pending!(request.poll());
    script.answer([1]);
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_ready_timeout_beyond_the_clocks_range_never_ends() {
    let (script, source) = discovery();
    let balance = Balance::builder(source)
        .ready_timeout(Duration::MAX)
        .build(Pods::default().make());
    let mut request = task::spawn(send(&balance));
    assert_pending!(request.poll());
    script.answer([1]);
    settle().await;
    assert!(assert_ready!(request.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_set_known_to_be_empty_fails_at_once() {
    let (script, _pods, balance) = balance([1]).await;
    script.answer([]);
    settle().await;
    let started = Instant::now();
    let error = send(&balance).await.expect_err("scaled to zero");
    assert!(error.is_no_endpoints());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_costs_the_caller_nothing() {
    for refusing in [Behaviour::NotReady, Behaviour::HandBack] {
        let (script, pods, balance) = balance(1..=9).await;
        pods.set(1..=8, refusing);
        let started = Instant::now();
        let responses = join_all((0..100).map(|_| send(&balance))).await;
        for response in responses {
            assert_eq!(response.expect("one pod is left"), endpoint(9));
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        settle().await;
        assert_eq!(
            unreachable(&balance),
            (1..=8).map(endpoint).collect::<Vec<_>>()
        );
        assert_eq!(script.hints().refused.len(), 8, "each refusal is told once");
        assert_eq!(in_flight(&balance), 0);
    }
}

/// A service that always refuses.
#[derive(Clone)]
struct Refusing;

impl Service<[u8; 4096]> for Refusing {
    type Response = ();
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<(), std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Err(std::io::ErrorKind::ConnectionRefused.into()))
    }

    fn call(&mut self, _: [u8; 4096]) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test(start_paused = true)]
async fn the_stack_does_not_grow_with_the_number_of_refusing_endpoints() {
    let addresses = (0..4_000_u16).map(|port| ([10, 0, 0, 1], port + 1).into());
    let mut balance = Balance::builder(StaticEndpoints::new(addresses))
        .fail_fast()
        .build(|_: &_| Refusing);
    settle().await;
    let error = balance.ready().await.expect("ready").call([0; 4096]).await;
    assert!(error.is_err_and(|error| error.is_unreachable()));
}

#[tokio::test(start_paused = true)]
async fn the_request_arrives_as_it_was_sent() {
    let (_script, pods, mut balance) = balance([1, 2]).await;
    pods.set([1], Behaviour::HandBack);
    for number in 0..4 {
        let (_, answered) = balance.call(Request(number)).await.expect("a response");
        assert_eq!(answered, number);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_own_error_reaches_the_caller_with_its_endpoint() {
    let (_script, pods, balance) = balance([1]).await;
    pods.set([1], Behaviour::Fail);
    let error = send(&balance).await.expect_err("the pod fails");
    assert!(error.is_endpoint() && !error.is_unsent());
    assert_eq!(error.endpoint(), Some(&endpoint(1)));
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("internal error")
    );
    assert_eq!(pods.counts(1).calls, 1, "what was sent is not sent again");
    assert!(unreachable(&balance).is_empty());
}

/// The times, from now, at which the pod's `poll_ready` was called.
async fn ready_polls(pods: &Pods, host: u8, during: Duration) -> Vec<f64> {
    let started = Instant::now();
    let (mut seen, mut times) = (pods.counts(host).refusals, Vec::new());
    while started.elapsed() < during {
        tokio::time::sleep(Duration::from_millis(10)).await;
        settle().await;
        if pods.counts(host).refusals > seen {
            seen = pods.counts(host).refusals;
            times.push(started.elapsed().as_secs_f64());
        }
    }
    times
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refused_is_tried_after_doubling_pauses_at_no_callers_cost() {
    let (_script, pods, balance) = balance([1, 2]).await;
    pods.set([1], Behaviour::NotReady);
    for _ in 0..2 {
        send(&balance).await.expect("pod 2 answers");
    }
    let times = ready_polls(&pods, 1, 30 * SECOND).await;
    let mut before = 0.0;
    for (time, pause) in times.iter().zip([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]) {
        let waited = time - before;
        assert!(
            (pause * 0.75..=pause * 1.25 + 0.02).contains(&waited),
            "{times:?}"
        );
        before = *time;
    }
    assert!((9..=12).contains(&times.len()), "{times:?}");
    pods.set([1], Behaviour::Answer);
    tokio::time::sleep(6 * SECOND).await;
    assert!(unreachable(&balance).is_empty());
    let calls = pods.counts(1).calls;
    for _ in 0..2 {
        send(&balance).await.expect("both answer");
    }
    assert_eq!(pods.counts(1).calls, calls + 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_handed_a_request_back_gets_only_one_trial_request() {
    let (_script, pods, balance) = balance([1, 2]).await;
    pods.set([1], Behaviour::HandBack);
    for _ in 0..2 {
        send(&balance).await.expect("pod 2 answers");
    }
    assert_eq!(pods.counts(1).calls, 1);
    pods.set([1], Behaviour::Hold);
    tokio::time::sleep(SECOND).await;
    let mut trial = task::spawn(send(&balance));
    assert_pending!(trial.poll());
    for _ in 0..10 {
        assert_eq!(send(&balance).await.expect("pod 2 answers"), endpoint(2));
    }
    assert_eq!(pods.counts(1).calls, 2, "one trial at a time");

    drop(trial);
    settle().await;
    let mut second = task::spawn(send(&balance));
    assert_pending!(second.poll());
    assert_eq!(
        pods.counts(1).calls,
        3,
        "a cancelled trial gives its turn back"
    );
    pods.set([1], Behaviour::Answer);
    assert!(assert_ready!(second.poll()).is_ok());
    assert!(unreachable(&balance).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_an_avoided_endpoint_only_if_no_other_takes_it() {
    let avoid = Route::new().avoid(&endpoint(1));
    for _ in 0..20 {
        let (_script, pods, balance) = balance([1, 2, 3]).await;
        pods.set([2], Behaviour::HandBack);
        let (pod, _) = balance
            .call_with(Request(7), avoid.clone())
            .await
            .expect("pod 3 answers");
        assert_eq!(pod, endpoint(3), "whoever was asked first");
        pods.set([3], Behaviour::HandBack);
        let (pod, _) = balance
            .call_with(Request(7), avoid.clone())
            .await
            .expect("pod 1 answers");
        assert_eq!(pod, endpoint(1), "better than nobody");
    }
}

#[tokio::test(start_paused = true)]
async fn if_all_refuse_requests_wait_for_a_change() {
    let (script, pods, balance) = balance([1, 2]).await;
    pods.set([1, 2], Behaviour::NotReady);
    let mut request = task::spawn(send(&balance));
    assert_pending!(request.poll());
    settle().await;
    assert!(script.hints().refreshes >= 1, "the set may be out of date");
    script.answer([1, 2]);
    settle().await;
    assert_pending!(request.poll());
    assert!(script.hints().refreshes >= 2, "and still may be");
    script.answer([3]);
    settle().await;
    assert_eq!(
        assert_ready!(request.poll()).expect("a response"),
        endpoint(3)
    );
}

#[tokio::test(start_paused = true)]
async fn when_all_refuse_for_the_ready_timeout_calls_fail_at_once_until_one_accepts() {
    let (_script, pods, balance) = balance([1, 2, 3]).await;
    pods.set(1..=3, Behaviour::NotReady);
    let started = Instant::now();
    let error = send(&balance).await.expect_err("all refuse");
    assert_eq!(started.elapsed(), 5 * SECOND);
    assert!(error.is_unreachable() && error.is_unsent());
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("connection refused")
    );
    let refusals = pods.counts(2).refusals;
    for _ in 0..100 {
        let again = Instant::now();
        assert!(
            send(&balance)
                .await
                .is_err_and(|error| error.is_unreachable())
        );
        assert_eq!(again.elapsed(), Duration::ZERO);
    }
    assert_eq!(pods.counts(2).refusals, refusals, "callers test nothing");
    tokio::time::sleep(20 * SECOND).await;
    pods.set([2], Behaviour::Answer);
    tokio::time::sleep(SECOND).await;
    assert_eq!(send(&balance).await.expect("pod 2 is back"), endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn after_a_scale_from_zero_requests_wait_their_full_time() {
    let (script, pods, balance) = balance([]).await;
    assert!(
        send(&balance)
            .await
            .is_err_and(|error| error.is_no_endpoints())
    );
    tokio::time::sleep(60 * SECOND).await;
    pods.set([1], Behaviour::NotReady);
    script.answer([1]);
    settle().await;
    let started = Instant::now();
    assert!(
        send(&balance)
            .await
            .is_err_and(|error| error.is_unreachable())
    );
    assert_eq!(
        started.elapsed(),
        5 * SECOND,
        "the outage is the new pod's, not the empty set's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_goes_to_the_first_that_accepts_again() {
    for refusing in [Behaviour::NotReady, Behaviour::HandBack] {
        let (_script, pods, balance) = balance([1, 2]).await;
        pods.set([1, 2], refusing);
        let request = send(&balance);
        let back = async {
            tokio::time::sleep(2 * SECOND).await;
            pods.set([2], Behaviour::Answer);
            Instant::now()
        };
        let (response, back) = tokio::join!(request, back);
        assert_eq!(response.expect("pod 2 is back"), endpoint(2));
        assert!(back.elapsed() <= SECOND, "{:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_gets_no_new_requests_and_finishes_those_it_has() {
    let (script, pods, balance) = balance([1]).await;
    pods.set([1], Behaviour::Hold);
    let mut request = task::spawn(send(&balance));
    assert_pending!(request.poll());
    script.answer([2]);
    settle().await;
    assert_eq!(
        pods.alive(1),
        0,
        "a request under way keeps no connections open"
    );
    for _ in 0..5 {
        assert_eq!(send(&balance).await.expect("pod 2 answers"), endpoint(2));
    }
    pods.set([1], Behaviour::Answer);
    assert_eq!(
        assert_ready!(request.poll()).expect("pod 1 answers"),
        endpoint(1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_keeps_its_service() {
    let (script, pods, balance) = balance([1, 2]).await;
    for others in [vec![1, 3], vec![3, 1, 1], vec![1], vec![1, 2, 3]] {
        script.answer(others);
        settle().await;
    }
    send(&balance).await.expect("a response");
    assert_eq!([1, 2, 3].map(|host| pods.counts(host).made), [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn least_connections_follows_the_requests_in_flight() {
    let (_script, pods, balance) = balance_with([1, 2, 3], LeastConnections::new()).await;
    pods.set([1, 2, 3], Behaviour::Hold);
    let mut held: Vec<_> = (0..30).map(|_| task::spawn(send(&balance))).collect();
    held.iter_mut()
        .for_each(|request| assert_pending!(request.poll()));
    let spread: Vec<_> = balance
        .endpoints()
        .iter()
        .map(|status| status.in_flight)
        .collect();
    assert_eq!(spread, [10, 10, 10]);
    held.clear();
    assert_eq!(in_flight(&balance), 0, "dropping a request counts it out");
}

#[tokio::test(start_paused = true)]
async fn clones_share_one_cursor() {
    let (_script, _pods, balance) = balance([1, 2, 3, 4]).await;
    let mut shares = BTreeMap::<_, u32>::new();
    for _ in 0..41 {
        *shares
            .entry(send(&balance).await.expect("a response"))
            .or_default() += 1;
    }
    assert!(
        shares.values().all(|share| (10..=11).contains(share)),
        "{shares:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn watching_shows_what_joins_and_leaves() {
    let (script, _pods, balance) = balance([2, 1]).await;
    let mut changes = balance.watch();
    let first = changes.next().await.expect("the set");
    assert_eq!(first.joined, [endpoint(1), endpoint(2)]);
    script.answer([2, 3]);
    let second = changes.next().await.expect("a change");
    assert_eq!(
        (second.joined, second.left),
        (vec![endpoint(3)], vec![endpoint(1)])
    );
    assert_eq!(second.endpoints, [endpoint(2), endpoint(3)]);
    script.answer([3, 2]);
    settle().await;
    script.answer([]);
    settle().await;
    script.answer([4]);
    settle().await;
    let third = changes.next().await.expect("both changes in one");
    assert_eq!(third.endpoints, [endpoint(4)]);
    drop(balance);
    assert_eq!(changes.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_layer_makes_a_balancer_that_fits_into_a_stack() {
    let pods = Pods::default();
    let addresses = [1, 2].map(|host| endpoint(host).address());
    let layer = BalanceLayer::new(StaticEndpoints::new(addresses)).policy(LeastConnections::new());
    let mut service = ServiceBuilder::new()
        .timeout(SECOND)
        .concurrency_limit(10)
        .layer(layer)
        .service(pods.make());
    let response = service.ready().await.expect("ready").call(Request(1)).await;
    assert_eq!(response.expect("a response").1, 1);
    pods.set([1, 2], Behaviour::Hold);
    let timed_out = service.ready().await.expect("ready").call(Request(2)).await;
    assert!(timed_out.is_err());
    assert_eq!(in_flight(service.get_ref().get_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_can_be_spawned() {
    let (_script, _pods, balance) = balance([1]).await;
    let mut clone = balance.clone();
    let ready = tokio::spawn(async move { clone.ready().await?.call(Request(1)).await });
    let oneshot = tokio::spawn(balance.oneshot(Request(2)));
    assert!(ready.await.expect("no panic").is_ok());
    assert!(oneshot.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_last_request_goes_on_without_a_handle() {
    let (script, pods, balance) = balance([1, 2]).await;
    pods.set([1, 2], Behaviour::Pending);
    let mut request = task::spawn(balance.oneshot(Request(1)));
    assert_pending!(request.poll());
    script.closed().await;
    pods.set([1, 2], Behaviour::Answer);
    pods.set([1], Behaviour::NotReady);
    assert!(assert_ready!(request.poll()).is_ok(), "it found pod 2");
    drop(request);
    assert_eq!((pods.alive(1), pods.alive(2)), (0, 0));
}

#[test]
fn without_a_runtime_a_call_fails_and_says_so() {
    let mut balance = Balance::builder(StaticEndpoints::new([])).build(Pods::default().make());
    let error =
        futures::executor::block_on(async { balance.ready().await?.call(Request(1)).await })
            .expect_err("no runtime");
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// Where a seeded balancer sends its requests, while the set changes and a pod refuses.
async fn seeded_picks(seed: u64) -> Vec<Endpoint> {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(discovery)
        .policy(tower_headless::Random::new())
        .seed(seed)
        .build(pods.make());
    script.answer(1..=5);
    balance.ready().await.expect("readiness never fails");
    let mut picks = Vec::new();
    for round in 0..4 {
        if round == 1 {
            pods.set([2], Behaviour::NotReady);
        }
        if round == 2 {
            script.answer(2..=9);
        }
        for _ in 0..20 {
            picks.push(send(&balance).await.expect("another pod answers"));
        }
        tokio::time::sleep(SECOND).await;
    }
    picks
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_the_picks() {
    let picks = seeded_picks(7).await;
    assert_eq!(picks, seeded_picks(7).await);
    assert_ne!(picks, seeded_picks(8).await);
}

#[test]
fn a_balancer_built_outside_a_runtime_starts_when_used() {
    let addresses = [endpoint(1).address()];
    let balance = Balance::builder(StaticEndpoints::new(addresses)).build(Pods::default().make());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(send(&balance)).expect("a response");
}

#[test]
fn after_its_runtime_has_ended_a_waiting_call_fails() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let (_script, source) = discovery();
    let balance = {
        let _guard = first.enter();
        Balance::builder(source)
            .wait_for_ready()
            .build(Pods::default().make())
    };
    let mut request = pin!(send(&balance));
    second.block_on(async {
        assert!(futures::poll!(request.as_mut()).is_pending());
    });
    drop(first);
    let error = second.block_on(request).expect_err("nothing will come");
    assert!(error.to_string().contains("runtime has ended"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn discoverys_error_is_forgotten_once_it_has_answered() {
    let (script, _pods, balance) = balance([]).await;
    script.fail("the registry is down");
    settle().await;
    let error = send(&balance).await.expect_err("no pods");
    assert!(
        error.is_no_endpoints() && error.source().is_some(),
        "{error:?}"
    );
    script.answer([]);
    settle().await;
    let error = send(&balance).await.expect_err("no pods");
    assert!(
        error.is_no_endpoints() && error.source().is_none(),
        "{error:?}"
    );
}

#[test]
fn call_with_alone_starts_the_background_task() {
    let pods = Pods::default();
    let fixed = StaticEndpoints::new([endpoint(1).address(), endpoint(2).address()]);
    let balance = Balance::builder(fixed).build(pods.make());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answered = runtime.expect("a runtime").block_on(async {
        let route = Route::new().avoid(&endpoint(1));
        balance.call_with(Request(1), route).await
    });
    assert_eq!(answered.expect("a response").0, endpoint(2));
}

/// A source that panics in `refresh`, which is called in each runtime after its first.
struct PanicsWhenHurried;

impl Discovery for PanicsWhenHurried {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        Poll::Pending
    }

    fn refresh(&mut self) {
        panic!("hurried");
    }
}

#[test]
fn a_panic_on_the_way_to_another_runtime_closes_the_balancer() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let builder = builder.enable_all().start_paused(true);
        builder.build().expect("a runtime")
    };
    let balance = Balance::builder(PanicsWhenHurried)
        .wait_for_ready()
        .build(Pods::default().make());
    let first = runtime();
    first.block_on(async {
        let mut request = pin!(send(&balance));
        assert!(futures::poll!(request.as_mut()).is_pending());
        settle().await;
    });
    drop(first);
    // Neither the next request nor those after it wait for an answer that will never come.
    let second = runtime();
    for _ in 0..3 {
        let answer = second.block_on(async {
            let patience = tokio::time::timeout(60 * SECOND, send(&balance));
            patience.await.expect("an answer")
        });
        let error = answer.expect_err("its background task is no more");
        assert!(error.to_string().contains("closed"), "{error}");
    }
}
