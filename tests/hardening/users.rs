//! Large sets, user code and locks, and requests that wait for a pod that has gone.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use crate::support::scripted::{Behaviour, Pods, Request, discovery, endpoint};
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt};
use tower_headless::{Balance, BoxError, Endpoint, Route};

const SECOND: Duration = Duration::from_secs(1);

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// If its pod leaves the set before it is sent, a request goes to another one.
#[tokio::test(start_paused = true)]
async fn an_unsent_request_leaves_a_pod_that_has_left() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .ready_timeout(SECOND)
        .build(pods.make());
    pods.set([1], Behaviour::Pending);
    script.answer([1]);
    balance.ready().await.expect("ready");
    let request = tokio::spawn(balance.call(Request(1)));
    settle().await;
    script.answer([2]);
    let answer = timeout(600 * SECOND, request).await;
    assert!(
        answer.is_ok(),
        "after ten minutes it still waits for a pod that isn't there"
    );
}

/// A request for one pod by name had no ready timeout while the pod connected.
#[tokio::test(start_paused = true)]
async fn a_request_for_one_pod_that_does_not_get_ready_ends() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .ready_timeout(SECOND)
        .build(pods.make());
    pods.set([1], Behaviour::Pending);
    script.endpoints(vec![endpoint(1).with_hostname("web-0")]);
    balance.ready().await.expect("ready");
    let request = balance.call_with(Request(1), Route::new().pod("web-0"));
    assert!(
        timeout(600 * SECOND, request).await.is_ok(),
        "it waits for ever"
    );
}

/// A named pod that comes back while a request waits for it is found before the request gives up, as in an outage.
#[tokio::test(start_paused = true)]
async fn a_named_pod_that_is_back_is_found_while_a_request_waits_for_it() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .ready_timeout(3 * SECOND)
        .build(pods.make());
    let named = |host: u8| endpoint(host).with_hostname(format!("web-{host}"));
    script.endpoints(vec![named(1), named(2)]);
    balance.ready().await.expect("ready");
    pods.set([1], Behaviour::NotReady);
    for _ in 0..4 {
        balance.call(Request(1)).await.expect("pod 2's");
    }
    let mut lost = 0;
    for _ in 0..20 {
        pods.set([1], Behaviour::NotReady);
        while balance.endpoints()[0].state != tower_headless::EndpointState::Unreachable {
            let _ = balance.call(Request(1)).await;
        }
        sleep(60 * SECOND).await;
        let request = tokio::spawn(balance.call_with(Request(1), Route::new().pod("web-1")));
        sleep(SECOND / 2).await;
        pods.set([1], Behaviour::Answer);
        lost += usize::from(request.await.expect("no panic").is_err());
        sleep(10 * SECOND).await;
    }
    assert_eq!(
        lost, 0,
        "of 20 requests so many failed, 2.5 s after their pod had come back"
    );
}

/// Before discovery's first answer, the error says so, whichever pod is asked for.
#[tokio::test(start_paused = true)]
async fn without_any_answer_a_named_pod_fails_as_any_other() {
    let (_script, source) = discovery();
    let balance = Balance::builder(source).build(Pods::default().make());
    let error = balance
        .call_with(Request(1), Route::new())
        .await
        .expect_err("no answer");
    assert!(error.is_no_endpoints());
    let named = balance.call_with(Request(1), Route::new().pod("web-0"));
    let error = named.await.expect_err("no answer");
    assert!(error.is_no_endpoints(), "{error}");
}

/// Retries don't get round slow start.
#[tokio::test(start_paused = true)]
async fn slow_start_applies_to_requests_that_avoid_some_pod() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source)
        .slow_start(600 * SECOND)
        .build(pods.make());
    script.answer(1..=4);
    balance.ready().await.expect("ready");
    script.answer(1..=5);
    settle().await;
    for _ in 0..400 {
        let route = Route::new().avoid(&endpoint(1));
        balance
            .call_with(Request(1), route)
            .await
            .expect("an answer");
    }
    let calls = pods.counts(5).calls;
    assert!(
        calls <= 40,
        "a tenth of its share would be 10 of 400; it has {calls}"
    );
}

type Handle = Arc<OnceLock<Balance<Refusing>>>;

/// An error whose `Drop` calls the balancer.
struct Asks(Handle);

impl Drop for Asks {
    fn drop(&mut self) {
        if let Some(balance) = self.0.get() {
            let _ = balance.staleness();
        }
    }
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asks")
    }
}

impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Asks {}

#[derive(Clone)]
struct Refusing(Handle);

impl Service<()> for Refusing {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err(Asks(self.0.clone()).into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

/// An error's `Drop` is user code, and ran under the lock of the notes.
#[test]
fn an_error_is_dropped_without_a_lock() {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let handle = Handle::default();
            let (script, source) = discovery();
            let made = handle.clone();
            let mut balance = Balance::builder(source)
                .fail_fast()
                .build(move |_: &Endpoint| Refusing(made.clone()));
            let _ = handle.set(balance.clone());
            script.answer([1, 2]);
            settle().await;
            balance.call(()).await.expect_err("both refuse");
            let _ = sender.send(());
        });
    });
    assert!(receiver.recv_timeout(5 * SECOND).is_ok(), "a deadlock");
}

#[derive(Clone)]
struct Large {
    is_good: bool,
}

impl Service<()> for Large {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(if self.is_good {
            Ok(())
        } else {
            Err("refused".into())
        })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

/// In real time: with as many refusing pods as the cap allows, discovery's next answer is still taken in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_of_many_pods_the_next_set_is_taken_in() {
    // The cap is 4,096. The cost of a step grows with the number, and is many times as high without optimisation.
    let pods: u16 = std::env::var("PODS").map_or(2_048, |it| it.parse().expect("a number"));
    let address = |host: u16| SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 80));
    let good = SocketAddr::from(([10, 9, 9, 9], 80));
    let (script, source) = discovery();
    let mut balance = Balance::builder(source)
        .wait_for_ready()
        .build(move |it: &Endpoint| Large {
            is_good: it.address() == good,
        });
    script.endpoints((0..pods).map(|host| Endpoint::new(address(host))).collect());
    balance.ready().await.expect("ready");
    let begun = Instant::now();
    let mut waiting = balance.clone();
    let waiting = tokio::spawn(async move { waiting.call(()).await });
    sleep(3 * SECOND).await;
    eprintln!("all of them refused, {:?} after the call", begun.elapsed());
    script.endpoints(vec![Endpoint::new(good)]);
    let begun = Instant::now();
    let answer = timeout(60 * SECOND, waiting).await;
    let took = begun.elapsed();
    eprintln!("the new set was heard after {took:?}");
    assert!(
        answer.is_ok() && took < 5 * SECOND,
        "the new set was heard after {took:?}"
    );
}
