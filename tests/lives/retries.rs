//! Where retries go.

use crate::support::scripted::{Behaviour, Pods, Request, discovery, endpoint};
use tokio_test::task;
use tower::ServiceExt;
use tower_headless::{Balance, BoxError, Endpoint, LeastConnections, OnResponse, Outcome, Route};

async fn shares(hosts: u8) -> Vec<usize> {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    script.answer(1..=hosts);
    balance.ready().await.expect("ready");
    for _ in 0..1_200 {
        let sent = balance.call_with(Request(1), Route::new().avoid(&endpoint(1)));
        sent.await.expect("a response");
    }
    (2..=hosts).map(|host| pods.counts(host).calls).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_that_avoid_one_of_three_are_shared_by_the_two_others() {
    let shares = shares(3).await; // [1200, 0]
    assert!(shares.iter().all(|&share| share > 400), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_avoid_one_of_five_are_shared_by_the_four_others() {
    let shares = shares(5).await; // [600, 0, 300, 300]
    assert!(shares.iter().all(|&share| share > 200), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_rejects_at_once_does_not_attract_retries() {
    type Answer = (Endpoint, u32);
    let (script, source) = discovery();
    let pods = Pods::default();
    let completion = OnResponse::by(|result: Result<&Answer, &BoxError>| match result {
        Ok((pod, _)) if *pod == endpoint(2) => Outcome::Overload,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    });
    let mut balance = Balance::builder(source)
        .policy(LeastConnections::new())
        .completion(completion)
        .build(pods.make());
    script.answer(1..=3);
    ServiceExt::<Request>::ready(&mut balance)
        .await
        .expect("ready");
    // Pod 3 works on one request; pod 2 answers that it is overloaded.
    pods.set([3], Behaviour::Hold);
    let avoid = Route::new().avoid(&endpoint(1)).avoid(&endpoint(2));
    let mut held = vec![task::spawn(balance.call_with(Request(1), avoid))];
    assert!(held[0].poll().is_pending());
    for _ in 0..30 {
        let avoid = Route::new().avoid(&endpoint(1));
        let mut sent = task::spawn(balance.call_with(Request(1), avoid));
        if sent.poll().is_pending() {
            held.push(sent);
        }
    }
    let turned_away = pods.counts(2).calls;
    assert!(
        turned_away < 25,
        "{turned_away} of 30 went to the pod that turned all away"
    );
}
