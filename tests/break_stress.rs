//! Adversarial: everything at once, on several threads; and then all has to be quiet, and even.

#[path = "support/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

use std::{error::Error as _, time::Duration};

use scripted::{Behaviour, Pods, Request, discovery, endpoint};
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BuiltInPolicy, EndpointState, HealthCheck, BoxError, Endpoint, Route,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

async fn storm(policy: &str) {
    let (script, source) = discovery();
    let pods = Pods::default();
    let policy: BuiltInPolicy = policy.parse().expect("a policy");
    let check = HealthCheck::by(|_: Endpoint| async { Ok::<_, BoxError>(()) });
    let mut balance = Balance::builder(source)
        .policy(policy)
        .slow_start(50 * MILLI)
        .health_check(check.interval(20 * MILLI))
        .ready_timeout(20 * MILLI)
        .build(pods.make());
    script.answer(1..=8);
    balance.ready().await.expect("ready");
    let end = Instant::now() + 4 * SECOND;
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let mut balance = balance.clone();
            tokio::spawn(async move {
                let mut turn = task;
                while Instant::now() < end {
                    turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let route = match turn >> 33 & 3 {
                        0 => Route::new().avoid(&endpoint((turn >> 40 & 7) as u8 + 1)),
                        _ => Route::new(),
                    };
                    let call = match turn >> 50 & 1 {
                        0 => balance.call(Request(1)),
                        _ => balance.call_with(Request(1), route),
                    };
                    let _ = timeout((turn >> 45 & 3) as u32 * MILLI, call).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let all = [
        Behaviour::Answer,
        Behaviour::Fail,
        Behaviour::HandBack,
        Behaviour::NotReady,
        Behaviour::Hold,
        Behaviour::Pending,
        Behaviour::Answer,
    ];
    let mut turn = 7_usize;
    while Instant::now() < end {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        pods.set([(turn >> 40 & 7) as u8 + 1], all[(turn >> 50) % all.len()]);
        if turn >> 60 & 3 == 0 {
            let gone = (turn >> 30 & 7) as u8 + 1;
            script.answer((1..=8).filter(|&it| it != gone));
        }
        sleep(MILLI).await;
    }
    pods.set(1..=8, Behaviour::Answer);
    script.answer(1..=8);
    for task in tasks {
        task.await.expect("no panic");
    }
    let quiet = Instant::now();
    let is_well = |balance: &Balance<_>| {
        let all = balance.endpoints();
        all.len() == 8 && all.iter().all(|it| it.state == EndpointState::Available)
    };
    while !is_well(&balance) && quiet.elapsed() < 40 * SECOND {
        let _ = balance.call(Request(1)).await;
        sleep(5 * MILLI).await;
    }
    assert!(is_well(&balance), "{:#?}", balance.endpoints());
    sleep(2 * SECOND).await;
    assert!(balance.endpoints().iter().all(|it| it.in_flight == 0));
    balance.call(Request(1)).await.expect("an answer");
    sleep(SECOND / 2).await;
    let before = [1, 2, 3, 4, 5, 6, 7, 8].map(|it| pods.counts(it).calls);
    for _ in 0..800 {
        balance.call(Request(1)).await.expect("an answer");
    }
    let shares: Vec<_> = (1..=8).zip(before).map(|(it, was)| pods.counts(it).calls - was).collect();
    assert!(shares.iter().all(|share| (50..150).contains(share)), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn after_a_storm_all_is_quiet_least_connections() {
    storm("least-connections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn after_a_storm_all_is_quiet_round_robin() {
    storm("ROUND_ROBIN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn after_a_storm_all_is_quiet_power_of_two() {
    storm("power-of-two").await;
}

/// Regression against 58f09f6: an empty set took the error away that says why it is empty, where that came first.
#[tokio::test(start_paused = true)]
async fn an_empty_set_keeps_the_error_that_came_before_it() {
    let (script, source) = discovery();
    let mut balance = Balance::builder(source).build(Pods::default().make());
    script.fail("NXDOMAIN");
    script.answer([]);
    balance.ready().await.expect("ready");
    let error = balance.call(Request(1)).await.expect_err("no endpoints");
    assert!(error.is_no_endpoints());
    assert!(error.source().is_some(), "discovery's last error is NXDOMAIN");
}
