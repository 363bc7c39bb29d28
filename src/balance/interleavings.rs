//! A whole balancer in random interleavings: requests, discovery, the background task, and a clock that is advanced by
//! hand.
//!
//! If a request is lost, or waits for a lost endpoint, it never ends: the checker finds that all threads wait, or that
//! the clock advances for ever.

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

/// A source whose answers a test sends.
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
    /// Which polls of `poll_ready` fail.
    unready: Arc<Refusals>,
    /// Which requests it hands back.
    unsent: Arc<Refusals>,
}

/// Which requests to refuse, from the lowest bit on: the first if bit 0 is set, and so on. The highest bit is for all
/// after that.
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

/// A runtime for its clock, which stands still until it is advanced.
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

/// The sets that discovery answers with, one after the other.
fn sets(sets: &[&[u8]]) -> Vec<Vec<Endpoint>> {
    let set = |hosts: &&[u8]| hosts.iter().copied().map(endpoint).collect();
    sets.iter().map(set).collect()
}

/// What a test changes in the settings.
type Settings = fn(BalanceBuilder<Told>) -> BalanceBuilder<Told>;

/// Without outlier detection.
const PLAIN: Settings = |builder| builder.outlier_detection(OutlierDetection::off());

/// The status words count requests, and the endpoints' health is reviewed.
const PACKED: Settings = |builder| builder.policy(LeastConnections::new());

/// A balancer and its surroundings.
struct Scene {
    balance: Balance<Pod>,
    /// The background task, which is not started yet.
    driver: BoxFuture<'static, ()>,
    /// Sends the sets to the balancer.
    source: mpsc::UnboundedSender<Vec<Endpoint>>,
}

/// Call it outside of a runtime, which would start the background task.
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

/// Runs a balancer until all `clients` are done, and then one more, which shows whether an endpoint has been lost.
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
            // Lets the checker switch to another thread.
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
        // A request that was given up after a long wait leaves a failure penalty.
        let penalties = match member.counted() {
            0 => 0,
            _ => member.stats().penalties(),
        };
        assert_eq!((member.in_flight(), member.counted()), (0, penalties));
    }
    let offered = snapshot.members().iter().filter(|it| it.has_trial());
    assert_eq!(shared.signals.trials(), offered.count());
}

/// Sends requests until one is answered: the last set may not have arrived yet.
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
