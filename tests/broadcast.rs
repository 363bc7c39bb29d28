//! Broadcasts: under paused time with scripted discovery and pods, and over HTTP to pods on loopback.

mod support;

#[cfg(feature = "http")]
#[path = "broadcast/http.rs"]
mod http;

use std::{
    collections::BTreeSet,
    error::Error as _,
    fmt,
    future::{Pending, pending},
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::join};
use support::{
    scripted::{Behaviour, Pods, Request, Scripted, World as Story, discovery, endpoint},
    within,
};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};
use tower_headless::{
    Answers, Balance, BalanceBuilder, Broadcast, Collected, Endpoint, EndpointState, Error,
    HealthCheck, OutlierDetection, Subset,
};

const SECOND: Duration = Duration::from_secs(1);
const READY_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = (Endpoint, u32);

/// A story with a balancer that knows the pods `hosts`.
async fn story(hosts: impl IntoIterator<Item = u8>) -> Story {
    story_with(hosts, |builder| builder).await
}

async fn story_with(
    hosts: impl IntoIterator<Item = u8>,
    change: impl FnOnce(BalanceBuilder<Scripted>) -> BalanceBuilder<Scripted>,
) -> Story {
    Story::of(hosts.into_iter().map(endpoint).collect(), change).await
}

impl Story {
    fn broadcast(&self) -> Broadcast<Answer> {
        self.balance.broadcast_with(|_| Request(7))
    }

    async fn answers(&self) -> Answers<Answer> {
        self.broadcast().await.expect("endpoints")
    }

    fn calls(&self, hosts: impl IntoIterator<Item = u8>) -> Vec<usize> {
        let calls = |host| self.pods.counts(host).calls;
        hosts.into_iter().map(calls).collect()
    }

    fn in_flight(&self) -> u32 {
        let endpoints = self.balance.endpoints();
        endpoints.iter().map(|status| status.in_flight).sum()
    }

    fn state(&self, host: u8) -> EndpointState {
        let endpoints = self.balance.endpoints().into_iter();
        let mut endpoints = endpoints.filter(|status| status.endpoint == endpoint(host));
        endpoints.next().expect("an endpoint of the set").state
    }

    /// Changes the set to the pods `hosts`.
    async fn becomes(&self, hosts: impl IntoIterator<Item = u8>) {
        self.script.answer(hosts);
        settle().await;
    }
}

/// Lets the background task run until it waits.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// The endpoints that answered; checks that each answer is the endpoint's own.
fn answered(collected: &Collected<Answer, Error>) -> BTreeSet<Endpoint> {
    let answers = collected.answered.iter();
    let own = answers.inspect(|(asked, (answering, _))| assert_eq!(asked, answering));
    own.map(|(asked, _)| asked.clone()).collect()
}

fn endpoints(hosts: impl IntoIterator<Item = u8>) -> BTreeSet<Endpoint> {
    hosts.into_iter().map(endpoint).collect()
}

/// The only failure, which must be that of pod `host`.
#[track_caller]
fn failed<T>(collected: &Collected<T, Error>, host: u8) -> &Error {
    let [(asked, error)] = &collected.failed[..] else {
        panic!("{} have failed", collected.failed.len());
    };
    assert_eq!(*asked, endpoint(host));
    error
}

#[tokio::test(start_paused = true)]
async fn every_pod_is_asked_once_and_answers_for_itself() {
    let story = story(1..=100).await;
    let collected = story.broadcast().all().await.expect("endpoints");
    assert!(collected.is_complete());
    assert_eq!(answered(&collected), endpoints(1..=100));
    assert_eq!(story.calls(1..=100), [1; 100]);
    assert_eq!(story.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_made_for_each_pod() {
    let story = story(1..=3).await;
    let own = |pod: &Endpoint| (1..=3).find(|&host| *pod == endpoint(host));
    let number = move |pod: &Endpoint| own(pod).map_or(0, u32::from);
    let broadcast = (story.balance).broadcast_with(move |pod| Request(number(pod)));
    let collected = broadcast.all().await.expect("endpoints");
    assert_eq!(answered(&collected), endpoints(1..=3));
    for (pod, (_, answer)) in &collected.answered {
        assert_eq!(*answer, number(pod));
    }
}

#[tokio::test(start_paused = true)]
async fn far_pods_are_asked_as_near_ones_are() {
    let near = |builder: BalanceBuilder<Scripted>| builder.prefer_zone("a");
    let story = story_with([], near).await;
    let in_zone = |(host, zone)| endpoint(host).with_zone(zone);
    let set = [(1, "a"), (2, "a"), (3, "b"), (4, "c")].map(in_zone);
    story.script.endpoints(set.into());
    settle().await;
    let collected = story.broadcast().all().await.expect("endpoints");
    assert!(collected.is_complete());
    assert_eq!(story.calls(1..=4), [1; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_is_asked_and_comes_back_by_its_answer() {
    let detection = |builder: BalanceBuilder<Scripted>| {
        builder.outlier_detection(OutlierDetection::new().consecutive_failures(2))
    };
    let story = story_with(1..=3, detection).await;
    story.pods.set([2], Behaviour::Fail);
    for _ in 0..2 {
        let collected = story.broadcast().all().await.expect("endpoints");
        assert!(failed(&collected, 2).is_endpoint());
        settle().await;
    }
    let out = story.state(2);
    assert!(matches!(out, EndpointState::Ejected(_)), "it counts: {out}");
    // First while it is out, then when a trial is due.
    for wait in [Duration::ZERO, 10 * SECOND] {
        sleep(wait).await;
        let began = Instant::now();
        let collected = story.broadcast().all().await.expect("endpoints");
        assert!(failed(&collected, 2).is_endpoint());
        assert_eq!(began.elapsed(), Duration::ZERO, "asked at once");
        settle().await;
    }
    assert_eq!(story.calls([2]), [4]);
    story.pods.set([2], Behaviour::Answer);
    sleep(60 * SECOND).await;
    let collected = story.broadcast().all().await.expect("endpoints");
    assert!(collected.is_complete());
    settle().await;
    assert_eq!(story.state(2), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn pods_that_fail_their_checks_are_asked() {
    let unfit = |endpoint: Endpoint| async move {
        match endpoint == self::endpoint(1) {
            true => Ok(()),
            false => Err("not well"),
        }
    };
    let check = |builder: BalanceBuilder<Scripted>| {
        builder.health_check(HealthCheck::by(unfit).require_initial_pass(true))
    };
    let story = story_with(1..=3, check).await;
    settle().await;
    assert_eq!(story.state(2), EndpointState::Pending);
    let collected = story.broadcast().all().await.expect("endpoints");
    assert_eq!(answered(&collected), endpoints(1..=3));
    // Failed checks don't keep a pod that has refused from being tried again, either.
    story.pods.set([3], Behaviour::HandBack);
    let (collected, ()) = join(story.broadcast().all(), async {
        sleep(SECOND).await;
        story.pods.set([3], Behaviour::Answer);
    })
    .await;
    assert_eq!(answered(&collected.expect("endpoints")), endpoints(1..=3));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_refuses_holds_up_no_other_and_is_an_error_after_the_ready_timeout() {
    for refuses in [Behaviour::NotReady, Behaviour::HandBack] {
        let story = story(1..=3).await;
        story.pods.set([2], refuses);
        let began = Instant::now();
        let mut answers = story.answers().await;
        for _ in 0..2 {
            let (_, answer) = answers.next().await.expect("an answer");
            answer.expect("an answer");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (asked, answer) = answers.next().await.expect("the error");
        let error = answer.expect_err("it refuses");
        assert!(error.is_unreachable() && error.is_unsent(), "{error}");
        assert_eq!(error.endpoint(), Some(&asked));
        assert!(error.source().is_some(), "why it refused");
        assert_eq!(began.elapsed(), READY_TIMEOUT);
        assert!(answers.next().await.is_none());
        assert_eq!(story.in_flight(), 0);
        assert_eq!(story.calls([1, 3]), [1, 1], "no other one had its request");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_accepts_again_within_the_ready_timeout_gets_its_request() {
    for refuses in [Behaviour::NotReady, Behaviour::HandBack] {
        let story = story(1..=3).await;
        story.pods.set([2], refuses);
        let (collected, ()) = join(story.broadcast().all(), async {
            sleep(2 * SECOND).await;
            story.pods.set([2], Behaviour::Answer);
        })
        .await;
        assert_eq!(answered(&collected.expect("endpoints")), endpoints(1..=3));
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_have_refused_for_long_are_tried_often_while_they_are_asked() {
    let story = story(1..=21).await;
    story.pods.set(2..=21, Behaviour::NotReady);
    let collected = story.broadcast().all().await.expect("endpoints");
    assert_eq!(collected.failed.len(), 20);
    // Long enough for the pause between two attempts to reach the ready timeout.
    sleep(300 * SECOND).await;
    let (collected, ()) = join(story.broadcast().all(), async {
        sleep(4 * SECOND).await;
        story.pods.set(2..=21, Behaviour::Answer);
    })
    .await;
    assert_eq!(answered(&collected.expect("endpoints")), endpoints(1..=21));
}

#[tokio::test(start_paused = true)]
async fn with_fail_fast_a_pod_that_refuses_is_an_error_at_once() {
    let story = story_with([], BalanceBuilder::fail_fast).await;
    story.becomes(1..=3).await;
    story.pods.set([2], Behaviour::NotReady);
    let began = Instant::now();
    let collected = story.broadcast().all().await.expect("endpoints");
    assert!(failed(&collected, 2).is_unreachable());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_ready_too_late_is_an_error_after_the_ready_timeout() {
    let story = story(1..=3).await;
    story.pods.set([2], Behaviour::Pending);
    let collected = story.broadcast().all().await.expect("endpoints");
    assert!(failed(&collected, 2).is_unreachable());
    assert_eq!(story.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_before_it_is_asked_is_gone_and_its_successor_is_not_asked() {
    let story = story(1..=4).await;
    story.pods.set([1], Behaviour::Hold);
    let mut answers = story.broadcast().concurrency(1).await.expect("endpoints");
    assert!(answers.next().now_or_never().is_none(), "the first holds");
    story.becomes([1, 2]).await;
    // Back at its old address, where nothing tells it from its predecessor.
    story.becomes([1, 2, 3]).await;
    story.pods.set([1], Behaviour::Answer);
    let mut all: Vec<_> = answers.collect().await;
    let gone = all.split_off(2);
    assert!(all.iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!(gone.len(), 2);
    for ((asked, answer), host) in gone.iter().zip(3..) {
        let error = answer.as_ref().expect_err("it has left");
        assert!(error.is_gone() && error.is_unsent(), "{error}");
        assert_eq!((asked, error.endpoint()), (&endpoint(host), Some(asked)));
    }
    assert_eq!(story.calls([3, 4]), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_while_it_refuses_or_becomes_ready_is_gone() {
    for behaviour in [Behaviour::NotReady, Behaviour::Pending, Behaviour::HandBack] {
        let story = story(1..=3).await;
        story.pods.set([3], behaviour);
        let (collected, ()) = join(story.broadcast().all(), async {
            settle().await;
            story.becomes([1, 2]).await;
            story.becomes([1, 2, 3]).await;
            story.pods.set([3], Behaviour::Answer);
        })
        .await;
        let collected = collected.expect("endpoints");
        assert!(failed(&collected, 3).is_gone(), "{behaviour:?}");
        assert_eq!(answered(&collected), endpoints([1, 2]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_with_the_request_still_answers_it() {
    let story = story(1..=3).await;
    story.pods.set([3], Behaviour::Hold);
    let (collected, ()) = join(story.broadcast().all(), async {
        settle().await;
        story.becomes([1, 2]).await;
        story.pods.set([3], Behaviour::Answer);
    })
    .await;
    assert!(collected.expect("endpoints").is_complete());
}

#[tokio::test(start_paused = true)]
async fn pods_that_join_are_asked_only_if_chosen() {
    for include in [false, true] {
        let story = story([1, 2]).await;
        story.pods.set([1], Behaviour::Hold);
        let broadcast = story.broadcast().include_joining(include);
        let (collected, ()) = join(broadcast.all(), async {
            settle().await;
            story.becomes([1, 2, 3]).await;
            // A new life of the second pod.
            story.becomes([1, 3]).await;
            story.becomes([1, 2, 3, 4]).await;
            story.pods.set([1], Behaviour::Answer);
        })
        .await;
        let collected = collected.expect("endpoints");
        assert!(collected.is_complete());
        let expected: &[usize] = if include {
            &[1, 2, 1, 1]
        } else {
            &[1, 1, 0, 0]
        };
        assert_eq!(story.calls(1..=4), expected, "include: {include}");
        assert_eq!(collected.answered.len(), expected.iter().sum::<usize>());
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_have_ended_stay_ended_though_pods_join() {
    let story = story([1, 2]).await;
    let answers = story.broadcast().include_joining(true).await;
    let mut answers = answers.expect("endpoints");
    for _ in 0..2 {
        assert!(answers.next().await.expect("an answer").1.is_ok());
    }
    assert!(answers.next().await.is_none());
    story.becomes([1, 2, 3]).await;
    assert!(answers.next().await.is_none());
    assert_eq!(answers.size_hint(), (0, Some(0)));
    assert_eq!(story.calls(1..=3), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn all_but_one_are_asked_late_joiners_too() {
    let story = story([1, 2, 3]).await;
    story.pods.set([1], Behaviour::Hold);
    let broadcast = story.broadcast().include_joining(true);
    let broadcast = broadcast.leave_out("10.0.0.2");
    let (collected, ()) = join(broadcast.all(), async {
        settle().await;
        // A new life of the pod that is left out, and one more pod.
        story.becomes([1, 3]).await;
        story.becomes([1, 2, 3, 4]).await;
        story.pods.set([1], Behaviour::Answer);
    })
    .await;
    let collected = collected.expect("endpoints");
    assert!(collected.is_complete());
    assert_eq!(answered(&collected), endpoints([1, 3, 4]));
    assert_eq!(story.calls(1..=4), [1, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_name_is_learnt_before_its_turn_is_left_out() {
    let story = story([1, 2, 3]).await;
    story.pods.set([1], Behaviour::Hold);
    let broadcast = story.broadcast().leave_out("web-2").concurrency(1);
    let (collected, ()) = join(broadcast.all(), async {
        settle().await;
        let named = endpoint(3).with_hostname("web-2");
        story
            .script
            .endpoints(vec![endpoint(1), endpoint(2), named]);
        settle().await;
        story.pods.set([1], Behaviour::Answer);
    })
    .await;
    assert_eq!(answered(&collected.expect("endpoints")), endpoints([1, 2]));
    assert_eq!(story.calls(1..=3), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_majority_of_the_others_is_more_than_half_of_them() {
    let story = story(1..=5).await;
    story.pods.set([1, 2], Behaviour::Fail);
    let of_all = story.broadcast().majority().await.expect("three of five");
    assert_eq!(of_all.len(), 3);
    let error = story.broadcast().leave_out(&endpoint(3)).majority().await;
    assert_eq!(error.expect_err("two of four").failed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_another_pod_than_the_one_that_is_left_out_nobody_is_asked() {
    let story = story([1]).await;
    for deadline in [SECOND, Duration::ZERO] {
        let broadcast = story.broadcast().leave_out("10.0.0.1").deadline(deadline);
        let error = broadcast.all().await.expect_err("nobody else");
        assert!(error.is_no_endpoints() && error.is_unsent(), "{error}");
        assert!(
            error.to_string().contains("the one that is left out"),
            "{error}"
        );
    }
    assert_eq!(story.calls([1]), [0]);
}

#[tokio::test(start_paused = true)]
async fn all_but_one_of_all_pods_are_asked_if_the_set_is_a_subset() {
    let part = |builder: BalanceBuilder<Scripted>| builder.subset(Subset::of(2));
    let story = story_with(1..=6, part).await;
    let collected = story.broadcast().leave_out("10.0.0.4").all().await;
    assert_eq!(collected.expect("endpoints").answered.len(), 5);
    assert_eq!(story.calls(1..=6), [1, 1, 1, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn no_more_pods_are_asked_at_once_than_the_concurrency() {
    let story = story(1..=10).await;
    story.pods.set(1..=10, Behaviour::Hold);
    let mut answers = story.broadcast().concurrency(3).await.expect("endpoints");
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(story.in_flight(), 3);
    story.pods.set([2], Behaviour::Answer);
    let (asked, _) = answers.next().await.expect("the second");
    assert_eq!(asked, endpoint(2));
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(story.in_flight(), 3);
    assert_eq!(story.calls([4, 5]), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn sixty_four_are_asked_at_once_by_default() {
    let story = story(1..=100).await;
    story.pods.set(1..=100, Behaviour::Hold);
    let mut answers = story.answers().await;
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(story.in_flight(), 64);
    assert_eq!(answers.size_hint(), (100, Some(100)));
}

#[tokio::test(start_paused = true)]
async fn slow_pods_hold_up_no_others() {
    let story = story(1..=100).await;
    story.pods.set([1, 2], Behaviour::Hold);
    let mut answers = story.broadcast().concurrency(3).await.expect("endpoints");
    let (mut fast, began) = (BTreeSet::new(), Instant::now());
    for _ in 0..98 {
        let (asked, answer) = answers.next().await.expect("an answer");
        answer.expect("an answer");
        fast.insert(asked);
    }
    assert_eq!(fast, endpoints(3..=100));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_answer_in_its_time_is_an_error() {
    let story = story(1..=5).await;
    story.pods.set([1, 2], Behaviour::Hold);
    let began = Instant::now();
    let broadcast = story.broadcast().concurrency(1).endpoint_timeout(SECOND);
    let collected = within("the timeouts", broadcast.all()).await;
    let collected = collected.expect("endpoints");
    assert_eq!(began.elapsed(), 2 * SECOND, "each from when it was asked");
    assert_eq!(answered(&collected), endpoints(3..=5));
    for (asked, error) in &collected.failed {
        assert!(error.is_timeout() && !error.is_unsent(), "{error}");
        assert_eq!(error.endpoint(), Some(asked));
    }
    assert_eq!(story.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_timed_out_without_the_request_cannot_have_executed_it() {
    let each = |broadcast: Broadcast<Answer>| broadcast.endpoint_timeout(SECOND);
    let all = |broadcast: Broadcast<Answer>| broadcast.deadline(SECOND);
    for bound in [each, all] {
        let story = story(1..=4).await;
        story.pods.set([1], Behaviour::Hold);
        story.pods.set([2], Behaviour::NotReady);
        story.pods.set([3], Behaviour::Pending);
        story.pods.set([4], Behaviour::HandBack);
        let collected = within("the timeouts", bound(story.broadcast()).all()).await;
        let collected = collected.expect("endpoints");
        assert_eq!(collected.failed.len(), 4);
        for (asked, error) in &collected.failed {
            assert!(error.is_timeout(), "{error}");
            assert_eq!(error.is_unsent(), *asked != endpoint(1), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_refuse_until_the_timeout_have_errors_that_say_so() {
    let each = |broadcast: Broadcast<Answer>| broadcast.endpoint_timeout(SECOND);
    let all = |broadcast: Broadcast<Answer>| broadcast.deadline(SECOND);
    for bound in [each, all] {
        for refuses in [Behaviour::NotReady, Behaviour::HandBack] {
            let story = story(1..=4).await;
            story.pods.set([1], Behaviour::Hold);
            story.pods.set([2, 3], refuses);
            // The second time, the balancer knows that they refuse.
            for _ in 0..2 {
                let collected = bound(story.broadcast()).all().await.expect("endpoints");
                assert_eq!(collected.failed.len(), 3);
                for (asked, error) in &collected.failed {
                    let refusal = error.source().map(ToString::to_string);
                    assert!(error.is_timeout(), "{error}");
                    assert_eq!(refusal.is_some(), *asked != endpoint(1), "{error}");
                    let text = error.to_string();
                    assert!(
                        text.contains(" within 1s (the broadcast's `")
                            && text.ends_with(refusal.as_deref().unwrap_or("`)")),
                        "{text}"
                    );
                }
            }
        }
    }
}

/// A refusal, which can be counted while somebody keeps it.
#[derive(Clone, Debug)]
struct Refusal {
    _kept: Option<Arc<()>>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused")
    }
}

impl std::error::Error for Refusal {}

/// A pod that refuses.
#[derive(Clone)]
struct Refusing(Weak<()>);

impl Service<Request> for Refusing {
    type Response = ();
    type Error = Refusal;
    type Future = Pending<Result<(), Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let _kept = self.0.upgrade();
        Poll::Ready(Err(Refusal { _kept }))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        pending()
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_pods_that_have_left_are_dropped() {
    let kept = Arc::new(());
    let refusal = Arc::downgrade(&kept);
    let (script, source) = discovery();
    let balance = Balance::builder(source).fail_fast();
    let balance = balance.build(move |_: &Endpoint| Refusing(refusal.clone()));
    script.answer(1..=9);
    settle().await;
    let collected = balance.broadcast_with(|_| Request(7)).all().await;
    assert_eq!(collected.expect("endpoints").failed.len(), 9);
    assert_eq!(Arc::strong_count(&kept), 1 + 9, "each one's own");
    script.answer([10]);
    settle().await;
    assert!(Arc::strong_count(&kept) <= 1 + 1, "but for the last of all");
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_each_pod_that_is_left_is_an_error() {
    let story = story(1..=10).await;
    story.pods.set([3, 5], Behaviour::Hold);
    let broadcast = story.broadcast().concurrency(2).deadline(SECOND);
    let began = Instant::now();
    let mut answers = broadcast.await.expect("endpoints");
    let (mut well, mut asked, mut unasked) = (0, Vec::new(), Vec::new());
    while let Some((endpoint, answer)) = answers.next().await {
        match answer {
            Ok(_) => well += 1,
            Err(error) if error.is_unsent() => unasked.push((endpoint, error)),
            Err(error) => asked.push((endpoint, error)),
        }
        if !asked.is_empty() {
            assert_eq!(story.in_flight(), 0, "cancelled by then");
        }
    }
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!((well, asked.len(), unasked.len()), (3, 2, 5));
    assert!(
        asked
            .iter()
            .chain(&unasked)
            .all(|(endpoint, error)| { error.is_timeout() && error.endpoint() == Some(endpoint) })
    );
    assert_eq!(story.calls(6..=10), [0; 5]);
}

#[tokio::test(start_paused = true)]
async fn zero_successes_succeed_at_once_and_nobody_is_asked() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source).build(pods.make());
    let broadcast = || balance.broadcast_with(|_| Request(7));
    // Also without any pods: it doesn't wait for discovery.
    for hosts in [0..0, 1..4] {
        script.answer(hosts);
        let first = broadcast().first(0).now_or_never().expect("no wait");
        assert!(first.expect("no failure").answered.is_empty());
        let quorum = broadcast().quorum(0).now_or_never().expect("no wait");
        assert!(quorum.expect("no failure").is_empty());
        settle().await;
    }
    let calls = (1..4).map(|host| pods.counts(host).calls);
    assert_eq!(calls.sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_the_wait_for_discovery() {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(discovery).build(pods.make());
    script.fail("SERVFAIL");
    let broadcast = balance.broadcast_with(|_| Request(7)).deadline(SECOND);
    let began = Instant::now();
    let error = broadcast.await.expect_err("no endpoint");
    assert!(error.is_no_endpoints(), "{error}");
    let source = error.source().expect("discovery's error");
    assert_eq!(source.to_string(), "SERVFAIL");
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_is_dropped_midway_leaves_nothing_behind() {
    let story = story(1..=100).await;
    story.pods.set(2..=100, Behaviour::Hold);
    let mut answers = story.answers().await;
    let (asked, _) = answers.next().await.expect("the first");
    assert_eq!(asked, endpoint(1));
    assert!(answers.next().now_or_never().is_none());
    assert_eq!(story.in_flight(), 64);
    drop(answers);
    assert_eq!(story.in_flight(), 0);
    story.pods.set(2..=100, Behaviour::Answer);
    settle().await;
    assert_eq!(story.calls(66..=100), [0; 35], "nobody else is asked");
    // Two remain, the balancer's and the snapshot's: requests hold no services any more.
    assert_eq!(story.pods.alive(2), story.pods.alive(100));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_keeps_its_balancer_alive_until_it_ends() {
    let Story {
        script,
        pods,
        balance,
    } = story([1, 2]).await;
    pods.set([1], Behaviour::NotReady);
    let broadcast = balance.broadcast_with(|_| Request(7));
    drop(balance);
    let (collected, ()) = join(broadcast.all(), async {
        sleep(SECOND).await;
        pods.set([1], Behaviour::Answer);
    })
    .await;
    assert!(collected.expect("endpoints").is_complete());
    script.closed().await;
    assert_eq!((pods.alive(1), pods.alive(2)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_successes_are_enough_and_the_rest_is_cancelled() {
    let story = story(1..=10).await;
    story.pods.set(1..=4, Behaviour::Hold);
    story.pods.set([5, 6], Behaviour::Fail);
    let collected = story.broadcast().first(3).await.expect("endpoints");
    assert_eq!(answered(&collected).len(), 3);
    assert!(answered(&collected).is_subset(&endpoints(7..=10)));
    assert!(
        collected
            .failed
            .iter()
            .all(|(_, error)| error.is_endpoint())
    );
    assert_eq!(story.in_flight(), 0);
    // With fewer successes than wanted, all pods have been asked.
    story.pods.set(1..=4, Behaviour::Answer);
    let collected = story.broadcast().first(9).await.expect("endpoints");
    assert_eq!((collected.answered.len(), collected.failed.len()), (8, 2));
}

#[tokio::test(start_paused = true)]
async fn a_quorum_succeeds_as_soon_as_enough_pods_have_answered() {
    let story = story(1..=5).await;
    story.pods.set([1], Behaviour::Hold);
    story.pods.set([2], Behaviour::Fail);
    let began = Instant::now();
    let answers = story.broadcast().quorum(3).await.expect("a quorum");
    assert_eq!(answers.len(), 3);
    let answers = story.broadcast().majority().await.expect("a quorum");
    assert_eq!(answers.len(), 3);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(story.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_fails_as_soon_as_it_cannot_be_reached() {
    let story = story(1..=5).await;
    story.pods.set([1], Behaviour::Hold);
    story.pods.set([2, 3], Behaviour::Fail);
    let began = Instant::now();
    let broadcast = story.broadcast().quorum(4);
    let error = broadcast.await.expect_err("two have failed");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(story.in_flight(), 0);
    assert!(!error.is_unbegun());
    let failed: BTreeSet<_> = error.failed().iter().map(|(it, _)| it.clone()).collect();
    assert_eq!(failed, endpoints([2, 3]));
    assert!(error.failed().iter().all(|(_, error)| error.is_endpoint()));
    let last = error.source().expect("the last failure").to_string();
    assert!(last.contains("failed"), "{last}");
    assert!(!error.answered().contains(&endpoint(1)));
    let text = error.to_string();
    assert!(
        text.contains("4 answers were wanted of 5 endpoints"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quorum_larger_than_the_set_asks_nobody() {
    let story = story(1..=3).await;
    let error = story.broadcast().quorum(4).await.expect_err("three");
    assert!(error.failed().is_empty() && error.answered().is_empty());
    assert_eq!(story.calls(1..=3), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_quorum_that_timed_out_names_each_pod() {
    let story = story(1..=5).await;
    story.pods.set([1, 2, 3], Behaviour::Hold);
    let broadcast = story.broadcast().deadline(SECOND).quorum(3);
    let error = broadcast.await.expect_err("two have answered");
    assert_eq!(error.answered().len(), 2);
    assert_eq!(error.failed().len(), 3);
    assert!(error.failed().iter().all(|(_, error)| error.is_timeout()));
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_of_discovery_is_waited_for() {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(discovery).build(pods.make());
    let broadcast = balance.broadcast_with(|_| Request(7)).all();
    let (collected, ()) = join(broadcast, async {
        sleep(2 * SECOND).await;
        script.answer(1..=3);
    })
    .await;
    assert_eq!(answered(&collected.expect("endpoints")), endpoints(1..=3));
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_a_broadcast_fails_as_a_request_does() {
    let (script, discovery) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(discovery).build(pods.make());
    let began = Instant::now();
    let broadcast = balance.broadcast_with(|_| Request(7));
    let error = broadcast.await.expect_err("discovery has not answered");
    assert!(error.is_no_endpoints(), "{error}");
    assert_eq!(began.elapsed(), READY_TIMEOUT);
    script.answer([]);
    settle().await;
    let request = balance
        .clone()
        .ready()
        .await
        .expect("ready")
        .call(Request(7));
    let expected = request.await.expect_err("no endpoint").to_string();
    let broadcast = balance.broadcast_with(|_| Request(7)).all();
    let error = broadcast.await.expect_err("no endpoint");
    assert_eq!(error.to_string(), expected);
    let error = balance.broadcast_with(|_| Request(7)).majority().await;
    assert!(error.expect_err("no endpoint").is_unbegun());
}

#[tokio::test(start_paused = true)]
async fn two_broadcasts_at_once_do_not_affect_each_other() {
    let story = story(1..=100).await;
    story.pods.set([50], Behaviour::Hold);
    let numbered = |number| {
        let broadcast = story.balance.broadcast_with(move |_| Request(number));
        broadcast.concurrency(7).endpoint_timeout(SECOND).all()
    };
    let both = join(numbered(1), numbered(2));
    let (first, second) = within("the timeouts", both).await;
    for (collected, number) in [(first, 1), (second, 2)] {
        let collected = collected.expect("endpoints");
        assert!(failed(&collected, 50).is_timeout());
        assert_eq!(answered(&collected).len(), 99);
        let mut answers = collected.answered.iter();
        assert!(answers.all(|(_, (_, answer))| *answer == number));
    }
    // Also to a pod that refuses.
    story.pods.set([50], Behaviour::HandBack);
    let (both, ()) = join(join(numbered(3), numbered(4)), async {
        sleep(SECOND / 2).await;
        story.pods.set([50], Behaviour::Answer);
    })
    .await;
    assert!(both.0.expect("endpoints").is_complete());
    assert!(both.1.expect("endpoints").is_complete());
    assert_eq!(story.in_flight(), 0);
}
