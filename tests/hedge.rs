//! Hedging, under paused time with scripted pods.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp, LogNormal};
use support::scripted::{Behaviour, PodService, Pods, Request, endpoint};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceExt, retry::budget::Budget};
use tower_headless::{
    Balance, ConsistentHash, EjectionReason, Endpoint, EndpointState, Error, Hedge,
    OutlierDetection, PodId, Retry, RetryLayer, RetryPolicy, RoundRobin, Route, StaticEndpoints,
};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Every request may be retried; the even ones may also be hedged.
#[derive(Clone, Copy, Debug)]
struct Even;

impl<Res> RetryPolicy<Request, Res> for Even {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }

    fn may_hedge(&self, request: &Request) -> bool {
        request.0.is_multiple_of(2)
    }
}

type Hedged = Retry<Balance<PodService>, Even>;

/// A balancer over pods 1 to `last`, with a layer that has these settings.
async fn hedged(last: u8, hedge: Hedge) -> (Pods, Hedged) {
    layered(last, |layer| layer.hedge(hedge), OutlierDetection::new()).await
}

async fn layered(
    last: u8,
    change: impl FnOnce(RetryLayer<Even>) -> RetryLayer<Even>,
    detection: OutlierDetection,
) -> (Pods, Hedged) {
    let pods = Pods::default();
    let endpoints = (1..=last).map(|host| endpoint(host).address());
    let mut balance = Balance::builder(StaticEndpoints::new(endpoints))
        .outlier_detection(detection)
        .ready_timeout(SECOND)
        .counters(true)
        .build(pods.make());
    balance.ready().await.expect("readiness never fails");
    (pods, change(RetryLayer::new(Even)).layer(balance))
}

async fn send(service: &Hedged) -> Result<Endpoint, Error> {
    send_number(service, 2).await
}

async fn send_number(service: &Hedged, number: u32) -> Result<Endpoint, Error> {
    let mut service = service.clone();
    let response = service.ready().await?.call(Request(number)).await;
    response.map(|(endpoint, _)| endpoint)
}

/// Sends a request in a task of its own.
fn spawn(service: &Hedged) -> JoinHandle<Result<Endpoint, Error>> {
    let service = service.clone();
    tokio::spawn(async move { send(&service).await })
}

/// The pod that answered it.
async fn finish(request: JoinHandle<Result<Endpoint, Error>>) -> Endpoint {
    let answered = timeout(10 * SECOND, request).await.expect("an end");
    answered.expect("no panic").expect("an answer")
}

/// Sends requests, one each `gap`, without waiting for answers. Returns the slowest one's time.
async fn load(service: &Hedged, requests: u32, gap: Duration) -> Duration {
    load_of(2, service, requests, gap).await
}

/// Like `load`, for requests of this number.
async fn load_of(number: u32, service: &Hedged, requests: u32, gap: Duration) -> Duration {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..requests {
        let service = service.clone();
        tasks.spawn(async move {
            let begun = Instant::now();
            let answered = send_number(&service, number).await;
            answered.expect("an answer");
            begun.elapsed()
        });
        sleep(gap).await;
    }
    let times = tasks.join_all().await;
    times.into_iter().max().expect("requests")
}

fn calls(pods: &Pods, hosts: impl IntoIterator<Item = u8>) -> usize {
    hosts.into_iter().map(|host| pods.counts(host).calls).sum()
}

fn in_flight(service: &Hedged) -> u32 {
    let endpoints = service.get_ref().endpoints();
    endpoints.iter().map(|status| status.in_flight).sum()
}

fn state(service: &Hedged, host: u8) -> EndpointState {
    let endpoints = service.get_ref().endpoints().into_iter();
    let address = endpoint(host).address();
    let mut endpoints = endpoints.filter(|status| status.endpoint.address() == address);
    endpoints.next().expect("an endpoint of the set").state
}

const SLOW: EndpointState = EndpointState::Ejected(EjectionReason::Slow);
const FAILS: EndpointState = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);

/// A request that goes to pod 1 first, whichever pod's turn it is.
async fn first_to_one(pods: &Pods, service: &Hedged) -> Result<Endpoint, Error> {
    loop {
        let before = calls(pods, [1]);
        let mut request = tokio_test::task::spawn(send(service));
        if let std::task::Poll::Ready(result) = request.poll() {
            assert_eq!(calls(pods, [1]), before, "it is not ready at once");
            result.expect("another one's turn");
            continue;
        }
        if calls(pods, [1]) > before {
            return request.await;
        }
        request.await.expect("another one's turn");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_is_hedged_to_another_pod_and_the_first_answer_counts() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::After(SECOND));
    let begun = Instant::now();
    let answered = first_to_one(&pods, &service).await;
    assert_eq!(answered.expect("an answer"), endpoint(2));
    assert_eq!(begun.elapsed(), 50 * MILLI);
    assert_eq!(in_flight(&service), 0, "the other one is cancelled");
}

#[tokio::test(start_paused = true)]
async fn the_request_that_loses_is_cancelled_though_its_future_is_kept() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::Hold);
    loop {
        let mut request = tokio_test::task::spawn(service.call_with(Request(2), Route::new()));
        if request.poll().is_ready() {
            continue;
        }
        sleep(51 * MILLI).await;
        assert!(request.poll().is_ready());
        assert_eq!(in_flight(&service), 0);
        break;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_not_hedged() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1, 2], Behaviour::After(40 * MILLI));
    load(&service, 100, MILLI).await;
    assert_eq!(calls(&pods, 1..=2), 100);
}

#[tokio::test(start_paused = true)]
async fn the_first_try_may_still_win_after_its_hedge_was_sent() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::After(60 * MILLI));
    pods.set([2], Behaviour::Hold);
    let mut ones = 0;
    for _ in 0..2 {
        let mut request = tokio_test::task::spawn(send(&service));
        assert!(request.poll().is_pending());
        let is_ones = calls(&pods, [1]) > ones;
        ones = calls(&pods, [1]) + usize::from(!is_ones);
        assert_eq!(request.await.expect("an answer"), endpoint(1));
        assert_eq!(in_flight(&service), 0);
    }
    assert_eq!(calls(&pods, 1..=2), 4, "one hedge each, and no more");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_loses_is_neither_a_success_nor_a_failure() {
    let detection = OutlierDetection::new().consecutive_failures(1);
    let change = |layer: RetryLayer<Even>| layer.hedge(Hedge::after(SECOND));
    let (pods, service) = layered(2, change, detection).await;
    // So that the usual time to an answer is known.
    load(&service, 10, 20 * MILLI).await;
    pods.set([1], Behaviour::Hold);
    for _ in 0..8 {
        let answered = first_to_one(&pods, &service).await;
        assert_eq!(answered.expect("an answer"), endpoint(2));
        sleep(SECOND).await;
        assert_eq!(state(&service, 1), EndpointState::Available);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_be_hedged_never_is() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1, 2], Behaviour::After(SECOND));
    send_number(&service, 3).await.expect("an answer");
    assert_eq!(calls(&pods, 1..=2), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_only_one_pod_may_get_is_never_hedged() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1, 2], Behaviour::After(SECOND));
    let only = Route::new().avoid(&endpoint(2));
    let sent = service.call_with(Request(2), only).await;
    assert_eq!(sent.expect("an answer").0, endpoint(1));
    assert_eq!(calls(&pods, 1..=2), 1);
    let (pods, service) = hedged(1, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::After(SECOND));
    send(&service).await.expect("an answer");
    assert_eq!(calls(&pods, [1]), 1, "there is no other one");
}

/// A balancer by keys over pods `web-1` to `web-{last}`, with a layer that hedges soon and always.
async fn named(last: u8) -> (Pods, Hedged) {
    let pods = Pods::default();
    let endpoints: StaticEndpoints = (1..=last).map(web).collect();
    let mut balance = Balance::builder(endpoints)
        .policy(ConsistentHash::new())
        .build(pods.make());
    balance.ready().await.expect("readiness never fails");
    let hedge = Hedge::after(50 * MILLI).share(1.0);
    (pods, RetryLayer::new(Even).hedge(hedge).layer(balance))
}

fn web(host: u8) -> Endpoint {
    endpoint(host).with_hostname(format!("web-{host}"))
}

async fn answered(service: &Hedged, route: Route) -> Endpoint {
    let answer = service.call_with(Request(2), route).await;
    answer.expect("an answer").0
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_named_pod_is_never_hedged() {
    let (pods, service) = named(2).await;
    pods.set([1, 2], Behaviour::After(SECOND));
    let address = endpoint(1).address();
    let ids = [
        PodId::from("web-1"),
        PodId::ordinal(1),
        address.into(),
        address.ip().into(),
    ];
    for (sent, pod) in ids.into_iter().enumerate() {
        answered(&service, Route::new().pod(pod.clone())).await;
        let calls = (calls(&pods, [1]), calls(&pods, [2]));
        assert_eq!(calls, (2 * sent + 1, 0), "{pod}");
        let mut pinned = service.pod(pod.clone());
        let answer = pinned.ready().await.expect("ready").call(Request(2)).await;
        assert_eq!(answer.expect("an answer").0, endpoint(1), "{pod}");
    }
    assert_eq!((calls(&pods, [1]), calls(&pods, [2])), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_key_is_hedged_to_the_key_s_second_choice() {
    let (pods, service) = named(5).await;
    for key in 0..20 {
        let route = || Route::new().key(key);
        let home = answered(&service, route()).await;
        let second = answered(&service, route().avoid(&home)).await;
        let host = (1..=5).find(|&host| endpoint(host) == home).expect("a pod");
        pods.set([host], Behaviour::After(SECOND));
        assert_eq!(answered(&service, route()).await, second, "{key}");
        pods.set([host], Behaviour::Answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_prefers_a_pod_is_hedged_to_another_one() {
    let (pods, service) = named(5).await;
    for key in 0..6 {
        let keyed = || Route::new().key(key).prefer("web-2");
        let second = answered(&service, keyed().avoid(&web(2))).await;
        pods.set([2], Behaviour::After(SECOND));
        assert_eq!(answered(&service, keyed()).await, second, "{key}");
        let unkeyed = Route::new().prefer("web-2");
        assert_ne!(answered(&service, unkeyed).await, endpoint(2));
        assert_eq!(calls(&pods, [2]), 3 * key + 2, "it is asked first");
        pods.set([2], Behaviour::Answer);
        assert_eq!(answered(&service, keyed()).await, endpoint(2));
    }
}

/// A subset has such pods if a request names them.
#[tokio::test(start_paused = true)]
async fn a_pod_without_weight_gets_no_hedge() {
    let pods = Pods::default();
    let endpoints: StaticEndpoints = [web(1), web(2).with_weight(0)].into_iter().collect();
    let mut balance = Balance::builder(endpoints)
        .policy(ConsistentHash::new())
        .build(pods.make());
    balance.ready().await.expect("readiness never fails");
    let hedge = Hedge::after(50 * MILLI).share(1.0);
    let service = RetryLayer::new(Even).hedge(hedge).layer(balance);
    pods.set([1], Behaviour::After(SECOND));
    for route in [Route::new(), Route::new().key(1)] {
        assert_eq!(answered(&service, route).await, endpoint(1));
    }
    assert_eq!((calls(&pods, [1]), calls(&pods, [2])), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_left_out_gets_no_hedge() {
    let (pods, service) = named(2).await;
    pods.set([1], Behaviour::After(SECOND));
    let left_out = || Route::new().leave_out("web-2");
    for route in [left_out(), left_out().key(1), left_out().prefer("web-1")] {
        assert_eq!(answered(&service, route).await, endpoint(1));
    }
    assert_eq!((calls(&pods, [1]), calls(&pods, [2])), (3, 0));
}

/// A budget of a fixed number of retries.
struct Only(Arc<AtomicUsize>);

impl Budget for Only {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Relaxed, Relaxed, one_less).is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_used_up_allows_no_hedge() {
    for budget in [0, 3] {
        let change = |layer: RetryLayer<Even>| {
            let layer = layer.budget(Only(Arc::new(budget.into())));
            layer.hedge(Hedge::after(50 * MILLI).share(1.0))
        };
        let (pods, service) = layered(2, change, OutlierDetection::new()).await;
        pods.set([1, 2], Behaviour::After(SECOND));
        load(&service, 20, MILLI).await;
        assert_eq!(calls(&pods, 1..=2), 20 + budget);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_the_budget_refuses_takes_nothing_from_the_share() {
    let left = Arc::new(AtomicUsize::new(0));
    let change = |layer: RetryLayer<Even>| {
        let layer = layer.budget(Only(left.clone()));
        layer.hedge(Hedge::after(50 * MILLI))
    };
    let (pods, service) = layered(2, change, OutlierDetection::new()).await;
    pods.set([1, 2], Behaviour::After(SECOND));
    load(&service, 50, MILLI).await;
    assert_eq!(calls(&pods, 1..=2), 50);
    left.store(100, Relaxed);
    load(&service, 50, MILLI).await;
    let hedged = calls(&pods, 1..=2) - 100;
    assert!(
        (10..=12).contains(&hedged),
        "{hedged}: 10 saved up, 1 added"
    );
}

#[tokio::test(start_paused = true)]
async fn all_pods_slow_get_two_of_a_hundred_requests_more() {
    let (pods, service) = hedged(10, Hedge::after(50 * MILLI)).await;
    pods.set(1..=10, Behaviour::After(SECOND));
    load(&service, 1_000, MILLI).await;
    let more = calls(&pods, 1..=10) - 1_000;
    assert!((25..=31).contains(&more), "{more}: 20, and 10 saved up");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_does_not_harm_its_request() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    for behaviour in [Behaviour::Fail, Behaviour::NotReady, Behaviour::HandBack] {
        pods.set([1, 2], Behaviour::Answer);
        sleep(10 * SECOND).await;
        let before = loop {
            let before = calls(&pods, [1]);
            pods.set([1], Behaviour::After(SECOND));
            pods.set([2], Behaviour::Pending);
            let mut request = tokio_test::task::spawn(send(&service));
            assert!(request.poll().is_pending());
            if calls(&pods, [1]) > before {
                pods.set([2], behaviour);
                assert_eq!(request.await.expect("an answer"), endpoint(1));
                break before;
            }
            pods.set([2], Behaviour::Answer);
            request.await.expect("the other one's turn");
        };
        let seen = calls(&pods, [1]) - before;
        assert_eq!(
            seen, 1,
            "{behaviour:?}: nor does the hedge come to the same pod"
        );
        assert_eq!(in_flight(&service), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn if_the_first_try_fails_after_the_hedge_began_the_hedge_s_answer_counts() {
    let change = |layer: RetryLayer<Even>| layer.retries(0).hedge(Hedge::after(50 * MILLI));
    let (pods, service) = layered(2, change, OutlierDetection::new()).await;
    pods.set([1], Behaviour::FailAfter(60 * MILLI));
    pods.set([2], Behaviour::After(40 * MILLI));
    assert_eq!(
        first_to_one(&pods, &service).await.expect("an answer"),
        endpoint(2)
    );
    assert_eq!(in_flight(&service), 0);
}

#[tokio::test(start_paused = true)]
async fn if_both_tries_fail_the_request_is_sent_again_to_a_third_pod() {
    let change = |layer: RetryLayer<Even>| layer.hedge(Hedge::after(50 * MILLI).share(1.0));
    let (pods, service) = layered(3, change, OutlierDetection::off()).await;
    pods.set([1, 2], Behaviour::FailAfter(60 * MILLI));
    for _ in 0..30 {
        let before = [1, 2].map(|host| calls(&pods, [host]));
        assert_eq!(send(&service).await.expect("an answer"), endpoint(3));
        let after = [1, 2].map(|host| calls(&pods, [host]));
        let is_once = |pod: usize| after[pod] - before[pod] <= 1;
        assert!(is_once(0) && is_once(1), "not to one that has failed it");
    }
    let change = |layer: RetryLayer<Even>| layer.retries(0).hedge(Hedge::after(50 * MILLI));
    let (pods, service) = layered(2, change, OutlierDetection::new()).await;
    pods.set([1, 2], Behaviour::FailAfter(60 * MILLI));
    let error = send(&service).await.expect_err("both fail");
    assert!(error.is_endpoint());
    assert_eq!(calls(&pods, 1..=2), 2);
}

/// As without hedging, when the third pod would be asked, too.
#[tokio::test(start_paused = true)]
async fn a_request_that_fails_while_its_hedge_hangs_is_sent_again_at_once() {
    let (pods, service) = hedged(3, Hedge::after(50 * MILLI)).await;
    let counts = || [1, 2, 3].map(|host| calls(&pods, [host]));
    loop {
        let before = counts();
        pods.set([1], Behaviour::FailAfter(60 * MILLI));
        pods.set([2, 3], Behaviour::Hold);
        let (begun, request) = (Instant::now(), spawn(&service));
        sleep(MILLI).await;
        if counts()[0] == before[0] {
            pods.set([2, 3], Behaviour::Answer);
            finish(request).await;
            continue;
        }
        sleep(54 * MILLI).await;
        let hung = if counts()[1] > before[1] { 2 } else { 3 };
        let third = 5 - hung;
        pods.set([third], Behaviour::Answer);
        let answered = finish(request).await;
        assert_eq!((answered, begun.elapsed()), (endpoint(third), 60 * MILLI));
        assert_eq!(in_flight(&service), 0, "the hedge is cancelled");
        break;
    }
}

#[tokio::test(start_paused = true)]
async fn if_no_result_is_good_the_first_one_counts() {
    let change = |layer: RetryLayer<Even>| layer.retries(0).hedge(Hedge::after(50 * MILLI));
    for (one, other, first) in [(60, 60, 1), (200, 10, 2)] {
        let (pods, service) = layered(2, change, OutlierDetection::off()).await;
        pods.set([2], Behaviour::Answer);
        loop {
            let before = calls(&pods, [1]);
            pods.set([1], Behaviour::FailAfter(one * MILLI));
            let mut request = tokio_test::task::spawn(send(&service));
            if request.poll().is_ready() {
                continue;
            }
            assert_eq!(calls(&pods, [1]), before + 1);
            pods.set([2], Behaviour::FailAfter(other * MILLI));
            let error = request.await.expect_err("both fail");
            assert_eq!(error.endpoint(), Some(&endpoint(first)), "{error}");
            break;
        }
    }
}

/// A request that goes to pod 1 first. Its hedge goes to pod 2, which has this behaviour by then. There are two pods,
/// and no retries.
async fn hedged_from_one(
    first: Behaviour,
    hedge: Behaviour,
) -> (
    Pods,
    Hedged,
    tokio_test::task::Spawn<impl Future<Output = Result<Endpoint, Error>>>,
) {
    let change = |layer: RetryLayer<Even>| layer.retries(0).hedge(Hedge::after(50 * MILLI));
    let (pods, service) = layered(2, change, OutlierDetection::off()).await;
    pods.set([1], first);
    loop {
        let sent = service.call_with(Request(2), Route::new());
        let mut request = tokio_test::task::spawn(async { Ok(sent.await?.0) });
        if request.poll().is_pending() {
            pods.set([2], hedge);
            return (pods, service, request);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_was_set_aside_counts_if_the_hedge_hangs() {
    let first = Behaviour::FailAfter(60 * MILLI);
    let (pods, service, mut request) = hedged_from_one(first, Behaviour::Hold).await;
    let before = calls(&pods, [2]);
    let failed = timeout(10 * SECOND, &mut request).await.expect("an end");
    let error = failed.expect_err("nothing good");
    assert_eq!(error.endpoint(), Some(&endpoint(1)), "{error}");
    assert_eq!(calls(&pods, [2]), before + 1, "it is hedged");
    assert_eq!(in_flight(&service), 0, "the hedge is cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_hedge_fails_has_as_long_as_without_hedging() {
    let first = Behaviour::After(10 * SECOND);
    let (pods, _, request) = hedged_from_one(first, Behaviour::Fail).await;
    let before = calls(&pods, [2]);
    assert_eq!(request.await.expect("an answer"), endpoint(1));
    assert_eq!(calls(&pods, [2]), before + 1, "it is hedged");
}

/// Pod 2's answers aren't good, but aren't retried.
#[derive(Clone, Copy, Debug)]
struct NotOfTwo;

impl RetryPolicy<Request, (Endpoint, u32)> for NotOfTwo {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&(Endpoint, u32), &Error>) -> bool {
        result.is_err()
    }

    fn may_hedge(&self, request: &Request) -> bool {
        request.0.is_multiple_of(2)
    }

    fn is_good(&self, response: &(Endpoint, u32)) -> bool {
        response.0 != endpoint(2)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_good_neither_wins_nor_counts_against_the_other_pod() {
    let pods = Pods::default();
    let endpoints: StaticEndpoints = (1..=2).map(web).collect();
    let mut balance = Balance::builder(endpoints).build(pods.make());
    balance.ready().await.expect("readiness never fails");
    let hedge = Hedge::after(50 * MILLI).share(1.0);
    let service = RetryLayer::new(NotOfTwo).hedge(hedge).layer(balance);
    let send = |number| {
        let sent = service.call_with(Request(number), Route::new().prefer("web-1"));
        async { sent.await.expect("an answer").0 }
    };
    // So that the usual p95 is known.
    pods.set([1, 2], Behaviour::After(5 * MILLI));
    for _ in 0..20 {
        assert_eq!(send(3).await, endpoint(1));
    }
    sleep(SECOND).await;
    pods.set([1], Behaviour::After(200 * MILLI));
    pods.set([2], Behaviour::Answer);
    for sent in 1..=5 {
        assert_eq!(send(2).await, endpoint(1));
        assert_eq!(calls(&pods, [2]), sent, "it is hedged");
        sleep(SECOND).await;
        let all = service.get_ref().endpoints();
        let mut states = all.iter().map(|status| status.state);
        assert!(states.all(|state| state == EndpointState::Available));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_has_as_much_time_as_a_first_try() {
    let (pods, service) = hedged(3, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::FailAfter(40 * MILLI));
    pods.set([2, 3], Behaviour::After(40 * MILLI));
    let begun = Instant::now();
    for _ in 0..3 {
        send(&service).await.expect("an answer");
    }
    assert_eq!(begun.elapsed(), 4 * 40 * MILLI, "one is sent again");
    assert_eq!(calls(&pods, 1..=3), 4, "none is hedged");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_late_is_hedged() {
    let (pods, service) = hedged(3, Hedge::after(50 * MILLI)).await;
    pods.set(1..=3, Behaviour::FailAfter(40 * MILLI));
    let (begun, request) = (Instant::now(), spawn(&service));
    sleep(20 * MILLI).await;
    pods.set(1..=3, Behaviour::Hold);
    sleep(40 * MILLI).await;
    let unasked = (1..=3).find(|&host| calls(&pods, [host]) == 0);
    let third = unasked.expect("two have had it");
    pods.set([third], Behaviour::Answer);
    assert_eq!(finish(request).await, endpoint(third));
    assert_eq!(begun.elapsed(), 90 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_pod_had_when_it_was_late_is_hedged_later() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1, 2], Behaviour::NotReady);
    let request = spawn(&service);
    sleep(60 * MILLI).await;
    pods.set([1, 2], Behaviour::Hold);
    while calls(&pods, 1..=2) == 0 {
        sleep(MILLI).await;
    }
    // Whichever of the two pods has it, it hangs there.
    let other = if calls(&pods, [1]) == 0 { 1 } else { 2 };
    pods.set([other], Behaviour::Answer);
    assert_eq!(finish(request).await, endpoint(other));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_no_pod_takes_is_made_again_and_charged_once() {
    let change = |layer: RetryLayer<Even>| {
        let layer = layer.budget(Only(Arc::new(1.into())));
        layer.hedge(Hedge::after(50 * MILLI))
    };
    for refusal in [Behaviour::NotReady, Behaviour::HandBack] {
        let (pods, service) = layered(2, change, OutlierDetection::new()).await;
        pods.set([1], Behaviour::After(5 * SECOND));
        let prefer = Route::new().prefer(endpoint(1).address());
        let request = tokio::spawn(service.call_with(Request(2), prefer));
        sleep(10 * MILLI).await;
        pods.set([2], refusal);
        sleep(50 * MILLI).await;
        pods.set([2], Behaviour::Answer);
        let answered = request.await.expect("no panic").expect("an answer").0;
        assert_eq!(answered, endpoint(2), "{refusal:?}");
        assert_eq!(in_flight(&service), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_that_no_pod_takes_use_up_no_share() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI).share(0.0001)).await;
    // Ten hedges are saved up.
    for hedge in 0..30 {
        pods.set([1], Behaviour::After(SECOND / 10));
        let prefer = Route::new().prefer(endpoint(1).address());
        let request = tokio::spawn(service.call_with(Request(2), prefer));
        sleep(10 * MILLI).await;
        let is_taken = hedge == 29;
        pods.set(
            [2],
            if is_taken {
                Behaviour::Answer
            } else {
                Behaviour::NotReady
            },
        );
        let answered = request.await.expect("no panic").expect("an answer").0;
        assert_eq!(answered, endpoint(if is_taken { 2 } else { 1 }));
        pods.set([2], Behaviour::Answer);
        sleep(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_no_pod_takes_does_not_count_as_a_failed_request() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::After(5 * SECOND));
    let prefer = Route::new().prefer(endpoint(1).address());
    let request = tokio::spawn(service.call_with(Request(2), prefer));
    sleep(10 * MILLI).await;
    pods.set([2], Behaviour::NotReady);
    let answered = request.await.expect("no panic").expect("an answer").0;
    assert_eq!(answered, endpoint(1));
    let counts = service.get_ref().counts().expect("counted");
    assert!(counts.hedges > 0 && counts.endpoints.refused > 0);
    assert_eq!(counts.unplaced, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_counts_once_however_often_it_is_asked_for() {
    let no_share = |layer: RetryLayer<Even>| layer.hedge(Hedge::after(50 * MILLI).share(0.0));
    let no_budget = |layer: RetryLayer<Even>| {
        let layer = layer.budget(Only(Arc::new(0.into())));
        layer.hedge(Hedge::after(50 * MILLI))
    };
    let (first, second) = (
        layered(2, no_share, OutlierDetection::new()).await,
        layered(2, no_budget, OutlierDetection::new()).await,
    );
    for (pods, service) in [first, second] {
        pods.set([1, 2], Behaviour::After(5 * SECOND));
        for expected in 1..=2 {
            send(&service).await.expect("an answer");
            let counts = service.get_ref().counts().expect("counted");
            assert_eq!((counts.hedges, counts.hedges_refused), (0, expected));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_back_after_a_long_time_is_hedged_to_soon() {
    let (pods, service) = hedged(2, Hedge::after(50 * MILLI)).await;
    pods.set([1], Behaviour::After(24 * SECOND));
    pods.set([2], Behaviour::NotReady);
    let request = spawn(&service);
    sleep(13 * SECOND).await;
    pods.set([2], Behaviour::Answer);
    let answered = request.await.expect("no panic").expect("an answer");
    assert_eq!(answered, endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_began_before_the_usual_p95_was_known_is_hedged() {
    let (pods, service) = hedged(2, Hedge::new()).await;
    pods.set([1], Behaviour::After(5 * SECOND));
    let prefer = Route::new().prefer(endpoint(1).address());
    let request = tokio::spawn(service.call_with(Request(2), prefer));
    sleep(MILLI).await;
    pods.set([1, 2], Behaviour::After(5 * MILLI));
    load_of(3, &service, 60, MILLI).await;
    let answered = request.await.expect("no panic").expect("an answer").0;
    assert_eq!(answered, endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn a_first_try_that_its_pod_refuses_goes_to_another_one_than_its_hedge() {
    let pods = Pods::default();
    let endpoints = (1..=3).map(|host| endpoint(host).address());
    let mut balance = Balance::builder(StaticEndpoints::new(endpoints))
        .policy(RoundRobin::new())
        .build(pods.make());
    balance.ready().await.expect("readiness never fails");
    let hedge = Hedge::after(50 * MILLI).share(1.0);
    let service = RetryLayer::new(Even).hedge(hedge).layer(balance);
    for _ in 0..10 {
        pods.set([1], Behaviour::Pending);
        pods.set([2, 3], Behaviour::After(SECOND));
        let before = [2, 3].map(|host| calls(&pods, [host]));
        let prefer = Route::new().prefer(endpoint(1).address());
        let request = tokio::spawn(service.call_with(Request(2), prefer));
        sleep(60 * MILLI).await;
        pods.set([1], Behaviour::NotReady);
        request.await.expect("no panic").expect("an answer");
        let after = [2, 3].map(|host| calls(&pods, [host]));
        assert_eq!(after, before.map(|calls| calls + 1), "each has it once");
        pods.set([1], Behaviour::Answer);
        sleep(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_time_of_zero_without_another_pod_does_not_loop_endlessly() {
    let (pods, service) = hedged(1, Hedge::after(Duration::ZERO)).await;
    pods.set([1], Behaviour::After(SECOND));
    send(&service).await.expect("an answer");
    assert_eq!(calls(&pods, [1]), 1);
}

/// A hedge that no pod took says nothing about the request's fate.
#[tokio::test(start_paused = true)]
async fn a_failure_is_not_hidden_by_a_hedge_that_no_pod_took() {
    let change = |layer: RetryLayer<Even>| layer.retries(0).hedge(Hedge::after(50 * MILLI));
    let (pods, service) = layered(2, change, OutlierDetection::new()).await;
    loop {
        let before = calls(&pods, [1]);
        pods.set([1], Behaviour::FailAfter(60 * MILLI));
        pods.set([2], Behaviour::Pending);
        let mut request = tokio_test::task::spawn(send(&service));
        assert!(request.poll().is_pending());
        if calls(&pods, [1]) == before {
            pods.set([2], Behaviour::Answer);
            request.await.expect("the other one's turn");
            continue;
        }
        // The hedge waits for pod 2, which refuses after the first try has failed.
        let pods = pods.clone();
        tokio::spawn(async move {
            sleep(80 * MILLI).await;
            pods.set([2], Behaviour::NotReady);
        });
        let error = request.await.expect_err("it fails");
        assert!(error.is_endpoint(), "{error}");
        break;
    }
}

/// The time until pod 2 answers the hedge of a request that is late at pod 1.
async fn time_to_the_hedge(pods: &Pods, service: &Hedged) -> Duration {
    sleep(SECOND).await;
    pods.set([1], Behaviour::After(SECOND));
    pods.set([2], Behaviour::Answer);
    let begun = Instant::now();
    let answered = first_to_one(pods, service).await;
    assert_eq!(answered.expect("an answer"), endpoint(2));
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_before_the_usual_p95_is_learnt() {
    let (pods, service) = hedged(2, Hedge::new()).await;
    pods.set([1, 2], Behaviour::After(20 * MILLI));
    load(&service, 38, MILLI).await;
    assert_eq!(calls(&pods, 1..=2), 38);
    load(&service, 10, MILLI).await;
    let took = time_to_the_hedge(&pods, &service).await;
    assert!(took > 15 * MILLI && took < 40 * MILLI, "{took:?}");
}

/// Connecting, TLS handshakes and cold caches make the first answers slow.
#[tokio::test(start_paused = true)]
async fn slow_answers_at_first_are_forgotten_soon() {
    let (pods, service) = hedged(2, Hedge::new()).await;
    pods.set([1, 2], Behaviour::After(2 * SECOND));
    load_of(3, &service, 2 * 20, MILLI).await;
    pods.set([1, 2], Behaviour::After(20 * MILLI));
    load_of(3, &service, 2 * 180, MILLI).await;
    let took = time_to_the_hedge(&pods, &service).await;
    assert!(took < 40 * MILLI, "{took:?}");
}

/// Sends a request each millisecond. Pods 2 to 10 take times of this distribution. Returns how long the requests took,
/// sorted.
async fn random_load(
    pods: &Pods,
    service: &Hedged,
    millis: &impl Distribution<f64>,
    requests: usize,
) -> Vec<Duration> {
    let rng = &mut SmallRng::seed_from_u64(1);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..requests {
        let time = MILLI.mul_f64(millis.sample(rng));
        pods.set(2..=10, Behaviour::After(time));
        let service = service.clone();
        tasks.spawn(async move {
            let begun = Instant::now();
            send(&service).await.expect("an answer");
            begun.elapsed()
        });
        sleep(MILLI).await;
    }
    let mut times = tasks.join_all().await;
    times.sort_unstable();
    times
}

/// A balancer over pods 2 to 10, and also pod 1 if `with_one`.
async fn ten(with_one: bool) -> (Pods, Hedged) {
    let pods = Pods::default();
    let first = if with_one { 1 } else { 2 };
    let endpoints = (first..=10).map(|host| endpoint(host).address());
    let mut balance = Balance::builder(StaticEndpoints::new(endpoints))
        .policy(RoundRobin::new())
        .build(pods.make());
    balance.ready().await.expect("readiness never fails");
    let layer = RetryLayer::new(Even).hedge(Hedge::new());
    (pods, layer.layer(balance))
}

/// One of twenty requests is later than the p95, and two of a hundred may be hedged. The slowest are hedged, and some
/// of the saved-up hedges must be left.
async fn good_times_leave_some_for_a_bad_moment(millis: impl Distribution<f64>) {
    let (pods, service) = ten(false).await;
    random_load(&pods, &service, &millis, 4_000).await;
    let before = calls(&pods, 2..=10);
    random_load(&pods, &service, &millis, 10_000).await;
    let hedges = calls(&pods, 2..=10) - before - 10_000;
    assert!((130..=170).contains(&hedges), "{hedges} of 10,000");
    pods.set(2..=10, Behaviour::After(SECOND));
    let before = calls(&pods, 2..=10);
    load(&service, 100, MILLI).await;
    let hedges = calls(&pods, 2..=10) - before - 100;
    assert!((5..=12).contains(&hedges), "{hedges} of those saved up");
}

#[tokio::test(start_paused = true)]
async fn in_good_times_some_hedges_are_saved_up_with_exponential_times() {
    good_times_leave_some_for_a_bad_moment(Exp::new(0.1).expect("a rate")).await;
}

#[tokio::test(start_paused = true)]
async fn in_good_times_some_hedges_are_saved_up_with_lognormal_times() {
    let median = 10_f64.ln();
    good_times_leave_some_for_a_bad_moment(LogNormal::new(median, 1.0).expect("a spread")).await;
}

#[tokio::test(start_paused = true)]
async fn one_slow_pod_of_ten_costs_few_hedges_and_hardly_any_time() {
    let millis = Exp::new(0.2).expect("a rate");
    let mut p99 = Vec::new();
    for with_one in [false, true] {
        let (pods, service) = ten(with_one).await;
        pods.set([1], Behaviour::After(5 * MILLI));
        random_load(&pods, &service, &millis, 2_000).await;
        pods.set([1], Behaviour::After(200 * MILLI));
        let before = calls(&pods, 1..=10);
        let times = random_load(&pods, &service, &millis, 8_000).await;
        let more = calls(&pods, 1..=10) - before - 8_000;
        assert!(more <= 8_000 * 2 / 100, "{more} hedges");
        p99.push(times[8_000 * 99 / 100].as_secs_f64());
    }
    assert!(p99[1] <= 1.3 * p99[0], "{p99:?}");
}

/// A tenth of all answers is slow, so the 95th percentile of all answers is that of the slow pod.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_always_slow_does_not_raise_the_usual_p95() {
    let (pods, service) = hedged(10, Hedge::new()).await;
    pods.set(2..=10, Behaviour::After(5 * MILLI));
    pods.set([1], Behaviour::After(200 * MILLI));
    // Enough to learn how slow it is, with requests that are never hedged.
    load_of(3, &service, 1_000, MILLI).await;
    assert_eq!(state(&service, 1), EndpointState::Available);
    load(&service, 1_000, MILLI).await;
    assert_eq!(state(&service, 1), SLOW);
    let begun = calls(&pods, 1..=10);
    let slowest = load(&service, 4_000, MILLI).await;
    assert!(slowest <= 20 * MILLI, "{slowest:?}");
    let more = calls(&pods, 1..=10) - begun - 4_000;
    assert!(more <= 20, "{more} hedges");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_slow_is_passed_over_and_comes_back_when_it_is_not() {
    let (pods, service) = hedged(10, Hedge::new()).await;
    pods.set(1..=10, Behaviour::After(5 * MILLI));
    load(&service, 1_000, MILLI).await;
    pods.set([1], Behaviour::After(200 * MILLI));
    let begun = calls(&pods, [1]);
    load(&service, 5_000, MILLI).await;
    assert_eq!(state(&service, 1), SLOW);
    let tries = calls(&pods, [1]) - begun;
    assert!((6..=12).contains(&tries), "{tries}: three, and one a pause");
    pods.set([1], Behaviour::After(5 * MILLI));
    load(&service, 6_500, MILLI).await;
    assert_eq!(state(&service, 1), EndpointState::Available);
    let begun = calls(&pods, [1]);
    load(&service, 1_000, MILLI).await;
    assert_eq!(calls(&pods, [1]) - begun, 100, "its turns");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_slow_now_and_then_is_not_passed_over() {
    let (pods, service) = hedged(4, Hedge::new().share(1.0)).await;
    for _ in 0..20 {
        pods.set(1..=4, Behaviour::After(5 * MILLI));
        load(&service, 100, MILLI).await;
        pods.set([1], Behaviour::After(200 * MILLI));
        load(&service, 8, MILLI).await;
        assert_eq!(state(&service, 1), EndpointState::Available);
    }
}

/// A trial that isn't hedged can only be judged by its time.
#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_bring_a_slow_pod_back() {
    let (pods, service) = hedged(4, Hedge::new()).await;
    pods.set(1..=4, Behaviour::After(5 * MILLI));
    load(&service, 400, MILLI).await;
    pods.set([1], Behaviour::After(200 * MILLI));
    load(&service, 100, MILLI).await;
    assert_eq!(state(&service, 1), SLOW);
    for _ in 0..400 {
        send_number(&service, 3).await.expect("an answer");
        assert_eq!(state(&service, 1), SLOW);
    }
}

#[tokio::test(start_paused = true)]
async fn with_outlier_detection_off_requests_are_hedged_and_no_pod_is_passed_over() {
    let change = |layer: RetryLayer<Even>| layer.hedge(Hedge::new().share(1.0));
    let (pods, service) = layered(4, change, OutlierDetection::off()).await;
    pods.set(1..=4, Behaviour::After(5 * MILLI));
    load(&service, 400, MILLI).await;
    pods.set([1], Behaviour::After(200 * MILLI));
    let begun = calls(&pods, [1]);
    let slowest = load(&service, 200, MILLI).await;
    assert!(slowest <= 20 * MILLI, "{slowest:?}");
    assert_eq!(state(&service, 1), EndpointState::Available);
    let tries = calls(&pods, [1]) - begun;
    assert!(tries >= 40, "{tries}: its turns");
}

#[tokio::test(start_paused = true)]
async fn a_slow_pod_serves_if_the_other_one_fails() {
    let (pods, service) = hedged(2, Hedge::new()).await;
    pods.set([1, 2], Behaviour::After(5 * MILLI));
    load(&service, 400, MILLI).await;
    pods.set([1], Behaviour::After(200 * MILLI));
    load(&service, 100, MILLI).await;
    assert_eq!(state(&service, 1), SLOW);
    pods.set([2], Behaviour::Fail);
    for _ in 0..20 {
        // Requests may fail until that is known.
        let _ = send_number(&service, 3).await;
        sleep(MILLI).await;
    }
    assert_eq!(state(&service, 2), FAILS);
    for _ in 0..20 {
        let answered = send_number(&service, 3).await;
        assert_eq!(answered.expect("an answer"), endpoint(1));
    }
}

/// For example, a session's pod hangs just when the other one has been slow for a while.
#[tokio::test(start_paused = true)]
async fn a_slow_pod_gets_the_hedge_if_there_is_no_other() {
    for policy in [false, true] {
        // Before and after a trial is due.
        for pause in [Duration::ZERO, 10 * SECOND] {
            let pods = Pods::default();
            let endpoints: StaticEndpoints = (1..=2).map(web).collect();
            let balance = Balance::builder(endpoints);
            let mut balance = match policy {
                true => balance.policy(ConsistentHash::new()).build(pods.make()),
                false => balance.build(pods.make()),
            };
            balance.ready().await.expect("readiness never fails");
            let hedge = Hedge::new().share(1.0);
            let service = RetryLayer::new(Even).hedge(hedge).layer(balance);
            let prefer = |host: u8| Route::new().key(7).prefer(format!("web-{host}"));
            let send = |host| service.call_with(Request(2), prefer(host));
            pods.set([1, 2], Behaviour::After(5 * MILLI));
            for _ in 0..100 {
                send(1).await.expect("an answer");
                send(2).await.expect("an answer");
            }
            pods.set([1], Behaviour::After(200 * MILLI));
            while state(&service, 1) != SLOW {
                send(1).await.expect("an answer");
                sleep(MILLI).await;
            }
            pods.set([1], Behaviour::Answer);
            pods.set([2], Behaviour::After(5 * SECOND));
            sleep(pause).await;
            assert_eq!(state(&service, 1), SLOW);
            assert_eq!(send(2).await.expect("an answer").0, endpoint(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_due_to_be_tried_gets_the_hedge_if_there_is_no_other() {
    let detection = OutlierDetection::new().consecutive_failures(1);
    let change = |layer: RetryLayer<Even>| layer.hedge(Hedge::after(50 * MILLI));
    let (pods, service) = layered(2, change, detection).await;
    pods.set([1], Behaviour::Fail);
    while state(&service, 1) != FAILS {
        send(&service).await.expect("another one's answer");
        sleep(MILLI).await;
    }
    pods.set([1], Behaviour::Answer);
    pods.set([2], Behaviour::After(5 * SECOND));
    let prefer = || Route::new().prefer(endpoint(2).address());
    sleep(20 * SECOND).await;
    assert_eq!(state(&service, 1), FAILS);
    let answered = service.call_with(Request(2), prefer()).await;
    assert_eq!(answered.expect("an answer").0, endpoint(1));
    sleep(SECOND).await;
    assert_eq!(state(&service, 1), EndpointState::Available);
}

/// For example requests of its sessions, which are never hedged, and whose callers time out late.
#[tokio::test(start_paused = true)]
async fn a_slow_pod_that_hangs_gets_no_more_of_the_requests_that_prefer_it() {
    let (pods, service) = named(4).await;
    let send = |number| service.call_with(Request(number), Route::new().prefer("web-1"));
    pods.set(1..=4, Behaviour::After(5 * MILLI));
    load(&service, 400, MILLI).await;
    pods.set([1], Behaviour::Hold);
    while state(&service, 1) != SLOW {
        send(2).await.expect("a hedge's answer");
        sleep(MILLI).await;
    }
    let hung: Vec<_> = (0..5).map(|_| tokio::spawn(send(3))).collect();
    load(&service, 300, MILLI).await;
    let hangs = EndpointState::Ejected(EjectionReason::Unresponsive);
    assert_eq!(state(&service, 1), hangs);
    assert!(hung.iter().all(|request| !request.is_finished()));
    let answered = timeout(SECOND, send(3)).await.expect("an end");
    assert_ne!(answered.expect("an answer").0, endpoint(1));
}

/// A balancer over three pods, of which the first one failed and is out for a second, with a layer that hedges soon.
async fn with_one_ejected() -> (Pods, Hedged) {
    let detection = OutlierDetection::new()
        .consecutive_failures(1)
        .ejection_time(SECOND, 300 * SECOND);
    let change = |layer: RetryLayer<Even>| layer.hedge(Hedge::after(50 * MILLI).share(1.0));
    let (pods, service) = layered(3, change, detection).await;
    pods.set([1], Behaviour::Fail);
    while state(&service, 1) != FAILS {
        send(&service).await.expect("another one's answer");
        sleep(MILLI).await;
    }
    (pods, service)
}

/// For example, the pod is well again, but cold.
#[tokio::test(start_paused = true)]
async fn an_ejected_pod_whose_trial_loses_to_its_hedge_is_tried_again_within_seconds() {
    let (pods, service) = with_one_ejected().await;
    pods.set([1], Behaviour::After(80 * MILLI));
    let begun = calls(&pods, [1]);
    load(&service, 6_000, 10 * MILLI).await;
    assert_eq!(state(&service, 1), FAILS);
    let tries = calls(&pods, [1]) - begun;
    assert!((12..=20).contains(&tries), "{tries} tries in a minute");
    pods.set([1], Behaviour::Answer);
    load(&service, 700, 10 * MILLI).await;
    assert_eq!(state(&service, 1), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_overtaken_while_it_connects_is_not_repeated_at_once() {
    let (pods, service) = with_one_ejected().await;
    pods.set([1], Behaviour::Pending);
    sleep(2 * SECOND).await;
    let mut overtaken = 0;
    for _ in 0..100 {
        let begun = Instant::now();
        send(&service).await.expect("an answer");
        overtaken += usize::from(begun.elapsed() >= 50 * MILLI);
        sleep(10 * MILLI).await;
    }
    assert!((1..=4).contains(&overtaken), "{overtaken} of 100 waited");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_before_the_usual_p95_does_not_count_against_the_pod() {
    let (pods, service) = hedged(2, Hedge::after(5 * MILLI).share(1.0)).await;
    pods.set([1, 2], Behaviour::After(20 * MILLI));
    load_of(3, &service, 100, MILLI).await;
    pods.set([2], Behaviour::Answer);
    for _ in 0..20 {
        let answered = first_to_one(&pods, &service).await;
        assert_eq!(answered.expect("an answer"), endpoint(2));
        sleep(SECOND).await;
        assert_eq!(state(&service, 1), EndpointState::Available);
    }
}
