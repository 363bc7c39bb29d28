//! Retries, under paused time with scripted pods.

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::join_all;
use support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{
    Layer, Service, ServiceExt,
    retry::budget::{Budget, TpsBudget},
    service_fn,
};
use tower_headless::{
    Balance, BoxError, Endpoint, EndpointState, EndpointStatus, Error, OnResponse, Outcome, Random,
    Retry, RetryFailed, RetryLayer, RetryPolicy, RoundRobin, Route, StaticEndpoints,
};

const SECOND: Duration = Duration::from_secs(1);

/// Retries even requests. Requests are not `Clone`.
#[derive(Clone, Copy, Debug)]
struct Even;

impl<Res> RetryPolicy<Request, Res> for Even {
    fn again(&self, request: &Request) -> Option<Request> {
        request.0.is_multiple_of(2).then_some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }
}

type Retried<L = Even> = Retry<Balance<PodService>, L>;

async fn balance(hosts: impl IntoIterator<Item = u8>) -> (Script, Pods, Balance<PodService>) {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(discovery)
        .ready_timeout(SECOND)
        .build(pods.make());
    script.answer(hosts);
    balance.ready().await.expect("readiness never fails");
    (script, pods, balance)
}

async fn retried(hosts: impl IntoIterator<Item = u8>) -> (Script, Pods, Retried) {
    let (script, pods, balance) = balance(hosts).await;
    (script, pods, RetryLayer::new(Even).layer(balance))
}

async fn send<L>(service: &Retried<L>, request: u32) -> Result<Endpoint, Error>
where
    L: RetryPolicy<Request, (Endpoint, u32)>,
{
    let mut service = service.clone();
    let response = service.ready().await?.call(Request(request)).await;
    response.map(|(endpoint, _)| endpoint)
}

fn calls(pods: &Pods, hosts: impl IntoIterator<Item = u8>) -> usize {
    hosts.into_iter().map(|host| pods.counts(host).calls).sum()
}

fn in_flight<L>(service: &Retried<L>) -> u32 {
    let endpoints = service.get_ref().endpoints();
    endpoints.iter().map(|status| status.in_flight).sum()
}

#[test]
fn a_retried_balancer_is_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn future<S: Service<Request, Future: Send + 'static>>() {}
    check::<Retried>();
    check::<RetryLayer<RetryFailed>>();
    future::<Retried>();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_pod_failed_goes_to_another() {
    let (_script, pods, service) = retried([1, 2, 3]).await;
    pods.set([1, 2], Behaviour::Fail);
    for _ in 0..30 {
        assert_eq!(send(&service, 2).await.expect("pod 3's"), endpoint(3));
    }
    assert_eq!(calls(&pods, [3]), 30);
    assert_eq!(in_flight(&service), 0);
}

/// With random choices, a request would return to one of its pods in nine of ten rounds of four attempts.
#[tokio::test(start_paused = true)]
async fn no_pod_gets_a_request_twice_while_there_are_others() {
    let pods = Pods::default();
    let balance = Balance::builder(StaticEndpoints::new(
        (1..=4).map(|host| endpoint(host).address()),
    ))
    .policy(Random::new())
    .build(pods.make());
    let mut service = RetryLayer::new(Even).layer(balance);
    pods.set(1..=4, Behaviour::Fail);
    for round in 1..=10 {
        let ready = service.ready().await.expect("readiness never fails");
        let error = ready.call(Request(2)).await.expect_err("all fail");
        assert!(error.is_endpoint());
        assert_eq!([1, 2, 3, 4].map(|host| calls(&pods, [host])), [round; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_comes_back_to_the_only_pod() {
    let (_script, pods, service) = retried([1]).await;
    pods.set([1], Behaviour::Fail);
    send(&service, 2).await.expect_err("it fails");
    assert_eq!(calls(&pods, [1]), 4, "three retries");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_as_often_as_allowed() {
    for retries in [0, 1, 5] {
        let (_script, pods, balance) = balance(1..=9).await;
        pods.set(1..=9, Behaviour::Fail);
        let service = RetryLayer::new(Even).retries(retries).layer(balance);
        send(&service, 2).await.expect_err("all fail");
        assert_eq!(calls(&pods, 1..=9), retries + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_be_executed_twice_is_not_retried() {
    let (_script, pods, service) = retried([1, 2]).await;
    pods.set([1, 2], Behaviour::Fail);
    let error = send(&service, 3).await.expect_err("they fail");
    assert!(error.is_endpoint());
    assert_eq!(calls(&pods, [1, 2]), 1);
}

/// The balancer offers a request that no pod got to all of them, and once is enough.
#[tokio::test(start_paused = true)]
async fn an_unsent_request_s_error_passes_through() {
    let (_script, pods, service) = retried([1, 2]).await;
    pods.set([1, 2], Behaviour::NotReady);
    let begun = Instant::now();
    let error = send(&service, 2).await.expect_err("they refuse");
    assert!(error.is_unreachable());
    assert_eq!(begun.elapsed(), SECOND, "one ready timeout, not four");
}

/// The first attempt may have been executed, so the request may have been, too.
#[tokio::test(start_paused = true)]
async fn a_failure_is_not_hidden_by_a_later_attempt_that_no_pod_took() {
    let (script, pods, balance) = balance([1]).await;
    let service = RetryLayer::new(Leaving(Arc::new(Mutex::new(Some((script, pods.clone()))))));
    let service = service.layer(balance);
    pods.set([1], Behaviour::Fail);
    let error = send(&service, 2).await.expect_err("it fails, and refuses");
    assert!(error.is_endpoint(), "{error}");
    assert_eq!(error.endpoint(), Some(&endpoint(1)));
    assert_eq!(calls(&pods, [1]), 1);
}

/// A policy that makes all pods refuse everything once one has failed.
#[derive(Clone)]
struct Leaving(Arc<Mutex<Option<(Script, Pods)>>>);

impl<Res> RetryPolicy<Request, Res> for Leaving {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        let lost = result.is_err_and(Error::is_endpoint);
        if lost && let Some((_, pods)) = self.0.lock().expect("no panic").as_ref() {
            pods.set([1], Behaviour::NotReady);
        }
        lost
    }
}

/// Retries every answer, and remembers its pod.
#[derive(Clone, Default)]
struct Picky(Arc<Mutex<Vec<Endpoint>>>);

impl RetryPolicy<Request, (Endpoint, u32)> for Picky {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&(Endpoint, u32), &Error>) -> bool {
        let (endpoint, _) = result.expect("an answer");
        self.0.lock().expect("no panic").push(endpoint.clone());
        true
    }
}

#[tokio::test(start_paused = true)]
async fn an_answered_request_is_retried_elsewhere_and_nowhere_twice() {
    let (_script, pods, balance) = balance([1, 2, 3]).await;
    let picky = Picky::default();
    let service = RetryLayer::new(picky.clone()).retries(9).layer(balance);
    let last = send(&service, 7).await.expect("an answer all the same");
    let seen = picky.0.lock().expect("no panic").clone();
    assert_eq!(seen.last(), Some(&last), "the last one is the caller's");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 3, "{seen:?}");
    assert_eq!(calls(&pods, [1, 2, 3]), 3);
}

/// A pod that refuses connections doesn't count as another pod.
#[tokio::test(start_paused = true)]
async fn an_answered_request_is_not_retried_if_no_other_pod_accepts() {
    let (_script, pods, balance) = balance([1, 2]).await;
    pods.set([2], Behaviour::NotReady);
    let service = RetryLayer::new(Picky::default()).layer(balance);
    for _ in 0..2 {
        send(&service, 7).await.expect("an answer");
    }
    let before = calls(&pods, [1]);
    send(&service, 7).await.expect("an answer");
    assert_eq!(calls(&pods, [1]), before + 1, "pod 2 is known to refuse");
}

#[tokio::test(start_paused = true)]
async fn cancelling_leaves_nothing_in_flight() {
    let (_script, pods, service) = retried([1, 2]).await;
    pods.set([1], Behaviour::Fail);
    pods.set([2], Behaviour::Hold);
    let mut requests: Vec<_> = (0..6)
        .map(|_| task::spawn(service.clone().oneshot(Request(2))))
        .collect();
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    assert_eq!(in_flight(&service), 6, "all of them on pod 2");
    assert_eq!(calls(&pods, [1]), 3, "half of them by way of pod 1");
    drop(requests);
    assert_eq!(in_flight(&service), 0);
    pods.set([2], Behaviour::Answer);
    assert_eq!(send(&service, 2).await.expect("an answer"), endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_is_waited_for() {
    let (_script, pods, service) = retried([1, 2]).await;
    pods.set([1], Behaviour::Fail);
    pods.set([2], Behaviour::Hold);
    let mut request = task::spawn(service.clone().oneshot(Request(2)));
    assert_pending!(request.poll());
    pods.set([2], Behaviour::Answer);
    assert!(request.is_woken());
    let (from, _) = assert_ready!(request.poll()).expect("an answer");
    assert_eq!(from, endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_keep_the_balancer_alive() {
    let (_script, pods, service) = retried([1]).await;
    pods.set([1], Behaviour::Pending);
    let mut request = task::spawn(service.oneshot(Request(2)));
    assert_pending!(request.poll());
    tokio::task::yield_now().await;
    pods.set([1], Behaviour::Answer);
    let response = request.await;
    assert_eq!(response.expect("an answer").0, endpoint(1));
}

// ---------------------------------------------------------------- the budget

/// Sends `seconds` × `rate` requests at even times. Returns how many requests the pods got.
async fn storm(service: &Retried, pods: &Pods, rate: u32, seconds: u32) -> usize {
    let before = calls(pods, 1..=5);
    let begun = Instant::now();
    for request in 0..rate * seconds {
        sleep_until(begun + SECOND * request / rate).await;
        let _ = send(service, 2).await;
    }
    calls(pods, 1..=5) - before
}

#[tokio::test(start_paused = true)]
async fn with_everything_failing_the_pods_get_a_fifth_more_requests() {
    for (rate, seconds) in [(1_000, 10), (1_000, 60), (100, 60)] {
        let (_script, pods, service) = retried(1..=5).await;
        pods.set(1..=5, Behaviour::Fail);
        let attempts = storm(&service, &pods, rate, seconds).await;
        let requests = (rate * seconds) as usize;
        // Plus ten a second, over a window of ten seconds, however short the storm is.
        let allowed = requests + requests / 5 + 10 * (seconds as usize).max(10);
        assert!(attempts <= allowed, "{attempts} of {requests}");
        assert!(
            attempts >= requests + requests / 6,
            "{attempts} of {requests}: what is allowed is used"
        );
    }
}

/// Savings of a calm time are bounded, too: to those of ten seconds.
#[tokio::test(start_paused = true)]
async fn a_storm_after_a_calm_has_the_budget_of_ten_seconds() {
    let (_script, pods, service) = retried(1..=5).await;
    assert_eq!(storm(&service, &pods, 500, 60).await, 30_000);
    pods.set(1..=5, Behaviour::Fail);
    let first = storm(&service, &pods, 500, 1).await;
    assert!(first <= 4 * 500, "{first}");
    let rest = storm(&service, &pods, 500, 9).await;
    assert!(
        // Plus two: one deposit of ten requests.
        first + rest <= 5_000 + 1_000 + 100 + 100 + 2,
        "{first} + {rest}"
    );
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_budget() {
    let (_script, pods, balance) = balance(1..=5).await;
    pods.set(1..=5, Behaviour::Fail);
    let layer = RetryLayer::new(Even).budget(TpsBudget::new(SECOND, 10, 0.0));
    let services = [layer.layer(balance.clone()), layer.layer(balance)];
    let requests = (0..100).map(|request| send(&services[request % 2], 2));
    assert!(join_all(requests).await.iter().all(Result::is_err));
    assert_eq!(calls(&pods, 1..=5), 110);
}

/// A budget that counts, and allows everything.
#[derive(Default)]
struct Ledger {
    deposits: AtomicUsize,
    withdrawals: AtomicUsize,
}

impl Budget for &'static Ledger {
    fn deposit(&self) {
        self.deposits.fetch_add(1, Relaxed);
    }

    fn withdraw(&self) -> bool {
        self.withdrawals.fetch_add(1, Relaxed);
        true
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_is_a_deposit_and_every_retry_a_withdrawal() {
    let ledger: &'static Ledger = Box::leak(Box::default());
    let (_script, pods, balance) = balance([1, 2]).await;
    let service = RetryLayer::new(Even).budget(ledger).layer(balance);
    for _ in 0..4 {
        send(&service, 2).await.expect("an answer");
    }
    pods.set([1, 2], Behaviour::Fail);
    send(&service, 1).await.expect_err("not made again");
    send(&service, 2).await.expect_err("three times again");
    let counted = [&ledger.deposits, &ledger.withdrawals].map(|count| count.load(Relaxed));
    assert_eq!(counted, [6, 3]);
}

// ---------------------------------------------------------------- policies and services

#[tokio::test]
async fn retry_failed_works_for_any_clone_request() {
    let pods = StaticEndpoints::new([endpoint(1).address(), endpoint(2).address()]);
    let balance = Balance::builder(pods)
        .policy(RoundRobin::new())
        .build(|pod: &Endpoint| {
            let is_broken = *pod == endpoint(1);
            service_fn(move |request: String| async move {
                match is_broken {
                    true => Err("connection reset"),
                    false => Ok(request),
                }
            })
        });
    let mut service = RetryLayer::new(RetryFailed).layer(balance);
    for _ in 0..4 {
        let response = service.ready().await.expect("ready").call("abc".to_owned());
        assert_eq!(response.await.expect("pod 2's"), "abc");
    }
}

/// The balancer's own completion also classifies the errors of retried requests.
#[tokio::test(start_paused = true)]
async fn errors_of_retried_requests_are_classified_by_the_balancer_s_completion() {
    let pods = StaticEndpoints::new([endpoint(1).address(), endpoint(2).address()]);
    let ignore = OnResponse::by(|result: Result<&u32, &BoxError>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Ignored,
    });
    let balance = Balance::builder(pods)
        .completion(ignore)
        .build(|pod: &Endpoint| {
            let is_broken = *pod == endpoint(1);
            service_fn(move |request: u32| async move {
                match is_broken {
                    true => Err("not today"),
                    false => Ok(request),
                }
            })
        });
    let mut service = RetryLayer::new(RetryFailed).layer(balance);
    for _ in 0..40 {
        let response = service.ready().await.expect("ready").call(7).await;
        response.expect("pod 2's");
    }
    // Gives the background task time to judge.
    sleep(SECOND).await;
    let endpoints = service.get_ref().endpoints();
    let is_available = |pod: &EndpointStatus| pod.state == EndpointState::Available;
    assert!(endpoints.iter().all(is_available), "{endpoints:?}");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_keeps_to_its_caller_s_route() {
    let (_script, pods, service) = retried([1, 2, 3]).await;
    pods.set([2], Behaviour::Fail);
    // Each has an even chance of going to pod 2 first.
    for _ in 0..40 {
        let route = Route::new().avoid(&endpoint(1));
        let response = service.call_with(Request(2), route).await;
        assert_eq!(response.expect("pod 3's").0, endpoint(3));
    }
    assert_eq!(calls(&pods, [1]), 0);
    assert!(calls(&pods, [2]) > 0, "some are sent again");
}

/// Retries the answers of pods 1 and 2. Pod 2 asks for a pause of five seconds while this is set.
#[derive(Clone)]
struct Busy(Arc<AtomicBool>);

impl RetryPolicy<Request, (Endpoint, u32)> for Busy {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&(Endpoint, u32), &Error>) -> bool {
        result.is_ok_and(|(pod, _)| *pod != endpoint(3))
    }

    fn pushback(&self, (pod, _): &(Endpoint, u32)) -> Option<Duration> {
        (*pod == endpoint(2) && self.0.load(Relaxed)).then_some(5 * SECOND)
    }
}

#[tokio::test(start_paused = true)]
async fn retries_pass_over_an_endpoint_for_as_long_as_its_answer_asks() {
    let (_script, pods, balance) = balance([1, 2, 3]).await;
    let busy = Busy(Arc::new(AtomicBool::new(true)));
    let service = RetryLayer::new(busy.clone()).layer(balance);
    let send_all = async |requests: usize| {
        let before = pods.counts(2).calls;
        for _ in 0..requests {
            send(&service, 0).await.expect("an answer");
        }
        pods.counts(2).calls - before
    };
    // After it has asked for a pause.
    send_all(3).await;
    assert_eq!(send_all(30).await, 10, "its share of the first attempts");
    busy.0.store(false, Relaxed);
    sleep(5 * SECOND).await;
    assert!(send_all(90).await > 30, "the delay is over");
}
