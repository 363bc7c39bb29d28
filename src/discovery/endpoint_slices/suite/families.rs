//! A dual-stack Service, one of whose families refuses connections.

use super::*;

fn hosts_v6(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| {
        let address = format!("[fd00::{host}]:80").parse().expect("an address");
        Endpoint::new(address).with_terminating(false)
    };
    hosts.into_iter().map(endpoint).collect()
}

fn dual_stack(prefer_ipv6: bool) -> (Script, Shared<Watcher<Script>>) {
    let script = Script::default();
    script.slice("web-v4", [1, 2]);
    script.slice_v6("web-v6", [1, 2]);
    let mut settings = Settings::new("web.default:80".parse().expect("a target"));
    settings.prefer_ipv6 = prefer_ipv6;
    let discovery = Shared::new(crate::discovery::endpoint_slices::watcher(
        &settings,
        script.clone(),
    ));
    (script, discovery)
}

fn refuse(discovery: &mut impl Discovery, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        discovery.refused(endpoint);
    }
}

/// The last set that comes within `time`.
async fn last(discovery: &mut impl Discovery, time: Duration) -> Option<Vec<Endpoint>> {
    let answers = run(discovery, time).await;
    answers.into_iter().filter_map(Result::ok).next_back()
}

#[tokio::test(start_paused = true)]
async fn the_other_family_is_used_at_once_when_all_of_the_preferred_one_refuse() {
    for (prefer_ipv6, first, other) in [
        (false, hosts([1, 2]), hosts_v6([1, 2])),
        (true, hosts_v6([1, 2]), hosts([1, 2])),
    ] {
        let (script, mut discovery) = dual_stack(prefer_ipv6);
        assert_eq!(set(&mut discovery).await, first);
        run(&mut discovery, 5 * SECOND).await;
        refuse(&mut discovery, &first[..1]);
        assert_eq!(run(&mut discovery, 5 * SECOND).await.len(), 0, "one works");
        refuse(&mut discovery, &first[1..]);
        let answer = poll_immediate(set(&mut discovery)).await;
        assert_eq!(answer.expect("at once"), other, "each pod once");
        // It stays in use.
        for _ in 0..10 {
            script.bookmark();
            assert_eq!(set(&mut discovery).await, other);
            assert_eq!(run(&mut discovery, MINUTE).await.len(), 0);
        }
    }
}

/// A pod can't have a link-local address.
#[tokio::test(start_paused = true)]
async fn a_family_of_impossible_addresses_gives_way_to_the_other() {
    let script = Script::default();
    script.slice_at("web-v4", "169.254.0.", [1, 2]);
    let mut discovery = discovery(&script);
    let alone = error(&mut discovery).await.to_string();
    assert!(alone.contains("link-local"), "{alone}");
    run(&mut discovery, 5 * SECOND).await;
    script.slice_v6("web-v6", [1, 2]);
    assert_eq!(set(&mut discovery).await, hosts_v6([1, 2]));
    script.delete("web-v6");
    error(&mut discovery).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_again_keeps_its_family() {
    let (_, mut discovery) = dual_stack(false);
    let first = set(&mut discovery).await;
    run(&mut discovery, 5 * SECOND).await;
    refuse(&mut discovery, &first[..1]);
    discovery.accepted(&first[0]);
    refuse(&mut discovery, &first[1..]);
    assert_eq!(run(&mut discovery, MINUTE).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_preferred_family_is_used_again_once_all_that_refused_are_gone() {
    let (script, mut discovery) = dual_stack(false);
    let first = set(&mut discovery).await;
    run(&mut discovery, 5 * SECOND).await;
    refuse(&mut discovery, &first);
    assert_eq!(set(&mut discovery).await, hosts_v6([1, 2]));
    script.slice("web-v4", [2, 3]);
    let still = last(&mut discovery, MINUTE).await;
    assert_eq!(still, Some(hosts_v6([1, 2])), "one is still there");
    script.slice("web-v4", [3, 4]);
    assert_eq!(last(&mut discovery, MINUTE).await, Some(hosts([3, 4])));
}

#[tokio::test(start_paused = true)]
async fn refusals_change_nothing_until_the_other_family_comes() {
    let script = Script::default();
    script.slice("web-v4", [1]);
    let mut discovery = discovery(&script);
    let first = set(&mut discovery).await;
    run(&mut discovery, 5 * SECOND).await;
    refuse(&mut discovery, &first);
    assert_eq!(run(&mut discovery, 5 * SECOND).await.len(), 0);
    script.slice_v6("web-v6", [1]);
    assert_eq!(last(&mut discovery, SECOND).await, Some(hosts_v6([1])));
    // Without it, the preferred family is all there is.
    script.delete("web-v6");
    assert_eq!(last(&mut discovery, SECOND).await, Some(hosts([1])));
}
