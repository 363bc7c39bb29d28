//! The log of a request's attempts: which pod, why that one, what came of it, and how long it waited for what.

mod support;

use std::{
    future::{IntoFuture, pending, ready},
    time::Duration,
};

use futures::StreamExt;
use http::{Request as HttpRequest, Response, StatusCode};
use http_body_util::{Empty, Full};
use support::{
    scripted::{Behaviour, PodService, Pods, Request, Spent, World, discovery, endpoint, settle},
    within,
};
use tokio::{
    task::JoinHandle,
    time::{advance, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_headless::{
    Attempt, AttemptCause as Cause, AttemptLog, AttemptOutcome as Outcome, Attempts, Balance,
    BoxError, Connections, ConsistentHash, Endpoint, Error, Hedge, OnBodyEnd, OutlierDetection,
    PickReason as Why, Retry, RetryLayer, RetryPolicy, RetryUnavailable, RoundRobin, Route,
    StaticEndpoints,
    http::{Client, ClientBuilder, Protocol},
    test_util::{Cluster, Mode},
};
use tower_http::{follow_redirect::FollowRedirectLayer, timeout::TimeoutLayer};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// An attempt in short: its pod's number or the last part of its address, why there was an attempt, why this pod, and
/// the outcome.
type Short<'a> = (Option<u8>, Cause, Option<Why>, &'a str);

/// All attempts in short. Also asserts that their text fits a terminal, and that they can be read back as written.
#[track_caller]
fn short(attempts: &Attempts) -> Vec<Short<'static>> {
    let text = attempts.to_string();
    for line in text.lines() {
        assert!(!line.is_empty() && line.chars().count() <= 80, "{text}");
    }
    let json = serde_json::to_string(attempts).expect("JSON");
    let read: Attempts = serde_json::from_str(&json).expect("JSON");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), json);
    attempts.iter().map(short_one).collect()
}

fn short_one(attempt: &Attempt) -> Short<'static> {
    let host = attempt.address.map(|address| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("there is none here"),
    });
    let outcome = match &attempt.outcome {
        Outcome::UnderWay => "under way",
        Outcome::Answered { status: None } => "answered",
        Outcome::Answered { status: Some(200) } => "200",
        Outcome::Answered { status: Some(302) } => "302",
        Outcome::Answered { status: Some(503) } => "503",
        Outcome::Refused { .. } => "refused",
        Outcome::Busy { .. } => "busy",
        Outcome::Left => "left",
        Outcome::Lost { .. } => "lost",
        Outcome::Unsent { .. } => "unsent",
        Outcome::Overtaken => "overtaken",
        Outcome::TimedOut => "timed out",
        Outcome::Cancelled => "cancelled",
        other => panic!("{other:?}"),
    };
    (host, attempt.cause, attempt.why, outcome)
}

/// How long it waited, in milliseconds: for discovery, for any pod, for a connection, and for its pod.
fn waits(attempt: &Attempt) -> [u128; 4] {
    let waits = &attempt.waits;
    [
        waits.discovery,
        waits.unreachable,
        waits.connection,
        waits.pod,
    ]
    .map(|wait| wait.as_millis())
}

/// A request's result, and its attempts.
async fn ask(
    balance: &Balance<PodService>,
    route: Route,
) -> (Result<(Endpoint, u32), Error>, Attempts) {
    let log = AttemptLog::new();
    let result = balance.call_with(Request(2), route.record(&log)).await;
    (result, log.attempts())
}

fn spawn(balance: &Balance<PodService>, route: Route) -> (AttemptLog, JoinHandle<bool>) {
    let log = AttemptLog::new();
    let request = balance.call_with(Request(2), route.record(&log));
    (log, tokio::spawn(async move { request.await.is_ok() }))
}

fn at(host: u8) -> Route {
    Route::new().prefer(endpoint(host).address().ip())
}

async fn world(hosts: impl IntoIterator<Item = u8>) -> World {
    let set = hosts.into_iter().map(endpoint).collect();
    World::of(set, |builder| builder.ready_timeout(SECOND)).await
}

/// Gets a pod ejected: five of its requests fail.
async fn eject(world: &World, host: u8, route: impl Fn() -> Route) {
    world.pods.set([host], Behaviour::Fail);
    for time in 0..5 {
        let (result, attempts) = ask(&world.balance, route()).await;
        assert!(result.is_err(), "{time}: {attempts}");
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_where_the_policy_says() {
    let world = world([1, 2]).await;
    let (result, attempts) = ask(&world.balance, Route::new()).await;
    let (pod, _) = result.expect("an answer");
    let host = short(&attempts)[0].0;
    assert_eq!(host.map(endpoint), Some(pod));
    let expected = (host, Cause::First, Some(Why::Policy), "answered");
    assert_eq!(short(&attempts), [expected]);
    assert_eq!(attempts.policy.as_deref(), Some("round-robin"));
    assert_eq!(waits(&attempts.list[0]), [0; 4]);
    let text = attempts.to_string();
    assert!(text.contains("picked by round-robin: answered"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn recording_does_not_change_where_requests_go() {
    let world = world([1, 2, 3]).await;
    for turn in 0..6 {
        let plain = turn % 2 == 0;
        let result = match plain {
            true => world.balance.clone().oneshot(Request(1)).await,
            false => ask(&world.balance, Route::new()).await.0,
        };
        result.expect("an answer");
    }
    for host in 1..=3 {
        assert_eq!(world.pods.counts(host).calls, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_goes_to_another_pod() {
    for behaviour in [Behaviour::NotReady, Behaviour::HandBack] {
        let world = world([1, 2, 3]).await;
        world.pods.set([1], behaviour);
        let (result, attempts) = ask(&world.balance, at(1)).await;
        result.expect("an answer");
        let all = short(&attempts);
        assert_eq!(
            all[0],
            (Some(1), Cause::First, Some(Why::Preferred), "refused")
        );
        let (other, cause, why, outcome) = all[1];
        assert_ne!(other, Some(1));
        assert_eq!((cause, why), (Cause::NotTaken, Some(Why::Policy)));
        assert_eq!((outcome, all.len()), ("answered", 2));
        let error = attempts.list[0].outcome.error().expect("why");
        assert!(error.starts_with("connection"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_if_a_pod_was_the_only_one_or_avoided_without_an_alternative() {
    let world = world([1]).await;
    let (_, attempts) = ask(&world.balance, Route::new()).await;
    let only = (Some(1), Cause::First, Some(Why::Only), "answered");
    assert_eq!(short(&attempts), [only]);
    let (_, attempts) = ask(&world.balance, Route::new().avoid(&endpoint(1))).await;
    let avoided = (Some(1), Cause::First, Some(Why::Avoided), "answered");
    assert_eq!(short(&attempts), [avoided]);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_pod_it_is_for() {
    let world = world([1]).await;
    let (log, request) = spawn(&world.balance, Route::new().pod("web-7"));
    advance(300 * MILLI).await;
    settle().await;
    let waiting = log.attempts();
    assert_eq!(short(&waiting), [(None, Cause::First, None, "under way")]);
    assert_eq!(waits(&waiting.list[0]), [0, 0, 0, 300]);
    advance(200 * MILLI).await;
    let pod = endpoint(7).with_hostname("web-7");
    world.set(vec![endpoint(1), pod]).await;
    assert!(request.await.expect("no panic"));
    let attempts = log.attempts();
    let expected = (Some(7), Cause::First, Some(Why::Requested), "answered");
    assert_eq!(short(&attempts), [expected]);
    assert_eq!(waits(&attempts.list[0]), [0, 0, 0, 500]);
    assert_eq!(attempts.list[0].took, 500 * MILLI);
    assert_eq!(attempts.list[0].name.as_deref(), Some("web-7"));
    let text = attempts.to_string();
    assert!(text.contains("10.0.0.7:80 (web-7)"), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("waited 500.0ms for this pod"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn consecutive_waits_of_an_attempt_are_told_apart() {
    let (script, source) = discovery();
    let balance = Balance::builder(source).build(Pods::default().make());
    let (log, request) = spawn(&balance, Route::new().pod("web-7"));
    advance(300 * MILLI).await;
    script.answer([1]);
    settle().await;
    advance(200 * MILLI).await;
    script.endpoints(vec![endpoint(7).with_hostname("web-7")]);
    assert!(request.await.expect("no panic"));
    let attempts = log.attempts();
    let expected = (Some(7), Cause::First, Some(Why::Requested), "answered");
    assert_eq!(short(&attempts), [expected]);
    assert_eq!(waits(&attempts.list[0]), [300, 0, 0, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_ready_under_another_name_is_logged_as_left() {
    let named = |host, name: &str| endpoint(host).with_hostname(name);
    let set = vec![named(1, "web-1"), named(2, "web-2")];
    let world = World::of(set, |builder| builder).await;
    world.pods.set([1], Behaviour::Pending);
    let log = AttemptLog::new();
    let route = Route::new().pod("web-1").record(&log);
    let mut request = tokio_test::task::spawn(world.balance.call_with(Request(2), route));
    assert!(request.poll().is_pending());
    world.set(vec![named(1, "web-2"), named(2, "web-1")]).await;
    world.pods.set([1], Behaviour::Answer);
    assert!(request.await.is_ok());
    let all = log.attempts();
    let requested = Some(Why::Requested);
    let expected = [
        (Some(1), Cause::First, requested, "left"),
        (Some(2), Cause::NotTaken, requested, "answered"),
    ];
    assert_eq!(short(&all), expected);
}

#[tokio::test(start_paused = true)]
async fn waits_for_discovery_and_for_a_connection_are_logged() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source).build(pods.make());
    pods.set([1], Behaviour::Pending);
    let (log, request) = spawn(&balance, Route::new());
    advance(700 * MILLI).await;
    script.answer([1]);
    settle().await;
    advance(200 * MILLI).await;
    pods.set([1], Behaviour::After(100 * MILLI));
    assert!(request.await.expect("no panic"));
    let attempts = log.attempts();
    let expected = (Some(1), Cause::First, Some(Why::Only), "answered");
    assert_eq!(short(&attempts), [expected]);
    assert_eq!(waits(&attempts.list[0]), [700, 0, 200, 0]);
    assert_eq!(attempts.list[0].took, SECOND);
}

#[tokio::test(start_paused = true)]
async fn if_all_refuse_each_refusal_is_logged_and_then_the_wait() {
    let world = world([1, 2]).await;
    world.pods.set([1, 2], Behaviour::NotReady);
    let (result, attempts) = ask(&world.balance, Route::new()).await;
    assert!(result.expect_err("nobody takes it").is_unreachable());
    let all = short(&attempts);
    let refused = [all[0].3, all[1].3, all[2].3];
    assert_eq!(refused, ["refused", "refused", "unsent"]);
    assert_eq!(all[0].1, Cause::First);
    assert_eq!(all[1].1, Cause::NotTaken);
    assert_ne!(all[0].0, all[1].0);
    assert_eq!(all[2..], [(None, Cause::NotTaken, None, "unsent")]);
    let last = &attempts.list[2];
    assert_eq!((waits(last), last.took), ([0, 1000, 0, 0], SECOND));
    let error = last.outcome.error().expect("why");
    assert!(error.contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_before_it_is_ready_is_logged() {
    let world = world([1, 2]).await;
    world.pods.set([1], Behaviour::Pending);
    let (log, request) = spawn(&world.balance, at(1));
    settle().await;
    advance(100 * MILLI).await;
    world.set(vec![endpoint(2)]).await;
    assert!(request.await.expect("no panic"));
    let attempts = log.attempts();
    let expected = [
        (Some(1), Cause::First, Some(Why::Preferred), "left"),
        (Some(2), Cause::NotTaken, Some(Why::Only), "answered"),
    ];
    assert_eq!(short(&attempts), expected);
    assert_eq!(waits(&attempts.list[0]), [0, 0, 100, 0]);
    assert_eq!(attempts.list[1].began, 100 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_leaves_out_an_empty_name_is_logged_as_unsent() {
    let world = world([1, 2]).await;
    let (result, attempts) = ask(&world.balance, Route::new().leave_out("")).await;
    assert!(result.expect_err("whom?").is_absent());
    assert_eq!(short(&attempts), [(None, Cause::First, None, "unsent")]);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_gets_one_request_on_trial() {
    let world = world(1..=4).await;
    eject(&world, 2, || at(2)).await;
    world.pods.set([2], Behaviour::Answer);
    advance(40 * SECOND).await;
    settle().await;
    let (result, attempts) = ask(&world.balance, Route::new()).await;
    result.expect("an answer");
    let expected = (Some(2), Cause::First, Some(Why::Trial), "answered");
    assert_eq!(short(&attempts), [expected]);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_is_better_than_none() {
    let world = world([1, 2]).await;
    eject(&world, 1, || at(1)).await;
    world.pods.set([1], Behaviour::Answer);
    world.pods.set([2], Behaviour::NotReady);
    let (result, attempts) = ask(&world.balance, Route::new()).await;
    result.expect("an answer");
    let expected = [
        (Some(2), Cause::First, Some(Why::Only), "refused"),
        (Some(1), Cause::NotTaken, Some(Why::LastResort), "answered"),
    ];
    assert_eq!(short(&attempts), expected);
}

#[tokio::test(start_paused = true)]
async fn in_panic_mode_ejected_pods_get_requests_too() {
    let set: Vec<_> = (1..=5).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    world.pods.set(1..=3, Behaviour::NotReady);
    world.pods.set([4, 5], Behaviour::Fail);
    for number in 0..30 {
        let _ = world.balance.clone().oneshot(Request(number)).await;
    }
    settle().await;
    assert!(world.balance.explain().is_panic);
    let (_, attempts) = ask(&world.balance, Route::new()).await;
    let [(host, Cause::First, Some(Why::Panic), "lost")] = short(&attempts)[..] else {
        panic!("{attempts}");
    };
    assert!(host.is_some_and(|host| host > 3));
}

#[tokio::test(start_paused = true)]
async fn a_key_leads_to_its_pod_and_to_the_next_one_if_that_is_out() {
    let set: Vec<_> = (1..=4).map(endpoint).collect();
    let world = World::of(set, |builder| builder.policy(ConsistentHash::new())).await;
    let keyed = || Route::new().key("user-42");
    let (_, attempts) = ask(&world.balance, keyed()).await;
    let [(Some(home), Cause::First, Some(Why::Key), "answered")] = short(&attempts)[..] else {
        panic!("{attempts}");
    };
    eject(&world, home, || at(home)).await;
    let (result, attempts) = ask(&world.balance, keyed()).await;
    let (pod, _) = result.expect("another pod's answer");
    assert_ne!(pod, endpoint(home));
    let [(_, Cause::First, Some(Why::NextForKey), "answered")] = short(&attempts)[..] else {
        panic!("{attempts}");
    };
    // A request without a key.
    let (_, attempts) = ask(&world.balance, Route::new()).await;
    assert_eq!(attempts.list[0].why, Some(Why::Policy));
}

#[tokio::test(start_paused = true)]
async fn near_pods_come_first_and_far_pods_if_those_are_out() {
    let zone = |host, zone: &'static str| endpoint(host).with_zone(zone);
    let set = vec![zone(1, "a"), zone(2, "a"), zone(3, "b"), zone(4, "b")];
    let world = World::of(set, |builder| builder.prefer_zone("a")).await;
    let (_, attempts) = ask(&world.balance, Route::new()).await;
    assert_eq!(attempts.list[0].why, Some(Why::Near), "{attempts}");
    world.pods.set([1, 2], Behaviour::NotReady);
    ask(&world.balance, Route::new()).await.0.expect("one");
    let (_, attempts) = ask(&world.balance, Route::new()).await;
    assert_eq!(attempts.list[0].why, Some(Why::Far), "{attempts}");
    short(&attempts);
}

/// Copies every request, and retries it if it is lost.
#[derive(Clone, Copy, Debug)]
struct Again;

impl<Res> RetryPolicy<Request, Res> for Again {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }

    fn may_hedge(&self, _: &Request) -> bool {
        true
    }
}

type Retried = Retry<Balance<PodService>, Again>;

async fn retried(
    last: u8,
    change: impl FnOnce(RetryLayer<Again>) -> RetryLayer<Again>,
) -> (Pods, Retried) {
    let pods = Pods::default();
    let endpoints = (1..=last).map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(endpoints))
        .policy(RoundRobin::new())
        .outlier_detection(OutlierDetection::new())
        .build(pods.make());
    balance.discovered().await.expect("a set");
    settle().await;
    (pods, change(RetryLayer::new(Again)).layer(balance))
}

async fn ask_retried(service: &Retried, route: Route) -> (bool, Attempts) {
    let log = AttemptLog::new();
    let result = service.call_with(Request(2), route.record(&log)).await;
    (result.is_ok(), log.attempts())
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_sent_again_elsewhere() {
    let (pods, service) = retried(3, |layer| layer).await;
    pods.set([1], Behaviour::FailAfter(30 * MILLI));
    let (is_ok, attempts) = ask_retried(&service, at(1)).await;
    assert!(is_ok);
    let all = short(&attempts);
    assert_eq!(
        all[0],
        (Some(1), Cause::First, Some(Why::Preferred), "lost")
    );
    let (host, cause, why, outcome) = all[1];
    assert!(host > Some(1) && all.len() == 2);
    let expected = (Cause::RetryLost, Some(Why::Elsewhere), "answered");
    assert_eq!((cause, why, outcome), expected);
    assert_eq!(attempts.list[0].took, 30 * MILLI);
    assert_eq!(attempts.list[1].began, 30 * MILLI);
    assert_eq!(attempts.list[0].outcome.error(), Some("internal error"));
    assert!(!attempts.is_budget_spent);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_budget_refuses_is_logged() {
    let (pods, service) = retried(2, |layer| layer.budget(Spent)).await;
    pods.set([1], Behaviour::Fail);
    let (is_ok, attempts) = ask_retried(&service, at(1)).await;
    assert!(!is_ok && attempts.is_budget_spent);
    let lost = (Some(1), Cause::First, Some(Why::Preferred), "lost");
    assert_eq!(short(&attempts), [lost]);
    assert!(attempts.to_string().contains("the retry budget is spent"));
    let (_, attempts) = ask_retried(&service, at(2)).await;
    assert!(!attempts.is_budget_spent);
}

/// Also retries a request that no pod took.
#[derive(Clone, Copy, Debug)]
struct Unsent;

impl<Res> RetryPolicy<Request, Res> for Unsent {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_unsent)
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_an_unsent_request_is_logged() {
    let world = world([1]).await;
    world.pods.set([1], Behaviour::NotReady);
    let service = RetryLayer::new(Unsent)
        .retries(1)
        .layer(world.balance.clone());
    let log = AttemptLog::new();
    let result = service
        .call_with(Request(2), Route::new().record(&log))
        .await;
    assert!(result.is_err());
    let expected = [
        (Some(1), Cause::First, Some(Why::Only), "refused"),
        (None, Cause::NotTaken, None, "unsent"),
        (None, Cause::RetryUnsent, None, "unsent"),
    ];
    let all = log.attempts();
    let all = short(&all);
    assert_eq!(all, expected);
}

#[tokio::test(start_paused = true)]
async fn one_of_two_hedged_attempts_is_replaced_by_a_retry() {
    let (pods, service) = retried(3, |layer| layer.hedge(Hedge::after(50 * MILLI))).await;
    pods.set([1], Behaviour::FailAfter(80 * MILLI));
    pods.set([2, 3], Behaviour::After(SECOND));
    let (is_ok, attempts) = ask_retried(&service, at(1)).await;
    assert!(is_ok);
    let all = short(&attempts);
    assert_eq!(all[0].3, "lost");
    assert_eq!((all[1].1, all[1].3), (Cause::Hedge, "answered"));
    assert_eq!((all[2].1, all[2].3), (Cause::RetryLost, "overtaken"));
    assert_eq!(all.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_a_hedge_and_the_first_attempt_one_is_cancelled() {
    let (pods, service) = retried(2, |layer| layer.hedge(Hedge::after(50 * MILLI))).await;
    pods.set([1], Behaviour::Hold);
    let (_, attempts) = ask_retried(&service, at(1)).await;
    let won = [
        (Some(1), Cause::First, Some(Why::Preferred), "overtaken"),
        (Some(2), Cause::Hedge, Some(Why::Elsewhere), "answered"),
    ];
    assert_eq!(short(&attempts), won);
    assert_eq!(attempts.list[0].took, 50 * MILLI);
    assert_eq!(attempts.list[1].began, 50 * MILLI);

    let (pods, service) = retried(2, |layer| layer.hedge(Hedge::after(50 * MILLI))).await;
    pods.set([1], Behaviour::After(80 * MILLI));
    pods.set([2], Behaviour::Hold);
    let (_, attempts) = ask_retried(&service, at(1)).await;
    let lost = [
        (Some(1), Cause::First, Some(Why::Preferred), "answered"),
        (Some(2), Cause::Hedge, Some(Why::Elsewhere), "overtaken"),
    ];
    assert_eq!(short(&attempts), lost);
    assert_eq!(attempts.list[1].took, 30 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_finds_no_other_pod_is_not_an_attempt() {
    let (pods, service) = retried(2, |layer| layer.hedge(Hedge::after(50 * MILLI))).await;
    pods.set([1], Behaviour::After(SECOND));
    pods.set([2], Behaviour::NotReady);
    let (_, attempts) = ask_retried(&service, at(1)).await;
    let all = short(&attempts);
    assert_eq!(all[0].3, "answered");
    let refused = (Some(2), Cause::Hedge, Some(Why::Elsewhere), "refused");
    assert_eq!(all[1..], [refused]);
}

/// The hedge waited at that pod, whose services were all in use.
#[tokio::test(start_paused = true)]
async fn a_hedge_at_a_pod_without_room_is_logged() {
    let connect = service_fn(|pod: Endpoint| {
        ready(Ok::<_, BoxError>(service_fn(move |Request(time)| {
            let is_held = pod == endpoint(2);
            async move {
                match is_held {
                    true => pending().await,
                    false => sleep(SECOND).await,
                }
                Ok::<_, BoxError>(time)
            }
        })))
    });
    let pods = [1, 2].map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(pods))
        .ready_timeout(100 * MILLI)
        .build_connected(Connections::pooled(1, connect).wait_timeout(20 * MILLI));
    balance.discovered().await.expect("pods");
    settle().await;
    let _held = tokio::spawn(balance.call_with(Request(1), at(2)));
    settle().await;
    let layer = RetryLayer::new(Again).hedge(Hedge::after(50 * MILLI));
    let log = AttemptLog::new();
    let answer = layer
        .layer(balance)
        .call_with(Request(1), at(1).record(&log));
    answer.await.expect("the first pod's answer");
    let attempts = log.attempts();
    let all = short(&attempts);
    assert_eq!((all[0].0, all[0].3), (Some(1), "answered"));
    let busy = (Some(2), Cause::Hedge, Some(Why::Elsewhere), "unsent");
    assert_eq!(all[1], busy, "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_goes_on_alone_and_hangs_times_out() {
    let (pods, service) =
        retried(2, |layer| layer.retries(0).hedge(Hedge::after(50 * MILLI))).await;
    pods.set([1], Behaviour::FailAfter(80 * MILLI));
    pods.set([2], Behaviour::Hold);
    let (is_ok, attempts) = ask_retried(&service, at(1)).await;
    assert!(!is_ok);
    let expected = [
        (Some(1), Cause::First, Some(Why::Preferred), "lost"),
        (Some(2), Cause::Hedge, Some(Why::Elsewhere), "timed out"),
    ];
    assert_eq!(short(&attempts), expected);
}

/// Giving one log to many requests is a mistake, but must not leak memory.
#[tokio::test(start_paused = true)]
async fn a_log_keeps_only_the_first_hundred_attempts() {
    let world = world([1]).await;
    let log = AttemptLog::new();
    for _ in 0..103 {
        let route = Route::new().record(&log);
        let answer = world.balance.call_with(Request(1), route).await;
        answer.expect("an answer");
    }
    let attempts = log.attempts();
    assert_eq!((attempts.list.len(), attempts.omitted), (100, 3));
    let text = attempts.to_string();
    assert!(text.ends_with("\nAnd 3 more attempts."), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_logged_as_cancelled() {
    let world = world([1]).await;
    world.pods.set([1], Behaviour::Hold);
    let (log, request) = spawn(&world.balance, Route::new());
    settle().await;
    advance(20 * MILLI).await;
    assert_eq!(short(&log.attempts())[0].3, "under way");
    assert_eq!(log.attempts().list[0].took, 20 * MILLI);
    request.abort();
    let _ = request.await;
    advance(SECOND).await;
    assert_eq!(short(&log.attempts())[0].3, "cancelled");
    assert_eq!(log.attempts().list[0].took, 20 * MILLI, "it has ended");
    assert_eq!(world.balance.endpoints()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn the_serialized_fields_have_these_names() {
    let world = world([1, 2]).await;
    world.pods.set([1], Behaviour::NotReady);
    // The name is learnt later.
    let named = endpoint(1).with_hostname("web-1");
    world.set(vec![named, endpoint(2)]).await;
    let (_, attempts) = ask(&world.balance, at(1)).await;
    let json = serde_json::to_value(&attempts).expect("JSON");
    let none = serde_json::json!({
        "discovery_seconds": 0.0,
        "unreachable_seconds": 0.0,
        "connection_seconds": 0.0,
        "pod_seconds": 0.0,
    });
    let expected = serde_json::json!({
        "policy": "round-robin",
        "is_budget_spent": false,
        "omitted": 0,
        "list": [
            {
                "name": "web-1",
                "address": "10.0.0.1:80",
                "cause": "first",
                "why": "preferred",
                "outcome": { "kind": "refused", "error": "connection refused" },
                "began_seconds": 0.0,
                "took_seconds": 0.0,
                "waits": none,
            },
            {
                "name": null,
                "address": "10.0.0.2:80",
                "cause": "not_taken",
                "why": "only",
                "outcome": { "kind": "answered", "status": null },
                "began_seconds": 0.0,
                "took_seconds": 0.0,
                "waits": none,
            },
        ],
    });
    assert_eq!(json, expected);
    let text = "\
1. 10.0.0.1:80 (web-1), first attempt, picked as preferred: refused after 0ns:
   connection refused
2. 10.0.0.2:80, because the previous pod didn't take it, picked as the only one
   available: answered after 0ns";
    assert_eq!(attempts.to_string(), text);
    assert_eq!(AttemptLog::new().attempts().to_string(), "no attempts");
}

/// A client of the cluster that knows its pods.
async fn client(cluster: &Cluster, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let client = change(cluster.client().ready_timeout(5 * SECOND));
    let client = client.build().expect("a client");
    within("pods", client.discovered()).await.expect("pods");
    client
}

fn address(client: &Client, i: usize) -> Endpoint {
    client.endpoints()[i].endpoint.clone()
}

fn host(pod: &Endpoint) -> Option<u8> {
    pod.address()
        .ip()
        .to_string()
        .rsplit('.')
        .next()?
        .parse()
        .ok()
}

#[tokio::test]
async fn a_response_has_attempts_only_if_asked_for() {
    let cluster = Cluster::start(2).await;
    let plain = client(&cluster, |builder| builder).await;
    let response = within("one", plain.get("/").into_future()).await;
    let response = response.expect("an answer");
    assert!(response.attempts().is_none() && response.extensions().get::<Attempts>().is_none());
    let all = client(&cluster, |builder| builder.request_attempts(true)).await;
    for request in [plain.get("/").attempts(), all.get("/")] {
        let response = within("one", request.into_future()).await;
        let response = response.expect("an answer");
        let attempts = response.attempts().expect("asked for");
        let pod = response.endpoint().and_then(host);
        let expected = (pod, Cause::First, Some(Why::Policy), "200");
        assert_eq!(short(attempts), [expected]);
        assert_eq!(response.extensions().get(), Some(attempts));
    }
    let first = within("one", all.get("/").into_future()).await;
    let first = first.expect("an answer");
    let waited = first.attempts().expect("on").list[0].waits.connection;
    assert!(!waited.is_zero(), "the pod is dialled");
}

#[tokio::test]
async fn a_retried_answer_is_logged_with_its_status() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder).await;
    let (bad, good) = (address(&client, 0), address(&client, 1));
    let pods = cluster.pods();
    let pod = pods.iter().find(|pod| pod.addr() == bad.address());
    let pod = pod.expect("a pod");
    pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let request = client
        .get("/")
        .attempts()
        .route(Route::new().prefer(bad.address().ip()));
    let copy = request.try_clone().expect("it has no body");
    for request in [request, copy] {
        let response = within("one", request.into_future()).await;
        let response = response.expect("an answer");
        let expected = [
            (host(&bad), Cause::First, Some(Why::Preferred), "503"),
            (
                host(&good),
                Cause::RetryAnswered,
                Some(Why::Elsewhere),
                "200",
            ),
        ];
        assert_eq!(short(response.attempts().expect("asked for")), expected);
    }
    let post = client
        .post("/")
        .attempts()
        .route(Route::new().prefer(bad.address().ip()));
    let response = within("one", post.into_future()).await.expect("an answer");
    let error = response.error_for_status().expect_err("it is 503");
    let attempts = error.attempts().expect("asked for");
    let expected = (host(&bad), Cause::First, Some(Why::Preferred), "503");
    assert_eq!(short(attempts), [expected]);
}

#[tokio::test]
async fn an_error_has_its_attempts_too() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder).await;
    for pod in cluster.pods() {
        pod.set(Mode::CloseWithoutAnswer);
    }
    let error = within("one", client.get("/").attempts().into_future()).await;
    let attempts = error.expect_err("all fail");
    let attempts = attempts.attempts().expect("asked for");
    let all = short(attempts);
    assert!(all.len() > 1, "{attempts}");
    assert_eq!((all[0].1, all[0].3), (Cause::First, "lost"));
    for (_, cause, _, outcome) in &all[1..] {
        assert_eq!((*cause, *outcome), (Cause::RetryLost, "lost"));
    }
    assert_eq!(all[1].2, Some(Why::Elsewhere));
    let error = within("one", client.get("/").into_future()).await;
    assert!(error.expect_err("all fail").attempts().is_none());
}

#[tokio::test]
async fn a_timed_out_request_says_where_it_was() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder).await;
    cluster.pod(0).set(Mode::Hung);
    let layered = client.clone().layer(tower::layer::util::Identity::new());
    for client in [&client, &layered] {
        let request = client.get("/").timeout(50 * MILLI).attempts();
        let error = within("one", request.into_future()).await;
        let error = error.expect_err("it hangs");
        assert!(error.is_timeout());
        let attempts = error.attempts().expect("asked for");
        let pod = host(&address(client, 0));
        let expected = (pod, Cause::First, Some(Why::Only), "timed out");
        assert_eq!(short(attempts), [expected]);
    }
}

/// Whatever becomes of the attempt that began later.
#[tokio::test]
async fn of_two_attempts_the_one_that_hangs_times_out() {
    for (other, came) in [
        (Mode::Status(StatusCode::SERVICE_UNAVAILABLE), "503"),
        (Mode::CloseWithoutAnswer, "lost"),
    ] {
        let cluster = Cluster::start(2).await;
        let hedged = Hedge::after(20 * MILLI);
        let client = client(&cluster, |it| it.hedge(hedged).retries(0)).await;
        cluster.pod(0).set(Mode::Hung);
        cluster.pod(1).set(other);
        let slow = cluster.pod(0).addr().ip();
        let request = client.get("/").route(Route::new().prefer(slow));
        let request = request.timeout(500 * MILLI).attempts();
        let answer = within("one", request.into_future()).await;
        let attempts = match &answer {
            Ok(response) => response.attempts().expect("asked for"),
            Err(error) => error.attempts().expect("asked for"),
        };
        let all = short(attempts);
        assert_eq!((all[0].1, all[0].3), (Cause::First, "timed out"));
        assert_eq!((all[1].1, all[1].3), (Cause::Hedge, came), "{attempts}");
    }
}

#[tokio::test]
async fn an_error_before_any_attempt_has_an_empty_log() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder).await;
    let late = client.get("/").timeout(Duration::ZERO);
    let foreign = client.get("http://elsewhere.example/");
    for request in [late, foreign] {
        let error = within("one", request.attempts().into_future()).await;
        let error = error.expect_err("it makes no sense");
        assert_eq!(short(error.attempts().expect("asked for")), []);
    }
}

#[tokio::test]
async fn all_requests_of_a_layer_are_logged() {
    let answer = |_, request: HttpRequest<_>| async move {
        let response = match request.uri().path() {
            "/old" => Response::builder().status(302).header("location", "/new"),
            _ => Response::builder(),
        };
        Ok::<_, BoxError>(response.body(Full::from("")).expect("a response"))
    };
    let cluster = Cluster::builder().pods(1).answer(answer).start().await;
    for in_all in [false, true] {
        let client = client(&cluster, |builder| builder.request_attempts(in_all)).await;
        let client = client.layer(FollowRedirectLayer::new());
        let request = client.get("/old");
        let request = if in_all { request } else { request.attempts() };
        let response = within("one", request.into_future()).await;
        let response = response.expect("an answer");
        let pod = host(&address(&client, 0));
        let expected = [
            (pod, Cause::First, Some(Why::Only), "302"),
            (pod, Cause::Another, Some(Why::Only), "200"),
        ];
        assert_eq!(short(response.attempts().expect("asked for")), expected);
    }
}

#[tokio::test]
async fn a_request_cancelled_by_a_layer_is_logged() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder).await;
    cluster.pod(0).set(Mode::Hung);
    let layer = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, 50 * MILLI);
    let client = client.layer(layer);
    let response = within("one", client.get("/").attempts().into_future()).await;
    let response = response.expect("the layer's answer");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let pod = host(&address(&client, 0));
    let expected = (pod, Cause::First, Some(Why::Only), "cancelled");
    assert_eq!(short(response.attempts().expect("asked for")), [expected]);
}

#[tokio::test]
async fn a_failed_grpc_call_has_its_attempts_beside_its_status() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder.protocol(Protocol::Http2)).await;
    let pod = host(&address(&client, 0));
    cluster.pod(0).set(Mode::CloseWithoutAnswer);
    let log = AttemptLog::new();
    let call = HttpRequest::post("/shop.Orders/List")
        .header("content-type", "application/grpc")
        .extension(Route::new().record(&log))
        .body(Empty::new());
    let response = client.oneshot(call.expect("a request"));
    let response = within("a status", response).await.expect("a status");
    assert_ne!(response.headers()["grpc-status"], "0");
    let attempts = response.extensions().get().expect("asked for");
    let expected = (pod, Cause::First, Some(Why::Only), "lost");
    assert_eq!(short(attempts), [expected]);
    assert_eq!(&log.attempts(), attempts);
    let error: &std::sync::Arc<tower_headless::http::Error> =
        response.extensions().get().expect("the error itself");
    assert_eq!(error.attempts(), Some(attempts));
}

#[tokio::test]
async fn each_answer_of_a_broadcast_has_the_attempts_of_its_own_pod() {
    let cluster = Cluster::start(3).await;
    let plain = client(&cluster, |builder| builder).await;
    let layered = plain.clone().layer(tower::layer::util::Identity::new());
    for client in [&plain, &layered] {
        let answers = client.get("/").attempts().broadcast();
        let answers = within("pods", answers.into_future()).await;
        let answers = answers.expect("pods").collect::<Vec<_>>();
        let answers = within("all", answers).await;
        assert_eq!(answers.len(), 3);
        for (pod, answer) in answers {
            let response = answer.expect("an answer");
            let attempts = response.extensions().get().expect("asked for");
            let expected = (host(&pod), Cause::First, Some(Why::Broadcast), "200");
            assert_eq!(short(attempts), [expected]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_free_connection_is_logged() {
    let answer = |is_held: bool| async move {
        match is_held {
            true => pending().await,
            false => Ok::<_, BoxError>(()),
        }
    };
    let connect = service_fn(move |_: Endpoint| ready(Ok::<_, BoxError>(service_fn(answer))));
    let pods = [1, 2].map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(pods))
        .build_connected(Connections::pooled(1, connect).wait_timeout(SECOND));
    balance.discovered().await.expect("pods");
    settle().await;
    let _held = tokio::spawn(balance.call_with(true, at(1)));
    settle().await;
    let log = AttemptLog::new();
    let answer = balance.call_with(false, at(1).record(&log));
    answer.await.expect("the other pod's answer");
    let attempts = log.attempts();
    let expected = [
        (Some(1), Cause::First, Some(Why::Preferred), "busy"),
        (Some(2), Cause::NotTaken, Some(Why::Elsewhere), "answered"),
    ];
    assert_eq!(short(&attempts), expected);
    assert_eq!(waits(&attempts.list[0]), [0, 0, 1000, 0]);
    let error = attempts.list[0].outcome.error().expect("why");
    assert!(error.contains("all 1 are in use"), "{error}");
}

#[tokio::test]
async fn a_balancer_of_http_services_logs_the_status() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder).await;
    let pod = address(&client, 0).address();
    let balance = Balance::builder(StaticEndpoints::new([pod]))
        .completion(OnBodyEnd::new())
        .build(|_: &Endpoint| {
            service_fn(|_: HttpRequest<Empty<bytes::Bytes>>| async {
                Ok::<_, BoxError>(
                    Response::builder()
                        .status(503)
                        .body(Empty::<bytes::Bytes>::new())?,
                )
            })
        });
    let log = AttemptLog::new();
    let request = HttpRequest::new(Empty::new());
    let answer = balance.call_with(request, Route::new().record(&log));
    answer.await.expect("an answer");
    assert_eq!(short(&log.attempts())[0].3, "503");
    let log = AttemptLog::new();
    let layered = RetryLayer::new(RetryUnavailable).layer(balance);
    let answer = layered.call_with(HttpRequest::new(Empty::new()), Route::new().record(&log));
    answer.await.expect("an answer");
    assert_eq!(short(&log.attempts())[0].3, "503");
}

#[tokio::test(start_paused = true)]
async fn a_balancer_s_request_dropped_before_its_end_is_logged_as_cancelled() {
    let world = world([1]).await;
    world.pods.set([1], Behaviour::Hold);
    let log = AttemptLog::new();
    let request = world
        .balance
        .call_with(Request(1), Route::new().record(&log));
    let given_up = timeout(MILLI, request).await;
    assert!(given_up.is_err());
    sleep(MILLI).await;
    assert_eq!(short(&log.attempts())[0].3, "cancelled");
}
