//! SRV records.

use std::net::IpAddr;

use super::{script::address, *};
use crate::discovery::dns::lookup::{
    LookupError,
    RecordType::{A, Aaaa, Srv},
    Service,
};

const SERVICE: &str = "web.default.svc.cluster.local";
const PORT: &str = "_http._tcp.web.default.svc.cluster.local";

fn service(target: &str, port: u16) -> Service {
    Service {
        priority: 0,
        weight: 100,
        port,
        target: target.to_owned(),
    }
}

/// A StatefulSet's pods, the first `glued` with their addresses.
fn stateful(pods: u8, glued: u8, truncated: bool) -> Say {
    let target = |pod| format!("web-{pod}.{SERVICE}");
    Say::Services {
        services: (1..=pods).map(|pod| service(&target(pod), 80)).collect(),
        glue: (1..=glued).map(|pod| (target(pod), address(pod))).collect(),
        truncated,
    }
}

fn named(pods: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let name = |pod| format!("web-{pod}");
    let endpoints = pods.into_iter();
    endpoints
        .flat_map(|pod| {
            hosts([pod])
                .into_iter()
                .map(move |it| it.with_hostname(name(pod)))
        })
        .collect()
}

fn discover(script: &Script) -> impl Discovery + use<> {
    with(Dns::srv(&format!("{PORT}.")).expect("a service"), script)
}

#[tokio::test(start_paused = true)]
async fn hostnames_and_addresses_come_in_one_answer() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(3, 3, false));
    assert_eq!(set(&mut discover(&script)).await, named([1, 2, 3]));
    assert_eq!(script.take_asked(), [(PORT.to_owned(), Srv)]);
}

#[tokio::test(start_paused = true)]
async fn missing_addresses_come_from_the_services_own_name_without_hostnames() {
    for (glued, truncated) in [(0, false), (3, true)] {
        let script = Script::new();
        script.say(PORT, Srv, stateful(3, glued, truncated));
        script.pods(SERVICE, [1, 2, 3]);
        assert_eq!(set(&mut discover(&script)).await, hosts([1, 2, 3]));
        let questions = [(PORT.to_owned(), Srv), (SERVICE.to_owned(), A)];
        assert_eq!(script.take_asked(), questions, "{glued} glued");
    }
}

/// A packet without room for all addresses need not be marked as truncated.
#[tokio::test(start_paused = true)]
async fn if_some_addresses_are_missing_the_question_is_asked_again_over_tcp() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(3, 2, false));
    script.pods(SERVICE, [1, 2, 3]);
    assert_eq!(set(&mut discover(&script)).await, hosts([1, 2, 3]));
    let srv = (PORT.to_owned(), Srv);
    let questions = [srv.clone(), srv, (SERVICE.to_owned(), A)];
    assert_eq!(script.take_asked(), questions);
}

/// It holds for any targets that it names, and whatever is known about them: nobody knows which ones it lacks.
#[tokio::test(start_paused = true)]
async fn a_truncated_answer_never_becomes_the_set() {
    let cut = |services, glue| Say::Services {
        services,
        glue,
        truncated: true,
    };
    let target = |pod| format!("web-{pod}.{SERVICE}");
    let ports = vec![service(&target(1), 80), service(&target(2), 8080)];
    let elsewhere = vec![service(&format!("node1.{NODES}"), 80)];
    let answers = [
        stateful(2, 2, true),
        stateful(2, 1, true),
        stateful(1, 0, true),
        cut(ports, vec![(target(1), address(1))]),
        cut(elsewhere, Vec::new()),
        cut(vec![service("", 0)], Vec::new()),
    ];
    for answer in answers {
        for parent in [None, Some(Say::Addresses(Vec::new())), Some(Say::ServFail)] {
            let script = Script::new();
            (1..=3).for_each(|pod| script.pods(&target(pod), [pod]));
            script.pods(&format!("node1.{NODES}"), [1]);
            script.say(PORT, Srv, stateful(3, 3, false));
            let mut dns = discover(&script);
            assert_eq!(set(&mut dns).await, named([1, 2, 3]));

            script.fails_name(SERVICE, parent);
            script.say(PORT, Srv, answer.clone());
            let end = Instant::now() + 300 * SECOND;
            while let Ok(answer) = tokio::time::timeout_at(end, super::answer(&mut dns)).await {
                if let Ok(set) = answer {
                    assert_eq!(set, named([1, 2, 3]));
                }
            }
            // Nor is it the first set.
            let first = super::answer(&mut discover(&script)).await;
            first.expect_err("some are missing");

            script.say(PORT, Srv, stateful(2, 2, false));
            assert_eq!(until_other(&mut dns).await, named([1, 2]));
        }
    }
}

/// The next set other than pods 1 to 3.
async fn until_other(dns: &mut impl Discovery) -> Vec<Endpoint> {
    next(dns, &named([1, 2, 3])).await.0
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_without_the_services_own_addresses_is_an_error_that_says_so() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(3, 3, true));
    let error = answer(&mut discover(&script))
        .await
        .expect_err("some are missing");
    let error = error.downcast_ref::<LookupError>().expect("DNS's");
    assert!(error.is_truncated() && !error.is_not_found(), "{error}");
}

/// The parent's addresses may be a website's. Of very many targets some may come and go, but not nearly all.
#[tokio::test(start_paused = true)]
async fn of_very_many_targets_the_services_own_name_needs_addresses_for_half() {
    for truncated in [false, true] {
        let script = Script::new();
        script.say(PORT, Srv, stateful(100, 0, truncated));
        script.pods(SERVICE, 1..=50);
        assert_eq!(set(&mut discover(&script)).await, hosts(1..=50));
        script.pods(SERVICE, 1..=49);
        let answer = answer(&mut discover(&script)).await;
        answer.expect_err("targets that have no addresses");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_other_family_only_is_found() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(1, 0, false));
    let v6: IpAddr = "fd00::1".parse().expect("an address");
    script.say(SERVICE, Aaaa, Say::Addresses(vec![v6]));
    let endpoints = set(&mut discover(&script)).await;
    assert_eq!(endpoints, [Endpoint::new((v6, 80).into())]);
}

#[tokio::test(start_paused = true)]
async fn targets_with_different_ports_need_their_own_addresses() {
    let target = |pod| format!("web-{pod}.{SERVICE}");
    let services = vec![service(&target(1), 80), service(&target(2), 8080)];
    let say = |glue: &[u8]| Say::Services {
        services: services.clone(),
        glue: glue
            .iter()
            .map(|pod| (target(*pod), address(*pod)))
            .collect(),
        truncated: false,
    };
    let script = Script::new();
    script.say(PORT, Srv, say(&[1, 2]));
    let mut dns = discover(&script);
    let ports = |endpoints: Vec<Endpoint>| -> Vec<_> {
        let ports = endpoints.iter().map(|endpoint| endpoint.address().port());
        ports.collect()
    };
    assert_eq!(ports(set(&mut dns).await), [80, 8080]);
    // The service's own addresses don't say which port belongs to which.
    script.say(PORT, Srv, say(&[1]));
    script.pods(SERVICE, [1, 2]);
    script.pods(&target(2), [2]);
    assert_eq!(ports(set(&mut discover(&script)).await), [80, 8080]);
    // A target that doesn't exist any more is left out.
    script.forget(&target(2));
    assert_eq!(ports(set(&mut discover(&script)).await), [80]);
}

#[tokio::test(start_paused = true)]
async fn targets_named_by_their_address_have_no_hostname() {
    let targets = [("10-0-0-1", address(1)), ("10-0-0-9", address(2))];
    let target = |label: &str| format!("{label}.{SERVICE}");
    let elsewhere = (format!("db.{SERVICE}.example"), address(3));
    let glue = targets.map(|(label, address)| (target(label), address));
    let glue: Vec<_> = glue.into_iter().chain([elsewhere]).collect();
    let services = glue.iter().map(|(target, _)| service(target, 80)).collect();
    let script = Script::new();
    let say = Say::Services {
        services,
        glue,
        truncated: false,
    };
    script.say(PORT, Srv, say);
    let endpoints = set(&mut discover(&script)).await;
    let hostnames = endpoints.iter().map(Endpoint::hostname);
    let own = Some("10-0-0-9"); // a hostname that only looks like an address
    assert_eq!(hostnames.collect::<Vec<_>>(), [None, own, None]);
}

/// CoreDNS names a pod without a hostname by its address, so a dual-stack one has two targets.
#[tokio::test(start_paused = true)]
async fn a_dual_stack_pod_named_by_its_addresses_counts_once() {
    let v6 = |host: u8| -> IpAddr { format!("fd00::{host}").parse().expect("an address") };
    let hosts_v6 = [1, 2].map(|host| Endpoint::new((v6(host), 80).into()));
    let glue = [1, 2].into_iter().flat_map(|host| {
        let v4 = (format!("10-0-0-{host}.{SERVICE}"), address(host));
        [v4, (format!("fd00--{host}.{SERVICE}"), v6(host))]
    });
    let glue: Vec<_> = glue.collect();
    let say = |glue: &[(String, IpAddr)], has_glue| Say::Services {
        services: glue.iter().map(|(name, _)| service(name, 80)).collect(),
        glue: if has_glue { glue.to_vec() } else { Vec::new() },
        truncated: false,
    };
    let srv = || Dns::srv(&format!("{PORT}.")).expect("a service");
    // The addresses come along, from the service's own name, or from each target's.
    for (has_glue, has_parent) in [(true, false), (false, true), (false, false)] {
        let script = Script::new();
        script.say(PORT, Srv, say(&glue, has_glue));
        if has_parent {
            script.pods(SERVICE, [1, 2]);
            script.say(SERVICE, Aaaa, Say::Addresses([1, 2].map(v6).to_vec()));
        }
        for (name, address) in &glue {
            let record_type = if address.is_ipv4() { A } else { Aaaa };
            script.say(name, record_type, Say::Addresses(vec![*address]));
        }
        let mut dns = with(srv(), &script);
        let first = set(&mut dns).await;
        assert_eq!(first, hosts([1, 2]), "{has_glue} {has_parent}");
        let questions = script.take_asked().len();
        assert!(questions <= 2 || !has_parent, "{questions}");
        let preferring = set(&mut with(srv().prefer_ipv6(true), &script)).await;
        assert_eq!(preferring, hosts_v6, "{has_glue} {has_parent}");
        // The other targets are there if all of these refuse.
        first.iter().for_each(|endpoint| dns.refused(endpoint));
        assert_eq!(next(&mut dns, &first).await.0, hosts_v6);
        // Pods of one family are used, whichever is preferred.
        let of_v6: Vec<_> = glue.iter().filter(|it| it.1.is_ipv6()).cloned().collect();
        script.say(PORT, Srv, say(&of_v6, has_glue));
        script.say(SERVICE, A, Say::NoName);
        assert_eq!(set(&mut with(srv(), &script)).await, hosts_v6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_two_families_counts_once() {
    let v6: IpAddr = "fd00::1".parse().expect("an address");
    let target = format!("web-1.{SERVICE}");
    let say = Say::Services {
        services: vec![service(&target, 80)],
        glue: vec![(target.clone(), v6), (target, address(1))],
        truncated: false,
    };
    let script = Script::new();
    script.say(PORT, Srv, say);
    assert_eq!(set(&mut discover(&script)).await, named([1]));
    let dns = Dns::srv(&format!("{PORT}.")).expect("a service");
    let preferring = set(&mut with(dns.prefer_ipv6(true), &script)).await;
    assert_eq!(
        preferring,
        [Endpoint::new((v6, 80).into()).with_hostname("web-1")]
    );
}

/// RFC 2782: the lowest priority is used; a target of "." means that there is no such service.
#[tokio::test(start_paused = true)]
async fn the_lowest_priority_counts_and_a_root_target_means_no_pods() {
    let target = |pod| format!("web-{pod}.{SERVICE}");
    let backup = Service {
        priority: 5,
        ..service(&target(2), 80)
    };
    let script = Script::new();
    script.say(
        PORT,
        Srv,
        Say::Services {
            services: vec![backup, service(&target(1), 80)],
            glue: [1, 2].map(|pod| (target(pod), address(pod))).to_vec(),
            truncated: false,
        },
    );
    let mut dns = discover(&script);
    assert_eq!(set(&mut dns).await, named([1]));
    script.say(
        PORT,
        Srv,
        Say::Services {
            services: vec![service("", 0)],
            glue: Vec::new(),
            truncated: false,
        },
    );
    let gone = Instant::now();
    while !set(&mut dns).await.is_empty() {}
    assert!(
        gone.elapsed() >= 10 * SECOND,
        "confirmed, as NXDOMAIN has to be"
    );
}

/// RFC 2782: the next priority is for when the lowest one's targets can't be reached.
#[tokio::test(start_paused = true)]
async fn the_next_priority_is_used_if_the_lowest_ones_targets_do_not_exist() {
    let target = |pod: u8| format!("node{pod}.{NODES}");
    let at = |pod: u8| Service {
        priority: pod.into(),
        ..service(&target(pod), 8080)
    };
    let script = Script::new();
    let services = || Say::Services {
        services: vec![at(3), at(1), at(2)],
        glue: Vec::new(),
        truncated: false,
    };
    script.say(PORT, Srv, services());
    script.pods(&target(2), [2]);
    script.pods(&target(3), [3]);
    let mut dns = discover(&script);
    assert_eq!(set(&mut dns).await, at_8080([2]));
    // A lookup that fails says nothing about the target.
    script.fails_name(&target(1), Some(Say::ServFail));
    answer(&mut discover(&script)).await.expect_err("a failure");
    script.fails_name(&target(1), None);
    script.pods(&target(1), [1]);
    assert_eq!(set(&mut discover(&script)).await, at_8080([1]));
    // The error names targets of all priorities.
    (1..4).for_each(|pod| script.forget(&target(pod)));
    let error = answer(&mut discover(&script)).await.expect_err("none");
    let text = error.to_string();
    assert!((1..4).all(|pod| text.contains(&target(pod))), "{text}");
}

/// Against RFC 2782, but resolver libraries accept it.
#[tokio::test(start_paused = true)]
async fn a_target_that_is_an_address_is_that_address() {
    let script = Script::new();
    let say = Say::Services {
        services: ["10.0.0.1", "10.0.0.2"].map(|it| service(it, 80)).to_vec(),
        glue: Vec::new(),
        truncated: false,
    };
    script.say(PORT, Srv, say);
    assert_eq!(set(&mut discover(&script)).await, hosts([1, 2]));
    assert_eq!(script.take_asked(), [(PORT.to_owned(), Srv)]);
}

/// CoreDNS divides 100 among the pods: 100, then 50 each, then 33.
#[tokio::test(start_paused = true)]
async fn weights_count_only_if_they_differ() {
    let target = |pod| format!("web-{pod}.{SERVICE}");
    let say = |weights: &[u16]| {
        let weighted = |(pod, &weight)| Service {
            weight,
            ..service(&target(pod), 80)
        };
        Say::Services {
            services: (1..).zip(weights).map(weighted).collect(),
            glue: (1..=4).map(|pod| (target(pod), address(pod))).collect(),
            truncated: false,
        }
    };
    let script = Script::new();
    let weights = async |weights: &[u16]| {
        script.say(PORT, Srv, say(weights));
        let set = set(&mut discover(&script)).await;
        set.iter().map(Endpoint::weight).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[100]).await, [1]);
    assert_eq!(weights(&[33, 33, 33]).await, [1, 1, 1]);
    assert_eq!(weights(&[0, 0]).await, [1, 1]);
    assert_eq!(weights(&[60, 0, 1, 60]).await, [60, 0, 1, 60]);
}

#[tokio::test(start_paused = true)]
async fn another_hostname_at_the_same_address_is_another_pod() {
    let script = Script::new();
    let at = |pod: u8| Say::Services {
        services: vec![service(&format!("web-{pod}.{SERVICE}"), 80)],
        glue: vec![(format!("web-{pod}.{SERVICE}"), address(1))],
        truncated: false,
    };
    script.say(PORT, Srv, at(0));
    let mut watch = Watch::new(discover(&script));
    change(&mut watch).await;
    script.say(PORT, Srv, at(1));
    let change = change(&mut watch).await;
    let hostnames = [&change.joined, &change.left].map(|it| it[0].hostname());
    assert_eq!(hostnames, [Some("web-1"), Some("web-0")]);
}

#[tokio::test(start_paused = true)]
async fn a_short_service_name_goes_through_the_search_list() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 2, false));
    let mut dns = with(Dns::srv("_http._tcp.web").expect("a service"), &script);
    assert_eq!(set(&mut dns).await, named([1, 2]));
    run(&mut dns, 30 * SECOND).await;
    let asked = script.take_asked();
    assert!(asked.iter().all(|asked| *asked == (PORT.to_owned(), Srv)));
}

const NODES: &str = "hosts.example";

/// SRV records that point to nodes by their own names, without addresses.
fn nodes(nodes: impl IntoIterator<Item = u8>) -> Say {
    let target = |node| service(&format!("node{node}.{NODES}"), 8080);
    Say::Services {
        services: nodes.into_iter().map(target).collect(),
        glue: Vec::new(),
        truncated: false,
    }
}

fn at_8080(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new((address(host), 8080).into());
    hosts.into_iter().map(endpoint).collect()
}

#[tokio::test(start_paused = true)]
async fn targets_outside_of_the_service_are_looked_up_and_the_services_own_name_is_not() {
    for parent in [Some(99), None] {
        let script = Script::new();
        script.say(PORT, Srv, nodes([1, 2]));
        if let Some(host) = parent {
            script.pods(SERVICE, [host]);
        }
        script.pods(&format!("node1.{NODES}"), [1]);
        script.pods(&format!("node2.{NODES}"), [2]);
        assert_eq!(set(&mut discover(&script)).await, at_8080([1, 2]));
        let asked = script.take_asked();
        assert!(asked.iter().all(|(name, _)| name != SERVICE), "{asked:?}");
    }
}

/// The service's name may be a website's: it has fewer addresses than there are targets.
#[tokio::test(start_paused = true)]
async fn a_services_own_name_with_too_few_addresses_is_not_used() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 0, false));
    script.pods(SERVICE, [99]);
    script.pods(&format!("web-1.{SERVICE}"), [1]);
    script.pods(&format!("web-2.{SERVICE}"), [2]);
    assert_eq!(set(&mut discover(&script)).await, named([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn targets_are_looked_up_if_the_services_own_name_fails() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 0, false));
    script.fails_name(SERVICE, Some(Say::ServFail));
    script.pods(&format!("web-1.{SERVICE}"), [1]);
    script.pods(&format!("web-2.{SERVICE}"), [2]);
    assert_eq!(set(&mut discover(&script)).await, named([1, 2]));
}

/// The most time that one question may take.
const LOOK: Duration = Duration::from_secs(4);

#[tokio::test(start_paused = true)]
async fn a_look_takes_no_longer_than_one_question_and_uses_what_came_by_then() {
    let target = |pod| format!("web-{pod}.{SERVICE}");
    for tcp_is_silent in [false, true] {
        for silent_target in [false, true] {
            let script = Script::new();
            script.fails_name(SERVICE, Some(Say::Silence));
            script.say(PORT, Srv, stateful(3, u8::from(tcp_is_silent), false));
            if tcp_is_silent {
                script.fails_over_tcp(Say::Silence);
            }
            (1..=3).for_each(|pod| script.pods(&target(pod), [pod]));
            let mut expected = named([1, 2, 3]);
            if silent_target {
                script.fails_name(&target(3), Some(Say::Silence));
                expected.truncate(2);
            }
            let mut dns = discover(&script);
            let began = Instant::now();
            assert_eq!(set(&mut dns).await, expected);
            let took = began.elapsed();
            assert!(took <= LOOK, "{tcp_is_silent} {silent_target}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_family_leaves_time_for_the_other_one() {
    let v6: Vec<IpAddr> = vec!["fd00::1".parse().expect("an address")];
    let target = format!("web-1.{SERVICE}");
    for name in [SERVICE, &target] {
        let script = Script::new();
        script.fails(A, Say::Silence);
        script.say(PORT, Srv, stateful(1, 0, false));
        script.say(name, Aaaa, Say::Addresses(v6.clone()));
        let mut dns = discover(&script);
        let began = Instant::now();
        let first = answer(&mut dns).await.expect("a set");
        assert_eq!(first[0].address().ip(), v6[0], "{name}");
        assert!(began.elapsed() <= LOOK, "{name}: {:?}", began.elapsed());
    }
}

/// A slow answer of the preferred family isn't dropped for the other one's.
#[tokio::test(start_paused = true)]
async fn slow_addresses_of_the_services_own_name_are_waited_for() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 0, false));
    script.pods(SERVICE, [1, 2]);
    let v6 = ["fd00::1", "fd00::2"].map(|address| address.parse().expect("an address"));
    script.say(SERVICE, Aaaa, Say::Addresses(v6.into()));
    script.slow(A, 5 * SECOND / 2);
    assert_eq!(set(&mut discover(&script)).await, hosts([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn targets_are_looked_up_if_the_services_own_name_has_no_addresses() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 0, false));
    script.pods(&format!("web-1.{SERVICE}"), [1]);
    let v6: IpAddr = "fd00::2".parse().expect("an address");
    script.say(&format!("web-2.{SERVICE}"), Aaaa, Say::Addresses(vec![v6]));
    let second = Endpoint::new((v6, 80).into()).with_hostname("web-2");
    let expected = [named([1]), vec![second]].concat();
    assert_eq!(set(&mut discover(&script)).await, expected);
}

#[tokio::test(start_paused = true)]
async fn srv_records_whose_targets_have_no_address_are_an_error_not_an_empty_set() {
    let script = Script::new();
    script.say(PORT, Srv, nodes([1, 2]));
    let dns = Dns::srv(&format!("{PORT}.")).expect("a service");
    let mut dns = with(dns.on_empty(OnEmpty::Believe), &script);
    let error = answer(&mut dns).await.expect_err("where are they?");
    let told = error.to_string();
    assert!(told.contains("node1.hosts.example."), "{told}");
    let error = error.downcast_ref::<LookupError>().expect("DNS's");
    assert!(!error.is_not_found(), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_lookup_fails_keeps_its_last_address_for_a_minute() {
    let script = Script::new();
    script.say(PORT, Srv, nodes([1, 2]));
    script.pods(&format!("node1.{NODES}"), [1]);
    script.pods(&format!("node2.{NODES}"), [2]);
    let mut dns = discover(&script);
    assert_eq!(set(&mut dns).await, at_8080([1, 2]));
    script.fails_name(&format!("node2.{NODES}"), Some(Say::ServFail));
    let (last, stayed) = next(&mut dns, &at_8080([1, 2])).await;
    assert!((60 * SECOND..80 * SECOND).contains(&stayed), "{stayed:?}");
    assert_eq!(last, at_8080([1]));
    script.fails_name(&format!("node2.{NODES}"), None);
    until(&mut dns, &at_8080([1, 2])).await;
}

#[tokio::test(start_paused = true)]
async fn each_failing_target_gets_its_minute_though_another_one_always_fails() {
    let script = Script::new();
    let node = |node: u8| format!("node{node}.{NODES}");
    script.say(PORT, Srv, nodes([1, 2, 3]));
    script.pods(&node(1), [1]);
    script.pods(&node(2), [2]);
    script.fails_name(&node(3), Some(Say::ServFail));
    let mut dns = discover(&script);
    assert_eq!(set(&mut dns).await, at_8080([1, 2]));
    run(&mut dns, 300 * SECOND).await;
    for _ in 0..2 {
        script.fails_name(&node(2), Some(Say::ServFail));
        let (last, stayed) = next(&mut dns, &at_8080([1, 2])).await;
        assert_eq!(last, at_8080([1]));
        assert!((60 * SECOND..80 * SECOND).contains(&stayed), "{stayed:?}");
        script.fails_name(&node(2), None);
        until(&mut dns, &at_8080([1, 2])).await;
    }
    // A target that isn't named any more is gone at once: the failing one is another.
    script.say(PORT, Srv, nodes([1, 3]));
    let (last, stayed) = next(&mut dns, &at_8080([1, 2])).await;
    assert_eq!(last, at_8080([1]));
    assert!(stayed < 10 * SECOND, "{stayed:?}");
}

/// Addresses from the service's own name don't say which target they belong to.
#[tokio::test(start_paused = true)]
async fn addresses_from_the_services_own_name_stay_for_a_minute_if_a_target_fails() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 0, false));
    script.pods(SERVICE, [1, 2]);
    let mut dns = discover(&script);
    assert_eq!(set(&mut dns).await, hosts([1, 2]));
    script.pods(SERVICE, [1]);
    script.pods(&format!("web-1.{SERVICE}"), [1]);
    script.fails_name(&format!("web-2.{SERVICE}"), Some(Say::ServFail));
    let both = [named([1]), hosts([2])].concat();
    until(&mut dns, &both).await;
    let (last, stayed) = next(&mut dns, &both).await;
    assert_eq!(last, named([1]));
    assert!((60 * SECOND..80 * SECOND).contains(&stayed), "{stayed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_answer_over_udp_is_used_if_tcp_fails() {
    for trouble in [Say::ServFail, Say::Silence, Say::Addresses(Vec::new())] {
        let script = Script::new();
        script.say(PORT, Srv, stateful(3, 2, false));
        script.pods(SERVICE, [1, 2, 3]);
        script.fails_over_tcp(trouble.clone());
        let first = answer(&mut discover(&script)).await;
        assert_eq!(first.expect("a set"), hosts([1, 2, 3]), "{trouble:?}");
        let asked = script.take_asked();
        let questions = asked.iter().filter(|(_, asked)| *asked == Srv);
        assert_eq!(questions.count(), 2, "over TCP as well");
    }
}

#[tokio::test(start_paused = true)]
async fn of_very_many_targets_the_same_64_are_looked_up_each_time() {
    let script = Script::new();
    script.say(PORT, Srv, nodes(0..=255));
    (0..=255).for_each(|node| script.pods(&format!("node{node}.{NODES}"), [node]));
    let mut first = set(&mut discover(&script)).await;
    assert_eq!(first.len(), 64);
    assert!(script.take_asked().len() <= 65);
    script.say(PORT, Srv, nodes((0..=255).rev()));
    let mut second = set(&mut discover(&script)).await;
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second);
}

/// Consul does this: a target is an alias of a name whose addresses come along.
#[tokio::test(start_paused = true)]
async fn an_alias_in_the_additional_section_is_followed() {
    let script = Script::new();
    let target = format!("web-1.{SERVICE}");
    script.alias(&target, "x.example");
    script.alias("x.example", "y.example");
    script.say(
        PORT,
        Srv,
        Say::Services {
            services: vec![service(&target, 80)],
            glue: vec![("y.example".to_owned(), address(1))],
            truncated: false,
        },
    );
    assert_eq!(set(&mut discover(&script)).await, named([1]));
    assert_eq!(script.take_asked(), [(PORT.to_owned(), Srv)]);
}

#[tokio::test(start_paused = true)]
async fn alias_loops_and_long_chains_are_given_up_and_the_target_is_looked_up() {
    let chain = |n: usize| format!("{n}.example");
    let circle = [("0.example", "1.example"), ("1.example", "0.example")];
    let circle = circle.map(|(name, target)| (name.to_owned(), target.to_owned()));
    let long = (0..1000).map(|n| (chain(n), chain(n + 1))).collect();
    for aliases in [circle.to_vec(), long] {
        let script = Script::new();
        for (name, target) in &aliases {
            script.alias(name, target);
        }
        script.say(
            PORT,
            Srv,
            Say::Services {
                services: vec![service("0.example", 8080)],
                glue: vec![(chain(1000), address(9))],
                truncated: false,
            },
        );
        script.pods("0.example", [1]);
        assert_eq!(set(&mut discover(&script)).await, at_8080([1]));
    }
}

#[tokio::test(start_paused = true)]
async fn hostnames_and_the_services_own_name_come_from_the_owner_of_the_records() {
    const ALIAS: &str = "_http._tcp.shop.example";
    let srv = || Dns::srv(&format!("{ALIAS}.")).expect("a service");
    let script = Script::new();
    script.owner(ALIAS, PORT);
    script.say(ALIAS, Srv, stateful(2, 2, false));
    assert_eq!(set(&mut with(srv(), &script)).await, named([1, 2]));
    // Without addresses, the owner's parent is used, not the alias's.
    script.say(ALIAS, Srv, stateful(2, 0, false));
    script.pods("shop.example", [98, 99]);
    script.pods(SERVICE, [1, 2]);
    assert_eq!(set(&mut with(srv(), &script)).await, hosts([1, 2]));
    // An owner that isn't an SRV name has no parent.
    script.owner(ALIAS, "records.example");
    script.pods("example", [97, 98]);
    script.pods(&format!("web-1.{SERVICE}"), [1]);
    script.pods(&format!("web-2.{SERVICE}"), [2]);
    assert_eq!(set(&mut with(srv(), &script)).await, hosts([1, 2]));
}

/// RFC 2782 knows no port 0; some registries write it for "none".
#[tokio::test(start_paused = true)]
async fn records_with_port_0_are_left_out_with_one_warning() {
    let script = Script::new();
    let target = |pod| format!("web-{pod}.{SERVICE}");
    let say = |ports: &[u16]| Say::Services {
        services: (1..)
            .zip(ports)
            .map(|(pod, port)| service(&target(pod), *port))
            .collect(),
        glue: (1..4).map(|pod| (target(pod), address(pod))).collect(),
        truncated: false,
    };
    let log = logs::logged(tracing::Level::WARN, async {
        script.say(PORT, Srv, say(&[0, 80, 0]));
        let mut dns = discover(&script);
        assert_eq!(set(&mut dns).await, named([2]));
        run(&mut dns, 60 * SECOND).await;
        script.say(PORT, Srv, say(&[0, 0]));
        let failure = async {
            loop {
                if let Err(error) = answer(&mut dns).await {
                    break error;
                }
            }
        };
        let error = timeout(PATIENCE, failure).await.expect("an error");
        assert!(error.to_string().contains("port 0"), "{error}");
    });
    let log = log.await;
    assert_eq!(log.matches("port 0").count(), 1, "{log}");
}
