//! The example `http_client` as a process: its output, and its exit code.

mod support;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use hyper::StatusCode;
use support::{
    cluster::Cluster,
    dns::DnsServer,
    pod::Mode,
    terminal::{self, Written},
    within,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    task::spawn_blocking,
};

static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| support::example::built("http_client"));

fn example(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&*EXAMPLE);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Output {
    let output = example(arguments).output();
    within("the example's end", output).await.expect("it runs")
}

/// Runs it on a terminal with these environment variables.
async fn run_on_terminal(
    (columns, rows): (u16, u16),
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Written {
    let mut command = Command::new(&*EXAMPLE);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    let run = spawn_blocking(move || terminal::run(command, columns, rows));
    within("the example's end", run).await.expect("it runs")
}

/// How many headlines of the table the terminal has, including those that have scrolled out of sight.
fn headlines(written: &Written) -> usize {
    let lines = written.screen.lines().iter();
    lines.filter(|line| line.starts_with("pod  ")).count()
}

/// The arguments for a cluster, and `more`.
fn to(cluster: &Cluster, more: &str) -> Vec<String> {
    let service = cluster.service().trim_end_matches('.');
    let (port, server) = (cluster.port(), cluster.dns().addr());
    format!("--service {service} --port {port} --nameserver {server} --allow-loopback {more}")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

async fn run_to(cluster: &Cluster, more: &str) -> Output {
    let arguments = to(cluster, more);
    run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

/// The numbers of the last line: sent, ok, failed.
fn counts(output: &Output) -> [usize; 3] {
    let last = stdout(output).lines().last().expect("a last line");
    let words: Vec<_> = last.split(' ').collect();
    let ["sent", sent, "ok", ok, "failed", failed] = *words else {
        panic!("the last line is {last:?}");
    };
    [sent, ok, failed].map(|count| count.parse().expect("a number"))
}

#[track_caller]
fn assert_all_ok(output: &Output, at_least: usize) {
    let [sent, ok, failed] = counts(output);
    assert_eq!(
        (failed, output.status.code()),
        (0, Some(0)),
        "{}",
        stdout(output)
    );
    assert_eq!(sent, ok);
    assert!(sent >= at_least, "only {sent} requests were sent");
}

#[track_caller]
fn assert_all_failed(output: &Output, because: &str) {
    let [sent, ok, failed] = counts(output);
    assert_eq!(
        (ok, output.status.code()),
        (0, Some(1)),
        "{}",
        stdout(output)
    );
    assert_eq!(sent, failed);
    assert!(failed > 0);
    assert!(stdout(output).contains(because), "{}", stdout(output));
}

#[tokio::test]
async fn without_arguments_it_runs_its_own_story() {
    let output = run(&[]).await;
    assert_all_ok(&output, 1000);
    let text = stdout(&output);
    let newcomers: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("new pod")?.split_once("first answer "))
        .map(|(_, after)| {
            let (seconds, _) = after.split_once(' ').expect("a unit");
            seconds.parse().expect("seconds")
        })
        .collect();
    assert_eq!(newcomers.len(), 2, "{text}");
    assert!(
        newcomers.iter().all(|&seconds| seconds <= 2.0 + 1.0),
        "used within the TTL and a second: {newcomers:?}"
    );
    assert!(text.lines().count() <= 60, "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no control sequences");
}

#[tokio::test]
async fn it_takes_a_service_by_its_name() {
    let cluster = Cluster::start(2).await;
    let more = "--rate 200 --duration 3 --policy least-connections --path /stream/2/5";
    let before: usize = cluster.pods().iter().map(|pod| pod.requests()).sum();
    let (output, _) = tokio::join!(run_to(&cluster, more), async {
        cluster.wait_for_requests(before + 1).await;
        cluster.add_pod().await;
    });
    assert_all_ok(&output, 300);
    let newcomer = format!("new pod    {}: first answer", cluster.pod(2).ip());
    assert!(stdout(&output).contains(&newcomer), "{}", stdout(&output));
}

#[tokio::test]
async fn it_takes_every_policy_by_its_name() {
    let cluster = Cluster::start(3).await;
    for policy in [
        "round-robin",
        "random",
        "least-connections",
        "power-of-two",
        "peak-ewma",
        "consistent-hash",
    ] {
        let pods = cluster.pods();
        let before: Vec<_> = pods.iter().map(|pod| pod.requests()).collect();
        let more = format!("--rate 200 --duration 1 --policy {policy}");
        assert_all_ok(&run_to(&cluster, &more).await, 50);
        let used = pods.iter().zip(before);
        let mut used = used.map(|(pod, before)| pod.requests() > before);
        assert!(used.all(|used| used), "{policy} uses every pod");
    }
}

#[tokio::test]
async fn it_takes_a_service_by_its_url() {
    let cluster = Cluster::start(1).await;
    let url = format!("{}wait/1", cluster.uri());
    let server = cluster.dns().addr().to_string();
    let arguments = ["--url", &url, "--nameserver", &server, "--duration", "0.5"];
    let output = run(&[&arguments[..], &["--allow-loopback"]].concat()).await;
    assert_all_ok(&output, 10);
    assert!(stdout(&output).starts_with(&format!("target {url}\n")));
}

#[tokio::test]
async fn on_a_terminal_table_and_summary_fit_a_screen_of_80_by_24() {
    let arguments = ["--duration", "3", "--policy", "least-connections"];
    let written = run_on_terminal((80, 24), &[("NO_COLOR", "1")], &arguments).await;
    let text = &written.text;
    assert_eq!(written.status.code(), Some(0), "{text}");
    assert!(text.contains("least-connections: "), "{text}");
    assert!(text.contains("\x1b["), "drawn over and over");
    assert_eq!(written.screen.wrapped, 0, "{text}");
    assert_eq!(headlines(&written), 1, "the others are erased: {text}");
    let visible = written.screen.visible();
    assert!(visible.iter().any(|line| line.starts_with("pod  ")));
    let [.., last, prompt] = visible else {
        panic!("{text}")
    };
    assert!(last.ends_with(" failed 0"), "{last}");
    assert_eq!(prompt, "");
}

#[tokio::test]
async fn a_small_terminal_has_what_fits_of_a_large_set() {
    let cluster = Cluster::start(30).await;
    let arguments = to(&cluster, "--duration 1");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    for size in [(80, 24), (40, 10), (20, 5)] {
        let written = run_on_terminal(size, &[], &arguments).await;
        let text = &written.text;
        assert_eq!(written.status.code(), Some(0), "{text}");
        assert_eq!(headlines(&written), 1, "{size:?}: {text}");
        let visible = written.screen.visible();
        assert!(visible.iter().any(|line| line.starts_with("sent ")));
        if size.1 >= 10 {
            assert!(visible.iter().any(|line| line.starts_with("pod  ")));
            assert!(visible.iter().any(|line| line.ends_with(" more")));
        }
    }
}

#[tokio::test]
async fn beside_logs_and_on_a_dumb_terminal_it_writes_lines() {
    let cluster = Cluster::start(2).await;
    let arguments = to(&cluster, "--duration 1.5");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let variables = [("RUST_LOG", "info"), ("TERM", "dumb"), ("TERM", "")];
    for variable in variables {
        let written = run_on_terminal((80, 24), &[variable], &arguments).await;
        let text = &written.text;
        assert_eq!(written.status.code(), Some(0), "{variable:?}: {text}");
        assert!(!text.contains('\x1b'), "{variable:?}: {text}");
        assert!(text.contains(" answers/s, "), "{variable:?}: {text}");
        let has_logs = text.contains(" INFO tower_headless");
        assert_eq!(has_logs, variable.0 == "RUST_LOG", "{text}");
    }
}

#[tokio::test]
async fn it_sends_to_one_pod_to_a_key_s_pod_and_to_all_pods() {
    let cluster = Cluster::start(3).await;
    let requests = || cluster.pods().iter().map(|pod| pod.requests()).collect();
    let one = format!("--rate 50 --duration 0.5 --pod {}", cluster.pod(1).ip());
    let output = run_to(&cluster, &one).await;
    assert_all_ok(&output, 10);
    let seen: Vec<usize> = requests();
    assert_eq!(seen, [0, counts(&output)[0], 0]);
    let output = run_to(&cluster, "--rate 50 --duration 0.5 --key user-42").await;
    assert_all_ok(&output, 10);
    let after: Vec<usize> = requests();
    let used = after.iter().zip(&seen).filter(|(after, seen)| after > seen);
    assert_eq!(used.count(), 1);
    let output = run_to(&cluster, "--rate 50 --duration 0.5 --all").await;
    assert_all_ok(&output, 30);
    let all: Vec<usize> = requests();
    let each = counts(&output)[0] / 3;
    assert!(
        all.iter()
            .zip(&after)
            .all(|(all, after)| all - after == each)
    );
}

#[tokio::test]
async fn failures_are_printed_and_exit_with_1() {
    let cluster = Cluster::start(2).await;
    for pod in cluster.pods() {
        pod.set(Mode::Status(StatusCode::SERVICE_UNAVAILABLE));
    }
    let output = run_to(&cluster, "--duration 0.5").await;
    assert_all_failed(&output, "answered 503");

    let server = DnsServer::start().await;
    let address = server.addr().to_string();
    let arguments = ["--service", "no.svc", "--port", "80", "--duration", "0.5"];
    let output = run(&[&arguments[..], &["--nameserver", &address]].concat()).await;
    assert_all_failed(&output, "no endpoints");
    server.stop().await;
    let output = run(&[&arguments[..], &["--nameserver", &address]].concat()).await;
    assert_all_failed(&output, "no endpoints: discovery has found none within");
}

#[tokio::test]
async fn bad_arguments_exit_with_2() {
    let bad = [
        "--service web.svc",
        "--port 80",
        "--nameserver 127.0.0.1",
        "--service web_.. --port 80",
        "--service web.svc --port 0",
        "--service web.svc --port 80 --nameserver name",
        "--service web.svc --port 80 --path index.html",
        "--policy best",
        "--key a --policy random",
        "--url web.svc:80",
        "--url ftp://web.svc",
        "--url http://web.svc --service web.svc",
        "--url http://web.svc/a --path /b",
        "--service web.svc --port 80 --pod web-0 --all",
        "--rate 0",
        "--duration 0",
        "--duration -1",
        "--duration soon",
        "--surprise",
    ];
    for arguments in bad {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let output = run(&arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.starts_with("error: "), "{arguments:?}: {message}");
        assert!(message.contains("--help"), "{arguments:?}: {message}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    let help = run(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("--allow-loopback"));
}

#[tokio::test]
async fn an_interrupt_ends_it_early_with_a_summary() {
    let cluster = Cluster::start(2).await;
    let arguments = to(&cluster, "--duration 3600");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let child = example(&arguments).spawn().expect("it starts");
    cluster.wait_for_requests(10).await;
    interrupt(&child);
    let output = within("the example's end", child.wait_with_output()).await;
    assert_all_ok(&output.expect("its output"), 10);
}

#[tokio::test]
async fn a_second_interrupt_doesnt_wait_for_answers() {
    let cluster = Cluster::start(1).await;
    cluster.pod(0).set(Mode::Hung);
    let arguments = to(&cluster, "--duration 3600 --ready-timeout 3600 --rate 5");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut child = example(&arguments).spawn().expect("it starts");
    cluster.wait_for_requests(1).await;
    interrupt(&child);
    let out = child.stdout.take().expect("its output");
    let mut lines = BufReader::new(out).lines();
    let mut told = 0;
    while let Some(line) = within("a line", lines.next_line()).await.expect("text") {
        if line.contains("interrupted") {
            told += 1;
            if told == 1 {
                interrupt(&child);
            }
        }
    }
    assert_eq!(told, 2);
    let status = within("the example's end", child.wait()).await;
    assert_eq!(status.expect("it ends").code(), Some(0));
}

fn interrupt(child: &tokio::process::Child) {
    let id = child.id().expect("it runs").to_string();
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.expect("kill runs").success());
}
