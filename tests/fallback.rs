//! A balancer over a primary source and a fallback: connections survive each switch.

mod support;

use std::time::Duration;

use futures::StreamExt;
use support::{
    scripted::{self, Behaviour, Pods, Request, endpoint},
    within,
};
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_headless::{Balance, Discovery, MembershipChange, MembershipStream};

async fn change(watch: &mut MembershipStream) -> MembershipChange {
    within("a change", watch.next())
        .await
        .expect("it never ends")
}

#[tokio::test(start_paused = true)]
async fn a_switch_there_and_back_makes_no_service_again() {
    let ((watch, primary), (dns, fallback)) = (scripted::discovery(), scripted::discovery());
    let pods = Pods::default();
    pods.set([1], Behaviour::Hold);
    let mut balance = Balance::builder(primary.or(fallback)).build(pods.make());
    let mut changes = balance.watch();
    watch.fail("forbidden");
    dns.answer([1, 2]);
    assert_eq!(
        change(&mut changes).await.joined,
        [endpoint(1), endpoint(2)]
    );
    // Pod 1 holds one of these requests, which must survive the switch.
    let ready = balance.ready().await.expect("a pod");
    let held = [ready.call(Request(1)), ready.call(Request(2))].map(tokio::spawn);

    watch.answer([1, 2, 3]);
    assert_eq!(change(&mut changes).await.joined, [endpoint(3)]);
    watch.fail("the API server is away");
    sleep(Duration::from_secs(61)).await;
    dns.answer([1, 2]);
    assert_eq!(change(&mut changes).await.left, [endpoint(3)]);
    watch.answer([1, 2]);

    pods.set([1], Behaviour::Answer);
    for held in held {
        let held = within("an answer", held).await.expect("no panic");
        held.expect("an answer");
    }
    assert_eq!((pods.counts(1).made, pods.counts(2).made), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn refused_connections_are_reported_to_the_source_in_use() {
    let ((watch, primary), (dns, fallback)) = (scripted::discovery(), scripted::discovery());
    let pods = Pods::default();
    let mut balance = Balance::builder(primary.or(fallback)).build(pods.make());
    watch.answer([1, 2]);
    pods.set([1], Behaviour::NotReady);
    for n in 0..4 {
        let ready = balance.ready().await.expect("a pod");
        ready.call(Request(n)).await.expect("an answer");
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(watch.hints().refused, [endpoint(1)]);
    assert!(dns.hints().refused.is_empty(), "it isn't asked");
}
