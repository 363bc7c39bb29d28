//! The membership suite: discovery with the answers of real DNS servers. Every case runs against every server, as a
//! test of its own with the server in its name.
//!
//! Nothing listens at the pods' addresses: only the set is checked.

mod support;

use std::{
    collections::HashSet,
    fs, future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::StreamExt;
use support::{
    servers::{Server, Software},
    within,
};
use tokio::sync::mpsc;
use tower::service_fn;
use tower_headless::{
    Balance, BoxError, Discovery, Dns, Endpoint, LookupError, MembershipChange, MembershipStream,
    OnEmpty, Transport,
};

const FAST: Duration = Duration::from_millis(50);
const TTL: u32 = 7;
const PORT: u16 = 80;
const SERVICE: &str = "nginx-headless.default.svc.cluster.local";
const SERVICE_PORT: &str = "_http._tcp.nginx-headless.default.svc.cluster.local";

/// The cases, once for each server.
macro_rules! suite {
    ($($case:ident)*) => {
        suite!(knot = Software::Knot; $($case)*);
        suite!(coredns = Software::CoreDns; $($case)*);
    };
    ($server:ident = $software:expr; $($case:ident)*) => {
        mod $server {
            use super::{Service, Software};
            $(
                #[tokio::test]
                async fn $case() {
                    if let Some(service) = Service::start($software).await {
                        super::$case(service).await;
                    }
                }
            )*
        }
    };
}

suite! {
    a_look_is_told_in_full
    scales_up
    scales_down
    pods_that_stay_keep_their_services
    pods_may_come_after_their_clients
    to_zero_and_back
    a_short_emptiness_changes_nothing
    a_thousand_pods
    pods_have_names
    a_pod_comes_back_elsewhere
    an_address_goes_to_another_pod
    any_number_of_pods
    nine_hundred_srv_records
    a_thousand_srv_records
    short_names
    a_dual_stack_pod_counts_once
    steady_answers_are_no_news
}

// ---------------------------------------------------------------- the cases

async fn a_look_is_told_in_full(mut service: Service) {
    let dns = service.dns();
    let error = dns.resolve().await.expect_err("there is no such name yet");
    assert!(error.is_not_found(), "{error}");
    service.publish(&pods(0..3)).await;
    for (dns, name) in [(dns, SERVICE), (service.srv(), SERVICE_PORT)] {
        let resolution = dns.resolve().await.expect("three pods");
        assert_eq!(resolution.endpoints().len(), 3);
        assert_eq!(resolution.name(), Some(name));
        assert_eq!(resolution.ttl(), Some(Duration::from_secs(TTL.into())));
        assert_eq!(resolution.name_server(), Some(service.addr()));
        assert_eq!(resolution.transport(), Some(Transport::Udp));
    }
}

async fn scales_up(mut service: Service) {
    for dns in [service.dns(), service.srv()] {
        service.publish(&pods(0..3)).await;
        let mut watched = Watched::new(dns);
        let first = watched.next().await;
        assert_eq!(first.joined, first.endpoints);
        assert_eq!(addresses(&first.endpoints), hosts(0..3));
        service.publish(&pods(0..5)).await;
        let change = watched.next().await;
        assert_eq!(addresses(&change.endpoints), hosts(0..5));
        assert_eq!(addresses(&change.joined), hosts(3..5));
        assert_eq!(change.left, []);
    }
}

async fn scales_down(mut service: Service) {
    for dns in [service.dns(), service.srv()] {
        service.publish(&pods(0..5)).await;
        let mut watched = Watched::new(dns);
        watched.next().await;
        service.publish(&pods(0..2)).await;
        let change = watched.next().await;
        assert_eq!(addresses(&change.endpoints), hosts(0..2));
        assert_eq!(change.joined, []);
        assert_eq!(addresses(&change.left), hosts(2..5));
    }
}

async fn pods_that_stay_keep_their_services(mut service: Service) {
    service.publish(&pods(0..3)).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let balance = Balance::builder(service.dns()).build(move |_: &Endpoint| {
        count.fetch_add(1, Ordering::Relaxed);
        service_fn(|()| future::ready(Ok::<_, BoxError>(())))
    });
    let mut changes = balance.watch();
    let steps = [(0..3, 3), (0..5, 5), (0..2, 5), (0..3, 6)];
    for (range, expected) in steps {
        service.publish(&pods(range.clone())).await;
        let change = within("the change", changes.next()).await;
        let change = change.expect("the balancer lives");
        assert_eq!(addresses(&change.endpoints), hosts(range));
        assert_eq!(made.load(Ordering::Relaxed), expected);
    }
}

async fn pods_may_come_after_their_clients(mut service: Service) {
    for dns in [service.dns(), service.srv()] {
        let mut watched = Watched::new(dns);
        watched.stays_for(5, Look::is_nothing).await;
        service.publish(&pods(0..3)).await;
        assert_eq!(addresses(&watched.next().await.joined), hosts(0..3));
        service.publish(&[]).await;
    }
}

async fn to_zero_and_back(mut service: Service) {
    for dns in [service.dns(), service.srv()] {
        service.publish(&pods(0..3)).await;
        let mut watched = Watched::new(dns.on_empty(OnEmpty::Believe));
        watched.next().await;
        service.publish(&[]).await;
        let change = watched.next().await;
        assert_eq!(change.endpoints, []);
        assert_eq!(addresses(&change.left), hosts(0..3));
        service.publish(&pods(0..3)).await;
        assert_eq!(addresses(&watched.next().await.joined), hosts(0..3));
    }
}

/// An emptiness much shorter than the ten seconds after which it is confirmed.
async fn a_short_emptiness_changes_nothing(mut service: Service) {
    for dns in [service.dns(), service.srv()] {
        service.publish(&pods(0..3)).await;
        let mut watched = Watched::new(dns);
        watched.next().await;
        service.publish(&[]).await;
        watched.stays_for(5, Look::is_nothing).await;
        service.publish(&pods(0..3)).await;
        watched.stays_for(10, Look::has_found).await;
    }
}

/// Knot changes the size in steps, and a look may see one of them.
async fn a_thousand_pods(mut service: Service) {
    let mut watched = Watched::new(service.dns());
    for range in [0..1_000, 0..10, 0..1_000] {
        service.publish(&pods(range.clone())).await;
        watched.becomes(&unnamed(&pods(range))).await;
    }
    let resolution = service.dns().resolve().await.expect("a thousand pods");
    assert_eq!(resolution.endpoints(), unnamed(&pods(0..1_000)));
    assert_eq!(resolution.transport(), Some(Transport::Tcp));
}

async fn pods_have_names(mut service: Service) {
    service.publish(&pods(0..3)).await;
    let endpoints = Watched::new(service.srv()).next().await.endpoints;
    assert_eq!(endpoints, named(&pods(0..3)));
    assert_eq!(endpoints[2].hostname(), Some("web-2"));
    assert_eq!(endpoints[2].address(), "10.1.0.2:80".parse().expect("one"));
}

/// Like a replaced pod of a StatefulSet: it has the same name, but needs new connections.
async fn a_pod_comes_back_elsewhere(mut service: Service) {
    let before = pods(0..3);
    service.publish(&before).await;
    let mut watched = Watched::new(service.srv());
    watched.next().await;
    let mut after = before.clone();
    after[1].host = 100;
    service.publish(&after).await;
    let change = watched.next().await;
    assert_eq!(change.endpoints, named(&after));
    assert_eq!(change.joined, named(&after[1..2]));
    assert_eq!(change.left, named(&before[1..2]));
}

/// Two pods swap addresses: the set of addresses stays the same.
async fn an_address_goes_to_another_pod(mut service: Service) {
    let before = pods(0..3);
    service.publish(&before).await;
    let mut watched = Watched::new(service.srv());
    let mut by_address = Watched::new(service.dns());
    tokio::join!(watched.next(), by_address.next());
    let mut after = before.clone();
    (after[0].host, after[1].host) = (1, 0);
    service.publish(&after).await;
    let change = watched.next().await;
    assert_eq!(change.endpoints, named(&after));
    assert_eq!(change.joined, named(&after[..2]));
    assert_eq!(change.left, named(&before[..2]));
    by_address.stays_for(10, Look::has_found).await;
}

/// With some numbers of pods, the SRV records fit into a packet, but their addresses don't. If the answer is marked as
/// truncated, it is asked for again over TCP. Knot doesn't mark it (RFC 2181 §9): at 15 to 17 pods the addresses come
/// from the Service's own name, and the hostnames are unknown.
async fn any_number_of_pods(mut service: Service) {
    for count in 1..=24 {
        let pods = pods(0..count);
        service.publish(&pods).await;
        let resolution = service.srv().resolve().await.expect("pods");
        assert_eq!(resolution.endpoints(), named(&pods), "{count} pods");
    }
}

/// Even over TCP, the answer has no room for all addresses. They come from the Service's own name, and the hostnames
/// are unknown, except for pods that stay, whose hostnames are known from before.
async fn nine_hundred_srv_records(mut service: Service) {
    let mut watched = Watched::new(service.srv());
    service.publish(&pods(0..900)).await;
    watched.becomes(&unnamed(&pods(0..900))).await;
    for _ in 0..2 {
        service.publish(&pods(0..10)).await;
        watched.becomes(&named(&pods(0..10))).await;
        service.publish(&pods(0..900)).await;
        watched.comes_to(&hosts(0..900)).await;
        assert_eq!(watched.set[..10], named(&pods(0..10)));
    }
}

/// A thousand SRV records are too many for any message. A truncated answer is completed from the Service's own name. A
/// server that fails instead gives no port, and the last set stays until it answers again.
async fn a_thousand_srv_records(mut service: Service) {
    let mut watched = Watched::new(service.srv());
    service.publish(&pods(0..10)).await;
    watched.becomes(&named(&pods(0..10))).await;
    service.publish(&pods(0..1_000)).await;
    let resolved = service.srv().resolve().await;
    if service.cuts_long_answers() {
        watched.comes_to(&hosts(0..1_000)).await;
        let resolution = resolved.expect("a thousand pods");
        assert_eq!(resolution.endpoints(), unnamed(&pods(0..1_000)));
        assert_eq!(resolution.transport(), Some(Transport::Tcp));
    } else {
        let error = resolved.expect_err("SERVFAIL");
        assert!(error.to_string().contains("answered"), "{error}");
        watched.fails().await;
        assert_ne!(watched.set, [], "whichever of Knot's steps it is from");
    }
    service.publish(&pods(0..900)).await;
    watched.comes_to(&hosts(0..900)).await;
    assert_eq!(watched.set[..10], named(&pods(0..10)));
}

async fn short_names(mut service: Service) {
    service.publish(&pods(0..3)).await;
    let resolv_conf = service.resolv_conf();
    for ending in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
        let short = format!("nginx-headless{ending}");
        let by_address = Dns::new(format!("{short}:{PORT}").parse().expect("a target"));
        let by_name = Dns::srv(&format!("_http._tcp.{short}")).expect("the name of SRV records");
        for (dns, name) in [(by_address, SERVICE), (by_name, SERVICE_PORT)] {
            let dns = service.asked_by(dns).resolv_conf(&resolv_conf);
            let resolution = dns.resolve().await.expect("three pods");
            assert_eq!(addresses(resolution.endpoints()), hosts(0..3), "{short}");
            assert_eq!(resolution.name(), Some(name), "{short}");
            let change = Watched::new(dns).next().await;
            assert_eq!(addresses(&change.endpoints), hosts(0..3), "{short}");
        }
    }
}

async fn a_dual_stack_pod_counts_once(mut service: Service) {
    let dual: Vec<_> = pods(0..3).into_iter().map(Pod::with_ipv6).collect();
    service.publish(&dual).await;
    for prefer_ipv6 in [false, true] {
        let endpoint = |pod: Pod| match prefer_ipv6 {
            true => pod.at(pod.ipv6()),
            false => pod.at(pod.ipv4()),
        };
        let unnamed = endpoints(&dual, endpoint);
        let named = endpoints(&dual, |pod| endpoint(pod).with_hostname(pod.hostname()));
        for (dns, expected) in [(service.dns(), unnamed), (service.srv(), named)] {
            let dns = dns.prefer_ipv6(prefer_ipv6);
            let resolution = dns.resolve().await.expect("three pods");
            assert_eq!(resolution.endpoints(), expected);
            // If one family's answer is late, the first set has only the other family.
            Watched::new(dns).becomes(&expected).await;
        }
    }
}

/// CoreDNS shuffles the addresses of each answer.
async fn steady_answers_are_no_news(mut service: Service) {
    service.publish(&pods(0..10)).await;
    let mut by_address = Watched::new(service.dns());
    by_address.next().await;
    // Twenty looks for each family.
    let sets = by_address.stays_for(40, Look::has_found).await;
    let orders: HashSet<_> = sets.into_iter().collect();
    assert_eq!(orders.len() > 1, service.shuffles_addresses());
    let mut by_name = Watched::new(service.srv());
    by_name.next().await;
    by_name.stays_for(20, Look::has_found).await;
}

// ---------------------------------------------------------------- the service

/// A pod of the StatefulSet `web`.
#[derive(Clone, Copy)]
struct Pod {
    number: u16,
    /// The last part of its addresses.
    host: u16,
    dual_stack: bool,
}

impl Pod {
    fn with_ipv6(self) -> Self {
        Self {
            dual_stack: true,
            ..self
        }
    }

    fn hostname(self) -> String {
        format!("web-{}", self.number)
    }

    fn name(self) -> String {
        format!("{}.{SERVICE}", self.hostname())
    }

    fn ipv4(self) -> Ipv4Addr {
        host(self.host)
    }

    fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, self.host)
    }

    fn at(self, address: impl Into<IpAddr>) -> Endpoint {
        Endpoint::new(SocketAddr::new(address.into(), PORT))
    }
}

fn host(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

fn hosts(numbers: Range<u16>) -> Vec<Ipv4Addr> {
    numbers.map(host).collect()
}

/// Pods with these numbers, each with an address of its own.
fn pods(numbers: Range<u16>) -> Vec<Pod> {
    let pod = |number| Pod {
        number,
        host: number,
        dual_stack: false,
    };
    numbers.map(pod).collect()
}

/// A headless Service with a StatefulSet, and the server that has its records. The cases see no more of the server than
/// this.
struct Service {
    server: Server,
    published: Vec<Pod>,
}

impl Service {
    /// Starts it. `None` if the server isn't installed and isn't required.
    async fn start(software: Software) -> Option<Self> {
        let server = Server::start(software).await?;
        Some(Self {
            server,
            published: Vec::new(),
        })
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Whether the server truncates an answer that is too long for any message, instead of failing.
    fn cuts_long_answers(&self) -> bool {
        self.server.software() == Software::CoreDns
    }

    fn shuffles_addresses(&self) -> bool {
        self.server.software() == Software::CoreDns
    }

    /// A resolv.conf with the search list of a pod in the namespace `default`.
    fn resolv_conf(&self) -> PathBuf {
        let path = self.server.folder().join("resolv.conf");
        let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
        let written = fs::write(&path, format!("{search}\noptions ndots:5\n"));
        written.expect("the server's folder takes another file");
        path
    }

    /// Discovery by addresses.
    fn dns(&self) -> Dns {
        let target = format!("{SERVICE}.:{PORT}");
        self.asked_by(Dns::new(target.parse().expect("a target")))
    }

    /// Discovery by SRV records.
    fn srv(&self) -> Dns {
        let name = format!("{SERVICE_PORT}.");
        self.asked_by(Dns::srv(&name).expect("the name of SRV records"))
    }

    fn asked_by(&self, dns: Dns) -> Dns {
        dns.name_servers([self.addr()]).refresh_interval(FAST)
    }

    /// Publishes these pods: the Service's addresses, each pod's own name, and the port with all those names.
    async fn publish(&mut self, pods: &[Pod]) {
        let old = std::mem::replace(&mut self.published, pods.to_vec());
        let names: Vec<_> = pods.iter().map(|pod| pod.name()).collect();
        let ipv4: Vec<_> = pods.iter().map(|pod| pod.ipv4()).collect();
        let dual = pods.iter().filter(|pod| pod.dual_stack);
        let ipv6: Vec<_> = dual.map(|pod| pod.ipv6()).collect();
        let targets: Vec<_> = names.iter().map(|name| (PORT, name.as_str())).collect();
        let change = self.server.change(|zone| {
            for pod in old {
                zone.remove(&pod.name());
            }
            for (pod, name) in pods.iter().zip(&names) {
                zone.set_a(name, TTL, &[pod.ipv4()]);
                if pod.dual_stack {
                    zone.set_aaaa(name, TTL, &[pod.ipv6()]);
                }
            }
            zone.set_a(SERVICE, TTL, &ipv4);
            zone.set_aaaa(SERVICE, TTL, &ipv6);
            zone.set_srv(SERVICE_PORT, TTL, &targets);
        });
        change.await;
    }
}

// ---------------------------------------------------------------- the client

/// The result of one look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Look {
    /// Pods, in the order of the answer.
    Found(Vec<Endpoint>),
    /// The server says that there is nothing.
    Nothing,
    Failed,
}

impl Look {
    fn has_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }

    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }

    fn has_failed(&self) -> bool {
        *self == Self::Failed
    }
}

/// A discovery that reports each look, because these servers have no log of queries.
struct Reported {
    dns: Dns,
    looks: mpsc::UnboundedSender<Look>,
}

impl Discovery for Reported {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let answer = ready!(self.dns.poll_next(cx));
        let look = match &answer {
            Ok(set) => Look::Found(set.clone()),
            Err(error) => match error.downcast_ref::<LookupError>() {
                Some(error) if error.is_not_found() => Look::Nothing,
                _ => Look::Failed,
            },
        };
        // Fails if the watch is being dropped.
        let _ = self.looks.send(look);
        Poll::Ready(answer)
    }
}

/// A watch that also shows its looks.
struct Watched {
    watch: MembershipStream,
    looks: mpsc::UnboundedReceiver<Look>,
    /// The set after the last change.
    set: Vec<Endpoint>,
}

impl Watched {
    fn new(dns: Dns) -> Self {
        let (sender, looks) = mpsc::unbounded_channel();
        Self {
            watch: MembershipStream::new(Reported { dns, looks: sender }),
            looks,
            set: Vec::new(),
        }
    }

    async fn next(&mut self) -> MembershipChange {
        let change = within("a change", self.watch.next()).await;
        let change = change.expect("a watch over discovery has no end");
        self.set = change.endpoints.clone();
        change
    }

    /// Waits until the set is `expected`, after any number of changes.
    async fn becomes(&mut self, expected: &[Endpoint]) {
        let arrival = async {
            while self.set != expected {
                self.next().await;
            }
        };
        within("the set", arrival).await;
    }

    /// Waits until the set has these addresses, whatever else is known of their pods.
    async fn comes_to(&mut self, expected: &[Ipv4Addr]) {
        let arrival = async {
            while addresses(&self.set) != expected {
                self.next().await;
            }
        };
        within("the set", arrival).await;
    }

    /// Waits for `count` more looks of a kind. The set must not change meanwhile.
    async fn stays_for(&mut self, count: usize, kind: fn(&Look) -> bool) -> Vec<Look> {
        let looks = self.until_looks(count, kind);
        let (looks, changes) = within("the looks", looks).await;
        assert_eq!(changes, []);
        looks
    }

    /// Waits for a look that fails, whatever the looks before it.
    async fn fails(&mut self) {
        within("a failure", self.until_looks(1, Look::has_failed)).await;
    }

    /// Waits for `count` more looks of a kind. Returns them, and the changes meanwhile.
    async fn until_looks(
        &mut self,
        count: usize,
        kind: fn(&Look) -> bool,
    ) -> (Vec<Look>, Vec<MembershipChange>) {
        while self.looks.try_recv().is_ok() {}
        let (mut looks, mut changes) = (Vec::new(), Vec::new());
        while looks.len() < count {
            tokio::select! {
                Some(look) = self.looks.recv() => looks.extend(Some(look).filter(kind)),
                Some(change) = self.watch.next() => {
                    self.set = change.endpoints.clone();
                    changes.push(change);
                }
            }
        }
        (looks, changes)
    }
}

fn addresses(endpoints: &[Endpoint]) -> Vec<Ipv4Addr> {
    let address = |endpoint: &Endpoint| match endpoint.address().ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is not IPv4"),
    };
    endpoints.iter().map(address).collect()
}

/// The pods as a set has them, with addresses only.
fn unnamed(pods: &[Pod]) -> Vec<Endpoint> {
    endpoints(pods, |pod| pod.at(pod.ipv4()))
}

/// The pods as a set has them, with addresses and hostnames.
fn named(pods: &[Pod]) -> Vec<Endpoint> {
    endpoints(pods, |pod| pod.at(pod.ipv4()).with_hostname(pod.hostname()))
}

fn endpoints(pods: &[Pod], endpoint: impl Fn(Pod) -> Endpoint) -> Vec<Endpoint> {
    let mut endpoints: Vec<_> = pods.iter().copied().map(endpoint).collect();
    endpoints.sort();
    endpoints
}
