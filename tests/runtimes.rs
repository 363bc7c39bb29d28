//! One client, or one source and its clones, over several runtimes: at the same time, one after another, and with one
//! that stands still. Requests are answered, or fail with an error that says why.

mod support;

use std::{
    convert::Infallible,
    future::{Future, IntoFuture},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, channel::mpsc};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use support::{cluster::Cluster, pod::Mode, within};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, Dns, Endpoint, EndpointSlices, EndpointState, HealthCheck, MembershipStream,
    OutlierDetection, StaticEndpoints, StreamDiscovery,
    http::{Client, ClientBuilder, Error, Protocol, ResponseBody},
};

const MOMENT: Duration = Duration::from_millis(50);

/// A runtime that runs only while a thread blocks on it.
fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(1).enable_all();
    builder.build().expect("a runtime")
}

/// Pods and DNS, in a runtime that outlives the test's others.
struct World {
    cluster: Cluster,
    runtime: Runtime,
}

impl World {
    fn new(pods: usize) -> Self {
        let runtime = multi_thread();
        let cluster = runtime.block_on(Cluster::start(pods));
        Self { cluster, runtime }
    }

    fn dns(&self) -> Dns {
        support::client::dns(&self.cluster).refresh_interval(MOMENT)
    }

    fn builder(&self) -> ClientBuilder<Dns> {
        let uri = format!(
            "http://web.default.svc.cluster.local:{}",
            self.cluster.port()
        );
        Client::builder(uri.parse().expect("a URI")).discovery(self.dns())
    }

    fn client(&self) -> Client {
        self.builder().build().expect("a client")
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Replaces all pods.
    fn replace(&self) {
        self.run(async {
            self.cluster.add_pod().await;
            for _ in 1..self.cluster.pods().len() {
                self.cluster.kill(0).await;
                self.cluster.remove_pod(0).await;
            }
        });
    }
}

/// Sends a request that must not be sent twice. Returns the pod that answers.
async fn post(client: &Client) -> Result<IpAddr, Error> {
    let response = within("a response", client.post("/").into_future()).await?;
    let pod = response.body().endpoint().expect("a pod").address().ip();
    within("a body", response.into_body().collect()).await?;
    Ok(pod)
}

/// Sends requests until this pod answers one.
async fn until_answered_by(client: &Client, pod: IpAddr) {
    let answered = async {
        while post(client).await.expect("an answer") != pod {
            tokio::time::sleep(MOMENT / 5).await;
        }
    };
    within("an answer of the new pod", answered).await;
}

#[test]
fn a_client_goes_on_in_the_next_runtime_after_its_first_has_ended() {
    for first in [current_thread(), multi_thread()] {
        let world = World::new(1);
        let client = world.client();
        first.block_on(post(&client)).expect("an answer");
        drop(first);
        world.replace();
        let second = current_thread();
        second.block_on(post(&client)).expect("an answer");
        // The set is kept fresh there, too.
        let pod = world.run(world.cluster.add_pod());
        second.block_on(until_answered_by(&client, pod.ip()));
    }
}

#[test]
fn the_background_task_begins_anew_with_the_first_request_though_all_old_pods_answer() {
    let world = World::new(1);
    let client = world.client();
    let first = current_thread();
    first.block_on(post(&client)).expect("an answer");
    drop(first);
    let pod = world.run(world.cluster.add_pod());
    current_thread().block_on(until_answered_by(&client, pod.ip()));
}

#[test]
fn a_static_client_works_in_one_runtime_after_another() {
    static WORLD: LazyLock<World> = LazyLock::new(|| World::new(1));
    static CLIENT: LazyLock<Client> = LazyLock::new(|| WORLD.client());
    for turn in 0..8 {
        let runtime = if turn % 2 == 0 {
            current_thread()
        } else {
            multi_thread()
        };
        runtime.block_on(post(&CLIENT)).expect("an answer");
        drop(runtime);
        WORLD.replace();
    }
}

#[test]
fn a_client_works_in_several_runtimes_at_a_time() {
    let world = World::new(2);
    let client = world.client();
    let threads: Vec<_> = (0..4)
        .map(|turn| {
            let client = client.clone();
            std::thread::spawn(move || {
                // The earlier runtimes end sooner.
                for _ in 0..=turn {
                    let runtime = current_thread();
                    for _ in 0..25 {
                        runtime.block_on(post(&client)).expect("an answer");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn another_runtime_takes_over_from_one_that_stands_still_when_a_pod_refuses() {
    let world = World::new(1);
    let client = world.client();
    let first = current_thread();
    first.block_on(post(&client)).expect("an answer");
    world.replace();
    let second = current_thread();
    second.block_on(post(&client)).expect("an answer");
    let pod = world.run(world.cluster.add_pod());
    second.block_on(until_answered_by(&client, pod.ip()));
    // The first runtime works again, too.
    first.block_on(post(&client)).expect("an answer");
}

#[test]
fn another_runtime_takes_over_from_one_that_stands_still_though_every_pod_answers() {
    let world = World::new(1);
    let client = world.client();
    let first = current_thread();
    first.block_on(post(&client)).expect("an answer");
    let pod = world.run(world.cluster.add_pod());
    let second = current_thread();
    second.block_on(until_answered_by(&client, pod.ip()));
}

/// Waits until the stream's set has this pod.
async fn knows(stream: &mut MembershipStream, pod: IpAddr) {
    let known = async {
        while let Some(change) = stream.next().await {
            let mut endpoints = change.endpoints.iter();
            if endpoints.any(|endpoint| endpoint.address().ip() == pod) {
                return;
            }
        }
        panic!("a stream over discovery goes on for ever");
    };
    within("the new pod", known).await;
}

#[test]
fn a_clone_of_a_source_goes_on_when_the_runtime_of_the_others_has_ended() {
    let world = World::new(1);
    let dns = world.dns();
    let (first, second) = (current_thread(), current_thread());
    let old = world.cluster.pod(0).ip();
    let mut a = MembershipStream::new(dns.clone());
    let mut b = MembershipStream::new(dns.clone());
    first.block_on(knows(&mut a, old));
    second.block_on(knows(&mut b, old));
    drop(first);
    let new = world.run(world.cluster.add_pod()).ip();
    second.block_on(knows(&mut b, new));
    // The reader of the ended runtime goes on in another one.
    let third = current_thread();
    third.block_on(knows(&mut a, new));
    let newer = world.run(world.cluster.add_pod()).ip();
    third.block_on(knows(&mut a, newer));
}

#[test]
fn a_clone_of_a_source_goes_on_while_the_runtime_of_the_others_stands_still() {
    let world = World::new(1);
    let dns = world.dns();
    let (first, second) = (current_thread(), current_thread());
    let mut a = MembershipStream::new(dns.clone());
    let mut b = MembershipStream::new(dns);
    first.block_on(knows(&mut a, world.cluster.pod(0).ip()));
    // The runtime stops in the middle of a look.
    world.run(async {
        let asked = world.cluster.dns().exchanges();
        world.cluster.dns().wait_for_queries(asked).await;
    });
    let new = world.run(world.cluster.add_pod()).ip();
    second.block_on(knows(&mut b, new));
    first.block_on(knows(&mut a, new));
}

#[test]
fn clients_of_one_source_in_two_runtimes_outlive_each_other() {
    let world = World::new(1);
    let dns = world.dns();
    let client = || {
        let builder = world.builder().discovery(dns.clone());
        builder.build().expect("a client")
    };
    let (first, second) = (current_thread(), multi_thread());
    let (a, b) = (client(), client());
    first.block_on(post(&a)).expect("an answer");
    second.block_on(post(&b)).expect("an answer");
    drop(first);
    world.replace();
    let pod = world.cluster.pod(0).ip();
    // A POST on the killed pod's connection would be lost if it was written just before the connection broke.
    let is_alone = || matches!(&*b.endpoints(), [it] if it.endpoint.address().ip() == pod);
    let known = async {
        while !is_alone() {
            tokio::time::sleep(MOMENT / 5).await;
        }
    };
    second.block_on(within("the new pod alone", known));
    second.block_on(until_answered_by(&b, pod));
}

/// Runs a test over both protocols.
fn protocols(test: impl Fn(Protocol)) {
    test(Protocol::Http1);
    test(Protocol::Http2);
}

/// Checks that no pod is passed over.
fn nobody_is_blamed(client: &Client) {
    for endpoint in client.endpoints() {
        assert_eq!(endpoint.state, EndpointState::Available, "{endpoint:?}");
    }
}

#[test]
fn connections_of_a_runtime_that_has_ended_are_not_used() {
    protocols(|protocol| {
        let world = World::new(1);
        let client = world.builder().protocol(protocol).build();
        let client = client.expect("a client");
        for _ in 0..3 {
            let runtime = current_thread();
            for _ in 0..3 {
                runtime.block_on(post(&client)).expect("an answer");
            }
            nobody_is_blamed(&client);
        }
        assert_eq!(world.cluster.pod(0).stats().accepted, 3, "one a runtime");
    });
}

#[test]
fn connections_of_a_runtime_that_stands_still_are_not_used_and_wait_for_it() {
    protocols(|protocol| {
        let world = World::new(1);
        let client = world.builder().protocol(protocol).build();
        let client = client.expect("a client");
        let (first, second) = (current_thread(), current_thread());
        for _ in 0..3 {
            first.block_on(post(&client)).expect("an answer");
            second.block_on(post(&client)).expect("an answer");
        }
        nobody_is_blamed(&client);
        assert_eq!(world.cluster.pod(0).stats().accepted, 2, "one a runtime");
    });
}

#[test]
fn a_request_whose_connections_runtime_ends_is_lost_and_no_pod_is_blamed() {
    // Two pods, because the last one is never passed over.
    let world = World::new(2);
    let outlier = OutlierDetection::new().consecutive_failures(1);
    // With HTTP/2, all requests share one connection.
    let builder = world.builder().protocol(Protocol::Http2);
    let client = builder.outlier_detection(outlier).build();
    let client = client.expect("a client");
    let (first, second) = (multi_thread(), current_thread());
    let pods = [0, 1].map(|index| world.cluster.pod(index));
    while pods.iter().any(|pod| pod.requests() == 0) {
        first.block_on(post(&client)).expect("an answer");
    }
    pods.iter().for_each(|pod| pod.set(Mode::Hung));
    let mut request = pin!(post(&client));
    second.block_on(async {
        tokio::select! {
            _ = request.as_mut() => panic!("it has no answer"),
            _ = pods[0].wait_until(|stats| stats.in_flight == 1) => {}
            _ = pods[1].wait_until(|stats| stats.in_flight == 1) => {}
        }
    });
    drop(first);
    let error = second.block_on(request).expect_err("it is lost");
    assert!(
        !error.is_unexecuted() && !error.is_request_body(),
        "{error:?}"
    );
    nobody_is_blamed(&client);
    pods.iter().for_each(|pod| pod.set(Mode::Healthy));
    second.block_on(post(&client)).expect("an answer");
    nobody_is_blamed(&client);
}

#[test]
fn a_connection_that_another_runtime_was_making_is_made_in_this_one() {
    protocols(|protocol| {
        let world = World::new(1);
        let client = world.builder().protocol(protocol).build();
        let client = client.expect("a client");
        let (first, second) = (current_thread(), current_thread());
        // Discovery has answered, and nothing has been connected yet.
        first.block_on(async { within("a set", client.watch().next()).await });
        let mut request = pin!(post(&client));
        first.block_on(async {
            assert!(futures::poll!(request.as_mut()).is_pending());
        });
        let mut late = client.get("/").into_future();
        first.block_on(async {
            assert!(futures::poll!(&mut late).is_pending());
        });
        second.block_on(late).expect("an answer");
        drop(first);
        nobody_is_blamed(&client);
    });
}

/// Runs a test with clients that may have one connection to each pod, over both protocols.
fn at_the_limit(test: impl Fn(&World, &Client)) {
    protocols(|protocol| {
        let world = World::new(1);
        let builder = world.builder().protocol(protocol).max_connections(1);
        test(&world, &builder.build().expect("a client"));
    });
}

#[test]
fn an_idle_connection_of_a_runtime_that_stands_still_makes_room_for_another_ones() {
    at_the_limit(|_, client| {
        let (first, second) = (current_thread(), current_thread());
        for _ in 0..3 {
            first.block_on(post(client)).expect("an answer");
            second.block_on(post(client)).expect("an answer");
        }
        nobody_is_blamed(client);
    });
}

#[test]
fn a_response_that_was_dropped_in_a_runtime_that_stands_still_keeps_no_room() {
    at_the_limit(|_, client| {
        let (first, second) = (current_thread(), current_thread());
        let response =
            first.block_on(async { within("a response", client.get("/").into_future()).await });
        drop(response.expect("a response"));
        second.block_on(post(client)).expect("an answer");
    });
}

#[test]
fn a_dial_that_nobody_waits_for_in_a_runtime_that_stands_still_keeps_no_room() {
    at_the_limit(|world, client| {
        let (first, second) = (current_thread(), current_thread());
        first.block_on(async { within("a set", client.watch().next()).await });
        {
            let mut request = pin!(post(client));
            first.block_on(async {
                assert!(futures::poll!(request.as_mut()).is_pending());
            });
        }
        second.block_on(post(client)).expect("an answer");
        // The runtime in which it began works again, too.
        first.block_on(post(client)).expect("an answer");
        nobody_is_blamed(client);
        assert_eq!(world.cluster.pod(0).stats().accepted, 2, "one was given up");
    });
}

#[test]
fn a_dial_that_is_given_up_makes_room_for_a_request_that_waits_elsewhere() {
    at_the_limit(|_, client| {
        let (first, second) = (current_thread(), current_thread());
        first.block_on(async { within("a set", client.watch().next()).await });
        let mut given_up = Box::pin(post(client));
        first.block_on(async {
            assert!(futures::poll!(given_up.as_mut()).is_pending());
        });
        let mut waits = pin!(post(client));
        second.block_on(async {
            assert!(futures::poll!(waits.as_mut()).is_pending());
        });
        drop(given_up);
        let answer = second.block_on(async { within("an answer", waits).await });
        answer.expect("an answer");
    });
}

#[test]
fn a_response_that_is_dropped_makes_room_for_a_request_that_waits_elsewhere() {
    at_the_limit(|_, client| {
        let (first, second) = (current_thread(), current_thread());
        let response = first.block_on(client.get("/").into_future());
        let mut waits = pin!(post(client));
        second.block_on(async {
            assert!(futures::poll!(waits.as_mut()).is_pending());
        });
        drop(response.expect("a response"));
        let answer = second.block_on(async { within("an answer", waits).await });
        answer.expect("an answer");
    });
}

/// An upload, whose body ends when the sender of its stream is dropped.
type Upload = futures::future::BoxFuture<'static, Result<http::Response<ResponseBody>, Error>>;
type Rest = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

fn upload(client: &Client) -> (Rest, Upload) {
    let (rest, frames) = mpsc::unbounded();
    let request = http::Request::post("/").body(StreamBody::new(frames));
    let request = request.expect("a request");
    let client = client.clone();
    (
        rest,
        async move { within("a response", client.oneshot(request)).await }.boxed(),
    )
}

/// Begins an upload in this runtime, which stands still after the pod has begun to read.
fn begun_upload(world: &World, client: &Client, runtime: &Runtime) -> (Rest, Upload) {
    let (rest, mut upload) = upload(client);
    let pod = world.cluster.pod(0);
    runtime.block_on(async {
        tokio::select! {
            _ = upload.as_mut() => panic!("its body goes on"),
            _ = pod.wait_until(|stats| stats.in_flight == 1) => {}
        }
    });
    (rest, upload)
}

#[test]
fn an_upload_that_is_given_up_in_a_runtime_that_stands_still_keeps_no_room() {
    at_the_limit(|world, client| {
        let (first, second) = (current_thread(), current_thread());
        let (_rest, given_up) = begun_upload(world, client, &first);
        drop(given_up);
        second.block_on(post(client)).expect("an answer");
        // Nobody uses the connection when its runtime goes on.
        let pod = world.cluster.pod(0);
        first.block_on(pod.wait_until(|stats| stats.connections == 1));
        first.block_on(post(client)).expect("an answer");
        nobody_is_blamed(client);
    });
}

#[test]
fn an_upload_that_is_given_up_makes_room_for_a_request_that_waits_elsewhere() {
    at_the_limit(|world, client| {
        let (first, second) = (current_thread(), current_thread());
        let (_rest, given_up) = begun_upload(world, client, &first);
        let mut waits = pin!(post(client));
        second.block_on(async {
            let early = tokio::time::timeout(MOMENT, waits.as_mut()).await;
            early.expect_err("whoever waits for an answer keeps the connection");
        });
        drop(given_up);
        let answer = second.block_on(async { within("an answer", waits).await });
        answer.expect("an answer");
        nobody_is_blamed(client);
    });
}

/// A pod that answers a request at its head, and a client that may have one connection to it.
struct Early {
    client: Client,
    /// Gets a message for each connection that the client has closed.
    closed: tokio::sync::mpsc::UnboundedReceiver<()>,
    _pods: Runtime,
}

impl Early {
    fn new() -> Self {
        let pods = multi_thread();
        let (closes, closed) = tokio::sync::mpsc::unbounded_channel();
        let (pod, listener) = pods.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            (listener.local_addr().expect("an address"), listener)
        });
        pods.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let closes = closes.clone();
                tokio::spawn(async move {
                    let (read, mut write) = stream.into_split();
                    let mut lines = BufReader::new(read).lines();
                    // The end of an upload has an empty line, too.
                    let mut is_head = false;
                    while let Ok(Some(line)) = lines.next_line().await {
                        is_head |= line.ends_with(" HTTP/1.1");
                        if line.is_empty() && std::mem::take(&mut is_head) {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                            // If the client has gone, the next read sees it.
                            let _ = write.write_all(answer).await;
                        }
                    }
                    let _ = closes.send(());
                });
            }
        });
        Self {
            client: Self::client(pod),
            closed,
            _pods: pods,
        }
    }

    fn client(pod: SocketAddr) -> Client {
        let client = Client::builder("http://web.default:80".parse().expect("a URI"));
        let client = client.discovery(StaticEndpoints::new([pod]));
        let client = client.protocol(Protocol::Http1).max_connections(1);
        client.build().expect("a client")
    }

    /// Makes an upload in this runtime, and reads its answer. Its connection can't be used before the upload ends.
    fn answered(&self, runtime: &Runtime) -> Rest {
        let (rest, upload) = upload(&self.client);
        runtime.block_on(async {
            let response = upload.await.expect("a response");
            within("a body", response.into_body().collect())
                .await
                .expect("a body");
        });
        rest
    }
}

#[test]
fn a_connection_that_is_put_aside_in_a_runtime_that_stands_still_keeps_no_room() {
    let mut pod = Early::new();
    let (first, second) = (current_thread(), current_thread());
    let rest = pod.answered(&first);
    first.block_on(async {
        // The request waits a moment for the connection, which is then put aside.
        let waits = tokio::time::timeout(MOMENT, pod.client.get("/").into_future()).await;
        waits.expect_err("there is no room");
    });
    second.block_on(post(&pod.client)).expect("an answer");
    // The connection gets ready when its runtime goes on, and nobody uses it.
    drop(rest);
    first.block_on(async { within("its end", pod.closed.recv()).await });
    first.block_on(post(&pod.client)).expect("an answer");
    nobody_is_blamed(&pod.client);
}

#[test]
fn a_connection_that_is_put_aside_makes_room_for_a_request_that_waits_elsewhere() {
    let pod = Early::new();
    let (first, second) = (current_thread(), current_thread());
    let _rest = pod.answered(&first);
    let mut settles = Box::pin(pod.client.get("/").into_future());
    first.block_on(async {
        assert!(futures::poll!(settles.as_mut()).is_pending());
    });
    let mut waits = pin!(post(&pod.client));
    second.block_on(async {
        assert!(futures::poll!(waits.as_mut()).is_pending());
    });
    first.block_on(async {
        let waits = tokio::time::timeout(MOMENT, settles.as_mut()).await;
        waits.expect_err("there is no room");
    });
    let answer = second.block_on(async { within("an answer", waits).await });
    answer.expect("an answer");
}

/// The request that has waited longer is in a runtime that stands still, and can't use the connection.
#[test]
fn a_connection_that_is_freed_goes_to_a_request_that_can_use_it() {
    let world = World::new(1);
    let client = world.builder().max_connections(1).build();
    let client = client.expect("a client");
    let (first, second) = (current_thread(), current_thread());
    first.block_on(async { within("a set", client.watch().next()).await });
    let held = first.block_on(client.get("/").into_future());
    let mut elsewhere = pin!(post(&client));
    second.block_on(async {
        assert!(futures::poll!(elsewhere.as_mut()).is_pending());
    });
    let asked = client.clone();
    let waits = first.spawn(async move { post(&asked).await });
    first.block_on(async {
        while client.endpoints()[0].in_flight < 3 {
            tokio::task::yield_now().await;
        }
        let body = held.expect("a response").into_body();
        within("a body", body.collect()).await.expect("a body");
        within("an answer", waits)
            .await
            .expect("no panic")
            .expect("an answer");
    });
    second.block_on(elsewhere).expect("an answer");
    nobody_is_blamed(&client);
}

#[test]
fn at_the_connection_limit_every_request_of_several_runtimes_is_answered() {
    at_the_limit(|_, client| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || {
                    let runtime = current_thread();
                    for _ in 0..25 {
                        let requests = (0..4).map(|_| post(&client));
                        let answers = runtime.block_on(futures::future::join_all(requests));
                        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        nobody_is_blamed(client);
    });
}

#[test]
fn each_runtime_has_one_dial_for_all_its_requests() {
    let world = World::new(1);
    let client = world.builder().protocol(Protocol::Http2).build();
    let client = client.expect("a client");
    let (first, second) = (current_thread(), current_thread());
    first.block_on(async { within("a set", client.watch().next()).await });
    let mut requests = [&first, &second, &first, &second].map(|runtime| {
        let mut request = Box::pin(post(&client));
        runtime.block_on(async {
            assert!(futures::poll!(request.as_mut()).is_pending());
        });
        request
    });
    let [a, b, c, d] = &mut requests;
    for (runtime, own) in [(&first, [a, c]), (&second, [b, d])] {
        let answers = runtime.block_on(futures::future::join_all(own));
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    assert_eq!(world.cluster.pod(0).stats().accepted, 2, "one a runtime");
}

/// The pod itself is silent: only its kernel has accepted the connection.
#[test]
fn a_dial_of_another_runtime_that_ends_is_made_here_and_blames_no_pod() {
    let world = World::new(1);
    let builder = world.builder().protocol(Protocol::Http2).fail_fast();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let pod = listener.local_addr().expect("an address");
    let client = builder.discovery(StaticEndpoints::new([pod]));
    let client = client.connect_timeout(support::PATIENCE).build();
    let client = client.expect("a client");
    let (first, second) = (multi_thread(), current_thread());
    second.block_on(async { within("a set", client.watch().next()).await });
    let asked = client.clone();
    let begun = first.spawn(async move { post(&asked).await.map(drop) });
    let (_connection, _) = listener.accept().expect("a connection");
    let mut request = pin!(post(&client));
    second.block_on(async {
        assert!(futures::poll!(request.as_mut()).is_pending());
    });
    drop(first);
    assert!(begun.is_finished());
    second.block_on(async {
        let waits = tokio::time::timeout(MOMENT, request).await;
        waits.expect_err("another connection is being made");
    });
    nobody_is_blamed(&client);
}

#[test]
fn checks_open_another_connection_if_their_runtime_stands_still() {
    let world = World::new(2);
    let check = HealthCheck::http("/").expect("a path").interval(MOMENT);
    // A check over a connection that stands still would never end.
    let check = check.failures(1).timeout(Duration::from_secs(3_600));
    // HTTP/2, because an HTTP/1.1 connection isn't ready until its runtime has read the last answer's body.
    let builder = world.builder().protocol(Protocol::Http2);
    let client = builder.health_check(check).build();
    let client = client.expect("a client");
    let checks = || {
        let pods = world.cluster.pods().into_iter();
        pods.map(|pod| pod.requests()).min().expect("two pods")
    };
    let until_checked = |times: usize| {
        let enough = checks() + times;
        let (client, checks) = (&client, &checks);
        async move {
            while checks() < enough {
                // Waiting for changes of the set keeps the checks going.
                tokio::time::sleep(MOMENT / 5).await;
                drop(client.watch());
                nobody_is_blamed(client);
            }
        }
    };
    let first = current_thread();
    first.block_on(async {
        within("a set", client.watch().next()).await;
        within("checks", until_checked(3)).await;
        // The checks' answers arrive, and the connections are kept.
        tokio::time::sleep(MOMENT / 2).await;
    });
    let second = current_thread();
    second.block_on(async {
        post(&client).await.expect("an answer");
        within("checks", until_checked(10)).await;
    });
}

/// A source that gives a set, and panics when it is polled again in another runtime.
struct PanicsAgain(bool);

impl tower_headless::Discovery for PanicsAgain {
    fn poll_next(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Vec<Endpoint>, tower_headless::BoxError>> {
        match std::mem::replace(&mut self.0, true) {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(Ok(vec![Endpoint::new(([10, 0, 0, 1], 80).into())])),
        }
    }

    fn refresh(&mut self) {
        panic!("a source that can't be asked again");
    }
}

#[test]
fn a_panic_while_moving_to_another_runtime_ends_the_background_task_and_its_streams() {
    let balance = Balance::builder(PanicsAgain(false))
        .build(|_: &Endpoint| tower::service_fn(|_: u32| async { Ok::<_, Error>(1) }));
    let mut changes = balance.watch();
    let first = current_thread();
    first.block_on(async { within("a set", changes.next()).await.expect("a set") });
    drop(first);
    current_thread().block_on(async {
        let answer = balance.call_with(1, Default::default()).await;
        assert_eq!(answer.expect("the last set stays"), 1);
        let end = async { while changes.next().await.is_some() {} };
        within("the end of all changes", end).await;
    });
}

#[test]
fn a_request_with_a_timeout_may_move_to_another_runtime() {
    let world = World::new(1);
    let client = world.builder().timeout(Duration::from_secs(60));
    let client = client.build().expect("a client");
    let first = current_thread();
    first.block_on(post(&client)).expect("an answer");
    let mut request = client
        .get("/")
        .timeout(Duration::from_secs(50))
        .into_future();
    first.block_on(async {
        assert!(futures::poll!(&mut request).is_pending());
    });
    drop(first);
    let second = current_thread();
    let answer = second.block_on(async { within("an end", request).await });
    if let Err(error) = answer {
        assert!(!error.is_timeout(), "{error:?}");
    }
    second.block_on(post(&client)).expect("an answer");
}

#[test]
fn requests_that_wait_go_on_when_the_tasks_runtime_ends() {
    let world = World::new(1);
    let client = world.client();
    let (first, second) = (current_thread(), current_thread());
    first.block_on(post(&client)).expect("an answer");
    world.run(world.cluster.kill(0));
    let mut request = pin!(post(&client));
    second.block_on(async {
        // The request is refused, and waits for the pod.
        let waits = tokio::time::timeout(MOMENT, request.as_mut()).await;
        waits.expect_err("nobody there");
    });
    drop(first);
    let pod = world.cluster.pod(0);
    world.run(pod.restart()).expect("the same port");
    second.block_on(request).expect("an answer");
}

#[test]
fn the_changes_of_a_set_go_on_in_another_runtime() {
    let world = World::new(1);
    let client = world.client();
    let (first, second) = (current_thread(), current_thread());
    let mut changes = client.watch();
    first.block_on(post(&client)).expect("an answer");
    second.block_on(knows(&mut changes, world.cluster.pod(0).ip()));
    drop(first);
    let pod = world.run(world.cluster.add_pod());
    second.block_on(knows(&mut changes, pod.ip()));
}

#[test]
fn health_checks_go_on_in_the_next_runtime() {
    let world = World::new(1);
    let check = HealthCheck::tcp().interval(MOMENT);
    let client = world.builder().health_check(check).build();
    let client = client.expect("a client");
    let pod = world.cluster.pod(0);
    let first = current_thread();
    first.block_on(post(&client)).expect("an answer");
    drop(first);
    let before = pod.stats().accepted;
    let second = current_thread();
    second.block_on(async {
        post(&client).await.expect("an answer");
        pod.wait_until(|stats| stats.accepted > before + 3).await;
    });
}

#[test]
fn a_pod_that_refused_in_the_last_runtime_is_found_again_in_the_next() {
    let world = World::new(2);
    let client = world.client();
    let first = current_thread();
    world.run(world.cluster.kill(0));
    let refused = async {
        while !client
            .endpoints()
            .iter()
            .any(|endpoint| endpoint.state == EndpointState::Unreachable)
        {
            post(&client).await.expect("an answer");
        }
    };
    first.block_on(async { within("a refusal", refused).await });
    drop(first);
    let pod = world.cluster.pod(0);
    world.run(pod.restart()).expect("the same port");
    current_thread().block_on(until_answered_by(&client, pod.ip()));
}

#[test]
fn a_request_that_is_made_outside_of_a_runtime_is_an_error_wherever_it_is_awaited() {
    let world = World::new(1);
    let mut client = world.client();
    current_thread().block_on(post(&client)).expect("an answer");
    let request = http::Request::new(Empty::<Bytes>::new());
    let response = client.call(request);
    let response = current_thread().block_on(async { within("a response", response).await });
    let error = response.expect_err("its timeouts have no runtime");
    assert!(error.is_no_runtime(), "{error:?}");
}

#[test]
fn outside_of_any_runtime_there_is_an_error_and_no_panic() {
    let world = World::new(1);
    let client = world.client();
    let ask = |client: &Client| {
        let answer = futures::executor::block_on(client.get("/").into_future());
        let error = answer.expect_err("nothing can be waited for");
        assert!(error.is_no_runtime(), "{error:?}");
        assert!(error.to_string().contains("no tokio runtime"), "{error}");
    };
    ask(&client);
    let runtime = current_thread();
    runtime.block_on(post(&client)).expect("an answer");
    ask(&client);
    drop(runtime);
    ask(&client);
    let mut stream = MembershipStream::new(world.dns());
    assert!(stream.next().now_or_never().is_none());
    current_thread().block_on(post(&client)).expect("an answer");
}

#[test]
fn a_client_may_be_built_and_dropped_outside_of_a_runtime() {
    let world = World::new(1);
    for runtime in [current_thread(), multi_thread()] {
        drop(world.client());
        let client = world.client();
        runtime.block_on(post(&client)).expect("an answer");
        drop(client);
        drop(runtime);
    }
    let client = world.client();
    current_thread().block_on(post(&client)).expect("an answer");
    drop(client);
    let pod = world.cluster.pod(0);
    world.run(pod.wait_until(|stats| stats.connections == 0));
}

#[test]
fn static_endpoints_and_a_stream_of_sets_go_on_in_the_next_runtime() {
    let world = World::new(1);
    let address = world.cluster.pod(0).addr();
    let (sets, mut told) = tokio::sync::mpsc::channel(8);
    let uri = || "http://web.default:80".parse().expect("a URI");
    let fixed = Client::builder(uri()).discovery(StaticEndpoints::new([address]));
    let told = StreamDiscovery::new(futures::stream::poll_fn(move |cx| told.poll_recv(cx)));
    let streamed = Client::builder(uri()).discovery(told);
    let clients = [fixed.build(), streamed.build()].map(|client| client.expect("a client"));
    sets.blocking_send(vec![address]).expect("a receiver");
    for _ in 0..3 {
        let runtime = current_thread();
        for client in &clients {
            runtime.block_on(post(client)).expect("an answer");
        }
    }
    world.replace();
    let address = world.cluster.pod(0).addr();
    sets.blocking_send(vec![address]).expect("a receiver");
    let answered = current_thread().block_on(post(&clients[1]));
    assert_eq!(answered.expect("an answer"), address.ip());
}

/// A fallback uses a timer, which belongs to a runtime.
#[test]
fn a_fallback_goes_on_in_the_next_runtime() {
    use tower_headless::Discovery;

    let world = World::new(1);
    let silent = StreamDiscovery::new(futures::stream::pending::<Vec<Endpoint>>());
    let client = world.builder().discovery(silent.or(world.dns()));
    let client = client.build().expect("a client");
    let first = current_thread();
    first.block_on(async {
        let early = tokio::time::timeout(MOMENT, post(&client)).await;
        early.expect_err("the primary has 2 s");
    });
    drop(first);
    current_thread().block_on(post(&client)).expect("an answer");
}

#[test]
fn a_client_does_not_start_its_task_in_a_runtime_that_is_shutting_down() {
    let balance = Balance::builder(StaticEndpoints::new([([10, 0, 0, 1], 80).into()]))
        .build(|_: &Endpoint| tower::service_fn(|_: u32| async { Ok::<_, Error>(1) }));
    let runtime = current_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let answer = futures::executor::block_on(balance.call_with(1, Default::default()));
    let error = answer.expect_err("nothing can start there").to_string();
    assert!(error.contains("its runtime has ended"), "{error}");
    drop(_entered);
    let call = async { balance.call_with(1, Default::default()).await };
    assert_eq!(current_thread().block_on(call).expect("an answer"), 1);
}

#[test]
fn a_watch_of_slices_goes_on_in_another_runtime() {
    let outside = multi_thread();
    let api = outside.block_on(support::api_server::ApiServer::start());
    let pods = |hosts: &[u8]| {
        let entry = |host: &u8| serde_json::json!({"addresses": [format!("10.0.0.{host}")]});
        let slice = serde_json::json!({
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "endpoints": hosts.iter().map(entry).collect::<Vec<_>>(),
        });
        api.slice("web", "web-a", slice);
    };
    pods(&[1]);
    let folder =
        std::env::temp_dir().join(format!("tower-headless-runtimes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable folder");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": api.url()}}],
        "users": [{"name": "test", "user": {}}],
    });
    let path = folder.join("config");
    std::fs::write(&path, config.to_string()).expect("a writable folder");
    let target = "web.default:80".parse().expect("a target");
    let slices = EndpointSlices::new(target).kubeconfig(&path);
    let (first, second) = (current_thread(), current_thread());
    let mut a = MembershipStream::new(slices.clone());
    let mut b = MembershipStream::new(slices);
    let host = |host| IpAddr::from([10, 0, 0, host]);
    first.block_on(knows(&mut a, host(1)));
    second.block_on(knows(&mut b, host(1)));
    drop(first);
    pods(&[1, 2]);
    second.block_on(knows(&mut b, host(2)));
    drop(second);
    pods(&[1, 2, 3]);
    let third = current_thread();
    third.block_on(knows(&mut a, host(3)));
    third.block_on(knows(&mut b, host(3)));
    std::fs::remove_dir_all(folder).expect("the folder");
}
