//! Slices as the API server writes them, and the endpoints that they make.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;

const V4_FIRST: [&str; 2] = [IPV4, IPV6];

fn slice(family: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-abc"},
        "addressType": family,
        "ports": ports,
        "endpoints": endpoints,
    });
    serde_json::from_value(slice).expect("a slice")
}

/// An IPv4 slice with a port named `http`.
fn web(endpoints: Value) -> EndpointSlice {
    slice(
        IPV4,
        json!([{"name": "http", "port": 80, "protocol": "TCP"}]),
        endpoints,
    )
}

fn pod(address: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "conditions": conditions})
}

fn ready(address: &str) -> Value {
    pod(
        address,
        json!({"ready": true, "serving": true, "terminating": false}),
    )
}

fn terminating(address: &str) -> Value {
    pod(
        address,
        json!({"ready": false, "serving": true, "terminating": true}),
    )
}

fn port(text: &str) -> Port {
    let target: super::super::ServiceTarget = text.parse().expect(text);
    target.port().clone()
}

fn found(
    slices: &[EndpointSlice],
    families: [&str; 2],
    wanted: &str,
) -> Result<Vec<String>, String> {
    let found = endpoints(slices.iter(), families, &port(wanted));
    let found = found.map_err(|error| error.to_string())?;
    Ok(found
        .iter()
        .map(|endpoint| endpoint.address().to_string())
        .collect())
}

#[track_caller]
fn check(slices: &[EndpointSlice], expected: &[&str]) {
    let found = found(slices, V4_FIRST, "web:80").expect("a known port");
    assert_eq!(found, expected);
}

#[test]
fn all_slices_are_joined_and_a_pod_in_two_counts_once() {
    let slices = [
        web(json!([ready("10.0.0.1"), ready("10.0.0.2")])),
        web(json!([ready("10.0.0.2"), ready("10.0.0.3")])),
    ];
    check(&slices, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
}

#[test]
fn of_two_entries_of_a_pod_the_ready_one_wins() {
    let (old, new) = (
        web(json!([terminating("10.0.0.1")])),
        web(json!([ready("10.0.0.1")])),
    );
    for slices in [[old.clone(), new.clone()], [new, old]] {
        check(&slices, &["10.0.0.1:80"]);
        let found = endpoints(slices.iter(), V4_FIRST, &port("web:80")).expect("a known port");
        assert!(!found[0].is_terminating());
    }
}

#[test]
fn a_missing_ready_condition_means_ready() {
    for conditions in [json!({}), json!({"ready": null}), Value::Null] {
        check(
            &[web(json!([pod("10.0.0.1", conditions)]))],
            &["10.0.0.1:80"],
        );
    }
    check(
        &[web(json!([{"addresses": ["10.0.0.1"]}]))],
        &["10.0.0.1:80"],
    );
}

#[test]
fn unready_pods_are_not_used() {
    let unready = json!({"ready": false, "serving": false, "terminating": false});
    check(&[web(json!([pod("10.0.0.1", unready)]))], &[]);
    // Without `serving` and `terminating`, `ready: false` decides.
    check(
        &[web(json!([pod("10.0.0.1", json!({"ready": false}))]))],
        &[],
    );
}

#[test]
fn terminating_pods_are_used_only_without_ready_ones() {
    let both = web(json!([ready("10.0.0.1"), terminating("10.0.0.2")]));
    check(&[both], &["10.0.0.1:80"]);
    let last = [web(json!([
        terminating("10.0.0.2"),
        terminating("10.0.0.3")
    ]))];
    check(&last, &["10.0.0.2:80", "10.0.0.3:80"]);
    let found = endpoints(last.iter(), V4_FIRST, &port("web:80")).expect("a known port");
    assert!(found.iter().all(Endpoint::is_terminating));
    // A terminating pod that no longer serves isn't used.
    let gone = json!({"ready": false, "serving": false, "terminating": true});
    check(&[web(json!([pod("10.0.0.2", gone)]))], &[]);
}

#[test]
fn with_publish_not_ready_addresses_all_pods_count_as_ready() {
    // The controller marks all pods of such a Service as ready, even terminating ones.
    let published = json!({"ready": true, "serving": false, "terminating": true});
    check(
        &[web(json!([pod("10.0.0.1", published)]))],
        &["10.0.0.1:80"],
    );
}

#[test]
fn ipv4_is_used_if_there_is_any_unless_ipv6_is_preferred() {
    let ports = || json!([{"name": "http", "port": 80}]);
    let v4 = slice(IPV4, ports(), json!([ready("10.0.0.1")]));
    let v6 = slice(IPV6, ports(), json!([ready("fd00::1")]));
    let both = [v6.clone(), v4.clone()];
    assert_eq!(
        found(&both, V4_FIRST, "web:80"),
        Ok(vec!["10.0.0.1:80".to_owned()])
    );
    assert_eq!(
        found(&both, [IPV6, IPV4], "web:80"),
        Ok(vec!["[fd00::1]:80".to_owned()])
    );
    let none = slice(IPV4, Value::Null, json!([]));
    assert_eq!(
        found(&[none, v6], V4_FIRST, "web:80"),
        Ok(vec!["[fd00::1]:80".to_owned()])
    );
    assert_eq!(
        found(&[v4], [IPV6, IPV4], "web:80"),
        Ok(vec!["10.0.0.1:80".to_owned()])
    );
}

/// While pods move to the other family, those of the preferred one terminate.
#[test]
fn ready_pods_of_the_other_family_come_before_terminating_ones() {
    let ports = || json!([{"name": "http", "port": 80}]);
    let v4 = |entry| slice(IPV4, ports(), json!([entry]));
    let v6 = |entry| slice(IPV6, ports(), json!([entry]));
    check(
        &[v4(terminating("10.0.0.1")), v6(ready("fd00::1"))],
        &["[fd00::1]:80"],
    );
    check(
        &[v4(terminating("10.0.0.1")), v6(terminating("fd00::1"))],
        &["10.0.0.1:80"],
    );
    let unreadable = v6(ready("fd00::g"));
    check(&[v4(terminating("10.0.0.1")), unreadable], &["10.0.0.1:80"]);
}

#[test]
fn fqdn_slices_and_second_addresses_are_ignored() {
    let names = slice(
        FQDN,
        json!([{"name": "http", "port": 80}]),
        json!([ready("a.example")]),
    );
    let two = web(json!([{"addresses": ["10.0.0.1", "10.0.0.2"]}]));
    check(&[names, two], &["10.0.0.1:80"]);
}

#[test]
fn a_named_port_has_each_slices_own_number() {
    let at = |number: u16, address| {
        let ports = json!([{"name": "metrics", "port": 9}, {"name": "http", "port": number}]);
        slice(IPV4, ports, json!([ready(address)]))
    };
    let slices = [at(8080, "10.0.0.1"), at(9090, "10.0.0.2")];
    let expected = Ok(vec!["10.0.0.1:8080".to_owned(), "10.0.0.2:9090".to_owned()]);
    assert_eq!(found(&slices, V4_FIRST, "web:http"), expected);
    assert_eq!(found(&slices, V4_FIRST, "_http._tcp.web"), expected);
    // A number selects the pods that have it.
    assert_eq!(
        found(&slices, V4_FIRST, "web:9090"),
        Ok(vec!["10.0.0.2:9090".to_owned()])
    );
}

#[test]
fn an_srv_names_protocol_must_match() {
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    let slices = [slice(IPV4, ports, json!([ready("10.0.0.1")]))];
    assert!(found(&slices, V4_FIRST, "_dns._udp.web").is_ok());
    let error = found(&slices, V4_FIRST, "_dns._tcp.web").expect_err("no such port");
    assert!(error.contains("no TCP port named \"dns\""), "{error}");
}

#[test]
fn a_service_without_ports_takes_any_number_and_no_name() {
    for ports in [Value::Null, json!([])] {
        let slices = [slice(IPV4, ports, json!([ready("10.0.0.1")]))];
        assert_eq!(
            found(&slices, V4_FIRST, "web:7"),
            Ok(vec!["10.0.0.1:7".to_owned()])
        );
        let error = found(&slices, V4_FIRST, "web:http").expect_err("no such port");
        assert!(error.contains("give a number"), "{error}");
    }
    // A port without a number means every port.
    let every = [slice(
        IPV4,
        json!([{"name": ""}]),
        json!([ready("10.0.0.1")]),
    )];
    assert_eq!(
        found(&every, V4_FIRST, "web:7"),
        Ok(vec!["10.0.0.1:7".to_owned()])
    );
}

#[test]
fn an_unknown_port_is_an_error_that_names_the_known_ones() {
    let ports = json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}]);
    let slices = [slice(IPV4, ports, json!([ready("10.0.0.1")]))];
    for (wanted, problem) in [
        ("web:80", "the pods don't serve port 80"),
        ("web:grpc", "the Service has no port named \"grpc\""),
    ] {
        let error = found(&slices, V4_FIRST, wanted).expect_err("no such port");
        let known = "; the pods' ports are http = 8080/TCP, metrics = 9090/TCP";
        assert_eq!(error, format!("{problem}{known}"));
    }
}

#[test]
fn a_family_whose_slices_lack_the_port_gives_way_to_the_other() {
    let ports = || json!([{"name": "http", "port": 80}]);
    let metrics = json!([{"name": "metrics", "port": 9090}]);
    let without = slice(IPV4, metrics, json!([ready("10.0.0.1")]));
    let with = slice(IPV6, ports(), json!([ready("fd00::1")]));
    let slices = [without.clone(), with];
    let expected = Ok(vec!["[fd00::1]:80".to_owned()]);
    assert_eq!(found(&slices, V4_FIRST, "web:http"), expected);
    assert_eq!(found(&slices, [IPV6, IPV4], "web:http"), expected);
    // If the other has nothing, or nothing that can be read, it is still an error.
    for rest in [json!([]), json!([ready("fd00::g")])] {
        let slices = [without.clone(), slice(IPV6, ports(), rest)];
        let error = found(&slices, V4_FIRST, "web:http").expect_err("no such port");
        assert!(error.contains("no port named \"http\""), "{error}");
    }
}

#[test]
fn pods_in_slices_of_names_only_are_an_error_not_an_empty_set() {
    let names = |entries| slice(FQDN, json!([{"name": "http", "port": 80}]), entries);
    let error = found(&[names(json!([ready("a.example")]))], V4_FIRST, "web:80");
    assert!(error.expect_err("no address").contains("\"a.example\""));
    let away = pod("a.example", json!({"ready": false}));
    check(&[names(json!([away])), names(json!([]))], &[]);
}

#[test]
fn a_service_without_pods_has_no_ports_to_be_wrong_about() {
    // The controller writes this for a Service that selects no pods.
    check(&[slice(IPV4, Value::Null, Value::Null)], &[]);
    check(&[], &[]);
    let named = found(&[slice(IPV4, json!([]), json!([]))], V4_FIRST, "web:http");
    assert_eq!(named, Ok(Vec::new()));
}

#[test]
fn every_field_of_a_slices_entry_is_kept() {
    let entry = json!({
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": true},
        "hostname": "web-0",
        "nodeName": "node-a",
        "zone": "zone-a",
        "hints": {"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "node-a"}]},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-0", "uid": "5f2c"},
    });
    let expected = Endpoint::new(([10, 0, 0, 1], 80).into())
        .with_hostname("web-0")
        .with_node("node-a")
        .with_zone("zone-a")
        .with_pod_name("web-0")
        .with_pod_uid("5f2c")
        .with_zone_hints(["zone-a"])
        .with_node_hints(["node-a"])
        .with_terminating(false);
    let slices = [web(json!([entry]))];
    let found = endpoints(slices.iter(), V4_FIRST, &port("web:80")).expect("a known port");
    assert_eq!(found, [expected]);
}

#[test]
fn a_target_that_is_no_pod_gives_no_pod_name() {
    let entry = json!({"addresses": ["10.0.0.1"], "targetRef": {"kind": "Node", "name": "node-a"}});
    let slices = [web(json!([entry]))];
    let found = endpoints(slices.iter(), V4_FIRST, &port("web:80")).expect("a known port");
    assert_eq!((found[0].pod_name(), found[0].pod_uid()), (None, None));
}

type Condition = Option<bool>;
/// One entry of a slice: the last part of its address, and whether it is ready, serving and terminating.
type Drawn = (u8, Condition, Condition, Condition);

proptest! {
    /// For any slices, the set equals the one computed by the rules address by address.
    #[test]
    fn any_slices_give_the_set_of_the_rules(
        drawn in vec((any::<bool>(), 80..82_u16, vec((1..6_u8, any::<Condition>(), any::<Condition>(), any::<Condition>()), 0..6)), 0..6)
    ) {
        let slices: Vec<_> = drawn.iter().map(|(v6, port, entries)| drawn_slice(*v6, *port, entries)).collect();
        let found = endpoints(slices.iter(), V4_FIRST, &port("web:http")).expect("each has that port");
        let found: Vec<_> = found.iter().map(|endpoint| endpoint.address().to_string()).collect();
        let expected = [false, true].map(|v6| {
            let entries = || drawn.iter().filter(move |slice| slice.0 == v6).flat_map(|(_, port, entries)| {
                entries.iter().map(|entry| (address(v6, entry.0, *port), *entry))
            });
            let ready = |entry: &Drawn| entry.1 != Some(false);
            let last = |entry: &Drawn| entry.1 == Some(false) && entry.2 == Some(true) && entry.3 == Some(true);
            let with = |rule: &dyn Fn(&Drawn) -> bool| -> BTreeSet<_> {
                entries().filter(|(_, entry)| rule(entry)).map(|(address, _)| address).collect()
            };
            [with(&ready), with(&last)]
        });
        let [[ready, last], [ready_v6, last_v6]] = expected;
        let expected = [ready, ready_v6, last, last_v6].into_iter().find(|set| !set.is_empty()).unwrap_or_default();
        prop_assert_eq!(found.len(), expected.len(), "each once");
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

fn address(v6: bool, host: u8, port: u16) -> String {
    match v6 {
        false => format!("10.0.0.{host}:{port}"),
        true => format!("[fd00::{host}]:{port}"),
    }
}

fn drawn_slice(v6: bool, port: u16, entries: &[Drawn]) -> EndpointSlice {
    let entry = |(host, ready, serving, terminating): &Drawn| {
        let address = if v6 {
            format!("fd00::{host}")
        } else {
            format!("10.0.0.{host}")
        };
        pod(
            &address,
            json!({"ready": ready, "serving": serving, "terminating": terminating}),
        )
    };
    let family = if v6 { IPV6 } else { IPV4 };
    let ports = json!([{"name": "http", "port": port}]);
    slice(family, ports, entries.iter().map(entry).collect())
}
