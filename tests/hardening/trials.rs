//! Trial requests, back-offs, and the requests that wait for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, BoxError, Endpoint, EndpointState, Error, HealthCheck, OnResponse, Outcome,
    OutlierDetection, Route, StaticEndpoints,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

struct Story {
    script: Script,
    pods: Pods,
    balance: Balance<PodService>,
}

async fn story_with(hosts: impl IntoIterator<Item = u8>, detection: OutlierDetection) -> Story {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .outlier_detection(detection)
        .build(pods.make());
    script.answer(hosts);
    balance.ready().await.expect("readiness never fails");
    Story {
        script,
        pods,
        balance,
    }
}

impl Story {
    async fn send(&self) -> Result<Endpoint, Error> {
        let mut balance = self.balance.clone();
        let answer = balance.ready().await?.call(Request(1)).await;
        settle().await;
        answer.map(|(endpoint, _)| endpoint)
    }

    fn state(&self, host: u8) -> EndpointState {
        let all = self.balance.endpoints().into_iter();
        let mut one = all.filter(|it| it.endpoint.address() == endpoint(host).address());
        one.next().expect("one of the set").state
    }
}

/// A request took the trial and was cancelled. Nothing told the waiting requests that the trial was on offer again.
#[tokio::test(start_paused = true)]
async fn a_waiting_request_is_woken_when_a_trial_is_given_back() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).wait_for_ready().build(pods.make());
    script.answer([1]);
    balance.ready().await.expect("ready");
    pods.set([1], Behaviour::HandBack);
    let mut first = task::spawn(balance.call(Request(1)));
    let mut second = task::spawn(balance.call(Request(2)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    pods.set([1], Behaviour::Hold);
    sleep(SECOND).await;
    let before = pods.counts(1).calls;
    assert_pending!(first.poll());
    assert_eq!(pods.counts(1).calls, before + 1, "the first has the trial");
    assert_pending!(second.poll());
    // The trial is cancelled; the pod is well from now on.
    drop(first);
    pods.set([1], Behaviour::Answer);
    let answer = timeout(3_600 * SECOND, second).await;
    assert!(
        answer.is_ok(),
        "the pod would accept, and nobody asks it for an hour"
    );
}

/// A request for one pod that was handed back got a new ready timeout each time.
#[tokio::test(start_paused = true)]
async fn a_request_for_one_pod_ends_within_the_ready_timeout() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .ready_timeout(SECOND)
        .build(pods.make());
    script.endpoints(vec![endpoint(1).with_hostname("web-0")]);
    balance.ready().await.expect("ready");
    pods.set([1], Behaviour::HandBack);
    balance
        .call(Request(0))
        .await
        .expect_err("it hands all back");
    let request = balance.call_with(Request(1), Route::new().pod("web-0"));
    let error = timeout(600 * SECOND, request).await;
    assert!(error.is_ok(), "still waiting after 600 × the ready timeout");
}

/// A pod handed a request back once, and hung when it was back: each later request became its trial.
#[tokio::test(start_paused = true)]
async fn a_hung_pod_on_trial_gets_few_of_the_requests() {
    let story = story_with(1..=4, OutlierDetection::new()).await;
    story.pods.set([2], Behaviour::HandBack);
    for _ in 0..8 {
        story.send().await.expect("three pods are well");
    }
    story.pods.set([2], Behaviour::Hold);
    sleep(SECOND).await;
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(timeout(SECOND, story.send()).await.is_err());
        sleep(100 * MILLI).await;
    }
    assert!(
        failed <= 10,
        "{failed} of 100 requests went to the one hung pod of four"
    );
}

/// Each later request became the trial of an ejected pod that hung, because callers gave up before it was known to be
/// unresponsive.
#[tokio::test(start_paused = true)]
async fn a_hung_pod_that_is_half_open_gets_few_of_the_requests() {
    let hangs = Arc::new(AtomicBool::new(false));
    let called = Arc::new(AtomicUsize::new(0));
    let pods = StaticEndpoints::new((1..=4).map(|host| endpoint(host).address()));
    let (hung, calls) = (hangs.clone(), called.clone());
    let mut balance = Balance::builder(pods).build(move |it: &Endpoint| {
        let (is_bad, hangs, called) = (
            it.address() == endpoint(2).address(),
            hung.clone(),
            calls.clone(),
        );
        service_fn(move |()| {
            let (hangs, called) = (hangs.clone(), called.clone());
            async move {
                if is_bad {
                    called.fetch_add(1, Relaxed);
                    if hangs.load(Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    return Err::<(), BoxError>("bad".into());
                }
                sleep(100 * MILLI).await;
                Ok(())
            }
        })
    });
    for _ in 0..40 {
        let _ = balance.ready().await.expect("ready").call(()).await;
        settle().await;
    }
    let is_out = |balance: &Balance<_>| {
        let all: Vec<_> = balance.endpoints();
        matches!(all[1].state, EndpointState::Ejected(_))
    };
    assert!(is_out(&balance));
    hangs.store(true, Relaxed);
    let before = called.load(Relaxed);
    let (begun, mut sent, mut failed) = (Instant::now(), 0, 0);
    while begun.elapsed() < 120 * SECOND {
        // Three times as long as an answer takes.
        let mut clone = balance.clone();
        let request = clone.ready().await.expect("ready").call(());
        failed += usize::from(timeout(300 * MILLI, request).await.is_err());
        sent += 1;
    }
    let calls = called.load(Relaxed) - before;
    assert!(
        failed <= 20,
        "{failed} of {sent} requests failed, {calls} went to the pod that is out"
    );
}

/// An ejected pod that also refused connections got its trial before its back-off was over.
#[tokio::test(start_paused = true)]
async fn a_pod_both_ejected_and_unreachable_gets_no_request() {
    let story = story_with(1..=4, OutlierDetection::new()).await;
    story.pods.set([2], Behaviour::Fail);
    for _ in 0..40 {
        let _ = story.send().await;
    }
    assert!(matches!(story.state(2), EndpointState::Ejected(_)));
    story.pods.set([2], Behaviour::NotReady);
    while story.state(2) != EndpointState::Unreachable {
        story.send().await.expect("three pods are well");
        sleep(100 * MILLI).await;
    }
    // From now on connections to it are not even refused.
    story.pods.set([2], Behaviour::Pending);
    let begun = Instant::now();
    while begun.elapsed() < 120 * SECOND {
        let request = timeout(4 * SECOND, story.send()).await;
        let at = begun.elapsed();
        assert!(
            request.is_ok(),
            "after {at:?} a request waits for a pod that is {}",
            story.state(2)
        );
        sleep(100 * MILLI).await;
    }
}

/// Ejected endpoints that were unreachable for a while weren't counted, so that too many were ejected.
#[tokio::test(start_paused = true)]
async fn no_more_than_the_allowed_part_is_ejected() {
    let detection = OutlierDetection::new().panic_threshold(0.0);
    let story = story_with(1..=4, detection).await;
    story.pods.set([1, 2], Behaviour::Fail);
    for _ in 0..40 {
        let _ = story.send().await;
    }
    story.pods.set([1, 2], Behaviour::NotReady);
    while story.state(1) != EndpointState::Unreachable
        || story.state(2) != EndpointState::Unreachable
    {
        story.send().await.expect("two pods are well");
        sleep(100 * MILLI).await;
    }
    story.pods.set([3], Behaviour::Fail);
    for _ in 0..40 {
        let _ = story.send().await;
    }
    // They accept again.
    story.pods.set([1, 2], Behaviour::Answer);
    let mut most = 0;
    let begun = Instant::now();
    while begun.elapsed() < 20 * SECOND {
        let out = (1..=4).filter(|&it| matches!(story.state(it), EndpointState::Ejected(_)));
        most = most.max(out.count());
        let _ = story.send().await;
        sleep(50 * MILLI).await;
    }
    assert!(
        most <= 2,
        "{most} of 4 are ejected at one time; half may be"
    );
}

/// A trial whose outcome is ignored must not readmit its pod.
#[tokio::test(start_paused = true)]
async fn a_trial_with_an_ignored_outcome_readmits_no_pod() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let classify = |result: Result<&(Endpoint, u32), &BoxError>| match result {
        Ok(_) => Outcome::Ignored,
        Err(_) => Outcome::Failure,
    };
    let mut balance = Balance::builder(source)
        .completion(OnResponse::by(classify))
        .build(pods.make());
    script.answer(1..=4);
    balance.ready().await.expect("ready");
    pods.set([2], Behaviour::Fail);
    for _ in 0..40 {
        let _ = balance.ready().await.expect("ready").call(Request(1)).await;
        settle().await;
    }
    assert!(matches!(
        balance.endpoints()[1].state,
        EndpointState::Ejected(_)
    ));
    pods.set([2], Behaviour::Answer);
    for _ in 0..10 {
        let _ = balance.ready().await.expect("ready").call(Request(1)).await;
        sleep(1_500 * MILLI).await;
    }
    let state = balance.endpoints()[1].state;
    assert!(matches!(state, EndpointState::Ejected(_)), "it is {state}");
}

/// While many pods are black holes, a pod that comes back is found within its longest back-off.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_back_is_found_in_time_among_many_black_holes() {
    const BAD: std::ops::RangeInclusive<u8> = 1..=200;
    let story = story_with(1..=201, OutlierDetection::new()).await;
    story.pods.set(BAD, Behaviour::NotReady);
    for _ in 0..210 {
        story.send().await.expect("one pod is well");
    }
    assert_eq!(story.state(7), EndpointState::Unreachable);
    story.pods.set(BAD, Behaviour::Pending);
    sleep(60 * SECOND).await;
    let back = [10, 40, 70, 100, 130, 160, 190];
    story.pods.set(back, Behaviour::Answer);
    let begun = Instant::now();
    let is_lost = |host: &u8| story.state(*host) != EndpointState::Available;
    while back.iter().any(is_lost) && begun.elapsed() < 120 * SECOND {
        story.send().await.expect("one pod is well");
        sleep(100 * MILLI).await;
    }
    let took = begun.elapsed();
    assert!(
        took < 12 * SECOND,
        "it took {took:?}; the back-off is 6 s at most"
    );
}

/// The check of a pod that has left must not take another one's turn.
#[tokio::test(start_paused = true)]
async fn the_check_of_a_pod_that_left_delays_no_other() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let check = HealthCheck::by(|it: Endpoint| async move {
        if it == endpoint(1) {
            std::future::pending::<()>().await;
        }
        Ok::<_, BoxError>(())
    });
    let check = check
        .require_initial_pass(true)
        .concurrency(1)
        .timeout(600 * SECOND);
    let mut balance = Balance::builder(source)
        .health_check(check)
        .wait_for_ready()
        .build(pods.make());
    script.answer([1]);
    balance.ready().await.expect("ready");
    sleep(SECOND).await;
    script.answer([2]);
    let begun = Instant::now();
    balance.call(Request(1)).await.expect("pod 2's answer");
    let took = begun.elapsed();
    assert!(took < 5 * SECOND, "pod 2 was asked after {took:?}");
}

/// A pod that hands a single request back must be tried again.
#[tokio::test(start_paused = true)]
async fn a_pod_that_hands_one_request_back_is_tried_again() {
    let story = story_with([1], OutlierDetection::new()).await;
    story.script.answer([1, 2]);
    settle().await;
    assert_eq!(story.balance.endpoints().len(), 2);
}
