//! Short names and the search list.

use super::*;
use crate::discovery::dns::lookup::{
    LookupError, Reason,
    RecordType::{self, A, Aaaa},
};

const FIRST: &str = "web.default.svc.cluster.local";
const SECOND_NAME: &str = "web.svc.cluster.local";
const THIRD: &str = "web.cluster.local";

/// The questions of one look, by name.
fn both(name: &str) -> Vec<(String, RecordType)> {
    vec![(name.to_owned(), A), (name.to_owned(), Aaaa)]
}

#[tokio::test(start_paused = true)]
async fn the_search_list_is_walked_once_and_a_refresh_costs_one_query_per_family() {
    let script = Script::new();
    script.pods(SECOND_NAME, [1, 2]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([1, 2]));
    assert_eq!(
        script.take_asked(),
        [both(FIRST), both(SECOND_NAME)].concat()
    );
    run(&mut dns, 35 * SECOND).await;
    let refreshes = script.take_asked();
    assert!(refreshes.len() >= 12, "{}", refreshes.len());
    assert!(refreshes.iter().all(|(name, _)| name == SECOND_NAME));
    let of = |wanted| {
        refreshes
            .iter()
            .filter(|(_, asked)| *asked == wanted)
            .count()
    };
    assert!(of(A).abs_diff(of(Aaaa)) <= 2, "{} and {}", of(A), of(Aaaa));
}

#[tokio::test(start_paused = true)]
async fn a_full_name_is_looked_up_as_it_is() {
    let script = Script::new();
    script.pods(FIRST, [1]);
    let mut dns = discovery(&format!("{FIRST}.:80"), &script);
    assert_eq!(set(&mut dns).await, hosts([1]));
    assert_eq!(script.take_asked(), both(FIRST));
}

#[tokio::test(start_paused = true)]
async fn nodata_moves_on_as_nxdomain_does() {
    let script = Script::new();
    script.say(FIRST, RecordType::Srv, Say::ServFail); // the name is there, but has no addresses
    script.pods(THIRD, [7]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([7]));
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_walk() {
    for (trouble, record_type) in [(Say::ServFail, A), (Say::Silence, A), (Say::ServFail, Aaaa)] {
        let script = Script::new();
        script.say(FIRST, record_type, trouble.clone());
        script.pods(SECOND_NAME, [9]); // another team's service of the same name
        let mut dns = discovery("web:80", &script);
        for _ in 0..3 {
            let error = answer(&mut dns).await.expect_err("no answer yet");
            assert!(error.to_string().contains(FIRST), "{error}");
        }
        let asked = script.take_asked();
        assert!(
            asked.iter().all(|(name, _)| name == FIRST),
            "{trouble:?}: {asked:?}"
        );
        script.forget(FIRST);
        script.pods(FIRST, [1]);
        assert_eq!(set(&mut dns).await, hosts([1]), "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_found_by_one_family_while_the_other_is_silent() {
    let script = Script::new();
    script.pods(FIRST, [1]);
    script.say(FIRST, Aaaa, Say::Silence);
    let mut dns = discovery("web:80", &script);
    let started = Instant::now();
    assert_eq!(set(&mut dns).await, hosts([1]));
    assert!(
        started.elapsed() < SECOND,
        "it waits for the other family no longer than 50 ms"
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_of_an_empty_walk_lists_all_names() {
    let script = Script::new();
    let mut dns = discovery("web:80", &script);
    let error = answer(&mut dns).await.expect_err("there is nothing");
    for name in [FIRST, SECOND_NAME, THIRD, "web."] {
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_short_name_that_does_not_exist_says_what_to_do_outside_the_cluster() {
    let says = |question: &str, reason| {
        let error = LookupError::new(question, reason).to_string();
        error.contains("outside the cluster use `localhost`")
    };
    let tried = |names: &[&str]| Reason::NoCandidate(names.iter().map(|it| (*it).into()).collect());
    for question in ["web. (A)", "web.default. (AAAA)"] {
        assert!(says(question, Reason::NoName), "{question}");
        assert!(!says(question, Reason::Timeout), "{question}");
    }
    for question in ["web", "web.default"] {
        assert!(says(question, tried(&["web.lan", "web"])), "{question}");
    }
    assert!(says("web", tried(&[FIRST, "web"])));
    let in_cluster = tried(&[FIRST, "web.default"]);
    assert!(!says("web.default", in_cluster), "it is in the cluster");
    assert!(!says("www.example.com. (A)", Reason::NoName));
}

#[tokio::test(start_paused = true)]
async fn a_missing_name_is_searched_for_again_only_once_that_is_confirmed() {
    let script = Script::new();
    script.pods(FIRST, [1]);
    script.pods(SECOND_NAME, [2]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([1]));
    run(&mut dns, 30 * SECOND).await;
    script.take_asked();

    // Gone for less than ten seconds.
    let kept = script.blank();
    run(&mut dns, 9 * SECOND).await;
    drop(kept);
    run(&mut dns, 30 * SECOND).await;
    let asked = script.take_asked();
    assert!(asked.iter().all(|(name, _)| name == FIRST), "{asked:?}");

    // Gone for good.
    script.forget(FIRST);
    let gone = Instant::now();
    while set(&mut dns).await != hosts([2]) {}
    let took = gone.elapsed();
    // A look within 5.5 s finds it gone, one at most 13.2 s later confirms that, and one of the next begins a walk.
    assert!((10 * SECOND..25 * SECOND).contains(&took), "{took:?}");
    script.take_asked();
    run(&mut dns, 30 * SECOND).await;
    let asked = script.take_asked();
    assert!(
        asked.iter().all(|(name, _)| name == SECOND_NAME),
        "pinned anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_search_list_starts_a_walk_and_the_set_stays_meanwhile() {
    let script = Script::new();
    script.pods(FIRST, [1]);
    script.pods("web.other.svc.cluster.local", [2]);
    let mut watch = Watch::new(discovery("web:80", &script));
    assert_eq!(change(&mut watch).await.joined, hosts([1]));
    script.search(&["other.svc.cluster.local"]);
    let moved = change(&mut watch).await;
    assert_eq!((moved.joined, moved.left), (hosts([2]), hosts([1])));
}

#[tokio::test(start_paused = true)]
async fn ipv4_is_used_unless_ipv6_is_preferred() {
    let script = Script::new();
    script.pods(FIRST, [1]);
    let v6 = "fd00::1".parse().expect("an address");
    script.say(FIRST, Aaaa, Say::Addresses(vec![v6]));
    let v6 = vec![Endpoint::new((v6, 80).into())];
    let name = format!("{FIRST}.:80");
    for (prefer, expected) in [(false, hosts([1])), (true, v6)] {
        let dns = Dns::new(name.parse().expect("a target")).prefer_ipv6(prefer);
        assert_eq!(set(&mut with(dns, &script)).await, expected);
    }
}

/// Cases: a wildcard in the last domain of the search list, and a public name with the same text.
#[tokio::test(start_paused = true)]
async fn an_earlier_candidate_takes_over_within_a_minute_of_having_pods() {
    for (target, ours, foreign) in [
        ("web:80", FIRST, "web.corp.example"),
        ("web:80", SECOND_NAME, "web.corp.example"),
        ("api.dev:80", "api.dev.svc.cluster.local", "api.dev"),
    ] {
        for pods_come_after in [1, 39, 40, 41, 200, 1000] {
            let script = Script::new();
            script.search(&[
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "corp.example",
            ]);
            script.pods(foreign, [99]);
            let mut dns = discovery(target, &script);
            assert_eq!(set(&mut dns).await, hosts([99]));
            run(&mut dns, pods_come_after * SECOND).await;
            script.pods(ours, [1, 2]);
            let took = until(&mut dns, &hosts([1, 2])).await;
            assert!(took < 60 * SECOND, "{target}: {took:?}");
            script.take_asked();
            run(&mut dns, 30 * SECOND).await;
            let asked = script.take_asked();
            assert!(asked.iter().all(|(name, _)| name == ours), "{asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_addresses_of_a_later_candidate_go_when_an_earlier_one_takes_over() {
    let script = Script::new();
    script.search(&["default.svc.cluster.local", "corp.example"]);
    script.pods("web.corp.example", [99]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([99]));
    let v6 = "fd00::1".parse().expect("an address");
    script.say(FIRST, Aaaa, Say::Addresses(vec![v6]));
    let ours = [Endpoint::new((v6, 80).into())];
    assert!(until(&mut dns, &ours).await < 60 * SECOND);
    run(&mut dns, 60 * SECOND).await;
    let mut again = dns.clone();
    assert_eq!(set(&mut again).await, ours);
}

#[tokio::test(start_paused = true)]
async fn a_failing_earlier_candidate_keeps_the_pinned_one_and_is_tried_again_sooner() {
    let script = Script::new();
    script.pods(SECOND_NAME, [2]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([2]));
    for trouble in [Say::ServFail, Say::Silence] {
        script.say(FIRST, A, trouble.clone());
        script.say(FIRST, Aaaa, trouble);
        let end = Instant::now() + 300 * SECOND;
        while let Ok(answer) = tokio::time::timeout_at(end, answer(&mut dns)).await {
            assert_eq!(answer.expect("a set"), hosts([2]));
        }
    }
    script.forget(FIRST);
    script.pods(FIRST, [1]);
    let took = until(&mut dns, &hosts([1])).await;
    assert!(took < 20 * SECOND, "{took:?}");
}

/// The first name server's port is closed at the start, like a restarting node-local cache's. A public server finds the
/// public name.
#[tokio::test(start_paused = true)]
async fn a_name_found_through_a_stand_in_gives_way_soon_to_the_first_servers_answer() {
    // It holds however long that server is away.
    for away in [1, 9, 30, 100, 1000] {
        let script = Script::new();
        let ours = "api.dev.svc.cluster.local";
        script.fails_name(ours, Some(Say::NoNameForNow));
        script.pods(ours, [1, 2]);
        script.pods("api.dev", [99]);
        let mut dns = discovery("api.dev:80", &script);
        assert_eq!(set(&mut dns).await, hosts([99]));
        run(&mut dns, away * SECOND).await;
        script.fails_name(ours, None);
        let took = until(&mut dns, &hosts([1, 2])).await;
        assert!(took < 11 * SECOND, "{away}: {took:?}");
    }
}

/// RFC 8020: NXDOMAIN holds for all types of the name.
#[tokio::test(start_paused = true)]
async fn a_nonexistent_candidate_is_skipped_though_the_other_family_fails() {
    const OTHER: &str = "web.other.svc.cluster.local";
    let (first, second) = ("web.other.default.svc.cluster.local", OTHER);
    for trouble in [Say::Silence, Say::ServFail] {
        for prefer_ipv6 in [false, true] {
            let script = Script::new();
            script.fails(Aaaa, trouble.clone());
            script.pods(second, [1, 2]);
            let target = "web.other:80".parse().expect("a target");
            let dns = Dns::new(target).prefer_ipv6(prefer_ipv6);
            let mut dns = with(dns, &script);
            let began = Instant::now();
            assert_eq!(set(&mut dns).await, hosts([1, 2]), "{trouble:?}");
            assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
            let asked = script.take_asked();
            assert!(asked.contains(&(first.to_owned(), A)), "{asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_records_and_a_failure_of_the_other_family_end_the_walk() {
    for trouble in [Say::Silence, Say::ServFail] {
        let script = Script::new();
        // Another record makes the answer for A NODATA.
        script.say(FIRST, RecordType::Srv, Say::ServFail);
        script.say(FIRST, Aaaa, trouble);
        script.pods(SECOND_NAME, [9]);
        let mut dns = discovery("web:80", &script);
        for _ in 0..3 {
            answer(&mut dns)
                .await
                .expect_err("it isn't known what is there");
        }
        let asked = script.take_asked();
        assert!(asked.iter().all(|(name, _)| name == FIRST), "{asked:?}");
    }
}

/// A missing service is searched for again, though one family always fails.
#[tokio::test(start_paused = true)]
async fn a_pinned_name_that_is_gone_is_left_though_the_other_family_fails() {
    let script = Script::new();
    script.fails(Aaaa, Say::ServFail);
    script.pods(FIRST, [1]);
    let mut dns = discovery("web:80", &script);
    assert_eq!(set(&mut dns).await, hosts([1]));
    script.forget(FIRST);
    script.pods(THIRD, [3]);
    let took = until(&mut dns, &hosts([3])).await;
    assert!(took < 60 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_nonexistent_name_is_the_error_though_the_other_family_fails() {
    for target in ["web:80", "web.default.svc.cluster.local.:80"] {
        let script = Script::new();
        script.fails(Aaaa, Say::ServFail);
        let mut dns = discovery(target, &script);
        let end = Instant::now() + 120 * SECOND;
        let mut empty = false;
        let mut told = None;
        while let Ok(answer) = tokio::time::timeout_at(end, answer(&mut dns)).await {
            match answer {
                Ok(set) => empty = set.is_empty(),
                Err(error) => told = Some(error),
            }
        }
        let told = told.expect("an error");
        let error = told.downcast_ref::<LookupError>().expect("of DNS");
        assert!(error.is_not_found(), "{target}: {error}");
        assert!(empty, "{target}: it is confirmed");
    }
}
