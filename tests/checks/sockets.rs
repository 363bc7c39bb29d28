//! Checks over real sockets, in real time.

use std::{
    future::IntoFuture,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::{sleep, timeout},
};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::service_fn;
use tower_headless::{
    Balance, BoxError, EjectionReason, Endpoint, EndpointState, EndpointStatus, HealthCheck,
    StaticEndpoints,
    http::{Client, ClientBuilder, Protocol, Tls},
};

use crate::support::{
    cluster::Cluster,
    pod::{Mode, Pod, Stats},
    within,
};

const OUT: EndpointState = EndpointState::Ejected(EjectionReason::CheckFailed);
const IN: EndpointState = EndpointState::Available;
const SERVICE: &str = "web.default.svc.cluster.local";

/// The check with a short interval, and out after two failures.
fn quickly(check: HealthCheck) -> HealthCheck {
    check.interval(Duration::from_millis(20)).failures(2)
}

fn healthz() -> HealthCheck {
    quickly(HealthCheck::http("/healthz").expect("a path"))
}

fn builder(
    scheme: &str,
    pods: impl IntoIterator<Item = SocketAddr>,
) -> ClientBuilder<StaticEndpoints> {
    let uri = format!("{scheme}://{SERVICE}:8080");
    Client::builder(uri.parse().expect("a URI")).discovery(StaticEndpoints::new(pods))
}

async fn pods(n: usize) -> Vec<Pod> {
    let mut pods = Vec::new();
    for _ in 0..n {
        let pod = Pod::start((Ipv4Addr::LOCALHOST, 0).into()).await;
        pods.push(pod.expect("a free port"));
    }
    pods
}

fn addresses(pods: &[Pod]) -> Vec<SocketAddr> {
    pods.iter().map(Pod::addr).collect()
}

/// Waits until the pod at `address` is in this state.
async fn until(
    endpoints: impl Fn() -> Vec<EndpointStatus>,
    address: SocketAddr,
    state: EndpointState,
) {
    let reached = || {
        let endpoints = endpoints();
        let mut endpoints = endpoints.iter();
        endpoints.any(|it| it.endpoint.address() == address && it.state == state)
    };
    let event = async {
        while !reached() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    within("the pod's state", event).await;
}

async fn get(client: &Client, times: usize) {
    for _ in 0..times {
        let response = within("a response", client.get("/").into_future()).await;
        assert_eq!(response.expect("a response").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn http_checks_see_the_status() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let pods = pods(3).await;
        let client = builder("http", addresses(&pods))
            .protocol(protocol)
            .health_check(healthz())
            .build()
            .expect("a client");
        let states = || client.endpoints();
        let sick = pods[1].addr();
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::FOUND] {
            pods[1].set(Mode::Status(status));
            until(states, sick, OUT).await;
            // Not 503, which would be retried: this answer would reach `get`, and fail the test.
            pods[1].set(Mode::Status(StatusCode::IM_A_TEAPOT));
            get(&client, 20).await;
            pods[1].set(Mode::Status(StatusCode::NO_CONTENT));
            until(states, sick, IN).await;
        }
        pods[1].set(Mode::CloseWithoutAnswer);
        until(states, sick, OUT).await;
    }
}

/// The head of the next request.
async fn heads(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    head_of(&mut stream).await.expect("a request")
}

/// Reads a request's head and answers it; `None` if the connection ends before.
async fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(answer).await.ok()?;
    Some(String::from_utf8(head).expect("text"))
}

#[tokio::test]
async fn http_checks_name_the_service_or_else_the_pod() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = builder("http", [address]).health_check(healthz());
    let client = client.build().expect("a client");
    let head = within("a check", heads(&listener)).await;
    assert!(head.starts_with("GET /healthz HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {SERVICE}:8080\r\n")),
        "{head}"
    );
    assert!(head.contains("user-agent: tower-headless/"), "{head}");
    drop(client);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let balance = balance([address], healthz());
    let head = within("a check", heads(&listener)).await;
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    drop(balance);
}

#[test]
fn a_check_needs_a_path() {
    for wrong in ["healthz", "", "http://a/b", "/a b"] {
        HealthCheck::http(wrong).expect_err(wrong);
    }
    let _ = HealthCheck::http("/healthz?full=1").expect("a path");
}

#[tokio::test]
async fn http_checks_speak_tls_if_the_client_does() {
    let cluster = Cluster::start_tls_as(&format!("{SERVICE}."), 2).await;
    let addresses: Vec<_> = cluster.pods().iter().map(|pod| pod.addr()).collect();
    let client = |trust: Tls| {
        let client = builder("https", addresses.clone()).tls(trust);
        let check = healthz().require_initial_pass(true);
        client.health_check(check).build().expect("a client")
    };
    let trust = Tls::new().trust_pem(cluster.trust_pem().as_bytes());
    get(&client(trust.expect("a certificate")), 4).await;
    assert!(cluster.pods().iter().all(|pod| pod.requests() > 0));

    let stranger = client(Tls::new());
    for pod in cluster.pods() {
        let accepted = pod.stats().accepted;
        pod.wait_until(move |stats| stats.accepted > accepted + 2)
            .await;
    }
    let states = stranger.endpoints();
    let pending = states
        .iter()
        .filter(|it| it.state == EndpointState::Pending);
    assert_eq!(pending.count(), 2, "{states:?}");
}

fn balance(
    pods: impl IntoIterator<Item = SocketAddr>,
    check: HealthCheck,
) -> Balance<impl tower::Service<(), Response = SocketAddr, Error = BoxError> + Clone> {
    Balance::builder(StaticEndpoints::new(pods))
        .health_check(check)
        .build(|endpoint: &Endpoint| {
            let address = endpoint.address();
            service_fn(move |()| async move { Ok::<_, BoxError>(address) })
        })
}

#[tokio::test]
async fn tcp_checks_see_which_pods_accept_connections() {
    let pods = pods(3).await;
    let check = quickly(HealthCheck::tcp()).timeout(Duration::from_millis(100));
    let balance = balance(addresses(&pods), check);
    let states = || balance.endpoints();
    let sick = pods[2].addr();
    pods[2].wait_until(|stats| stats.accepted > 0).await;
    pods[2].kill().await;
    until(states, sick, OUT).await;
    pods[2].restart().await.expect("its port");
    until(states, sick, IN).await;
    pods[2].black_hole().await.expect("a full backlog");
    until(states, sick, OUT).await;
    pods[2].restart().await.expect("its port");
    until(states, sick, IN).await;
    drop(balance);
    for pod in &pods {
        pod.wait_until(|stats| stats.connections == 0).await;
    }
}

/// A server with only gRPC's health service.
struct Grpc {
    address: SocketAddr,
    reporter: HealthReporter,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Grpc {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().add_service(health);
        let served = server.serve_with_incoming(TcpIncoming::from(listener));
        Self {
            address,
            reporter,
            served: tokio::spawn(served),
        }
    }

    async fn set(&self, service: &str, status: ServingStatus) {
        self.reporter.set_service_status(service, status).await;
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        AbortHandle::abort(&self.served.abort_handle());
    }
}

#[tokio::test]
async fn grpc_checks_see_what_the_health_service_says() {
    let pods = futures::future::join_all((0..3).map(|_| Grpc::start())).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let sick = addresses[0];
    for service in ["", "shop.Basket"] {
        for pod in &pods {
            pod.set(service, ServingStatus::Serving).await;
        }
        // A client of HTTP/1.1: its gRPC checks use HTTP/2 all the same.
        let client = builder("http", addresses.clone());
        let client = client.health_check(quickly(HealthCheck::grpc(service)));
        let client = client.build().expect("a client");
        let balance = balance(addresses.clone(), quickly(HealthCheck::grpc(service)));
        pods[0].set(service, ServingStatus::NotServing).await;
        until(|| client.endpoints(), sick, OUT).await;
        until(|| balance.endpoints(), sick, OUT).await;
        pods[0].set(service, ServingStatus::Serving).await;
        until(|| client.endpoints(), sick, IN).await;
        until(|| balance.endpoints(), sick, IN).await;
    }
    // The service answers NOT_FOUND.
    let check = quickly(HealthCheck::grpc("unknown")).require_initial_pass(true);
    let client = builder("http", addresses).health_check(check);
    let client = client.ready_timeout(Duration::from_millis(300)).build();
    let error = client.expect("a client").get("/").await;
    let error = BoxError::from(error.expect_err("no pod passes"));
    let mut last: &dyn std::error::Error = &*error;
    while let Some(source) = last.source() {
        last = source;
    }
    assert!(last.to_string().starts_with("gRPC status 5"), "{last}");
}

/// Waits for `checks` more checks. Returns how many connections they took.
async fn dialled(pod: &Pod, checks: usize) -> usize {
    let before = pod.stats();
    let enough = move |stats: &Stats| stats.requests >= before.requests + checks;
    let after = within("checks", pod.wait_until(enough)).await;
    after.accepted - before.accepted
}

/// With any answer: with a body, with a body that comes bit by bit, with a status that is no success.
#[tokio::test]
async fn checks_of_a_pod_keep_their_connection() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for path in ["/healthz", "/stream/3/1"] {
            let pods = pods(3).await;
            let client = builder("http", addresses(&pods))
                .protocol(protocol)
                .health_check(quickly(HealthCheck::http(path).expect("a path")))
                .build()
                .expect("a client");
            let dialled = dialled(&pods[0], 10).await;
            // A body that comes bit by bit may not have ended when a check is late.
            let is_slow = path.starts_with("/stream");
            assert!(
                dialled <= if is_slow { 5 } else { 1 },
                "{protocol:?} {path}"
            );
            pods[0].set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
            until(|| client.endpoints(), pods[0].addr(), OUT).await;
            pods[0].set(Mode::Healthy);
            until(|| client.endpoints(), pods[0].addr(), IN).await;
            let accepted = pods[0].stats().accepted;
            assert!(is_slow || accepted == 1, "{protocol:?} {path}: {accepted}");
        }
    }
}

#[tokio::test]
async fn checks_over_tls_keep_their_connection() {
    let cluster = Cluster::start_tls_as(&format!("{SERVICE}."), 1).await;
    let pod = cluster.pod(0);
    let trust = Tls::new().trust_pem(cluster.trust_pem().as_bytes());
    let client = builder("https", [pod.addr()]).tls(trust.expect("a certificate"));
    let client = client.health_check(healthz()).build().expect("a client");
    assert!(dialled(&pod, 10).await <= 1);
    drop(client);
    pod.wait_until(|stats| stats.connections == 0).await;
}

/// A pod of HTTP/2 whose listener counts.
#[tokio::test]
async fn grpc_checks_keep_their_connection() {
    let pods = futures::future::join_all((0..3).map(|_| Grpc::start())).await;
    for pod in &pods {
        pod.set("", ServingStatus::Serving).await;
    }
    let pod = &pods[0];
    let (relay, connections) = relay(pod.address).await;
    let client = builder("http", [relay, pods[1].address, pods[2].address]);
    let client = client.health_check(quickly(HealthCheck::grpc("")));
    let client = client.build().expect("a client");
    for status in [ServingStatus::NotServing, ServingStatus::Serving] {
        pod.set("", status).await;
        let state = if status == ServingStatus::Serving {
            IN
        } else {
            OUT
        };
        until(|| client.endpoints(), relay, state).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A proxy that passes connections on to `pod`: its address, and how many connections it has had.
async fn relay(pod: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::<AtomicUsize>::default();
    let seen = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(pod).await.expect("the pod");
                // Ends with either connection.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, connections)
}

/// A single failed check would eject the pod.
#[tokio::test]
async fn a_check_whose_connection_was_closed_meanwhile_makes_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = builder("http", [address]).health_check(healthz().failures(1));
    let client = client.build().expect("a client");
    for answers in [1, 2, 1, 3, 1] {
        let (mut stream, _) = within("a check", listener.accept()).await.expect("a check");
        for _ in 0..answers {
            let head = within("a request", head_of(&mut stream)).await;
            assert!(head.is_some());
            assert_eq!(client.endpoints()[0].state, IN);
        }
        // The next request over this one gets no answer, whether or not it has been sent by then.
        drop(stream);
    }
    let (mut stream, _) = within("a check", listener.accept()).await.expect("a check");
    within("a request", head_of(&mut stream)).await;
    assert_eq!(client.endpoints()[0].state, IN);
}

/// A check doesn't wait for the end of an endless body, and its connection isn't used again.
#[tokio::test]
async fn a_check_with_an_endless_answer_passes() {
    let pods = pods(1).await;
    let check = HealthCheck::http("/stream/1000/50").expect("a path");
    let check = quickly(check).require_initial_pass(true);
    let client = builder("http", addresses(&pods)).health_check(check);
    let client = client.build().expect("a client");
    until(|| client.endpoints(), pods[0].addr(), IN).await;
    assert!(dialled(&pods[0], 3).await >= 2);
    assert_eq!(client.endpoints()[0].state, IN);
    drop(client);
    pods[0].wait_until(|stats| stats.connections == 0).await;
}

#[tokio::test]
async fn no_check_outlives_the_last_handle() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let grpc = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let pods = pods(2).await;
    let checks = [
        (healthz(), Protocol::Http1),
        (healthz(), Protocol::Http2),
        (quickly(HealthCheck::grpc("")), Protocol::Http2),
        (quickly(HealthCheck::tcp()), Protocol::Negotiated),
    ];
    let before = tasks();
    for (check, protocol) in checks {
        let client = builder("http", addresses(&pods))
            .protocol(protocol)
            .health_check(check.timeout(Duration::from_secs(60)))
            .build()
            .expect("a client");
        // TCP checks need only a connection; the others wait for an answer.
        let asks = protocol != Protocol::Negotiated;
        let begun = move |stats: &Stats| if asks { stats.requests } else { stats.accepted };
        for pod in &pods {
            // Some have ended by then, and one hangs.
            let before = begun(&pod.stats());
            pod.wait_until(move |stats| begun(stats) > before + 2).await;
            pod.set(Mode::Hung);
            pod.wait_until(|stats| stats.in_flight > 0 || !asks).await;
        }
        drop(client);
        for pod in &pods {
            pod.wait_until(|stats| stats.connections == 0).await;
            pod.set(Mode::Healthy);
        }
        let ended = async {
            while tasks() > before {
                sleep(Duration::from_millis(2)).await;
            }
        };
        within("the end of all tasks", ended).await;
    }
    // A check that is stuck in its handshake.
    let address = grpc.local_addr().expect("an address");
    let check = quickly(HealthCheck::grpc("")).timeout(Duration::from_secs(60));
    let client = builder("http", [address]).health_check(check);
    let client = client.connect_timeout(Duration::from_secs(60)).build();
    let (mut stream, _) = within("a check", grpc.accept()).await.expect("a check");
    drop(client);
    assert!(within("its end", is_over(&mut stream)).await);
}

/// Reads to the end of a connection.
async fn is_over(stream: &mut TcpStream) -> bool {
    let mut all = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut all));
    read.await.is_ok()
}
