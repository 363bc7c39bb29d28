//! DNS: a name server's answers → endpoints.
//!
//! The first byte has options. The answers follow, with `SEPARATOR` between them. The first byte of each says how it
//! becomes a message: as it is ([`RAW`]), or as records after a header and the question that was asked.
//!
//! Checked: no panic; no hang (days without an answer from discovery); no endpoint that can't be a pod.

#![no_main]

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use tokio::time::timeout;
use tower_headless::{
    Discovery, Dns, OnEmpty,
    fuzzing::{NameServer, discovery, resolve},
};
use tower_headless_fuzz::{
    endpoints,
    input::{Input, parts},
    runtime::paused,
};

/// The answer's bytes are the message.
const RAW: u8 = 3;

const RESOLV_CONF: &[u8] = b"nameserver 10.96.0.10\nsearch default.svc svc\noptions ndots:5\n";

const TARGETS: [&str; 4] = [
    "web.svc.:80",
    "_http._tcp.web.svc.",
    "web:80",
    "_http._tcp.web",
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let options = input.byte();
    let answers = parts(input.0);
    let target = TARGETS[usize::from(options & 3)];
    let dns = Dns::new(target.parse().expect("a target"))
        .prefer_ipv6(options & 4 != 0)
        .on_empty(match options >> 3 & 3 {
            0 => OnEmpty::Confirm,
            1 => OnEmpty::Ignore,
            _ => OnEmpty::Believe,
        });
    paused(async {
        if options & 32 == 0 {
            let (server, _) = server(&answers);
            if let Ok(resolution) = resolve(&dns, RESOLV_CONF, server).await {
                endpoints::check(resolution.endpoints());
                assert!(!resolution.endpoints().is_empty());
            }
        }
        let (server, asked) = server(&answers);
        let mut discovery = discovery(dns, RESOLV_CONF, server);
        // Not every item follows a question; by this many, all answers have been used.
        for _ in 0..2 * answers.len() + 4 {
            let told = poll_fn(|cx| discovery.poll_next(cx));
            let told = timeout(Duration::from_secs(7 * 86_400), told).await;
            if let Ok(set) = told.expect("discovery goes on") {
                endpoints::check(&set);
            }
            if asked.load(Relaxed) > 2 * answers.len() {
                break;
            }
            if options & 64 != 0 {
                discovery.refresh();
            }
        }
    });
});

/// A name server that gives these answers over and over, and the number given so far.
fn server(answers: &[&[u8]]) -> (NameServer, Arc<AtomicUsize>) {
    let answers: Vec<_> = answers.iter().map(|answer| answer.to_vec()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = move |name: &str, record_type: &str| {
        let turn = count.fetch_add(1, Relaxed);
        message(&answers[turn % answers.len()], name, record_type)
    };
    (Box::new(server), asked)
}

fn message(answer: &[u8], name: &str, record_type: &str) -> Option<Vec<u8>> {
    let mut input = Input(answer);
    let form = input.byte();
    if form & 3 == RAW {
        return Some(input.0.to_vec());
    }
    if form == 0 && input.is_empty() {
        return None;
    }
    // QR; from the answer: TC, RCODE, and the number of records in each section.
    let flags = [0x84 | form >> 2 & 2, 0x80 | form >> 4 & 3];
    let counts = [input.byte(), input.byte(), input.byte()];
    let mut message = [&[0, 1][..], &flags, &[0, 1]].concat();
    message.extend(counts.iter().flat_map(|&count| [0, count]));
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label is short"));
        message.extend(label.as_bytes());
    }
    let number = match record_type {
        "A" => 1,
        "AAAA" => 28,
        _ => 33,
    };
    message.extend([0, 0, number, 0, 1]);
    message.extend(input.0);
    Some(message)
}
