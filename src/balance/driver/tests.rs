//! Subsets whose endpoints are made ready ahead, as an HTTP client's may be: a new endpoint is unreachable at first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Ready, ready};
use tokio::time::sleep;
use tower::{Service, ServiceExt};

use crate::{
    Balance, BoxError, EjectionReason, Endpoint, EndpointState, OutlierDetection, Route,
    StaticEndpoints, Subset, sync::Mutex,
};

const MILLI: Duration = Duration::from_millis(1);

/// More services than any of these tests needs. One more panics, so that an endless loop of making them fails.
const MOST: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Fails,
    Refuses,
}

/// All pods, by number.
#[derive(Clone, Default)]
struct Pods {
    moods: Arc<Mutex<BTreeMap<u8, Mood>>>,
    made: Arc<AtomicUsize>,
}

impl Pods {
    fn set(&self, host: u8, mood: Mood) {
        let mut moods = self.moods.lock();
        moods.insert(host, mood);
    }

    fn mood(&self, host: u8) -> Mood {
        let moods = self.moods.lock();
        moods.get(&host).copied().unwrap_or(Mood::Well)
    }

    fn made(&self) -> usize {
        self.made.load(Relaxed)
    }

    /// A balancer over `all` pods.
    fn balance(&self, all: u8, subset: Subset, detection: OutlierDetection) -> Balance<Pod> {
        let pods = self.clone();
        let make = move |endpoint: &Endpoint| {
            assert!(pods.made.fetch_add(1, Relaxed) < MOST, "it makes no end");
            let (host, pods) = (host(endpoint), pods.clone());
            Pod { host, pods }
        };
        Balance::builder(StaticEndpoints::from_iter((0..all).map(endpoint)))
            .subset(subset.seed(3))
            .seed(5)
            .outlier_detection(detection)
            .build_ahead::<_, _, ()>(make)
    }
}

#[derive(Clone)]
struct Pod {
    host: u8,
    pods: Pods,
}

impl Service<()> for Pod {
    type Response = u8;
    type Error = BoxError;
    type Future = Ready<Result<u8, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(match self.pods.mood(self.host) {
            Mood::Refuses => Err("connection refused".into()),
            Mood::Well | Mood::Fails => Ok(()),
        })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(match self.pods.mood(self.host) {
            Mood::Fails => Err("internal error".into()),
            Mood::Well | Mood::Refuses => Ok(self.host),
        })
    }
}

fn endpoint(host: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, host], 80).into()).with_pod_name(format!("kv-{host}"))
}

fn host(endpoint: &Endpoint) -> u8 {
    match endpoint.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("pods are on IPv4"),
    }
}

fn hosts(balance: &Balance<Pod>) -> BTreeSet<u8> {
    let pods = balance.endpoints().into_iter();
    pods.map(|pod| host(&pod.endpoint)).collect()
}

fn ejected(balance: &Balance<Pod>) -> usize {
    let out = EndpointState::Ejected(EjectionReason::ConsecutiveFailures);
    let pods = balance.endpoints().into_iter();
    pods.filter(|pod| pod.state == out).count()
}

/// Sends `requests` requests, whatever comes of them, slowly enough that health is reviewed in between.
async fn send(balance: &Balance<Pod>, requests: usize) {
    for _ in 0..requests {
        let _ = balance.clone().oneshot(()).await;
        sleep(20 * MILLI).await;
    }
}

async fn ask(balance: &Balance<Pod>, pod: u8) {
    let route = Route::new().pod(format!("kv-{pod}"));
    let answer = balance.call_with((), route).await;
    assert_eq!(answer.expect("it is there"), pod);
}

fn detection() -> OutlierDetection {
    OutlierDetection::new().success_rate(None)
}

#[tokio::test(start_paused = true)]
async fn ejected_pods_that_a_panic_takes_back_still_get_substitutes() {
    let pods = Pods::default();
    let settings = detection().panic_threshold(0.25);
    let balance = pods.balance(60, Subset::of(4), settings);
    sleep(MILLI).await;
    let own: Vec<_> = hosts(&balance).into_iter().collect();
    assert_eq!((own.len(), pods.made()), (4, 4));
    pods.set(own[0], Mood::Fails);
    pods.set(own[1], Mood::Fails);
    send(&balance, 40).await;
    assert_eq!((ejected(&balance), pods.made()), (2, 4), "two are enough");
    // One of four accepts. With three more that aren't ready yet, it is one of seven: a panic.
    pods.set(own[2], Mood::Refuses);
    send(&balance, 4).await;
    assert_eq!((hosts(&balance).len(), pods.made()), (7, 7));
    assert_eq!(ejected(&balance), 2, "there is no panic any more");
    assert!(hosts(&balance).is_superset(&BTreeSet::from_iter(own)));
}

#[tokio::test(start_paused = true)]
async fn substitutes_do_not_flap_if_one_pod_is_asked_for_by_name_and_another_fails() {
    let pods = Pods::default();
    let balance = pods.balance(60, Subset::of(1), detection());
    sleep(MILLI).await;
    let own = *hosts(&balance).first().expect("one");
    let other = (0..60).find(|host| *host != own).expect("many");
    ask(&balance, other).await;
    pods.set(own, Mood::Fails);
    send(&balance, 20).await;
    ask(&balance, other).await;
    let most = hosts(&balance).len();
    assert!(pods.made() == most && most <= 3, "{} made", pods.made());
}
