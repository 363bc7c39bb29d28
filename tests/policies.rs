//! What the policies make of pods that are unlike each other, in virtual time: two requests a millisecond, to pods that do what
//! they are told and take as long as they are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_headless::{Balance, BoxError, Endpoint, Fixed, Health, PeakEwma, Policy};

const MILLI: Duration = Duration::from_millis(1);

/// Requests a millisecond.
const RATE: u32 = 2;

/// One pod: how it does, and what it has got.
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

type Service_ = BoxCloneSyncService<(), (), BoxError>;

/// Ten pods behind a balancer; the first one is the odd one.
struct Fleet<P: Policy> {
    pods: Vec<Arc<Pod>>,
    balance: Balance<Service_, P>,
    lost: Arc<AtomicU32>,
}

impl<P: Policy> Fleet<P> {
    fn new(policy: P, health: Health) -> Self {
        let pods: Vec<_> = (0..10).map(|_| Arc::new(Pod::new())).collect();
        let endpoints = (0..10).map(|host| ([10, 0, 0, host], 80).into());
        let services = pods.clone();
        let balance = Balance::builder(Fixed::new(endpoints))
            .policy(policy)
            .health(health)
            .build(move |endpoint: &Endpoint| {
                let host = endpoint.address().to_string();
                let host = host.split(['.', ':']).nth(3).and_then(|it| it.parse().ok());
                let pod = services[host.unwrap_or(0_usize)].clone();
                BoxCloneSyncService::new(service_fn(move |()| pod.clone().answer()))
            });
        Self {
            pods,
            balance,
            lost: Arc::default(),
        }
    }

    fn odd(&self) -> &Pod {
        &self.pods[0]
    }

    /// Sends requests for so long, each of which is given up after a second. Returns what part of them the odd pod got.
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

async fn peak_ewma_spares_a_slow_pod(health: Health) {
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

async fn peak_ewma_spares_a_pod_that_hangs(health: Health) {
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

async fn peak_ewma_believes_no_pod_that_fails_at_once(health: Health) {
    let fleet = Fleet::new(PeakEwma::new(), health);
    fleet.odd().fails.store(true, Relaxed);
    let share = fleet.send(Duration::from_secs(10)).await;
    assert!(share <= FAIR, "{share}");
}

macro_rules! with_and_without_health {
    ($($test:ident),*) => {
        mod with_health {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(super::Health::new()).await;
            })*
        }

        mod without_health {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(super::Health::off()).await;
            })*
        }
    };
}

with_and_without_health!(
    peak_ewma_spares_a_slow_pod,
    peak_ewma_spares_a_pod_that_hangs,
    peak_ewma_believes_no_pod_that_fails_at_once
);
