//! Pods as processes that are replaced, killed and paused under a steady load.
//!
//! `TOWER_HEADLESS_SOAK=20` runs every story twenty times. Times are printed (`-- --nocapture`), not judged.

mod support;

use std::{env, future::IntoFuture, net::SocketAddr, time::Duration};

use http::Version;
use support::{
    client::dns,
    load::{Load, Report, Request},
    process::{PodProcess, Software, Speech, service::Service},
    within,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tower_headless::{
    EndpointState,
    http::{Client, ClientBuilder, Protocol, Tls},
};

const PODS: usize = 10;
/// Requests a second.
const RATE: u32 = 2_000;
/// The time from one replacement to the next, so short that all pods are gone before DNS's first answer expires.
const BEAT: Duration = Duration::from_millis(300);
/// In seconds.
const TTL: u32 = 5;

/// How an old pod ends after it has left DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Graceful,
    Killed,
}

/// One story at a time, because each loads both cores of a small machine.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// How often each story runs.
fn times() -> usize {
    let times = env::var("TOWER_HEADLESS_SOAK").ok();
    times.map_or(1, |times| times.parse().expect("a number of times"))
}

/// A client of the service with the usual settings.
fn client(service: &Service) -> ClientBuilder {
    let uri = service.uri().parse().expect("a URI");
    let builder = Client::builder(uri).dns(|_| dns(service.cluster()));
    match service.speech {
        Speech::Http1 => builder.protocol(Protocol::Http1),
        Speech::Http2 => builder.protocol(Protocol::Http2),
        Speech::Tls => {
            let tls = Tls::new().trust_pem(service.trust_pem().as_bytes());
            builder.tls(tls.expect("a certificate"))
        }
    }
}

fn gets(client: &Client) -> Load {
    let client = client.clone();
    Load::start(RATE, move || client.get("/").into_future())
}

/// A load of POSTs that are in flight for a while.
fn posts(client: &Client) -> Load {
    let client = client.clone();
    Load::start(RATE, move || {
        client.post("/wait/50").body("once").into_future()
    })
}

/// Runs a story with a service, its client, and a load that has reached all pods.
async fn under_load(
    software: Software,
    speech: Speech,
    load: fn(&Client) -> Load,
) -> (Service, Client, Load) {
    let service = Service::start(software, speech, PODS, TTL).await;
    let client = client(&service).build().expect("a client");
    assert_speaks(&client, speech).await;
    let load = load(&client);
    sleep(BEAT).await;
    (service, client, load)
}

async fn assert_speaks(client: &Client, speech: Speech) {
    let first = within("an answer", client.get("/").into_future()).await;
    let spoken = first.expect("a response").version();
    let expected = match speech {
        Speech::Http1 => Version::HTTP_11,
        Speech::Http2 | Speech::Tls => Version::HTTP_2,
    };
    assert_eq!(spoken, expected);
}

/// The end of one pod.
struct Gone {
    pod: SocketAddr,
    begun: Instant,
    over: Instant,
}

/// Replaces all pods, one after another. Each new one is ready and published before an old one goes. The old one is
/// told to end when it leaves DNS, as by kubelet, while clients go on using it for up to the TTL.
async fn replace_all(service: &mut Service, end: End) -> Vec<Gone> {
    let mut ends = JoinSet::new();
    let mut beat = interval(BEAT);
    for _ in 0..PODS {
        beat.tick().await;
        service.start_pod().await;
        service.publish();
        sleep(BEAT / 3).await;
        let old = service.pods.pop_front().expect("a pod");
        service.publish();
        ends.spawn(end_of(old, end));
    }
    within("the old pods' ends", ends.join_all()).await
}

async fn end_of(mut pod: PodProcess, end: End) -> Gone {
    let begun = Instant::now();
    match end {
        End::Graceful => {
            pod.terminate().await;
            let status = pod.ended().await;
            assert!(status.success(), "{status}");
        }
        End::Killed => pod.kill().await,
    }
    Gone {
        pod: pod.addr(),
        begun,
        over: Instant::now(),
    }
}

/// All pods replaced under GETs: no request fails.
///
/// Except one: a pod may be killed between the head and the end of its response, because nginx writes the two
/// separately, at least over HTTP/2. The caller has the head by then.
async fn rolling_restart(software: Software, end: End, speech: Speech) {
    if !software.is_installed() {
        return;
    }
    let _alone = alone().await;
    for _ in 0..times() {
        let (mut service, _client, load) = under_load(software, speech, gets).await;
        let gone = replace_all(&mut service, end).await;
        sleep(BEAT).await;
        let report = load.stop().await;
        println!("{software:?} {end:?} {speech:?}: {report}");
        match end {
            End::Graceful => report.assert_none_failed(),
            End::Killed => report.assert_none_lost(),
        }
        for request in report.cut_short() {
            println!("  cut short: {:?}", request.result);
            assert_was_lost(request, &report, &gone);
        }
        assert!(report.requests.len() > PODS * 100, "{report}");
    }
}

macro_rules! rolling_restarts {
    ($($name:ident: $software:ident, $end:ident, $speech:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            rolling_restart(Software::$software, End::$end, Speech::$speech).await;
        }
    )*};
}

rolling_restarts! {
    own_pods_are_replaced_gracefully_http1: OwnPod, Graceful, Http1;
    own_pods_are_replaced_gracefully_http2: OwnPod, Graceful, Http2;
    own_pods_are_replaced_gracefully_tls: OwnPod, Graceful, Tls;
    own_pods_are_killed_and_replaced_http1: OwnPod, Killed, Http1;
    own_pods_are_killed_and_replaced_http2: OwnPod, Killed, Http2;
    own_pods_are_killed_and_replaced_tls: OwnPod, Killed, Tls;
    nginx_pods_are_replaced_gracefully_http1: Nginx, Graceful, Http1;
    nginx_pods_are_replaced_gracefully_http2: Nginx, Graceful, Http2;
    nginx_pods_are_replaced_gracefully_tls: Nginx, Graceful, Tls;
    nginx_pods_are_killed_and_replaced_http1: Nginx, Killed, Http1;
    nginx_pods_are_killed_and_replaced_http2: Nginx, Killed, Http2;
    nginx_pods_are_killed_and_replaced_tls: Nginx, Killed, Tls;
}

/// All pods are replaced under POSTs, which must not be sent twice. Those that fail were in flight on a pod at its end,
/// and their errors say so.
///
/// A pod that ends gracefully loses none over HTTP/2, where GOAWAY names the requests that it has not taken. Over
/// HTTP/1.1 it may close an idle connection just when a request is written to it, and nobody can tell whether it was
/// read (RFC 9112 §9.5).
async fn posts_while_replaced(end: End, speech: Speech) {
    let _alone = alone().await;
    for _ in 0..times() {
        let (mut service, _client, load) = under_load(Software::OwnPod, speech, posts).await;
        let gone = replace_all(&mut service, end).await;
        sleep(BEAT).await;
        let report = load.stop().await;
        let in_flight: usize = gone.iter().map(|gone| in_flight(&report, gone)).sum();
        println!("POSTs, {end:?} {speech:?}: {report}; {in_flight} in flight on pods that ended");
        if end == End::Graceful && speech != Speech::Http1 {
            report.assert_none_failed();
        }
        assert!(report.failed().count() <= in_flight, "{report}");
        for request in report.failed() {
            assert_was_lost(request, &report, &gone);
        }
    }
}

/// How many requests a pod had at its end, or got before the client learnt of its end.
fn in_flight(report: &Report, gone: &Gone) -> usize {
    let heard = heard(report, gone);
    let requests = report.requests.iter();
    requests
        .filter(|it| it.pod() == Some(gone.pod))
        .filter(|it| it.sent <= heard && it.ended >= gone.begun)
        .count()
}

/// When the client learnt of a pod's end: at the latest with the first request that it lost there.
fn heard(report: &Report, gone: &Gone) -> Instant {
    let lost = report.failed().filter(|it| it.pod() == Some(gone.pod));
    let first = lost.map(|it| it.ended).min();
    first.map_or(gone.over, |first| first.max(gone.over))
}

fn assert_was_lost(request: &Request, report: &Report, gone: &[Gone]) {
    let error = request.result.as_ref().expect_err("a failed one");
    let pod = error.endpoint().map(|pod| pod.address());
    let gone = gone.iter().find(|gone| Some(gone.pod) == pod);
    let gone = gone.unwrap_or_else(|| panic!("its pod has not ended: {error:?}"));
    let late = request.sent.saturating_duration_since(heard(report, gone));
    assert!(late.is_zero(), "sent {late:?} after the end: {error:?}");
    assert!(!error.is_unexecuted(), "{error:?}");
}

macro_rules! posts_while_replaced {
    ($($name:ident: $end:ident, $speech:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            posts_while_replaced(End::$end, Speech::$speech).await;
        }
    )*};
}

posts_while_replaced! {
    posts_fail_with_their_pods_only_http1: Killed, Http1;
    posts_fail_with_their_pods_only_http2: Killed, Http2;
    posts_fail_with_their_pods_only_tls: Killed, Tls;
    posts_hardly_fail_where_pods_end_gracefully_http1: Graceful, Http1;
    posts_survive_a_graceful_end_http2: Graceful, Http2;
    posts_survive_a_graceful_end_tls: Graceful, Tls;
}

/// One of ten pods is away for 3 s of 8.
async fn one_is_killed(speech: Speech) {
    const PART: Duration = Duration::from_millis(2_500);
    let _alone = alone().await;
    for _ in 0..times() {
        let (mut service, client, load) = under_load(Software::OwnPod, speech, gets).await;
        // This load only opened the connections.
        load.stop().await.assert_none_failed();
        let load = gets(&client);
        sleep(PART).await;
        let undisturbed = load.stop().await;
        let load = gets(&client);
        sleep(PART).await;
        service.pods[0].kill().await;
        sleep(Duration::from_secs(3)).await;
        service.restart_pod(0).await;
        let back = service.pods[0].addr();
        let (_, waited) = tokio::join!(sleep(PART), used_again(&client, back));
        let report = load.stop().await;
        println!("one killed, {speech:?}: {report}; used again {waited:.1?} after its start");
        println!("  undisturbed, before that: {undisturbed}");
        undisturbed.assert_none_failed();
        report.assert_none_failed();
    }
}

/// Waits until a killed pod gets requests again. Returns how long that took.
async fn used_again(client: &Client, pod: SocketAddr) -> Duration {
    let started = Instant::now();
    let is_back = || {
        let pods = client.endpoints().into_iter();
        let mut pods = pods.filter(|it| it.endpoint.address() == pod);
        pods.any(|it| it.state == EndpointState::Available)
    };
    within("the pod's return", async {
        while !is_back() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_is_killed_and_comes_back_http1() {
    one_is_killed(Speech::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_is_killed_and_comes_back_http2() {
    one_is_killed(Speech::Http2).await;
}

/// One of ten pods hangs: its requests go to others, and hardly any reach it.
async fn one_hangs(speech: Speech) {
    const FIRST_BYTE: Duration = Duration::from_millis(500);
    let _alone = alone().await;
    for _ in 0..times() {
        let service = Service::start(Software::OwnPod, speech, PODS, TTL).await;
        let client = client(&service).first_byte_timeout(FIRST_BYTE);
        let client = client.build().expect("a client");
        let load = gets(&client);
        sleep(Duration::from_secs(1)).await;
        let pod = &service.pods[0];
        pod.pause().await;
        sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        let attempts = attempts(&client, pod.addr(), Duration::from_secs(2)).await;
        let looked = begun..Instant::now();
        pod.resume().await;
        // Its next trial comes after a pause of at most 5 s and a fifth.
        sleep(Duration::from_secs(1)).await;
        let report = load.stop().await;
        report.assert_none_failed();
        let meanwhile = report.requests.iter();
        let meanwhile = meanwhile.filter(|it| looked.contains(&it.sent)).count();
        println!(
            "one hangs, {speech:?}: {report}; after 5 s it got {attempts} or less of {meanwhile}"
        );
        assert!(attempts * 100 < meanwhile, "{attempts} of {meanwhile}");
    }
}

/// An upper bound of the requests that a hung pod gets: each stays there for longer than a poll takes, and is counted
/// at every poll.
async fn attempts(client: &Client, pod: SocketAddr, during: Duration) -> usize {
    let mut beat = interval(Duration::from_millis(100));
    let ends = Instant::now() + during;
    let mut attempts = 0;
    while beat.tick().await < ends {
        let status = client.endpoints().into_iter();
        let mut status = status.filter(|status| status.endpoint.address() == pod);
        attempts += status.next().map_or(0, |status| status.in_flight as usize);
    }
    attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_hangs_is_passed_over_http1() {
    one_hangs(Speech::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_hangs_is_passed_over_http2() {
    one_hangs(Speech::Http2).await;
}

/// One of ten pods hangs for 3 s of 8, and callers time out after a second. Its share in that time is 600 requests, of
/// which it couldn't answer 400 in time. But it is ejected long before any caller times out.
async fn one_hangs_for_a_while(speech: Speech) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let _alone = alone().await;
    for _ in 0..times() {
        let service = Service::start(Software::OwnPod, speech, PODS, TTL).await;
        let client = client(&service).timeout(PATIENCE).retries(0);
        let client = client.build().expect("a client");
        gets_for(&client, Duration::from_secs(1)).await;
        let load = gets(&client);
        sleep(Duration::from_secs(2)).await;
        service.pods[0].pause().await;
        sleep(Duration::from_secs(3)).await;
        service.pods[0].resume().await;
        sleep(Duration::from_secs(3)).await;
        let report = load.stop().await;
        println!("one hangs for a while, {speech:?}: {report}");
        let lost = report.failed().count();
        assert!(lost <= 100, "{report}");
    }
}

/// Sends GETs, so that the client learns the pods' usual latency.
async fn gets_for(client: &Client, time: Duration) {
    let load = gets(client);
    sleep(time).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_hangs_for_a_while_loses_few_http1() {
    one_hangs_for_a_while(Speech::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_hangs_for_a_while_loses_few_http2() {
    one_hangs_for_a_while(Speech::Http2).await;
}
