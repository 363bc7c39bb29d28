//! Two address families, one of which refuses connections or fails.

use std::net::IpAddr;

use super::*;
use crate::discovery::{
    StaticEndpoints,
    dns::lookup::{
        LookupError,
        RecordType::{self, Aaaa, Srv},
        Service,
    },
};

const WEB: &str = "web.default.svc.cluster.local";
const PORT: &str = "_http._tcp.web.default.svc.cluster.local";

fn v6(host: u8) -> IpAddr {
    format!("fd00::{host}").parse().expect("an address")
}

fn hosts_v6(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new((v6(host), 80).into());
    hosts.into_iter().map(endpoint).collect()
}

fn pods_v6(script: &Script, hosts: impl IntoIterator<Item = u8>) {
    let addresses = hosts.into_iter().map(v6).collect();
    script.say(WEB, Aaaa, Say::Addresses(addresses));
}

fn dual_stack(prefer_ipv6: bool) -> (Script, impl Discovery) {
    let script = Script::new();
    script.pods(WEB, [1, 2]);
    pods_v6(&script, [1, 2]);
    let target = format!("{WEB}.:80").parse().expect("a target");
    let dns = with(Dns::new(target).prefer_ipv6(prefer_ipv6), &script);
    (script, dns)
}

fn refuse(discovery: &mut impl Discovery, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        discovery.refused(endpoint);
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_family_is_used_at_once_when_all_of_the_preferred_one_refuse() {
    for (prefer_ipv6, first, other) in [
        (false, hosts([1, 2]), hosts_v6([1, 2])),
        (true, hosts_v6([1, 2]), hosts([1, 2])),
    ] {
        let (_, mut dns) = dual_stack(prefer_ipv6);
        assert_eq!(set(&mut dns).await, first);
        run(&mut dns, SECOND).await;
        refuse(&mut dns, &first[..1]);
        run(&mut dns, 60 * SECOND).await;
        refuse(&mut dns, &first[1..]);
        let (set, took) = next(&mut dns, &first).await;
        assert_eq!(set, other, "each pod once");
        assert!(took < SECOND / 10, "{took:?}");
        // It stays in use.
        run(&mut dns, 3600 * SECOND).await;
        let still = super::set(&mut dns).await;
        assert_eq!(still, other);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_again_keeps_its_family() {
    let (_, mut dns) = dual_stack(false);
    let first = set(&mut dns).await;
    run(&mut dns, SECOND).await;
    refuse(&mut dns, &first[..1]);
    dns.accepted(&first[0]);
    refuse(&mut dns, &first[1..]);
    let end = Instant::now() + 300 * SECOND;
    while let Ok(answer) = tokio::time::timeout_at(end, answer(&mut dns)).await {
        assert_eq!(answer.expect("a set"), first);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_change_nothing_without_the_other_family() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut dns = discovery(&format!("{WEB}.:80"), &script);
    let first = set(&mut dns).await;
    refuse(&mut dns, &first);
    run(&mut dns, 60 * SECOND).await;
    assert_eq!(set(&mut dns).await, first);
    // The other family comes later.
    pods_v6(&script, [1]);
    let (set, took) = next(&mut dns, &first).await;
    assert_eq!(set, hosts_v6([1]));
    assert!(took < 6 * SECOND, "{took:?}");
}

/// A Deployment that is down in both families must not make its clients switch all the time.
#[tokio::test(start_paused = true)]
async fn families_that_both_refuse_take_turns_with_growing_pauses() {
    let (_, mut dns) = dual_stack(false);
    let mut last = set(&mut dns).await;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        refuse(&mut dns, &last);
        let (set, took) = next(&mut dns, &last).await;
        pauses.push(took.as_secs_f64().round());
        last = set;
    }
    assert_eq!(pauses, [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
}

#[tokio::test(start_paused = true)]
async fn the_preferred_family_is_used_again_once_all_that_refused_are_gone() {
    let (script, mut dns) = dual_stack(false);
    let first = set(&mut dns).await;
    refuse(&mut dns, &first);
    let (other, _) = next(&mut dns, &first).await;
    assert_eq!(other, hosts_v6([1, 2]));
    script.pods(WEB, [2, 3]);
    run(&mut dns, 60 * SECOND).await;
    assert_eq!(
        set(&mut dns).await,
        other,
        "one that refused is still there"
    );
    script.pods(WEB, [3, 4]);
    let (again, took) = next(&mut dns, &other).await;
    assert_eq!(again, hosts([3, 4]));
    assert!(took < 6 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_targets_of_srv_records_are_reached_by_the_other_family_too() {
    let target = format!("web-1.{WEB}");
    let services = vec![Service {
        priority: 0,
        weight: 100,
        port: 80,
        target: target.clone(),
    }];
    let named = |address: IpAddr| Endpoint::new((address, 80).into()).with_hostname("web-1");
    let glue = vec![
        (target.clone(), script::address(1)),
        (target.clone(), v6(1)),
    ];
    for (prefer_ipv6, has_glue) in [(false, true), (true, true), (false, false)] {
        let script = Script::new();
        let glue = if has_glue { glue.clone() } else { Vec::new() };
        let say = Say::Services {
            services: services.clone(),
            glue,
            truncated: false,
        };
        script.say(PORT, Srv, say);
        script.say(&target, Aaaa, Say::Addresses(vec![v6(1)]));
        script.say(
            &target,
            RecordType::A,
            Say::Addresses(vec![script::address(1)]),
        );
        let dns = Dns::srv(&format!("{PORT}.")).expect("a service");
        let mut dns = with(dns.prefer_ipv6(prefer_ipv6), &script);
        let families = [named(script::address(1)), named(v6(1))];
        let (first, other) = match prefer_ipv6 {
            false => (&families[..1], &families[1..]),
            true => (&families[1..], &families[..1]),
        };
        assert_eq!(set(&mut dns).await, first);
        refuse(&mut dns, first);
        let (set, took) = next(&mut dns, first).await;
        assert_eq!(set, other);
        assert!(took < 2 * SECOND, "{took:?}");
    }
}

/// The first endpoint, if only one family has pods, whose records come slowly, and the other family fails.
async fn one_family_fails_first(records: RecordType, delay: Duration, trouble: Say) -> Endpoint {
    let script = Script::new();
    match records {
        Aaaa => pods_v6(&script, [1]),
        _ => script.pods(WEB, [1]),
    }
    let other = if records == Aaaa { RecordType::A } else { Aaaa };
    script.say(WEB, other, trouble);
    script.slow(records, delay);
    let elsewhere = StaticEndpoints::new([hosts([9])[0].address()]);
    let mut discovery = discovery(&format!("{WEB}.:80"), &script).or(elsewhere);
    let first = answer(&mut discovery).await.expect("a set, and no error");
    first[0].clone()
}

#[tokio::test(start_paused = true)]
async fn one_familys_failure_does_not_fall_back_before_the_other_has_answered() {
    for delay in [SECOND / 10, SECOND] {
        for (records, pod) in [(RecordType::A, hosts([1])), (Aaaa, hosts_v6([1]))] {
            let first = one_family_fails_first(records, delay, Say::ServFail).await;
            assert_eq!(first, pod[0], "{records}");
        }
    }
}

/// The set waits a moment for the preferred family, which fails meanwhile.
#[tokio::test(start_paused = true)]
async fn one_familys_failure_is_not_yielded_before_the_set_that_waits_for_it() {
    let script = Script::new();
    pods_v6(&script, [1]);
    script.say(WEB, RecordType::A, Say::ServFail);
    script.slow(RecordType::A, SECOND / 50);
    let mut discovery = discovery(&format!("{WEB}.:80"), &script);
    let first = answer(&mut discovery).await.expect("a set, and no error");
    assert_eq!(first, hosts_v6([1]));
    let told = async { while answer(&mut discovery).await.is_ok() {} };
    timeout(60 * SECOND, told)
        .await
        .expect("the failure comes after it");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_yielded_once_the_other_family_has_nothing_either() {
    let silent_for = 4 * SECOND;
    for (say, known_after) in [
        (Some(Say::ServFail), SECOND),
        (Some(Say::Silence), silent_for),
        (None, SECOND),
    ] {
        let script = Script::new();
        script.say(WEB, Aaaa, Say::ServFail);
        script.slow(RecordType::A, SECOND);
        if let Some(say) = say {
            script.say(WEB, RecordType::A, say);
        }
        let mut discovery = discovery(&format!("{WEB}.:80"), &script);
        let began = Instant::now();
        let error = answer(&mut discovery).await.expect_err("nobody knows");
        assert!(began.elapsed() >= known_after);
        let error = error.downcast_ref::<LookupError>().expect("DNS's");
        assert!(!error.is_not_found(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_nonexistent_name_loses_its_ipv6_endpoints_too() {
    for prefer_ipv6 in [false, true] {
        let (script, mut dns) = dual_stack(prefer_ipv6);
        let first = set(&mut dns).await;
        run(&mut dns, 60 * SECOND).await;
        script.forget(WEB);
        script.fails(Aaaa, Say::ServFail);
        let gone = Instant::now();
        let mut last = first;
        while !last.is_empty() {
            (last, _) = next(&mut dns, &last).await;
        }
        assert!(gone.elapsed() >= 10 * SECOND, "confirmed");
        let error = answer(&mut dns).await.expect_err("the reason");
        assert!(error.to_string().contains("NXDOMAIN"), "{error}");
        // It comes back by the family that answers.
        script.pods(WEB, [3]);
        until(&mut dns, &hosts([3])).await;
    }
}

/// A long confirmed absence of IPv4 addresses doesn't count as a confirmation that the name doesn't exist.
#[tokio::test(start_paused = true)]
async fn one_nxdomain_keeps_ipv6_endpoints_however_long_there_was_no_ipv4() {
    let script = Script::new();
    pods_v6(&script, [1]);
    let mut dns = discovery(&format!("{WEB}.:80"), &script);
    run(&mut dns, 300 * SECOND).await;
    script.fails(Aaaa, Say::ServFail);
    let blank = script.blank();
    script.take_asked();
    only(&mut dns, &hosts_v6([1]), 9 * SECOND).await;
    assert!(
        script
            .take_asked()
            .contains(&(WEB.to_owned(), RecordType::A))
    );
    drop(blank);
    only(&mut dns, &hosts_v6([1]), 60 * SECOND).await;
}

/// Some servers answer NXDOMAIN to A for names that have AAAA records (the reverse of RFC 4074 §4.2).
#[tokio::test(start_paused = true)]
async fn nxdomain_for_a_is_not_believed_of_a_name_with_ipv6_endpoints() {
    let script = Script::new();
    pods_v6(&script, [1]);
    script.fails(RecordType::A, Say::NoName);
    let mut dns = discovery(&format!("{WEB}.:80"), &script);
    assert_eq!(set(&mut dns).await, hosts_v6([1]));
    run(&mut dns, 300 * SECOND).await;
    script.fails(Aaaa, Say::ServFail);
    only(&mut dns, &hosts_v6([1]), 300 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn with_on_empty_ignore_ipv6_endpoints_stay() {
    let script = Script::new();
    pods_v6(&script, [1]);
    let target = format!("{WEB}.:80").parse().expect("a target");
    let mut dns = with(Dns::new(target).on_empty(OnEmpty::Ignore), &script);
    run(&mut dns, 60 * SECOND).await;
    script.forget(WEB);
    script.fails(Aaaa, Say::ServFail);
    only(&mut dns, &hosts_v6([1]), 300 * SECOND).await;
}

/// Asserts that every set within `time` is `expected`.
async fn only(discovery: &mut impl Discovery, expected: &[Endpoint], time: Duration) {
    let end = Instant::now() + time;
    while let Ok(answer) = tokio::time::timeout_at(end, answer(discovery)).await {
        if let Ok(set) = answer {
            assert_eq!(set, expected);
        }
    }
}
