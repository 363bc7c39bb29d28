//! Endless churn leaves nothing behind: no sockets, tasks or memory.

mod support;

use std::{fs, future::IntoFuture, net::Ipv4Addr, time::Duration};

use http_body_util::BodyExt;
use support::{pod::Pod, within};
use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
    time::sleep,
};
use tower_headless::{
    BoxError, Discovery, Endpoint,
    http::{Client, Protocol},
};

/// A client, and the sets that its discovery reports.
struct Churn {
    sets: watch::Sender<Vec<Endpoint>>,
    client: Client,
    pods: Vec<Pod>,
}

impl Churn {
    async fn new(protocol: Protocol) -> Self {
        let (sets, told) = watch::channel(Vec::new());
        let uri = "http://web.default".parse().expect("a URI");
        let client = Client::builder(uri)
            .discovery(Told(Box::pin(next(told))))
            .protocol(protocol)
            .build()
            .expect("a client");
        let mut churn = Self {
            sets,
            client,
            pods: Vec::new(),
        };
        for _ in 0..3 {
            churn.start().await;
        }
        churn
    }

    async fn start(&mut self) {
        let pod = Pod::start((Ipv4Addr::LOCALHOST, 0).into()).await;
        self.pods.push(pod.expect("a free port"));
        let endpoints = self.pods.iter().map(|pod| Endpoint::new(pod.addr()));
        self.sets.send_replace(endpoints.collect());
    }

    /// A new pod joins, the oldest one leaves, and requests go on.
    async fn replace(&mut self) {
        let old = self.pods.remove(0);
        self.start().await;
        for _ in 0..3 {
            let response = within("a response", self.client.get("/").into_future()).await;
            let body = response.expect("a response").into_body();
            within("the body", body.collect()).await.expect("a body");
        }
        old.stop_gracefully().await;
    }

    async fn replace_times(&mut self, times: usize) {
        for _ in 0..times {
            self.replace().await;
        }
    }
}

type Set = Vec<Endpoint>;
type Next = std::pin::Pin<Box<dyn Future<Output = (Set, watch::Receiver<Set>)> + Send>>;

struct Told(Next);

async fn next(mut told: watch::Receiver<Set>) -> (Set, watch::Receiver<Set>) {
    if told.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let set = told.borrow_and_update().clone();
    (set, told)
}

impl Discovery for Told {
    fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Set, BoxError>> {
        let (set, told) = std::task::ready!(self.0.as_mut().poll(cx));
        self.0 = Box::pin(next(told));
        std::task::Poll::Ready(Ok(set))
    }
}

/// The tolerance: the three present pods may all have connections at one time and none at another. If each of nine
/// hundred pods left something behind, it would be far more.
const SPREAD: usize = 30;

fn sockets() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

fn churn(protocol: Protocol) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut churn = runtime.block_on(Churn::new(protocol));
    runtime.block_on(churn.replace_times(100));
    let tasks = || Handle::metrics(runtime.handle()).num_alive_tasks();
    let before = (tasks(), sockets());
    let kept = allocation_counter::measure(|| runtime.block_on(churn.replace_times(900)));
    // A connection takes a moment to close.
    let settled = async {
        while tasks() > before.0 + SPREAD || sockets() > before.1 + SPREAD {
            sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.block_on(async { within("the end of all that is over", settled).await });
    // Three connections more than before take 30 KB each over HTTP/2. Nine hundred pods of which each left something behind
    // would leave more.
    assert!(
        kept.bytes_current < 100 * 900 + 3 * 40_000,
        "{} bytes",
        kept.bytes_current
    );
}

#[test]
fn a_thousand_replacements_leave_nothing_behind() {
    churn(Protocol::Http1);
    churn(Protocol::Http2);
}
