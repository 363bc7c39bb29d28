//! A balancer while DNS fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

use super::*;
use crate::{
    discovery::{
        Discovery,
        dns::{
            Dns, LookupError,
            suite::{RecordType, Say, Script, hosts, scripted},
        },
        schedule::OnEmpty,
    },
    error::{BoxError, Error},
};

const NAME: &str = "web.default.svc.cluster.local.:80";
const WEB: &str = "web.default.svc.cluster.local";

fn dns(target: &str) -> Dns {
    Dns::new(target.parse().expect("a target"))
}

/// A service that answers with its endpoint.
type Pod = BoxCloneSyncService<(), Endpoint, BoxError>;

/// A balancer over the script, which counts the services that it makes.
struct Client {
    balance: Balance<Pod>,
    connections: Arc<AtomicUsize>,
}

fn client(discovery: impl Discovery) -> Client {
    let connections = Arc::<AtomicUsize>::default();
    let made = connections.clone();
    let balance = Balance::builder(discovery).build(move |endpoint: &Endpoint| {
        made.fetch_add(1, Relaxed);
        let endpoint = endpoint.clone();
        Pod::new(service_fn(move |()| {
            std::future::ready(Ok(endpoint.clone()))
        }))
    });
    Client {
        balance,
        connections,
    }
}

impl Client {
    async fn get(&self) -> Result<Endpoint, Error> {
        self.balance.clone().ready().await?.call(()).await
    }

    /// Sends ten requests a second, none of which may fail. Returns the pods that answered.
    async fn run(&self, time: Duration) -> Vec<Endpoint> {
        let end = Instant::now() + time;
        let mut pods = Vec::new();
        while Instant::now() < end {
            pods.push(self.get().await.expect("a response"));
            tokio::time::sleep(SECOND / 10).await;
        }
        pods
    }
}

#[tokio::test(start_paused = true)]
async fn a_ten_minute_outage_costs_no_request_and_no_connection() {
    for trouble in [Say::ServFail, Say::Silence] {
        let script = Script::new();
        script.pods(WEB, [1, 2, 3]);
        let client = client(scripted(dns(NAME), &script));
        client.run(10 * SECOND).await;
        script.instead(Some(trouble));
        let pods = client.run(600 * SECOND).await;
        assert!(pods.len() >= 5_900);
        assert!(client.balance.staleness() > Some(590 * SECOND));
        script.instead(None);
        client.run(40 * SECOND).await;
        assert!(client.balance.staleness() < Some(6 * SECOND));
        assert_eq!(client.connections.load(Relaxed), 3, "each pod's, once");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_seconds_of_nxdomain_cost_no_request_and_no_connection() {
    for phase in 0..20 {
        let script = Script::new();
        script.pods(WEB, [1, 2, 3]);
        let client = client(scripted(dns(NAME), &script));
        client.run(30 * SECOND + phase * SECOND / 4).await;
        let blank = script.blank();
        client.run(10 * SECOND).await;
        drop(blank);
        client.run(30 * SECOND).await;
        assert_eq!(client.connections.load(Relaxed), 3, "each pod's, once");
        assert_eq!(client.balance.endpoints().len(), 3);
    }
}

/// The longest time, over 40 rounds, from a change at the server to the first pick of the new pod.
async fn lateness(ttl: u64, configure: impl Fn(Dns) -> Dns) -> Duration {
    let mut longest = Duration::ZERO;
    for round in 0..40 {
        let script = Script::new();
        script.ttl(ttl);
        script.pods(WEB, [1]);
        let dns = configure(dns(NAME));
        let client = client(scripted(dns, &script));
        // Well past the eager questions after the first set, and each time at another moment.
        client.run(60 * SECOND + round * SECOND * 3 / 4).await;
        script.pods(WEB, [2]);
        let changed = Instant::now();
        while client.get().await.expect("a response") != hosts([2])[0] {
            tokio::time::sleep(SECOND / 100).await;
        }
        longest = longest.max(changed.elapsed());
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_is_picked_within_the_ttl_or_5_s_plus_1_s() {
    for (ttl, bound) in [(1, 2), (5, 6), (30, 6)] {
        let late = lateness(ttl, |dns| dns).await;
        assert!(late <= bound * SECOND, "TTL {ttl}: {late:?}");
        assert!(late >= SECOND / 2, "TTL {ttl}: {late:?} shows nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn with_max_refresh_at_the_ttl_a_new_pod_is_picked_within_the_ttl_plus_1_s() {
    for ttl in [1, 5, 30] {
        let bound = ttl * SECOND.as_secs();
        let late = lateness(ttl, |dns| dns.max_refresh(Duration::from_secs(bound))).await;
        assert!(
            late <= Duration::from_secs(bound) + SECOND,
            "TTL {ttl}: {late:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_answer_requests_fail_in_time_and_recover() {
    let script = Script::new();
    script.instead(Some(Say::Silence));
    let client = client(scripted(dns(NAME), &script));
    let asked = Instant::now();
    let error = client.get().await.expect_err("nobody to send to");
    assert_eq!(asked.elapsed(), 5 * SECOND);
    let cause = std::error::Error::source(&error).expect("DNS's error");
    assert!(cause.to_string().contains("no answer in time"), "{cause}");
    script.pods(WEB, [1]);
    script.instead(None);
    tokio::time::sleep(40 * SECOND).await;
    client.get().await.expect("a response");
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_nxdomain_is_the_cause_of_no_endpoints() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let client = client(scripted(dns(NAME), &script));
    client.get().await.expect("a response");
    script.forget(WEB);
    for _ in 0..10 {
        tokio::time::sleep(30 * SECOND).await;
        let error = client.get().await.expect_err("scaled to zero");
        assert!(error.is_no_endpoints());
        let cause = std::error::Error::source(&error).expect("DNS's reason");
        assert!(cause.to_string().contains("NXDOMAIN"), "{cause}");
    }
}

/// A failure takes precedence over an absence: whichever comes last, callers hear what is wrong.
#[tokio::test(start_paused = true)]
async fn a_failure_is_reported_rather_than_the_other_familys_absence() {
    let loopback = || Say::Addresses(vec![[127, 0, 0, 1].into()]);
    for (say, expected) in [
        (Say::ServFail, "SERVFAIL"),
        (Say::Silence, "no answer in time"),
        (loopback(), "allow_loopback"),
    ] {
        for target in [NAME, "web:80"] {
            for (failing, on_empty) in [
                (RecordType::A, OnEmpty::Confirm),
                (RecordType::Aaaa, OnEmpty::Confirm),
                (RecordType::A, OnEmpty::Believe),
            ] {
                let say = match (&say, failing) {
                    (Say::Addresses(_), RecordType::Aaaa) => {
                        Say::Addresses(vec!["::1".parse().expect("an address")])
                    }
                    (say, _) => say.clone(),
                };
                let script = Script::new();
                // Makes the other family's answer NODATA.
                script.say(WEB, RecordType::Srv, Say::ServFail);
                script.say(WEB, failing, say);
                let dns = dns(target).on_empty(on_empty);
                let client = client(scripted(dns, &script));
                assert_cause(&client, expected).await;
            }
        }
    }
}

/// Checks that requests fail for a while, with this cause.
async fn assert_cause(client: &Client, expected: &str) {
    for _ in 0..20 {
        tokio::time::sleep(3 * SECOND).await;
        let error = client.get().await.expect_err("nobody to send to");
        let cause = std::error::Error::source(&error).expect("DNS's error");
        assert!(cause.to_string().contains(expected), "{cause}");
        let cause = cause.downcast_ref::<LookupError>().expect("DNS's");
        assert!(!cause.is_not_found(), "{cause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_last_pod_has_gone_becomes_the_cause() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let client = client(scripted(dns(NAME), &script));
    client.get().await.expect("a response");
    script.forget(WEB);
    script.say(WEB, RecordType::Srv, Say::ServFail);
    tokio::time::sleep(60 * SECOND).await;
    let error = client.get().await.expect_err("nobody to send to");
    let cause = std::error::Error::source(&error).expect("DNS's error");
    assert!(cause.to_string().contains("no such records"), "{cause}");
    script.say(WEB, RecordType::A, Say::ServFail);
    tokio::time::sleep(10 * SECOND).await;
    assert_cause(&client, "SERVFAIL").await;
}
