//! Measures what a watch costs the API server: bytes and processor time, for a hundred watchers.

use std::{
    fs,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use tower_headless::{Discovery, EndpointSlices};

use super::{Use, WEB, deploy, settles, until};
use crate::{
    kit::{
        control_plane::{Component, processor},
        namespace::Namespace,
        node::Order,
        relay::Relay,
    },
    source::{Source, slices, uri},
    support::servers::TempDir,
};

const WATCHERS: u64 = 100;
/// How many changes are made; in each a pod becomes unready or ready.
const CHANGES: u64 = 20;
/// How long a quiet period lasts: long enough for each watcher to get its bookmarks.
const QUIET: Duration = Duration::from_secs(120);

/// Prints the costs of starting a watch, of a quiet minute, and of a change.
pub(crate) async fn what_watchers_cost() {
    let namespace = Namespace::create("all-watchers", Use::Alone).await;
    deploy(&namespace, "StatefulSet", 10).await;
    let client = Source::Watch.client(&namespace, WEB, 80);
    settles(&client, &namespace, WEB, 10).await;
    drop(client);
    let relay = Relay::start().await;
    let meter = Meter {
        namespace: &namespace,
        relay: &relay,
    };
    let quiet_alone = meter.during(sleep(QUIET)).await;
    let changes_alone = meter.during(change(&namespace)).await;
    let watchers = Watchers::new(&namespace, &relay);
    let beginning = meter.during(watchers.hear(1)).await;
    let quiet = meter.during(sleep(QUIET)).await;
    let heard = watchers.heard();
    let changes = meter.during(change(&namespace)).await;
    assert!(
        watchers.heard() >= heard + WATCHERS * CHANGES,
        "every change reaches every watcher"
    );
    println!("{WATCHERS} watchers of 10 pods, for each of them:");
    println!("  beginning: {}", beginning.of(&Cost::default(), 1));
    let minutes = QUIET.as_secs() / 60;
    println!("  a quiet minute: {}", quiet.of(&quiet_alone, minutes));
    println!("  a change: {}", changes.of(&changes_alone, CHANGES));
}

/// Makes the changes, waiting each time until the slices show it.
async fn change(namespace: &Namespace) {
    for number in 0..CHANGES {
        let (order, ready) = match number % 2 {
            0 => (Order::Ready(Some(false)), 9),
            _ => (Order::Ready(None), 10),
        };
        namespace.nodes.order("web-0", order);
        until("a change", async || {
            namespace.ready(WEB).await.len() == ready
        })
        .await;
        // Far enough apart to be separate events, as in a rollout.
        sleep(Duration::from_millis(500)).await;
    }
}

/// Bytes forwarded, and the API server's processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    bytes: u64,
    time: Duration,
}

impl Cost {
    /// What one of `count` things costs for one watcher, beyond its cost without watchers.
    fn of(self, alone: &Self, count: u64) -> String {
        let each = (WATCHERS * count) as f64;
        let bytes = (self.bytes - alone.bytes) as f64 / each;
        let more = self.time.as_secs_f64() - alone.time.as_secs_f64();
        let micros = more * 1e6 / each;
        format!(
            "{bytes:.0} bytes, {micros:.0} µs of processor time ({:.2?} for all, {:.2?} without them)",
            self.time, alone.time
        )
    }
}

struct Meter<'a> {
    namespace: &'a Namespace,
    relay: &'a Relay,
}

impl Meter<'_> {
    async fn during(&self, what: impl Future<Output = ()>) -> Cost {
        let before = self.now();
        what.await;
        let after = self.now();
        Cost {
            bytes: after.bytes - before.bytes,
            time: after.time - before.time,
        }
    }

    fn now(&self) -> Cost {
        let process = self.namespace.plane.process_id(Component::ApiServer);
        Cost {
            bytes: self.relay.passed(),
            time: processor::time_of(process.expect("it runs")),
        }
    }
}

/// The watchers, each with its own connection, like separate processes.
struct Watchers {
    heard: Vec<Arc<AtomicU64>>,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Watchers {
    fn new(namespace: &Namespace, relay: &Relay) -> Self {
        let folder = TempDir::new().expect("a folder of its own");
        let token = folder.path().join("token");
        fs::write(&token, "admin").expect("it can be written");
        let kubeconfig = namespace.plane.kubeconfig_of_token(&token, relay.address);
        let uri = uri(namespace, WEB, 80);
        let mut tasks = JoinSet::new();
        let mut heard = Vec::new();
        for _ in 0..WATCHERS {
            let count = Arc::<AtomicU64>::default();
            heard.push(count.clone());
            tasks.spawn(follow(slices(&uri, &kubeconfig), count));
        }
        Self {
            heard,
            _tasks: tasks,
            _folder: folder,
        }
    }

    /// Waits until each has got this many sets.
    async fn hear(&self, count: u64) {
        until("a set for each watcher", async || {
            let mut heard = self.heard.iter();
            heard.all(|it| it.load(Ordering::Relaxed) >= count)
        })
        .await;
    }

    /// The sum of all watchers' sets.
    fn heard(&self) -> u64 {
        let heard = self.heard.iter();
        heard.map(|it| it.load(Ordering::Relaxed)).sum()
    }
}

async fn follow(mut slices: EndpointSlices, heard: Arc<AtomicU64>) {
    loop {
        let set = poll_fn(|cx| slices.poll_next(cx)).await;
        set.expect("the API server is there");
        heard.fetch_add(1, Ordering::Relaxed);
    }
}
