//! What an idle client holds that has a connection to each of 100 pods: the live bytes of its heap. Each is measured in a
//! process of its own (`src/bin/memory.rs`), so that nothing else is in its heap; the pods are in this one.

use std::{env, fs, net::SocketAddr, process::Command};

use tokio::{
    runtime::Builder,
    time::{Duration, sleep},
};
use tower_headless::{RoundRobin, http::Protocol};

use crate::{
    clients::{self, Reqwest},
    http::others::{Ginepro, ReqwestLb},
    load::Caller,
    pods::Pods,
    results::{Measure, Results},
};

const PODS: u8 = 100;

/// Of each row: its name, and what it is called on HTTP/1.1 and on HTTP/2.
const PEERS: [(&str, [Option<&str>; 2]); 6] = [
    ("ours", [Some("ours-1"), Some("ours-2")]),
    ("hyper-util's client", [Some("legacy-1"), Some("legacy-2")]),
    ("reqwest", [Some("reqwest-1"), Some("reqwest-2")]),
    ("reqwest-lb", [Some("reqwest-lb"), None]),
    ("tonic `balance_list`", [None, Some("tonic")]),
    ("ginepro", [None, Some("ginepro")]),
];

pub fn measure(results: &mut Results, rounds: usize) {
    let pods = Pods::start(PODS);
    let measures = ["HTTP/1.1", "HTTP/2"].map(|protocol| {
        Measure::less("Memory of an idle client", protocol, "KiB a pod").apart(0.02)
    });
    let cells = PEERS.iter().flat_map(|(peer, names)| {
        let cell = |(name, measure)| (*peer, name, measure, Vec::new());
        names.iter().zip(&measures).map(cell)
    });
    let mut cells: Vec<_> = cells.collect();
    for _ in 0..rounds {
        for (_, name, _, seen) in &mut cells {
            seen.extend(name.map(|name| held(name, &pods.addresses)));
        }
    }
    for (peer, name, measure, seen) in cells {
        match name {
            Some(_) => results.add(measure, peer, seen),
            None => results.say(measure, peer, "–"),
        }
    }
}

/// KiB a pod.
fn held(name: &str, pods: &[SocketAddr]) -> f64 {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new(program.with_file_name("memory"))
        .arg(name)
        .args(pods.iter().map(SocketAddr::to_string))
        .output()
        .expect("the program for memory is built with this one");
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text.trim().parse::<f64>();
    bytes.unwrap_or_else(|_| panic!("{name}: {output:?}")) / 1024.0 / f64::from(PODS)
}

/// The other process: prints how many bytes the client holds, by the allocator's count.
pub fn print_held(allocated: fn() -> usize) {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().expect("a client's name");
    let pods: Vec<SocketAddr> = arguments.map(|pod| pod.parse().expect("a pod")).collect();
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (http1, http2) = (Protocol::Http1, Protocol::Http2);
        // What is made once and for all, whatever the client.
        sleep(Duration::from_millis(1)).await;
        let before = allocated();
        let after = match &*name {
            "ours-1" => idle(clients::ours(&pods, http1, RoundRobin::new()), allocated).await,
            "ours-2" => idle(clients::ours(&pods, http2, RoundRobin::new()), allocated).await,
            "legacy-1" => idle(clients::legacy(&pods, false), allocated).await,
            "legacy-2" => idle(clients::legacy(&pods, true), allocated).await,
            "reqwest-1" => idle(Reqwest::new(&pods, false), allocated).await,
            "reqwest-2" => idle(Reqwest::new(&pods, true), allocated).await,
            "reqwest-lb" => idle(ReqwestLb::new(&pods), allocated).await,
            "tonic" => idle(clients::grpc_channel(&pods), allocated).await,
            "ginepro" => idle(Ginepro::new(&pods).await, allocated).await,
            _ => panic!("no such client: {name}"),
        };
        println!("{}", after - before);
    });
}

/// The bytes allocated once the client has a connection to each pod and has come to rest.
async fn idle<C: Caller>(mut client: C, allocated: fn() -> usize) -> usize {
    for _ in 0..3 * usize::from(PODS) {
        client.request().await;
    }
    sleep(Duration::from_millis(200)).await;
    let connections = connections();
    assert!(
        (usize::from(PODS)..usize::from(PODS) + 5).contains(&connections),
        "{connections} connections"
    );
    let bytes = allocated();
    drop(client);
    bytes
}

fn connections() -> usize {
    let files = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
    sockets.count()
}
