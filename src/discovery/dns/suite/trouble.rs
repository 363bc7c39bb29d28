//! A balancer while DNS is in trouble: rows 1, 6, 7, 10 and 11 of the promises.

use std::{
    io,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tracing::{Dispatch, dispatcher};

use super::*;
use crate::{Balance, discovery::dns::lookup::RecordType};

const NAME: &str = "web.default.svc.cluster.local.:80";
const WEB: &str = "web.default.svc.cluster.local";

/// A service that tells whose it is.
type Pod = BoxCloneSyncService<(), Endpoint, BoxError>;

/// A balancer over what the script says, its services counted.
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
    async fn get(&self) -> Result<Endpoint, crate::Error> {
        self.balance.clone().ready().await?.call(()).await
    }

    /// Ten requests a second; none may fail. The pods that answered.
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
        let client = client(discovery(NAME, &script));
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
        let client = client(discovery(NAME, &script));
        client.run(30 * SECOND + phase * SECOND / 4).await;
        let blank = script.blank();
        client.run(10 * SECOND).await;
        drop(blank);
        client.run(30 * SECOND).await;
        assert_eq!(client.connections.load(Relaxed), 3, "each pod's, once");
        assert_eq!(client.balance.endpoints().len(), 3);
    }
}

/// How long it takes at most from a change at the server to the first pick of the new pod.
async fn lateness(ttl: u64, configure: impl Fn(Dns) -> Dns) -> Duration {
    let mut longest = Duration::ZERO;
    for round in 0..40 {
        let script = Script::new();
        script.ttl(ttl);
        script.pods(WEB, [1]);
        let dns = configure(Dns::new(NAME.parse().expect("a target")));
        let client = client(with(dns, &script));
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
async fn a_change_is_picked_within_the_ttl_or_five_seconds_and_one() {
    for (ttl, bound) in [(1, 2), (5, 6), (30, 6)] {
        let late = lateness(ttl, |dns| dns).await;
        assert!(late <= bound * SECOND, "TTL {ttl}: {late:?}");
        assert!(late >= SECOND / 2, "TTL {ttl}: {late:?} shows nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_picked_within_the_ttl_and_one_second_where_that_is_the_bound() {
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
    let client = client(discovery(NAME, &script));
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

/// Warnings are written to what `writer` makes.
fn subscriber<W: io::Write + 'static>(writer: impl Fn() -> W + Send + Sync + 'static) -> Dispatch {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(writer);
    Dispatch::new(subscriber.finish())
}

/// While there is one subscriber only, tracing asks for interest in a line whatever the thread has that meets it first, and
/// remembers the answer for all. That may be another test's, which has none. With two, it asks both.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| subscriber(io::sink));

/// What is logged at `warn` while `body` runs on this thread.
async fn warnings(body: impl Future<Output = ()>) -> String {
    let log = Log::default();
    let written = log.clone();
    LazyLock::force(&ANOTHER);
    let guard = dispatcher::set_default(&subscriber(move || written.clone()));
    body.await;
    drop(guard);
    let log = log.0.lock().expect("no panic");
    String::from_utf8(log.clone()).expect("text")
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_alone_for_ever_is_asked_about_once() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let log = warnings(async {
        run(&mut discovery(NAME, &script), 1_000 * SECOND).await;
    });
    let log = log.await;
    assert_eq!(log.matches("clusterIP: None").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn pods_that_change_or_are_many_are_not_asked_about() {
    let script = Script::new();
    script.pods(WEB, [1]);
    let log = warnings(async {
        let mut dns = discovery(NAME, &script);
        run(&mut dns, 30 * SECOND).await;
        script.pods(WEB, [2]); // its only pod was replaced
        run(&mut dns, 1_000 * SECOND).await;
        script.pods(WEB, [1, 2]);
        run(&mut discovery(NAME, &script), 1_000 * SECOND).await;
    });
    let log = log.await;
    assert!(!log.contains("clusterIP"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn poison_is_warned_of_once_and_changes_nothing() {
    let script = Script::new();
    script.pods(WEB, [1, 2]);
    let log = warnings(async {
        let mut watch = MembershipStream::new(discovery(NAME, &script));
        change(&mut watch).await;
        let metadata = [169, 254, 169, 254].into();
        script.say(WEB, RecordType::A, Say::Addresses(vec![metadata]));
        let poisoned = timeout(300 * SECOND, watch.next()).await;
        assert!(poisoned.is_err(), "the set stays");
        script.pods(WEB, [2, 3]);
        assert_eq!(change(&mut watch).await.joined, hosts([3]));
    });
    let log = log.await;
    assert_eq!(
        log.matches("no pod can have this address").count(),
        1,
        "{log}"
    );
}
