//! Clients that tonic generated over this crate's client: what gRPC requires of a transport.

mod deadlines;
mod failures;
mod scripted;
mod statuses;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use prost::Message;
use support::within;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tonic::{
    Code, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::{ServiceExt, util::MapRequestLayer};
use tower_headless::{
    Endpoint, StaticEndpoints,
    http::{Client, ClientBuilder, Idempotent, Protocol},
};

const SERVICE: &str = "http://health.default.svc.cluster.local:50051";

/// The name of a service for which a pod never answers.
const HANGS: &str = "hangs";

// ---------------------------------------------------------------- pods that speak gRPC

/// A gRPC server with the health service.
struct Pod {
    address: SocketAddr,
    seen: Arc<Seen>,
    streams: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    stopped: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// What a pod has received, and how it behaves.
#[derive(Default)]
struct Seen {
    checks: AtomicUsize,
    /// It answers `UNAVAILABLE`.
    is_busy: AtomicBool,
    authority: Mutex<String>,
    /// The header that an interceptor adds.
    tenant: Mutex<Option<HeaderValue>>,
}

impl Pod {
    async fn start() -> Self {
        Self::start_with(Server::builder()).await
    }

    async fn start_with(server: Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Seen::default());
        let (streams, ended) = watch::channel(false);
        let health = HealthServer::new(Answers {
            seen: seen.clone(),
            ended,
        });
        let noted = seen.clone();
        let note = move |request: Request<_>| {
            let authority = request.uri().authority().map(ToString::to_string);
            *noted.authority.lock().expect("nobody panics") = authority.unwrap_or_default();
            let tenant = request.headers().get("x-tenant").cloned();
            *noted.tenant.lock().expect("nobody panics") = tenant;
            request
        };
        let (stop, told) = oneshot::channel();
        let served = server
            .layer(MapRequestLayer::new(note))
            .add_service(health)
            .add_service(streams::Echo)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                // Told to stop, or the sender was dropped.
                let _ = told.await;
            });
        Self {
            address,
            seen,
            streams,
            stop: Some(stop),
            stopped: tokio::spawn(served),
        }
    }

    /// Sends GOAWAY, and finishes what it has.
    async fn stop_gracefully(&mut self) {
        drop(self.stop.take());
        let stopped = within("a graceful end", &mut self.stopped).await;
        stopped.expect("no panic").expect("no error");
    }

    fn checks(&self) -> usize {
        self.seen.checks.load(Relaxed)
    }
}

/// The health service of a pod.
struct Answers {
    seen: Arc<Seen>,
    ended: watch::Receiver<bool>,
}

fn serving() -> HealthCheckResponse {
    let status = ServingStatus::Serving.into();
    HealthCheckResponse { status }
}

#[tonic::async_trait]
impl Health for Answers {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.seen.checks.fetch_add(1, Relaxed);
        match &*request.get_ref().service {
            _ if self.seen.is_busy.load(Relaxed) => Err(Status::unavailable("busy")),
            "" => Ok(Response::new(serving())),
            HANGS => pending().await,
            unknown => Err(Status::not_found(unknown)),
        }
    }

    /// Sends one message at once, and ends when the pod is told to.
    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut ended = self.ended.clone();
        let first = futures::stream::once(async { Ok(serving()) });
        let end = futures::stream::once(async move {
            let _ = ended.wait_for(|ended| *ended).await;
        });
        let rest = end.filter_map(|()| async { None });
        Ok(Response::new(first.chain(rest).boxed()))
    }
}

async fn pods<const N: usize>() -> [Pod; N] {
    let pods = futures::future::join_all((0..N).map(|_| Pod::start())).await;
    pods.try_into().ok().expect("as many as were started")
}

fn client(pods: &[Pod]) -> Client {
    builder(pods).build().expect("a client")
}

fn builder(pods: &[Pod]) -> ClientBuilder<StaticEndpoints> {
    let pods = StaticEndpoints::new(pods.iter().map(|pod| pod.address));
    Client::builder(SERVICE.parse().expect("a URI"))
        .discovery(pods)
        .protocol(Protocol::Http2)
}

fn ask(service: &str) -> HealthCheckRequest {
    let service = service.to_owned();
    HealthCheckRequest { service }
}

/// Waits until the client knows this many pods.
async fn known(client: &Client, pods: usize) {
    let mut changes = client.watch();
    within("the pods", async {
        while client.endpoints().len() < pods {
            changes.next().await;
        }
    })
    .await;
}

fn in_flight(client: &Client) -> Vec<u32> {
    let mut counts: Vec<_> = client.endpoints().iter().map(|it| it.in_flight).collect();
    counts.sort_unstable();
    counts
}

// ---------------------------------------------------------------- unary calls

#[tokio::test]
async fn unary_calls_are_split_evenly() {
    let pods = pods::<3>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    let mut answers = BTreeMap::<Endpoint, usize>::new();
    for _ in 0..100 {
        let answer = within("an answer", health.check(ask(""))).await;
        let answer = answer.expect("an answer");
        // tonic passes on the extensions that the client puts into a response.
        let pod = answer.extensions().get::<Endpoint>().cloned();
        *answers.entry(pod.expect("the pod's name")).or_default() += 1;
        assert_eq!(answer.into_inner(), serving());
    }
    let mut shares: Vec<_> = answers.into_values().collect();
    shares.sort_unstable();
    assert_eq!(shares, [33, 33, 34]);
    assert_eq!(in_flight(&client), [0, 0, 0]);
}

#[tokio::test]
async fn concurrent_calls_of_clones_are_split_evenly() {
    let pods = pods::<3>().await;
    let health = HealthClient::new(client(&pods));
    let calls = (0..300).map(|_| {
        let mut health = health.clone();
        async move { health.check(ask("")).await }
    });
    let answers = within("all answers", futures::future::join_all(calls)).await;
    assert!(answers.iter().all(Result::is_ok));
    let checks: Vec<_> = pods.iter().map(Pod::checks).collect();
    assert_eq!(checks, [100, 100, 100]);
}

#[tokio::test]
async fn an_idempotent_call_goes_from_an_unavailable_pod_to_another() {
    let pods = pods::<2>().await;
    pods[0].seen.is_busy.store(true, Relaxed);
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    for _ in 0..4 {
        let mut call = tonic::Request::new(ask(""));
        call.extensions_mut().insert(Idempotent::default());
        let answer = within("an answer", health.check(call)).await;
        assert_eq!(answer.expect("the other pod's").into_inner(), serving());
    }
    assert_eq!(pods[0].checks(), 2, "every other turn");
    // An unmarked call gets the pod's status.
    let calls = [health.check(ask("")).await, health.check(ask("")).await];
    let statuses: Vec<_> = calls.into_iter().filter_map(Result::err).collect();
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].code(), Code::Unavailable);
    assert_eq!(in_flight(&client), [0, 0]);
}

#[tokio::test]
async fn statuses_and_trailers_arrive() {
    let pods = pods::<1>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    let status = within("a status", health.check(ask("no such service"))).await;
    let status = status.expect_err("an unknown service");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "no such service");

    // By hand, to see them on the wire: a message in its frame, after a prefix of five bytes.
    let message = ask("").encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(framed)))
        .expect("a request");
    let response = within("a response", client.oneshot(request)).await;
    let response = response.expect("a response");
    assert!(!response.headers().contains_key("grpc-status"));
    let body = response.into_body().collect().await.expect("a body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn the_authority_is_the_callers_or_else_the_services() {
    let pods = pods::<1>().await;
    let client = builder(&pods).allow_foreign_authority(true);
    let client = client.build().expect("a client");
    let seen = || {
        pods[0]
            .seen
            .authority
            .lock()
            .expect("nobody panics")
            .clone()
    };

    let mut health = HealthClient::new(client.clone());
    health.check(ask("")).await.expect("an answer");
    assert_eq!(seen(), "health.default.svc.cluster.local:50051");

    let origin = "http://health.example".parse().expect("a URI");
    let mut health = HealthClient::with_origin(client, origin);
    health.check(ask("")).await.expect("an answer");
    assert_eq!(seen(), "health.example");
}

// ---------------------------------------------------------------- interceptors

#[tokio::test]
async fn an_interceptor_adds_to_calls_and_refuses_them() {
    let pods = pods::<1>().await;
    let transport = client(&pods);
    let interceptor = |mut call: tonic::Request<()>| {
        let tenant = "shop".parse().expect("a value");
        call.metadata_mut().insert("x-tenant", tenant);
        Ok(call)
    };
    let mut health = HealthClient::with_interceptor(transport.clone(), interceptor);
    health.check(ask("")).await.expect("an answer");
    let tenant = pods[0].seen.tenant.lock().expect("nobody panics").take();
    assert_eq!(tenant.expect("the interceptor's"), "shop");
    let mut stream = health.watch(ask("")).await.expect("a stream").into_inner();
    assert_eq!(stream.message().await.expect("a message"), Some(serving()));

    let refuse = |_: tonic::Request<()>| Err(Status::unauthenticated("who are you?"));
    let mut health = HealthClient::with_interceptor(transport, refuse);
    let status = health.check(ask("")).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(pods[0].checks(), 1);
}

// ---------------------------------------------------------------- streams

#[tokio::test]
async fn a_stream_is_in_flight_until_it_ends() {
    let pods = pods::<2>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    let stream = within("a stream", health.watch(ask(""))).await;
    let mut stream = stream.expect("a stream").into_inner();
    let first = within("a message", stream.message()).await;
    assert_eq!(first.expect("a message"), Some(serving()));
    assert_eq!(in_flight(&client), [0, 1]);

    for pod in &pods {
        pod.streams.send_replace(true);
    }
    let end = within("the end", stream.message()).await;
    assert_eq!(end.expect("no error"), None);
    assert_eq!(in_flight(&client), [0, 0], "though it isn't dropped yet");
}

#[tokio::test]
async fn a_stream_is_in_flight_until_it_is_dropped() {
    let pods = pods::<2>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    let mut streams = Vec::new();
    for _ in 0..4 {
        let stream = within("a stream", health.watch(ask(""))).await;
        streams.push(stream.expect("a stream"));
    }
    assert_eq!(in_flight(&client), [2, 2]);
    streams.pop();
    assert_eq!(in_flight(&client), [1, 2]);
    drop(streams);
    assert_eq!(in_flight(&client), [0, 0]);
    // The pod learns of it, too: it has nothing left to do, so a graceful end is quick.
    drop(health);
    for mut pod in pods {
        pod.stop_gracefully().await;
    }
}

// ---------------------------------------------------------------- ends that come early

#[tokio::test]
async fn a_cancelled_call_is_no_longer_in_flight() {
    let pods = pods::<1>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    // The pod executes the call, but never answers.
    let deadline = Duration::from_millis(300);
    let late = tokio::time::timeout(deadline, health.check(ask(HANGS)));
    let (late, ()) = tokio::join!(late, async {
        within("the call", async {
            while pods[0].checks() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(in_flight(&client), [1]);
    });
    assert!(late.is_err(), "there is no answer");
    assert_eq!(in_flight(&client), [0]);
    // The connection is still usable.
    health.check(ask("")).await.expect("an answer");
}

#[tokio::test]
async fn tonic_s_own_deadline_is_kept() {
    let pods = pods::<1>().await;
    let client = client(&pods);
    let mut health = HealthClient::new(client.clone());
    let mut request = tonic::Request::new(ask(HANGS));
    request.set_timeout(Duration::from_millis(100));
    let status = within("a status", health.check(request)).await;
    let status = status.expect_err("it is too late");
    // Whether the pod or the client noticed first.
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(in_flight(&client), [0]);
}

#[tokio::test]
async fn no_call_is_lost_to_a_pod_that_stops_gracefully() {
    const CALLERS: usize = 16;
    const ENOUGH: usize = 300;
    let mut pods = pods::<3>().await;
    let client = client(&pods);
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut health, done) = (HealthClient::new(client.clone()), done.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while !done.load(Relaxed) {
                health.check(ask("")).await?;
                calls += 1;
            }
            Ok::<_, Status>(calls)
        });
    }
    let reach = async |pod: &Pod, checks| {
        within("calls", async {
            while pod.checks() < checks {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    reach(&pods[1], ENOUGH).await;
    pods[1].stop_gracefully().await;
    let stopped_at = pods[1].checks();
    let left = pods[2].checks();
    reach(&pods[2], left + ENOUGH).await;
    done.store(true, Relaxed);
    let calls: usize = within("the callers' end", callers.join_all())
        .await
        .into_iter()
        .map(|calls| calls.expect("0 failed"))
        .sum();
    assert_eq!(pods[1].checks(), stopped_at);
    let checks: usize = pods.iter().map(Pod::checks).sum();
    assert_eq!(checks, calls, "each was executed once");
    assert_eq!(in_flight(&client), [0, 0, 0]);
}

#[tokio::test]
async fn more_calls_than_pods_allow_at_once_are_all_answered() {
    let server = || Server::builder().max_concurrent_streams(2);
    let pods = [
        Pod::start_with(server()).await,
        Pod::start_with(server()).await,
    ];
    let health = HealthClient::new(client(&pods));
    let calls = (0..50).map(|_| {
        let mut health = health.clone();
        async move { health.check(ask("")).await }
    });
    let answers = within("all answers", futures::future::join_all(calls)).await;
    for answer in answers {
        answer.expect("an answer");
    }
}

/// A pod that refuses every call by `REFUSED_STREAM`, so none has been processed.
async fn start_refusing() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (_, mut respond) = request?;
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
                Ok::<_, h2::Error>(())
            });
        }
    });
    address
}

#[tokio::test]
async fn a_call_that_a_pod_refuses_unprocessed_goes_to_another_pod() {
    let pods = pods::<1>().await;
    let addresses = [pods[0].address, start_refusing().await];
    let client = Client::builder(SERVICE.parse().expect("a URI"))
        .discovery(StaticEndpoints::new(addresses))
        .protocol(Protocol::Http2)
        .build()
        .expect("a client");
    let mut health = HealthClient::new(client.clone());
    for _ in 0..10 {
        let answer = within("an answer", health.check(ask(""))).await;
        answer.expect("an answer");
    }
}
