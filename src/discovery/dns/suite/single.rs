//! A name with one address: is it a virtual IP, or the only pod?

use tracing::Level;

use super::{logs::logged, script::address, *};
use crate::discovery::dns::lookup::{RecordType, Service};

const WEB: &str = "web.default.svc.cluster.local";
const PORT: &str = "_http._tcp.web.default.svc.cluster.local";
const HINT: &str = "is `clusterIP: None` set?";

/// What is logged in an hour with one address under `name`, asked for as `target`.
async fn hour(target: &str, name: &str) -> String {
    let script = Script::new();
    script.pods(name, [1]);
    logged(
        Level::INFO,
        run(&mut discovery(target, &script), 3600 * SECOND),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn one_address_of_a_service_may_be_a_virtual_ip_or_its_only_pod() {
    let script = Script::new();
    script.pods(WEB, [1]);
    for target in [
        "web:80",
        "web.default:80",
        "web.default.svc.cluster.local.:80",
    ] {
        let log = hour(target, WEB).await;
        assert_eq!(log.matches(HINT).count(), 1, "{log}");
        assert!(log.contains("right if the Service has one pod"), "{log}");
        assert!(!log.contains("WARN"), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_a_pod_s_own_name_or_of_one_outside_the_cluster() {
    for (target, name) in [
        ("web-0.web:80", "web-0.web.default.svc.cluster.local"),
        (
            "web-0.web.default:80",
            "web-0.web.default.svc.cluster.local",
        ),
        ("db.example.com.:80", "db.example.com"),
    ] {
        let log = hour(target, name).await;
        assert!(!log.contains(HINT), "{log}");
    }
}

/// What is logged of SRV records that lead to `target`.
async fn records(target: &str) -> String {
    let script = Script::new();
    let service = Service {
        priority: 0,
        weight: 100,
        port: 80,
        target: target.to_owned(),
    };
    let say = Say::Services {
        services: vec![service],
        glue: vec![(target.to_owned(), address(1))],
        truncated: false,
    };
    script.say(PORT, RecordType::Srv, say);
    let mut dns = with(Dns::srv(&format!("{PORT}.")).expect("a service"), &script);
    logged(Level::INFO, run(&mut dns, 3600 * SECOND)).await
}

#[tokio::test(start_paused = true)]
async fn srv_records_tell_a_virtual_ip_from_an_only_pod() {
    let log = records(WEB).await;
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains("the Service has a virtual IP"), "{log}");
    for pod in ["web-0", "10-0-0-1"] {
        let log = records(&format!("{pod}.{WEB}")).await;
        assert!(!log.contains("clusterIP"), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_pods_that_change_or_are_many() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let log = logged(Level::INFO, async {
        let mut dns = discovery("web.default:80", &script);
        run(&mut dns, 30 * SECOND).await;
        script.pods(WEB, [2]); // its only pod was replaced
        run(&mut dns, 1_000 * SECOND).await;
        script.pods(WEB, [1, 2]);
        run(&mut discovery("web.default:80", &script), 1_000 * SECOND).await;
    });
    let log = log.await;
    assert!(!log.contains("clusterIP"), "{log}");
}
