//! What a pod's service may rely on, by the docs of `BalanceBuilder::build`.

use std::{
    error::Error as _,
    fmt,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::sleep;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BoxError, Endpoint, EndpointState, EndpointStatus, Error, RoundRobin, StaticEndpoints,
    Unsent,
};

use crate::support::scripted::{
    Behaviour, PodService, Pods, Request, World, discovery, endpoint, settle,
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn send(balance: &Balance<PodService>) -> Result<Endpoint, Error> {
    let answer = balance.clone().oneshot(Request(7)).await;
    answer.map(|(endpoint, _)| endpoint)
}

#[tokio::test(start_paused = true)]
async fn a_requests_clone_is_gone_once_it_has_been_called() {
    let world = World::of(vec![endpoint(1)], |builder| builder).await;
    let kept = world.pods.alive(1);
    world.pods.set([1], Behaviour::Hold);
    let mut requests = [0; 3].map(|_| task::spawn(send(&world.balance)));
    for request in &mut requests {
        assert_pending!(request.poll());
    }
    assert_eq!(world.pods.counts(1).calls, 3);
    assert_eq!(world.pods.alive(1), kept, "the balancer's own");
    world.pods.set([1], Behaviour::Answer);
    for mut request in requests {
        assert_ready!(request.poll()).expect("a response");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_as_long_as_its_pod_takes_to_become_ready() {
    let pods = vec![endpoint(1), endpoint(2)];
    let world = World::of(pods, |builder| builder.policy(RoundRobin::new())).await;
    world.pods.set([1, 2], Behaviour::Pending);
    let kept = world.pods.alive(1);
    let mut request = task::spawn(send(&world.balance));
    assert_pending!(request.poll());
    let is_first = world.pods.alive(1) > kept;
    let (chosen, other) = if is_first { (1, 2) } else { (2, 1) };
    world.pods.set([other], Behaviour::Answer);
    sleep(HOUR).await;
    assert_pending!(request.poll());
    let all = world.balance.endpoints();
    let is_available = |it: &EndpointStatus| it.state == EndpointState::Available;
    assert!(all.iter().all(is_available), "busy, as far as is known");
    world.pods.set([chosen], Behaviour::Answer);
    let answered = assert_ready!(request.poll()).expect("a response");
    assert_eq!(answered, endpoint(chosen), "it went nowhere else");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_pod_that_leaves_goes_elsewhere() {
    let world = World::of(vec![endpoint(1)], |builder| builder).await;
    world.pods.set([1], Behaviour::Pending);
    let mut request = task::spawn(send(&world.balance));
    assert_pending!(request.poll());
    world.set(vec![endpoint(2)]).await;
    assert_eq!(request.await.expect("a response"), endpoint(2));
    assert_eq!(world.pods.alive(1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_requests_clone_goes_with_it() {
    let world = World::of(vec![endpoint(1)], |builder| builder).await;
    world.pods.set([1], Behaviour::Pending);
    let kept = world.pods.alive(1);
    let mut request = task::spawn(send(&world.balance));
    assert_pending!(request.poll());
    assert_eq!(world.pods.alive(1), kept + 1);
    drop(request);
    assert_eq!(world.pods.alive(1), kept);
    assert_eq!(world.balance.endpoints()[0].in_flight, 0);
}

/// What the clones of a [`Watched`] share.
#[derive(Default)]
struct Seen {
    refuses: AtomicBool,
    hangs: AtomicBool,
    waker: Mutex<Option<Waker>>,
    clones: AtomicUsize,
    /// Clones that have become ready and were dropped without a call.
    unused: AtomicUsize,
    calls: AtomicUsize,
}

/// A service that records how it is used.
struct Watched {
    seen: Arc<Seen>,
    is_ready: bool,
}

impl Watched {
    fn of(seen: &Arc<Seen>) -> Self {
        Self {
            seen: seen.clone(),
            is_ready: false,
        }
    }
}

/// Readiness isn't copied, as tower requires.
impl Clone for Watched {
    fn clone(&self) -> Self {
        self.seen.clones.fetch_add(1, SeqCst);
        Self::of(&self.seen)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.seen.unused.fetch_add(self.is_ready.into(), SeqCst);
    }
}

impl Service<()> for Watched {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.seen.refuses.load(SeqCst) {
            return Poll::Ready(Err("connection refused".into()));
        }
        if self.seen.hangs.load(SeqCst) {
            let mut waker = self.seen.waker.lock().expect("nobody panics");
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called unready");
        self.seen.calls.fetch_add(1, SeqCst);
        ready(Ok(()))
    }
}

fn watched() -> (Arc<Seen>, Balance<Watched>) {
    let seen = Arc::<Seen>::default();
    let service = seen.clone();
    let pods = StaticEndpoints::new([endpoint(1).address()]);
    let balance = Balance::builder(pods).build(move |_: &Endpoint| Watched::of(&service));
    (seen, balance)
}

/// So a connection that `poll_ready` makes has to be kept where all clones find it.
#[tokio::test(start_paused = true)]
async fn an_attempt_polls_a_clone_and_drops_it_without_a_call() {
    let (seen, balance) = watched();
    seen.refuses.store(true, SeqCst);
    let mut request = task::spawn(balance.clone().oneshot(()));
    assert_pending!(request.poll());
    settle().await;
    assert_pending!(request.poll());
    assert_eq!(balance.endpoints()[0].state, EndpointState::Unreachable);
    seen.refuses.store(false, SeqCst);
    let clones = seen.clones.load(SeqCst);
    request.await.expect("it accepts again");
    assert_eq!(seen.unused.load(SeqCst), 1, "the attempt's");
    assert_eq!(seen.calls.load(SeqCst), 1);
    let more = seen.clones.load(SeqCst) - clones;
    assert_eq!(more, 2, "the attempt's and the request's");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_and_others_follow() {
    let (seen, balance) = watched();
    seen.refuses.store(true, SeqCst);
    balance.clone().oneshot(()).await.expect_err("it refuses");
    seen.refuses.store(false, SeqCst);
    seen.hangs.store(true, SeqCst);
    sleep(Duration::from_secs(6)).await;
    let clones = seen.clones.load(SeqCst);
    sleep(HOUR).await;
    assert!(seen.clones.load(SeqCst) > clones, "tried again");
    assert_eq!(balance.endpoints()[0].state, EndpointState::Unreachable);
}

/// The first poll comes from `call` itself, with a waker that wakes nobody.
#[tokio::test(start_paused = true)]
async fn readiness_wakes_the_task_that_awaits_the_response() {
    let (seen, mut balance) = watched();
    balance.ready().await.expect("ready");
    seen.hangs.store(true, SeqCst);
    let request = balance.call(());
    let first = seen.waker.lock().expect("nobody panics").take();
    assert!(first.is_some(), "polled by `call`");
    let mut request = task::spawn(request);
    assert_pending!(request.poll());
    seen.hangs.store(false, SeqCst);
    let waker = seen.waker.lock().expect("nobody panics").take();
    waker.expect("polled again").wake();
    assert!(request.is_woken());
    assert_ready!(request.poll()).expect("a response");
}

/// Hands the first request back, in an error that the test chooses.
struct HandsBack<E> {
    calls: Arc<AtomicUsize>,
    error: fn(Unsent<u8>) -> E,
}

impl<E> Clone for HandsBack<E> {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            error: self.error,
        }
    }
}

impl<E> Service<u8> for HandsBack<E> {
    type Response = u8;
    type Error = E;
    type Future = Ready<Result<u8, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u8) -> Self::Future {
        let is_first = self.calls.fetch_add(1, Relaxed) == 0;
        ready(match is_first {
            true => Err((self.error)(Unsent::new(request, "connection closed"))),
            false => Ok(request),
        })
    }
}

#[derive(Debug)]
struct Wrapped(Unsent<u8>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error around it")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The result of a request that the first pod hands back, and how many pods have had it.
async fn handing_back<E>(error: fn(Unsent<u8>) -> E) -> (Result<u8, Error>, usize)
where
    E: Into<BoxError> + Send + 'static,
{
    let calls = Arc::<AtomicUsize>::default();
    let service = HandsBack {
        calls: calls.clone(),
        error,
    };
    let pods = [1, 2].map(|host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(pods));
    let balance = balance.build(move |_: &Endpoint| service.clone());
    (balance.oneshot(9).await, calls.load(Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_request_is_taken_back_alone_or_boxed_but_not_out_of_another_error() {
    let (answer, calls) = handing_back(|unsent| unsent).await;
    assert_eq!((answer.expect("elsewhere"), calls), (9, 2));
    let (answer, calls) = handing_back(BoxError::from).await;
    assert_eq!((answer.expect("elsewhere"), calls), (9, 2));
    let (answer, calls) = handing_back(Wrapped).await;
    let error = answer.expect_err("the caller's");
    assert!(error.is_endpoint() && calls == 1, "{error}");
    let source = error.source().expect("the service's own");
    assert!(source.is::<Wrapped>());
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_of_the_closure_the_set_stays_until_the_next_answer() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut make = pods.make();
    let balance = Balance::builder(source).build(move |pod: &Endpoint| {
        assert_ne!(*pod, endpoint(2), "a bug in the closure");
        make(pod)
    });
    script.answer([1]);
    send(&balance).await.expect("a response");
    script.answer([2, 3]);
    settle().await;
    assert_eq!(send(&balance).await.expect("a response"), endpoint(1));
    script.answer([3]);
    settle().await;
    assert_eq!(send(&balance).await.expect("a response"), endpoint(3));
}
