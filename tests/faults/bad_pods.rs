//! Rows 19 to 23: pods that are slow, that fail at once, or that come and go.

use super::*;
use http_body_util::BodyExt;
use hyper::StatusCode;
use std::{future::IntoFuture, net::SocketAddr, sync::Arc};
use tokio::task::JoinSet;
use tower_headless::{EjectionReason, OutlierDetection, PeakEwma, PowerOfTwo, Random};

/// How many requests succeeded and failed.
#[derive(Debug, Default)]
struct Tally {
    ok: usize,
    failed: usize,
}

/// A client of the cluster with `policy`, without retries.
fn client<P: Policy>(cluster: &Cluster, policy: P, health: OutlierDetection) -> http::Client {
    let uri = format!("http://{}", cluster.service())
        .parse()
        .expect("a URI");
    http::Client::builder(uri)
        .dns(|_| dns(cluster))
        .policy(policy)
        .outlier_detection(health)
        .retries(0)
        .build()
        .expect("a client")
}

/// Sends this many requests, `lanes` at a time.
async fn send(client: &http::Client, requests: usize, lanes: usize) -> Tally {
    let mut tally = Tally::default();
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        let client = client.clone();
        let share = requests / lanes + usize::from(lane < requests % lanes);
        tasks.spawn(async move {
            let mut ok = 0;
            for _ in 0..share {
                let Ok(response) = client.get("/").into_future().await else {
                    continue;
                };
                let status = response.status();
                let _ = response.into_body().collect().await;
                ok += usize::from(status == StatusCode::OK);
            }
            (ok, share - ok)
        });
    }
    for (ok, failed) in tasks.join_all().await {
        tally.ok += ok;
        tally.failed += failed;
    }
    tally
}

fn state(client: &http::Client, pod: SocketAddr) -> EndpointState {
    let endpoints = client.endpoints().into_iter();
    let mut endpoints = endpoints.filter(|status| status.endpoint.address() == pod);
    endpoints.next().expect("an endpoint of the set").state
}

/// The fraction of 2,000 requests that pod 0 gets.
async fn share_of_the_first<P: Policy>(cluster: &Cluster, policy: P, mode: Mode) -> f64 {
    cluster.pod(0).set(mode);
    let client = client(cluster, policy, OutlierDetection::off());
    send(&client, 100, 10).await;
    let before = cluster.pod(0).requests();
    send(&client, 2_000, 20).await;
    (cluster.pod(0).requests() - before) as f64 / 2_000.0
}

#[tokio::test]
async fn least_connections_avoids_a_slow_pod_and_round_robin_does_not() {
    let cluster = Cluster::start(5).await;
    let slow = Mode::Slow(Duration::from_millis(200));
    let share = share_of_the_first(&cluster, LeastConnections::new(), slow).await;
    assert!(share < 0.1, "{share}");
    let share = share_of_the_first(&cluster, RoundRobin::new(), slow).await;
    assert!((share - 0.2).abs() < 0.01, "{share}");
}

/// Without ejection, so that the policies alone must avoid the pod.
async fn is_not_attracted<P: Policy + Clone>(policy: P, most: f64) {
    for status in [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ] {
        let cluster = Cluster::start(5).await;
        for pod in cluster.pods() {
            pod.set(Mode::Slow(Duration::from_millis(5)));
        }
        let mode = Mode::Status(status);
        let share = share_of_the_first(&cluster, policy.clone(), mode).await;
        assert!(share <= most, "{status}: {share}");
    }
}

#[tokio::test]
async fn an_instant_503_or_429_attracts_nothing() {
    // A fifth, plus what closing idle connections may add. For Random, 400 ± 18 of 2,000: five standard deviations.
    let fair = 0.205;
    is_not_attracted(RoundRobin::new(), fair).await;
    is_not_attracted(Random::new(), 0.245).await;
    is_not_attracted(LeastConnections::new(), fair).await;
    is_not_attracted(PowerOfTwo::new(), fair).await;
    is_not_attracted(PeakEwma::new(), fair).await;
}

async fn an_instant_503_is_ejected<P: Policy>(policy: P) {
    let cluster = Cluster::start(5).await;
    let client = client(&cluster, policy, OutlierDetection::new());
    send(&client, 100, 10).await;
    let bad = cluster.pod(0);
    bad.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    let before = bad.requests();
    let tally = send(&client, 2_000, 10).await;
    let reason = EjectionReason::ConsecutiveFailures;
    assert_eq!(state(&client, bad.addr()), EndpointState::Ejected(reason));
    // Five in a row, plus requests that were on their way by then.
    assert!(tally.failed <= 30, "{tally:?}");
    assert_eq!(tally.failed, bad.requests() - before);
}

#[tokio::test]
async fn a_pod_that_answers_503_at_once_is_ejected() {
    an_instant_503_is_ejected(RoundRobin::new()).await;
    an_instant_503_is_ejected(Random::new()).await;
    an_instant_503_is_ejected(LeastConnections::new()).await;
}

#[tokio::test]
async fn with_all_pods_bad_requests_reach_them_all_the_same() {
    let cluster = Cluster::start(4).await;
    let client = client(&cluster, RoundRobin::new(), OutlierDetection::new());
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    let tally = send(&client, 400, 4).await;
    assert_eq!(tally.failed, 400);
    let response = client.get("/").into_future().await.expect("an answer");
    assert_eq!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "the pod's own"
    );
    let is_out = |pod: &Arc<Pod>| matches!(state(&client, pod.addr()), EndpointState::Ejected(_));
    assert_eq!(cluster.pods().iter().filter(|pod| is_out(pod)).count(), 2);
    // With one more away, ejected pods get requests again (panic threshold).
    let last = cluster.pods().into_iter().find(|pod| !is_out(pod));
    last.expect("half are left").kill().await;
    let before: Vec<_> = cluster.pods().iter().map(|pod| pod.requests()).collect();
    send(&client, 200, 4).await;
    let now = cluster.pods();
    let now = now.iter().map(|pod| pod.requests());
    assert_eq!(
        now.zip(before).filter(|(now, before)| now > before).count(),
        3
    );
    for pod in cluster.pods() {
        pod.set(Mode::Healthy);
    }
    let tally = send(&client, 100, 4).await;
    assert_eq!(tally.failed, 0, "they serve as soon as they can");
}

#[tokio::test]
async fn a_new_pod_gets_no_herd() {
    let cluster = Cluster::start(4).await;
    for pod in cluster.pods() {
        pod.set(Mode::Slow(Duration::from_millis(20)));
    }
    let uri = format!("http://{}", cluster.service())
        .parse()
        .expect("a URI");
    let client = http::Client::builder(uri)
        .dns(|_| dns(&cluster).refresh_interval(FAST))
        .policy(LeastConnections::new())
        .build()
        .expect("a client");
    send(&client, 40, 40).await;
    let load = {
        let client = client.clone();
        tokio::spawn(async move { send(&client, 4_000, 40).await })
    };
    let new = cluster.start_pod().await;
    new.set(Mode::Slow(Duration::from_millis(20)));
    cluster.publish();
    let mut most = 0;
    while !load.is_finished() {
        for status in client.endpoints() {
            if status.endpoint.address() == new.addr() {
                most = most.max(status.in_flight);
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(new.requests() > 100, "it is used");
    // 40 in flight over five pods make 8 each.
    assert!(most <= 10, "{most} in flight on the new pod");
    assert_eq!(load.await.expect("no panic").failed, 0);
}

#[tokio::test]
async fn a_flapping_pod_fails_ever_fewer_requests() {
    let cluster = Cluster::start(4).await;
    let health =
        OutlierDetection::new().ejection_time(Duration::from_millis(100), Duration::from_secs(10));
    let client = client(&cluster, RoundRobin::new(), health);
    let bad = cluster.pod(0);
    let (mut failed, begun) = (0, Instant::now());
    // The pod alternates between two faults. Only its trial requests fail, ever more rarely: at 0.1, 0.3, 0.7, 1.5 s.
    for turn in 0..160 {
        let mode = if turn % 8 < 4 {
            Mode::Status(StatusCode::SERVICE_UNAVAILABLE)
        } else {
            Mode::CloseWithoutAnswer
        };
        bad.set(mode);
        failed += send(&client, 40, 4).await.failed;
        sleep(Duration::from_millis(10)).await;
    }
    // One trial for each doubling of the elapsed time.
    let steps = (begun.elapsed().as_secs_f64() / 0.09).log2().ceil() as usize;
    assert!(
        (5..=5 + 8 + steps).contains(&failed),
        "{failed} failed in {steps} steps"
    );
    // A listener that comes and goes costs nothing.
    bad.set(Mode::Healthy);
    for turn in 0..20 {
        if turn % 2 == 0 {
            bad.kill().await;
        } else {
            bad.restart().await.expect("its address is free");
        }
        let tally = send(&client, 40, 1).await;
        assert!(tally.failed <= 1, "one was on its way: {tally:?}");
    }
}
