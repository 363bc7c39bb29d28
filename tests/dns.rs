//! Discovery by DNS, as a name server sees it: what is asked, how often, over which transport, and what the answers
//! lead to.
//!
//! DNS is real here, and so is time. Whatever takes a minute or longer is tested under paused time, in
//! `src/discovery/dns/suite`.

#[path = "dns/name_servers.rs"]
mod name_servers;
#[path = "dns/packets.rs"]
mod packets;
mod support;

use std::{
    collections::BTreeSet,
    error::Error as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all};
use hickory_resolver::proto::op::ResponseCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::{
    dns::{DnsServer, Fault, Glue, LoggedQuery, RecordType, Srv, Transport},
    within,
};
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_headless::{
    Balance, BoxError, Discovery, Dns, Endpoint, MembershipChange, MembershipStream, OnEmpty,
    Unsent,
};

const FAST: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
const WEB: &str = "web.default.svc.cluster.local.";
const PORT: &str = "_http._tcp.web.default.svc.cluster.local.";
const FAMILIES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

// ---------------------------------------------------------------- when questions are asked

#[tokio::test]
async fn refreshes_need_no_requests_and_keep_to_the_interval() {
    let server = web(3).await;
    let began = Instant::now();
    let _balance = balance(ask(&server, WEB).refresh_interval(2 * FAST));
    server.wait_for_queries(12).await;
    for family in FAMILIES {
        let times = times(&server, family);
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.into_iter().all(|pause| pause >= FAST), "{times:?}");
    }
    assert!(began.elapsed() >= 4 * FAST);
}

#[tokio::test]
async fn one_question_a_family_is_under_way_however_slow_the_server() {
    let server = web(3).await;
    let mut watch = MembershipStream::new(ask(&server, WEB).refresh_interval(FAST / 5));
    change(&mut watch).await;
    for family in FAMILIES {
        server.fault(WEB, family, Fault::Delay(4 * FAST));
    }
    let next = watch.next();
    tokio::pin!(next);
    let before = server.exchanges();
    tokio::select! {
        _ = &mut next => panic!("nothing changes"),
        () = server.wait_for_queries(before + 10) => {}
    }
    for family in FAMILIES {
        let times = times(&server, family);
        let slow = &times[times.len() - 4..];
        let pauses = slow.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(
            pauses.into_iter().all(|pause| pause >= 4 * FAST),
            "{slow:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_asks_at_once_but_not_below_the_floor() {
    let server = web(1).await;
    let floor = 4 * FAST;
    let dns = ask(&server, WEB)
        .max_refresh(60 * SECOND)
        .min_refresh(floor);
    let balance = Balance::builder(dns).build(|endpoint: &Endpoint| {
        let refuses = endpoint.address().ip() == pod(1);
        let endpoint = endpoint.clone();
        Pod::new(service_fn(move |()| {
            let answer = match refuses {
                true => Err(Unsent::new((), "connection refused").into()),
                false => Ok(endpoint.clone()),
            };
            std::future::ready(answer)
        }))
    });
    server.wait_for_queries(2).await;
    server.set_a(WEB, 30, [pod_v4(2)]);
    let answer = within("the request to go to the new pod", get(&balance));
    assert_eq!(answer.await.expect("a response").address().ip(), pod(2));
    let times = times(&server, RecordType::A);
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(!pauses.is_empty() && pauses[0] < 10 * SECOND, "{pauses:?}");
    // Times are the server's: the first question may have travelled for longer than the second.
    let on_the_way = SECOND / 100;
    let keeps_to_it = |pause: &Duration| *pause + on_the_way >= floor;
    assert!(pauses.iter().all(keeps_to_it), "{pauses:?}");
}

#[tokio::test]
async fn eight_balancers_that_share_a_dns_cost_what_one_costs() {
    let server = web(3).await;
    let dns = ask(&server, WEB).refresh_interval(2 * FAST);
    let balances: Vec<_> = (0..8).map(|_| balance(dns.clone())).collect();
    for balance in &balances {
        get(balance).await.expect("a response");
    }
    server.wait_for_queries(20).await;
    for family in FAMILIES {
        let times = times(&server, family);
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.into_iter().all(|pause| pause >= FAST), "{times:?}");
    }
    server.set_a(WEB, 30, [pod_v4(9)]);
    for balance in &balances {
        within("the change, everywhere", answers(balance, 9)).await;
    }
}

// ---------------------------------------------------------------- which names are asked for

#[tokio::test]
async fn both_families_of_the_whole_name_and_nothing_else() {
    let server = web(3).await;
    let mut watch = MembershipStream::new(ask(&server, WEB).refresh_interval(FAST));
    change(&mut watch).await;
    let asking = async { while watch.next().await.is_some() {} };
    tokio::select! {
        () = asking => unreachable!("discovery never ends"),
        () = server.wait_for_queries(20) => {}
    }
    let queries = server.queries();
    assert!(queries.iter().all(|query| query.name == WEB));
    assert!(
        queries
            .iter()
            .all(|query| query.transport == Transport::Udp)
    );
    assert!(
        queries
            .iter()
            .all(|query| FAMILIES.contains(&query.record_type))
    );
    let of = |family| server.count(WEB, family);
    assert!(of(RecordType::A).abs_diff(of(RecordType::AAAA)) <= 2);
}

#[tokio::test]
async fn a_server_can_be_named_by_the_target_too() {
    let server = web(2).await;
    let target = format!("dns://{}/{WEB}:80", server.addr());
    let dns = Dns::new(target.parse().expect("a target"));
    let found = dns.resolve().await.expect("pods");
    assert_eq!(found.name_server(), Some(server.addr()));
    assert_eq!(hosts(found.endpoints()), [pod(1), pod(2)].into());
}

#[tokio::test]
async fn a_steady_refresh_of_a_short_name_costs_one_query_a_family() {
    let server = web(3).await;
    let conf = pods_resolv_conf();
    for (name, walk) in [
        ("web", 1),
        ("web.default", 2),
        ("web.default.svc", 3),
        ("web.default.svc.cluster.local", 4),
        (WEB, 1),
    ] {
        server.forget();
        let dns = ask(&server, name)
            .resolv_conf(&conf.0)
            .refresh_interval(FAST);
        let found = dns.resolve().await.expect("pods");
        assert_eq!(found.name(), WEB.strip_suffix('.'), "{name}");
        assert_eq!(server.exchanges(), 2 * walk, "{name}: a walk");

        let mut watch = MembershipStream::new(dns);
        change(&mut watch).await;
        // Until the walk is over, and perhaps the slower family's answer has come.
        let refreshes = async {
            server.wait_for_queries(4 * walk + 2).await;
            server.forget();
            server.wait_for_queries(20).await;
        };
        tokio::select! {
            _ = watch.next() => panic!("nothing changes"),
            () = refreshes => {}
        }
        let queries = server.queries();
        assert!(
            queries.iter().all(|query| query.name == WEB),
            "{name}: {queries:?}"
        );
        let of = |family| server.count(WEB, family);
        assert!(
            of(RecordType::A).abs_diff(of(RecordType::AAAA)) <= 2,
            "{name}"
        );
    }
}

#[tokio::test]
async fn trouble_on_the_way_ends_the_walk_and_another_services_pods_are_not_used() {
    let server = DnsServer::start().await;
    server.set_a("web.svc.cluster.local.", 5, [pod_v4(9)]);
    server.fault(WEB, RecordType::A, Fault::SERVFAIL);
    let conf = pods_resolv_conf();
    let dns = ask(&server, "web").resolv_conf(&conf.0);
    let error = dns
        .resolve()
        .await
        .expect_err("it isn't known what is there");
    assert!(!error.is_not_found(), "{error}");
    server.clear_faults();
    let found = dns.resolve().await.expect("the next name");
    assert_eq!(hosts(found.endpoints()), [pod(9)].into());
}

#[tokio::test]
async fn a_search_list_that_changes_is_heeded() {
    let server = web(1).await;
    server.set_a("web.other.svc.cluster.local.", 5, [pod_v4(9)]);
    let conf = pods_resolv_conf();
    let dns = ask(&server, "web")
        .resolv_conf(&conf.0)
        .refresh_interval(FAST);
    let mut watch = MembershipStream::new(dns);
    assert_eq!(hosts(&change(&mut watch).await.joined), [pod(1)].into());
    std::fs::write(&conf.0, "search other.svc.cluster.local\noptions ndots:5\n").expect("written");
    let moved = change(&mut watch).await;
    assert_eq!(hosts(&moved.joined), [pod(9)].into());
    assert_eq!(hosts(&moved.left), [pod(1)].into());
}

#[tokio::test]
async fn an_alias_is_followed_and_one_that_leads_nowhere_empties_nothing() {
    let server = web(2).await;
    server.set_cname("alias.default.svc.cluster.local.", 5, WEB);
    let dns = ask(&server, "alias.default.svc.cluster.local.").on_empty(OnEmpty::Believe);
    let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
    assert_eq!(change(&mut watch).await.joined.len(), 2);
    server.remove(WEB);
    let asked = server.exchanges();
    tokio::select! {
        change = watch.next() => panic!("{change:?}"),
        () = server.wait_for_queries(asked + 4) => {}
    }
}

// ---------------------------------------------------------------- which pods come of the answers

#[tokio::test]
async fn a_pod_of_two_families_counts_once() {
    let server = web(2).await;
    let v6 = ["fd00::1", "fd00::2"].map(|address| address.parse().expect("an address"));
    server.set_aaaa(WEB, 30, v6);
    let first = async |dns: Dns| hosts(&change(&mut MembershipStream::new(dns)).await.endpoints);
    assert_eq!(first(ask(&server, WEB)).await, [pod(1), pod(2)].into());
    let preferred = first(ask(&server, WEB).prefer_ipv6(true)).await;
    assert_eq!(preferred, v6.map(IpAddr::V6).into());
    server.set_a(WEB, 30, []);
    let only = first(ask(&server, WEB)).await;
    assert_eq!(only, v6.map(IpAddr::V6).into(), "IPv6 only");
}

#[tokio::test]
async fn srv_records_tell_ports_and_hostnames() {
    let server = DnsServer::start().await;
    stateful(&server, 3);
    let found = srv(&server).resolve().await.expect("pods");
    let pods = found.endpoints().iter();
    let told: Vec<_> = pods.map(|pod| (pod.address(), pod.hostname())).collect();
    let expected: Vec<_> = (0..3)
        .map(|n| (SocketAddr::from((many(n), 8080)), format!("web-{n}")))
        .collect();
    let expected = expected
        .iter()
        .map(|(address, name)| (*address, Some(&**name)));
    assert_eq!(told, expected.collect::<Vec<_>>());
    assert_eq!(server.exchanges(), 1, "the addresses come along");
}

/// What doesn't fit into a packet goes over TCP. What doesn't fit into a message, or a server doesn't send, comes from
/// the service's own name.
#[tokio::test]
async fn a_thousand_srv_targets_cost_three_exchanges_at_most() {
    for glue in [Glue::Whole, Glue::None, Glue::Partial(500)] {
        let server = DnsServer::start().await;
        server.set_glue(glue);
        stateful(&server, 1_000);
        let mut watch = MembershipStream::new(srv(&server).refresh_interval(4 * FAST));
        let set = change(&mut watch).await;
        assert_eq!(set.endpoints.len(), 1_000, "{glue:?}");
        assert!(set.endpoints.iter().all(|pod| pod.address().port() == 8080));
        // UDP and TCP for SRV, TCP for A. From then on it is known that UDP is too small.
        assert_eq!(server.exchanges(), 3, "{glue:?}: {:?}", server.queries());
        server.forget();
        tokio::select! {
            change = watch.next() => panic!("{change:?}"),
            () = server.wait_for_queries(4) => {}
        }
        let queries = server.queries();
        let by_tcp = |query: &LoggedQuery| query.transport == Transport::Tcp;
        assert!(queries.iter().all(by_tcp), "{glue:?}: {queries:?}");
        let of = |record_type| {
            queries
                .iter()
                .filter(|it| it.record_type == record_type)
                .count()
        };
        assert_eq!((of(RecordType::SRV), of(RecordType::A)), (2, 2));
    }
}

/// Without the Service's own addresses it isn't known which pods a truncated answer lacks.
#[tokio::test]
async fn a_truncated_srv_answer_without_a_stand_in_leaves_the_set() {
    let server = DnsServer::start().await;
    stateful(&server, 1_000);
    let mut watch = MembershipStream::new(srv(&server).refresh_interval(4 * FAST));
    assert_eq!(change(&mut watch).await.endpoints.len(), 1_000);
    server.remove(WEB);
    server.forget();
    tokio::select! {
        change = watch.next() => panic!("{change:?}"),
        () = server.wait_for_queries(6) => {}
    }
    let error = srv(&server).resolve().await.expect_err("some are missing");
    assert!(error.is_truncated(), "{error}");
    stateful(&server, 10);
    assert_eq!(change(&mut watch).await.endpoints.len(), 10);
}

// ---------------------------------------------------------------- names, as met in the field

/// RFC 8020: NXDOMAIN holds for all types of the name.
#[tokio::test]
async fn a_nonexistent_candidate_is_skipped_though_ipv6_fails() {
    let faults = [
        Fault::Silent,
        Fault::SERVFAIL,
        Fault::Rcode(ResponseCode::NotImp.into()),
        Fault::REFUSED,
    ];
    let stories = faults.map(async |fault| {
        let server = web(2).await;
        server.fault("*", RecordType::AAAA, fault.clone());
        let conf = pods_resolv_conf();
        let balance = balance(ask(&server, "web.default").resolv_conf(&conf.0));
        get(&balance).await.expect("a response");
        assert_eq!(balance.endpoints().len(), 2, "{fault:?}");
    });
    join_all(stories).await;
}

#[tokio::test]
async fn no_ipv4_addresses_and_a_failure_for_ipv6_end_the_walk() {
    let server = DnsServer::start().await;
    // The name exists, without A records.
    server.set_srv(WEB, 30, [Srv::new(80, PORT)]);
    server.fault(WEB, RecordType::AAAA, Fault::SERVFAIL);
    server.set_a("web.svc.cluster.local.", 5, [pod_v4(9)]);
    let conf = pods_resolv_conf();
    let dns = ask(&server, "web").resolv_conf(&conf.0);
    let error = dns
        .resolve()
        .await
        .expect_err("it isn't known what is there");
    assert!(!error.is_not_found(), "{error}");
}

/// If a request finds no endpoint, its cause is the failure, not the other family's absence.
#[tokio::test]
async fn a_failure_outranks_the_other_familys_negative_answer() {
    // Silence takes 4 s; it is tested under paused time.
    let stories = [
        (Some(Fault::SERVFAIL), "Server Failure"),
        (None, "allow_loopback"),
    ];
    let stories = stories.map(async |(fault, expected)| {
        let server = DnsServer::start().await;
        server.set_a(WEB, 30, [Ipv4Addr::LOCALHOST]);
        if let Some(fault) = fault {
            server.fault(WEB, RecordType::A, fault);
        }
        let dns = ask(&server, WEB).refresh_interval(FAST);
        for on_empty in [OnEmpty::Confirm, OnEmpty::Believe] {
            let balance = Balance::builder(dns.clone().on_empty(on_empty))
                .ready_timeout(10 * FAST)
                .build(pods);
            let error = get(&balance).await.expect_err("nobody to send to");
            let cause = error.source().expect("DNS's error");
            assert!(cause.to_string().contains(expected), "{cause}");
            let cause = cause.downcast_ref::<tower_headless::LookupError>();
            assert!(!cause.expect("DNS's").is_not_found());
        }
        let told = dns.resolve().await.expect_err("no pod").to_string();
        assert!(told.contains(expected), "{told}");
    });
    join_all(stories).await;
}

// ---------------------------------------------------------------- SRV records, as met in the field

/// A server with SRV records whose targets are nodes in another domain.
async fn nodes(glue: Glue) -> DnsServer {
    let server = DnsServer::start().await;
    server.set_glue(glue);
    let name = |node| format!("node{node}.hosts.example.");
    server.set_srv(PORT, 30, (1..=3).map(|node| Srv::new(8080, name(node))));
    for node in 1..=3 {
        server.set_a(&name(node), 30, [pod_v4(node)]);
    }
    server
}

#[tokio::test]
async fn srv_targets_without_addresses_are_looked_up() {
    let expected = [pod(1), pod(2), pod(3)].into();
    for glue in [Glue::None, Glue::Partial(1)] {
        let server = nodes(glue).await;
        let found = srv(&server)
            .resolve()
            .await
            .expect("the parent is NXDOMAIN");
        assert_eq!(hosts(found.endpoints()), expected, "{glue:?}");
        server.set_a(WEB, 30, [pod_v4(99)]);
        let found = srv(&server).resolve().await.expect("the nodes");
        assert_eq!(hosts(found.endpoints()), expected, "{glue:?}");
        assert!(
            found
                .endpoints()
                .iter()
                .all(|it| it.address().port() == 8080)
        );
        assert_eq!(server.count(WEB, RecordType::A), 0, "another machine's");
    }
}

#[tokio::test]
async fn srv_targets_that_have_no_address_are_an_error_not_an_empty_set() {
    let server = nodes(Glue::None).await;
    (1..=3).for_each(|node| server.remove(&format!("node{node}.hosts.example.")));
    let error = srv(&server).resolve().await.expect_err("where are they?");
    assert!(!error.is_not_found(), "{error}");
    // If one target has an address, that is used.
    server.set_a("node2.hosts.example.", 30, [pod_v4(2)]);
    let found = srv(&server).resolve().await.expect("one");
    assert_eq!(hosts(found.endpoints()), [pod(2)].into());
}

#[tokio::test]
async fn an_srv_targets_alias_is_followed_in_the_additional_section() {
    let server = DnsServer::start().await;
    let target = "web-0.web.default.svc.cluster.local.";
    server.set_srv(PORT, 30, [Srv::new(8080, target)]);
    server.set_cname(target, 30, "x.example.");
    server.set_cname("x.example.", 30, "y.example.");
    server.set_a("y.example.", 30, [pod_v4(1)]);
    let found = srv(&server).resolve().await.expect("y's address");
    assert_eq!(hosts(found.endpoints()), [pod(1)].into());
    assert_eq!(found.endpoints()[0].hostname(), Some("web-0"));
    assert_eq!(server.exchanges(), 1);
    // A loop is given up.
    server.remove("y.example.");
    server.set_cname("y.example.", 30, "x.example.");
    let error = srv(&server).resolve().await.expect_err("a circle");
    assert!(!error.is_not_found(), "{error}");
}

#[tokio::test]
async fn srv_records_behind_an_alias_have_hostnames() {
    let server = DnsServer::start().await;
    stateful(&server, 2);
    server.set_cname("_http._tcp.shop.example.", 30, PORT);
    let shop = || {
        let dns = Dns::srv("_http._tcp.shop.example.").expect("a service");
        dns.name_servers([server.addr()])
    };
    let found = shop().resolve().await.expect("pods");
    let hostnames = found.endpoints().iter().map(Endpoint::hostname);
    assert_eq!(
        hostnames.collect::<Vec<_>>(),
        [Some("web-0"), Some("web-1")]
    );
    // Without glue, the parent of the records' own name is asked for, not the alias's.
    server.set_glue(Glue::None);
    server.set_a("shop.example.", 30, [pod_v4(98), pod_v4(99)]);
    let found = shop().resolve().await.expect("pods");
    let expected = [many(0).into(), many(1).into()];
    assert_eq!(hosts(found.endpoints()), expected.into());
}

#[tokio::test]
async fn srv_records_with_port_0_or_without_a_target_are_left_out() {
    let server = DnsServer::start().await;
    stateful(&server, 3);
    let target = |n: u8| format!("web-{n}.{WEB}");
    let records = |ports: [u16; 2]| {
        [
            Srv::new(ports[0], target(0)),
            Srv::new(ports[1], target(1)),
            Srv::new(8080, "."),
        ]
    };
    server.set_srv(PORT, 30, records([0, 8080]));
    let found = srv(&server).resolve().await.expect("one");
    let addresses = found.endpoints().iter().map(Endpoint::address);
    let expected = SocketAddr::from((many(1), 8080));
    assert_eq!(addresses.collect::<Vec<_>>(), [expected]);
    server.set_srv(PORT, 30, records([0, 0]));
    let error = srv(&server).resolve().await.expect_err("nothing is left");
    assert!(error.to_string().contains("port 0"), "{error}");
    assert!(!error.is_not_found(), "{error}");
}

// ---------------------------------------------------------------- two families, of which one refuses

/// A balancer whose pods refuse one family, and answer by the other.
fn refusing(dns: Dns, refuses: fn(&IpAddr) -> bool) -> Balance<Pod> {
    Balance::builder(dns).build(move |endpoint: &Endpoint| {
        let endpoint = endpoint.clone();
        Pod::new(service_fn(move |()| {
            let answer = match refuses(&endpoint.address().ip()) {
                true => Err(Unsent::new((), "connection refused").into()),
                false => Ok(endpoint.clone()),
            };
            std::future::ready(answer)
        }))
    })
}

#[tokio::test]
async fn the_other_family_is_used_if_all_of_the_preferred_one_refuse() {
    let server = web(3).await;
    let v6 = ["fd00::1", "fd00::2", "fd00::3"].map(|address| address.parse().expect("an address"));
    server.set_aaaa(WEB, 30, v6);
    for (prefer_ipv6, refuses) in [
        (false, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        (true, IpAddr::is_ipv6),
    ] {
        let balance = refusing(ask(&server, WEB).prefer_ipv6(prefer_ipv6), refuses);
        for _ in 0..10 {
            let pod = get(&balance).await.expect("the other family's");
            assert_eq!(pod.address().is_ipv6(), !prefer_ipv6);
        }
        assert_eq!(balance.endpoints().len(), 3, "each pod once");
    }
}

// ---------------------------------------------------------------- names of this machine

#[tokio::test]
async fn localhost_needs_no_server_and_no_setting() {
    let server = web(1).await;
    for (name, prefer_ipv6, expected) in [
        ("localhost", false, "127.0.0.1:80"),
        ("Web.Localhost.", true, "[::1]:80"),
    ] {
        let dns = ask(&server, name).prefer_ipv6(prefer_ipv6);
        let found = dns.resolve().await.expect("this machine");
        let addresses = found.endpoints().iter().map(Endpoint::address);
        assert_eq!(
            addresses.collect::<Vec<_>>(),
            [expected.parse().expect("an address")]
        );
        assert_eq!((found.name_server(), found.transport()), (None, None));
        get(&balance(dns)).await.expect("a response");
    }
    assert_eq!(server.exchanges(), 0, "{:?}", server.queries());
}

#[tokio::test]
async fn the_error_for_a_single_label_says_what_to_use_locally() {
    let server = DnsServer::start().await;
    let conf = pods_resolv_conf();
    let dns = ask(&server, "web").resolv_conf(&conf.0);
    let told = dns.resolve().await.expect_err("nothing").to_string();
    for word in ["localhost", "hosts_file(true)"] {
        assert!(told.contains(word), "{told}");
    }
}

// ---------------------------------------------------------------- rows 6 to 9: failures

#[tokio::test]
async fn refusals_silence_and_nonsense_leave_the_set() {
    let faults = [
        Fault::SERVFAIL,
        Fault::REFUSED,
        Fault::Garbage { right_id: true },
        Fault::Garbage { right_id: false },
        Fault::TruncateAll,
        Fault::Silent,
    ];
    let stories = faults.map(async |fault| {
        let server = web(3).await;
        let balance = balance(ask(&server, WEB).refresh_interval(FAST));
        get(&balance).await.expect("a response");
        server.fault("*", RecordType::ANY, fault.clone());
        let asked = server.exchanges();
        server.wait_for_queries(asked + 4).await;
        for _ in 0..10 {
            get(&balance).await.expect("a response");
        }
        assert_eq!(balance.endpoints().len(), 3, "{fault:?}");
        server.clear_faults();
        server.set_a(WEB, 30, [pod_v4(7)]);
        within("recovery", answers(&balance, 7)).await;
    });
    join_all(stories).await;
}

#[tokio::test]
async fn nothing_is_held_until_confirmed_unless_it_is_to_be_believed() {
    let server = web(2).await;
    let watch = |on_empty| {
        MembershipStream::new(ask(&server, WEB).refresh_interval(FAST).on_empty(on_empty))
    };
    let mut believing = watch(OnEmpty::Believe);
    let mut confirming = watch(OnEmpty::Confirm);
    change(&mut believing).await;
    change(&mut confirming).await;
    let gone = Instant::now();
    server.remove(WEB);
    assert!(change(&mut believing).await.endpoints.is_empty());
    assert!(gone.elapsed() < 5 * SECOND);
    assert!(change(&mut confirming).await.endpoints.is_empty());
    assert!(gone.elapsed() >= 10 * SECOND);
}

#[tokio::test]
async fn without_an_answer_callers_wait_to_their_bound_and_are_told_why() {
    let server = web(1).await;
    server.fault("*", RecordType::ANY, Fault::SERVFAIL);
    let balance = Balance::builder(ask(&server, WEB).refresh_interval(FAST))
        .ready_timeout(10 * FAST)
        .build(pods);
    let started = Instant::now();
    let error = get(&balance).await.expect_err("nobody to send to");
    assert!(started.elapsed() >= 10 * FAST);
    assert!(error.is_no_endpoints());
    let cause = error.source().expect("DNS's error").to_string();
    assert!(
        cause.contains(WEB) && cause.to_lowercase().contains("fail"),
        "{cause}"
    );
    server.clear_faults();
    within("recovery", answers(&balance, 1)).await;
}

#[tokio::test]
async fn a_family_without_records_is_no_error_while_the_other_is_asked() {
    let server = web(1).await;
    server.fault(WEB, RecordType::A, Fault::Delay(4 * FAST));
    let mut dns = ask(&server, WEB);
    let first = std::future::poll_fn(|cx| dns.poll_next(cx));
    let set = within("the first answer", first).await.expect("a set");
    assert_eq!(hosts(&set), [pod(1)].into());
}

#[tokio::test]
async fn a_set_that_is_empty_fails_at_once() {
    let server = web(1).await;
    let dns = ask(&server, WEB)
        .refresh_interval(FAST)
        .on_empty(OnEmpty::Believe);
    let balance = balance(dns);
    get(&balance).await.expect("a response");
    server.remove(WEB);
    let emptied = async {
        while !balance.endpoints().is_empty() {
            tokio::time::sleep(FAST / 5).await;
        }
    };
    within("emptiness", emptied).await;
    let error = get(&balance)
        .now_or_never()
        .expect("at once")
        .expect_err("nobody to send to");
    assert!(error.is_no_endpoints());
}

// ---------------------------------------------------------------- what can't be a pod

#[tokio::test]
async fn addresses_that_no_pod_can_have_are_left_out() {
    let server = DnsServer::start().await;
    let poison = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::LOCALHOST,
    ];
    server.set_a(WEB, 30, poison.into_iter().chain([pod_v4(1)]));
    let found = ask(&server, WEB).resolve().await.expect("a pod");
    assert_eq!(hosts(found.endpoints()), [pod(1)].into());
    let found = ask(&server, WEB)
        .allow_loopback(true)
        .resolve()
        .await
        .expect("two");
    assert_eq!(found.endpoints().len(), 2);
    server.set_a(WEB, 30, poison);
    let error = ask(&server, WEB).resolve().await.expect_err("no pod");
    assert!(!error.is_not_found(), "that is no scale to zero: {error}");
}

/// Random bytes, and real answers with a byte changed, over UDP and TCP.
#[tokio::test]
async fn whatever_bytes_come_the_set_is_none_the_worse() {
    let server = web(3).await;
    let real = real_answer(&server).await;
    let balance = balance(ask(&server, WEB).refresh_interval(Duration::from_millis(10)));
    get(&balance).await.expect("a response");
    let mut rng = StdRng::seed_from_u64(20);
    for round in 0..100 {
        let mut bytes: Vec<u8> = (0..rng.random_range(0..100))
            .map(|_| rng.random())
            .collect();
        if round % 2 == 0 {
            bytes.clone_from(&real);
            let at = rng.random_range(2..bytes.len());
            bytes[at] = rng.random();
        }
        server.fault("*", RecordType::ANY, Fault::Raw(bytes.into()));
        if round % 10 == 0 {
            server.wait_for_queries(server.exchanges() + 2).await;
        }
        let pod = get(&balance).await.expect("a response").address().ip();
        let poisoned = pod.is_loopback() || pod.is_unspecified() || pod.is_multicast();
        assert!(!poisoned, "round {round}: {pod}");
    }
    server.clear_faults();
    server.set_a(WEB, 30, [pod_v4(7)]);
    within("recovery", answers(&balance, 7)).await;
}

// ---------------------------------------------------------------- several name servers

#[tokio::test]
async fn no_refresh_fails_while_one_name_server_is_healthy() {
    for fault in [
        Fault::SERVFAIL,
        Fault::REFUSED,
        Fault::Garbage { right_id: true },
    ] {
        let (bad, good) = (web(2).await, web(2).await);
        bad.fault("*", RecordType::ANY, fault.clone());
        let dns = ask(&bad, WEB).name_servers([bad.addr(), good.addr()]);
        let balance = balance(dns.refresh_interval(FAST));
        get(&balance).await.expect("a response");
        good.wait_for_queries(20).await;
        let stale = balance.staleness().expect("a set");
        assert!(
            stale < SECOND,
            "{fault:?}: no refresh has failed: {stale:?}"
        );
        assert!(bad.exchanges() <= 4, "{fault:?}: {}", bad.exchanges());

        // It switches back when the other one fails.
        bad.clear_faults();
        let asked = bad.exchanges();
        good.fault("*", RecordType::ANY, fault);
        bad.wait_for_queries(asked + 6).await;
        assert!(balance.staleness() < Some(SECOND));
    }
}

#[tokio::test]
async fn a_silent_name_server_costs_its_share_of_the_time_only_once() {
    let (silent, good) = (web(2).await, web(2).await);
    silent.fault("*", RecordType::ANY, Fault::Silent);
    let dns = ask(&silent, WEB).name_servers([silent.addr(), good.addr()]);
    let started = Instant::now();
    let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
    change(&mut watch).await;
    let took = started.elapsed();
    assert!(
        (SECOND..4 * SECOND).contains(&took),
        "half of 4 s: {took:?}"
    );
    silent.forget();
    tokio::select! {
        change = watch.next() => panic!("{change:?}"),
        () = good.wait_for_queries(20) => {}
    }
    assert_eq!(silent.exchanges(), 0, "{:?}", silent.queries());
}

/// CoreDNS's own pods also go, and a TCP connection to a dead one doesn't end by itself.
#[tokio::test]
async fn a_name_server_that_dies_on_tcp_costs_no_more_than_one_timeout() {
    let (dying, good) = (DnsServer::start().await, DnsServer::start().await);
    for server in [&dying, &good] {
        server.set_a(WEB, 30, (0..1_000).map(many));
    }
    let dns = ask(&dying, WEB).name_servers([dying.addr(), good.addr()]);
    let mut watch = MembershipStream::new(dns.refresh_interval(FAST));
    assert_eq!(change(&mut watch).await.endpoints.len(), 1_000);
    assert_eq!(good.exchanges(), 0);

    dying.fault("*", RecordType::ANY, Fault::SilentTcp);
    good.set_a(WEB, 30, (0..900).map(many));
    let died = Instant::now();
    assert_eq!(change(&mut watch).await.left.len(), 100);
    assert!(died.elapsed() < 4 * SECOND, "{:?}", died.elapsed());
}

#[tokio::test]
async fn without_a_resolv_conf_the_error_names_the_file() {
    let missing = Dns::new("web:80".parse().expect("a target")).resolv_conf("/nowhere/resolv.conf");
    let error = missing.resolve().await.expect_err("no configuration");
    assert!(
        error.to_string().contains("/nowhere/resolv.conf"),
        "{error}"
    );
}

// ---------------------------------------------------------------- helpers

/// A service that answers with its endpoint.
type Pod = BoxCloneSyncService<(), Endpoint, BoxError>;

fn pods(endpoint: &Endpoint) -> Pod {
    let endpoint = endpoint.clone();
    Pod::new(service_fn(move |()| {
        std::future::ready(Ok(endpoint.clone()))
    }))
}

fn balance(dns: Dns) -> Balance<Pod> {
    Balance::builder(dns).build(pods)
}

async fn get(balance: &Balance<Pod>) -> Result<Endpoint, tower_headless::Error> {
    balance.clone().ready().await?.call(()).await
}

/// Waits until pod `host` answers.
async fn answers(balance: &Balance<Pod>, host: u8) {
    while !matches!(get(balance).await, Ok(endpoint) if endpoint.address().ip() == pod(host)) {
        tokio::time::sleep(FAST / 5).await;
    }
}

fn pod_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

fn pod(host: u8) -> IpAddr {
    pod_v4(host).into()
}

fn many(n: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0000 + u32::from(n))
}

/// A server on which `WEB` is pods 1 to `pods`.
async fn web(pods: u8) -> DnsServer {
    let server = DnsServer::start().await;
    server.set_a(WEB, 30, (1..=pods).map(pod_v4));
    server
}

/// Gives the server the records of a StatefulSet at port 8080.
fn stateful(server: &DnsServer, pods: u16) {
    let name = |n| format!("web-{n}.{WEB}");
    server.set_srv(PORT, 30, (0..pods).map(|n| Srv::new(8080, name(n))));
    for n in 0..pods {
        server.set_a(&name(n), 30, [many(n)]);
    }
    server.set_a(WEB, 30, (0..pods).map(many));
}

fn ask(server: &DnsServer, name: &str) -> Dns {
    let target = format!("{name}:80").parse().expect("a target");
    Dns::new(target).name_servers([server.addr()])
}

fn srv(server: &DnsServer) -> Dns {
    Dns::srv(PORT)
        .expect("a service")
        .name_servers([server.addr()])
}

async fn change(watch: &mut MembershipStream) -> MembershipChange {
    let change = within("a change", watch.next()).await;
    change.expect("it never ends")
}

fn hosts(endpoints: &[Endpoint]) -> BTreeSet<IpAddr> {
    endpoints
        .iter()
        .map(|endpoint| endpoint.address().ip())
        .collect()
}

fn times(server: &DnsServer, record_type: RecordType) -> Vec<Instant> {
    let queries = server.queries().into_iter();
    let of_type = queries.filter(|query| query.record_type == record_type);
    of_type.map(|query| query.at).collect()
}

/// The server's answer to a query for A records, as bytes.
async fn real_answer(server: &DnsServer) -> Vec<u8> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let mut query = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in WEB.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.as_bytes());
    }
    query.extend(b"\x00\x00\x01\x00\x01");
    socket.send_to(&query, server.addr()).await.expect("sent");
    let mut answer = vec![0; 1500];
    let length = within("the answer", socket.recv(&mut answer))
        .await
        .expect("received");
    answer.truncate(length);
    answer
}

/// A file that is deleted when dropped.
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        // A test may have deleted it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The resolv.conf of a pod in the namespace `default`; its name server is never asked here.
fn pods_resolv_conf() -> TempFile {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("tower-headless-{}-{number}.conf", std::process::id());
    let file = TempFile(std::env::temp_dir().join(name));
    let text = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                nameserver 10.96.0.10\noptions ndots:5\n";
    std::fs::write(&file.0, text).expect("a writable folder");
    file
}
