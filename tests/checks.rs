//! Health checks: what happens to pods that pass or fail them. Under paused time with scripted answers, and over real
//! sockets.

mod support;

#[path = "checks/scripted_checks.rs"]
mod scripted_checks;
#[path = "checks/sockets.rs"]
mod sockets;

use std::{collections::HashMap, error::Error as _, time::Duration};

use scripted_checks::{Answer, ScriptedChecks};
use support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, EjectionReason, Endpoint, EndpointState, Error, HealthCheck, OutlierDetection,
};

const SECOND: Duration = Duration::from_secs(1);
const OUT: EndpointState = EndpointState::Ejected(EjectionReason::CheckFailed);

struct Story {
    script: Script,
    pods: Pods,
    checks: ScriptedChecks,
    balance: Balance<PodService>,
}

/// A balancer over the pods `hosts`, which pass their checks until told otherwise.
async fn story(hosts: impl IntoIterator<Item = u8>) -> Story {
    story_with(hosts, OutlierDetection::new(), |check| check).await
}

async fn story_with(
    hosts: impl IntoIterator<Item = u8>,
    health: OutlierDetection,
    change: impl FnOnce(HealthCheck) -> HealthCheck,
) -> Story {
    let (script, discovery) = discovery();
    let (pods, checks) = (Pods::default(), ScriptedChecks::default());
    let mut balance = Balance::builder(discovery)
        .outlier_detection(health)
        .health_check(change(checks.check()))
        .build(pods.make());
    script.answer(hosts);
    balance.ready().await.expect("readiness never fails");
    Story {
        script,
        pods,
        checks,
        balance,
    }
}

impl Story {
    async fn send(&self) -> Result<Endpoint, Error> {
        let mut balance = self.balance.clone();
        let response = balance.ready().await?.call(Request(7)).await;
        response.map(|(endpoint, _)| endpoint)
    }

    /// Sends requests one after another. Returns how many went to each pod.
    async fn shares(&self, requests: usize, hosts: impl IntoIterator<Item = u8>) -> Vec<usize> {
        let hosts: Vec<_> = hosts.into_iter().collect();
        let calls = || hosts.iter().map(|&host| self.calls(host));
        let before: Vec<_> = calls().collect();
        for _ in 0..requests {
            let _ = self.send().await;
            settle().await;
        }
        calls()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect()
    }

    fn calls(&self, host: u8) -> usize {
        self.pods.counts(host).calls
    }

    fn state(&self, host: u8) -> EndpointState {
        let endpoints = self.balance.endpoints().into_iter();
        let mut endpoints = endpoints.filter(|status| status.endpoint == endpoint(host));
        endpoints.next().expect("an endpoint of the set").state
    }

    fn states<const N: usize>(&self, hosts: [u8; N]) -> [EndpointState; N] {
        hosts.map(|host| self.state(host))
    }

    /// Sends requests that the pods do not answer.
    fn hold(&self, requests: usize) -> impl Sized + use<> {
        self.pods.set(1..=4, Behaviour::Hold);
        let call = |_| {
            let mut request = task::spawn(self.balance.clone().call(Request(1)));
            assert!(request.poll().is_pending());
            request
        };
        (0..requests).map(call).collect::<Vec<_>>()
    }

    /// Waits until the pod is in this state. Returns how long that took.
    async fn until(&self, host: u8, state: EndpointState) -> Duration {
        let begun = Instant::now();
        while self.state(host) != state {
            assert!(begun.elapsed() < 120 * SECOND, "{:?}", self.state(host));
            sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}

/// Lets the background task catch up.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// The texts of an error and all its causes.
fn causes(error: &Error) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_out_after_three_checks_that_fail_and_back_after_one_that_passes() {
    let story = story(1..=4).await;
    story.checks.set([2], Answer::Fail);
    let took = story.until(2, OUT).await.as_secs_f64();
    assert_eq!(story.checks.begun(2), 3);
    // The first check comes within the first interval, and two more follow.
    assert!((18.0..=32.1).contains(&took), "{took}");
    assert_eq!(story.states([1, 3, 4]), [EndpointState::Available; 3]);
    assert_eq!(story.shares(30, 1..=4).await, [10, 0, 10, 10]);
    let shown = &story.balance.endpoints()[1];
    let expected = "10.0.0.2:80: ejected (health check failed), 0 in flight";
    assert_eq!(shown.to_string(), expected);

    story.checks.set([2], Answer::Pass);
    let took = story.until(2, EndpointState::Available).await;
    assert!(took <= 11_100 * SECOND / 1_000, "{took:?}");
    assert_eq!(story.checks.begun(2), 4);
    assert_eq!(story.shares(40, 1..=4).await, [10; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_passes_in_between_begins_the_count_anew() {
    let story = story([1, 2]).await;
    story.checks.set([2], Answer::Fail);
    for begun in [2, 5, 8] {
        story.checks.until_begun(2, begun).await;
        story.checks.set([2], Answer::Pass);
        story.checks.until_begun(2, begun + 1).await;
        story.checks.set([2], Answer::Fail);
    }
    assert_eq!(story.state(2), EndpointState::Available);
    story.until(2, OUT).await;
    assert_eq!(story.checks.begun(2), 12);
}

#[tokio::test(start_paused = true)]
async fn a_check_without_an_end_fails_after_its_timeout_and_one_that_panics_at_once() {
    for answer in [Answer::Hang, Answer::Panic] {
        let story = story([1, 2]).await;
        story.checks.set([2], answer);
        story.checks.until_begun(2, 3).await;
        sleep(SECOND * 9 / 10).await;
        let expected = match answer {
            Answer::Hang => EndpointState::Available,
            _ => OUT,
        };
        assert_eq!(story.state(2), expected, "{answer:?}");
        sleep(SECOND / 5).await;
        assert_eq!(story.state(2), OUT, "{answer:?}");
        assert_eq!(story.checks.running(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_the_last_handle() {
    let story = story_with(1..=4, OutlierDetection::new(), |check| {
        check.timeout(3600 * SECOND).require_initial_pass(true)
    })
    .await;
    story.checks.set(1..=4, Answer::Hang);
    settle().await;
    // Checks that had begun before have passed.
    sleep(12 * SECOND).await;
    assert_eq!(story.checks.running(), 4);
    let clone = story.balance.clone();
    drop(story.balance);
    settle().await;
    assert_eq!(story.checks.running(), 4);
    drop(clone);
    story.script.closed().await;
    assert_eq!(story.checks.running(), 0);
    let begun = story.checks.all().len();
    sleep(60 * SECOND).await;
    assert_eq!(story.checks.all().len(), begun);
    assert_eq!(story.checks.holders(), 1, "the test's own");
}

#[tokio::test(start_paused = true)]
async fn no_more_checks_run_than_the_concurrency_and_all_have_their_turn() {
    let change = |check: HealthCheck| check.concurrency(4).require_initial_pass(true);
    let (script, discovery) = discovery();
    let (pods, checks) = (Pods::default(), ScriptedChecks::default());
    checks.set(1..=40, Answer::Slow(SECOND / 2));
    let check = change(checks.check());
    let balance = Balance::builder(discovery)
        .health_check(check)
        .build(pods.make());
    script.answer(1..=40);
    sleep(SECOND * 51 / 10).await;
    let states = balance.endpoints();
    let available = |it: &&_| matches!(it, EndpointState::Available);
    let states: Vec<_> = states.iter().map(|it| it.state).collect();
    assert_eq!(states.iter().filter(available).count(), 40);
    assert_eq!(checks.most(), 4);
}

/// When a seeded balancer checks which pod, in its first minute.
async fn seeded_checks(seed: u64) -> Vec<(Duration, u8)> {
    let (script, discovery) = discovery();
    let (pods, checks) = (Pods::default(), ScriptedChecks::default());
    let begun = Instant::now();
    let mut balance = Balance::builder(discovery)
        .seed(seed)
        .health_check(checks.check())
        .build(pods.make());
    script.answer(1..=4);
    balance.ready().await.expect("readiness never fails");
    sleep(60 * SECOND).await;
    let all = checks.all().into_iter();
    all.map(|(at, host)| (at - begun, host)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_the_checks() {
    let checks = seeded_checks(7).await;
    assert!(checks.len() > 20, "{checks:?}");
    assert_eq!(checks, seeded_checks(7).await);
    assert_ne!(checks, seeded_checks(8).await);
}

#[tokio::test(start_paused = true)]
async fn checks_are_spread_and_jittered() {
    let begun = Instant::now();
    let story = story(1..=200).await;
    sleep(60 * SECOND).await;
    let (mut firsts, mut last) = ([0; 10], HashMap::new());
    let mut pauses = Vec::new();
    for (at, host) in story.checks.all() {
        match last.insert(host, at) {
            None => firsts[(at.duration_since(begun).as_secs() as usize).min(9)] += 1,
            Some(before) => pauses.push(at.duration_since(before).as_secs_f64()),
        }
    }
    assert_eq!(last.len(), 200);
    // Twenty on average; a burst would be all of them.
    assert!(firsts.iter().all(|&checks| checks < 60), "{firsts:?}");
    assert!(pauses.iter().all(|it| (8.99..=11.01).contains(it)));
    assert!(pauses.iter().any(|it| *it < 9.7) && pauses.iter().any(|it| *it > 10.3));
}

#[tokio::test(start_paused = true)]
async fn no_request_comes_before_the_first_check_has_passed() {
    let (script, discovery) = discovery();
    let (pods, checks) = (Pods::default(), ScriptedChecks::default());
    checks.set(1..=3, Answer::Fail);
    let mut balance = Balance::builder(discovery)
        .health_check(checks.check().require_initial_pass(true))
        .build(pods.make());
    script.answer(1..=3);
    balance.ready().await.expect("readiness never fails");
    let mut request = task::spawn(balance.call(Request(7)));
    assert_pending!(request.poll());
    sleep(SECOND * 5 / 2).await;
    assert_pending!(request.poll(), "all are asked, and fail");
    let shown = balance.endpoints()[0].to_string();
    let expected =
        "10.0.0.1:80: pending (no health check passed, or not connected yet), 0 in flight";
    assert_eq!(shown, expected);

    checks.set([2], Answer::Pass);
    let (endpoint, _) = request.await.expect("an answer");
    assert_eq!(endpoint, support::scripted::endpoint(2));
    let story = Story {
        script,
        pods,
        checks,
        balance,
    };
    assert_eq!(story.shares(30, 1..=3).await, [0, 30, 0]);
    // A new pod has to pass, too.
    story.checks.set([4], Answer::Slow(SECOND / 2));
    story.script.answer(1..=4);
    settle().await;
    assert_eq!(story.state(4), EndpointState::Pending);
    assert_eq!(story.shares(30, 1..=4).await, [0, 30, 0, 0]);
    sleep(SECOND).await;
    assert_eq!(story.shares(30, 1..=4).await, [0, 15, 0, 15]);
}

#[tokio::test(start_paused = true)]
async fn if_none_passes_requests_fail_after_the_ready_timeout_and_say_why() {
    let story = story_with(1..=3, OutlierDetection::new(), |check| {
        check.require_initial_pass(true)
    });
    let story = story.await;
    story.checks.set(1..=3, Answer::Fail);
    // Checks may have passed before the pods were told to fail; those don't matter here.
    story.script.answer(11..=13);
    story.checks.set(11..=13, Answer::Fail);
    settle().await;
    let begun = Instant::now();
    let error = story.send().await.expect_err("none passes");
    assert!(error.is_unreachable() && error.is_unsent());
    assert_eq!(begun.elapsed(), 5 * SECOND);
    let [what, check, why] = &causes(&error)[..] else {
        panic!("{:?}", causes(&error));
    };
    let start = "none of 3 endpoints accepts requests; pod 10.0.0.1";
    assert!(what.starts_with(start), "{what}");
    assert!(
        what.ends_with("refused last: its health check failed: not well"),
        "{what}"
    );
    assert_eq!(check, "its health check failed: not well");
    assert_eq!(why, "not well");
    let begun = Instant::now();
    story.send().await.expect_err("none passes");
    assert_eq!(begun.elapsed(), Duration::ZERO, "and nothing piles up");

    story.checks.set([12], Answer::Pass);
    story.until(12, EndpointState::Available).await;
    // That ended the outage: if the pod refuses now, requests have their full time again.
    story.pods.set([12], Behaviour::NotReady);
    let mut balance = story.balance.clone();
    let mut request = task::spawn(balance.call(Request(7)));
    assert_pending!(request.poll());
    story.pods.set([12], Behaviour::Answer);
    request.await.expect("an answer");
    assert_eq!(story.send().await.expect("an answer"), endpoint(12));
}

#[tokio::test(start_paused = true)]
async fn failed_checks_may_put_out_more_than_may_be_ejected() {
    let health = OutlierDetection::new().max_ejection_ratio(0.1);
    let story = story_with(1..=10, health, |check| check).await;
    story.checks.set(1..=5, Answer::Fail);
    for host in 1..=5 {
        story.until(host, OUT).await;
    }
    let shares = story.shares(50, 1..=10).await;
    assert_eq!(shares, [0, 0, 0, 0, 0, 10, 10, 10, 10, 10]);
    // Failed requests may eject one more, which brings a panic, because fewer than half are left.
    story.pods.set([6], Behaviour::Fail);
    let shares = story.shares(200, 1..=10).await;
    assert!(shares.iter().all(|&calls| calls >= 10), "{shares:?}");
    assert_eq!(story.states([1, 5]), [EndpointState::Available; 2]);
    // The panic ends when enough are well again.
    story.checks.set([1], Answer::Pass);
    story.until(2, OUT).await;
    assert_eq!(story.state(1), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn without_a_panic_threshold_all_can_be_out() {
    let health = OutlierDetection::off().panic_threshold(0.0);
    let story = story_with(1..=4, health, |check| check).await;
    story.checks.set(1..=4, Answer::Fail);
    for host in 1..=4 {
        story.until(host, OUT).await;
    }
    let error = story.send().await.expect_err("all fail");
    assert!(error.is_unreachable());
    assert!(causes(&error)[1].starts_with("its health check failed"));
    assert_eq!((1..=4).map(|host| story.calls(host)).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_passed_neither_cause_a_panic_nor_come_in_by_one() {
    let change = |check: HealthCheck| check.require_initial_pass(true);
    let story = story_with(1..=2, OutlierDetection::new(), change).await;
    for host in 1..=2 {
        story.until(host, EndpointState::Available).await;
    }
    story.checks.set(3..=8, Answer::Fail);
    story.script.answer(1..=8);
    settle().await;
    story.pods.set([2], Behaviour::Fail);
    story.shares(40, 1..=8).await;
    let ejected = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);
    assert_eq!(story.state(2), ejected, "one of two, not one of eight");
    assert_eq!(story.states([3, 8]), [EndpointState::Pending; 2]);
    // None of the two is left: the panic brings these back, and no others.
    story.pods.set([2], Behaviour::Answer);
    story.checks.set(1..=2, Answer::Fail);
    sleep(40 * SECOND).await;
    story.shares(40, 1..=8).await;
    assert_eq!(story.states([1, 2]), [EndpointState::Available; 2]);
    assert_eq!(story.shares(40, 1..=8).await, [20, 20, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn checks_that_pass_do_not_end_an_ejection_for_failed_requests() {
    let change = |check: HealthCheck| check.interval(SECOND / 10);
    let story = story_with(1..=4, OutlierDetection::new(), change).await;
    story.pods.set([2], Behaviour::Fail);
    story.shares(40, 1..=4).await;
    story.pods.set([2], Behaviour::Answer);
    let before = story.checks.begun(2);
    sleep(4 * SECOND).await;
    assert!(story.checks.begun(2) > before + 30);
    let ejected = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);
    assert_eq!(story.state(2), ejected);
    sleep(2 * SECOND).await;
    assert!(story.shares(40, 1..=4).await[1] > 8, "its one request did");
}

#[tokio::test(start_paused = true)]
async fn no_request_tries_a_pod_while_its_checks_fail() {
    let change = |check: HealthCheck| check.interval(SECOND);
    let story = story_with(1..=10, OutlierDetection::new(), change).await;
    story.pods.set([2, 3], Behaviour::Fail);
    story.pods.set([4], Behaviour::HandBack);
    story.checks.set([2, 4], Answer::Fail);
    story.shares(100, 1..=10).await;
    story.until(2, OUT).await;
    sleep(20 * SECOND).await;
    // Pod 3 is tried; its trial doesn't offer the other pod's.
    let shares = story.shares(100, 1..=10).await;
    assert_eq!((shares[1], shares[2], shares[3]), (0, 1, 0));
    story.pods.set([2, 4], Behaviour::Answer);
    assert_eq!(story.shares(100, 1..=10).await[1], 0);

    story.checks.set([2, 4], Answer::Pass);
    sleep(2 * SECOND).await;
    let ejected = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);
    assert_eq!(story.state(2), ejected, "its requests have failed, too");
    assert_eq!(story.state(4), EndpointState::Unreachable);
    story.shares(2, [1]).await;
    assert_eq!(story.states([2, 4]), [EndpointState::Available; 2]);
}

#[tokio::test(start_paused = true)]
async fn failed_requests_are_forgotten_when_the_checks_pass_again() {
    let health = OutlierDetection::new().success_rate(None);
    let change = |check: HealthCheck| check.interval(SECOND);
    let story = story_with(1..=4, health, change).await;
    story.pods.set([2], Behaviour::Fail);
    assert_eq!(
        story.shares(16, 1..=4).await[1],
        4,
        "one short of an ejection"
    );
    story.checks.set([2], Answer::Fail);
    story.until(2, OUT).await;
    story.checks.set([2], Answer::Pass);
    story.until(2, EndpointState::Available).await;
    assert_eq!(story.shares(16, 1..=4).await[1], 4);
    assert_eq!(story.state(2), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_and_returns_begins_anew() {
    let story = story(1..=4).await;
    // A request from before it left still runs.
    let _held = story.hold(4);
    story.checks.set([2], Answer::Fail);
    story.until(2, OUT).await;
    story.script.answer([1, 3, 4]);
    settle().await;
    story.script.answer(1..=4);
    settle().await;
    assert_eq!(story.state(2), EndpointState::Available);
    assert_eq!(story.balance.endpoints()[1].in_flight, 0);
    story.until(2, OUT).await;
    assert_eq!(story.checks.begun(2), 6);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_returns_has_to_pass_first_even_if_an_old_request_runs() {
    let change = |check: HealthCheck| check.require_initial_pass(true);
    let story = story_with(1..=2, OutlierDetection::new(), change).await;
    story.until(1, EndpointState::Available).await;
    story.until(2, EndpointState::Available).await;
    let _held = story.hold(2);
    story.checks.set([2], Answer::Fail);
    story.script.answer([1]);
    settle().await;
    story.script.answer([1, 2]);
    settle().await;
    assert_eq!(story.state(2), EndpointState::Pending);
    assert_eq!(story.balance.endpoints()[1].in_flight, 0);
    story.pods.set([1, 2], Behaviour::Answer);
    assert_eq!(story.shares(20, 1..=2).await, [20, 0]);
}
