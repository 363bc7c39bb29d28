//! How the policies treat unequal pods, in virtual time: two requests a millisecond, to scripted pods with scripted
//! latencies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_headless::{
    Balance, BoxError, Discovery, Endpoint, LeastConnections, OutlierDetection, PeakEwma, Policy,
    RoundRobin,
};

const MILLI: Duration = Duration::from_millis(1);

/// Requests a millisecond.
const RATE: u32 = 2;

/// One pod: its behaviour, and its requests.
struct Pod {
    millis: AtomicU64,
    fails: AtomicBool,
    hangs: watch::Sender<bool>,
    got: AtomicU32,
}

impl Pod {
    fn new() -> Self {
        Self {
            millis: AtomicU64::new(1),
            fails: AtomicBool::new(false),
            hangs: watch::Sender::new(false),
            got: AtomicU32::new(0),
        }
    }

    async fn answer(self: Arc<Self>) -> Result<(), BoxError> {
        self.got.fetch_add(1, Relaxed);
        if self.fails.load(Relaxed) {
            return Err("503".into());
        }
        sleep(Duration::from_millis(self.millis.load(Relaxed))).await;
        let mut hangs = self.hangs.subscribe();
        hangs.wait_for(|hangs| !hangs).await?;
        Ok(())
    }
}

/// Discovery with scripted answers.
struct Told(mpsc::UnboundedReceiver<Vec<Endpoint>>);

impl Discovery for Told {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(set)) => Poll::Ready(Ok(set)),
            _ => Poll::Pending,
        }
    }
}

type Service_ = BoxCloneSyncService<(), (), BoxError>;

/// Ten pods behind a balancer; the first one is different.
struct Fleet {
    pods: Vec<Arc<Pod>>,
    balance: Balance<Service_>,
    sets: mpsc::UnboundedSender<Vec<Endpoint>>,
    lost: Arc<AtomicU32>,
}

impl Fleet {
    fn new(policy: impl Policy, health: OutlierDetection) -> Self {
        let fleet = Self::starting_slowly(policy, health, Duration::ZERO);
        fleet.tell(0..10);
        fleet
    }

    fn starting_slowly(policy: impl Policy, health: OutlierDetection, window: Duration) -> Self {
        let pods: Vec<_> = (0..10).map(|_| Arc::new(Pod::new())).collect();
        let services = pods.clone();
        let (sets, told) = mpsc::unbounded_channel();
        let balance = Balance::builder(Told(told))
            .policy(policy)
            .outlier_detection(health)
            .slow_start(window)
            .seed(11)
            .build(move |endpoint: &Endpoint| {
                let host = endpoint.address().to_string();
                let host = host.split(['.', ':']).nth(3).and_then(|it| it.parse().ok());
                let pod = services[host.unwrap_or(0_usize)].clone();
                BoxCloneSyncService::new(service_fn(move |()| pod.clone().answer()))
            });
        Self {
            pods,
            balance,
            sets,
            lost: Arc::default(),
        }
    }

    /// Makes these pods the set.
    fn tell(&self, hosts: std::ops::Range<u8>) {
        let endpoints = hosts.map(|host| Endpoint::new(([10, 0, 0, host], 80).into()));
        let told = self.sets.send(endpoints.collect());
        told.expect("a balancer");
    }

    fn odd(&self) -> &Pod {
        &self.pods[0]
    }

    /// Sends requests for `time`, each cancelled after a second. Returns what part of them the odd pod got.
    async fn send(&self, time: Duration) -> f64 {
        let got = || self.pods.iter().map(|pod| pod.got.load(Relaxed)).sum();
        let (all, odd): (u32, u32) = (got(), self.odd().got.load(Relaxed));
        let mut ticks = interval(MILLI);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..time.as_millis() {
            ticks.tick().await;
            for _ in 0..RATE {
                let (mut balance, lost) = (self.balance.clone(), self.lost.clone());
                tokio::spawn(async move {
                    let request = async { balance.ready().await?.call(()).await };
                    let answer = timeout(Duration::from_secs(1), request).await;
                    if !matches!(answer, Ok(Ok(()))) {
                        lost.fetch_add(1, Relaxed);
                    }
                });
            }
        }
        f64::from(self.odd().got.load(Relaxed) - odd) / f64::from(got() - all)
    }
}

const FAIR: f64 = 0.1;

async fn peak_ewma_spares_a_slow_pod(health: OutlierDetection) {
    let fleet = Fleet::new(PeakEwma::new(), health);
    fleet.odd().millis.store(20, Relaxed);
    fleet.send(Duration::from_secs(2)).await;
    let share = fleet.send(Duration::from_secs(60)).await;
    assert!(share < 1e-4, "{share}");
    fleet.odd().millis.store(1, Relaxed);
    fleet.send(Duration::from_secs(30)).await;
    let share = fleet.send(Duration::from_secs(2)).await;
    assert!(share > FAIR / 2.0, "{share}");
}

async fn peak_ewma_spares_a_pod_that_hangs(health: OutlierDetection) {
    let fleet = Fleet::new(PeakEwma::new(), health);
    fleet.send(Duration::from_secs(3)).await;
    fleet.odd().hangs.send_replace(true);
    fleet.send(Duration::from_secs(3)).await;
    fleet.odd().hangs.send_replace(false);
    fleet.send(Duration::from_secs(2)).await;
    let lost = fleet.lost.load(Relaxed);
    fleet.send(Duration::from_secs(30)).await;
    let share = fleet.send(Duration::from_secs(2)).await;
    assert!(lost <= 3, "{lost}");
    assert!(share > FAIR / 2.0, "{share}");
}

async fn failing_fast_attracts_no_requests_of_peak_ewma(health: OutlierDetection) {
    let fleet = Fleet::new(PeakEwma::new(), health);
    fleet.odd().fails.store(true, Relaxed);
    let share = fleet.send(Duration::from_secs(10)).await;
    assert!(share <= FAIR, "{share}");
}

async fn a_new_pod_starts_slowly(health: OutlierDetection) {
    starts_slowly(RoundRobin::new(), health.clone()).await;
    starts_slowly(LeastConnections::new(), health.clone()).await;
    starts_slowly(PeakEwma::new(), health).await;
}

async fn starts_slowly(policy: impl Policy, health: OutlierDetection) {
    const SECOND: Duration = Duration::from_secs(1);
    let fleet = Fleet::starting_slowly(policy, health, 10 * SECOND);
    fleet.tell(1..10);
    let others = fleet.send(SECOND).await;
    assert_eq!(others, 0.0, "it isn't there yet");
    let got = |pod: &Arc<Pod>| pod.got.load(Relaxed);
    let fair = 2_000 / 9;
    assert!(
        fleet.pods[1..]
            .iter()
            .all(|pod| got(pod).abs_diff(fair) < 70),
        "those of the beginning get their shares at once"
    );
    fleet.tell(0..10);
    for second in 0..10 {
        let part = fleet.send(SECOND).await / FAIR;
        let expected = (f64::from(second) + 0.5) / 10.0;
        assert!((part - expected).abs() < 0.35, "{part} in second {second}");
        assert!(second > 0 || part < 0.3, "{part} in the first second");
    }
    let part = fleet.send(2 * SECOND).await / FAIR;
    assert!((0.8..1.2).contains(&part), "{part}");
}

macro_rules! with_and_without_health {
    ($($test:ident),*) => {
        mod with_health {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(super::OutlierDetection::new()).await;
            })*
        }

        mod without_health {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(super::OutlierDetection::off()).await;
            })*
        }
    };
}

with_and_without_health!(
    peak_ewma_spares_a_slow_pod,
    peak_ewma_spares_a_pod_that_hangs,
    failing_fast_attracts_no_requests_of_peak_ewma,
    a_new_pod_starts_slowly
);
