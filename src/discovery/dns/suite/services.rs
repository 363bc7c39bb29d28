//! SRV records: row 5 of the promises.

use std::net::IpAddr;

use super::{script::address, *};
use crate::discovery::dns::lookup::{
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

/// A StatefulSet's pods, those of `glued` with their addresses.
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
async fn hostnames_come_with_the_pods_in_one_exchange() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(3, 3, false));
    assert_eq!(set(&mut discover(&script)).await, named([1, 2, 3]));
    assert_eq!(script.take_asked(), [(PORT.to_owned(), Srv)]);
}

#[tokio::test(start_paused = true)]
async fn missing_addresses_cost_one_question_for_all_and_the_hostnames() {
    for (glued, truncated) in [(0, false), (3, true)] {
        let script = Script::new();
        script.say(PORT, Srv, stateful(3, glued, truncated));
        script.pods(SERVICE, [1, 2, 3]);
        assert_eq!(set(&mut discover(&script)).await, hosts([1, 2, 3]));
        let questions = [(PORT.to_owned(), Srv), (SERVICE.to_owned(), A)];
        assert_eq!(script.take_asked(), questions, "{glued} glued");
    }
}

/// A packet without room for all addresses need not be marked as cut short.
#[tokio::test(start_paused = true)]
async fn where_some_addresses_are_missing_tcp_may_have_them_all() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(3, 2, false));
    script.pods(SERVICE, [1, 2, 3]);
    assert_eq!(set(&mut discover(&script)).await, hosts([1, 2, 3]));
    let srv = (PORT.to_owned(), Srv);
    let questions = [srv.clone(), srv, (SERVICE.to_owned(), A)];
    assert_eq!(script.take_asked(), questions);
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_other_family_only_is_found_there() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(1, 0, false));
    let v6: IpAddr = "fd00::1".parse().expect("an address");
    script.say(SERVICE, Aaaa, Say::Addresses(vec![v6]));
    let endpoints = set(&mut discover(&script)).await;
    assert_eq!(endpoints, [Endpoint::new((v6, 80).into())]);
}

#[tokio::test(start_paused = true)]
async fn ports_that_differ_need_their_addresses() {
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
    let endpoints = set(&mut dns).await;
    let ports = endpoints.iter().map(|endpoint| endpoint.address().port());
    assert_eq!(ports.collect::<Vec<_>>(), [80, 8080]);
    script.say(PORT, Srv, say(&[1]));
    script.pods(SERVICE, [1, 2]);
    let error = answer(&mut dns).await.expect_err("which port is whose?");
    assert!(error.to_string().contains("several ports"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pods_without_hostnames_are_named_by_their_addresses_and_have_none() {
    let v6: IpAddr = "fd00::1".parse().expect("an address");
    let targets = [
        ("10-0-0-1", address(1)),
        ("fd00--1", v6),
        ("10-0-0-9", address(2)),
    ];
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
    assert_eq!(hostnames.collect::<Vec<_>>(), [None, None, own, None]);
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

/// RFC 2782: the lowest priority first; a target of "." means that the service is not to be had.
#[tokio::test(start_paused = true)]
async fn the_lowest_priority_counts_and_a_root_target_is_nothing() {
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

/// CoreDNS shares 100 out among the pods: 100, then 50 each, then 33.
#[tokio::test(start_paused = true)]
async fn weights_count_where_they_differ() {
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
async fn another_pod_at_the_same_address_is_another_pod() {
    let script = Script::new();
    let at = |pod: u8| Say::Services {
        services: vec![service(&format!("web-{pod}.{SERVICE}"), 80)],
        glue: vec![(format!("web-{pod}.{SERVICE}"), address(1))],
        truncated: false,
    };
    script.say(PORT, Srv, at(0));
    let mut watch = MembershipStream::new(discover(&script));
    change(&mut watch).await;
    script.say(PORT, Srv, at(1));
    let change = change(&mut watch).await;
    let hostnames = [&change.joined, &change.left].map(|it| it[0].hostname());
    assert_eq!(hostnames, [Some("web-1"), Some("web-0")]);
}

#[tokio::test(start_paused = true)]
async fn a_short_service_name_is_walked_as_any_other() {
    let script = Script::new();
    script.say(PORT, Srv, stateful(2, 2, false));
    let mut dns = with(Dns::srv("_http._tcp.web").expect("a service"), &script);
    assert_eq!(set(&mut dns).await, named([1, 2]));
    run(&mut dns, 30 * SECOND).await;
    let asked = script.take_asked();
    assert!(asked.iter().all(|asked| *asked == (PORT.to_owned(), Srv)));
}
