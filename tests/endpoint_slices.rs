//! Discovery by EndpointSlices, as an API server sees it: what is asked, with which credentials, and what the answers
//! lead to. The server is the kit's, on loopback. What takes long is tested under paused time, in
//! `src/discovery/endpoint_slices/suite`.

#[path = "endpoint_slices/field.rs"]
mod field;
#[path = "endpoint_slices/kit.rs"]
mod kit;
mod support;

use std::{net::Ipv4Addr, time::Duration};

use futures::future::poll_immediate;
use hickory_resolver::proto::rr::RecordType;
use rustls::crypto::CryptoProvider;
use serde_json::json;
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, Discovery, DiscoveryExplanation, Dns, EndpointSlices, MembershipStream,
};

use kit::{
    Cluster, addresses, answer, change, drive_until, error, joined, last_set, left, pod, set, slice,
};
use support::{
    api_server::{Asked, Fault},
    dns::DnsServer,
    scripted::{Pods, Request},
    tls::Identity,
    within,
};

const WEB: &str = "web.default:80";

// ---------------------------------------------------------------- requests and sets

#[tokio::test]
async fn a_list_is_followed_by_one_watch_from_its_version() {
    let cluster = Cluster::start([1, 2]).await;
    let mut slices = cluster.slices(WEB);
    assert_eq!(
        addresses(&set(&mut slices).await),
        ["10.0.0.1:80", "10.0.0.2:80"]
    );
    assert!(poll_immediate(answer(&mut slices)).await.is_none());
    drive_until(&mut slices, || cluster.api.watches() == 1).await;
    let received = cluster.api.received();
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert!(
        received.iter().all(|received| received.path == path),
        "{received:?}"
    );
    assert_eq!(cluster.api.asked(), [Asked::List, Asked::Watch(1)]);
    let [list, watch] = &received[..] else {
        panic!("{received:?}")
    };
    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dweb";
    assert!(list.query.contains(selector), "{}", list.query);
    assert!(
        !list.query.contains("limit"),
        "that would go past the server's cache"
    );
    for part in [selector, "allowWatchBookmarks=true", "timeoutSeconds=2"] {
        assert!(watch.query.contains(part), "{}", watch.query);
    }
}

#[tokio::test]
async fn added_modified_and_deleted_slices_change_the_set() {
    let cluster = Cluster::start([1]).await;
    let mut watch = MembershipStream::new(cluster.slices(WEB));
    assert_eq!(joined(&mut watch).await, ["10.0.0.1:80"]);
    let told = async {
        cluster.api.wait_for_watch().await;
        cluster.pods("web-b", [2]);
    };
    let ((), change) = tokio::join!(told, joined(&mut watch));
    assert_eq!(change, ["10.0.0.2:80"]);
    cluster.pods("web-b", [2, 3]);
    assert_eq!(joined(&mut watch).await, ["10.0.0.3:80"]);
    cluster.api.delete("web-b");
    assert_eq!(left(&mut watch).await, ["10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(cluster.api.asked(), [Asked::List, Asked::Watch(1)]);
}

#[tokio::test]
async fn another_services_slices_are_ignored() {
    let cluster = Cluster::start([1]).await;
    cluster
        .api
        .slice("db", "db-a", slice(json!([pod("10.0.0.9")])));
    assert_eq!(
        addresses(&set(&mut cluster.slices(WEB)).await),
        ["10.0.0.1:80"]
    );
}

#[tokio::test]
async fn every_field_of_a_slices_entry_comes_with_the_endpoint() {
    let cluster = Cluster::start([]).await;
    let entry = json!({
        "addresses": ["10.0.0.1"],
        "hostname": "web-0",
        "nodeName": "node-a",
        "zone": "zone-a",
        "hints": {"forZones": [{"name": "zone-b"}], "forNodes": [{"name": "node-b"}]},
        "targetRef": {"kind": "Pod", "name": "web-0", "uid": "5f2c"},
    });
    cluster.api.slice("web", "web-b", slice(json!([entry])));
    let set = set(&mut cluster.slices("_http._tcp.web.default")).await;
    let [endpoint] = &set[..] else {
        panic!("{set:?}")
    };
    assert_eq!(endpoint.hostname(), Some("web-0"));
    assert_eq!(endpoint.pod_name(), Some("web-0"));
    assert_eq!(endpoint.pod_uid(), Some("5f2c"));
    assert_eq!(endpoint.node(), Some("node-a"));
    assert_eq!(endpoint.zone(), Some("zone-a"));
    assert_eq!(endpoint.zone_hints().collect::<Vec<_>>(), ["zone-b"]);
    assert_eq!(endpoint.node_hints().collect::<Vec<_>>(), ["node-b"]);
    assert_eq!(endpoint.to_string(), "web-0 (10.0.0.1:80)");
}

#[tokio::test]
async fn addresses_that_no_pod_can_have_are_left_out() {
    let cluster = Cluster::start([]).await;
    let entries = json!([pod("10.0.0.1"), pod("169.254.169.254"), pod("127.0.0.1")]);
    cluster.api.slice("web", "web-b", slice(entries));
    assert_eq!(
        addresses(&set(&mut cluster.slices(WEB)).await),
        ["10.0.0.1:80"]
    );
    let mut loopback = cluster.slices(WEB).allow_loopback(true);
    assert_eq!(
        addresses(&set(&mut loopback).await),
        ["10.0.0.1:80", "127.0.0.1:80"]
    );
    cluster
        .api
        .slice("web", "web-b", slice(json!([pod("169.254.169.254")])));
    let error = error(&mut cluster.slices(WEB)).await;
    assert!(error.to_string().contains("link-local"), "{error}");
}

#[tokio::test]
async fn an_unknown_port_is_an_error_that_names_the_known_ones() {
    let cluster = Cluster::start([1]).await;
    let error = error(&mut cluster.slices("web.default:8080")).await;
    assert!(error.is_unknown_port());
    let expected = "EndpointSlices of web.default:8080: the pods don't serve port 8080; the pods' ports are http = 80/TCP";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn ipv6_is_used_if_it_is_preferred() {
    let cluster = Cluster::start([1]).await;
    let mut v6 = slice(json!([pod("fd00::1")]));
    v6["addressType"] = json!("IPv6");
    cluster.api.slice("web", "web-6", v6);
    assert_eq!(
        addresses(&set(&mut cluster.slices(WEB)).await),
        ["10.0.0.1:80"]
    );
    let mut preferred = cluster.slices(WEB).prefer_ipv6(true);
    assert_eq!(addresses(&set(&mut preferred).await), ["[fd00::1]:80"]);
}

#[tokio::test]
async fn clones_share_one_watch() {
    let cluster = Cluster::start([1]).await;
    let slices = cluster.slices(WEB);
    let balancers: Vec<_> = (0..4)
        .map(|_| Balance::builder(slices.clone()).build(Pods::default().make()))
        .collect();
    for mut balance in balancers.iter().cloned() {
        balance.ready().await.expect("a pod");
    }
    cluster.api.wait_for_watch().await;
    cluster.pods("web-a", [1, 2]);
    for balance in &balancers {
        let mut watch = balance.watch();
        while change(&mut watch).await.endpoints.len() < 2 {}
    }
    assert_eq!(cluster.api.asked(), [Asked::List, Asked::Watch(1)]);
}

#[tokio::test]
async fn the_watch_ends_with_the_last_balancer() {
    let cluster = Cluster::start([1]).await;
    let mut balance = Balance::builder(cluster.slices(WEB)).build(Pods::default().make());
    balance.ready().await.expect("a pod");
    cluster.api.wait_for_watch().await;
    drop(balance);
    within("the end of the watch", async {
        while cluster.api.watches() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_watch_ends_with_its_last_reader_though_an_unused_clone_is_kept() {
    let cluster = Cluster::start([1]).await;
    let reader = cluster.watching().await;
    let kept = reader.clone();
    drop(reader);
    within("the end of the watch", async {
        while cluster.api.watches() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(kept);
}

// ---------------------------------------------------------------- ends, cuts, and lost history

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_bookmark() {
    let cluster = Cluster::start([1]).await;
    let mut slices = cluster.watching().await;
    let version = cluster.api.bookmark();
    assert_eq!(
        addresses(&set(&mut slices).await),
        ["10.0.0.1:80"],
        "told anew"
    );
    cluster.api.end();
    cluster.goes_on(&mut slices, Asked::Watch(version)).await;
}

#[tokio::test]
async fn a_connection_cut_within_a_line_loses_no_event() {
    let cluster = Cluster::start([1]).await;
    let mut slices = cluster.watching().await;
    cluster.pods("web-a", [1, 2]);
    set(&mut slices).await;
    cluster.api.cut();
    // This change happens while nobody watches, and comes with the next watch.
    cluster.pods("web-a", [1, 2, 3]);
    let last = last_set(&mut slices, |set| set.len() == 3).await;
    assert_eq!(
        addresses(&last),
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    );
    cluster.goes_on(&mut slices, Asked::Watch(2)).await;
}

#[tokio::test]
async fn history_lost_during_a_watch_is_followed_by_a_list() {
    let cluster = Cluster::start([1, 2]).await;
    let mut slices = cluster.watching().await;
    cluster.api.expire();
    cluster.pods("web-a", [2, 3]);
    assert_eq!(
        addresses(&set(&mut slices).await),
        ["10.0.0.2:80", "10.0.0.3:80"]
    );
    cluster.goes_on(&mut slices, Asked::Watch(2)).await;
    assert_eq!(cluster.api.asked()[2..], [Asked::List, Asked::Watch(2)]);
}

#[tokio::test]
async fn history_lost_between_two_watches_is_followed_by_a_list() {
    for refused_at_once in [true, false] {
        let cluster = Cluster::start([1, 2]).await;
        let mut slices = cluster.watching().await;
        cluster.api.end();
        cluster.pods("web-a", [2, 3]);
        cluster.api.forget(refused_at_once);
        let last = last_set(&mut slices, |set| {
            set.iter()
                .any(|pod| pod.address().ip() == Ipv4Addr::new(10, 0, 0, 3))
        })
        .await;
        assert_eq!(addresses(&last), ["10.0.0.2:80", "10.0.0.3:80"]);
        cluster.goes_on(&mut slices, Asked::Watch(3)).await;
        let asked = [Asked::Watch(1), Asked::List, Asked::Watch(3)];
        assert_eq!(
            cluster.api.asked()[2..],
            asked,
            "refused at once: {refused_at_once}"
        );
    }
}

// ---------------------------------------------------------------- failures

#[tokio::test]
async fn a_server_that_fails_is_asked_again() {
    let cluster = Cluster::start([1]).await;
    cluster.api.fault_lists(Some(Fault::Status(500)));
    let mut slices = cluster.slices(WEB);
    let error = error(&mut slices).await;
    assert!(
        error.to_string().contains("answered 500: etcdserver"),
        "{error}"
    );
    cluster.api.fault_lists(None);
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_after_ten_seconds() {
    let cluster = Cluster::start([1]).await;
    cluster.api.fault_lists(Some(Fault::Hang));
    assert!(error(&mut cluster.slices(WEB)).await.is_timeout());
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_the_last_set_until_it_is_back() {
    let cluster = Cluster::start([1]).await;
    let mut slices = cluster.watching().await;
    cluster.api.stop();
    for _ in 0..2 {
        let error = error(&mut slices).await;
        assert!(error.to_string().contains("can't be reached"), "{error}");
    }
    cluster.pods("web-a", [2]);
    cluster.api.restart().await;
    let back = last_set(&mut slices, |_| true).await;
    assert_eq!(addresses(&back), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_missing_role_is_printed_and_the_watch_begins_once_it_is_applied() {
    let cluster = Cluster::start([1]).await;
    cluster.api.fault_lists(Some(Fault::Status(403)));
    let mut slices = cluster.slices(WEB);
    let error = error(&mut slices).await;
    assert!(error.is_forbidden());
    let text = error.to_string();
    for part in [
        "kind: Role\nmetadata:\n  name: watch-endpointslices\n  namespace: default\n",
        "- apiGroups: [discovery.k8s.io]\n  resources: [endpointslices]\n  verbs: [list, watch]\n",
        "- kind: ServiceAccount\n  name: client\n  namespace: apps\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    cluster.api.fault_lists(None);
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn an_expired_token_is_read_again() {
    let cluster = Cluster::start([1]).await;
    cluster.api.require_token("the second");
    let mut slices = cluster.slices(WEB);
    assert!(error(&mut slices).await.is_unauthorized());
    cluster.write_token("the second");
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
    let tokens = cluster
        .api
        .received()
        .into_iter()
        .take(2)
        .map(|received| received.authorization);
    let expected = ["Bearer the first", "Bearer the second"].map(|token| Some(token.to_owned()));
    assert!(tokens.eq(expected));
}

#[tokio::test]
async fn a_missing_kubeconfig_is_an_error_until_it_appears() {
    let cluster = Cluster::start([1]).await;
    let path = cluster.folder.join("later");
    let mut slices = EndpointSlices::new(WEB.parse().expect("a target")).kubeconfig(&path);
    let error = error(&mut slices).await;
    assert!(error.to_string().contains("later"), "{error}");
    std::fs::copy(cluster.kubeconfig(), &path).expect("a writable folder");
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_target_without_a_namespace_uses_the_contexts() {
    let cluster = Cluster::start([1]).await;
    set(&mut cluster.slices("web:80")).await;
    let path = &cluster.api.received()[0].path;
    assert_eq!(
        path,
        "/apis/discovery.k8s.io/v1/namespaces/of-the-context/endpointslices"
    );
}

#[tokio::test]
async fn a_client_of_the_applications_own_is_used() {
    let cluster = Cluster::start([1]).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::new(cluster.api.url().parse().expect("a URL"));
    let client = kube::Client::try_from(config).expect("a client");
    let mut slices = EndpointSlices::new(WEB.parse().expect("a target")).client(client);
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
}

// ---------------------------------------------------------------- with DNS as the fallback

#[tokio::test]
async fn dns_is_used_while_the_watch_is_forbidden_and_the_switch_makes_no_service_again() {
    let cluster = Cluster::start([1, 2]).await;
    let dns = DnsServer::start().await;
    dns.set_a(
        "web.default.",
        1,
        [1, 2].map(|host| Ipv4Addr::new(10, 0, 0, host)),
    );
    cluster.api.fault_lists(Some(Fault::Status(403)));
    let target = "web.default.:80".parse().expect("a target");
    let under = Dns::new(target)
        .name_servers([dns.addr()])
        .refresh_interval(Duration::from_millis(50));
    let pods = Pods::default();
    let balance = Balance::builder(cluster.slices(WEB).or(under)).build(pods.make());
    let mut caller = balance.clone();
    for n in 0..10 {
        let ready = caller.ready().await.expect("a pod");
        ready.call(Request(n)).await.expect("an answer");
    }
    assert!(dns.count("web.default.", RecordType::A) > 0);
    let known = |pod_name: Option<&str>| {
        balance
            .endpoints()
            .iter()
            .all(|pod| pod.endpoint.pod_name() == pod_name)
    };
    assert!(known(None));
    cluster.api.fault_lists(None);
    cluster.api.wait_for_watch().await;
    dns.forget();
    cluster.pods("web-a", [1, 2, 3]);
    let mut watch = balance.watch();
    while change(&mut watch).await.endpoints.len() < 3 {}
    for host in [1, 2, 3] {
        let counts = pods.counts(host);
        assert_eq!(counts.made, 1, "pod {host}");
    }
    // One look, of two questions, may have been in progress when the watch began.
    assert!(dns.queries().len() <= 2, "{:?}", dns.queries());
}

// ---------------------------------------------------------------- processes of their own

/// This build has two rustls providers, so kube by itself would panic without a default.
#[tokio::test]
async fn tls_works_with_two_linked_providers_and_none_installed() {
    let identity = Identity::new("127.0.0.1");
    let cluster = Cluster::start_tls(identity).await;
    let output = cluster.child("child_without_a_provider").await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn child_without_a_provider() {
    assert!(CryptoProvider::get_default().is_none());
    print_set().await;
}

#[tokio::test]
async fn the_applications_own_crypto_provider_stays() {
    let identity = Identity::new("127.0.0.1");
    let cluster = Cluster::start_tls(identity).await;
    let output = cluster.child("child_with_a_provider").await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn child_with_a_provider() {
    let mut own = rustls::crypto::ring::default_provider();
    own.cipher_suites.truncate(1);
    own.install_default().expect("the first one");
    print_set().await;
    let provider = CryptoProvider::get_default().expect("the application's");
    assert_eq!(provider.cipher_suites.len(), 1);
}

/// Prints the set, with the kubeconfig from the environment (`KUBECONFIG`).
async fn print_set() {
    let mut slices = EndpointSlices::new(WEB.parse().expect("a target"));
    println!("{:?}", addresses(&set(&mut slices).await));
}

// ---------------------------------------------------------------- explanations

#[tokio::test]
async fn explain_shows_an_unreachable_api_server_and_the_next_attempt() {
    let cluster = Cluster::start([1]).await;
    let pods = Pods::default();
    let balance = Balance::builder(cluster.slices(WEB))
        .counters(true)
        .build(pods.make());
    let until = async |what: &str, is_it: &dyn Fn(&DiscoveryExplanation) -> bool| {
        within(what, async {
            loop {
                let it = balance.explain();
                if is_it(&it.discovery) {
                    return it;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    };
    let is = |it: &DiscoveryExplanation, activity: &str| it.activity.as_deref() == Some(activity);
    let it = until("a watch", &|it| {
        is(it, "watches") && it.last_answer.is_some()
    })
    .await;
    cluster.api.wait_for_watch().await;
    assert_eq!(it.discovery.kind.as_deref(), Some("endpoint_slices"));
    assert_eq!(it.discovery.server, Some(cluster.api.url()));
    assert_eq!(
        (it.discovery.next_refresh, it.trouble.len()),
        (None, 0),
        "{it}"
    );

    cluster.api.stop();
    // The first error only says that the watch has ended.
    let is_refused = |it: &DiscoveryExplanation| {
        let error = it.last_error.as_ref();
        error.is_some_and(|error| error.text.contains("refused"))
    };
    let it = until("a refusal", &|it| is_refused(it) && is(it, "waits")).await;
    assert!(it.discovery.next_refresh > Some(it.at), "{it}");
    assert_eq!(it.discovery.server, Some(cluster.api.url()));
    let error = it.discovery.last_error.as_ref().expect("it has failed");
    assert!(error.at <= it.at && error.text.contains("refused"), "{it}");
    assert!(
        it.trouble[0].contains("discovery fails, and the last set"),
        "{it}"
    );
    assert!(it.trouble[0].contains("refused"), "{it}");
    assert_eq!(it.size, 1, "the last set is used");

    cluster.api.restart().await;
    let it = until("a watch again", &|it| !it.is_failing && is(it, "watches")).await;
    assert_eq!(it.discovery.next_refresh, None);
    assert!(
        it.discovery.last_error.is_some() && it.trouble.is_empty(),
        "{it}"
    );
}
