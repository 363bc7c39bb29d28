//! Names from the pods' own A records, over sockets.

use std::{net::Ipv4Addr, time::Duration};

use futures::FutureExt;
use tokio::time::sleep;
use tower_headless::{Balance, Dns, Route};

use crate::{
    ask, at,
    support::{
        dns::{DnsServer, Fault, RecordType},
        scripted::{Behaviour, PodService, Pods, Request},
        within,
    },
};

const SERVICE: &str = "web.default.svc.cluster.local";
const TICK: Duration = Duration::from_millis(20);

struct Story {
    dns: DnsServer,
    pods: Pods,
    balance: Balance<PodService>,
}

fn own(ordinal: u8) -> String {
    format!("web-{ordinal}.{SERVICE}")
}

fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

/// A Service without a named port. Its pods `web-0` and so on are at hosts 1 to 5.
async fn story() -> Story {
    let dns = DnsServer::start().await;
    for ordinal in 0..5 {
        dns.set_a(&own(ordinal), 30, [ip(ordinal + 1)]);
    }
    dns.set_a(SERVICE, 30, (1..=5).map(ip));
    let target = format!("dns://{}/{SERVICE}:80", dns.addr());
    let source = Dns::new(target.parse().expect("a target")).refresh_interval(TICK);
    let pods = Pods::default();
    let balance = Balance::builder(source).build(pods.make());
    Story { dns, pods, balance }
}

impl Story {
    fn service(&self, hosts: impl IntoIterator<Item = u8>) {
        self.dns.set_a(SERVICE, 30, hosts.into_iter().map(ip));
    }

    fn calls(&self, hosts: impl IntoIterator<Item = u8>) -> usize {
        let hosts = hosts.into_iter();
        hosts.map(|host| self.pods.counts(host).calls).sum()
    }

    /// Waits for `n` whole looks.
    async fn looks(&self, n: usize) {
        let now = self.dns.count(SERVICE, RecordType::A);
        let asked = |queries: &[crate::support::dns::LoggedQuery]| {
            let of_service = |query: &&crate::support::dns::LoggedQuery| {
                query.name.trim_end_matches('.') == SERVICE && query.record_type == RecordType::A
            };
            queries.iter().filter(of_service).count() > now + n
        };
        self.dns.wait_until(asked).await;
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                sleep(TICK / 4).await;
            }
        };
        within(what, met).await;
    }
}

#[tokio::test]
async fn a_pod_is_followed_by_its_own_record() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    assert_eq!(ask(&pod).await.expect("there"), at(4));
    let mut old = 4;
    for new in [9, 8, 7] {
        story.pods.set([old], Behaviour::NotReady);
        story.dns.remove(&own(3));
        story.service([1, 2, 3, 5]);
        let waiting = (0..20).map(|_| ask(&pod));
        let waiting = futures::future::join_all(waiting);
        let back = async {
            story.looks(3).await;
            story.service([1, 2, 3, new, 5]);
            story.looks(2).await;
            story.dns.set_a(&own(3), 30, [ip(new)]);
        };
        let (answers, ()) = within("answers", futures::future::join(waiting, back)).await;
        for answer in answers {
            assert_eq!(answer.expect("it is back"), at(new));
        }
        old = new;
    }
    assert_eq!(story.calls([1, 2, 3, 5]), 0);
}

#[tokio::test]
async fn pods_that_swap_addresses_get_their_own_requests() {
    let story = story().await;
    let pods = [story.balance.pod("web-0"), story.balance.pod("web-1")];
    for (host, pod) in [1, 2].into_iter().zip(&pods) {
        assert_eq!(ask(pod).await.expect("there"), at(host));
    }
    // First both are away, then each is at the other's address.
    story.dns.remove(&own(0));
    story.dns.set_a(&own(1), 30, [ip(1)]);
    story
        .until("the swap", || {
            pods[1].endpoint().is_some_and(|it| it.address() == at(1))
        })
        .await;
    assert_eq!(pods[0].endpoint(), None);
    story.dns.set_a(&own(0), 30, [ip(2)]);
    for (host, pod) in [2, 1].into_iter().zip(&pods) {
        assert_eq!(ask(pod).await.expect("there"), at(host));
    }
    assert_eq!(story.calls([3, 4, 5]), 0);
}

#[tokio::test]
async fn a_request_that_waits_for_an_address_does_not_go_there_once_that_is_no_longer_its_pod_s() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    story.until("the name", || pod.endpoint().is_some()).await;
    story.pods.set([4], Behaviour::Pending);
    let mut request = Box::pin(ask(&pod));
    assert!(request.as_mut().now_or_never().is_none());
    // The address stays in the Service, but nobody asks whose it is now.
    story.dns.remove(&own(3));
    let at_4 = || story.balance.endpoint("10.0.0.4").expect("in the set");
    story
        .until("the end of the name", || at_4().hostname().is_none())
        .await;
    assert!(request.as_mut().now_or_never().is_none());
    story.pods.set([4], Behaviour::Answer);
    assert!(request.as_mut().now_or_never().is_none());
    story.dns.set_a(&own(3), 30, [ip(5)]);
    let answer = within("an answer", request).await;
    assert_eq!(answer.expect("it is back"), at(5));
    assert_eq!(story.calls([4]), 0);
}

#[tokio::test]
async fn own_names_are_looked_up_only_while_requests_name_the_pod() {
    let story = story().await;
    story.looks(5).await;
    let asked = |ordinal| story.dns.count(&own(ordinal), RecordType::A);
    assert_eq!([0, 1, 2, 3, 4].map(asked), [0; 5]);
    assert_eq!(
        ask(&story.balance.pod("web-3")).await.expect("there"),
        at(4)
    );
    let (before, looks) = (asked(3), story.dns.count(SERVICE, RecordType::A));
    story.looks(20).await;
    let looks = story.dns.count(SERVICE, RecordType::A) - looks;
    // One query for each look, except perhaps for the first and the last.
    assert!((looks - 1..=looks + 1).contains(&(asked(3) - before)));
    assert_eq!([0, 1, 2, 4].map(asked), [0; 4]);
    // The Service has no IPv6 addresses, so its pods aren't asked for any.
    assert_eq!(story.dns.count(&own(3), RecordType::AAAA), 0);
}

#[tokio::test]
async fn a_name_without_a_record_is_a_pod_that_is_away() {
    let story = story().await;
    let source = Dns::new(
        format!("dns://{}/{SERVICE}:80", story.dns.addr())
            .parse()
            .expect("a target"),
    );
    let balance = Balance::builder(source.refresh_interval(TICK))
        .ready_timeout(10 * TICK)
        .build(story.pods.make());
    let error = within("an error", ask(&balance.pod("web-7"))).await;
    let error = error.expect_err("there is none");
    assert!(error.is_absent());
    assert_eq!(
        error.to_string(),
        "request to web.default.svc.cluster.local was not sent: pod web-7 isn't there; of 5 endpoints no name is known"
    );
    // An ordinal needs a known name first.
    assert_eq!(ask(&balance.pod("web-1")).await.expect("there"), at(2));
    assert_eq!(
        within("an answer", ask(&balance.pod_at(4)))
            .await
            .expect("there"),
        at(5)
    );
    assert_eq!(story.calls([1, 3, 4]), 0);
}

#[tokio::test]
async fn a_pod_is_found_behind_more_names_than_are_looked_up_at_a_time() {
    let story = story().await;
    let made_up: Vec<_> = (0..100).map(|it| format!("absent-{it}")).collect();
    let mut waiting: Vec<_> = made_up
        .iter()
        .map(|pod| {
            Box::pin(
                story
                    .balance
                    .call_with(Request(1), Route::new().pod(pod.as_str())),
            )
        })
        .collect();
    for request in &mut waiting {
        assert!(request.as_mut().now_or_never().is_none());
    }
    let answer = within("an answer", ask(&story.balance.pod("web-3"))).await;
    assert_eq!(answer.expect("there"), at(4));
}

#[tokio::test]
async fn while_its_record_cant_be_had_a_pod_stays_where_it_is() {
    let story = story().await;
    let pod = story.balance.pod("web-3");
    assert_eq!(ask(&pod).await.expect("there"), at(4));
    story.dns.fault(&own(3), RecordType::ANY, Fault::SERVFAIL);
    story.looks(5).await;
    assert_eq!(ask(&pod).await.expect("there"), at(4));
    story.service([1, 2, 3, 5]);
    story.until("its end", || pod.endpoint().is_none()).await;
    story.service([1, 2, 3, 4, 5]);
    story.looks(3).await;
    assert_eq!(pod.endpoint(), None);
    story.dns.clear_faults();
    assert_eq!(within("an answer", ask(&pod)).await.expect("back"), at(4));
}

#[tokio::test]
async fn others_leave_out_a_pod_that_is_known_only_by_its_own_record() {
    let story = story().await;
    let others = story.balance.others("web-2");
    story
        .until("the set", || story.balance.endpoints().len() == 5)
        .await;
    for _ in 0..20 {
        assert_ne!(ask(&others).await.expect("others"), at(3));
    }
    assert_eq!(story.calls([3]), 0);
}

#[tokio::test]
async fn a_preferred_pod_is_found_by_its_own_record() {
    let story = story().await;
    let route = || Route::new().prefer("web-2");
    let first = story.balance.call_with(Request(1), route()).await;
    first.expect("any");
    let at_3 = || story.balance.endpoint("10.0.0.3");
    story
        .until("the name", || {
            at_3().is_some_and(|it| it.hostname().is_some())
        })
        .await;
    for _ in 0..20 {
        let response = story.balance.call_with(Request(1), route()).await;
        assert_eq!(response.expect("it is there").0.address(), at(3));
    }
}
