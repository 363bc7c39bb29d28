//! How one bad pod of ten affects 2,000 requests a second, by policy: `cargo bench --bench bad_pods`.
//!
//! Ten pods in their own processes, HTTP/1.1, callers that cancel a request after a second, and no retries unless a
//! story says so. `-- hung killed` runs only these stories, `--policy=peak_ewma` only this policy, and `--no-health`
//! disables ejections. Every story has its own client, with connections to all pods when it begins. A figure that
//! depends on the machine's speed is printed next to that of the same load with ten good pods, from the same run.

mod support;

#[path = "bad_pods/load.rs"]
mod load;
#[path = "bad_pods/pods.rs"]
mod pods;

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{runtime::Builder, sync::mpsc, time::sleep};
use tower_headless::{
    BoxError, Discovery, Endpoint, EndpointState, EndpointStatus, Hedge, LeastConnections,
    OutlierDetection, PeakEwma, Policy, PowerOfTwo, Random, RoundRobin, StaticEndpoints,
    http::{Client, ClientBuilder},
};

use load::{Report, load};
use pods::{Mode, Pods};
use support::Goals;

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    pods::serve_if_told();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let mut stage = Stage::new(arguments);
    runtime.block_on(async {
        stage.all("round_robin", RoundRobin::new()).await;
        stage.all("random", Random::new()).await;
        stage
            .all("least_connections", LeastConnections::new())
            .await;
        stage.all("power_of_two", PowerOfTwo::new()).await;
        stage.all("peak_ewma", PeakEwma::new()).await;
    });
    stage.goals.print();
}

/// The pods, and what was measured.
struct Stage {
    good: Pods,
    bad: Pods,
    /// Runs just enough to see that everything works.
    is_short: bool,
    health: OutlierDetection,
    /// Which stories to run; all if none is named.
    stories: Vec<String>,
    /// Which policy to run; all if none is named.
    policy: Option<String>,
    goals: Goals,
}

impl Stage {
    fn new(mut arguments: Vec<String>) -> Self {
        let said = |word: &str| arguments.iter().any(|argument| argument == word);
        let is_short = !said("--bench") || said("--test");
        let is_off = said("--no-health");
        let policy = |argument: &String| argument.strip_prefix("--policy=").map(str::to_owned);
        let policy = arguments.iter().find_map(policy);
        arguments.retain(|argument| !argument.starts_with("--"));
        Self {
            good: Pods::start(1, 9),
            bad: Pods::start(10, 10),
            is_short,
            health: if is_off {
                OutlierDetection::off()
            } else {
                OutlierDetection::new()
            },
            stories: arguments,
            policy,
            goals: Goals::default(),
        }
    }

    async fn all<P: Policy + Clone>(&mut self, name: &str, policy: P) {
        if self.policy.as_ref().is_some_and(|policy| policy != name) {
            return;
        }
        println!("\n{name}");
        if self.tells("slow") {
            self.slow(name, policy.clone()).await;
        }
        if self.tells("hedge") && name == "round_robin" {
            self.hedged(name, policy.clone()).await;
        }
        if self.tells("20ms") {
            self.of_twenty(name, policy.clone()).await;
        }
        if self.tells("503") {
            self.failing(name, policy.clone(), 100).await;
            self.failing(name, policy.clone(), 30).await;
        }
        if self.tells("hung") {
            self.hung(name, policy.clone()).await;
        }
        if self.tells("killed") {
            self.killed(name, policy.clone()).await;
        }
        if self.tells("new") {
            self.joining(name, policy).await;
        }
    }

    fn tells(&self, story: &str) -> bool {
        self.stories.is_empty() || self.stories.iter().any(|told| told == story)
    }

    fn long(&self, time: Duration) -> Duration {
        if self.is_short { time / 50 } else { time }
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let all = [&self.good.addresses[..], &self.bad.addresses[..]].concat();
        all.into_iter()
    }

    /// A client with connections to all pods, which answer after this many milliseconds.
    async fn client<P: Policy>(&mut self, policy: P, retries: usize, after: u64) -> Client {
        let builder = self.builder(policy).retries(retries);
        self.used_to_all(builder, after).await
    }

    fn builder<P: Policy>(&self, policy: P) -> ClientBuilder<StaticEndpoints> {
        let uri = "http://pods.default:80".parse().expect("a URI");
        Client::builder(uri)
            .discovery(StaticEndpoints::new(self.addresses()))
            .policy(policy)
            .outlier_detection(self.health.clone())
    }

    async fn used_to_all(&mut self, builder: ClientBuilder<StaticEndpoints>, after: u64) -> Client {
        self.good.set(Mode::After(after));
        self.bad.set(Mode::After(after));
        let client = builder.build().expect("a client");
        load(&client, self.long(SECOND)).await;
        client
    }

    fn tell(&mut self, story: &str, name: &str, report: &Report) {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| report.percentile(part));
        let (sent, failed) = (report.len(), report.failed());
        let share = report.share(self.bad.addresses[0], Duration::ZERO, 60 * SECOND) * 100.0;
        println!(
            "  {story:<16} {sent} sent, {failed} failed; the pod answered {share:.2} %; {p50:.1} / {p99:.1} / {p999:.1} ms"
        );
        let name = format_args!("{story}/{name}");
        self.goals.note(format_args!(
            "seen bad_pods/{name}/share {:.5}",
            share / 100.0
        ));
    }

    /// All pods are good half of the time; in the other half one takes 200 ms longer.
    async fn slow<P: Policy>(&mut self, name: &str, policy: P) {
        let client = self.client(policy, 0, 2).await;
        let without = load(&client, self.long(8 * SECOND)).await;
        self.bad.set(Mode::After(202));
        let with = load(&client, self.long(8 * SECOND)).await;
        self.tell("good", name, &without);
        self.tell("slow", name, &with);
        let ratio = with.percentile(0.99) / without.percentile(0.99);
        self.judge(format!("slow/{name}/p99"), ratio, 1.3, adapts(name));
    }

    /// One pod takes 200 ms, and requests are hedged. Compared with a client that doesn't know that pod: the two take
    /// turns of a second, so that other load on the machine affects both.
    async fn hedged<P: Policy + Clone>(&mut self, name: &str, policy: P) {
        let others = StaticEndpoints::new(self.good.addresses.clone());
        let without = self.builder(policy.clone()).hedge(Hedge::new());
        let without = self.used_to_all(without.discovery(others), 2).await;
        let with = self.builder(policy).hedge(Hedge::new());
        let with = self.used_to_all(with, 2).await;
        self.bad.set(Mode::After(200));
        let (mut reports, mut got) = ([Report::default(), Report::default()], 0);
        for _ in 0..8 {
            reports[0].add(load(&without, self.long(SECOND)).await);
            let before = self.good.requests() + self.bad.requests();
            reports[1].add(load(&with, self.long(SECOND)).await);
            got += self.good.requests() + self.bad.requests() - before;
        }
        let [without, with] = reports;
        self.tell("hedged", name, &without);
        self.tell("hedged, slow", name, &with);
        let ratio = with.percentile(0.99) / without.percentile(0.99);
        self.goals.at_most("hedge_p99", ratio, 1.3);
        let extra = got as f64 / with.len() as f64 - 1.0;
        self.goals.at_most("hedge_extra", extra, 0.02);
    }

    /// One pod takes 20 ms, the others take 1 ms.
    async fn of_twenty<P: Policy>(&mut self, name: &str, policy: P) {
        let client = self.client(policy, 0, 1).await;
        self.bad.set(Mode::After(20));
        load(&client, self.long(SECOND)).await;
        let report = load(&client, self.long(8 * SECOND)).await;
        self.tell("20 ms of 1", name, &report);
        let share = report.share(self.bad.addresses[0], Duration::ZERO, 60 * SECOND);
        let counts = name == "least_connections";
        self.judge(format!("20ms/{name}/share"), share, 0.022, counts);
        let p99 = report.percentile(0.99);
        self.judge(format!("20ms/{name}/p99_ms"), p99, 3.0, name == "peak_ewma");
        // When it is as fast as the others again, it has at least half of its share within 30 s.
        self.bad.set(Mode::After(1));
        load(&client, self.long(27 * SECOND)).await;
        let report = load(&client, self.long(3 * SECOND)).await;
        self.tell("1 ms again", name, &report);
        let share = report.share(self.bad.addresses[0], Duration::ZERO, 60 * SECOND);
        let name = format_args!("bad_pods/recovered/{name}/share");
        self.goals.at_least(name, share, 0.05);
    }

    /// One pod answers 503 at once, to all requests or some.
    async fn failing<P: Policy>(&mut self, name: &str, policy: P, part: u64) {
        let client = self.client(policy, 0, 2).await;
        self.bad.set(Mode::Failing(part));
        let report = load(
            &client,
            self.long(if part == 100 { 60 } else { 15 } * SECOND),
        )
        .await;
        let story = format!("503 to {part} %");
        self.tell(&story, name, &report);
        let bad = self.bad.addresses[0];
        let left = report.left(bad);
        println!("    left alone after {left:.2?}");
        let failed = report.failed() as f64 / report.len() as f64;
        if part == 100 {
            self.judge(format!("503/{name}/failed"), failed, 0.005, true);
            // A tenth is fair; in a window of 200 requests a random policy's is 20 ± 4.2.
            let share = report.largest_share(bad, left);
            self.judge(format!("503/{name}/share_before"), share, 0.16, true);
        } else {
            let seconds = left.as_secs_f64();
            self.judge(format!("503_to_30/{name}/seconds"), seconds, 10.0, true);
        }
    }

    /// One pod is stopped for 3 s of 8.
    async fn hung<P: Policy>(&mut self, name: &str, policy: P) {
        let client = self.client(policy, 0, 0).await;
        let story = async {
            sleep(self.long(2 * SECOND)).await;
            self.bad.pause();
            sleep(self.long(3 * SECOND)).await;
            self.bad.resume();
        };
        let (report, ()) = tokio::join!(load(&client, self.long(8 * SECOND)), story);
        self.tell("hung", name, &report);
        let bound = if adapts(name) { 3.0 } else { 20.0 };
        self.judge(
            format!("hung/{name}/failed"),
            report.failed() as f64,
            bound,
            true,
        );
    }

    /// One pod is away for 3 s of 8, and must have at least half of its share again within 30 s.
    async fn killed<P: Policy>(&mut self, name: &str, policy: P) {
        let client = self.client(policy, 3, 0).await;
        let length = self.long(8 * SECOND);
        let running = tokio::spawn({
            let client = client.clone();
            async move { load(&client, length).await }
        });
        sleep(self.long(2 * SECOND)).await;
        self.bad.kill();
        sleep(self.long(3 * SECOND)).await;
        self.bad.restart();
        let report = running.await.expect("no panic");
        self.tell("killed", name, &report);
        self.judge(
            format!("killed/{name}/failed"),
            report.failed() as f64,
            0.0,
            true,
        );
        let back = client.endpoints().into_iter();
        let back = back.filter(|status| status.state == EndpointState::Available);
        println!("    {} of 10 available at the end", back.count());
    }

    /// Nine pods take 20 ms, and a tenth joins. Measures the most requests that it has, relative to the median of the
    /// others.
    async fn joining<P: Policy>(&mut self, name: &str, policy: P) {
        self.good.set(Mode::After(20));
        self.bad.set(Mode::After(20));
        let (announce, sets) = mpsc::unbounded_channel();
        let told = "the client listens";
        announce.send(self.good.addresses.clone()).expect(told);
        let uri = "http://pods.default:80".parse().expect("a URI");
        let client = Client::builder(uri).discovery(Told(sets)).policy(policy);
        let client = client.outlier_detection(self.health.clone()).build();
        let client = client.expect("a client");
        load(&client, self.long(SECOND)).await;
        let length = self.long(4 * SECOND);
        let running = tokio::spawn({
            let client = client.clone();
            async move { load(&client, length).await }
        });
        sleep(self.long(SECOND)).await;
        announce.send(self.addresses().collect()).expect(told);
        let [new, old] = [self.bad.addresses[0], self.good.addresses[0]];
        let (mut most, mut most_of_an_old) = (0.0_f64, 0.0_f64);
        while !running.is_finished() {
            most = most.max(times_the_others(&client, new));
            most_of_an_old = most_of_an_old.max(times_the_others(&client, old));
            sleep(SECOND / 1_000).await;
        }
        println!("    one of the old has {most_of_an_old:.2} times the others' median at most");
        let report = running.await.expect("no panic");
        self.tell("new", name, &report);
        self.judge(format!("new/{name}/in_flight"), most, 2.0, adapts(name));
    }

    /// A goal, or a figure to compare with.
    fn judge(&mut self, name: String, value: f64, bound: f64, is_goal: bool) {
        if is_goal {
            self.goals
                .at_most(format_args!("bad_pods/{name}"), value, bound);
        } else {
            self.goals
                .note(format_args!("beside bad_pods/{name} {value:.3}"));
        }
    }
}

/// How many requests one pod has, relative to the median of the others.
fn times_the_others(client: &Client, one: SocketAddr) -> f64 {
    let is_it = |status: &EndpointStatus| status.endpoint.address() == one;
    let (it, others): (Vec<_>, Vec<_>) = client.endpoints().into_iter().partition(is_it);
    let median = support::median(others.iter().map(|other| f64::from(other.in_flight)));
    let it = it.first().map_or(0.0, |it| f64::from(it.in_flight));
    it / median.max(1.0)
}

/// Discovery with scripted answers.
struct Told(mpsc::UnboundedReceiver<Vec<SocketAddr>>);

impl Discovery for Told {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(set)) => Poll::Ready(Ok(set.into_iter().map(Endpoint::new).collect())),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether a policy moves load away from pods that are slow.
fn adapts(name: &str) -> bool {
    matches!(name, "least_connections" | "peak_ewma")
}
