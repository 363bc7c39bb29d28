//! A real Prometheus, which scrapes addresses on this machine.
//!
//! `.ci/servers` installs it. If it is missing, tests are skipped like those of `servers.rs`.

use std::{
    collections::BTreeMap, fmt::Write as _, fs, io, net::SocketAddr, path::Path, process::Command,
    time::Duration,
};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::support::servers::{Process, TempDir, find_program, free_port, skip};

const POLL: Duration = Duration::from_millis(100);
/// It creates its files, which waits for the disk.
const START: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    http: reqwest::Client,
    // Dropped in this order: the process uses the folder.
    process: Process,
    _dir: TempDir,
}

/// One result of a query: its labels, and the newest value.
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Prometheus {
    /// Starts it. It scrapes each job's address, and evaluates the rules, twice a second. `None`, with a line on
    /// stderr, if it isn't installed and isn't required.
    pub(crate) async fn start(jobs: &[(&str, SocketAddr)], rules: &str) -> Option<Self> {
        const ATTEMPTS: usize = 10;
        let program = find_program("prometheus");
        let program = program
            .map_err(|missing| skip("Prometheus", &missing))
            .ok()?;
        for _ in 0..ATTEMPTS {
            match Self::launch(&program, jobs, rules).await {
                Ok(prometheus) => return Some(prometheus),
                // Another process has taken the port.
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("Prometheus doesn't start:\n{log}"),
            }
        }
        panic!("Prometheus found its port taken {ATTEMPTS} times");
    }

    /// Starts the process. The error is the end of its log.
    async fn launch(
        program: &Path,
        jobs: &[(&str, SocketAddr)],
        rules: &str,
    ) -> Result<Self, String> {
        let dir = TempDir::new().expect("a folder of its own");
        let address = free_port().expect("a free port");
        configure(dir.path(), jobs, rules).expect("a folder to write to");
        let mut command = Command::new(program);
        command
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"));
        let log = dir.path().join("log");
        let process = Process::spawn(command, &log).expect("the program may be run");
        let mut prometheus = Self {
            address,
            http: reqwest::Client::new(),
            process,
            _dir: dir,
        };
        let ready = async {
            while !prometheus.process.has_exited() && prometheus.get("/-/ready").await.is_err() {
                sleep(POLL).await;
            }
        };
        let is_late = timeout(START, ready).await.is_err();
        match is_late || prometheus.process.has_exited() {
            true => Err(prometheus.process.log()),
            false => Ok(prometheus),
        }
    }

    /// The labels of the alerts that fire now.
    pub(crate) async fn firing(&self) -> Vec<BTreeMap<String, String>> {
        let answer = self.json("/api/v1/alerts").await;
        let alerts = answer["data"]["alerts"].as_array();
        let alerts = alerts.expect("a list of alerts").iter();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| labels(&alert["labels"]))
            .collect()
    }

    pub(crate) async fn query(&self, query: &str) -> Vec<Sample> {
        let pairs = [("query", query)];
        let query = serde_html_form::to_string(pairs).expect("pairs of text");
        let answer = self.json(&format!("/api/v1/query?{query}")).await;
        let results = answer["data"]["result"].as_array();
        let results = results.unwrap_or_else(|| panic!("{query}: {answer}"));
        let sample = |result: &Value| Sample {
            labels: labels(&result["metric"]),
            value: result["value"][1]
                .as_str()
                .and_then(|value| value.parse().ok())
                .expect("a number"),
        };
        results.iter().map(sample).collect()
    }

    async fn json(&self, path: &str) -> Value {
        let text = self.get(path).await;
        let text = text.unwrap_or_else(|error| panic!("{error}\n{}", self.process.log()));
        serde_json::from_str(&text).expect("JSON")
    }

    async fn get(&self, path: &str) -> reqwest::Result<String> {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.get(url).send().await?;
        // The answer says what is wrong with a query.
        match answer.status().is_server_error() {
            true => answer.error_for_status()?.text().await,
            false => answer.text().await,
        }
    }
}

fn configure(dir: &Path, jobs: &[(&str, SocketAddr)], rules: &str) -> io::Result<()> {
    let mut config = String::from(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n\
         rule_files: [rules.yml]\nscrape_configs:\n",
    );
    let mut by_job = BTreeMap::<_, Vec<String>>::new();
    for (job, address) in jobs {
        by_job.entry(job).or_default().push(address.to_string());
    }
    for (job, targets) in by_job {
        writeln!(
            config,
            "- {{job_name: {job}, static_configs: [{{targets: {targets:?}}}]}}"
        )
        .expect("a String takes everything");
    }
    fs::write(dir.join("prometheus.yml"), config)?;
    fs::write(dir.join("rules.yml"), rules)
}

fn labels(labels: &Value) -> BTreeMap<String, String> {
    let labels = labels.as_object().expect("labels").iter();
    labels
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}
