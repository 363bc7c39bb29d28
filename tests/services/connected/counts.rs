//! The counters of such connections: how many, and why they ended.

use tower_headless::{ConnectionCounts, ConnectionEnds};

use super::*;

/// A balancer that counts.
fn counting(hosts: &[u8], connections: Connections<Connection>) -> Balanced {
    let addresses = hosts.iter().map(|&host| endpoint(host).address());
    let balance = Balance::builder(StaticEndpoints::new(addresses)).counters(true);
    balance.build_connected(connections)
}

/// The balancer's counts, which agree with what the pods have seen.
fn counts(balance: &Balanced, pods: &Pods) -> ConnectionCounts {
    let counts = balance.counts().expect("it counts").endpoints.connections;
    let seen = lock(&pods.0);
    let sum = |of: fn(&Pod) -> &AtomicUsize| -> u64 {
        seen.values().map(|pod| of(pod).load(SeqCst) as u64).sum()
    };
    assert_eq!(counts.opened, sum(|pod| &pod.made), "{counts:?}");
    assert_eq!(counts.open(), sum(|pod| &pod.open), "{counts:?}");
    counts
}

fn ends(set: impl FnOnce(&mut ConnectionEnds)) -> ConnectionEnds {
    let mut ends = ConnectionEnds::default();
    set(&mut ends);
    ends
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_pool_are_counted_by_what_ended_them() {
    let pods = Pods::default();
    let balance = counting(&[1], Connections::pooled(2, pods.connect()));
    send(&balance).await.expect("a response");
    let now = counts(&balance, &pods);
    assert_eq!((now.open(), now.idle, now.active()), (1, 1, 0));

    pods.set(1, Mood::Holds);
    let mut held = task::spawn(send(&balance));
    assert_pending!(held.poll());
    let now = counts(&balance, &pods);
    assert_eq!((now.open(), now.idle, now.active()), (1, 0, 1));
    drop(held);
    let cancelled = |it: &mut ConnectionEnds| it.client = 1;
    assert_eq!(counts(&balance, &pods).closed, ends(cancelled));

    pods.set(1, Mood::Fails);
    send(&balance).await.expect_err("the pod's");
    let failed = |it: &mut ConnectionEnds| (it.client, it.lost) = (1, 1);
    assert_eq!(counts(&balance, &pods).closed, ends(failed));

    pods.set(1, Mood::Answers);
    send(&balance).await.expect("a response");
    pods.break_all(1);
    send(&balance).await.expect("over a new connection");
    let broke = |it: &mut ConnectionEnds| (it.client, it.lost, it.peer) = (1, 1, 1);
    assert_eq!(counts(&balance, &pods).closed, ends(broke));

    pods.pod(1).stuck.store(pods.open_and_made(1).1, SeqCst);
    send(&balance).await.expect("over a new connection");
    let stuck = |it: &mut ConnectionEnds| (it.client, it.lost, it.peer) = (2, 1, 1);
    assert_eq!(counts(&balance, &pods).closed, ends(stuck));
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_pod_that_leaves_are_counted_in_the_sums() {
    let (script, source) = discovery();
    let pods = Pods::default();
    let balance = Balance::builder(source).counters(true);
    let balance = balance.build_connected(Connections::pooled(2, pods.connect()));
    script.answer([1]);
    settle().await;
    send(&balance).await.expect("a response");
    script.answer([2]);
    settle().await;
    let left = |it: &mut ConnectionEnds| it.left = 1;
    assert_eq!(counts(&balance, &pods).closed, ends(left));
    send(&balance).await.expect("a response");
    let now = counts(&balance, &pods);
    assert_eq!((now.opened, now.idle), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn connections_that_could_not_be_made_are_counted_by_cause() {
    use std::io::{self, ErrorKind};
    let kinds = [
        ErrorKind::ConnectionRefused,
        ErrorKind::TimedOut,
        ErrorKind::HostUnreachable,
    ];
    for kind in kinds {
        let refuse = service_fn(move |_: Endpoint| async move {
            // As a library wraps it.
            let error: BoxError = io::Error::other(io::Error::from(kind)).into();
            Err::<Connection, _>(error)
        });
        let pods = Pods::default();
        let balance = counting(&[1], Connections::pooled(1, refuse));
        send(&balance).await.expect_err("no connection");
        let failed = counts(&balance, &pods).failed;
        let counted = match kind {
            ErrorKind::ConnectionRefused => failed.refused,
            ErrorKind::TimedOut => failed.timeout,
            _ => failed.other,
        };
        assert!(counted > 0, "{kind}: {failed:?}");
        assert_eq!(counted, failed.total(), "{kind}");
    }
    let pods = Pods::default();
    let balance = counting(&[1], Connections::pooled(1, pods.connect()));
    pods.set(1, Mood::Hangs);
    send(&balance).await.expect_err("no connection");
    let failed = counts(&balance, &pods).failed;
    assert!(failed.timeout > 0, "{failed:?}");
    assert_eq!(failed.timeout, failed.total());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_requests_share_is_counted_once_and_ends_with_the_last() {
    let pods = Pods::default();
    let balance = counting(&[1], Connections::multiplexed(pods.connect()));
    send(&balance).await.expect("a response");
    let now = counts(&balance, &pods);
    assert_eq!((now.opened, now.idle), (1, 1));
    pods.set(1, Mood::Holds);
    let [mut first, mut second] = [0; 2].map(|_| task::spawn(send(&balance)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    let now = counts(&balance, &pods);
    assert_eq!((now.open(), now.idle), (1, 0));
    drop(first);
    assert_eq!(counts(&balance, &pods).open(), 1, "the other one uses it");
    pods.break_all(1);
    assert_pending!(task::spawn(send(&balance)).poll());
    assert_eq!(counts(&balance, &pods).open(), 2, "broken, but in use");
    drop(second);
    let peer = |it: &mut ConnectionEnds| it.peer = 1;
    assert_eq!(counts(&balance, &pods).closed, ends(peer));
}

#[test]
fn an_idle_connection_of_another_runtime_that_makes_room_is_counted_as_idle() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (pods, [first, second]) = (Pods::default(), [0; 2].map(|_| runtime()));
    let balance = first.block_on(async { counting(&[1], Connections::pooled(1, pods.connect())) });
    for runtime in [&first, &second] {
        runtime.block_on(send(&balance)).expect("a response");
    }
    let idle = |it: &mut ConnectionEnds| it.idle = 1;
    assert_eq!(counts(&balance, &pods).closed, ends(idle));
}
