//! Tower's own balancer over our discovery.

mod support;

use std::{collections::BTreeMap, convert::Infallible, task::Poll};

use futures::{StreamExt, poll};
use support::scripted::{Pods, Request, discovery, endpoint};
use tower::{
    Service, ServiceExt,
    balance::p2c::Balance,
    discover::{Change, Discover},
    load::{CompleteOnResponse, PendingRequestsDiscover},
};
use tower_headless::{Endpoint, ServiceStream};

#[tokio::test(start_paused = true)]
async fn towers_p2c_spreads_requests_over_what_discovery_finds_through_its_failures() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let services = ServiceStream::new(source, pods.make());
    let loads = PendingRequestsDiscover::new(services, CompleteOnResponse::default());
    let mut balance = Balance::new(loads);
    script.fail("SERVFAIL"); // tower takes an error for the end
    script.answer([1, 2, 3]);
    let mut answers = BTreeMap::<Endpoint, u32>::new();
    for round in 0..300 {
        script.fail("SERVFAIL");
        // A task that never yields hears nothing new, by tokio's budget.
        tokio::task::yield_now().await;
        if round == 200 {
            script.answer([2, 3, 4]);
        }
        let ready = balance.ready().await.expect("discovery never ends");
        let (pod, _) = ready.call(Request(round)).await.expect("a response");
        *answers.entry(pod).or_default() += 1;
    }
    assert!(answers.keys().cloned().eq([1, 2, 3, 4].map(endpoint)));
    assert!(
        answers.values().all(|answers| *answers >= 10),
        "{answers:?}"
    );
    let calls = pods.counts(1).calls;
    for round in 0..50 {
        let ready = balance.ready().await.expect("discovery never ends");
        ready.call(Request(round)).await.expect("a response");
    }
    assert_eq!(pods.counts(1).calls, calls, "it has left");
    assert_eq!(pods.alive(1), 0, "and its service with it");
}

/// A set that is replaced whole is never empty on the way, and a pod that stays is not heard of again.
#[tokio::test(start_paused = true)]
async fn who_joins_comes_before_who_leaves() {
    let (script, source) = discovery();
    let mut services = ServiceStream::new(source, |endpoint: &Endpoint| endpoint.clone());
    script.answer([1, 2]);
    script.answer([2, 1, 1]);
    script.answer([2, 3]);
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(match services.next().await {
            Some(Ok(Change::Insert(pod, service))) => {
                assert_eq!(pod, service);
                ('+', pod)
            }
            Some(Ok(Change::Remove(pod))) => ('-', pod),
            end => panic!("{end:?}"),
        });
    }
    let expected = [('+', 1), ('+', 2), ('+', 3), ('-', 1)];
    assert_eq!(heard, expected.map(|(sign, host)| (sign, endpoint(host))));
    assert!(poll!(services.next()).is_pending());
}

/// Tower knows a pod as it joined: that is what is removed, whatever was learnt of it since.
#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_over_an_address_replaces_the_service() {
    let (script, source) = discovery();
    let mut services = ServiceStream::new(source, |_: &Endpoint| ());
    let uid = |uid: &str| endpoint(1).with_pod_uid(uid);
    script.answer([1]);
    script.endpoints(vec![uid("a")]);
    script.endpoints(vec![uid("b")]);
    let mut heard = Vec::new();
    while let Poll::Ready(Some(Ok(change))) = poll!(services.next()) {
        heard.push(match change {
            Change::Insert(pod, ()) => ('+', pod),
            Change::Remove(pod) => ('-', pod),
        });
    }
    assert_eq!(
        heard,
        [('+', endpoint(1)), ('+', uid("b")), ('-', endpoint(1))]
    );
}

#[test]
fn it_is_what_tower_calls_discover_and_never_fails() {
    fn check<T: Discover<Key = Endpoint, Error = Infallible>>(_: &T) {}
    let (_script, source) = discovery();
    let pods = Pods::default();
    check(&ServiceStream::new(source, pods.make()));
}
