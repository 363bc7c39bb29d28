//! Tower's own balancer over our discovery, and tower's layers around our balancer.

mod support;

use std::{collections::BTreeMap, convert::Infallible, task::Poll, time::Duration};

use futures::{StreamExt, future::join_all, poll};
use support::scripted::{
    Behaviour, PodService, Pods, Request, Script, World, discovery, endpoint, settle,
};
use tokio::time::sleep;
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{
    Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    discover::{Change, Discover},
    limit::ConcurrencyLimit,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    load_shed::{LoadShed, error::Overloaded},
    timeout::error::Elapsed,
};
use tower_headless::{Endpoint, ServiceStream};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn towers_p2c_spreads_requests_over_what_discovery_finds_through_its_failures() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let services = ServiceStream::new(source, pods.make());
    let loads = PendingRequestsDiscover::new(services, CompleteOnResponse::default());
    let mut balance = Balance::new(loads);
    script.fail("SERVFAIL"); // tower takes an error for the end
    script.answer([1, 2, 3]);
    let mut answers = BTreeMap::<Endpoint, u32>::new();
    for round in 0..300 {
        script.fail("SERVFAIL");
        // Yields, because by tokio's budget a task that never does hears nothing new.
        tokio::task::yield_now().await;
        if round == 200 {
            script.answer([2, 3, 4]);
        }
        let ready = balance.ready().await.expect("discovery never ends");
        let (pod, _) = ready.call(Request(round)).await.expect("a response");
        *answers.entry(pod).or_default() += 1;
    }
    assert!(answers.keys().cloned().eq([1, 2, 3, 4].map(endpoint)));
    assert!(
        answers.values().all(|answers| *answers >= 10),
        "{answers:?}"
    );
    let calls = pods.counts(1).calls;
    for round in 0..50 {
        let ready = balance.ready().await.expect("discovery never ends");
        ready.call(Request(round)).await.expect("a response");
    }
    assert_eq!(pods.counts(1).calls, calls, "it has left");
    assert_eq!(pods.alive(1), 0, "and its service with it");
}

/// When the set is replaced, it is never empty in between, and a pod that stays isn't reported again.
#[tokio::test(start_paused = true)]
async fn pods_that_join_come_before_pods_that_leave() {
    let (script, source) = discovery();
    let mut services = ServiceStream::new(source, |endpoint: &Endpoint| endpoint.clone());
    script.answer([1, 2]);
    script.answer([2, 1, 1]);
    script.answer([2, 3]);
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(match services.next().await {
            Some(Ok(Change::Insert(pod, service))) => {
                assert_eq!(pod, service);
                ('+', pod)
            }
            Some(Ok(Change::Remove(pod))) => ('-', pod),
            end => panic!("{end:?}"),
        });
    }
    let expected = [('+', 1), ('+', 2), ('+', 3), ('-', 1)];
    assert_eq!(heard, expected.map(|(sign, host)| (sign, endpoint(host))));
    assert!(poll!(services.next()).is_pending());
}

/// Tower knows a pod by its endpoint when it joined, so that is what is removed, whatever was learnt since.
#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_over_an_address_replaces_the_service() {
    let (script, source) = discovery();
    let mut services = ServiceStream::new(source, |_: &Endpoint| ());
    let uid = |uid: &str| endpoint(1).with_pod_uid(uid);
    script.answer([1]);
    script.endpoints(vec![uid("a")]);
    script.endpoints(vec![uid("b")]);
    let mut heard = Vec::new();
    while let Poll::Ready(Some(Ok(change))) = poll!(services.next()) {
        heard.push(match change {
            Change::Insert(pod, ()) => ('+', pod),
            Change::Remove(pod) => ('-', pod),
        });
    }
    assert_eq!(
        heard,
        [('+', endpoint(1)), ('+', uid("b")), ('-', endpoint(1))]
    );
}

#[test]
fn the_service_stream_is_towers_discover_and_never_fails() {
    fn check<T: Discover<Key = Endpoint, Error = Infallible>>(_: &T) {}
    let (_script, source) = discovery();
    let pods = Pods::default();
    check(&ServiceStream::new(source, pods.make()));
}

// ---------------------------------------------------------------- tower's layers around our balancer

type Ours = tower_headless::Balance<PodService>;

/// A balancer that discovery has not answered yet.
fn undiscovered() -> (Script, Pods, Ours) {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = tower_headless::Balance::builder(source).build(pods.make());
    (script, pods, balance)
}

#[tokio::test(start_paused = true)]
async fn poll_ready_waits_for_the_first_answer_not_for_a_pod_that_accepts() {
    let (script, pods, mut balance) = undiscovered();
    pods.set([1], Behaviour::NotReady);
    assert!(task::spawn(balance.ready()).poll().is_pending());
    script.answer([1]);
    balance.ready().await.expect("readiness never fails");
    assert!(balance.staleness().is_some());
    let (_script, _pods, mut balance) = undiscovered();
    balance.ready().await.expect("after the ready timeout");
    assert_eq!(balance.staleness(), None, "there was no answer");
}

#[tokio::test(start_paused = true)]
async fn load_shed_sheds_before_the_first_answer_and_nothing_after_it() {
    let (script, pods, balance) = undiscovered();
    let mut service = ServiceBuilder::new().load_shed().service(balance);
    let shed = service.ready().await.expect("always").call(Request(1));
    let error = shed.await.expect_err("shed");
    assert!(error.is::<Overloaded>(), "{error}");
    pods.set([1], Behaviour::NotReady);
    script.answer([1]);
    settle().await;
    let waits = service.ready().await.expect("always").call(Request(2));
    let mut waits = task::spawn(waits);
    assert_pending!(waits.poll());
    pods.set([1], Behaviour::Answer);
    waits.await.expect("it has waited for the pod");
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_load_shed_bounds_how_many_wait_for_a_pod() {
    let world = World::of(vec![endpoint(1)], |builder| builder).await;
    world.pods.set([1], Behaviour::NotReady);
    let service = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(2)
        .service(world.balance.clone());
    let mut requests = [1, 2, 3].map(|n| task::spawn(service.clone().oneshot(Request(n))));
    assert_pending!(requests[0].poll());
    assert_pending!(requests[1].poll());
    let [first, second, third] = requests;
    let error = third.await.expect_err("one too many");
    assert!(error.is::<Overloaded>(), "{error}");
    world.pods.set([1], Behaviour::Answer);
    for answer in join_all([first, second]).await {
        answer.expect("a response");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_the_wait_for_a_pod_and_not_for_the_first_answer() {
    let (script, pods, balance) = undiscovered();
    let service = ServiceBuilder::new().timeout(SECOND).service(balance);
    let mut request = task::spawn(service.clone().oneshot(Request(1)));
    assert_pending!(request.poll());
    sleep(3 * SECOND).await;
    assert_pending!(request.poll());
    script.answer([1]);
    request.await.expect("its second begins with its call");
    pods.set([1], Behaviour::NotReady);
    let error = service.clone().oneshot(Request(2)).await;
    let error = error.expect_err("no pod");
    assert!(error.is::<Elapsed>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_buffer_keeps_requests_until_the_first_answer() {
    let (script, pods, balance) = undiscovered();
    let service = ServiceBuilder::new().buffer(2).service(balance);
    let mut requests = [1, 2].map(|n| task::spawn(service.clone().oneshot(Request(n))));
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    settle().await;
    assert_eq!(pods.counts(1).calls, 0);
    script.answer([1]);
    settle().await;
    assert_eq!(pods.counts(1).calls, 2, "by the buffer's own task");
    for mut request in requests {
        assert_ready_ok!(request.poll());
    }
}

/// A limit around a pod's service is shared by all its clones.
#[tokio::test(start_paused = true)]
async fn a_limit_around_a_pods_service_counts_for_the_pod() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut make = pods.make();
    let balance = tower_headless::Balance::builder(source)
        .build(move |pod: &Endpoint| ConcurrencyLimit::new(make(pod), 1));
    script.answer([1]);
    settle().await;
    pods.set([1], Behaviour::Hold);
    let mut requests = [1, 2].map(|n| task::spawn(balance.clone().oneshot(Request(n))));
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    assert_eq!(pods.counts(1).calls, 1, "the other one waits");
    pods.set([1], Behaviour::Answer);
    for answer in join_all(requests).await {
        answer.expect("a response");
    }
}

/// `load_shed` is always ready, and fails the call; to the balancer that is the pod's error.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_pods_own_load_shed_reaches_the_caller() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut make = pods.make();
    let balance = tower_headless::Balance::builder(source)
        .build(move |pod: &Endpoint| LoadShed::new(ConcurrencyLimit::new(make(pod), 1)));
    script.answer([1]);
    settle().await;
    pods.set([1], Behaviour::Hold);
    let mut held = task::spawn(balance.clone().oneshot(Request(1)));
    assert_pending!(held.poll());
    let error = balance.clone().oneshot(Request(2)).await;
    let error = error.expect_err("shed");
    assert!(error.is_endpoint(), "{error}");
    let source = std::error::Error::source(&error).expect("the pod's");
    assert!(source.is::<Overloaded>(), "{source}");
}

#[tokio::test(start_paused = true)]
async fn oneshot_with_the_last_clone_closes_the_balancer_while_its_request_waits() {
    let (script, pods, balance) = undiscovered();
    pods.set([1], Behaviour::NotReady);
    script.answer([1]);
    let kept = balance.clone();
    let mut waits = task::spawn(balance.oneshot(Request(1)));
    settle().await;
    assert_pending!(waits.poll());
    drop(kept);
    let error = waits.await.expect_err("nobody tries the pod again");
    assert!(error.is_unsent() && !error.is_unreachable(), "{error}");
}
