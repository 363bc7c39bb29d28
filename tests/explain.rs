//! What `explain` says about each fault: it has to name the cause.

mod support;

use std::{
    fmt,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use support::{
    logs::Logs,
    scripted::{Behaviour, Pods, Request, Spent, World, discovery, endpoint, settle},
    tls::Identity,
    within,
};
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_headless::{
    Balance, Balancers, BoxError, ConsistentHash, Discovery, EjectionReason, Endpoint,
    EndpointExplanation, EndpointState, EventKind, Explanation, Hedge, KeyExplanation,
    OutlierDetection, RetryLayer, RetryPolicy, Route, StaticEndpoints, Unsent, Verdict,
    http::{Client, ClientBuilder, Protocol, Tls},
    test_util::{Cluster, Mode},
};
use tracing::Level;

const FAST: Duration = Duration::from_millis(50);

/// A client of the cluster with short refresh intervals and timeouts.
fn client(cluster: &Cluster, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let builder = cluster.client().dns(|dns| dns.refresh_interval(FAST));
    let builder = builder.ready_timeout(Duration::from_secs(2));
    change(builder).build().expect("a client")
}

/// Sends requests until `explain` meets the condition.
async fn until(client: &Client, what: &str, is_it: impl Fn(&Explanation) -> bool) -> Explanation {
    let mut last = client.explain();
    within(what, async {
        while !is_it(&last) {
            sleep(Duration::from_millis(5)).await;
            last = client.explain();
        }
    })
    .await;
    last
}

async fn get(client: &Client, times: usize) {
    for _ in 0..times {
        // Its result doesn't matter here: `explain` is checked instead.
        let answer = within("an answer", client.get("/").into_future()).await;
        if let Ok(answer) = answer {
            let _ = within("its end", answer.text()).await;
        }
    }
}

fn has(explanation: &Explanation, kind: EventKind) -> bool {
    explanation.events.iter().any(|event| event.kind == kind)
}

/// The only endpoint that isn't picked.
fn the_bad_one(explanation: &Explanation) -> &EndpointExplanation {
    let endpoints = explanation.endpoints.iter();
    let mut bad = endpoints.filter(|it| it.verdict != Verdict::Picked);
    let the_one = bad.next().expect("a bad one");
    assert!(bad.next().is_none(), "one only: {explanation}");
    the_one
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    // However the text is wrapped.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// All troubles, the worst first, in one text.
fn trouble(explanation: &Explanation) -> String {
    explanation.trouble.join("\n")
}

#[tokio::test]
async fn without_faults_there_is_no_trouble_and_requests_are_counted() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 12).await;
    let it = client.explain();
    assert_eq!(trouble(&it), "");
    assert_eq!((it.size, it.available, it.is_panic), (3, 3, false));
    assert_eq!(it.policy.name, "round-robin");
    let totals = it.totals.as_ref().expect("on by default");
    let all = &totals.endpoints;
    assert_eq!((all.requests, all.successes), (12, 12));
    assert_eq!(all.latency.count(), 12);
    assert_eq!(totals.waits.connection.begun, 3, "each pod is dialled once");
    assert!(totals.discovery.found >= 1);
    for pod in &it.endpoints {
        let counts = pod.counts.as_ref().expect("counted");
        assert_eq!((counts.requests, counts.successes), (4, 4));
        assert!(pod.p95.is_some() && pod.since.is_some() && pod.why.is_empty());
        assert!((pod.share.expect("round robin tells") - 1.0 / 3.0).abs() < 1e-9);
    }
    assert_eq!(it.discovery.kind.as_deref(), Some("dns"));
    let server = cluster.dns().addr().to_string();
    assert_eq!(it.discovery.server.as_deref(), Some(&*server));
    assert!(it.discovery.ttl.is_some() && it.discovery.next_refresh.is_some());
    says(
        it.discovery.name.as_deref().expect("found"),
        &["web.default"],
    );
    let text = it.to_string();
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    says(&text, &["3 of 3 endpoints get requests", "12 requests"]);
}

#[tokio::test]
async fn all_balancers_of_a_process_are_listed_by_name_as_long_as_they_live() {
    let cluster = Cluster::start(1).await;
    let (first, second) = (client(&cluster, |it| it), client(&cluster, |it| it));
    let endpoints = StaticEndpoints::new(["127.0.0.1:80".parse().expect("an address")]);
    let other = Balance::builder(endpoints)
        .build(|_: &Endpoint| service_fn(|request: u32| async move { Ok::<_, BoxError>(request) }));
    let balancers = Balancers::new();
    balancers
        .add(&first)
        .add(&second)
        .add(&other)
        .add_as("cache", &other);
    let names = || balancers.explain().into_keys().collect::<Vec<_>>();
    let web = "web.default.svc.cluster.local";
    let second_web = format!("{web} #2");
    assert_eq!(names(), ["balancer", "cache", web, &second_web]);
    get(&second, 1).await;
    assert_eq!(balancers.explain()[&second_web].size, 1);
    drop(first.clone());
    drop((first, other));
    assert_eq!(names(), [&*second_web]);
    balancers.add(&second);
    assert_eq!(names(), [web, &second_web], "a name is free again");
}

#[tokio::test]
async fn without_counters_it_still_says_which_pods_get_requests() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder.counters(false));
    get(&client, 1).await;
    let it = client.explain();
    assert!(it.totals.is_none() && client.counts().is_none() && it.events.is_empty());
    assert_eq!(it.endpoints[0].verdict, Verdict::Picked);
    says(
        &it.to_string(),
        &["nothing, and no events: see `counters`", "not recorded"],
    );
}

#[tokio::test]
async fn totals_keep_the_requests_of_pods_that_have_left() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 6).await;
    cluster.scale(1).await;
    let it = until(&client, "the pod has left", |it| it.size == 1).await;
    assert!(has(&it, EventKind::Joined) && has(&it, EventKind::Left));
    let all = it.totals.expect("counted").endpoints;
    assert_eq!((all.requests, all.successes), (6, 6));
    let one = it.endpoints[0].counts.as_ref().expect("counted");
    assert_eq!(one.successes, 3);
}

#[tokio::test]
async fn a_pod_that_was_killed_refuses_and_the_error_is_named() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 3).await;
    cluster.kill(0).await;
    get(&client, 6).await;
    // First an idle connection is found closed; after that, none can be made.
    let it = until(&client, "it refuses connections", |it| {
        let pods = it.endpoints.iter();
        has(it, EventKind::Unreachable) && pods.clone().any(|pod| pod.why.contains("refused"))
    })
    .await;
    let bad = the_bad_one(&it);
    assert_eq!(bad.verdict, Verdict::Unreachable);
    assert_eq!(bad.address, cluster.pod(0).addr());
    says(&bad.why, &["refuses requests", "refused"]);
    assert!(bad.last_error.is_some() && bad.counts.as_ref().is_some_and(|it| it.unreachable == 1));
    says(&trouble(&it), &[&bad.label(), "unreachable"]);
}

#[tokio::test]
async fn a_pod_that_answers_503_at_once_is_ejected_for_that() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster, |builder| builder);
    cluster
        .pod(1)
        .set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    get(&client, 30).await;
    let it = until(&client, "it is ejected", |it| has(it, EventKind::Ejected)).await;
    let bad = the_bad_one(&it);
    assert_eq!(bad.verdict, Verdict::Ejected);
    assert_eq!(bad.reason, Some(EjectionReason::ConsecutiveFailures));
    says(
        &bad.why,
        &["5 failures in a row", "answered 503", "tried again in"],
    );
    let counts = bad.counts.as_ref().expect("counted");
    assert!(counts.failures.answered >= 5, "{counts:?}");
    assert_eq!(counts.ejections.consecutive_failures, 1);
    let totals = it.totals.as_ref().expect("counted");
    assert!(totals.retries.answered >= 5 && totals.endpoints.retries >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_hung_pod_has_requests_that_wait_while_the_others_answer() {
    let set = (1..=3).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    world.pods.set([1], Behaviour::Hold);
    world
        .pods
        .set([2, 3], Behaviour::After(Duration::from_millis(1)));
    let mut requests = Vec::new();
    for number in 0..200 {
        let balance = world.balance.clone();
        requests.push(tokio::spawn(balance.oneshot(Request(number))));
        sleep(Duration::from_millis(5)).await;
    }
    let it = world.balance.explain();
    let bad = the_bad_one(&it);
    assert_eq!(bad.reason, Some(EjectionReason::Unresponsive));
    says(&bad.why, &["requests wait, and none is answered"]);
    assert!(bad.waiting >= 5 && bad.in_flight >= 5);
    assert!(has(&it, EventKind::Ejected));
    assert_eq!(
        bad.counts.as_ref().map(|it| it.ejections.unresponsive),
        Some(1)
    );
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Every request may be hedged.
#[derive(Clone)]
struct Safe;

impl<Res> RetryPolicy<Request, Res> for Safe {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, _: Result<&Res, &tower_headless::Error>) -> bool {
        false
    }

    fn may_hedge(&self, _: &Request) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_pod_shows_by_its_latency_and_by_the_hedges_it_lost() {
    let set = (1..=4).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    let late = Duration::from_secs(1);
    world
        .pods
        .set([2, 3, 4], Behaviour::After(Duration::from_millis(10)));
    world.pods.set([1], Behaviour::After(late));
    for number in 0..8 {
        let answer = world.balance.clone().oneshot(Request(number)).await;
        answer.expect("an answer");
    }
    let it = world.balance.explain();
    let p95 = |at: usize| it.endpoints[at].p95.expect("it has answered");
    assert!(p95(0) >= late / 2 && p95(1) <= late / 10, "{it}");

    let hedge = Hedge::after(Duration::from_millis(50)).share(1.0);
    let layer = RetryLayer::new(Safe).hedge(hedge);
    let hedged = layer.layer(world.balance.clone());
    for number in 0..100 {
        let answer = hedged.clone().oneshot(Request(number)).await;
        answer.expect("an answer");
    }
    let it = world.balance.explain();
    let totals = it.totals.as_ref().expect("counted");
    let (all, slow) = (&totals.endpoints, it.endpoints[0].counts.as_ref());
    let slow = slow.expect("counted");
    assert!(
        totals.hedges >= 3 && all.hedges == totals.hedges,
        "{totals:?}"
    );
    assert_eq!(totals.hedges_won, slow.overtaken, "all others' hedges won");
    assert!(slow.overtaken >= 3 && slow.ejections.slow >= 1, "{slow:?}");
    let ejected = it.events.iter().find(|it| it.kind == EventKind::Ejected);
    says(
        &ejected.expect("ejected").to_string(),
        &["10.0.0.1:80", "slow"],
    );
}

#[tokio::test(start_paused = true)]
async fn a_flapping_pod_shows_by_its_events() {
    let set = (1..=2).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    for behaviour in [Behaviour::NotReady, Behaviour::Answer].repeat(3) {
        world.pods.set([1], behaviour);
        for number in 0..20 {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("the other one answers");
            sleep(Duration::from_millis(100)).await;
        }
    }
    let it = world.balance.explain();
    let of = |kind| {
        let events = it.events.iter();
        events.filter(|event| event.kind == kind).count()
    };
    let flaps = (of(EventKind::Unreachable), of(EventKind::Reachable));
    assert_eq!(flaps, (3, 3), "{it}");
    let flapping = it.endpoints[0].counts.as_ref().expect("counted");
    assert_eq!(flapping.unreachable, 3);
    assert!(flapping.refused >= 3);
    let event = it
        .events
        .iter()
        .find(|it| it.kind == EventKind::Unreachable);
    says(&event.expect("one").to_string(), &["connection refused"]);
}

#[tokio::test]
async fn a_dns_outage_is_named_with_its_error_and_the_age_of_the_set() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 1).await;
    cluster.dns().stop().await;
    let it = until(&client, "discovery fails", |it| it.discovery.is_failing).await;
    says(&it.trouble[0], &["discovery fails", "the last set"]);
    assert!(it.discovery.last_error.is_some() && it.discovery.staleness.is_some());
    assert!(has(&it, EventKind::DiscoveryFailed));
    assert_eq!((it.size, it.available), (2, 2), "the pods still serve");
    cluster.dns().restart().await;
    let it = until(&client, "it answers again", |it| {
        has(it, EventKind::DiscoveryAnswers)
    })
    .await;
    assert!(!it.discovery.is_failing && it.trouble.is_empty(), "{it}");
    assert!(it.discovery.last_error.is_some(), "it is remembered");
    assert!(it.totals.expect("counted").discovery.failed >= 1);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named_as_the_cause() {
    let cluster = Cluster::start(0).await;
    cluster.dns().remove(cluster.service());
    let client = client(&cluster, |builder| builder);
    let request = tokio::spawn(client.get("/").into_future());
    let it = until(&client, "the name is looked for", |it| {
        it.discovery.last_error.is_some()
    })
    .await;
    says(&it.trouble[0], &["NXDOMAIN", "does not exist"]);
    let _ = within("an end", request).await;
    let unplaced = client.counts().expect("counted").unplaced;
    assert_eq!(unplaced, 1, "no pod had it");
    let text = client.explain().to_string().replace("\n         ", " ");
    says(&text, &["1 failed without any endpoint"]);
}

#[tokio::test]
async fn waiting_requests_are_counted_if_every_pod_refuses() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 2).await;
    cluster.kill(0).await;
    cluster.kill(1).await;
    let request = tokio::spawn(client.get("/").into_future());
    let it = until(&client, "the request waits", |it| {
        let totals = it.totals.as_ref().expect("counted");
        totals.waits.unreachable.waiting() == 1
            && it
                .endpoints
                .iter()
                .all(|it| it.verdict == Verdict::Unreachable)
    })
    .await;
    says(&it.trouble[0], &["none of 2 endpoints accepts requests"]);
    says(
        &trouble(&it),
        &["1 request waits for an endpoint that accepts", "refused"],
    );
    assert!(it.outage.is_some() && it.available == 0);
    let _ = within("an end", request).await;
    let totals = client.counts().expect("counted");
    assert_eq!(totals.waits.unreachable.waiting(), 0);
    assert!(totals.waits.unreachable.time() > Duration::ZERO);
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_named() {
    let (theirs, ours) = (
        Identity::new("web.default.svc.cluster.local"),
        Identity::new("other"),
    );
    let (chain, key) = (theirs.certificate_pem(), theirs.key_pem());
    let builder = Cluster::builder().pods(1);
    let builder = builder.tls(chain.as_bytes(), key.as_bytes());
    let cluster = builder.expect("TLS").start().await;
    let tls = Tls::new().trust_pem(ours.certificate_pem().as_bytes());
    let tls = tls.expect("an authority");
    let client = client(&cluster, |builder| builder.tls(tls));
    let request = tokio::spawn(client.get("/").into_future());
    let it = until(&client, "the pod is refused", |it| {
        let pod = it.endpoints.first();
        pod.is_some_and(|pod| pod.last_error.is_some())
    })
    .await;
    says(&it.endpoints[0].why, &["certificate"]);
    says(&trouble(&it), &["certificate"]);
    request.abort();
}

#[tokio::test]
async fn waiting_requests_are_counted_if_a_pod_s_connections_are_all_in_use() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| {
        builder.protocol(Protocol::Http1).max_connections(1)
    });
    get(&client, 1).await;
    let before = client.counts().expect("counted").waits.connection.begun;
    cluster.pod(0).set(Mode::Hung);
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(tokio::spawn(client.get("/").into_future()));
    }
    let it = until(&client, "two wait", |it| {
        let totals = it.totals.as_ref().expect("counted");
        totals.waits.connection.waiting() == 2 && !it.trouble.is_empty()
    })
    .await;
    says(&trouble(&it), &["2 requests wait", "its limit is reached"]);
    assert_eq!(it.endpoints[0].in_flight, 3);
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    for request in requests {
        let _ = request.await;
    }
    let waits = client.counts().expect("counted").waits.connection;
    assert!(waits.begun >= before + 2);
    assert_eq!(waits.waiting(), 0, "those that were cancelled don't wait");
}

#[tokio::test]
async fn a_budget_that_is_spent_is_named() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster, |builder| builder.retry_budget(Spent));
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    get(&client, 3).await;
    let it = client.explain();
    says(&trouble(&it), &["the retry budget was spent"]);
    says(&it.to_string(), &["3 not sent again"]);
    let retries = it.totals.expect("counted").retries;
    assert_eq!((retries.budget_refused, retries.total()), (3, 0));
}

/// Sends again whatever fails.
#[derive(Clone)]
struct Again;

impl<Res> RetryPolicy<Request, Res> for Again {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &tower_headless::Error>) -> bool {
        result.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_was_spent_is_no_trouble_any_more_after_a_minute() {
    let set = (1..=2).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    world.pods.set([1], Behaviour::Fail);
    let layer = RetryLayer::new(Again).budget(Spent);
    let client = layer.layer(world.balance.clone());
    for number in 0..2 {
        let _ = client.clone().oneshot(Request(number)).await;
    }
    let it = || world.balance.explain();
    says(&trouble(&it()), &["the retry budget was spent"]);
    sleep(Duration::from_secs(59)).await;
    says(&trouble(&it()), &["the retry budget was spent", "59"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(trouble(&it()), "");
    says(&it().to_string(), &["1 not sent again"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_made_is_trouble_only_if_it_takes_long_or_many_wait() {
    let world = World::of(vec![endpoint(1)], |builder| builder.counters(true)).await;
    world.pods.set([1], Behaviour::Pending);
    let mut requests = Vec::new();
    let mut send = |many| {
        let request = |number| tokio::spawn(world.balance.clone().oneshot(Request(number)));
        requests.extend((0..many).map(request));
    };
    let waiting = |it: &Explanation| {
        let totals = it.totals.as_ref().expect("counted");
        totals.waits.connection.waiting()
    };
    send(1);
    settle().await;
    let it = world.balance.explain();
    assert_eq!((waiting(&it), trouble(&it)), (1, String::new()));
    sleep(Duration::from_millis(300)).await;
    let it = world.balance.explain();
    says(&trouble(&it), &["1 request waits for the endpoint"]);

    world.pods.set([1], Behaviour::Answer);
    settle().await;
    assert_eq!(trouble(&world.balance.explain()), "");
    world.pods.set([1], Behaviour::Pending);
    send(11);
    settle().await;
    let it = world.balance.explain();
    assert_eq!(waiting(&it), 11);
    says(&trouble(&it), &["11 requests wait for the endpoint"]);
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_new_pod_that_is_being_connected_to_does_not_count_as_refusing() {
    let cluster = Cluster::start(1).await;
    let old = Endpoint::new(cluster.pod(0).addr());
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let new = Endpoint::new(listener.local_addr().expect("its address"));
    let (script, source) = discovery();
    let client = Client::builder("http://web:8080".parse().expect("a URI"))
        .discovery(source)
        .protocol(Protocol::Http2)
        .connect_ahead(true)
        .connect_timeout(Duration::from_secs(30));
    let client = client.build().expect("a client");
    script.endpoints(vec![old.clone()]);
    until(&client, "the old pod", |it| it.size == 1).await;
    script.endpoints(vec![old, new.clone()]);
    let peer = within("a connection", listener.accept()).await;
    let it = client.explain();
    let pod = the_bad_one(&it);
    assert_eq!(pod.address, new.address());
    assert_eq!(
        (pod.verdict, &*pod.why),
        (Verdict::Pending, "new: it is not connected yet")
    );
    assert_eq!(pod.counts.as_ref().map(|it| it.unreachable), Some(0));
    assert_eq!(trouble(&it), "");
    let listed = client.endpoints();
    let listed = listed.iter().find(|it| it.endpoint == new);
    let state = listed.map(|it| it.state);
    assert_eq!(state, Some(EndpointState::Pending), "both say the same");

    drop((peer, listener));
    let it = until(&client, "it refuses", |it| has(it, EventKind::Unreachable)).await;
    let pod = the_bad_one(&it);
    assert_eq!(pod.verdict, Verdict::Unreachable);
    assert_eq!(pod.counts.as_ref().map(|it| it.unreachable), Some(1));
    says(&trouble(&it), &["refuses requests"]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_won_counts_though_its_pod_has_left() {
    let set = (1..=2).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    world
        .pods
        .set([1], Behaviour::After(Duration::from_secs(10)));
    world
        .pods
        .set([2], Behaviour::After(Duration::from_millis(100)));
    let hedge = Hedge::after(Duration::from_millis(50)).share(1.0);
    let hedged = RetryLayer::new(Safe)
        .hedge(hedge)
        .layer(world.balance.clone());
    let send = |number| tokio::spawn(hedged.clone().oneshot(Request(number)));
    let requests = [send(1), send(2)];
    sleep(Duration::from_millis(75)).await;
    world.set(vec![endpoint(1)]).await;
    for request in requests {
        let answer = request.await.expect("no panic");
        answer.expect("the fast pod's answer");
    }
    let totals = world.balance.counts().expect("counted");
    assert_eq!((totals.hedges, totals.hedges_won), (2, 1));
}

/// An error that counts how often it is formatted.
#[derive(Debug)]
struct Shown(Arc<AtomicUsize>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Relaxed);
        f.write_str("handed back")
    }
}

impl std::error::Error for Shown {}

#[tokio::test(start_paused = true)]
async fn of_many_simultaneous_refusals_only_one_error_is_formatted() {
    let (shown, go) = (Arc::<AtomicUsize>::default(), watch::Sender::new(false));
    let (errors, gate) = (shown.clone(), go.clone());
    let balance = Balance::builder(StaticEndpoints::new([endpoint(1).address()]))
        .counters(true)
        .build(move |_: &Endpoint| {
            let (errors, gate) = (errors.clone(), gate.subscribe());
            service_fn(move |request: Request| {
                let (error, mut gate) = (Shown(errors.clone()), gate.clone());
                async move {
                    let _ = gate.wait_for(|is_open| *is_open).await;
                    Err::<(), BoxError>(Unsent::new(request, error).into())
                }
            })
        });
    let send = |number| tokio::spawn(balance.clone().oneshot(Request(number)));
    let requests: Vec<_> = (0..100).map(send).collect();
    settle().await;
    go.send_replace(true);
    settle().await;
    let it = balance.explain();
    let counts = it.endpoints[0].counts.as_ref().expect("counted");
    assert_eq!(counts.handed_back, 100);
    says(&it.endpoints[0].why, &["handed back"]);
    let shown = shown.load(Relaxed);
    assert!(shown < 10, "{shown}");
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_the_pods_that_are_picked_only_because_of_it_are_named() {
    let set = (1..=3).map(endpoint).collect();
    let world = World::of(set, |builder| builder.counters(true)).await;
    world.pods.set([1, 2], Behaviour::NotReady);
    world.pods.set([3], Behaviour::Fail);
    for number in 0..20 {
        let _ = world.balance.clone().oneshot(Request(number)).await;
    }
    settle().await;
    let it = world.balance.explain();
    assert!(it.is_panic && has(&it, EventKind::PanicBegan), "{it}");
    let last = &it.endpoints[2];
    assert_eq!((it.available, last.verdict), (1, Verdict::Panic));
    assert_eq!(last.reason, Some(EjectionReason::ConsecutiveFailures));
    says(&last.why, &["would be ejected", "too many others are out"]);
    let error = last.last_error.as_ref().expect("it fails");
    assert_eq!(error.text, "internal error");
    let counts = last.counts.as_ref().expect("counted");
    assert_eq!((counts.requests, counts.failures.unanswered), (20, 20));
    says(&trouble(&it), &["(panic)", "10.0.0.3:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_in_use_is_named_with_what_failed() {
    let (script, primary) = discovery();
    let fallback = StaticEndpoints::new([endpoint(1).address()]);
    let pods = Pods::default();
    let balance = Balance::builder(primary.or(fallback))
        .counters(true)
        .build(pods.make());
    script.answer([1, 2]);
    settle().await;
    assert!(!balance.explain().discovery.is_fallback);
    for _ in 0..70 {
        script.fail("the API server is away");
        sleep(Duration::from_secs(1)).await;
    }
    let it = balance.explain();
    assert!(it.discovery.is_fallback && it.size == 1, "{it}");
    assert_eq!(it.discovery.kind.as_deref(), Some("static"));
    let error = it.discovery.last_error.as_ref().expect("it has failed");
    assert_eq!(error.text, "the API server is away");
    let changed = it
        .events
        .iter()
        .find(|it| it.kind == EventKind::SourceChanged);
    says(
        &changed.expect("changed").to_string(),
        &["static (fallback)"],
    );
}

/// The names of JSON fields don't change, and JSON can be read back.
#[cfg(feature = "serde")]
#[tokio::test]
async fn the_names_in_json_are_stable() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, |builder| builder);
    get(&client, 1).await;
    let it = client.explain();
    let json = serde_json::to_value(&it).expect("JSON");
    for path in [
        "/at_unix_ms",
        "/trouble",
        "/discovery/kind",
        "/discovery/activity",
        "/discovery/staleness_seconds",
        "/discovery/next_refresh_unix_ms",
        "/policy/name",
        "/totals/endpoints/requests",
        "/totals/endpoints/latency/buckets/0",
        "/totals/waits/unreachable/begun",
        "/totals/retries/budget_refused",
        "/endpoints/0/address",
        "/endpoints/0/verdict",
        "/endpoints/0/why",
        "/endpoints/0/since_unix_ms",
        "/endpoints/0/next_trial_seconds",
        "/endpoints/0/share",
        "/endpoints/0/key_share",
        "/endpoints/0/key_ranges",
        "/endpoints/0/p95_seconds",
        "/endpoints/0/counts/failures/answered",
        "/events/0/kind",
    ] {
        assert!(json.pointer(path).is_some(), "{path} in {json:#}");
    }
    assert_eq!(json["endpoints"][0]["verdict"], "picked");
    assert_eq!(json["events"][0]["kind"], "joined");
    let back: Explanation = serde_json::from_value(json.clone()).expect("an explanation");
    let again = serde_json::to_value(&back).expect("JSON");
    assert_eq!(again, json);
}

/// JSON from the page of an older version, as in a rollout. `examples/top` reads such JSON.
#[cfg(feature = "serde")]
#[tokio::test]
async fn json_of_an_older_version_can_be_read() {
    let older = serde_json::json!({
        "service": "web", "at_unix_ms": 1_000, "discovery": {"kind": "dns"}, "policy": {"name": "random"}, "size": 1,
        "totals": {"endpoints": {"requests": 3, "failures": {"answered": 2}}, "unplaced": 1},
        "endpoints": [{"address": "10.0.0.1:80", "verdict": "picked", "counts": {"successes": 4, "latency": {}}}],
    });
    let it: Explanation = serde_json::from_value(older).expect("an explanation");
    let (totals, endpoint) = (it.totals.expect("totals"), &it.endpoints[0]);
    let failures = &totals.endpoints.failures;
    assert_eq!((failures.answered, failures.given_up), (2, 0));
    assert_eq!(
        (totals.unplaced, totals.endpoints.connections.opened),
        (1, 0)
    );
    assert_eq!(endpoint.counts.as_ref().expect("counts").successes, 4);
    assert_eq!((endpoint.weight, endpoint.slow_start), (1, 1.0));
    assert!(endpoint.is_in_subset && endpoint.since.is_none());
    assert!(it.discovery.last_change.is_none() && it.events.is_empty());
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn a_negative_time_in_json_is_an_error() {
    for (seconds, is_time) in [(0.0, true), (1e30, true), (-0.5, false)] {
        let json = serde_json::json!({
            "at_unix_ms": 1_000, "discovery": {}, "policy": {"name": "random"}, "size": 0, "endpoints": [],
            "outage_seconds": seconds,
        });
        let read = serde_json::from_value::<Explanation>(json);
        assert_eq!(read.is_ok(), is_time, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_s_pod_is_named_and_why_it_is_not_the_key_s_home() {
    let set = (1..=4).map(endpoint).collect();
    let world = World::of(set, |builder| {
        builder.counters(true).policy(ConsistentHash::new())
    })
    .await;
    let it = world.balance.explain();
    let homes = it.endpoints.iter().map(|it| it.key_share.expect("a ring"));
    assert!((homes.sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(it.endpoints.iter().all(|it| it.key_ranges > Some(400)));
    assert!(it.endpoints.iter().all(|it| it.share == it.key_share));

    let explain = || world.balance.explain_key("user-42").expect("a ring");
    let before = explain();
    let addresses = |it: &KeyExplanation| {
        let choices = it.choices.iter();
        choices.map(|choice| choice.address).collect::<Vec<_>>()
    };
    let order = addresses(&before);
    assert_eq!((order.len(), before.choices[0].is_chosen), (4, true));

    // A long request of the key takes all the room that its home has.
    let hosts: Vec<_> = (1..=4)
        .filter(|&it| endpoint(it).address() == order[0])
        .collect();
    world.pods.set(hosts.clone(), Behaviour::Hold);
    let route = Route::new().key("user-42");
    let running = tokio::spawn(world.balance.call_with(Request(1), route.clone()));
    settle().await;
    let full = explain();
    assert_eq!(addresses(&full), order, "the order stays");
    assert_eq!(full.endpoint().map(|it| it.address), Some(order[1]));
    says(
        &full.choices[0].why,
        &["has its part of the requests: 1, of 1"],
    );
    running.abort();
    let _ = running.await;

    world.pods.set(hosts, Behaviour::NotReady);
    let answer = world.balance.call_with(Request(2), route).await;
    answer.expect("another one has it");
    let refused = explain();
    assert_eq!(refused.endpoint().map(|it| it.address), Some(order[1]));
    assert_eq!(refused.choices[0].verdict, Verdict::Unreachable);
    says(&refused.to_string(), &["unreachable: refuses requests"]);
    let now = world.balance.explain().endpoints;
    let home = now.iter().find(|it| it.address == order[0]).expect("there");
    assert_eq!(home.share, Some(0.0));
    assert!(home.key_share > Some(0.1), "it is at home there");

    let balance = Balance::builder(StaticEndpoints::new([]))
        .build(|_: &Endpoint| service_fn(|_: u32| async { Ok::<_, BoxError>(()) }));
    assert_eq!(balance.explain_key(7), None, "it goes by no keys");
}

/// Without an ejection there is nothing to ignore, so there is no panic.
#[tokio::test(start_paused = true)]
async fn refusals_of_all_pods_or_a_failing_single_pod_are_no_panic() {
    for hosts in [1, 3] {
        let logs = Logs::new();
        let set = (1..=hosts).map(endpoint).collect();
        let world = World::of(set, |builder| builder.counters(true)).await;
        world.pods.set(1..=hosts, Behaviour::NotReady);
        let request = tokio::spawn(world.balance.clone().oneshot(Request(1)));
        settle().await;
        let it = world.balance.explain();
        assert!(!it.is_panic && !has(&it, EventKind::PanicBegan), "{it}");
        says(&trouble(&it), &["refuse"]);
        assert!(!it.to_string().contains("panic"), "{it}");
        assert_eq!(logs.count(Level::WARN, "too few endpoints are healthy"), 0);
        request.abort();
    }
    let world = World::of(vec![endpoint(1)], |builder| builder.counters(true)).await;
    world.pods.set([1], Behaviour::Fail);
    for number in 0..20 {
        let _ = world.balance.clone().oneshot(Request(number)).await;
    }
    settle().await;
    let it = world.balance.explain();
    assert!(!it.is_panic && !it.to_string().contains("panic"), "{it}");
    let words =
        "last resort: would be ejected (consecutive failures); but no other endpoint is left";
    says(&trouble(&it), &[words]);
}

fn verdicts(it: &Explanation) -> Vec<Verdict> {
    it.endpoints.iter().map(|pod| pod.verdict).collect()
}

async fn send(world: &World, times: u32) {
    for number in 0..times {
        let answer = world.balance.clone().oneshot(Request(number)).await;
        answer.expect("an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_weight_is_the_last_resort_if_no_other_accepts_requests() {
    let set = vec![endpoint(1), endpoint(2).with_weight(0)];
    let world = World::of(set, |builder| builder.counters(true)).await;
    let it = world.balance.explain();
    assert_eq!(verdicts(&it), [Verdict::Picked, Verdict::OnlyByName]);
    world.pods.set([1], Behaviour::NotReady);
    send(&world, 5).await;
    assert_eq!(world.pods.counts(2).calls, 5);
    let it = world.balance.explain();
    assert_eq!(verdicts(&it), [Verdict::Unreachable, Verdict::LastResort]);
    assert_eq!((it.available, it.endpoints[1].share), (1, Some(1.0)));
    says(&it.endpoints[1].why, &["weight 0", "no other endpoint"]);
}

/// Whatever its standing, it gets only requests for it.
#[tokio::test(start_paused = true)]
async fn a_pod_without_weight_is_neither_tried_nor_picked_in_a_panic() {
    for threshold in [0.5, 1.0] {
        let set = vec![
            endpoint(1),
            endpoint(2),
            endpoint(3),
            endpoint(4).with_weight(0),
        ];
        let detection = OutlierDetection::new().panic_threshold(threshold);
        let world = World::of(set, |builder| {
            builder.counters(true).outlier_detection(detection)
        })
        .await;
        world.pods.set([1, 4], Behaviour::Fail);
        for number in 0..30 {
            let _ = world.balance.clone().oneshot(Request(number)).await;
        }
        for number in 0..5 {
            let route = Route::new().pod(endpoint(4).address());
            let answer = world.balance.call_with(Request(number), route).await;
            answer.expect_err("it fails");
        }
        if threshold < 1.0 {
            // Its ejection is over.
            sleep(Duration::from_secs(6)).await;
        }
        world.pods.set([1], Behaviour::Answer);
        let calls = world.pods.counts(4).calls;
        settle().await;
        let it = world.balance.explain();
        let (verdict, why) = match threshold < 1.0 {
            true => (Verdict::Ejected, "the next request for it tries it"),
            false => (Verdict::OnlyByName, "would be ejected"),
        };
        assert_eq!(it.endpoints[3].verdict, verdict, "{it}");
        says(&it.endpoints[3].why, &[why]);
        assert_eq!(it.is_panic, threshold == 1.0, "{it}");
        assert_eq!(it.available, 3, "{it}");
        send(&world, 30).await;
        assert_eq!(world.pods.counts(4).calls, calls);
    }
}

#[tokio::test(start_paused = true)]
async fn far_pods_are_picked_if_no_near_one_accepts_requests() {
    let set = vec![endpoint(1).with_zone("a"), endpoint(2).with_zone("b")];
    let world = World::of(set, |builder| builder.counters(true).prefer_zone("a")).await;
    let it = world.balance.explain();
    assert_eq!(verdicts(&it), [Verdict::Picked, Verdict::Far]);
    assert_eq!(it.available, 1);
    world.pods.set([1], Behaviour::NotReady);
    send(&world, 5).await;
    assert_eq!(world.pods.counts(2).calls, 5);
    let it = world.balance.explain();
    assert_eq!(verdicts(&it), [Verdict::Unreachable, Verdict::Picked]);
    assert_eq!(it.available, 1);
}

/// One near pod of three can't take the zone's half of the requests.
#[tokio::test(start_paused = true)]
async fn far_pods_that_get_what_the_near_one_cannot_take_are_available() {
    let far = |host| endpoint(host).with_zone("b");
    let set = vec![endpoint(1).with_zone("a"), far(2), far(3)];
    let world = World::of(set, |builder| builder.counters(true).prefer_zone("a")).await;
    let it = world.balance.explain();
    assert_eq!(verdicts(&it), [Verdict::Picked, Verdict::Far, Verdict::Far]);
    assert!(it.endpoints[1].share > Some(0.0), "{it}");
    assert_eq!(it.available, 3);
}
