//! An API server's answers to `list` and `watch` → endpoints, through kube's own client.
//!
//! The first byte has options. The answers follow, with `SEPARATOR` between them, and are used over and over: each has
//! a byte for the status, and the body.
//!
//! Checked: no panic; no hang (days without an answer from discovery); no endpoint that can't be a pod.

#![no_main]

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use kube::client::Body;
use libfuzzer_sys::fuzz_target;
use tokio::time::timeout;
use tower::service_fn;
use tower_headless::{Discovery, EndpointSlices, ServiceTarget};
use tower_headless_fuzz::{
    endpoints,
    input::{Input, parts},
    runtime::paused,
};

const TARGETS: [&str; 4] = [
    "web.default:80",
    "web.default:http",
    "_http._tcp.web",
    "web:8080",
];

const STATUSES: [u16; 8] = [200, 200, 200, 200, 401, 403, 410, 500];

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let options = input.byte();
    let target: ServiceTarget = TARGETS[usize::from(options & 3)].parse().expect("a target");
    let answers: Vec<_> = parts(input.0)
        .into_iter()
        .map(|it| Bytes::copy_from_slice(it))
        .collect();
    let count = answers.len();
    paused(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let turn = asked.clone();
        let server = service_fn(move |_: Request<Body>| {
            let answer = &answers[turn.fetch_add(1, Relaxed) % answers.len()];
            let status = STATUSES[usize::from(answer.first().copied().unwrap_or_default() & 7)];
            let body = Full::new(answer.slice(answer.len().min(1)..));
            let response = Response::builder()
                .status(status)
                .body(body)
                .expect("a response");
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = kube::Client::new(server, "default");
        let slices = EndpointSlices::new(target).client(client);
        let mut slices = slices.prefer_ipv6(options & 4 != 0);
        while asked.load(Relaxed) <= count {
            let told = poll_fn(|cx| slices.poll_next(cx));
            let told = timeout(Duration::from_secs(7 * 86_400), told).await;
            match told.expect("discovery goes on") {
                Ok(set) => endpoints::check(&set),
                Err(error) => drop((error.to_string(), format!("{error:?}"))),
            }
        }
    });
});
