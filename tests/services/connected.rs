//! The balancer over connections of a custom protocol: which requests get one, which wait, and what closes them. Under
//! paused time, with scripted connections.

#[path = "connected/counts.rs"]
mod counts;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::join_all;
use tokio::{sync::watch, time::sleep};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, service_fn};
use tower_headless::{
    Balance, BoxError, Connected, Connections, Endpoint, EndpointState, Error, Hedge, RetryLayer,
    RetryPolicy, Route, StaticEndpoints, Unsent,
};

use crate::support::{
    lock,
    scripted::{discovery, endpoint, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// What a pod does with connections and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Answers,
    /// Connects, and answers once its mood changes.
    Holds,
    Refuses,
    /// Connecting never ends.
    Hangs,
    /// Connecting takes a tenth of a second.
    ConnectsLate,
    /// Connects, but the connection is never ready.
    NeverReady,
    /// Connects, but the connection is broken at once.
    BreaksAtOnce,
    /// Answers with an error.
    Fails,
    /// Finds its connection closed.
    HandsBack,
}

#[derive(Default)]
struct Pod {
    mood: watch::Sender<Mood>,
    /// How many connections have been made, and how many are open.
    made: AtomicUsize,
    open: AtomicUsize,
    /// The most that were open at the same time.
    most: AtomicUsize,
    /// Connections with a smaller number are broken.
    broken: AtomicUsize,
    /// Connections with a smaller number are never ready again.
    stuck: AtomicUsize,
    /// Two requests were on one connection at the same time.
    overlapped: AtomicBool,
}

#[derive(Clone, Default)]
struct Pods(Arc<Mutex<HashMap<u8, Arc<Pod>>>>);

impl Pods {
    fn pod(&self, host: u8) -> Arc<Pod> {
        let mut pods = lock(&self.0);
        pods.entry(host).or_default().clone()
    }

    fn set(&self, host: u8, mood: Mood) {
        self.pod(host).mood.send_replace(mood);
    }

    /// How many connections are open, and how many have ever been made.
    fn open_and_made(&self, host: u8) -> (usize, usize) {
        let pod = self.pod(host);
        (pod.open.load(SeqCst), pod.made.load(SeqCst))
    }

    fn break_all(&self, host: u8) {
        let pod = self.pod(host);
        pod.broken.store(pod.made.load(SeqCst), SeqCst);
    }

    fn connect(
        &self,
    ) -> impl Service<Endpoint, Response = Connection, Error = BoxError, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static {
        let pods = self.clone();
        service_fn(move |endpoint: Endpoint| {
            let pods = pods.clone();
            async move {
                let std::net::IpAddr::V4(ip) = endpoint.address().ip() else {
                    return Err("no pod of this test".into());
                };
                let host = ip.octets()[3];
                let pod = pods.pod(host);
                let mood = *pod.mood.borrow();
                match mood {
                    Mood::Refuses => return Err("connection refused".into()),
                    Mood::Hangs => std::future::pending().await,
                    Mood::ConnectsLate => sleep(SECOND / 10).await,
                    _ => {}
                }
                Ok::<_, BoxError>(Connection(Arc::new(Socket::open(pod, host))))
            }
        })
    }
}

struct Socket {
    pod: Arc<Pod>,
    host: u8,
    number: usize,
    is_used: AtomicBool,
}

impl Socket {
    fn open(pod: Arc<Pod>, host: u8) -> Self {
        let number = pod.made.fetch_add(1, SeqCst);
        let open = pod.open.fetch_add(1, SeqCst) + 1;
        pod.most.fetch_max(open, SeqCst);
        Self {
            pod,
            host,
            number,
            is_used: AtomicBool::new(false),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.pod.open.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone)]
struct Connection(Arc<Socket>);

impl Service<u8> for Connection {
    /// The pod that answers, and the number of the connection.
    type Response = (u8, usize);
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(u8, usize), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let pod = &self.0.pod;
        let mood = *pod.mood.borrow();
        if self.0.number < pod.broken.load(SeqCst) || mood == Mood::BreaksAtOnce {
            return Poll::Ready(Err("connection reset".into()));
        }
        match mood {
            _ if self.0.number < pod.stuck.load(SeqCst) => Poll::Pending,
            Mood::NeverReady => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: u8) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move {
            if socket.is_used.swap(true, SeqCst) {
                socket.pod.overlapped.store(true, SeqCst);
            }
            let mut mood = socket.pod.mood.subscribe();
            // The sender is in the pod.
            let mood = *mood.wait_for(|mood| *mood != Mood::Holds).await?;
            socket.is_used.store(false, SeqCst);
            match mood {
                Mood::Fails => Err("internal error".into()),
                Mood::HandsBack => Err(Unsent::new(request, "connection reset").into()),
                _ => Ok((socket.host, socket.number)),
            }
        })
    }
}

type Balanced = Balance<Connected<Connection>>;

fn over(pods: &Pods, hosts: &[u8], most: usize) -> Balanced {
    let addresses = hosts.iter().map(|&host| endpoint(host).address());
    Balance::builder(StaticEndpoints::new(addresses))
        .build_connected(Connections::pooled(most, pods.connect()))
}

fn send(balance: &Balanced) -> impl Future<Output = Result<(u8, usize), Error>> + use<> {
    let balance = balance.clone();
    async move { balance.call_with(7, Route::new()).await }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 8);
    for _ in 0..5 {
        assert_eq!(send(&balance).await.expect("a response"), (1, 0));
    }
    assert_eq!(pods.open_and_made(1), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cant_be_connected_to_costs_the_caller_nothing() {
    for mood in [
        Mood::Refuses,
        Mood::Hangs,
        Mood::NeverReady,
        Mood::BreaksAtOnce,
    ] {
        let pods = Pods::default();
        let balance = over(&pods, &[1, 2], 2);
        pods.set(1, mood);
        for _ in 0..6 {
            let (host, _) = send(&balance).await.expect("pod 2 answers");
            assert_eq!(host, 2, "{mood:?}");
        }
        assert_eq!(pods.open_and_made(1).0, 0, "{mood:?}");
        pods.set(1, Mood::Answers);
        sleep(20 * SECOND).await;
        let hosts = join_all((0..2).map(|_| send(&balance))).await;
        let found = hosts
            .into_iter()
            .any(|it| it.is_ok_and(|(host, _)| host == 1));
        assert!(found, "{mood:?}: it is back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_connection_in_time_is_not_said_to_refuse() {
    for (mood, says) in [
        (Mood::Refuses, "refuses requests"),
        (Mood::BreaksAtOnce, "refuses requests"),
        (Mood::Hangs, "doesn't answer in time"),
        (Mood::NeverReady, "doesn't answer in time"),
    ] {
        let pods = Pods::default();
        let balance = over(&pods, &[1, 2], 2);
        pods.set(1, mood);
        for _ in 0..2 {
            send(&balance).await.expect("pod 2 answers");
        }
        let why = &balance.explain().endpoints[0].why;
        assert!(why.starts_with(says), "{mood:?}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_while_idle_is_replaced_unseen() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 3);
    pods.set(1, Mood::Holds);
    let mut requests = [0; 3].map(|_| task::spawn(send(&balance)));
    settle().await;
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    pods.set(1, Mood::Answers);
    for mut request in requests {
        assert_ready_ok!(request.poll());
    }
    assert_eq!(pods.open_and_made(1), (3, 3));
    pods.break_all(1);
    assert_eq!(send(&balance).await.expect("a response"), (1, 3));
    assert_eq!(pods.open_and_made(1), (1, 4), "the broken ones are closed");
}

#[tokio::test(start_paused = true)]
async fn if_connections_broke_and_none_can_be_made_requests_go_elsewhere() {
    let pods = Pods::default();
    let balance = over(&pods, &[1, 2], 1);
    for _ in 0..2 {
        send(&balance).await.expect("a response");
    }
    pods.break_all(1);
    pods.set(1, Mood::Refuses);
    for _ in 0..4 {
        assert_eq!(send(&balance).await.expect("a response").0, 2);
    }
    assert_eq!(pods.open_and_made(1), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_connection_hands_back_goes_elsewhere() {
    let pods = Pods::default();
    let balance = over(&pods, &[1, 2], 1);
    pods.set(1, Mood::HandsBack);
    for _ in 0..4 {
        assert_eq!(send(&balance).await.expect("a response").0, 2);
    }
    assert_eq!(pods.open_and_made(1).0, 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_closes_the_connection_unless_it_is_harmless() {
    for is_harmless in [false, true] {
        let pods = Pods::default();
        let addresses = [endpoint(1).address()];
        let connections = Connections::pooled(1, pods.connect())
            .keep_after(move |error| is_harmless && error.to_string() == "internal error");
        let balance =
            Balance::builder(StaticEndpoints::new(addresses)).build_connected(connections);
        pods.set(1, Mood::Fails);
        let error = send(&balance).await.expect_err("the pod's");
        assert!(error.is_endpoint(), "{error}");
        assert_eq!(pods.open_and_made(1), (is_harmless.into(), 1));
        pods.set(1, Mood::Answers);
        let next = usize::from(!is_harmless);
        assert_eq!(send(&balance).await.expect("a response"), (1, next));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_closes_its_connection() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 1);
    pods.set(1, Mood::Holds);
    let mut request = task::spawn(send(&balance));
    settle().await;
    assert_pending!(request.poll());
    assert_eq!(pods.open_and_made(1), (1, 1));
    drop(request);
    assert_eq!(pods.open_and_made(1), (0, 1), "an exchange is half done");
    pods.set(1, Mood::Answers);
    assert_eq!(send(&balance).await.expect("a response"), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cancelled_while_it_connects_or_waits_frees_its_place() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 1);
    settle().await;
    pods.set(1, Mood::Hangs);
    let mut connects = task::spawn(send(&balance));
    let mut waits = [0; 2].map(|_| task::spawn(send(&balance)));
    assert_pending!(connects.poll());
    for request in &mut waits {
        assert_pending!(request.poll());
    }
    pods.set(1, Mood::Answers);
    drop(connects);
    let [first, mut second] = waits;
    assert!(first.is_woken(), "its turn");
    drop(first);
    assert!(second.is_woken(), "then the next one's");
    assert_eq!(assert_ready_ok!(second.poll()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_than_the_limit_are_open_and_requests_wait_in_line() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 3);
    settle().await;
    pods.set(1, Mood::Holds);
    let mut requests: Vec<_> = (0..10).map(|_| task::spawn(send(&balance))).collect();
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    assert_eq!(pods.open_and_made(1), (3, 3));
    pods.set(1, Mood::Answers);
    // The woken requests go on, one after another.
    let mut order = Vec::new();
    while order.len() < 10 {
        let woken = (0..10).find(|at| requests[*at].is_woken() && !order.contains(at));
        let at = woken.expect("somebody's turn");
        assert_ready_ok!(requests[at].poll());
        order.push(at);
    }
    assert_eq!(order, (0..10).collect::<Vec<_>>(), "as they came");
    let pod = pods.pod(1);
    assert_eq!((pod.most.load(SeqCst), pod.made.load(SeqCst)), (3, 3));
    assert!(!pod.overlapped.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_turns_out_to_be_broken_keeps_its_turn() {
    let pods = Pods::default();
    let balance = over(&pods, &[1], 1);
    settle().await;
    pods.set(1, Mood::Holds);
    let [mut busy, mut first, mut second] = [0; 3].map(|_| task::spawn(send(&balance)));
    assert_pending!(busy.poll());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    pods.break_all(1);
    pods.set(1, Mood::Answers);
    assert_ready_ok!(busy.poll());
    assert_eq!(assert_ready_ok!(first.poll()), (1, 1), "over a new one");
    assert_eq!(assert_ready_ok!(second.poll()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_too_long_goes_elsewhere() {
    let pods = Pods::default();
    let balance = over(&pods, &[1, 2], 1);
    settle().await;
    pods.set(1, Mood::Holds);
    pods.set(2, Mood::Holds);
    let mut busy = [0; 2].map(|_| task::spawn(send(&balance)));
    for request in &mut busy {
        assert_pending!(request.poll());
    }
    let mut waits = [0; 2].map(|_| task::spawn(send(&balance)));
    for request in &mut waits {
        assert_pending!(request.poll());
    }
    pods.set(2, Mood::Answers);
    let [first, second] = busy;
    let (mut on_1, mut on_2) = (first, second);
    if on_1.is_woken() {
        std::mem::swap(&mut on_1, &mut on_2);
    }
    assert_eq!(assert_ready_ok!(on_2.poll()).0, 2);
    let answers = join_all(waits).await;
    for answer in answers {
        assert_eq!(answer.expect("pod 2 answers").0, 2);
    }
    assert_eq!(pods.open_and_made(1), (1, 1), "what is under way goes on");
    pods.set(1, Mood::Answers);
    assert_eq!(assert_ready_ok!(on_1.poll()).0, 1);
}

#[tokio::test(start_paused = true)]
async fn the_error_says_that_all_connections_are_in_use() {
    let pods = Pods::default();
    let balance = Balance::builder(StaticEndpoints::new([endpoint(1).address()]))
        .fail_fast()
        .build_connected(Connections::pooled(1, pods.connect()).wait_timeout(SECOND / 10));
    settle().await;
    pods.set(1, Mood::Holds);
    let mut busy = task::spawn(send(&balance));
    assert_pending!(busy.poll());
    let error = send(&balance).await.expect_err("no connection");
    assert!(error.is_unsent() && error.is_unreachable(), "{error}");
    assert!(error.is_busy(), "{error}");
    let source = std::error::Error::source(&error).expect("the cause");
    let text = source.to_string();
    assert!(text.contains("100ms") && text.contains("all 1"), "{text}");
    let text = "the only endpoint, 10.0.0.1:80, is busy: no connection came free within 100ms: all 1 \
                are in use";
    assert!(error.to_string().ends_with(text), "{error}");
}

/// A balancer over these pods, with one connection to each, all in use.
async fn busy(
    pods: &Pods,
    hosts: &[u8],
    wait: Duration,
) -> (
    Balanced,
    Vec<task::Spawn<impl Future<Output = Result<(u8, usize), Error>> + use<>>>,
) {
    let addresses = hosts.iter().map(|&host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(addresses))
        .ready_timeout(3 * SECOND)
        .build_connected(Connections::pooled(1, pods.connect()).wait_timeout(wait));
    settle().await;
    let hold = |&host: &u8| {
        pods.set(host, Mood::Holds);
        let mut request = task::spawn(prefer(&balance, host));
        assert_pending!(request.poll());
        request
    };
    let requests = hosts.iter().map(hold).collect();
    (balance, requests)
}

fn prefer(
    balance: &Balanced,
    host: u8,
) -> impl Future<Output = Result<(u8, usize), Error>> + use<> {
    let balance = balance.clone();
    let route = Route::new().prefer(endpoint(host).address());
    async move { balance.call_with(7, route).await }
}

/// Two pods: the first one's connection is in use, and the other one has none yet and connects late.
async fn busy_beside_connecting(
    wait: Duration,
    ready_timeout: Option<Duration>,
) -> (
    Pods,
    Balanced,
    task::Spawn<impl Future<Output = Result<(u8, usize), Error>>>,
) {
    let pods = Pods::default();
    let addresses = [1, 2].map(|host| endpoint(host).address());
    let builder = Balance::builder(StaticEndpoints::new(addresses)).counters(true);
    let builder = match ready_timeout {
        Some(timeout) => builder.ready_timeout(timeout),
        None => builder.fail_fast(),
    };
    let connections = Connections::pooled(1, pods.connect()).wait_timeout(wait);
    let balance = builder.build_connected(connections);
    settle().await;
    pods.set(1, Mood::Holds);
    let mut held = task::spawn(prefer(&balance, 1));
    assert_pending!(held.poll());
    pods.set(2, Mood::ConnectsLate);
    (pods, balance, held)
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_another_pod_to_connect_even_after_its_time_for_room() {
    for (wait, ready_timeout) in [
        (SECOND, None),
        (Duration::ZERO, None),
        (5 * SECOND, Some(5 * SECOND)),
        (SECOND, Some(SECOND + SECOND / 20)),
    ] {
        let (_pods, balance, _held) = busy_beside_connecting(wait, ready_timeout).await;
        let answer = prefer(&balance, 1).await;
        assert_eq!(answer.expect("pod 2 has room"), (2, 0), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_its_time_a_request_waits_at_only_one_more_pod() {
    let pods = Pods::default();
    let addresses = (1..=5).map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(addresses))
        .fail_fast()
        .counters(true)
        .build_connected(Connections::pooled(1, pods.connect()));
    settle().await;
    let mut held = Vec::new();
    for host in 1..=5 {
        pods.set(host, Mood::Holds);
        let mut request = task::spawn(prefer(&balance, host));
        assert_pending!(request.poll());
        held.push(request);
    }
    let error = send(&balance).await.expect_err("no connection");
    assert!(error.is_busy(), "{error}");
    let counts = balance.counts().expect("counted").endpoints;
    assert_eq!(counts.busy, 3, "it waited at two, and looked at one");
    assert_eq!(counts.requests, 5 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_no_room_counts_as_busy_not_cancelled() {
    for (wait, route) in [
        (SECOND, Route::new()),
        (Duration::ZERO, Route::new()),
        (SECOND, Route::new().pod(endpoint(1).address())),
    ] {
        let pods = Pods::default();
        let addresses = [1, 2].map(|host| endpoint(host).address());
        let balance = Balance::builder(StaticEndpoints::new(addresses))
            .ready_timeout(3 * SECOND)
            .counters(true)
            .build_connected(Connections::pooled(1, pods.connect()).wait_timeout(wait));
        settle().await;
        let held = [1, 2].map(|host| {
            pods.set(host, Mood::Holds);
            let mut request = task::spawn(prefer(&balance, host));
            assert_pending!(request.poll());
            request
        });
        let failed = balance.call_with(7, route.clone()).await;
        assert!(failed.is_err_and(|error| error.is_busy()));
        let counts = balance.counts().expect("counted");
        assert_eq!(counts.unplaced, 1, "{wait:?} {route:?}");
        let pods = counts.endpoints;
        assert_eq!(pods.cancelled, 0, "{wait:?} {route:?}");
        assert!(pods.busy > 0);
        assert_eq!(pods.requests - pods.busy, 2, "those that are held");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_leaves_a_busy_pod_counts_as_busy_there() {
    let (_pods, balance, held) = busy_beside_connecting(SECOND, Some(3 * SECOND)).await;
    prefer(&balance, 1).await.expect("pod 2 has room");
    let counts = balance.counts().expect("counted");
    let pods = counts.endpoints;
    assert_eq!((pods.busy, pods.cancelled, pods.successes), (1, 0, 1));
    assert_eq!(counts.unplaced, 0);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_a_pod_busy_is_no_trial_of_a_refusing_one() {
    let pods = Pods::default();
    let addresses = [1, 2].map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(addresses))
        .counters(true)
        .build_connected(Connections::pooled(1, pods.connect()));
    settle().await;
    pods.set(2, Mood::HandsBack);
    let answer = prefer(&balance, 2).await;
    assert_eq!(answer.expect("the other one answers").0, 1);
    sleep(SECOND * 2 / 5).await;
    pods.set(1, Mood::Holds);
    let mut held = task::spawn(prefer(&balance, 1));
    assert_pending!(held.poll());
    let mut waits = [0; 2].map(|_| task::spawn(prefer(&balance, 1)));
    for request in &mut waits {
        assert_pending!(request.poll());
    }
    let trials = || balance.counts().expect("counted").endpoints.trials;
    let before = trials();
    for _ in 0..25 {
        sleep(SECOND / 10).await;
        for request in &mut waits {
            assert_pending!(request.poll());
        }
    }
    assert_eq!(trials(), before);
    pods.set(1, Mood::Answers);
    assert_ready_ok!(held.poll());
    for request in &mut waits {
        assert_eq!(assert_ready_ok!(request.poll()).0, 1, "in its turn");
    }
    pods.set(2, Mood::Answers);
    assert_eq!(send(&balance).await.expect("an answer").0, 2);
    assert_eq!(trials(), before + 1, "it was on offer");
}

/// Any request may be sent twice.
#[derive(Clone)]
struct Reads;

impl<Res> RetryPolicy<u8, Res> for Reads {
    fn again(&self, request: &u8) -> Option<u8> {
        Some(*request)
    }

    fn retry(&self, _: Result<&Res, &Error>) -> bool {
        false
    }

    fn may_hedge(&self, _: &u8) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_in_a_line_keeps_away_from_the_pod_that_has_its_hedge() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source).build_connected(Connections::pooled(2, pods.connect()));
    script.answer([1]);
    settle().await;
    pods.set(1, Mood::Holds);
    let mut held = [0; 2].map(|_| task::spawn(send(&balance)));
    for request in &mut held {
        assert_pending!(request.poll());
    }
    let hedge = Hedge::after(SECOND * 3 / 2);
    let service = RetryLayer::new(Reads).hedge(hedge).layer(balance.clone());
    let request = tokio::spawn(service.call_with(7, Route::new()));
    // It has looked for another pod, and there is none.
    sleep(SECOND * 5 / 4).await;
    pods.set(2, Mood::Holds);
    script.answer([1, 2]);
    sleep(SECOND / 2).await;
    assert_eq!(pods.open_and_made(2), (1, 1), "the hedge");
    sleep(2 * SECOND).await;
    assert_eq!(pods.open_and_made(2), (1, 1), "and nothing else");
    pods.set(1, Mood::Answers);
    for request in &mut held {
        assert_ready_ok!(request.poll());
    }
    let answer = request.await.expect("no panic");
    assert_eq!(answer.expect("an answer").0, 1, "after the others");
}

fn all_are_available(balance: &Balanced) -> bool {
    let all = balance.endpoints();
    all.iter().all(|it| it.state == EndpointState::Available)
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_busy_for_long_gets_requests_as_before() {
    let pods = Pods::default();
    let (balance, mut held) = busy(&pods, &[1, 2], SECOND).await;
    pods.set(2, Mood::Answers);
    assert_ready_ok!(held[1].poll());
    assert_eq!(prefer(&balance, 1).await.expect("an answer").0, 2);
    assert!(all_are_available(&balance));
    pods.set(1, Mood::Answers);
    assert_ready_ok!(held[0].poll());
    assert_eq!(prefer(&balance, 1).await.expect("an answer"), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn if_all_are_busy_requests_wait_for_the_ready_timeout_and_the_error_says_so() {
    for wait in [Duration::ZERO, SECOND / 3, SECOND, 10 * SECOND] {
        let pods = Pods::default();
        let (balance, mut held) = busy(&pods, &[1, 2], wait).await;
        let mut fails = task::spawn(send(&balance));
        assert_pending!(fails.poll());
        sleep(2 * SECOND).await;
        assert!(!fails.is_woken() || fails.poll().is_pending());
        let waits = tokio::spawn(send(&balance));
        if wait <= SECOND {
            let error = fails.await.expect_err("no connection");
            assert!(
                error.is_busy() && error.is_unreachable() && error.is_unsent(),
                "{error}"
            );
            let text = "no endpoint of 2 has room for it; pod 10.0.0.";
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(all_are_available(&balance), "{wait:?}");
        pods.set(1, Mood::Answers);
        pods.set(2, Mood::Answers);
        for request in &mut held {
            assert_ready_ok!(request.poll());
        }
        waits.await.expect("no panic").expect("there is room now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_waits_asks_each_pod_at_once() {
    let pods = Pods::default();
    let (balance, mut held) = busy(&pods, &[1, 2, 3], Duration::ZERO).await;
    pods.set(3, Mood::Answers);
    assert_ready_ok!(held[2].poll());
    for host in [1, 2] {
        let mut request = task::spawn(prefer(&balance, host));
        assert_eq!(assert_ready_ok!(request.poll()).0, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_its_place_in_the_line_of_the_only_pod() {
    let pods = Pods::default();
    let (balance, mut held) = busy(&pods, &[1], SECOND).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let mut request = task::spawn(send(&balance));
        assert_pending!(request.poll());
        waits.push(request);
        sleep(SECOND * 2 / 5).await;
        for request in &mut waits {
            assert_pending!(request.poll());
        }
    }
    pods.set(1, Mood::Answers);
    assert_ready_ok!(held[0].poll());
    for request in &mut waits {
        assert_ready_ok!(request.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_pod_that_is_asked_for_may_be_busy() {
    let pods = Pods::default();
    let (balance, _held) = busy(&pods, &[1, 2], SECOND).await;
    let address = endpoint(1).address();
    let asked = balance.call_with(7, Route::new().pod(address));
    let error = asked.await.expect_err("no connection");
    assert!(
        error.is_busy() && error.is_unreachable() && !error.is_absent(),
        "{error}"
    );
    assert_eq!(error.endpoint(), Some(&endpoint(1)));
    assert!(
        error
            .to_string()
            .contains("is busy at 10.0.0.1:80: no connection came free"),
        "{error}"
    );
    assert!(all_are_available(&balance));
}

#[tokio::test(start_paused = true)]
async fn stuck_idle_connections_are_replaced_and_do_not_count_as_in_use() {
    let pods = Pods::default();
    let balance = Balance::builder(StaticEndpoints::new([endpoint(1).address()]))
        .fail_fast()
        .build_connected(Connections::pooled(8, pods.connect()));
    settle().await;
    pods.set(1, Mood::Holds);
    let mut busy = [0; 2].map(|_| task::spawn(send(&balance)));
    for request in &mut busy {
        assert_pending!(request.poll());
    }
    pods.set(1, Mood::Answers);
    for request in &mut busy {
        assert_ready_ok!(request.poll());
    }
    pods.pod(1).stuck.store(2, SeqCst);
    let answer = send(&balance).await.expect("over a new connection");
    assert_eq!(answer, (1, 2));
    assert_eq!(pods.open_and_made(1), (2, 3), "the stuck one is closed");
    pods.pod(1).stuck.store(3, SeqCst);
    pods.set(1, Mood::Hangs);
    let error = send(&balance).await.expect_err("no connection");
    let source = std::error::Error::source(&error).expect("the refusal");
    assert_eq!(source.to_string(), "no connection within 1s");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_has_its_connections_closed() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source).build_connected(Connections::pooled(2, pods.connect()));
    script.answer([1]);
    settle().await;
    pods.set(1, Mood::Holds);
    let [mut first, mut second] = [0; 2].map(|_| task::spawn(send(&balance)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    pods.set(1, Mood::Answers);
    assert_ready_ok!(first.poll());
    assert_eq!(pods.open_and_made(1), (2, 2));
    script.answer([2]);
    settle().await;
    assert_eq!(pods.open_and_made(1), (1, 2), "the idle one is closed");
    assert_eq!(assert_ready_ok!(second.poll()).0, 1);
    assert_eq!(pods.open_and_made(1), (0, 2), "the used one, at its end");
    assert_eq!(send(&balance).await.expect("a response").0, 2);
    assert_eq!(pods.open_and_made(2), (1, 1));
    drop((first, second, balance));
    settle().await;
    assert_eq!(pods.open_and_made(2), (0, 1), "with the balancer");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_connection_of_a_pod_that_leaves_goes_elsewhere() {
    for mood in [Mood::Holds, Mood::Hangs] {
        let (script, source) = discovery();
        let pods = Pods::default();
        let balance =
            Balance::builder(source).build_connected(Connections::pooled(1, pods.connect()));
        script.answer([1]);
        settle().await;
        pods.set(1, mood);
        let mut busy = task::spawn(send(&balance));
        assert_pending!(busy.poll());
        let mut waits = task::spawn(send(&balance));
        assert_pending!(waits.poll());
        script.answer([2]);
        settle().await;
        assert_eq!(assert_ready_ok!(waits.poll()).0, 2, "{mood:?}");
    }
}

fn multiplexed(pods: &Pods) -> Balanced {
    Balance::builder(StaticEndpoints::new([endpoint(1).address()]))
        .build_connected(Connections::multiplexed(pods.connect()))
}

#[tokio::test(start_paused = true)]
async fn multiplexed_requests_share_one_connection() {
    let pods = Pods::default();
    let balance = multiplexed(&pods);
    settle().await;
    pods.set(1, Mood::Holds);
    let mut requests: Vec<_> = (0..10).map(|_| task::spawn(send(&balance))).collect();
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    let pod = pods.pod(1);
    assert!(pod.overlapped.load(SeqCst));
    // A cancelled request doesn't harm the others.
    requests.pop();
    assert_eq!(pods.open_and_made(1), (1, 1));
    pods.break_all(1);
    assert_pending!(task::spawn(send(&balance)).poll());
    assert_eq!(
        pods.open_and_made(1),
        (2, 2),
        "a new one, and the one in use"
    );
    pods.set(1, Mood::Answers);
    for mut request in requests {
        assert_eq!(assert_ready_ok!(request.poll()), (1, 0));
    }
    assert_eq!(pods.open_and_made(1), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_multiplexed_connection_is_replaced_after_an_error() {
    let pods = Pods::default();
    let balance = multiplexed(&pods);
    pods.set(1, Mood::Fails);
    send(&balance).await.expect_err("the pod's");
    pods.set(1, Mood::Answers);
    assert_eq!(send(&balance).await.expect("a response"), (1, 1));
    assert_eq!(pods.open_and_made(1), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_make_only_one_multiplexed_connection() {
    let pods = Pods::default();
    let balance = multiplexed(&pods);
    pods.set(1, Mood::ConnectsLate);
    let answers = join_all((0..100).map(|_| send(&balance))).await;
    for answer in answers {
        assert_eq!(answer.expect("a response"), (1, 0));
    }
    assert_eq!(pods.open_and_made(1), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shared_connection_that_is_slow_to_make_is_waited_for_as_long_as_it_may_take() {
    let pods = Pods::default();
    pods.set(1, Mood::ConnectsLate);
    let connections = Connections::multiplexed(pods.connect()).wait_timeout(SECOND / 20);
    let discovery = StaticEndpoints::new([endpoint(1).address()]);
    let balance = Balance::builder(discovery).fail_fast();
    let balance = balance.build_connected(connections);
    balance.discovered().await.expect("the pod");
    for answer in join_all([0; 3].map(|_| send(&balance))).await {
        assert_eq!(answer.expect("no refusal"), (1, 0));
    }
}

/// Each runtime has its own connections, because those of another one may not be driven.
#[test]
fn a_connection_is_not_used_in_another_runtime() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let pods = Pods::default();
    let (first, second) = (runtime(), runtime());
    let pooled = first.block_on(async { over(&pods, &[1], 1) });
    let shared = first.block_on(async { multiplexed(&pods) });
    for (balance, numbers) in [(&pooled, [0, 1, 2]), (&shared, [3, 4, 3])] {
        let turns = [&first, &second, &first];
        let used = turns.map(|runtime| runtime.block_on(send(balance)).expect("a response").1);
        assert_eq!(used, numbers);
    }
    assert_eq!(
        pods.open_and_made(1),
        (3, 5),
        "one of a pool, and one shared in each"
    );
}

#[test]
fn another_runtime_keeps_its_idle_connection_while_there_is_room() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let pods = Pods::default();
    let runtimes = [0; 3].map(|_| runtime());
    let balance = runtimes[0].block_on(async { over(&pods, &[1], 2) });
    let [first, second, third] = &runtimes;
    let turns = [first, second, first, second, third, second];
    let used = turns.map(|runtime| runtime.block_on(send(&balance)).expect("a response").1);
    assert_eq!(used, [0, 1, 0, 1, 2, 1], "the oldest makes room");
    let pod = pods.pod(1);
    assert_eq!((pod.open.load(SeqCst), pod.most.load(SeqCst)), (2, 2));
}

#[test]
fn connected_services_are_clone_send_and_sync() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Balanced>();
    check::<Connections<Connection>>();
}
