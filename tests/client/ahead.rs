//! Connections that are made before requests need them (`connect_ahead`).

use std::{
    future::IntoFuture,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use tokio::{
    runtime::{Handle, Runtime},
    sync::watch,
};
use tower_headless::{
    EndpointState, StaticEndpoints,
    http::{Client, ClientBuilder, Protocol, Tls},
};

use crate::{
    frames::Frames,
    kit::{self, Sets, accept, get, listen, refusing, sets, text, unresolved, wait_until},
    support::{
        cluster::Cluster,
        pod::{Pod, Stats},
        within,
    },
};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

async fn pod() -> Pod {
    let pod = Pod::start((Ipv4Addr::LOCALHOST, 0).into()).await;
    pod.expect("a free port")
}

/// A client that connects ahead, over sets that the test sends.
fn client(
    pods: &[SocketAddr],
    protocol: Protocol,
    change: impl FnOnce(ClientBuilder<Sets>) -> ClientBuilder<Sets>,
) -> (watch::Sender<Vec<SocketAddr>>, Client) {
    let (sets, discovery) = sets(pods.to_vec());
    let client = unresolved("http").discovery(discovery).protocol(protocol);
    let client = change(client.connect_ahead(true)).build();
    (sets, client.expect("a client"))
}

async fn until(pod: &Pod, condition: impl FnMut(&Stats) -> bool) {
    within("the pod", pod.wait_until(condition)).await;
}

fn state(client: &Client, pod: SocketAddr) -> Option<EndpointState> {
    let pods = client.endpoints().into_iter();
    let mut pods = pods.filter(|it| it.endpoint.address() == pod);
    pods.next().map(|it| it.state)
}

#[tokio::test]
async fn a_new_pod_s_first_request_finds_a_connection() {
    for protocol in BOTH {
        let (old, new) = (pod().await, pod().await);
        let (sets, client) = client(&[old.addr()], protocol, |builder| builder);
        until(&old, |stats| stats.connections == 1).await;
        sets.send_replace(vec![old.addr(), new.addr()]);
        until(&new, |stats| stats.connections == 1).await;
        let joined = || state(&client, new.addr()) == Some(EndpointState::Available);
        wait_until("the new pod", joined).await;
        assert_eq!((old.requests(), new.requests()), (0, 0));
        for _ in 0..10 {
            get(&client, "/").await.expect("a response");
        }
        assert_eq!((old.requests(), new.requests()), (5, 5));
        assert_eq!((old.stats().accepted, new.stats().accepted), (1, 1));
    }
}

#[tokio::test]
async fn without_connect_ahead_nothing_is_dialled_before_a_request() {
    let pod = pod().await;
    let client = kit::client([pod.addr()]);
    within("the pods", client.watch().next()).await;
    get(&client, "/").await.expect("a response");
    let stats = pod.stats();
    assert_eq!((stats.accepted, stats.requests), (1, 1));
}

/// The new pod's handshake takes longer than any request waits.
#[tokio::test]
async fn no_request_waits_for_a_new_pod_s_handshake() {
    let (old, (listener, new)) = (pod().await, listen().await);
    let (sets, client) = client(&[old.addr()], Protocol::Http2, |builder| {
        builder.connect_timeout(Duration::from_secs(30))
    });
    get(&client, "/").await.expect("a response");
    sets.send_replace(vec![old.addr(), new]);
    let peer = accept(&listener).await;
    for _ in 0..10 {
        get(&client, "/").await.expect("of the old pod");
    }
    let mut frames = Frames::greet(peer, None).await;
    let ready = || state(&client, new) == Some(EndpointState::Available);
    wait_until("the new pod", ready).await;
    let requests = (0..2).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { get(&client, "/").await.map(drop) })
    });
    let requests: Vec<_> = requests.collect();
    let stream = frames.stream().await;
    frames.ok(stream).await;
    for request in join_all(requests).await {
        request.expect("no panic").expect("a response");
    }
}

/// The client learns of it before any request does.
#[tokio::test]
async fn a_new_pod_that_refuses_is_tried_again_like_any_other() {
    for protocol in BOTH {
        for others in [0, 1] {
            let (old, new) = (pod().await, pod().await);
            new.kill().await;
            let (sets, client) = client(&[], protocol, |builder| builder);
            let before = [old.addr()][..others].to_vec();
            sets.send_replace(before.clone());
            if others > 0 {
                until(&old, |stats| stats.connections == 1).await;
            }
            sets.send_replace([before, vec![new.addr()]].concat());
            let refuses = || state(&client, new.addr()) == Some(EndpointState::Unreachable);
            wait_until("the refusal", refuses).await;
            for _ in 0..3 * others {
                get(&client, "/").await.expect("of the old pod");
            }
            new.restart().await.expect("its port");
            let accepts = || state(&client, new.addr()) == Some(EndpointState::Available);
            wait_until("its return", accepts).await;
            for _ in 0..4 {
                get(&client, "/").await.expect("a response");
            }
            assert_eq!(new.stats().accepted, 1);
            assert!(new.requests() >= 2);
        }
    }
}

#[tokio::test]
async fn pods_that_leave_and_a_dropped_client_leave_nothing_behind() {
    for protocol in BOTH {
        let pods = join_all((0..3).map(|_| pod())).await;
        let all: Vec<_> = pods.iter().map(Pod::addr).collect();
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let refusing = refusing().await;
        let set = [all.clone(), vec![refusing]].concat();
        let (sets, client) = client(&set, protocol, |builder| builder);
        for pod in &pods {
            until(pod, |stats| stats.connections == 1).await;
        }
        sets.send_replace(all[1..].to_vec());
        until(&pods[0], |stats| stats.connections == 0).await;
        assert_eq!(pods[1].connections(), 1);
        drop(client);
        for pod in &pods {
            until(pod, |stats| stats.connections == 0).await;
        }
        wait_until("the end of all tasks", || tasks() <= before).await;
        let made: Vec<_> = pods.iter().map(|pod| pod.stats().accepted).collect();
        assert_eq!(made, [1, 1, 1]);
    }
}

#[tokio::test]
async fn one_connection_is_kept_however_long_it_is_idle() {
    for protocol in BOTH {
        let pod = pod().await;
        let (_sets, client) = client(&[pod.addr()], protocol, |builder| {
            builder.idle_timeout(Duration::from_millis(10))
        });
        until(&pod, |stats| stats.connections == 1).await;
        let responses = join_all((0..4).map(|_| client.get("/wait/20").into_future())).await;
        for response in responses {
            text(response.expect("a response")).await;
        }
        // The others are closed.
        until(&pod, |stats| stats.connections == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(pod.connections(), 1, "{protocol:?}");
        let made = pod.stats().accepted;
        get(&client, "/").await.expect("a response");
        assert_eq!(pod.stats().accepted, made);
    }
}

/// Only the client's clock is advanced: the pod has a runtime of its own.
#[test]
fn a_connection_that_is_kept_is_replaced_after_a_day_without_a_request() {
    const DAY: Duration = Duration::from_secs(86_400);
    for protocol in BOTH {
        let outside = Runtime::new().expect("a runtime");
        let pod = outside.block_on(pod());
        let mut inside = tokio::runtime::Builder::new_current_thread();
        let inside = inside.enable_all().build().expect("a runtime");
        inside.block_on(async {
            let (_sets, client) = client(&[pod.addr()], protocol, |builder| {
                // Makes the request use the connection that was made ahead.
                builder.max_connections(1)
            });
            get(&client, "/").await.expect("a response");
            assert_eq!(pod.stats().accepted, 1);
            // The dial's task may still have to give the connection back: its day begins then.
            for _ in 0..2 {
                tokio::time::pause();
                tokio::time::advance(DAY + Duration::from_secs(1)).await;
                tokio::time::resume();
                tokio::task::yield_now().await;
            }
            until(&pod, |stats| stats.accepted > 1 && stats.connections == 1).await;
            get(&client, "/").await.expect("a response");
        });
    }
}

#[tokio::test]
async fn a_connection_that_the_pod_closes_is_replaced() {
    for protocol in BOTH {
        let pod = pod().await;
        let (_sets, client) = client(&[pod.addr()], protocol, |builder| builder);
        until(&pod, |stats| stats.connections == 1).await;
        let joined = || state(&client, pod.addr()) == Some(EndpointState::Available);
        wait_until("the pod", joined).await;
        pod.kill().await;
        pod.restart().await.expect("its port");
        until(&pod, |stats| stats.accepted == 2 && stats.connections == 1).await;
        assert_eq!(pod.requests(), 0, "nobody had to find out");
    }
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_replaced_though_nobody_uses_it() {
    for protocol in BOTH {
        let pod = pod().await;
        let (_sets, client) = client(&[pod.addr()], protocol, |builder| {
            builder
                .max_connection_age(Duration::from_millis(50))
                .max_connections(2)
        });
        until(&pod, |stats| stats.accepted >= 4).await;
        assert!(pod.connections() <= 2);
        get(&client, "/").await.expect("a response");
    }
}

#[tokio::test]
async fn a_connection_made_ahead_counts_against_max_connections() {
    for protocol in BOTH {
        let pod = pod().await;
        let client = kit::builder([pod.addr()])
            .protocol(protocol)
            .connect_ahead(true)
            .max_connections(1)
            .build()
            .expect("a client");
        until(&pod, |stats| stats.connections == 1).await;
        for response in join_all((0..4).map(|_| get(&client, "/wait/5"))).await {
            response.expect("a response");
        }
        assert_eq!(pod.stats().accepted, 1);
    }
}

#[tokio::test]
async fn a_connection_made_ahead_has_finished_its_tls_handshake() {
    const NAME: &str = "web.default.svc.cluster.local";
    let cluster = Cluster::start_tls_as(&format!("{NAME}."), 2).await;
    let pods = cluster.pods();
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Negotiated] {
        let before: Vec<_> = pods.iter().map(|pod| pod.stats().accepted).collect();
        let trust = Tls::new().trust_pem(cluster.trust_pem().as_bytes());
        let client = unresolved("https")
            .discovery(StaticEndpoints::new(pods.iter().map(|pod| pod.addr())))
            .tls(trust.expect("a certificate"))
            .protocol(protocol)
            .connect_ahead(true)
            // With only one connection, the request must wait for it.
            .max_connections(1)
            .build()
            .expect("a client");
        for (pod, before) in pods.iter().zip(&before) {
            until(pod, |stats| stats.accepted == before + 1).await;
        }
        for _ in 0..6 {
            get(&client, "/").await.expect("a response");
        }
        let after: Vec<_> = pods.iter().map(|pod| pod.stats().accepted - 1).collect();
        assert_eq!(after, before, "{protocol:?}");
    }
}
