//! What the page costs: `cargo bench --features inspect,json,test-util --bench inspect`.
//!
//! - The processor time of the JSON of 1,000 pods, which is made at most four times a second.
//! - The p99 of a client's requests while the page's JSON is requested 1,000 times a second, compared with rounds
//!   without that. Once for 1,000 pods, from the service itself, because a socket can't carry 2 MB a thousand times a
//!   second; and once for six pods over HTTP, by its own thread.
//! - How long chromium takes from the navigation until 1,000 rows are there, if it is installed (`.ci/servers`).

mod support;

#[path = "../tests/support/mod.rs"]
mod kit;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use axum::Router;
use http::Request;
use http_body_util::BodyExt;
use kit::browser::Browser;
use support::{Goals, NoOp, Plan, burst::now, median};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::{MissedTickBehavior, interval},
};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, Balancers, Endpoint, StaticEndpoints, http::Client, inspect::Page, test_util::Cluster,
};

const PODS: u16 = 1_000;

fn main() {
    let plan = Plan::from_args();
    let mut goals = Goals::default();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let large = runtime.block_on(large());
    let balancers = Balancers::new();
    balancers.add_as("large", &large);
    json(&balancers, &plan, &mut goals);
    harm(&runtime, &balancers, &plan, &mut goals);
    runtime.block_on(render(&balancers, &plan, &mut goals));
    goals.print();
}

/// A balancer of 1,000 pods that have all had requests.
async fn large() -> Balance<NoOp> {
    let endpoints = (0..PODS).map(|number| {
        let [high, low] = number.to_be_bytes();
        let endpoint = Endpoint::new(([10, 0, high, low], 80).into());
        let zone = format!("zone-{}", number % 3);
        endpoint
            .with_hostname(format!("web-{number}"))
            .with_zone(zone)
    });
    let mut balance = Balance::builder(StaticEndpoints::from_iter(endpoints))
        .counters(true)
        .build(|_: &Endpoint| NoOp::default());
    for _ in 0..20 * PODS {
        let ready = balance.ready().await.expect("it is ready");
        ready.call(()).await.expect("an answer");
    }
    balance
}

/// The processor time of this thread, in milliseconds, as the system counts it (Linux).
fn processor_time() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = text.split(' ').next().expect("a number");
    nanos.parse::<f64>().expect("a number") / 1e6
}

async fn ask(page: &Page, path: &str) -> usize {
    let mut request = Request::new(());
    *request.uri_mut() = path.parse().expect("a path");
    let Ok(answer) = page.clone().oneshot(request).await;
    let Ok(body) = answer.into_body().collect().await;
    body.to_bytes().len()
}

/// Outside of a runtime the JSON is made on this thread; a new page has nothing cached.
fn json(balancers: &Balancers, plan: &Plan, goals: &mut Goals) {
    let (mut length, rounds) = (0, if plan.is_full() { 200 } else { 1 });
    // The system counts in ticks, and one JSON may take less than a tick.
    let before = processor_time();
    for _ in 0..rounds {
        let page = Page::new(balancers.clone());
        length = futures::executor::block_on(ask(&page, "/json"));
    }
    let millis = (processor_time() - before) / f64::from(rounds);
    goals.note(format_args!("{PODS} pods are {length} bytes of JSON"));
    goals.at_most("json_cpu_ms", millis, 5.0);
}

/// Sends the client's requests, eight at once, for this time. Returns the p99 in milliseconds.
async fn p99(client: &Client, time: Duration) -> f64 {
    let end = now() + time;
    let callers = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while now() < end {
                let begin = now();
                client
                    .get("/")
                    .await
                    .expect("an answer")
                    .bytes()
                    .await
                    .expect("all of it");
                seen.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            seen
        })
    });
    let seen = futures::future::join_all(callers.collect::<Vec<_>>()).await;
    let mut seen: Vec<f64> = seen
        .into_iter()
        .flat_map(|it| it.expect("no panic"))
        .collect();
    seen.sort_unstable_by(f64::total_cmp);
    seen[seen.len() * 99 / 100]
}

/// Requests the JSON a thousand times a second, while the flag is set.
async fn ask_often<F: Future>(is_on: Arc<AtomicBool>, mut ask: impl FnMut() -> F) {
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        if is_on.load(Relaxed) {
            ask().await;
        }
    }
}

fn harm(runtime: &Runtime, balancers: &Balancers, plan: &Plan, goals: &mut Goals) {
    let cluster = runtime.block_on(Cluster::start(6));
    let client = runtime
        .block_on(async { cluster.client().build() })
        .expect("a client");
    let large = Page::new(balancers.clone());
    let is_on = Arc::new(AtomicBool::new(false));
    let asker = runtime.spawn(ask_often(is_on.clone(), move || {
        let large = large.clone();
        async move { ask(&large, "/json").await }
    }));
    rounds(runtime, &client, &is_on, plan, goals, "page_p99");
    asker.abort();

    let own = Balancers::new();
    own.add(&client);
    let url = runtime.block_on(serve(&own));
    let is_on = Arc::new(AtomicBool::new(false));
    let is_asked = is_on.clone();
    // It ends with the program.
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let http = reqwest::Client::new();
            ask_often(is_asked, || async {
                let answer = http
                    .get(format!("{url}/json"))
                    .send()
                    .await
                    .expect("an answer");
                answer.bytes().await.expect("all of it")
            })
            .await;
        });
    });
    rounds(runtime, &client, &is_on, plan, goals, "page_http_p99");
}

fn rounds(
    runtime: &Runtime,
    client: &Client,
    is_on: &AtomicBool,
    plan: &Plan,
    goals: &mut Goals,
    name: &str,
) {
    let (rounds, time) = match plan.is_full() {
        true => (15, Duration::from_millis(700)),
        false => (1, Duration::from_millis(10)),
    };
    let ratios = (0..rounds).map(|round| {
        // The two alternate in which comes first.
        let [mut with, mut without] = [0.0; 2];
        for is_with in [round % 2 == 0, round % 2 == 1] {
            is_on.store(is_with, Relaxed);
            let p99 = runtime.block_on(p99(client, time));
            *(if is_with { &mut with } else { &mut without }) = p99;
        }
        is_on.store(false, Relaxed);
        println!("{name}: {with:.2} ms with, {without:.2} ms without");
        with / without
    });
    goals.at_most(name, median(ratios.collect::<Vec<_>>().into_iter()), 1.1);
}

async fn serve(balancers: &Balancers) -> String {
    let app: Router = Router::new().nest_service("/page", Page::new(balancers.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/page")
}

async fn render(balancers: &Balancers, plan: &Plan, goals: &mut Goals) {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let url = serve(balancers).await;
    browser.resize(1440, 900).await;
    let mut times = Vec::new();
    for _ in 0..if plan.is_full() { 11 } else { 1 } {
        browser.open(&url).await;
        browser
            .until("performance.getEntriesByName('shown').length > 0")
            .await;
        let (rows, millis): (usize, f64) = browser
            .run("return [document.querySelectorAll('tbody tr').length, performance.getEntriesByName('shown')[0].startTime];")
            .await;
        assert_eq!(rows, usize::from(PODS));
        times.push(millis / 1e3);
    }
    goals.at_most("render_s", median(times.into_iter()), 1.0);
}
