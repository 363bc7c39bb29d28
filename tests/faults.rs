//! The faults that a client of a headless Service must survive. `tests/faults.md` lists them all, each with its tests;
//! some of those are in other files.
//!
//! DNS and HTTP are real here, and so is time.

#[path = "faults/bad_pods.rs"]
mod bad_pods;
mod support;

use std::{
    error::Error as _,
    future::{Future, IntoFuture},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use hickory_resolver::proto::op::ResponseCode;
use http_body_util::BodyExt;
use hyper::StatusCode;
use support::{
    client::{HttpBalance, NoBody, Resend, balance, dns, get},
    cluster::Cluster,
    dns::{DnsServer, Fault, RecordType, Transport},
    http::Connections,
    pod::{Mode, Pod},
    scripted::{Behaviour, Pods, Request, discovery, endpoint},
    within,
};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, task};
use tower::{
    Layer, Service, ServiceExt,
    retry::{Retry, budget::TpsBudget},
    service_fn,
};
use tower_headless::{
    Balance, BoxError, Dns, Endpoint, EndpointState, LeastConnections, LookupError, OnEmpty,
    Policy, RetryLayer, RetryUnavailable, RoundRobin, Target, http,
};

const FAST: Duration = Duration::from_millis(50);
const FAMILIES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// A balancer over the cluster that looks every 50 ms, ready for requests.
async fn ready(cluster: &Cluster) -> HttpBalance {
    let mut balance = balance(dns(cluster).refresh_interval(FAST), RoundRobin::new());
    within("readiness", balance.ready())
        .await
        .expect("readiness never fails");
    balance
}

async fn get_all(balance: &HttpBalance, times: usize) {
    for _ in 0..times {
        get(balance, "/").await.expect("a response");
    }
}

fn addresses<S, C>(balance: &Balance<S, C>) -> Vec<IpAddr> {
    let endpoints = balance.endpoints().into_iter();
    endpoints
        .map(|status| status.endpoint.address().ip())
        .collect()
}

/// Waits until `condition` holds, checking every 5 ms.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for `looks` more questions of each family.
async fn looks(server: &DnsServer, looks: usize) {
    let count = |record_type| {
        let queries = server.queries();
        queries
            .iter()
            .filter(|query| query.record_type == record_type)
            .count()
    };
    let before = FAMILIES.map(count);
    until("the questions", || {
        let now = FAMILIES.map(count);
        now.iter()
            .zip(before)
            .all(|(now, before)| *now >= before + looks)
    })
    .await;
}

fn cause(error: &BoxError) -> Option<&LookupError> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(lookup) = error.downcast_ref() {
            return Some(lookup);
        }
        source = error.source();
    }
    None
}

/// A balancer whose services only answer with their endpoint.
fn idle_balance(
    dns: Dns,
) -> Balance<impl Service<(), Response = Endpoint, Error = BoxError, Future: Send> + Clone + Send> {
    Balance::builder(dns).build(|endpoint: &Endpoint| {
        let endpoint = endpoint.clone();
        service_fn(move |()| std::future::ready(Ok(endpoint.clone())))
    })
}

fn target(server: &DnsServer, name: &str) -> Target {
    format!("dns://{}/{name}:80", server.addr())
        .parse()
        .expect("a target")
}

#[tokio::test]
async fn with_dns_down_at_start_calls_wait_are_told_why_and_then_recover() {
    let cluster = Cluster::start(2).await;
    cluster.dns().stop().await;
    let started = Instant::now();
    let balance = Balance::builder(dns(&cluster))
        .completion(tower_headless::OnBodyEnd::new())
        .ready_timeout(Duration::from_secs(6))
        .build(|endpoint: &Endpoint| Connections::<NoBody>::new(endpoint.address()));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "building doesn't block"
    );
    let error = within("the bound", get(&balance, "/"))
        .await
        .expect_err("no DNS");
    assert!(cause(&error).is_some(), "the cause is named: {error:?}");
    cluster.dns().restart().await;
    until("recovery", || balance.endpoints().len() == 2).await;
    get_all(&balance, 4).await;
}

#[tokio::test]
async fn when_dns_goes_down_the_last_set_stays_and_its_age_shows() {
    let cluster = Cluster::start(3).await;
    let balance = ready(&cluster).await;
    cluster.dns().stop().await;
    until("staleness", || balance.staleness() > Some(20 * FAST)).await;
    get_all(&balance, 12).await;
    assert_eq!(addresses(&balance).len(), 3, "the last good set");
    cluster.dns().restart().await;
    until("freshness", || balance.staleness() < Some(5 * FAST)).await;
}

#[tokio::test]
async fn servfail_and_refused_leave_the_set() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let cluster = Cluster::start(3).await;
        let balance = ready(&cluster).await;
        for family in FAMILIES {
            cluster
                .dns()
                .fault(cluster.service(), family, Fault::Rcode(code.into()));
        }
        looks(cluster.dns(), 2).await;
        get_all(&balance, 12).await;
        assert_eq!(addresses(&balance).len(), 3, "{code}");
        assert!(balance.staleness() > Some(FAST), "{code}");
    }
}

/// A single faulty answer of each family changes nothing.
async fn blip(fault: Fault) {
    let cluster = Cluster::start(3).await;
    let balance = ready(&cluster).await;
    let mut changes = balance.watch();
    changes.next().await.expect("the first set");
    for family in FAMILIES {
        cluster
            .dns()
            .fault(cluster.service(), family, fault.clone().times(1));
    }
    looks(cluster.dns(), 6).await;
    get_all(&balance, 6).await;
    assert!(
        futures::poll!(changes.next()).is_pending(),
        "nothing changed"
    );
}

async fn for_good(fault: Fault) {
    let cluster = Cluster::start(3).await;
    let balance = ready(&cluster).await;
    for family in FAMILIES {
        cluster
            .dns()
            .fault(cluster.service(), family, fault.clone());
    }
    let began = Instant::now();
    looks(cluster.dns(), 5).await;
    get_all(&balance, 6).await;
    assert_eq!(
        addresses(&balance).len(),
        3,
        "five answers, but not for ten seconds"
    );

    cluster.kill(0).await;
    while addresses(&balance).len() == 3 {
        get(&balance, "/").await.expect("two pods are left");
    }
    assert!(
        !addresses(&balance).contains(&cluster.pod(0).ip()),
        "in doubt, a refusal is enough"
    );

    until("confirmation", || addresses(&balance).is_empty()).await;
    assert!(began.elapsed() >= Duration::from_secs(10));
    get(&balance, "/").await.expect_err("scaled to zero");

    cluster.dns().clear_faults();
    until("the pods' return", || addresses(&balance).len() == 3).await;
    get_all(&balance, 6).await;
}

#[tokio::test]
async fn one_nxdomain_changes_nothing() {
    blip(Fault::NxDomain).await;
}

#[tokio::test]
async fn a_scale_to_zero_empties_the_set_once_it_is_confirmed() {
    for_good(Fault::NxDomain).await;
}

#[tokio::test]
async fn a_scale_to_zero_can_be_believed_at_once_or_never() {
    let cluster = Cluster::start(3).await;
    let with = |on_empty| {
        let dns = dns(&cluster).refresh_interval(FAST).on_empty(on_empty);
        balance(dns, RoundRobin::new())
    };
    let (believing, ignoring) = (with(OnEmpty::Believe), with(OnEmpty::Ignore));
    until("both sets", || {
        addresses(&believing).len() + addresses(&ignoring).len() == 6
    })
    .await;
    cluster.dns().remove(cluster.service());
    until("belief", || addresses(&believing).is_empty()).await;
    looks(cluster.dns(), 6).await;
    assert_eq!(addresses(&ignoring).len(), 3);
}

#[tokio::test]
async fn an_empty_answer_is_treated_as_nxdomain_is() {
    tokio::join!(blip(Fault::EmptyNoError), for_good(Fault::EmptyNoError));
}

#[tokio::test]
async fn a_family_that_fails_keeps_its_addresses() {
    for failing in FAMILIES {
        let server = DnsServer::start().await;
        let v4 = Ipv4Addr::new(10, 0, 0, 1);
        let v6 = "fd00::1".parse().expect("an address");
        server.set_a("dual.svc.", 1, [v4]);
        server.set_aaaa("dual.svc.", 1, [v6]);
        for prefer_ipv6 in [false, true] {
            let dns = Dns::new(target(&server, "dual.svc")).refresh_interval(FAST);
            let balance = idle_balance(dns.prefer_ipv6(prefer_ipv6));
            let expected = if prefer_ipv6 {
                IpAddr::V6(v6)
            } else {
                IpAddr::V4(v4)
            };
            let mut changes = balance.watch();
            within("the first set", changes.next())
                .await
                .expect("a set");
            assert_eq!(addresses(&balance), [expected], "a pod counts once");
            server.fault("dual.svc.", failing, Fault::SERVFAIL);
            looks(&server, 2).await;
            assert_eq!(addresses(&balance), [expected], "{failing} failing");
            assert!(futures::poll!(changes.next()).is_pending());
            server.clear_faults();
        }
    }
}

#[tokio::test]
async fn staleness_is_that_of_the_family_in_use() {
    let cluster = Cluster::start(2).await;
    let balance = ready(&cluster).await;
    // AAAA goes on giving its negative answer.
    let servfail = Fault::SERVFAIL;
    cluster
        .dns()
        .fault(cluster.service(), RecordType::A, servfail);
    until("staleness", || balance.staleness() > Some(20 * FAST)).await;
    get_all(&balance, 4).await;
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp_and_leaves_the_set_if_cut_there_too() {
    let cluster = Cluster::start(3).await;
    let name = cluster.service().to_owned();
    let fault = |fault: Fault| {
        for family in FAMILIES {
            cluster.dns().fault(&name, family, fault.clone());
        }
    };
    fault(Fault::TruncateUdp);
    let balance = ready(&cluster).await;
    assert_eq!(addresses(&balance).len(), 3);
    let by_tcp = |query: &support::dns::LoggedQuery| query.transport == Transport::Tcp;
    assert!(cluster.dns().queries().iter().any(by_tcp));

    cluster.dns().clear_faults();
    fault(Fault::TruncateAll);
    looks(cluster.dns(), 2).await;
    get_all(&balance, 6).await;
    assert_eq!(addresses(&balance).len(), 3, "the set is kept");
    assert!(balance.staleness() > Some(FAST));

    let newcomer = support::client::balance(dns(&cluster), RoundRobin::new());
    let error = within("the bound", get(&newcomer, "/"))
        .await
        .expect_err("no endpoints");
    assert!(
        cause(&error).is_some_and(LookupError::is_truncated),
        "{error:?}"
    );
}

#[tokio::test]
async fn thousands_of_records_are_all_used() {
    let server = DnsServer::start().await;
    for pods in [1000, 4000] {
        let hosts = (0..pods).map(|host| Ipv4Addr::from_bits(0x0a00_0001 + host));
        server.set_a("many.svc.", 30, hosts);
        let mut balance = idle_balance(Dns::new(target(&server, "many.svc")));
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..pods {
            let ready = within("readiness", balance.ready()).await.expect("ready");
            used.insert(ready.call(()).await.expect("an endpoint"));
        }
        assert_eq!(used.len(), pods as usize, "every one has had its turn");
    }
}

#[tokio::test]
async fn no_ttl_makes_a_hot_loop_or_a_freeze() {
    let server = DnsServer::start().await;
    let asked = |name: &str| {
        let queries = server.queries().into_iter();
        let of_name = queries
            .filter(|query| query.record_type == RecordType::A && query.name.starts_with(name));
        of_name.map(|query| query.at).collect::<Vec<_>>()
    };
    server.set_a("zero.svc.", 0, [Ipv4Addr::new(10, 0, 0, 1)]);
    server.set_a("ever.svc.", 1 << 31, [Ipv4Addr::new(10, 0, 0, 1)]);
    let zero = idle_balance(Dns::new(target(&server, "zero.svc")));
    let max = Duration::from_secs(1);
    let ever = idle_balance(Dns::new(target(&server, "ever.svc")).max_refresh(max));
    until("no freeze", || {
        asked("zero").len() >= 4 && asked("ever").len() >= 4
    })
    .await;
    for name in ["zero", "ever"] {
        for pair in asked(name).windows(2) {
            assert!(
                pair[1] - pair[0] >= Duration::from_millis(500),
                "no hot loop: {:?}",
                asked(name)
            );
        }
    }
    drop((zero, ever));
}

#[tokio::test]
async fn duplicates_and_shuffled_answers_change_nothing() {
    let server = DnsServer::start().await;
    let hosts = [1, 2, 3, 4, 3, 2, 1, 1].map(|host| Ipv4Addr::new(10, 0, 0, host));
    server.set_a("web.svc.", 1, hosts);
    server.shuffle(true);
    let dns = Dns::new(target(&server, "web.svc")).refresh_interval(FAST);
    let balance = idle_balance(dns);
    let mut changes = balance.watch();
    let first = within("the set", changes.next()).await.expect("a set");
    assert_eq!(first.endpoints.len(), 4);
    looks(&server, 10).await;
    assert!(futures::poll!(changes.next()).is_pending(), "no churn");
}

#[tokio::test]
async fn a_pod_back_at_its_address_gets_requests_again() {
    let cluster = Cluster::start(3).await;
    let balance = ready(&cluster).await;
    get_all(&balance, 6).await;
    cluster.kill(0).await;
    let state = |balance: &HttpBalance| {
        let endpoints = balance.endpoints().into_iter();
        let mut of_pod =
            endpoints.filter(|status| status.endpoint.address() == cluster.pod(0).addr());
        of_pod.next().expect("DNS still has it").state
    };
    while state(&balance) == EndpointState::Available {
        get(&balance, "/").await.expect("two pods are left");
    }
    cluster.pod(0).restart().await.expect("the address is free");
    within("the pod's return", async {
        while state(&balance) == EndpointState::Unreachable {
            get(&balance, "/").await.expect("two pods are left");
            sleep(FAST).await;
        }
    })
    .await;
    let before = cluster.pod(0).requests();
    get_all(&balance, 3).await;
    assert_eq!(cluster.pod(0).requests(), before + 1);
}

#[tokio::test]
async fn the_last_handle_dropped_leaves_no_socket_and_no_task() {
    let cluster = Cluster::start(3).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let balance = ready(&cluster).await;
    let clone = balance.clone();
    get_all(&balance, 6).await;
    drop(balance);
    get_all(&clone, 3).await;
    drop(clone);
    for pod in cluster.pods() {
        within("no socket", pod.wait_until(|stats| stats.connections == 0)).await;
    }
    until("no task", || metrics.num_alive_tasks() <= before).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_at_any_await_is_no_longer_in_flight() {
    let on_the_way = [
        Behaviour::Pending,
        Behaviour::Hold,
        Behaviour::NotReady,
        Behaviour::HandBack,
    ];
    for behaviour in on_the_way {
        for polls in 0..4 {
            let (script, source) = discovery();
            let pods = Pods::default();
            let mut balance = Balance::builder(source).build(pods.make());
            script.answer([1, 2]);
            balance.ready().await.expect("readiness never fails");
            pods.set([1, 2], behaviour);
            let mut request = task::spawn(balance.call(Request(1)));
            for _ in 0..polls {
                assert_pending!(request.poll());
            }
            drop(request);
            let in_flight = balance
                .endpoints()
                .iter()
                .map(|status| status.in_flight)
                .sum::<u32>();
            assert_eq!(in_flight, 0, "{behaviour:?} after {polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_fails_its_own_request_alone() {
    for bug in [
        Behaviour::PanicInReady,
        Behaviour::PanicInCall,
        Behaviour::PanicInFuture,
    ] {
        let (script, source) = discovery();
        let pods = Pods::default();
        let balance = Balance::builder(source).build(pods.make());
        script.answer([1, 2]);
        pods.set([1], bug);
        let mut panics = 0;
        for _ in 0..10 {
            match tokio::spawn(balance.clone().oneshot(Request(1))).await {
                Ok(response) => assert_eq!(response.expect("pod 2 answers").0, endpoint(2)),
                Err(error) => panics += u32::from(error.is_panic()),
            }
        }
        assert_eq!(panics, 5, "round robin, {bug:?}");
        let in_flight = balance
            .endpoints()
            .iter()
            .map(|status| status.in_flight)
            .sum::<u32>();
        assert_eq!(in_flight, 0, "{bug:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_leaves_the_background_task_alive() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    script.answer([1, 2]);
    pods.set([1], Behaviour::NotReady);
    for _ in 0..2 {
        balance
            .ready()
            .await
            .expect("ready")
            .call(Request(1))
            .await
            .expect("pod 2 answers");
    }
    pods.set([1], Behaviour::PanicInReady);
    sleep(Duration::from_secs(10)).await;
    pods.set([1], Behaviour::Answer);
    sleep(Duration::from_secs(6)).await;
    let states = balance.endpoints().into_iter().map(|status| status.state);
    assert!(
        states.eq([EndpointState::Available; 2]),
        "the background task lives"
    );
}

/// The results of requests at a steady rate.
struct Load {
    /// For each request, the pod that answered, or the error.
    results: Vec<Result<IpAddr, String>>,
    /// The longest time that a request took.
    longest: Duration,
    /// The longest time of the first and the last requests, outside of the story.
    undisturbed: Duration,
    /// The longest time that this task itself waited to run: the machine's delay, not the balancer's.
    stalled: Duration,
}

/// Sends requests at a steady rate until a second after the end of `story`.
async fn under_load<T>(
    client: &Retry<Resend, HttpBalance>,
    story: impl Future<Output = T>,
) -> Load {
    let mut requests = Vec::new();
    let mut story = std::pin::pin!(story);
    let mut beat = tokio::time::interval(Duration::from_millis(2));
    let (mut ended, mut stalled) = (false, Duration::ZERO);
    let mut after = 500;
    while after > 0 {
        tokio::select! {
            _ = &mut story, if !ended => ended = true,
            due = beat.tick() => {
                stalled = stalled.max(due.elapsed());
                after -= usize::from(ended);
                let client = client.clone();
                requests.push(tokio::spawn(async move {
                    let started = Instant::now();
                    let result = get(&client, "/").await.map_err(|error| format!("{error:?}"));
                    (result, started.elapsed())
                }));
            }
        }
    }
    let ended = join_all(requests).await;
    let ended: Vec<_> = ended
        .into_iter()
        .map(|request| request.expect("no panic"))
        .collect();
    let longest = ended.iter().map(|(_, took)| *took).max();
    // The first and the last 0.2 s.
    let calm = ended[..100].iter().chain(&ended[ended.len() - 100..]);
    let undisturbed = calm.map(|(_, took)| *took).max();
    Load {
        results: ended.into_iter().map(|(result, _)| result).collect(),
        longest: longest.expect("there were requests"),
        undisturbed: undisturbed.expect("there were requests"),
        stalled,
    }
}

#[tokio::test]
async fn all_pods_replaced_at_once_fail_no_request() {
    let cluster = Cluster::start(6).await;
    cluster.set_ttl(30);
    let balance = balance(dns(&cluster), LeastConnections::new());
    // A request may meet each of the six pods just as it dies, one after another.
    let client = Retry::new(Resend { times: 6 }, balance.clone());
    let story = async {
        sleep(Duration::from_millis(500)).await;
        cluster.replace_all(Duration::from_millis(500)).await;
        until("the new set", || {
            addresses(&balance)
                .iter()
                .all(|ip| cluster.pods().iter().any(|pod| pod.ip() == *ip))
        })
        .await;
    };
    let load = within("the story", under_load(&client, story)).await;
    let results = load.results;
    let failed: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        results.len(),
        failed[0]
    );
    // Plus the machine's own slowness: how late it woke the test, and how long undisturbed requests took.
    let bound = Duration::from_secs(2) + 2 * load.stalled + 4 * load.undisturbed;
    assert!(load.longest <= bound, "one waited {:?}", load.longest);
    for pod in cluster.pods() {
        assert!(
            results.iter().any(|result| *result == Ok(pod.ip())),
            "{} was used",
            pod.ip()
        );
    }
}

#[tokio::test]
async fn with_all_pods_down_the_first_calls_wait_and_later_ones_fail_at_once() {
    let cluster = Cluster::start(4).await;
    let bound = Duration::from_secs(2);
    let balance = Balance::builder(dns(&cluster))
        .completion(tower_headless::OnBodyEnd::new())
        .ready_timeout(bound)
        .build(|endpoint: &Endpoint| Connections::<NoBody>::new(endpoint.address()));
    get_all(&balance, 8).await;
    for pod in cluster.pods() {
        pod.kill().await;
    }
    let started = Instant::now();
    let first = join_all((0..20).map(|_| get(&balance, "/"))).await;
    assert!(first.iter().all(Result::is_err));
    assert!(
        started.elapsed() >= bound,
        "the first callers wait to the bound"
    );
    let again = Instant::now();
    let error = get(&balance, "/").await.expect_err("later ones don't");
    assert!(again.elapsed() < bound);
    let error = error.downcast::<tower_headless::Error>().expect("ours");
    assert!(error.is_unreachable());
    let refusal = error.source().expect("the refusal").to_string();
    assert!(refusal.contains("refused"), "{refusal}");

    cluster.pod(2).restart().await.expect("the address is free");
    until("the first pod's return", || {
        balance
            .endpoints()
            .iter()
            .any(|status| status.state == EndpointState::Available)
    })
    .await;
    assert_eq!(
        get(&balance, "/").await.expect("one pod is back"),
        cluster.pod(2).ip()
    );
}

/// An HTTP client of the cluster, as users build it.
fn client(cluster: &Cluster) -> http::ClientBuilder {
    let uri = format!("http://web.default.svc.cluster.local:{}", cluster.port());
    http::Client::builder(uri.parse().expect("a URI")).dns(|_| dns(cluster).refresh_interval(FAST))
}

async fn fetch(client: &http::Client, path: &str) -> Result<IpAddr, http::Error> {
    let response = within("an answer", client.get(path).into_future()).await?;
    let pod = response.body().endpoint().expect("a pod").address().ip();
    let text = response.into_body().collect().await?.to_bytes();
    assert!(!text.is_empty());
    Ok(pod)
}

#[tokio::test]
async fn a_pod_with_ipv6_alone_is_reached() {
    let pod = Pod::start("[::1]:0".parse().expect("an address")).await;
    let pod = pod.expect("IPv6 on loopback");
    let server = DnsServer::start().await;
    server.set_aaaa("web.svc.", 1, [Ipv6Addr::LOCALHOST]);
    let uri = format!("http://web.svc:{}", pod.addr().port());
    let client = http::Client::builder(uri.parse().expect("a URI"))
        .dns(|dns| dns.name_servers([server.addr()]).allow_loopback(true))
        .build()
        .expect("a client");
    assert_eq!(fetch(&client, "/").await.expect("an answer"), pod.ip());
}

/// Requests that the pod was executing are lost: safe ones go to another pod, the others fail with an error that says
/// so.
#[tokio::test]
async fn a_killed_pod_s_safe_requests_go_elsewhere_and_the_others_fail_with_its_endpoint() {
    let cluster = Cluster::start(2).await;
    let client = client(&cluster).build().expect("a client");
    cluster.pod(0).set(Mode::Hung);
    let (got, posted) = {
        let get = async |path| client.get(path).await;
        let post = async || client.post("/").body("once").await;
        let killed = async {
            cluster
                .pod(0)
                .wait_until(|stats| stats.in_flight == 2)
                .await;
            cluster.kill(0).await;
        };
        let requests = async { tokio::join!(get("/"), get("/"), post(), post()) };
        let ((first, second, third, fourth), ()) = tokio::join!(requests, killed);
        ([first, second], [third, fourth])
    };
    assert!(got.iter().all(Result::is_ok), "{got:?}");
    let lost: Vec<_> = posted.into_iter().filter_map(Result::err).collect();
    let [lost] = &lost[..] else {
        panic!("{lost:?}")
    };
    assert_eq!(
        lost.endpoint().map(Endpoint::address),
        Some(cluster.pod(0).addr())
    );
    assert!(!lost.is_unexecuted());
    for _ in 0..10 {
        assert_eq!(
            fetch(&client, "/").await.expect("an answer"),
            cluster.pod(1).ip()
        );
    }
}

#[tokio::test]
async fn a_pod_that_terminates_gracefully_fails_no_request() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster).build().expect("a client");
    fetch(&client, "/").await.expect("an answer");
    let requests = async {
        for _ in 0..200 {
            fetch(&client, "/").await.expect("no request fails");
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::join!(requests, cluster.remove_pod(0), cluster.remove_pod(0));
}

#[tokio::test]
async fn a_pod_that_answers_no_syn_fails_no_request() {
    let cluster = Cluster::start(2).await;
    let patience = Duration::from_millis(300);
    let client = client(&cluster)
        .connect_timeout(patience)
        .build()
        .expect("a client");
    cluster.pod(0).black_hole().await.expect("a full backlog");
    let requests = join_all((0..10).map(|_| fetch(&client, "/"))).await;
    for answered in requests {
        assert_eq!(answered.expect("an answer"), cluster.pod(1).ip());
    }
    let unreachable =
        |status: &tower_headless::EndpointStatus| status.state == EndpointState::Unreachable;
    assert_eq!(
        client
            .endpoints()
            .iter()
            .filter(|status| unreachable(status))
            .count(),
        1
    );
}

/// Every pod answers 503: requests that may be sent again are, within the budget, and every caller gets a pod's own
/// answer.
#[tokio::test]
async fn with_503_everywhere_retries_keep_to_the_budget() {
    // Few enough to end within the budget's first ten seconds on any machine.
    const REQUESTS: usize = 3_000;
    const AT_ONCE: usize = 20;
    let cluster = Cluster::start(4).await;
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    let client = client(&cluster).build().expect("a client");
    let begun = Instant::now();
    let callers = (0..AT_ONCE).map(async |_| {
        for _ in 0..REQUESTS / AT_ONCE {
            let answer = within("an answer", client.get("/").into_future()).await;
            let answer = answer.expect("a pod's answer");
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let text = answer.into_body().collect().await.expect("its body");
            assert!(text.to_bytes().starts_with(b"503"));
        }
    });
    join_all(callers).await;
    let got: usize = cluster.pods().iter().map(|pod| pod.requests()).sum();
    // The budget: a fifth of all, and ten a second, of which ten seconds' worth may come at once.
    let seconds = begun.elapsed().as_secs() as usize + 1;
    let allowed = REQUESTS + REQUESTS / 5 + 10 * (seconds + 10);
    assert!(got <= allowed, "{got} for {REQUESTS} in {seconds} s");
    assert!(
        got >= REQUESTS + REQUESTS / 10,
        "{got}: some are sent again"
    );
    let in_flight = |status: tower_headless::EndpointStatus| status.in_flight;
    assert_eq!(
        client.endpoints().into_iter().map(in_flight).sum::<u32>(),
        0
    );
}

/// The retry storm with a hand-made client, and exact numbers.
#[tokio::test]
async fn with_503_everywhere_a_retry_layer_keeps_to_its_budget() {
    const REQUESTS: usize = 2_000;
    let cluster = Cluster::start(4).await;
    let balance = ready(&cluster).await;
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    // No retries per second, so that the budget doesn't depend on a clock.
    let budget = TpsBudget::new(Duration::from_secs(60), 0, 0.2);
    let service = RetryLayer::new(RetryUnavailable)
        .budget(budget)
        .layer(balance);
    for _ in 0..REQUESTS {
        let error = get(&service, "/").await.expect_err("no success");
        assert_eq!(error.to_string(), "503 Service Unavailable");
    }
    let got: usize = cluster.pods().iter().map(|pod| pod.requests()).sum();
    assert_eq!(got, REQUESTS + REQUESTS / 5);
}
