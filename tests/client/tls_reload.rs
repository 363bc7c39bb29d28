//! Certificates, keys and authorities that are replaced while a client uses them.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use tokio::{task::JoinSet, time::Instant};
use tower::ServiceExt;
use tower_headless::{
    BoxError, EndpointState, HealthCheck,
    http::{Client, Protocol, Tls},
};

use crate::{
    kit::{self, get, wait_until, written},
    support::{self, within},
    tls_kit::{Authority, Folder, H1, H2, NAME, Rotating, builder},
};

const MOMENT: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(86_400);

/// A pod that requires a certificate of this authority, and an identity in a folder.
struct Story {
    authority: Authority,
    pod: Rotating,
    folder: Folder,
    first: String,
}

impl Story {
    async fn new(protocols: &[&[u8]]) -> Self {
        let authority = Authority::new();
        let pod = Rotating::start(authority.server(&[NAME], protocols, true)).await;
        let (folder, (chain, key, first)) = (Folder::new(), authority.client());
        folder.write("ca.crt", authority.pem());
        folder.write("tls.crt", chain);
        folder.write("tls.key", key);
        Self {
            authority,
            pod,
            folder,
            first,
        }
    }

    /// Settings with these files, which are read only on demand.
    fn tls(&self) -> Tls {
        of_files(&self.folder).reload_interval(DAY)
    }

    /// Replaces the identity; returns its mark.
    fn renew(&self) -> String {
        let (chain, key, mark) = self.authority.client();
        self.folder.write("tls.crt", chain);
        self.folder.write("tls.key", key);
        mark
    }

    fn client(&self, tls: Tls, protocol: Protocol) -> Client {
        let builder = builder([self.pod.address], tls).protocol(protocol);
        builder.build().expect("a client")
    }
}

fn of_files(folder: &Folder) -> Tls {
    let tls = Tls::new().trust_file(folder.path("ca.crt"));
    let tls = tls.expect("an authority");
    let tls = tls.identity_files(folder.path("tls.crt"), folder.path("tls.key"));
    tls.expect("an identity")
}

fn reload(client: &Client) -> Result<(), BoxError> {
    client.tls_handle().expect("TLS").reload()
}

async fn identity(client: &Client) -> String {
    get(client, "/").await.expect("a response")
}

/// Sends requests until the pod sees this identity.
async fn until_identity(client: &Client, wanted: &str) {
    let asked = async {
        while identity(client).await != wanted {
            tokio::time::sleep(MOMENT).await;
        }
    };
    within("the new identity", asked).await;
}

#[tokio::test]
async fn changed_files_are_used_in_the_next_handshake() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let story = Story::new(&[H2, H1]).await;
        let tls = story.tls().reload_interval(MOMENT);
        let client = story.client(tls.retire_within(Duration::ZERO), protocol);
        assert_eq!(identity(&client).await, story.first);
        for _ in 0..3 {
            let next = story.renew();
            until_identity(&client, &next).await;
        }
    }
}

#[tokio::test]
async fn files_changed_before_the_first_request_are_used_in_its_handshake() {
    let story = Story::new(&[H2]).await;
    let client = story.client(story.tls(), Protocol::Http2);
    let second = story.renew();
    assert_eq!(identity(&client).await, second);
}

/// Like the kubelet: a folder for each version, and a link that is replaced.
#[cfg(unix)]
#[tokio::test]
async fn a_swapped_mounted_secret_is_used() {
    use std::os::unix::fs::symlink;

    let story = Story::new(&[H1]).await;
    let mount = |version: &str, (chain, key): (&str, &str)| {
        let folder = story.folder.path(version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("tls.crt"), chain).expect("a file");
        fs::write(folder.join("tls.key"), key).expect("a file");
        symlink(version, story.folder.path("..tmp")).expect("a link");
        fs::rename(story.folder.path("..tmp"), story.folder.path("..data")).expect("a swap");
    };
    let (chain, key, first) = story.authority.client();
    mount("..1", (&chain, &key));
    for name in ["tls.crt", "tls.key"] {
        fs::remove_file(story.folder.path(name)).expect("a file");
        symlink(format!("..data/{name}"), story.folder.path(name)).expect("a link");
    }
    let tls = of_files(&story.folder).reload_interval(MOMENT);
    let client = story.client(tls.retire_within(Duration::ZERO), Protocol::Http1);
    assert_eq!(identity(&client).await, first);
    let (chain, key, second) = story.authority.client();
    mount("..2", (&chain, &key));
    until_identity(&client, &second).await;
}

#[tokio::test]
async fn reload_reads_the_files_at_once() {
    let story = Story::new(&[H1]).await;
    let client = story.client(story.tls().retire_within(Duration::ZERO), Protocol::Http1);
    assert_eq!(identity(&client).await, story.first);
    reload(&client).expect("nothing has changed");
    assert_eq!(
        (identity(&client).await, story.pod.handshakes()),
        (story.first.clone(), 1)
    );
    let second = story.renew();
    reload(&client).expect("another identity");
    assert_eq!(identity(&client).await, second);
}

#[tokio::test]
async fn files_that_do_not_fit_together_change_nothing() {
    let story = Story::new(&[H1]).await;
    let client = story.client(story.tls().retire_within(Duration::ZERO), Protocol::Http1);
    assert_eq!(identity(&client).await, story.first);
    let (chain, key, second) = story.authority.client();
    let (half, _) = chain.split_at(chain.len() / 2);
    for (name, content, told) in [
        ("tls.crt", half, "cut off"),
        ("tls.crt", "", "it is empty"),
        ("tls.crt", &*chain, "doesn't belong"),
        ("ca.crt", half, "cut off"),
    ] {
        story.folder.write(name, content);
        let error = reload(&client).expect_err(told).to_string();
        assert!(error.contains(told) && error.contains(name), "{error}");
        assert_eq!(identity(&client).await, story.first, "after {error}");
    }
    fs::remove_file(story.folder.path("ca.crt")).expect("a file");
    let error = reload(&client).expect_err("a file is missing").to_string();
    assert!(error.contains("ca.crt"), "{error}");
    story.folder.write("ca.crt", story.authority.pem());
    story.folder.write("tls.key", key);
    reload(&client).expect("a pair");
    assert_eq!(identity(&client).await, second);
}

/// The log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, what: &str) -> usize {
        let log = self.0.lock().expect("no panic");
        String::from_utf8_lossy(&log).matches(what).count()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_that_comes_later_than_its_certificate_costs_one_warning() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    let story = Story::new(&[H1]).await;
    let tls = story.tls().reload_interval(MOMENT);
    let client = story.client(tls.retire_within(Duration::ZERO), Protocol::Http1);
    assert_eq!(identity(&client).await, story.first);
    let (chain, key, second) = story.authority.client();
    story.folder.write("tls.crt", chain);
    wait_until("a warning", || log.count("doesn't belong") == 1).await;
    for _ in 0..10 {
        tokio::time::sleep(MOMENT).await;
        assert_eq!(identity(&client).await, story.first);
    }
    story.folder.write("tls.key", key);
    until_identity(&client, &second).await;
    assert_eq!(log.count("WARN"), 1);
}

#[tokio::test]
async fn a_tls_session_does_not_keep_an_old_identity() {
    let story = Story::new(&[H1]).await;
    // No idle connections, so each request makes its own.
    let builder = builder([story.pod.address], story.tls()).max_idle(0);
    let client = builder.protocol(Protocol::Http1).build();
    let client = client.expect("a client");
    for _ in 0..3 {
        assert_eq!(identity(&client).await, story.first);
    }
    assert_eq!(
        story.pod.resumed(),
        2,
        "while nothing changes, sessions are resumed"
    );
    let second = story.renew();
    reload(&client).expect("another identity");
    assert_eq!(identity(&client).await, second);
    assert_eq!(story.pod.resumed(), 2);
    assert_eq!(identity(&client).await, second);
    assert_eq!(story.pod.resumed(), 3);
}

#[tokio::test]
async fn connections_of_an_old_identity_retire_within_the_set_time() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let story = Story::new(&[H2, H1]).await;
        let tls = story.tls().retire_within(Duration::from_millis(200));
        let client = story.client(tls, protocol);
        // Several HTTP/1.1 connections, all idle: no request comes while they retire.
        let together = (0..8).map(|_| identity(&client));
        let answers = futures::future::join_all(together).await;
        assert!(answers.iter().all(|it| *it == story.first));
        assert!(story.pod.open(&story.first) >= 1);
        let second = story.renew();
        reload(&client).expect("another identity");
        wait_until("their end", || story.pod.open(&story.first) == 0).await;
        assert_eq!(identity(&client).await, second);
    }
}

#[tokio::test]
async fn replaced_settings_retire_connections_of_roots_no_longer_trusted() {
    let story = Story::new(&[H1]).await;
    let client = story.client(story.tls(), Protocol::Http1);
    assert_eq!(identity(&client).await, story.first);
    let other = Authority::new();
    let handle = client.tls_handle().expect("TLS");
    let tls = other.tls().retire_within(Duration::ZERO);
    handle.replace(tls).expect("settings");
    wait_until("its end", || story.pod.open(&story.first) == 0).await;
    let renewed = async {
        let state = || client.endpoints()[0].state;
        wait_until("a refusal", || state() == EndpointState::Unreachable).await;
        // The pod gets a certificate of the other authority, too.
        story.pod.set(other.server(&[NAME], &[H1], false));
    };
    let (answer, ()) = tokio::join!(identity(&client), renewed);
    assert_eq!(answer, "-", "it asks for no certificate");
    drop(client);
    wait_until("the client's end", || handle.reload().is_err()).await;
    let error = handle.replace(other.tls()).expect_err("no client");
    assert_eq!(error.to_string(), "the client was dropped");
}

#[tokio::test]
async fn a_request_in_flight_finishes_when_its_connection_retires() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let story = Story::new(&[H2, H1]).await;
        let client = story.client(story.tls().retire_within(Duration::ZERO), protocol);
        let (body, stream) = written();
        let mut slow = Request::new(stream);
        *slow.method_mut() = Method::POST;
        *slow.uri_mut() = "/slow".parse().expect("a path");
        body.send("first").expect("a reader");
        let slow = within("a head", client.clone().oneshot(slow)).await;
        let second = story.renew();
        reload(&client).expect("another identity");
        assert_eq!(identity(&client).await, second);
        assert_eq!(story.pod.open(&story.first), 1);
        body.send("last").expect("a reader");
        drop(body);
        let answer = kit::text(slow.expect("a response")).await;
        assert_eq!(answer, story.first);
        wait_until("its end", || story.pod.open(&story.first) == 0).await;
    }
}

/// A connection that takes no more requests must not count, even if its last request is long.
#[tokio::test]
async fn a_long_stream_on_a_retired_connection_does_not_block_new_connections() {
    let story = Story::new(&[H2]).await;
    let tls = story.tls().retire_within(Duration::ZERO);
    let builder = builder([story.pod.address], tls).protocol(Protocol::Http2);
    let client = builder.max_connections(1).build().expect("a client");
    let (_body, stream) = written();
    let mut slow = Request::new(stream);
    *slow.method_mut() = Method::POST;
    *slow.uri_mut() = "/slow".parse().expect("a path");
    let _slow = within("a head", client.clone().oneshot(slow)).await;
    let second = story.renew();
    reload(&client).expect("another identity");
    assert_eq!(identity(&client).await, second);
    assert_eq!(story.pod.open(&story.first), 1);
}

#[tokio::test]
async fn the_connection_of_checks_retires_as_well() {
    let story = Story::new(&[H1]).await;
    let check = HealthCheck::http("/").expect("a path").interval(MOMENT);
    let tls = story.tls().retire_within(Duration::ZERO);
    let builder = builder([story.pod.address], tls).protocol(Protocol::Http1);
    let client = builder.health_check(check).build().expect("a client");
    assert_eq!(identity(&client).await, story.first);
    // One of requests, one of checks.
    wait_until("checks", || story.pod.open(&story.first) == 2).await;
    let second = story.renew();
    reload(&client).expect("another identity");
    wait_until("their end", || story.pod.open(&story.first) == 0).await;
    wait_until("checks", || story.pod.open(&second) == 1).await;
}

/// The files are on a disk that doesn't answer, and the runtime that reads them isn't running.
#[cfg(unix)]
#[test]
fn a_handshake_does_not_wait_for_a_stopped_runtime_that_reads_the_files() {
    let pods = tokio::runtime::Runtime::new().expect("a runtime");
    let story = pods.block_on(Story::new(&[H1]));
    let client = builder([story.pod.address], story.tls())
        .protocol(Protocol::Http1)
        .connect_timeout(support::PATIENCE)
        .build()
        .expect("a client");
    let path = story.folder.path("tls.crt");
    fs::remove_file(&path).expect("a file");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    // Opening the pipe succeeds once somebody reads it.
    let opened = std::thread::spawn(move || fs::OpenOptions::new().write(true).open(path));
    let current_thread = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().expect("a runtime")
    };
    let (first, second) = (current_thread(), current_thread());
    let mut waits = Box::pin(identity(&client));
    first.block_on(async {
        let looked = wait_until("a look", || opened.is_finished());
        tokio::select! {
            _ = &mut waits => panic!("it waits for the file"),
            () = looked => {}
        }
    });
    let answer = async { tokio::time::timeout(support::PATIENCE / 2, identity(&client)).await };
    let answer = second.block_on(answer);
    // A runtime ends only when its reads have finished.
    drop(opened.join().expect("no panic").expect("a pipe"));
    assert_eq!(answer.expect("in time"), story.first);
    assert_eq!(first.block_on(waits), story.first);
}

#[tokio::test]
async fn the_files_of_a_dropped_client_are_no_longer_watched() {
    let story = Story::new(&[H1]).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let client = story.client(story.tls(), Protocol::Http1);
    assert_eq!(identity(&client).await, story.first);
    assert!(tasks() > before);
    drop(client);
    wait_until("the end of all tasks", || tasks() == before).await;
}

/// How many requests are sent in each step of a rotation.
const REQUESTS: usize = 300;

/// Requests from several tasks, until told to stop.
struct Load {
    tasks: JoinSet<()>,
    answered: kit::Count,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (answered, stop) = (kit::Count::default(), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (client, answered, stop) = (client.clone(), answered.clone(), stop.clone());
            tasks.spawn(async move {
                // 2,000 a second in all, if the machine can.
                let mut pace = tokio::time::interval(Duration::from_millis(4));
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let mut request = Request::new(String::from("order"));
                    *request.method_mut() = Method::POST;
                    let response = client.clone().oneshot(request).await;
                    kit::text(response.expect("no request fails")).await;
                    answered.add();
                }
            });
        }
        Self {
            tasks,
            answered,
            stop,
            begun: Instant::now(),
        }
    }

    /// Waits until this step's requests have been answered.
    async fn step(&self) {
        let enough = self.answered.get() + REQUESTS;
        wait_until("requests", || self.answered.get() >= enough).await;
    }

    async fn stop(mut self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let answered = (self.answered.get(), self.begun.elapsed());
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no request fails");
        }
        answered
    }
}

/// A rotation: everybody trusts both authorities; pods change, then clients; the old authority is removed.
async fn rotate_under_load(protocol: Protocol, offered: &[u8]) {
    let (old, new) = (Authority::new(), Authority::new());
    let both = [&old, &new];
    let config = |of: &Authority| of.server_for(&[NAME], &[offered], &both);
    let pods = [
        Rotating::start(config(&old)).await,
        Rotating::start(config(&old)).await,
    ];
    let folder = Folder::new();
    let ((chain, key, first), (new_chain, new_key, second)) = (old.client(), new.client());
    folder.write("ca.crt", old.pem());
    folder.write("tls.crt", chain);
    folder.write("tls.key", key);
    let tls = of_files(&folder).retire_within(Duration::from_millis(200));
    let tls = tls.reload_interval(MOMENT);
    let client = builder(pods.iter().map(|pod| pod.address), tls).protocol(protocol);
    // Handshakes are slow while many tests run at once.
    let client = client.connect_timeout(Duration::from_secs(10));
    let client = client.build().expect("a client");
    let open = |mark: &str| pods.iter().map(|pod| pod.open(mark)).sum::<usize>();
    let handshakes = |mark: &str| {
        pods.iter()
            .map(|pod| pod.handshakes_of(mark))
            .sum::<usize>()
    };

    let load = Load::start(&client);
    load.step().await;
    assert_eq!((open(&first) > 0, open(&second)), (true, 0));
    folder.write("ca.crt", old.pem() + &new.pem());
    reload(&client).expect("both authorities");
    load.step().await;
    for pod in &pods {
        pod.set(config(&new));
    }
    folder.write("tls.crt", new_chain);
    load.step().await;
    folder.write("tls.key", new_key);
    wait_until("the old identity's end", || open(&first) == 0).await;
    let last = handshakes(&first);
    folder.write("ca.crt", new.pem());
    reload(&client).expect("the new authority");
    load.step().await;
    load.step().await;
    assert_eq!((handshakes(&first), open(&first)), (last, 0));
    assert!(open(&second) > 0);
    let (answered, time) = load.stop().await;
    let rate = answered as f64 / time.as_secs_f64();
    println!(
        "{protocol:?}: {answered} requests, {rate:.0} a second, {} handshakes",
        last + handshakes(&second)
    );
}

#[tokio::test]
async fn an_authority_is_rotated_under_load_and_no_request_fails_http1() {
    rotate_under_load(Protocol::Http1, H1).await;
}

#[tokio::test]
async fn an_authority_is_rotated_under_load_and_no_request_fails_http2() {
    rotate_under_load(Protocol::Http2, H2).await;
}
