//! Routes, updates of the set, and what user code may do.

use std::{
    error::Error as _,
    sync::{Arc, Mutex, OnceLock, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use crate::support::scripted::{Behaviour, PodService, Pods, Request, discovery, endpoint};
use futures::FutureExt;
use rand::Rng;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, BoxError, Discovery, Endpoint, EndpointState, Members, OutlierDetection, Picker,
    Policy, Previous, Route, StaticEndpoints,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn state(balance: &Balance<PodService>, host: u8) -> EndpointState {
    let all = balance.endpoints().into_iter();
    let mut one = all.filter(|it| it.endpoint.address() == endpoint(host).address());
    one.next().expect("one of the set").state
}

/// With outlier detection off nothing ended the failure penalties: a pod that had failed once never got a retry again.
#[tokio::test(start_paused = true)]
async fn with_detection_off_old_failures_do_not_count() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .outlier_detection(OutlierDetection::off())
        .build(pods.make());
    script.answer(1..=3);
    balance.ready().await.expect("ready");
    pods.set([2], Behaviour::Fail);
    for _ in 0..30 {
        let _ = balance.ready().await.expect("ready").call(Request(1)).await;
        settle().await;
    }
    pods.set([2], Behaviour::Answer);
    sleep(3_600 * SECOND).await;
    let before = pods.counts(2).calls;
    for _ in 0..60 {
        let route = Route::new().avoid(&endpoint(1));
        balance
            .call_with(Request(1), route)
            .await
            .expect("an answer");
        settle().await;
    }
    let calls = pods.counts(2).calls - before;
    assert!(
        (15..=45).contains(&calls),
        "of 60 requests for pods 2 and 3, pod 2 has {calls}"
    );
}

/// Requests that avoid pods didn't wake the review, and took no trial: a pod that was back was never found.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_back_is_found_even_if_all_requests_avoid_some_pod() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    script.answer(1..=4);
    balance.ready().await.expect("ready");
    pods.set([2], Behaviour::HandBack);
    let route = || Route::new().avoid(&endpoint(4));
    for _ in 0..30 {
        balance
            .call_with(Request(1), route())
            .await
            .expect("an answer");
        settle().await;
    }
    assert_eq!(state(&balance, 2), EndpointState::Unreachable);
    pods.set([2], Behaviour::Answer);
    let begun = Instant::now();
    while begun.elapsed() < 120 * SECOND {
        balance
            .call_with(Request(1), route())
            .await
            .expect("an answer");
        sleep(100 * MILLI).await;
    }
    assert_eq!(state(&balance, 2), EndpointState::Available);
}

/// Such requests didn't wake the review, so the success rate was never judged.
#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_half_is_ejected_even_if_all_requests_avoid_some_pod() {
    for is_routed in [false, true] {
        let pods = StaticEndpoints::new((1..=4).map(|host| endpoint(host).address()));
        let mut balance = Balance::builder(pods).build(|it: &Endpoint| {
            let is_bad = it.address() == endpoint(2).address();
            service_fn(move |request: u32| async move {
                match is_bad && request % 8 < 4 {
                    true => Err::<(), BoxError>("bad".into()),
                    false => Ok(()),
                }
            })
        });
        balance.ready().await.expect("ready");
        // Lets it fall asleep.
        sleep(SECOND).await;
        let mut was_out = false;
        for request in 0..400 {
            let route = match is_routed {
                true => Route::new().avoid(&endpoint(4)),
                false => Route::new(),
            };
            let _ = balance.call_with(request, route).await;
            sleep(20 * MILLI).await;
            was_out |= matches!(balance.endpoints()[1].state, EndpointState::Ejected(_));
        }
        assert!(was_out, "routed: {is_routed}");
    }
}

/// When a set was replaced, picks between the old one's end and the new one's publication found nothing.
#[tokio::test(start_paused = true)]
async fn replacing_the_whole_set_fails_no_request() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let handle = Arc::new(OnceLock::<Mutex<Balance<PodService>>>::new());
    let seen = Arc::new(Mutex::new(None));
    let mut balance = {
        let (handle, seen, mut make) = (handle.clone(), seen.clone(), pods.make());
        Balance::builder(source)
            .fail_fast()
            .build(move |it: &Endpoint| {
                if *it == endpoint(2) {
                    // A request as on another thread, while making the service takes its time.
                    let mut balance = handle.get().expect("set").lock().expect("lock");
                    *seen.lock().expect("lock") = balance.call(Request(1)).now_or_never();
                }
                make(it)
            })
    };
    let _ = handle.set(Mutex::new(balance.clone()));
    script.answer([1]);
    settle().await;
    balance.call(Request(1)).await.expect("pod 1 answers");
    script.answer([2]);
    settle().await;
    balance.call(Request(1)).await.expect("pod 2 answers");
    let seen = seen.lock().expect("lock").take().expect("it was called");
    assert!(
        seen.is_ok(),
        "pod 1 is well, pod 2 is well, and yet: {seen:?}"
    );
}

/// A request by name goes to the pod that doesn't terminate.
#[tokio::test(start_paused = true)]
async fn of_two_pods_of_one_name_the_terminating_one_comes_last() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    let old = endpoint(1)
        .with_pod_name("web-0")
        .with_pod_uid("a")
        .with_terminating(true);
    let new = endpoint(2).with_pod_name("web-0").with_pod_uid("b");
    script.endpoints(vec![old, new]);
    balance.ready().await.expect("ready");
    for _ in 0..10 {
        let request = balance.call_with(Request(1), Route::new().pod("web-0"));
        request.await.expect("an answer");
    }
    assert_eq!((pods.counts(1).calls, pods.counts(2).calls), (0, 10));
}

/// The error for an absent pod had another pod's refusal, from an hour ago, as its cause.
#[tokio::test(start_paused = true)]
async fn an_error_names_the_cause_of_its_own_pod() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .ready_timeout(SECOND)
        .build(pods.make());
    let named = |host: u8| endpoint(host).with_hostname(format!("web-{host}"));
    script.endpoints(vec![named(1), named(2)]);
    balance.ready().await.expect("ready");
    pods.set([1], Behaviour::NotReady);
    for _ in 0..4 {
        balance.call(Request(1)).await.expect("pod 2's");
    }
    script.endpoints(vec![named(2)]);
    sleep(3_600 * SECOND).await;
    let request = balance.call_with(Request(1), Route::new().pod("web-9"));
    let error = request.await.expect_err("no such pod");
    assert!(error.is_unreachable());
    let source = error.source().map(ToString::to_string);
    assert_eq!(
        source, None,
        "web-9 isn't there; pod web-1 refused, and left an hour ago"
    );
}

/// User code was called while a lock was held that requests need.
#[tokio::test]
async fn a_source_is_called_without_a_lock() {
    type Cell = Arc<OnceLock<Balance<PodService>>>;
    struct Source(Cell, Arc<Mutex<Option<bool>>>, bool);
    impl Discovery for Source {
        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
            if self.0.get().is_none() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match std::mem::replace(&mut self.2, true) {
                true => Poll::Pending,
                false => Poll::Ready(Ok(vec![endpoint(1)])),
            }
        }
        fn age(&self) -> Duration {
            let balance = self.0.get().expect("set").clone();
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                let _ = balance.staleness();
                let _ = sender.send(());
            });
            let is_free = receiver.recv_timeout(SECOND).is_ok();
            *self.1.lock().expect("lock") = Some(is_free);
            Duration::ZERO
        }
    }
    let (cell, free) = (Cell::default(), Arc::<Mutex<Option<bool>>>::default());
    let pods = Pods::default();
    let mut balance =
        Balance::builder(Source(cell.clone(), free.clone(), false)).build(pods.make());
    let _ = cell.set(balance.clone());
    balance.ready().await.expect("ready");
    assert_eq!(*free.lock().expect("lock"), Some(true));
}

/// A policy from outside whose latencies decay at once.
#[tokio::test(start_paused = true)]
async fn a_latency_decay_of_zero_still_yields_latencies() {
    struct Looks(Arc<Mutex<Vec<Duration>>>);
    impl Policy for Looks {
        fn prepare(
            &self,
            _: &Members,
            _: Option<Previous<'_>>,
            _: &mut dyn Rng,
        ) -> Box<dyn Picker> {
            Box::new(Looks(self.0.clone()))
        }
        fn latency_decay(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }
    }
    impl Picker for Looks {
        fn pick(&self, members: &Members, _: &Route, _: &mut dyn Rng) -> Option<usize> {
            self.0.lock().expect("lock").extend(members.latency(0));
            Some(0)
        }
    }
    let seen = Arc::<Mutex<Vec<Duration>>>::default();
    let mut balance = Balance::builder(StaticEndpoints::new([endpoint(1).address()]))
        .policy(Looks(seen.clone()))
        .build(|_: &Endpoint| {
            service_fn(|()| async {
                sleep(10 * MILLI).await;
                Ok::<_, BoxError>(())
            })
        });
    balance.ready().await.expect("ready");
    for _ in 0..200 {
        let (mut one, mut two) = (balance.clone(), balance.clone());
        let _ = futures::join!(one.call(()), two.call(()));
    }
    let seen = seen.lock().expect("lock");
    let (least, most) = (seen.iter().min(), seen.iter().max());
    let range = MILLI..100 * MILLI;
    assert!(
        seen.iter().all(|it| range.contains(it)),
        "10 ms is told as {least:?} to {most:?}"
    );
}

/// After a panic in `make` for a pod that joins, the other pods stay usable.
#[tokio::test(start_paused = true)]
async fn a_panic_in_make_leaves_the_old_pods_usable() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut make = pods.make();
    let mut balance = Balance::builder(source).build(move |it: &Endpoint| {
        assert_ne!(*it, endpoint(2), "a bug in make");
        make(it)
    });
    script.answer([1]);
    balance.ready().await.expect("ready");
    balance.call(Request(1)).await.expect("pod 1 answers");
    script.answer([2, 3]);
    settle().await;
    let answer = balance.call(Request(1)).await;
    assert!(
        answer.is_ok(),
        "{:?}",
        answer.map_err(|error| error.to_string())
    );
}
