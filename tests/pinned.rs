//! Requests for one pod, wherever it is, and for any pod but one.

mod support;

#[path = "pinned/http.rs"]
mod http;
#[path = "pinned/names.rs"]
mod names;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use support::scripted::{
    Behaviour, PodService, Pods, Request, Scripted, World as Story, endpoint, settle,
};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, BalanceBuilder, BoxError, BuiltInPolicy, Discovery, Endpoint, EndpointState, Error,
    OutlierDetection, Pinned, PodId, RetryLayer, RetryPolicy, Route, StreamDiscovery,
};

const SECOND: Duration = Duration::from_secs(1);

fn web(host: u8, ordinal: u8) -> Endpoint {
    endpoint(host).with_hostname(format!("web-{ordinal}"))
}

/// Pods `web-0` and so on, at these hosts. Host 0 means that the pod is away.
fn set<const N: usize>(hosts: [u8; N]) -> Vec<Endpoint> {
    let pods = hosts.into_iter().zip(0..).filter(|(host, _)| *host > 0);
    pods.map(|(host, ordinal)| web(host, ordinal)).collect()
}

/// A StatefulSet of five at hosts 1 to 5.
async fn story() -> Story {
    story_with(|builder| builder).await
}

async fn story_with(
    change: impl FnOnce(BalanceBuilder<Scripted>) -> BalanceBuilder<Scripted>,
) -> Story {
    Story::of(set([1, 2, 3, 4, 5]), change).await
}

impl Story {
    fn calls(&self, hosts: impl IntoIterator<Item = u8>) -> usize {
        let hosts = hosts.into_iter();
        hosts.map(|host| self.pods.counts(host).calls).sum()
    }
}

type Pod = Pinned<Balance<PodService>>;

/// The host that answers.
async fn ask(pod: &Pod) -> Result<SocketAddr, Error> {
    let mut pod = pod.clone();
    let response = pod.ready().await?.call(Request(1)).await;
    response.map(|(endpoint, _)| endpoint.address())
}

fn at(host: u8) -> SocketAddr {
    endpoint(host).address()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_followed_and_no_other_pod_gets_its_requests() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    assert_eq!(ask(&pod).await.expect("it is there"), at(4));
    let mut old = 4;
    for new in [9, 8, 7] {
        // The pod is gone before the set says so.
        story.pods.set([old], Behaviour::NotReady);
        let mut waiting: Vec<_> = (0..20).map(|_| task::spawn(ask(&pod))).collect();
        for request in &mut waiting {
            assert_pending!(request.poll());
        }
        sleep(SECOND).await;
        story.set(set([1, 2, 3, 0, 5])).await;
        sleep(2 * SECOND).await;
        for request in &mut waiting {
            assert_pending!(request.poll());
        }
        assert_eq!(pod.endpoint(), None);
        story.set(set([1, 2, 3, new, 5])).await;
        for request in &mut waiting {
            assert_eq!(assert_ready!(request.poll()).expect("it is back"), at(new));
        }
        assert_eq!(pod.endpoint(), Some(web(new, 3)));
        old = new;
    }
    assert_eq!(story.calls([1, 2, 3, 5]), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stays_away_is_an_error_that_says_what_is_known_of_it() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    story.set(set([1, 2, 3, 0, 5])).await;
    sleep(2 * SECOND).await;
    let error = ask(&pod).await.expect_err("it is away");
    assert!(error.is_unreachable() && error.is_absent() && error.is_unsent());
    assert_eq!((error.pod(), error.endpoint()), (Some("web-3"), None));
    assert_eq!(
        error.to_string(),
        "pod web-3 isn't there; it left 10.0.0.4:80 7 s ago; there are web-0, web-1, web-2, web-4"
    );
    assert_eq!(story.calls(1..=5), 0);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_an_unknown_name_lists_some_known_ones() {
    let story = story_with(|builder| builder.fail_fast()).await;
    let text = |pod: Pod| async move { ask(&pod).await.expect_err("nobody has it").to_string() };
    assert_eq!(
        text(story.balance.pod("web-7")).await,
        "pod web-7 isn't there; there are web-0, web-1, web-2, web-3 and 1 more"
    );
    story.set(vec![endpoint(6), endpoint(7)]).await;
    assert_eq!(
        text(story.balance.pod("web-7")).await,
        "pod web-7 isn't there; of 2 endpoints no name is known"
    );
    story.set(vec![]).await;
    assert_eq!(
        text(story.balance.pod("web-7")).await,
        "pod web-7 isn't there; there are no endpoints"
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_of_an_unknown_number_or_address_advises_to_ask_by_name() {
    let story = story_with(|builder| builder.fail_fast()).await;
    let text = |pod: Pod| async move { ask(&pod).await.expect_err("nobody is it").to_string() };
    assert_eq!(
        text(story.balance.pod(at(9))).await,
        "pod at 10.0.0.9:80 isn't there; there are web-0, web-1, web-2, web-3 and 1 more; \
         a pod that is replaced gets another address: ask for it by its name"
    );
    story.set(vec![endpoint(6), endpoint(7)]).await;
    assert_eq!(
        text(story.balance.pod_at(8)).await,
        "pod number 8 isn't there; of 2 endpoints no name is known; ask for it by its name"
    );
    story.set(vec![]).await;
    for pod in [story.balance.pod_at(8), story.balance.pod(at(9))] {
        let text = text(pod).await;
        assert!(
            text.ends_with("isn't there; there are no endpoints"),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_name_is_an_error_at_once_that_says_so() {
    let story = story().await;
    let pod = story.balance.pod("");
    let mut request = task::spawn(ask(&pod));
    let error = assert_ready!(request.poll()).expect_err("no pod has it");
    assert!(error.is_absent() && error.is_unsent(), "{error}");
    assert_eq!(
        error.to_string(),
        "pod \"\" isn't there: no pod has an empty name (is a variable not set?)"
    );
}

/// Otherwise it would go to the pod that should be left out.
#[tokio::test(start_paused = true)]
async fn an_empty_name_that_is_left_out_fails_each_request_at_once() {
    let says = "pod \"\" can't be left out: no pod has an empty name (is a variable not set?)";
    let story = story().await;
    let others = story.balance.others("");
    let by_hand = story
        .balance
        .call_with(Request(1), Route::new().leave_out(""));
    let by_hand = by_hand.now_or_never().expect("at once").map(|_| at(1));
    let mut request = task::spawn(ask(&others));
    for result in [assert_ready!(request.poll()), by_hand] {
        let error = result.expect_err("whom it leaves out isn't known");
        assert!(error.is_absent() && error.is_unsent(), "{error}");
        assert_eq!(error.to_string(), says);
    }
    let broadcast = story.balance.broadcast_with(|_| Request(1)).leave_out("");
    let error = broadcast.all().await.expect_err("nor here");
    assert_eq!(error.to_string(), says);
    assert_eq!(story.calls(1..=5), 0);
}

#[tokio::test(start_paused = true)]
async fn send_needs_no_poll_ready_for_one_pod_or_for_any() {
    let story = story().await;
    let (pod, _) = story
        .balance
        .pod("web-3")
        .send(Request(1))
        .await
        .expect("it is there");
    assert_eq!(pod.address(), at(4));
    story.balance.send(Request(1)).await.expect("any");
    assert_eq!(story.calls(1..=5), 2);
}

/// A request that gives up just when its pod comes is sent, or says that the pod is away. Never that it refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_comes_when_a_request_gives_up_is_not_said_to_refuse() {
    for _ in 0..300 {
        let (sender, sets) = futures::channel::mpsc::unbounded();
        let send = |set: Vec<Endpoint>| sender.unbounded_send(set).expect("it is read");
        send(vec![web(1, 0)]);
        let balance = Balance::builder(StreamDiscovery::new(sets)).fail_fast();
        let balance = balance.build(|pod: &Endpoint| {
            let address = pod.address();
            service_fn(move |_: Request| async move { Ok::<_, BoxError>(address) })
        });
        balance.discovered().await.expect("a set");
        let requests = tokio::spawn({
            let pod = balance.pod("web-1");
            async move {
                loop {
                    match pod.send(Request(1)).await {
                        Ok(address) => return address,
                        Err(error) => assert!(error.is_absent(), "{error}"),
                    }
                    // It may have woken the background task on this very thread.
                    yield_now().await;
                }
            }
        });
        send(vec![web(1, 0), web(2, 1)]);
        assert_eq!(requests.await.expect("no other error"), at(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_refuses_is_an_error_that_has_its_endpoint() {
    let story = story().await;
    story.pods.set([4], Behaviour::NotReady);
    let error = ask(&story.balance.pod("web-3")).await.expect_err("refused");
    assert!(error.is_unreachable() && !error.is_absent());
    assert_eq!(error.endpoint(), Some(&web(4, 3)));
    assert_eq!(
        error.to_string(),
        "pod web-3 accepts no requests at 10.0.0.4:80: connection refused"
    );
    assert_eq!(story.calls(1..=5), 0);
}

#[tokio::test(start_paused = true)]
async fn two_pods_that_swap_addresses_between_two_lookups_get_their_own_requests() {
    let story = story().await;
    let pods = [story.balance.pod("web-0"), story.balance.pod("web-1")];
    let ask_both = || async {
        [
            ask(&pods[0]).await.expect("there"),
            ask(&pods[1]).await.expect("there"),
        ]
    };
    assert_eq!(ask_both().await, [at(1), at(2)]);
    let alive = [1, 2].map(|host| story.pods.alive(host));
    story.set(set([2, 1, 3, 4, 5])).await;
    assert_eq!(ask_both().await, [at(2), at(1)]);
    // Nothing is left of the other pod's life, not even a connection.
    assert_eq!([1, 2].map(|host| story.pods.counts(host).made), [2, 2]);
    assert_eq!([1, 2].map(|host| story.pods.alive(host)), alive);
}

#[tokio::test(start_paused = true)]
async fn a_pod_comes_back_at_another_one_s_old_address() {
    let story = story().await;
    let (one, three) = (story.balance.pod("web-1"), story.balance.pod("web-3"));
    story.pods.set([2], Behaviour::Pending);
    // It waits for web-1 at an address that becomes web-3's before web-1 is ready.
    let mut waiting = task::spawn(ask(&one));
    assert_pending!(waiting.poll());
    story.set(set([1, 0, 3, 2, 5])).await;
    story.pods.set([2], Behaviour::Answer);
    settle().await;
    assert_pending!(waiting.poll());
    assert_eq!(ask(&three).await.expect("there"), at(2));
    assert_eq!(story.calls([2]), 1);
    story.set(set([1, 9, 3, 2, 5])).await;
    assert_eq!(assert_ready!(waiting.poll()).expect("back"), at(9));
}

#[tokio::test(start_paused = true)]
async fn a_name_learnt_at_one_address_is_not_remembered_for_another() {
    let story = story().await;
    // As from a source that knows some names, after one that knew all.
    story.set(vec![endpoint(1), endpoint(2), web(9, 0)]).await;
    let address = |name: &str| story.balance.endpoint(name).map(|it| it.address());
    assert_eq!(["web-0", "web-1"].map(address), [Some(at(9)), Some(at(2))]);
    assert_eq!(
        ask(&story.balance.pod("web-0")).await.expect("there"),
        at(9)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_s_successor_gets_its_requests_before_the_terminating_one() {
    let story = story().await;
    let old = web(4, 3).with_pod_uid("a").with_terminating(true);
    story.set(vec![old, web(9, 3).with_pod_uid("b")]).await;
    assert_eq!(
        ask(&story.balance.pod("web-3")).await.expect("there"),
        at(9)
    );
}

#[tokio::test(start_paused = true)]
async fn an_ordinal_names_that_pod_of_the_stateful_set() {
    let story = story().await;
    let pod = story.balance.pod_at(3);
    assert_eq!(ask(&pod).await.expect("there"), at(4));
    story.set(set([1, 2, 3, 0, 5])).await;
    let error = ask(&pod).await.expect_err("away");
    assert_eq!(error.pod(), Some("web-3"));
    story.set(set([1, 2, 3, 9, 5])).await;
    assert_eq!(ask(&pod).await.expect("back"), at(9));
}

#[tokio::test(start_paused = true)]
async fn an_ordinal_of_several_stateful_sets_is_an_error_at_once() {
    let story = story().await;
    story
        .set(vec![web(1, 3), endpoint(2).with_hostname("api-0")])
        .await;
    let error = ask(&story.balance.pod_at(3)).now_or_never();
    let error = error.expect("no wait").expect_err("ambiguous");
    assert!(error.is_unreachable() && error.is_absent());
    assert_eq!(
        error.to_string(),
        "pod number 3 may be of several StatefulSets: there are web-3 and api-0; ask for it by its name"
    );
    assert_eq!(story.calls(1..=5), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_found_by_name_address_and_endpoint() {
    let story = story().await;
    let named = web(4, 3).with_pod_name("web-3-in-full");
    story.set(vec![web(1, 0), named.clone()]).await;
    for id in [
        PodId::from("web-3"),
        "web-3-in-full".into(),
        "10.0.0.4".into(),
        at(4).ip().into(),
        at(4).into(),
        (&named).into(),
        PodId::ordinal(3),
    ] {
        assert_eq!(
            story.balance.endpoint(id.clone()),
            Some(named.clone()),
            "{id}"
        );
        assert_eq!(ask(&story.balance.pod(id)).await.expect("there"), at(4));
    }
    for id in ["web-30", "web", "10.0.0.40", "10.0.0.4:81"] {
        assert_eq!(story.balance.endpoint(id), None, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_is_told_once_a_minute_which_pods_are_requested() {
    let story = story_with(|builder| builder.wait_for_ready()).await;
    let told = || story.script.hints().wanted;
    let pod = story.balance.pod("web-3");
    let others = story.balance.others("web-0");
    settle().await;
    assert_eq!(told(), ["web-3", "web-0"]);
    for _ in 0..12 {
        sleep(10 * SECOND).await;
        ask(&pod).await.expect("there");
    }
    settle().await;
    assert_eq!(told()[2..], ["web-3", "web-3"]);
    ask(&others).await.expect("others");
    let route = Route::new().pod(PodId::ordinal(2));
    let answered = story.balance.call_with(Request(1), route).await;
    answered.expect("there");
    settle().await;
    assert_eq!(told()[4..], ["web-0", "web-2"]);
    // An address needn't be looked up.
    ask(&story.balance.pod(at(1))).await.expect("there");
    let absent = story.balance.pod("web-9");
    let mut waiting = task::spawn(ask(&absent));
    assert_pending!(waiting.poll());
    for _ in 0..3 {
        sleep(60 * SECOND).await;
        assert_pending!(waiting.poll());
        settle().await;
    }
    assert_eq!(told()[6..], ["web-9"; 4]);
}

/// A source that ignores the names that it is told.
struct Deaf {
    set: Option<Vec<Endpoint>>,
    told: Arc<AtomicUsize>,
}

impl Discovery for Deaf {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let set = self.set.take();
        set.map_or(Poll::Pending, |set| Poll::Ready(Ok(set)))
    }

    fn wanted(&mut self, _: &str) -> bool {
        self.told.fetch_add(1, Relaxed);
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ignores_names_is_told_only_one() {
    let told = Arc::<AtomicUsize>::default();
    let source = Deaf {
        set: Some(set([1, 2, 3, 4, 5])),
        told: told.clone(),
    };
    let pods = Pods::default();
    let balance = Balance::builder(source).build(pods.make());
    for _ in 0..3 {
        for ordinal in 0..5 {
            let pod = balance.pod(format!("web-{ordinal}"));
            ask(&pod).await.expect("there");
            settle().await;
        }
        sleep(60 * SECOND).await;
    }
    assert_eq!(told.load(Relaxed), 1);
}

/// A source that makes a request for another pod whenever it is told of one.
struct Chain {
    set: Option<Vec<Endpoint>>,
    balance: Arc<OnceLock<Balance<PodService>>>,
    told: usize,
    told_since_asked: usize,
    most: Arc<AtomicUsize>,
}

impl Discovery for Chain {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.told_since_asked = 0;
        let set = self.set.take();
        set.map_or(Poll::Pending, |set| Poll::Ready(Ok(set)))
    }

    fn wanted(&mut self, _: &str) -> bool {
        self.told += 1;
        self.told_since_asked += 1;
        self.most.fetch_max(self.told_since_asked, Relaxed);
        let balance = self.balance.get().filter(|_| self.told < 40);
        if let Some(balance) = balance {
            let route = Route::new().pod(format!("absent-{}", self.told));
            let request = balance.call_with(Request(1), route);
            assert!(request.now_or_never().is_none(), "there is none");
        }
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_is_polled_between_the_pods_that_it_is_told_of() {
    let (balance, most) = (Arc::default(), Arc::<AtomicUsize>::default());
    let source = Chain {
        set: Some(set([1, 2, 3, 4, 5])),
        balance: Arc::clone(&balance),
        told: 0,
        told_since_asked: 0,
        most: most.clone(),
    };
    let pods = Pods::default();
    let made = Balance::builder(source).build(pods.make());
    settle().await;
    let asking = made.pod("web-0");
    assert!(balance.set(made).is_ok());
    ask(&asking).await.expect("there");
    settle().await;
    assert_eq!(most.load(Relaxed), 1, "no more at a time than there were");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_pod_gets_requests_for_it() {
    let story = story_with(|builder| builder.outlier_detection(OutlierDetection::new())).await;
    let pod = story.balance.pod("web-3");
    story.pods.set([4], Behaviour::Fail);
    let state = || story.balance.endpoints()[3].state;
    while !matches!(state(), EndpointState::Ejected(_)) {
        let error = ask(&pod).await.expect_err("it fails");
        assert!(error.is_endpoint(), "{error}");
        sleep(SECOND / 10).await;
    }
    story.pods.set([4], Behaviour::Answer);
    let before = story.calls([4]);
    for _ in 0..10 {
        assert_eq!(ask(&pod).await.expect("there"), at(4));
    }
    assert_eq!(story.calls([4]) - before, 10);
    assert_eq!(story.calls([1, 2, 3, 5]), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_leaves_nothing_behind() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    for behaviour in [Behaviour::Pending, Behaviour::Hold, Behaviour::NotReady] {
        story.pods.set([4], behaviour);
        let mut request = task::spawn(ask(&pod));
        assert_pending!(request.poll());
        drop(request);
        let in_flight = story
            .balance
            .endpoints()
            .iter()
            .map(|it| it.in_flight)
            .sum::<u32>();
        assert_eq!(in_flight, 0, "{behaviour:?}");
    }
    let Story {
        script, balance, ..
    } = story;
    drop(balance);
    assert!(
        script.closed().now_or_never().is_none(),
        "the pod's service keeps it going"
    );
    drop(pod);
    script.closed().await;
}

#[tokio::test(start_paused = true)]
async fn others_asks_any_pod_but_one_under_every_policy() {
    for name in [
        "round-robin",
        "random",
        "least-connections",
        "power-of-two",
        "peak-ewma",
        "consistent-hash",
    ] {
        for myself in ["web-2", "10.0.0.3", "10.0.0.3:80"] {
            let policy: BuiltInPolicy = name.parse().expect("a policy");
            let story = story_with(|builder| builder.policy(policy)).await;
            let others = story.balance.others(myself);
            for _ in 0..400 {
                assert_ne!(ask(&others).await.expect("others"), at(3));
            }
            let calls = [1, 2, 4, 5].map(|host| story.calls([host]));
            assert!(calls.iter().all(|&calls| calls >= 40), "{name}: {calls:?}");
            assert_eq!(story.calls([3]), 0);
            // A discarded choice of the policy doesn't count: the pod gets other requests as usual.
            for _ in 0..100 {
                let request = story.balance.call_with(Request(1), Route::new());
                request.await.expect("any");
            }
            assert!(story.calls([3]) >= 5, "{name}: {}", story.calls([3]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_turns_out_to_be_left_out_loses_the_requests_that_wait_for_it() {
    for then in [Behaviour::Pending, Behaviour::Answer] {
        let story = story().await;
        story.set(vec![endpoint(6)]).await;
        story.pods.set([6], Behaviour::Pending);
        let others = story.balance.others("web-0");
        let mut waiting = task::spawn(ask(&others));
        assert_pending!(waiting.poll());
        settle().await;
        story.set(vec![web(6, 0), web(7, 1)]).await;
        story.pods.set([6], then);
        let answered = timeout(SECOND, waiting).await.expect("in time");
        assert_eq!(answered.expect("another one"), at(7));
        assert_eq!(story.calls([6]), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn others_take_turns_without_the_one_that_is_left_out() {
    let story = story().await;
    let others = story.balance.others("web-2");
    for _ in 0..100 {
        ask(&others).await.expect("others");
    }
    assert_eq!([1, 2, 4, 5].map(|host| story.calls([host])), [25; 4]);
}

#[tokio::test(start_paused = true)]
async fn others_leave_the_pod_out_even_if_all_others_refuse() {
    let story = story().await;
    let others = story.balance.others("web-2");
    story.pods.set([1, 2, 4], Behaviour::NotReady);
    for _ in 0..20 {
        assert_eq!(ask(&others).await.expect("one is left"), at(5));
    }
    // A retry of the caller's own.
    let avoiding = Route::new().avoid(&web(5, 4));
    let answered = others.call_with(Request(1), avoiding).await;
    assert_eq!(answered.expect("better than none").0.address(), at(5));
    story.pods.set([5], Behaviour::NotReady);
    let error = ask(&others).await.expect_err("all others refuse");
    assert!(error.is_unreachable());
    assert!(
        error
            .to_string()
            .starts_with("none of 4 endpoints accepts requests"),
        "{error}"
    );
    story.set(set([0, 0, 3])).await;
    let error = ask(&others).now_or_never().expect("no wait");
    let error = error.expect_err("there is no other one");
    assert!(error.is_no_endpoints());
    assert_eq!(
        error.to_string(),
        "no endpoints: there is none but the one that is left out"
    );
    assert_eq!(story.calls([3]), 0);
}

/// Retries everything that fails.
#[derive(Clone)]
struct Again;

impl<Res> RetryPolicy<Request, Res> for Again {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }
}

#[tokio::test(start_paused = true)]
async fn retries_stay_on_the_pod_or_off_the_one_that_is_left_out() {
    let story = story().await;
    let retry = RetryLayer::new(Again)
        .retries(3)
        .layer(story.balance.clone());
    story.pods.set([4], Behaviour::Fail);
    let mut pod = retry.pod("web-3");
    let error = pod.ready().await.expect("ready").call(Request(1)).await;
    assert!(error.expect_err("each time").is_endpoint());
    assert_eq!(story.calls([4]), 4);
    assert_eq!(story.calls([1, 2, 3, 5]), 0);
    story.pods.set([1, 2, 5], Behaviour::Fail);
    let mut others = retry.others("web-2");
    let error = others.ready().await.expect("ready").call(Request(1)).await;
    assert!(error.expect_err("each time").is_endpoint());
    assert_eq!(story.calls([3]), 0);
    assert_eq!(story.calls([1, 2, 4, 5]), 8);
}

#[tokio::test(start_paused = true)]
async fn a_route_of_a_request_does_not_loosen_the_pin() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    for route in [
        Route::new().pod("web-0"),
        Route::new().key("a"),
        Route::new().avoid(&web(4, 3)),
    ] {
        let answered = pod.call_with(Request(1), route).await;
        assert_eq!(answered.expect("there").0.address(), at(4));
    }
}

/// Nothing but the pod itself can end its wait then, or the time.
#[tokio::test(start_paused = true)]
async fn a_request_whose_pod_left_before_its_balancer_ended_fails_in_time() {
    let story = story().await;
    story.pods.set([4], Behaviour::Pending);
    let route = Route::new().pod("web-3");
    let mut request = task::spawn(story.balance.call_with(Request(1), route));
    story.set(set([1, 2, 3, 0, 5])).await;
    drop(story.balance);
    settle().await;
    assert_pending!(request.poll(), "the pod may still become ready");
    sleep(6 * SECOND).await;
    assert!(request.is_woken(), "its time is up");
    let error = assert_ready!(request.poll()).expect_err("not ready");
    assert!(error.is_closed(), "{error}");
}
