//! Outlier detection: what happens to pods whose requests fail, under paused time, with scripted discovery and pods.

mod support;

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use support::scripted::{Behaviour, PodService, Pods, Request, Script, discovery, endpoint};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, BoxError, EjectionReason, Endpoint, EndpointState, Error, LeastConnections,
    OnResponse, Outcome, OutlierDetection, Policy, Random, RoundRobin, StaticEndpoints,
};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(25);

struct Story {
    script: Script,
    pods: Pods,
    balance: Balance<PodService>,
}

/// A balancer over the pods `hosts`.
async fn story(hosts: impl IntoIterator<Item = u8>) -> Story {
    story_with(hosts, RoundRobin::new(), OutlierDetection::new()).await
}

async fn story_with<P: Policy>(
    hosts: impl IntoIterator<Item = u8>,
    policy: P,
    health: OutlierDetection,
) -> Story {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(discovery)
        .policy(policy)
        .outlier_detection(health)
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
        let response = balance.ready().await?.call(Request(7)).await;
        response.map(|(endpoint, _)| endpoint)
    }

    /// Sends requests one after another. Returns how many failed.
    async fn failures(&self, requests: usize) -> usize {
        let mut failed = 0;
        for _ in 0..requests {
            failed += usize::from(self.send().await.is_err());
            settle().await;
        }
        failed
    }

    fn state(&self, host: u8) -> EndpointState {
        let endpoints = self.balance.endpoints().into_iter();
        let mut endpoints = endpoints.filter(|status| status.endpoint == endpoint(host));
        endpoints.next().expect("an endpoint of the set").state
    }

    fn is_ejected(&self, host: u8) -> bool {
        matches!(self.state(host), EndpointState::Ejected(_))
    }

    fn calls(&self, host: u8) -> usize {
        self.pods.counts(host).calls
    }

    /// Sends a request every 100 ms for `time`. Returns when `host` got one.
    async fn when_called(&self, host: u8, time: Duration) -> Vec<Duration> {
        let begun = Instant::now();
        let mut seen = Vec::new();
        while begun.elapsed() < time {
            let before = self.calls(host);
            let _ = self.send().await;
            settle().await;
            if self.calls(host) > before {
                seen.push(begun.elapsed());
            }
            sleep(4 * TICK).await;
        }
        seen
    }
}

/// Lets the background task catch up.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_is_passed_over_after_five_failures() {
    let story = story(1..=4).await;
    story.pods.set([2], Behaviour::Fail);
    assert_eq!(story.failures(100).await, 5);
    let reason = EjectionReason::ConsecutiveFailures;
    assert_eq!(story.state(2), EndpointState::Ejected(reason));
    assert_eq!(story.state(1), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_with_one_failing_five_requests_fail() {
    for behaviour in [Behaviour::Fail, Behaviour::NotReady, Behaviour::HandBack] {
        let story = story([1, 2]).await;
        story.pods.set([2], behaviour);
        let failed = story.failures(100).await;
        let expected = if behaviour == Behaviour::Fail { 5 } else { 0 };
        assert_eq!(failed, expected, "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_is_tried_with_one_request_after_doubling_pauses() {
    let story = story(1..=4).await;
    story.pods.set([2], Behaviour::Fail);
    story.failures(40).await;
    let seen = story.when_called(2, 90 * SECOND).await;
    // 5 s, then 10, 20 and 40 after the one before, ± 10 %.
    let before = std::iter::once(&Duration::ZERO).chain(&seen);
    let pauses: Vec<_> = seen
        .iter()
        .zip(before)
        .map(|(at, before)| *at - *before)
        .collect();
    for (pause, expected) in pauses.iter().zip([5.0, 10.0, 20.0, 40.0]) {
        let range = expected * 0.89..expected * 1.11 + 0.3;
        assert!(range.contains(&pause.as_secs_f64()), "{pauses:?}");
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_is_back_when_its_trial_succeeds() {
    let story = story(1..=4).await;
    story.pods.set([2], Behaviour::Fail);
    story.failures(40).await;
    story.pods.set([2], Behaviour::Answer);
    let seen = story.when_called(2, 10 * SECOND).await;
    assert!(seen[0] < Duration::from_millis(5_800), "{seen:?}");
    assert_eq!(story.state(2), EndpointState::Available);
    let before = story.calls(2);
    assert_eq!(story.failures(40).await, 0);
    assert_eq!(story.calls(2) - before, 10, "its share");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_cancelled_leaves_its_place_to_another() {
    let story = story(1..=4).await;
    story.pods.set([2], Behaviour::Fail);
    story.failures(40).await;
    story.pods.set([2], Behaviour::Hold);
    let before = story.calls(2);
    sleep(6 * SECOND).await;
    // All requests that go elsewhere are answered at once.
    for trials in 1..=3 {
        while story.calls(2) < before + trials {
            let mut balance = story.balance.clone();
            let mut request = task::spawn(balance.call(Request(7)));
            if story.calls(2) == before + trials {
                assert_pending!(request.poll());
                assert_eq!(story.failures(20).await, 0);
                assert_eq!(story.calls(2), before + trials, "one at a time");
            }
        }
        settle().await;
    }
    story.pods.set([2], Behaviour::Answer);
    story.failures(5).await;
    assert_eq!(story.state(2), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_pods_failures_are_forgotten_when_it_leaves() {
    let story = story(1..=4).await;
    story.pods.set([2], Behaviour::Fail);
    story.failures(40).await;
    story.script.answer([1, 3, 4]);
    settle().await;
    story.script.answer(1..=5);
    settle().await;
    assert_eq!(story.state(2), EndpointState::Available, "a new life");
    // It is as bad as before, and ejected after as many failures.
    assert_eq!(story.failures(100).await, 5);
    assert!(story.is_ejected(2));
    // A new pod at the same address begins without failures.
    let named = |name: &str| endpoint(2).with_pod_uid(name);
    story
        .script
        .endpoints(vec![endpoint(1), named("a"), endpoint(3)]);
    settle().await;
    story
        .script
        .endpoints(vec![endpoint(1), named("b"), endpoint(3)]);
    settle().await;
    let states = story.balance.endpoints();
    let available = states.iter().map(|status| status.state);
    assert!(available.eq([EndpointState::Available; 3]), "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn if_all_pods_fail_callers_get_their_errors_and_all_pods_get_requests() {
    let story = story(1..=10).await;
    story.pods.set(1..=10, Behaviour::Fail);
    story.failures(200).await;
    let out = (1..=10).filter(|&host| story.is_ejected(host)).count();
    assert_eq!(out, 5);
    for _ in 0..20 {
        let error = story.send().await.expect_err("all fail");
        assert!(error.is_endpoint(), "{error}");
    }
    // One more than half: those that were ejected get requests again.
    let refusing = (1..=10).find(|&host| !story.is_ejected(host));
    story.pods.set(refusing, Behaviour::NotReady);
    let before: Vec<_> = (1..=10).map(|host| story.calls(host)).collect();
    story.failures(200).await;
    for (host, before) in (1..=10).zip(before) {
        let has_more = story.calls(host) > before;
        assert_eq!(has_more, Some(host) != refusing, "pod {host}");
    }
}

#[tokio::test(start_paused = true)]
async fn ejected_pods_get_requests_if_no_other_accepts_any() {
    let story = story([1, 2]).await;
    story.pods.set([1], Behaviour::Fail);
    story.failures(20).await;
    assert!(story.is_ejected(1));
    story.pods.set([1], Behaviour::Answer);
    story.pods.set([2], Behaviour::NotReady);
    assert_eq!(story.failures(20).await, 0, "at once");
}

/// Sends requests to a pod that holds them, one after another, each cancelled after `patience`.
async fn give_up(story: &Story, patience: Duration, times: usize) {
    for _ in 0..times {
        let mut given_up = false;
        while !given_up {
            given_up = timeout(patience, story.send()).await.is_err();
        }
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn requests_given_up_after_a_long_wait_for_a_pod_that_answers_nobody_are_failures() {
    let health = OutlierDetection::new().success_rate(None);
    let story = story_with(1..=4, RoundRobin::new(), health).await;
    story.failures(40).await;
    sleep(4 * TICK).await;
    story.pods.set([2], Behaviour::Hold);
    give_up(&story, SECOND, 4).await;
    assert!(!story.is_ejected(2));
    give_up(&story, SECOND, 1).await;
    assert!(story.is_ejected(2));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_lost_its_race_is_no_failure() {
    let story = story(1..=4).await;
    story.failures(40).await;
    sleep(4 * TICK).await;
    story.pods.set([2], Behaviour::Hold);
    give_up(&story, Duration::from_millis(20), 40).await;
    assert!(!story.is_ejected(2));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_no_failure_if_the_pod_answers_others_meanwhile() {
    let story = story(1..=2).await;
    story.failures(40).await;
    sleep(4 * TICK).await;
    for _ in 0..20 {
        story.pods.set([1, 2], Behaviour::Hold);
        let mut slow = [story.balance.clone(), story.balance.clone()];
        let slow: Vec<_> = slow.iter_mut().map(|it| it.call(Request(1))).collect();
        let mut slow: Vec<_> = slow.into_iter().map(task::spawn).collect();
        for slow in &mut slow {
            assert_pending!(slow.poll());
        }
        let others = join_all((0..4).map(|_| story.send()));
        let answer = async {
            sleep(SECOND).await;
            story.pods.set([1, 2], Behaviour::Answer);
        };
        tokio::join!(others, answer);
    }
    assert!(!story.is_ejected(1) && !story.is_ejected(2));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_hangs_is_passed_over_before_anybody_gives_up() {
    let story = story_with(1..=4, RoundRobin::new(), OutlierDetection::new()).await;
    story.failures(100).await;
    story.pods.set([3], Behaviour::Hold);
    let before = story.calls(3);
    let requests: Vec<_> = (0..1_000)
        .map(|at| {
            let mut balance = story.balance.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(at)).await;
                timeout(SECOND, balance.call(Request(1))).await.is_ok()
            })
        })
        .collect();
    let answered = join_all(requests).await;
    let lost = answered
        .iter()
        .filter(|answered| !matches!(answered, Ok(true)));
    let lost = lost.count();
    assert!((5..=40).contains(&lost), "{lost} of 250 that were its turn");
    assert_eq!(lost, story.calls(3) - before);
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_what_the_callers_classifier_says() {
    let health = OutlierDetection::new().consecutive_failures(2);
    let classify = |result: Result<&u16, &BoxError>| match result {
        Ok(503) => Outcome::Failure,
        Ok(429) => Outcome::Overload,
        _ => Outcome::Success,
    };
    let pods = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
    let pods = pods.map(|pod| pod.parse().expect("an address"));
    let balance = Balance::builder(StaticEndpoints::new(pods))
        .outlier_detection(health)
        .completion(OnResponse::by(classify))
        .build(|endpoint: &Endpoint| {
            let ip = endpoint.address().ip().to_string();
            service_fn(move |()| {
                let answer = match ip.as_str() {
                    "10.0.0.1" => Ok(503_u16),
                    "10.0.0.2" => Ok(429),
                    "10.0.0.3" => Err(BoxError::from("a failure, but for the classifier")),
                    _ => Ok(200),
                };
                std::future::ready(answer)
            })
        });
    for _ in 0..100 {
        let mut balance = balance.clone();
        let _ = balance.ready().await.expect("ready").call(()).await;
        settle().await;
    }
    let states: Vec<_> = balance.endpoints().iter().map(|it| it.state).collect();
    let ejected = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);
    let available = EndpointState::Available;
    assert_eq!(states, [ejected, available, available, available]);
}

#[tokio::test(start_paused = true)]
async fn with_detection_off_no_pod_is_ejected() {
    let story = story_with(1..=4, RoundRobin::new(), OutlierDetection::off()).await;
    story.pods.set([2], Behaviour::Fail);
    assert_eq!(story.failures(400).await, 100);
}

/// How many requests each of five pods gets, without ejection, under a load that keeps all busy. Four take 10 ms, and
/// one answers `turned_away` at once.
async fn shares<P: Policy>(policy: P, turned_away: Outcome) -> BTreeMap<u8, usize> {
    let pods = (1..=5).map(|host| ([10, 0, 0, host], 80).into());
    let classify = move |result: Result<&u8, &BoxError>| match result {
        Ok(1) => turned_away,
        _ => Outcome::Success,
    };
    let mut balance = Balance::builder(StaticEndpoints::new(pods))
        .policy(policy)
        .outlier_detection(OutlierDetection::off())
        .completion(OnResponse::by(classify))
        .build(|endpoint: &Endpoint| {
            let host = endpoint.address().to_string();
            let host = if host == "10.0.0.1:80" {
                1
            } else {
                host.as_bytes()[7] - b'0'
            };
            service_fn(move |()| async move {
                if host != 1 {
                    sleep(Duration::from_millis(10)).await;
                }
                Ok::<u8, BoxError>(host)
            })
        });
    balance.ready().await.expect("ready");
    let requests: Vec<_> = (0..20_000)
        .map(|at| {
            let mut balance = balance.clone();
            tokio::spawn(async move {
                sleep(Duration::from_micros(at * 500)).await;
                balance.call(()).await.expect("an answer")
            })
        })
        .collect();
    let mut shares = BTreeMap::new();
    for host in join_all(requests).await {
        *shares.entry(host.expect("no panic")).or_default() += 1;
    }
    shares
}

async fn never_attracts<P: Policy>(policy: impl Fn() -> P) {
    for turned_away in [Outcome::Failure, Outcome::Overload] {
        let shares = shares(policy(), turned_away).await;
        // A fifth is fair; under a random policy it is 200 ± 57.
        assert!(shares[&1] <= 4_200, "{turned_away:?}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failing_fast_attracts_no_requests_of_least_connections() {
    never_attracts(LeastConnections::new).await;
    let successes = shares(LeastConnections::new(), Outcome::Success).await;
    assert!(successes[&1] > 8_000, "being fast does: {successes:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_fast_attracts_no_requests_of_round_robin_and_random() {
    never_attracts(RoundRobin::new).await;
    never_attracts(Random::new).await;
}
