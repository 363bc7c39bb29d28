//! What a watch costs the API server: measured for a hundred, in bytes and in its processor time.

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
/// Each is a pod that turns unready or ready.
const CHANGES: u64 = 20;
/// Long enough for each watcher to get its bookmarks.
const QUIET: Duration = Duration::from_secs(120);

/// Prints the price: of beginning, of a quiet minute, and of a change.
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
        "every change is told"
    );
    println!("{WATCHERS} watchers of 10 pods, for each of them:");
    println!("  beginning: {}", beginning.of(&Cost::default(), 1));
    let minutes = QUIET.as_secs() / 60;
    println!("  a quiet minute: {}", quiet.of(&quiet_alone, minutes));
    println!("  a change: {}", changes.of(&changes_alone, CHANGES));
}

/// Makes the changes, each seen in the slices before the next.
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
        // They are told apart, as those of a roll are.
        sleep(Duration::from_millis(500)).await;
    }
}

/// Bytes that have passed, and the API server's processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    bytes: u64,
    time: Duration,
}

impl Cost {
    /// What one watcher costs, of `count` things, beyond what these cost without watchers.
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

/// Each with a connection of its own, as in a process of its own.
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

    /// Until each has heard so many sets.
    async fn hear(&self, count: u64) {
        until("the word to all watchers", async || {
            let mut heard = self.heard.iter();
            heard.all(|it| it.load(Ordering::Relaxed) >= count)
        })
        .await;
    }

    /// The sets that all of them have heard.
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
