//! Times work: on this thread, on two threads, and through a tokio runtime.

use std::{
    future::poll_fn,
    hint,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    thread,
    time::Instant,
};

use tokio::runtime::Runtime;
use tower::Service;

#[allow(
    clippy::disallowed_methods,
    reason = "no time is paused here, and the clock on the wall is what counts"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The nanoseconds of one run, averaged over `times`.
pub(crate) fn clock(times: u64, work: impl FnOnce()) -> f64 {
    let start = now();
    work();
    start.elapsed().as_nanos() as f64 / times as f64
}

/// Calls the service once, to the end of the response. Nothing in it may have to wait.
pub(crate) fn request(service: &mut impl Service<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "not ready at once");
    let response = pin!(service.call(())).poll(&mut cx);
    assert!(matches!(response, Poll::Ready(Ok(_))), "no response");
}

/// Calls a service once that may have to be polled twice.
pub(crate) fn patient_request(service: &mut impl Service<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "not ready at once");
    let mut response = pin!(service.call(()));
    let first = response.as_mut().poll(&mut cx);
    if first.is_pending() {
        let response = response.poll(&mut cx);
        assert!(matches!(response, Poll::Ready(Ok(_))), "no response");
    }
}

/// Sends a thread's requests, one after the other.
pub(crate) fn requests(mut service: impl Service<()>) -> impl FnMut(u64) -> f64 {
    move |times| clock(times, || (0..times).for_each(|_| request(&mut service)))
}

/// Sends a thread's requests, each with its own clone of the service.
pub(crate) fn cloned_requests<S: Service<()> + Clone>(service: S) -> impl FnMut(u64) -> f64 {
    move |times| {
        clock(times, || {
            (0..times).for_each(|_| request(&mut service.clone()))
        })
    }
}

/// Sends requests on two threads at once, each with its own clone of the service. Returns what one costs on either
/// thread.
pub(crate) fn requests_on_two_threads<S>(service: S) -> impl FnMut(u64) -> f64
where
    S: Service<()> + Clone + Send + Sync,
{
    move |times| {
        // If the threads share a core, they take turns and don't contend: such a run is discarded.
        let mut pairs = (0..ATTEMPTS).map(|_| Pair::run(&service, times));
        let found = pairs.find(Pair::met);
        found.unwrap_or_else(|| Pair::run(&service, times)).cost()
    }
}

/// How many runs on two threads may be discarded.
const ATTEMPTS: usize = 5;

/// How many requests to send before checking whether the other thread is done.
const CHUNK: u64 = 32;

/// The result of two threads: how many requests each made, in how many nanoseconds.
struct Pair([(u64, f64); 2]);

impl Pair {
    fn run<S: Service<()> + Clone + Send>(service: &S, times: u64) -> Self {
        let (arrived, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let one = |mut service: S| {
            // Thread-local state is set up before the clock starts.
            (0..CHUNK).for_each(|_| request(&mut service));
            meet(&arrived);
            run_until(&mut service, times, &done)
        };
        thread::scope(|scope| {
            let service_there = service.clone();
            let there = scope.spawn(|| one(service_there));
            let here = one(service.clone());
            Self([here, there.join().expect("requests don't panic")])
        })
    }

    /// Whether they ran at the same time for the most part.
    fn met(&self) -> bool {
        let [(here, _), (there, _)] = self.0;
        here.min(there) * 4 >= here.max(there) * 3
    }

    fn cost(&self) -> f64 {
        let [(here, spent_here), (there, spent_there)] = self.0;
        (spent_here + spent_there) / (here + there) as f64
    }
}

/// Spins until both threads are here, because a sleeping one would start late.
fn meet(arrived: &AtomicUsize) {
    arrived.fetch_add(1, Relaxed);
    while arrived.load(Relaxed) < 2 {
        hint::spin_loop();
    }
}

/// Sends up to `times` requests, but none after the other thread has finished: they would run without contention.
fn run_until(service: &mut impl Service<()>, times: u64, done: &AtomicBool) -> (u64, f64) {
    let mut made = 0;
    let start = now();
    while made == 0 || (made < times && !done.load(Relaxed)) {
        (0..CHUNK).for_each(|_| request(service));
        made += CHUNK;
    }
    done.store(true, Relaxed);
    (made, start.elapsed().as_nanos() as f64)
}

/// Sends requests within a runtime, each awaited to its end before the next one.
pub(crate) fn awaited_requests<S>(runtime: &Runtime, mut service: S) -> impl FnMut(u64) -> f64
where
    S: Service<()>,
    S::Error: std::fmt::Debug,
{
    move |times| {
        clock(times, || {
            runtime.block_on(async {
                for _ in 0..times {
                    let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                    ready.expect("a worker that runs");
                    service.call(()).await.expect("a response");
                }
            });
        })
    }
}
