//! The source's sets and errors while DNS fails.

use tracing::Level;

use super::{logs::logged, *};
use crate::{discovery::dns::lookup::RecordType, times::DAY};

const NAME: &str = "web.default.svc.cluster.local.:80";
const WEB: &str = "web.default.svc.cluster.local";

#[tokio::test(start_paused = true)]
async fn an_impossible_address_is_warned_about_once_and_keeps_the_set() {
    let script = Script::new();
    script.pods(WEB, [1, 2]);
    let log = logged(Level::WARN, async {
        let mut watch = Watch::new(discovery(NAME, &script));
        change(&mut watch).await;
        let metadata = [169, 254, 169, 254].into();
        script.say(WEB, RecordType::A, Say::Addresses(vec![metadata]));
        let poisoned = timeout(300 * SECOND, watch.next()).await;
        assert!(poisoned.is_err(), "the set stays");
        script.pods(WEB, [2, 3]);
        assert_eq!(change(&mut watch).await.joined, hosts([3]));
    });
    let log = log.await;
    assert_eq!(
        log.matches("no pod can have this address").count(),
        1,
        "{log}"
    );
}

/// Readers forget their last error at each set, so the reason must follow each empty one.
#[tokio::test(start_paused = true)]
async fn each_empty_set_is_followed_by_its_reason() {
    for on_empty in [OnEmpty::Confirm, OnEmpty::Believe] {
        let script = Script::new();
        script.pods(WEB, [1]);
        let dns = Dns::new(NAME.parse().expect("a target")).on_empty(on_empty);
        let mut discovery = with(dns, &script);
        set(&mut discovery).await;
        script.forget(WEB);
        while !set(&mut discovery).await.is_empty() {}
        for _ in 0..10 {
            let error = answer(&mut discovery).await.expect_err("the reason");
            assert!(error.to_string().contains("NXDOMAIN"), "{error}");
            let next = timeout(SECOND / 100, answer(&mut discovery)).await;
            // The next set may come from the other family.
            let empty = match next {
                Ok(answer) => answer.expect("a set"),
                Err(_) => answer(&mut discovery).await.expect("a set"),
            };
            assert_eq!(empty, []);
        }
        script.pods(WEB, [1]);
        while set(&mut discovery).await != hosts([1]) {}
        // Two sets, because each family is asked on its own.
        for _ in 0..2 {
            let next = answer(&mut discovery).await;
            assert_eq!(next.expect("no reason is left over"), hosts([1]));
        }
    }
}

/// That one family has nothing, which is confirmed, makes the other's old addresses no fresher.
#[tokio::test(start_paused = true)]
async fn a_family_without_addresses_does_not_hide_that_the_other_one_fails() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut discovery = discovery(NAME, &script);
    run(&mut discovery, 60 * SECOND).await;
    script.say(WEB, RecordType::A, Say::ServFail);
    let end = Instant::now() + 300 * SECOND;
    skip_sets_before_the_failure(&mut discovery).await;
    while let Ok(answer) = tokio::time::timeout_at(end, answer(&mut discovery)).await {
        answer.expect_err("no set is fresh");
    }
}

/// The look for IPv6 addresses may end before the first failed one for IPv4 addresses.
async fn skip_sets_before_the_failure(discovery: &mut impl Discovery) {
    while answer(discovery).await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_warned_about_once_with_what_becomes_of_the_endpoints() {
    let script = Script::new();
    let log = logged(Level::INFO, async {
        let mut stream = Watch::new(discovery(NAME, &script));
        script.instead(Some(Say::ServFail));
        assert!(timeout(300 * SECOND, stream.next()).await.is_err());
        script.instead(None);
        script.pods(WEB, [1]);
        change(&mut stream).await;
        script.instead(Some(Say::Silence));
        assert!(timeout(300 * SECOND, stream.next()).await.is_err());
    });
    let log = log.await;
    let count = |text: &str| log.matches(text).count();
    // Each family's error has another text.
    assert_eq!(count("no endpoints yet"), 2, "{log}");
    assert_eq!(count("discovery succeeds again"), 1, "{log}");
    assert_eq!(count("the last endpoints stay"), 2, "{log}");
}

#[tokio::test(start_paused = true)]
async fn absurd_intervals_are_clamped() {
    let (shortest, longest) = (Duration::from_millis(10), DAY);
    let dns = || Dns::new(NAME.parse().expect("a target"));
    let bounds = |dns: &Dns| (dns.settings.pace.min, dns.settings.pace.max);
    for zero in [Duration::ZERO, Duration::from_nanos(1)] {
        assert_eq!(bounds(&dns().min_refresh(zero)), (shortest, 5 * SECOND));
        assert_eq!(bounds(&dns().max_refresh(zero)), (shortest, shortest));
        assert_eq!(bounds(&dns().refresh_interval(zero)), (shortest, shortest));
    }
    let ever = Duration::MAX;
    assert_eq!(bounds(&dns().min_refresh(ever)), (longest, longest));
    assert_eq!(bounds(&dns().max_refresh(ever)), (SECOND, longest));
    assert_eq!(bounds(&dns().refresh_interval(ever)), (longest, longest));
    for interval in [shortest, longest] {
        let script = Script::new();
        script.pods(WEB, [1]);
        let absurd = if interval == shortest {
            Duration::ZERO
        } else {
            ever
        };
        let mut discovery = with(dns().refresh_interval(absurd), &script);
        set(&mut discovery).await;
        let looks = async { while poll_fn(|cx| discovery.poll_next(cx)).await.is_ok() {} };
        assert!(timeout(20 * interval, looks).await.is_err());
        let looks = script.times(RecordType::A).len();
        assert!((15..=24).contains(&looks), "{interval:?}: {looks} looks");
    }
}
