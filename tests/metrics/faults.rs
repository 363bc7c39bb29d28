//! The metrics that name each fault's cause.

use std::{
    future::IntoFuture,
    io::{Read, Write},
    net::SocketAddr,
    sync::mpsc,
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    task::JoinHandle,
    time::sleep,
};
use tower::Layer;
use tower_headless::{
    Balance, Hedge, RetryLayer, RetryPolicy, StaticEndpoints,
    http::{ClientBuilder, Protocol, Tls, upgrade},
};

use super::*;
use crate::support::{
    scripted::{Pods, Spent},
    tls::Identity,
    within,
};

/// A client of the cluster with short refresh intervals and timeouts, and its metrics.
fn client(
    cluster: &Cluster,
    change: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (Client, Prometheus) {
    let often = Duration::from_millis(50);
    let builder = cluster.client().dns(|dns| dns.refresh_interval(often));
    let builder = change(builder.ready_timeout(Duration::from_secs(2)));
    let client = builder.build().expect("a client");
    let prometheus = Prometheus::of(metrics(&client));
    (client, prometheus)
}

/// Sends requests. Their results don't matter: the metrics are checked instead.
async fn ask(client: &Client, times: usize) {
    for _ in 0..times {
        let answer = within("an answer", client.get("/").into_future()).await;
        if let Ok(answer) = answer {
            let _ = within("its end", answer.text()).await;
        }
    }
}

/// Scrapes until the sum of these series is at least `least`.
async fn until(prometheus: &Prometheus, name: &str, label: (&str, &str), least: f64) -> Page {
    let labels = [label];
    let labels = if label.0.is_empty() {
        &labels[..0]
    } else {
        &labels[..]
    };
    let mut page = prometheus.scrape();
    within(name, async {
        while page.sum(name, labels) < least {
            sleep(Duration::from_millis(5)).await;
            page = prometheus.scrape();
        }
    })
    .await;
    page
}

const ANY: (&str, &str) = ("", "");
const REQUESTS: &str = "tower_headless_requests_total";
const ENDPOINTS: &str = "tower_headless_endpoints";
const EJECTIONS: &str = "tower_headless_endpoints_ejections_total";
const FAILED: &str = "tower_headless_connections_failed_total";
const CLOSED: &str = "tower_headless_connections_closed_total";
const OPEN: &str = "http_client_open_connections";
const ANSWERS: &str = "tower_headless_discovery_answers_total";
const WAITING: &str = "tower_headless_requests_waiting";

fn cancel(requests: &[JoinHandle<impl Sized>]) {
    requests.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_killed_pod_shows_in_the_metrics() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let cluster = Cluster::start(3).await;
        let (client, prometheus) = client(&cluster, |it| it.protocol(protocol));
        ask(&client, 3).await;
        let page = prometheus.scrape();
        assert_eq!(
            page.sum("tower_headless_connections_opened_total", &[]),
            3.0
        );
        assert_eq!(page.get(OPEN, &[("http_connection_state", "idle")]), 3.0);
        assert_eq!(page.get(OPEN, &[("http_connection_state", "active")]), 0.0);
        cluster.kill(0).await;
        ask(&client, 6).await;
        let page = until(&prometheus, FAILED, ("cause", "refused"), 1.0).await;
        assert_eq!(
            page.sum(FAILED, &[]),
            page.get(FAILED, &[("cause", "refused")])
        );
        let page = until(&prometheus, ENDPOINTS, ("state", "unreachable"), 1.0).await;
        assert_eq!(
            page.sum("tower_headless_endpoints_unreachable_total", &[]),
            1.0
        );
        // hyper's task learns of the old connection's end, and may be later than the next dial.
        let page = until(&prometheus, CLOSED, ANY, 1.0).await;
        // It is lost if a request was written before the end was read.
        let causes = ["peer", "lost"].map(|cause| page.get(CLOSED, &[("cause", cause)]));
        assert_eq!(causes.iter().sum::<f64>(), 1.0, "{protocol:?}");
        assert_eq!(page.sum(CLOSED, &[]), 1.0, "{protocol:?}");
        assert_eq!(page.sum(OPEN, &[]), 2.0);
    }
}

#[tokio::test]
async fn a_connection_lost_under_its_request_is_counted_as_lost() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let cluster = Cluster::start(1).await;
        let (client, prometheus) = client(&cluster, |it| it.protocol(protocol));
        ask(&client, 1).await;
        cluster.pod(0).set(Mode::Hung);
        let request = tokio::spawn(client.get("/").into_future());
        let page = until(&prometheus, OPEN, ("http_connection_state", "active"), 1.0).await;
        assert_eq!(page.sum(OPEN, &[]), 1.0);
        within("it has the request", cluster.wait_for_requests(2)).await;
        cluster.kill(0).await;
        let page = until(&prometheus, CLOSED, ANY, 1.0).await;
        assert_eq!(page.get(CLOSED, &[("cause", "lost")]), 1.0, "{protocol:?}");
        request.abort();
    }
}

/// A client of one pod, which the test itself plays.
fn of_one(pod: SocketAddr) -> (Client, Prometheus) {
    let uri = "http://web.default.svc.cluster.local:8080";
    let builder = Client::builder(uri.parse().expect("a URI"));
    let builder = builder.discovery(StaticEndpoints::new([pod])).retries(0);
    let client = builder.build().expect("a client");
    let prometheus = Prometheus::of(metrics(&client));
    (client, prometheus)
}

/// Checks that exactly one connection has ended, by this cause.
async fn ends(prometheus: &Prometheus, cause: &str) {
    let page = until(prometheus, CLOSED, ANY, 1.0).await;
    assert_eq!(page.get(CLOSED, &[("cause", cause)]), 1.0, "{cause}");
    assert_eq!(page.sum(CLOSED, &[]), 1.0, "{cause}");
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// Accepts a connection, and answers the request on it.
async fn answer(listener: &TcpListener, answer: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    stream.write_all(answer.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn a_pod_that_breaks_the_protocol_is_counted_as_protocol() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let unasked = format!("{OK}HTTP/1.1 408 Request Timeout\r\n\r\n");
    for wrong in ["garbage\r\n\r\n", chunked, &unasked] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (client, prometheus) = of_one(listener.local_addr().expect("an address"));
        let serve = within("a request", answer(&listener, wrong));
        let (_pod, ()) = tokio::join!(serve, ask(&client, 1));
        ends(&prometheus, "protocol").await;
    }
}

#[tokio::test]
async fn data_on_an_idle_connection_is_counted_as_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (client, prometheus) = of_one(listener.local_addr().expect("an address"));
    let serve = within("a request", answer(&listener, OK));
    let (mut pod, ()) = tokio::join!(serve, ask(&client, 1));
    until(&prometheus, OPEN, ("http_connection_state", "idle"), 1.0).await;
    pod.write_all(OK.as_bytes()).await.expect("sent");
    ends(&prometheus, "protocol").await;
}

/// The request isn't lost: it goes over another connection.
#[test]
fn a_connection_found_closed_by_the_next_request_is_counted_as_peer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let pod = listener.local_addr().expect("an address");
    let (close, closes) = mpsc::channel();
    let (tell, closed) = mpsc::channel();
    let serve = thread::spawn(move || {
        let answer = || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a head");
                head.extend(byte);
            }
            stream.write_all(OK.as_bytes()).expect("sent");
            stream
        };
        let first = answer();
        closes.recv().expect("a word");
        drop(first);
        tell.send(()).expect("somebody");
        answer()
    });
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (client, prometheus) = runtime.block_on(async {
        let (client, prometheus) = of_one(pod);
        ask(&client, 1).await;
        until(&prometheus, OPEN, ("http_connection_state", "idle"), 1.0).await;
        (client, prometheus)
    });
    close.send(()).expect("somebody");
    closed.recv().expect("a word");
    // The runtime stands still meanwhile.
    runtime.block_on(async {
        ask(&client, 1).await;
        ends(&prometheus, "peer").await;
    });
    drop(serve.join().expect("both requests"));
}

#[tokio::test]
async fn an_upgraded_connection_that_the_client_closes_is_counted_as_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (client, prometheus) = of_one(listener.local_addr().expect("an address"));
    for is_taken in [true, false] {
        let request = client.get("/").header("connection", "upgrade");
        let request = request.header("upgrade", "echo").into_future();
        let serve = within("a request", answer(&listener, SWITCH));
        let (_pod, response) = tokio::join!(serve, request);
        let mut response = response.expect("a response");
        if is_taken {
            drop(upgrade(&mut response).await.expect("a stream"));
        }
        drop(response);
        let closed = if is_taken { 1.0 } else { 2.0 };
        let page = until(&prometheus, CLOSED, ANY, closed).await;
        assert_eq!(page.get(CLOSED, &[("cause", "client")]), closed);
    }
}

#[tokio::test]
async fn connections_that_the_client_closes_are_counted_by_cause() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let cluster = Cluster::start(2).await;
        let short = Duration::from_millis(20);
        let (first, prometheus) = client(&cluster, |it| it.protocol(protocol).idle_timeout(short));
        ask(&first, 2).await;
        let page = until(&prometheus, CLOSED, ANY, 2.0).await;
        assert_eq!(page.get(CLOSED, &[("cause", "idle")]), 2.0, "{protocol:?}");

        let (second, prometheus) = client(&cluster, |it| it.protocol(protocol));
        ask(&second, 2).await;
        cluster.set_ready(1, false);
        let page = until(&prometheus, CLOSED, ANY, 1.0).await;
        assert_eq!(page.get(CLOSED, &[("cause", "left")]), 1.0, "{protocol:?}");

        let requests = |it: ClientBuilder| it.protocol(protocol).max_connection_requests(1);
        let (third, prometheus) = client(&cluster, requests);
        ask(&third, 3).await;
        let page = until(&prometheus, CLOSED, ("cause", "age"), 2.0).await;
        let aged = page.get(CLOSED, &[("cause", "age")]);
        assert_eq!(page.sum(CLOSED, &[]), aged, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_pod_shows_in_the_metrics() {
    let world = World::of((1..=3).map(endpoint).collect(), |it| it.counters(true)).await;
    let prometheus = Prometheus::of(metrics(&world.balance).per_endpoint(true));
    world.pods.set([1], Behaviour::Hold);
    let soon = Behaviour::After(Duration::from_millis(1));
    world.pods.set([2, 3], soon);
    let mut requests = Vec::new();
    for number in 0..200 {
        requests.push(tokio::spawn(world.balance.clone().oneshot(Request(number))));
        sleep(Duration::from_millis(5)).await;
    }
    let page = prometheus.scrape();
    assert_eq!(page.get(EJECTIONS, &[("reason", "unresponsive")]), 1.0);
    assert_eq!(page.sum(EJECTIONS, &[]), 1.0);
    let its = [("upstream_endpoint", "10.0.0.1:80")];
    let in_flight = "tower_headless_endpoint_requests_in_flight";
    assert!(page.get(in_flight, &its) >= 5.0);
    let ejected = [its[0], ("state", "ejected")];
    assert_eq!(page.get("tower_headless_endpoint_state", &ejected), 1.0);
    cancel(&requests);
}

#[tokio::test]
async fn a_pod_that_answers_503_shows_in_the_metrics() {
    let cluster = Cluster::start(3).await;
    let (client, prometheus) = client(&cluster, |it| it);
    let bad = Mode::Status(StatusCode::SERVICE_UNAVAILABLE);
    cluster.pod(1).set(bad);
    ask(&client, 30).await;
    let page = until(&prometheus, ENDPOINTS, ("state", "ejected"), 1.0).await;
    assert!(page.get(REQUESTS, &[("outcome", "bad_answer")]) >= 5.0);
    assert_eq!(
        page.get(EJECTIONS, &[("reason", "consecutive_failures")]),
        1.0
    );
    assert!(page.get("tower_headless_retries_total", &[("cause", "answered")]) >= 5.0);
}

/// Every request may be hedged, and is retried if it fails.
#[derive(Clone)]
struct Safe;

impl<Res> RetryPolicy<Request, Res> for Safe {
    fn again(&self, request: &Request) -> Option<Request> {
        Some(Request(request.0))
    }

    fn retry(&self, result: Result<&Res, &tower_headless::Error>) -> bool {
        result.is_err()
    }

    fn may_hedge(&self, _: &Request) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_pod_shows_in_the_metrics() {
    let world = World::of((1..=4).map(endpoint).collect(), |it| it.counters(true)).await;
    let prometheus = Prometheus::of(metrics(&world.balance).per_endpoint(true));
    let fast = Behaviour::After(Duration::from_millis(10));
    world.pods.set([2, 3, 4], fast);
    world
        .pods
        .set([1], Behaviour::After(Duration::from_secs(1)));
    let hedge = Hedge::after(Duration::from_millis(50)).share(1.0);
    let hedged = RetryLayer::new(Safe)
        .hedge(hedge)
        .layer(world.balance.clone());
    for number in 0..100 {
        let answer = hedged.clone().oneshot(Request(number)).await;
        answer.expect("an answer");
    }
    let page = prometheus.scrape();
    let won = page.get("tower_headless_hedges_won_total", &[]);
    assert!(won >= 3.0 && page.get("tower_headless_hedges_total", &[]) >= won);
    let its = [("upstream_endpoint", "10.0.0.1:80")];
    let overtaken = "tower_headless_endpoint_requests_overtaken_total";
    assert_eq!(
        (page.get(overtaken, &its), page.sum(overtaken, &[])),
        (won, won)
    );
    assert!(page.get(EJECTIONS, &[("reason", "slow")]) >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_flapping_pod_shows_in_the_metrics() {
    let world = World::of((1..=2).map(endpoint).collect(), |it| it.counters(true)).await;
    let prometheus = Prometheus::of(metrics(&world.balance));
    for behaviour in [Behaviour::NotReady, Behaviour::Answer].repeat(3) {
        world.pods.set([1], behaviour);
        for number in 0..20 {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("the other one answers");
            sleep(Duration::from_millis(100)).await;
        }
    }
    let page = prometheus.scrape();
    assert_eq!(
        page.get("tower_headless_endpoints_unreachable_total", &[]),
        3.0
    );
    assert!(page.get(REQUESTS, &[("outcome", "refused")]) >= 3.0);
    assert_eq!(page.get(ENDPOINTS, &[("state", "picked")]), 2.0);
}

#[tokio::test]
async fn a_dns_outage_shows_in_the_metrics() {
    let cluster = Cluster::start(2).await;
    let (client, prometheus) = client(&cluster, |it| it);
    ask(&client, 1).await;
    cluster.dns().stop().await;
    let page = until(&prometheus, ANSWERS, ("result", "failed"), 1.0).await;
    assert_eq!(page.get(ENDPOINTS, &[("state", "picked")]), 2.0);
    let staleness = "tower_headless_discovery_staleness_seconds";
    let page = until(&prometheus, staleness, ANY, page.get(staleness, &[]) + 0.1).await;
    assert_eq!(page.get(ANSWERS, &[("result", "empty")]), 0.0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_shows_in_the_metrics() {
    let cluster = Cluster::start(0).await;
    cluster.dns().remove(cluster.service());
    let (client, prometheus) = client(&cluster, |it| it);
    let request = tokio::spawn(client.get("/").into_future());
    let page = until(&prometheus, ANSWERS, ("result", "failed"), 1.0).await;
    assert_eq!(page.get(ANSWERS, &[("result", "found")]), 0.0);
    assert!(
        page.all("tower_headless_discovery_staleness_seconds", &[])
            .is_empty()
    );
    let _ = within("an end", request).await;
    let page = prometheus.scrape();
    assert_eq!(page.get("tower_headless_requests_unplaced_total", &[]), 1.0);
    let waits = page.get(
        "tower_headless_requests_waits_total",
        &[("cause", "discovery")],
    );
    assert!(waits >= 1.0, "{waits}");
}

/// All pods are replaced, and no request follows.
#[tokio::test(start_paused = true)]
async fn an_outage_ends_when_new_pods_come_even_without_requests() {
    let set = |hosts: std::ops::RangeInclusive<u8>| hosts.map(endpoint).collect::<Vec<_>>();
    let world = World::of(set(1..=2), |it| it.counters(true)).await;
    let prometheus = Prometheus::of(metrics(&world.balance));
    let outage = || {
        let page = prometheus.scrape();
        page.get("tower_headless_outage_time_seconds", &[])
    };
    world.pods.set([1, 2], Behaviour::NotReady);
    let failed = world.balance.clone().oneshot(Request(1)).await;
    assert!(failed.is_err(), "both refuse");
    assert!(outage() >= 5.0);
    world.set(set(3..=4)).await;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(outage(), 0.0);
}

#[tokio::test]
async fn an_outage_of_all_pods_shows_in_the_metrics() {
    let cluster = Cluster::start(2).await;
    let (client, prometheus) = client(&cluster, |it| it);
    ask(&client, 2).await;
    cluster.kill(0).await;
    cluster.kill(1).await;
    let request = tokio::spawn(client.get("/").into_future());
    let page = until(&prometheus, WAITING, ("cause", "unreachable"), 1.0).await;
    assert!(page.get(FAILED, &[("cause", "refused")]) >= 2.0);
    let page = until(&prometheus, ENDPOINTS, ("state", "unreachable"), 2.0).await;
    assert!(page.get("tower_headless_outage_time_seconds", &[]) > 0.0);
    let _ = within("an end", request).await;
    let page = prometheus.scrape();
    assert_eq!(page.get(WAITING, &[("cause", "unreachable")]), 0.0);
    let waited = "tower_headless_requests_wait_time_seconds_total";
    assert!(page.get(waited, &[("cause", "unreachable")]) > 0.0);
}

#[tokio::test]
async fn an_api_server_outage_shows_in_the_metrics() {
    let kube = kit::Cluster::start([1, 2]).await;
    let pods = Pods::default();
    let balance = Balance::builder(kube.slices(WEB))
        .counters(true)
        .build(pods.make());
    within("the set", balance.discovered())
        .await
        .expect("a set");
    kube.api.wait_for_watch().await;
    let prometheus = Prometheus::of(metrics(&balance));
    kube.api.stop();
    let page = until(&prometheus, ANSWERS, ("result", "failed"), 1.0).await;
    assert_eq!(
        page.get(ENDPOINTS, &[("state", "picked")]),
        2.0,
        "the set stays"
    );
    assert!(page.get("tower_headless_discovery_staleness_seconds", &[]) > 0.0);
    let it = balance.explain();
    assert!(it.discovery.is_failing && it.size == 2, "{it}");
    assert_eq!(it.discovery.kind.as_deref(), Some("endpoint_slices"));
    let error = it.discovery.last_error.as_ref().expect("it has failed");
    assert!(error.text.contains("API server"), "{error:?}");
    assert!(it.trouble[0].contains("discovery fails"), "{it}");
}

#[tokio::test]
async fn a_rejected_certificate_shows_in_the_metrics() {
    let theirs = Identity::new("web.default.svc.cluster.local");
    let ours = Identity::new("other");
    let (chain, key) = (theirs.certificate_pem(), theirs.key_pem());
    let builder = Cluster::builder().pods(1);
    let builder = builder.tls(chain.as_bytes(), key.as_bytes());
    let cluster = builder.expect("TLS").start().await;
    let tls = Tls::new().trust_pem(ours.certificate_pem().as_bytes());
    let tls = tls.expect("an authority");
    let (client, prometheus) = client(&cluster, |it| it.tls(tls));
    let request = tokio::spawn(client.get("/").into_future());
    let page = until(&prometheus, FAILED, ("cause", "tls"), 1.0).await;
    assert_eq!(page.sum(FAILED, &[]), page.get(FAILED, &[("cause", "tls")]));
    assert_eq!(
        page.sum("tower_headless_connections_opened_total", &[]),
        0.0
    );
    request.abort();
}

#[tokio::test]
async fn a_reached_connection_limit_shows_in_the_metrics() {
    let cluster = Cluster::start(1).await;
    let one = |it: ClientBuilder| it.protocol(Protocol::Http1).max_connections(1);
    let (client, prometheus) = client(&cluster, one);
    ask(&client, 1).await;
    cluster.pod(0).set(Mode::Hung);
    let send = |_| tokio::spawn(client.get("/").into_future());
    let requests: Vec<_> = (0..3).map(send).collect();
    let page = until(&prometheus, WAITING, ("cause", "connection"), 2.0).await;
    assert_eq!(page.get(OPEN, &[("http_connection_state", "active")]), 1.0);
    cancel(&requests);
    // The connection's exchange is only half done.
    let page = until(&prometheus, CLOSED, ANY, 1.0).await;
    assert_eq!(page.get(CLOSED, &[("cause", "client")]), 1.0);
}

#[tokio::test]
async fn a_spent_retry_budget_shows_in_the_metrics() {
    let cluster = Cluster::start(2).await;
    let (client, prometheus) = client(&cluster, |it| it.retry_budget(Spent));
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    ask(&client, 3).await;
    let page = prometheus.scrape();
    assert_eq!(page.get("tower_headless_retries_refused_total", &[]), 3.0);
    assert_eq!(page.sum("tower_headless_retries_total", &[]), 0.0);
}
