//! Checks `deploy/observe` with a real Prometheus, which scrapes the example HTTP client while a cluster goes through
//! each fault. Each alert fires for its own fault, none fires while all is well, and each panel's query has data.
//!
//! Minutes in the rules are seconds here.

mod prometheus;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
    time::Duration,
};

use http::StatusCode;
use prometheus::Prometheus;
use serde_json::Value;
use support::{
    servers::{find_program, skip},
    within,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};
use tower_headless::test_util::{Cluster, Mode};

/// The longest wait for alerts: a stale set fires only after half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| support::example::built("http_client"));

fn deployed(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observe");
    fs::read_to_string(folder.join(file)).expect("a file of deploy/observe")
}

/// Alerts, each with a label value that it must have, or an empty one.
type Alerts = &'static [(&'static str, &'static str)];

/// The example client against a cluster in which something is wrong.
struct Scenario {
    job: &'static str,
    cluster: Cluster,
    /// The alerts that must fire.
    alerts: Alerts,
    _client: Client,
    address: SocketAddr,
}

struct Client {
    _process: Child,
}

impl Scenario {
    async fn start(
        job: &'static str,
        service: &str,
        pods: usize,
        more: &str,
        alerts: Alerts,
    ) -> Self {
        let cluster = Cluster::builder().service(service).pods(pods);
        let cluster = cluster.start().await;
        cluster.set_ttl(1);
        let (name, port, server) = (cluster.service(), cluster.port(), cluster.dns().addr());
        let arguments = format!(
            "--service {name} --port {port} --nameserver {server} --allow-loopback --rate 50 {more}"
        );
        let arguments = arguments.replace("{pod}", &cluster.pod(0).ip().to_string());
        let (client, address) = Client::start(arguments.split_whitespace()).await;
        cluster.wait_for_requests(pods).await;
        Self {
            job,
            cluster,
            alerts,
            _client: client,
            address,
        }
    }

    /// Waits until the page shows these words.
    async fn page_says(&self, words: &str) {
        let url = format!("http://{}/json", self.address);
        let says = async || reqwest::get(&url).await?.text().await;
        within("what the page shows", async {
            while !says().await.is_ok_and(|json| json.contains(words)) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    fn set_all(&self, mode: Mode) {
        for pod in self.cluster.pods() {
            pod.set(mode);
        }
    }
}

impl Client {
    /// Starts the example. The second result is the address of its page.
    async fn start<'a>(arguments: impl Iterator<Item = &'a str>) -> (Self, SocketAddr) {
        let mut process = Command::new(&*EXAMPLE)
            .args(arguments)
            .args(["--duration", "3600", "--observe", "127.0.0.1:0"])
            // So that it doesn't find a cluster in the machine's own configuration.
            .env_remove("KUBECONFIG")
            .env("HOME", "/nonexistent")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the example starts");
        let output = process.stdout.take().expect("its output");
        let mut lines = BufReader::new(output).lines();
        let address = within("the address that it serves", async {
            loop {
                let line = lines.next_line().await.expect("text");
                let line = line.expect("it runs");
                if let Some((_, url)) = line.split_once("observe http://") {
                    let (address, _) = url.split_once('/').expect("a path");
                    return address.parse().expect("an address");
                }
            }
        })
        .await;
        // Its output pipe must not fill up.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let client = Self { _process: process };
        (client, address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_fires_in_its_fault_and_each_panel_has_data() {
    let well = Scenario::start("well", "well.default", 3, "", &[]).await;
    let down: Alerts = &[
        ("HeadlessOutage", ""),
        ("HeadlessPodsOut", "unreachable"),
        ("HeadlessConnectionsFail", "refused"),
    ];
    let down = Scenario::start("down", "down.default", 4, "", down).await;
    for i in 0..4 {
        down.cluster.kill(i).await;
    }
    let one_bad: Alerts = &[("HeadlessPodsOut", "ejected")];
    let one_bad = Scenario::start("one_bad", "one-bad.default", 4, "", one_bad).await;
    let unavailable = Mode::Status(StatusCode::SERVICE_UNAVAILABLE);
    one_bad.cluster.pod(0).set(unavailable);
    let all_bad: Alerts = &[
        ("HeadlessRequestsFail", ""),
        ("HeadlessRetryBudgetSpent", ""),
    ];
    let all_bad = Scenario::start("all_bad", "all-bad.default", 3, "", all_bad).await;
    all_bad.set_all(unavailable);
    let panic = &[("HeadlessPanic", "")];
    let panic = Scenario::start("panic", "panic.default", 5, "", panic).await;
    panic.cluster.pod(0).set(unavailable);
    panic.page_says("\"ejected\"").await;
    for i in 1..4 {
        panic.cluster.kill(i).await;
    }
    // Requests for one pod wait for it as long as for any pod.
    let away = &[("HeadlessRequestsWait", "pod")];
    let away = Scenario::start("away", "away.default", 1, "--pod {pod}", away).await;
    away.cluster.kill(0).await;
    let stale = &[("HeadlessDiscoveryStale", "")];
    let stale = Scenario::start("stale", "stale.default", 2, "", stale).await;
    stale.cluster.dns().stop().await;
    let unknown = &[("HeadlessDiscoveryFails", "")];
    let unknown = Scenario::start("unknown", "unknown.default", 2, "", unknown).await;
    unknown.cluster.dns().remove(unknown.cluster.service());
    let few = Scenario::start("scaled", "scaled.default", 2, "", &[]).await;
    let disagree = &[("HeadlessClientsDisagree", "")];
    let many = Scenario::start("scaled", "scaled.default", 3, "", disagree).await;
    let share = &[("HeadlessShareOff", "")];
    let share = Scenario::start("share", "share.default", 3, "--key user-42", share).await;
    let watch = &[("HeadlessFallback", "")];
    let watch = Scenario::start("watch", "watch.default", 2, "--watch", watch).await;
    let scenarios = [
        well, down, one_bad, all_bad, panic, away, stale, unknown, few, many, share, watch,
    ];

    let rules = deployed("rules.yml");
    let expected: BTreeSet<_> = scenarios
        .iter()
        .flat_map(|scenario| scenario.alerts)
        .map(|(alert, _)| *alert)
        .collect();
    let all: BTreeSet<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(expected, all, "each alert has its fault");

    let (story, observed) = Client::start(std::iter::empty()).await;
    let jobs = scenarios.iter().map(|it| (it.job, it.address));
    let jobs: Vec<_> = jobs.chain([("story", observed)]).collect();
    let Some(prometheus) = Prometheus::start(&jobs, &in_seconds(&rules)).await else {
        return;
    };
    all_fire(&prometheus, &scenarios).await;
    panels_have_data(&prometheus).await;
    drop(story);
}

/// `[5m]` is `[5s]`, and `for: 2m` is `for: 2s`.
fn in_seconds(rules: &str) -> String {
    let mut fast = String::new();
    for line in rules.lines() {
        let line = match line.trim_start().starts_with("for: ") {
            true => line.replace('m', "s"),
            false => line.replace("m])", "s])"),
        };
        fast += &line;
        fast.push('\n');
    }
    fast
}

/// Waits until every expected alert has fired, and checks that none ever fires in a healthy scenario.
async fn all_fire(prometheus: &Prometheus, scenarios: &[Scenario]) {
    let of_service = |scenario: &Scenario| {
        let service = scenario.cluster.service().split('.').next();
        service.expect("a name").to_owned()
    };
    let mut missing: Vec<_> = scenarios
        .iter()
        .flat_map(|it| it.alerts.iter().map(|alert| (of_service(it), alert)))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = BTreeSet::new();
    while !missing.is_empty() {
        assert!(
            Instant::now() < deadline,
            "never fired: {missing:?}; what has: {seen:#?}"
        );
        let firing = prometheus.firing().await;
        for labels in &firing {
            let service = labels.get("upstream_service").expect("a service");
            assert!(
                !service.starts_with("well."),
                "nothing is wrong: {labels:?}"
            );
            seen.insert((service.clone(), labels["alertname"].clone()));
        }
        missing.retain(|(service, (alert, words))| {
            !firing
                .iter()
                .any(|labels| is(labels, service, alert, words))
        });
        sleep(Duration::from_millis(250)).await;
    }
}

fn is(labels: &BTreeMap<String, String>, service: &str, alert: &str, value: &str) -> bool {
    labels["alertname"] == *alert
        && labels["upstream_service"].starts_with(&format!("{service}."))
        && (value.is_empty() || labels.values().any(|it| it == value))
}

/// Runs each query of each panel, for all jobs and services.
async fn panels_have_data(prometheus: &Prometheus) {
    let board: Value = serde_json::from_str(&deployed("dashboard.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut queries = 0;
    for panel in panels {
        let title = &panel["title"];
        let targets = panel["targets"].as_array().into_iter().flatten();
        for target in targets {
            let query = target["expr"].as_str().expect("a query");
            let query = query
                .replace("$__rate_interval", "5s")
                .replace("$job", ".*")
                .replace("$service", ".*");
            assert!(
                !query.contains('$'),
                "{title}: an unknown variable: {query}"
            );
            let samples = prometheus.query(&query).await;
            let has_value = samples.iter().any(|sample| !sample.value.is_nan());
            assert!(has_value, "{title} shows nothing: {query}");
            let legend = target["legendFormat"].as_str().expect("a legend");
            for label in legend.split("{{").skip(1) {
                let (label, _) = label.split_once("}}").expect("a label's end");
                let named = samples.iter().all(|it| it.labels.contains_key(label));
                assert!(named, "{title} has no {label}: {query}");
            }
            queries += 1;
        }
    }
    assert!(queries > 30, "{queries}");
}

/// With their real durations, and in normal operation, too.
#[test]
fn the_rules_fire_where_they_should_and_nowhere_else() {
    let promtool = match find_program("promtool") {
        Ok(promtool) => promtool,
        Err(missing) => return skip("Prometheus", &missing),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observe");
    let output = std::process::Command::new(promtool)
        .args(["test", "rules", "rules_test.yml"])
        .current_dir(folder)
        .output()
        .expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn the_dashboard_s_panels_do_not_overlap() {
    let board: Value = serde_json::from_str(&deployed("dashboard.json")).expect("JSON");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        let at = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}
