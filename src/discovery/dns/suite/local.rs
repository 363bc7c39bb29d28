//! Names that mean this machine: localhost (RFC 6761 §6.3), and the hosts file.

use std::path::PathBuf;

use super::*;
use crate::discovery::dns::lookup::{LookupError, RecordType::A};

fn loopback(address: &str) -> Vec<Endpoint> {
    vec![Endpoint::new(address.parse().expect("an address"))]
}

#[tokio::test(start_paused = true)]
async fn localhost_is_loopback_and_no_server_is_asked() {
    for name in [
        "localhost",
        "LocalHost",
        "localhost.",
        "web.localhost",
        "a.web.localhost.",
    ] {
        let script = Script::new();
        script.instead(Some(Say::ServFail));
        let target = format!("{name}:8080").parse().expect("a target");
        let dns = Dns::new(target);
        let mut v4 = with(dns.clone(), &script);
        assert_eq!(set(&mut v4).await, loopback("127.0.0.1:8080"), "{name}");
        run(&mut v4, 60 * SECOND).await;
        let mut v6 = with(dns.prefer_ipv6(true), &script);
        assert_eq!(set(&mut v6).await, loopback("[::1]:8080"), "{name}");
        assert_eq!(script.take_asked(), [], "{name}");
    }
}

/// Many development servers listen on only one of the two families.
#[tokio::test(start_paused = true)]
async fn localhost_is_reached_by_the_other_family_if_one_refuses() {
    let mut dns = discovery("localhost:8080", &Script::new());
    let first = set(&mut dns).await;
    dns.refused(&first[0]);
    until(&mut dns, &loopback("[::1]:8080")).await;
}

#[tokio::test(start_paused = true)]
async fn localhost_has_no_srv_records_and_no_server_is_asked() {
    let script = Script::new();
    let dns = Dns::srv("_http._tcp.web.localhost").expect("a service");
    let error = answer(&mut with(dns, &script)).await.expect_err("none");
    let error = error.downcast_ref::<LookupError>().expect("of DNS");
    assert!(error.is_not_found(), "{error}");
    assert_eq!(script.take_asked(), []);
}

/// A server that gives loopback addresses for other names isn't believed without `allow_loopback`.
#[tokio::test(start_paused = true)]
async fn loopback_addresses_from_dns_are_rejected() {
    let script = Script::new();
    script.say("web", A, Say::Addresses(vec![[127, 0, 0, 1].into()]));
    let mut dns = discovery("web.:80", &script);
    let error = answer(&mut dns).await.expect_err("poison");
    assert!(error.to_string().contains("allow_loopback"), "{error}");
    script.search(&["localhost"]);
    script.pods("api", [1]);
    let mut dns = discovery("api:80", &script);
    assert_eq!(set(&mut dns).await, hosts([1]), "not api.localhost");
}

/// A hosts file, deleted when dropped.
struct HostsFile(PathBuf);

impl HostsFile {
    fn new(test: &str, text: &str) -> Self {
        let name = format!("tower-headless-hosts-{}-{test}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("a writable folder");
    }

    fn dns(&self, target: &str) -> Dns {
        let dns = Dns::new(target.parse().expect("a target"));
        dns.set(|settings| settings.hosts_file = Some(self.0.clone()))
    }
}

impl Drop for HostsFile {
    fn drop(&mut self) {
        // A test may have deleted it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_hosts_file_is_used_if_it_is_enabled() {
    let file = HostsFile::new("found", "127.0.1.1 web\n10.0.0.9 db\n");
    let script = Script::new();
    script.pods("web.default.svc.cluster.local", [1]);
    let mut dns = with(file.dns("web:80"), &script);
    assert_eq!(set(&mut dns).await, loopback("127.0.1.1:80"));
    assert_eq!(script.take_asked(), []);
    let mut dns = with(file.dns("web:80").hosts_file(false), &script);
    assert_eq!(set(&mut dns).await, hosts([1]));
    // A name that isn't there is looked up in DNS.
    file.write("10.0.0.9 db\n");
    let mut dns = with(file.dns("web:80"), &script);
    assert_eq!(set(&mut dns).await, hosts([1]));
}

#[tokio::test(start_paused = true)]
async fn the_hosts_file_is_read_at_each_look_and_may_be_missing() {
    let file = HostsFile::new("anew", "10.0.0.9 web\n");
    let script = Script::new();
    script.pods("web.default.svc.cluster.local", [1]);
    let mut dns = with(file.dns("web:80"), &script);
    assert_eq!(set(&mut dns).await, hosts([9]));
    file.write("10.0.0.8 web\n");
    until(&mut dns, &hosts([8])).await;
    std::fs::remove_file(&file.0).expect("it was there");
    until(&mut dns, &hosts([1])).await;
}

#[tokio::test(start_paused = true)]
async fn the_error_for_a_single_label_says_what_to_use_locally() {
    for target in ["web:80", "web.:80"] {
        let error = answer(&mut discovery(target, &Script::new())).await;
        let told = error.expect_err("it doesn't exist").to_string();
        for word in ["localhost", "hosts_file(true)"] {
            assert!(told.contains(word), "{target}: {told}");
        }
    }
    for target in ["web.default:80", "web.default.svc.:80"] {
        let error = answer(&mut discovery(target, &Script::new())).await;
        let told = error.expect_err("it doesn't exist").to_string();
        assert!(!told.contains("hosts_file"), "{target}: {told}");
    }
}

#[test]
fn the_hosts_file_is_off_by_default() {
    let dns = || Dns::new("web:80".parse().expect("a target"));
    assert_eq!(dns().settings.hosts_file, None);
    let read = dns().hosts_file(true);
    assert_eq!(read.settings.hosts_file, Some("/etc/hosts".into()));
}
