//! A pod that leaves and comes back at its address.

use std::time::Duration;

use crate::support::scripted::{Behaviour, PodService, Pods, Request, discovery, endpoint};
use tower::{Service, ServiceExt};
use tower_headless::{Balance, EndpointState};

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn state(balance: &Balance<PodService>, host: u8) -> EndpointState {
    let all = balance.endpoints().into_iter();
    let mut one = all.filter(|status| status.endpoint.address() == endpoint(host).address());
    one.next().expect("one of the set").state
}

async fn send(balance: &Balance<PodService>) {
    let mut balance = balance.clone();
    let response = balance.ready().await.expect("ready").call(Request(1)).await;
    response.expect("pod 2 answers");
}

#[tokio::test(start_paused = true)]
async fn a_refusing_pod_is_tried_again_even_at_the_address_of_one_that_left() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    script.answer([1, 2]);
    balance.ready().await.expect("ready");

    // Its first life: it refuses, and the reconnect hangs.
    pods.set([1], Behaviour::NotReady);
    send(&balance).await;
    send(&balance).await;
    settle().await;
    assert_eq!(state(&balance, 1), EndpointState::Unreachable);
    pods.set([1], Behaviour::Pending);
    tokio::time::sleep(Duration::from_millis(400)).await;

    // It leaves and returns: a new life, of which nothing is known.
    script.answer([2]);
    settle().await;
    script.answer([1, 2]);
    settle().await;
    assert_eq!(pods.counts(1).made, 2);
    assert_eq!(state(&balance, 1), EndpointState::Available);

    // No yield from here to the end of the second request: the refusal is told before the old reconnect ends.
    pods.set([1], Behaviour::NotReady);
    send(&balance).await;
    send(&balance).await;
    settle().await;
    assert_eq!(state(&balance, 1), EndpointState::Unreachable);

    // It accepts again. 5 s is the longest pause.
    pods.set([1], Behaviour::Answer);
    tokio::time::sleep(Duration::from_secs(60)).await;
    settle().await;
    assert_eq!(
        state(&balance, 1),
        EndpointState::Available,
        "nobody has asked it for a minute, and nobody ever will"
    );
}
