//! The example as its users run it: a process of its own, judged by what it prints and how it exits.

mod support;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use hyper::StatusCode;
use support::{cluster::Cluster, dns::DnsServer, pod::Mode, within};

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

/// The arguments that lead to a cluster, and `more`.
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

/// What the last line says: sent, ok, failed.
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
async fn the_whole_story() {
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
async fn a_cluster_of_ones_own() {
    let cluster = Cluster::start(2).await;
    for policy in ["round-robin", "random"] {
        let more = format!("--rate 200 --duration 1 --policy {policy}");
        let output = run_to(&cluster, &more).await;
        assert_all_ok(&output, 100);
    }
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
async fn to_one_pod_by_a_key_and_to_all() {
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
async fn failures_are_told_and_exit_with_1() {
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
async fn an_interrupt_ends_it_early_and_in_order() {
    let cluster = Cluster::start(2).await;
    let arguments = to(&cluster, "--duration 3600");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let child = example(&arguments).spawn().expect("it starts");
    let id = child.id().expect("it runs").to_string();
    cluster.wait_for_requests(10).await;
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.expect("kill runs").success());
    let output = within("the example's end", child.wait_with_output()).await;
    assert_all_ok(&output.expect("its output"), 10);
}
