//! A whole balancer in random interleavings: requests, discovery, the background task, and a clock that is moved on by hand.
//!
//! A request that is lost, or waits for an endpoint that is, never ends: the checker finds that all threads wait, or that
//! the clock moves on for ever.

mod closing;
mod order;
mod stories;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, channel::mpsc, future::BoxFuture};
use shuttle::{future::block_on, sync::Arc, thread};
use tokio::{runtime::Runtime, time::advance};
use tower::Service;

use super::*;
use crate::{
    BoxError, Endpoint, LeastConnections, OutlierDetection, Unsent,
    discovery::Discovery,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Answers as the source that it is of tells it to.
struct Told(mpsc::UnboundedReceiver<Vec<Endpoint>>);

impl Discovery for Told {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match Pin::new(&mut self.0).poll_next(cx) {
            Poll::Ready(Some(set)) => Poll::Ready(Ok(set)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A service that refuses some requests.
#[derive(Clone)]
struct Pod {
    /// When it is not ready, with an error.
    unready: Arc<Refusals>,
    /// Which requests it hands back.
    unsent: Arc<Refusals>,
}

/// Refuses the first if the lowest bit is set, the next by the next bit, and so on; all others are as the highest bit says.
struct Refusals {
    bits: u32,
    next: AtomicUsize,
}

impl Pod {
    fn new(unready: u32, unsent: u32) -> Self {
        let refusals = |bits| Refusals {
            bits,
            next: AtomicUsize::new(0),
        };
        Self {
            unready: Arc::new(refusals(unready)),
            unsent: Arc::new(refusals(unsent)),
        }
    }
}

impl Refusals {
    fn next(&self) -> bool {
        let next = self.next.fetch_add(1, Relaxed);
        self.bits >> next.min(31) & 1 != 0
    }
}

impl Service<u32> for Pod {
    type Response = u32;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.unready.next() {
            true => Poll::Ready(Err("not ready".into())),
            false => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let unsent = self.unsent.clone();
        Box::pin(async move {
            shuttle::future::yield_now().await;
            match unsent.next() {
                true => Err(Unsent::new(request, "later").into()),
                false => Ok(request),
            }
        })
    }
}

/// A runtime for its clock, which stands still until it is moved on.
fn clock() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn endpoint(host: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, host], 80).into())
}

/// Sets that discovery tells, one after the other.
fn sets(sets: &[&[u8]]) -> Vec<Vec<Endpoint>> {
    let set = |hosts: &&[u8]| hosts.iter().copied().map(endpoint).collect();
    sets.iter().map(set).collect()
}

/// What a story changes of the settings.
type Settings = fn(BalanceBuilder<Told>) -> BalanceBuilder<Told>;

/// Nobody looks at what requests come to.
const PLAIN: Settings = |builder| builder.outlier_detection(OutlierDetection::off());

/// The words count requests, and the endpoints' health is reviewed.
const PACKED: Settings = |builder| builder.policy(LeastConnections::new());

/// A balancer and its surroundings.
struct Scene {
    balance: Balance<Pod>,
    /// The background task, which is not started yet.
    driver: BoxFuture<'static, ()>,
    /// Tells the balancer the sets.
    source: mpsc::UnboundedSender<Vec<Endpoint>>,
}

/// To be called where there is no runtime, which would start the background task.
fn scene(pod: Pod, settings: Settings) -> Scene {
    let (source, told) = mpsc::unbounded();
    let builder = Balance::builder(Told(told)).wait_for_ready().seed(1);
    let balance = settings(builder).build(move |_: &Endpoint| pod.clone());
    let driver = balance.handle.starter.take().unwrap();
    Scene {
        balance,
        driver,
        source,
    }
}

/// What a client does with its clone of the balancer.
type Client = fn(Balance<Pod>);

/// Runs a balancer until all `clients` are content, and then one more, which finds whether an endpoint has been lost.
fn play(runtime: &Runtime, scene: Scene, sets: Vec<Vec<Endpoint>>, clients: &[Client]) {
    let _entered = runtime.enter();
    let (balance, driver, source) = (scene.balance, scene.driver, scene.source);
    let driver = thread::spawn(move || block_on(driver));
    let unfinished = Arc::new(AtomicUsize::new(clients.len()));
    let start = |client: Client| {
        let (balance, unfinished) = (balance.clone(), unfinished.clone());
        thread::spawn(move || {
            client(balance);
            unfinished.fetch_sub(1, Relaxed);
        })
    };
    let pass_time = || {
        while unfinished.load(Relaxed) > 0 {
            runtime.block_on(advance(Duration::from_secs(1)));
            thread::yield_now();
        }
    };
    let telling = unfinished.clone();
    let source = thread::spawn(move || {
        for set in sets {
            // The checker may put others in between.
            telling.load(Relaxed);
            source.unbounded_send(set).unwrap();
        }
        source
    });
    let threads: Vec<_> = clients.iter().map(|&client| start(client)).collect();
    pass_time();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let source = source.join().unwrap();
    unfinished.store(1, Relaxed);
    let late = start(call_until_answered);
    pass_time();
    late.join().unwrap();
    let shared = balance.shared.clone();
    drop(balance);
    driver.join().unwrap();
    drop(source);
    check_counts(&shared);
}

/// Nothing is in flight, and the trials on offer are counted.
fn check_counts(shared: &Shared<Pod>) {
    let snapshot = shared.current.load();
    for member in snapshot.members() {
        // What was given up after a long wait counts a little longer.
        let penalties = match member.counted() {
            0 => 0,
            _ => member.stats().penalties(),
        };
        assert_eq!((member.in_flight(), member.counted()), (0, penalties));
    }
    let offered = snapshot.members().iter().filter(|it| it.has_trial());
    assert_eq!(shared.signals.trials(), offered.count());
}

/// Sends requests until one is answered: the last set may not have been told yet.
fn call_until_answered(balance: Balance<Pod>) {
    while block_on(balance.call_with(7, Route::new())).is_err() {
        thread::yield_now();
    }
}

/// One request, which has to be answered.
fn call(balance: Balance<Pod>) {
    let answer = block_on(balance.call_with(7, Route::new()));
    assert_eq!(answer.unwrap(), 7);
}
