//! A pod that takes over the address of another one.

use std::time::Duration;

use crate::support::scripted::{Pods, discovery, endpoint};
use futures::StreamExt;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_headless::{Balance, MembershipChange, MembershipStream};

async fn next(watch: &mut MembershipStream) -> MembershipChange {
    let change = timeout(Duration::from_secs(1), watch.next()).await;
    change.expect("a change").expect("a stream without an end")
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_another_one_s_address_joins() {
    let (script, source) = discovery();
    let mut watch = MembershipStream::new(source);
    script.endpoints(vec![endpoint(1)]);
    assert_eq!(next(&mut watch).await.joined.len(), 1);
    script.endpoints(vec![endpoint(1).with_pod_uid("a")]); // who it is, is learnt
    script.endpoints(vec![endpoint(1).with_pod_uid("b")]); // another one
    let change = next(&mut watch).await;
    assert_eq!((change.joined.len(), change.left.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pod_is_reported_by_watch() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let mut balance = Balance::builder(source).build(pods.make());
    let mut watch = balance.watch();
    script.endpoints(vec![endpoint(1)]);
    balance.ready().await.expect("ready");
    assert_eq!(next(&mut watch).await.joined.len(), 1);
    script.endpoints(vec![endpoint(1).with_pod_uid("a")]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    script.endpoints(vec![endpoint(1).with_pod_uid("b")]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(
        pods.counts(1).made,
        2,
        "the balancer knows that it is another pod"
    );
    let change = next(&mut watch).await;
    assert_eq!((change.joined.len(), change.left.len()), (1, 1));
}
