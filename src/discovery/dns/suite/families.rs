//! Two address families, of which one refuses.

use std::net::IpAddr;

use super::*;
use crate::discovery::dns::lookup::{
    RecordType::{self, Aaaa, Srv},
    Service,
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
        // And it stays.
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
async fn without_the_other_family_nothing_changes() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let mut dns = discovery(&format!("{WEB}.:80"), &script);
    let first = set(&mut dns).await;
    refuse(&mut dns, &first);
    run(&mut dns, 60 * SECOND).await;
    assert_eq!(set(&mut dns).await, first);
    // It comes later.
    pods_v6(&script, [1]);
    let (set, took) = next(&mut dns, &first).await;
    assert_eq!(set, hosts_v6([1]));
    assert!(took < 6 * SECOND, "{took:?}");
}

/// A Deployment that is down in both families must not make its clients run in circles.
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
async fn the_preferred_family_is_used_again_once_nothing_is_left_of_what_refused() {
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
