//! Connections that are replaced because they are too old, or have carried enough requests.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{join, join_all};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tower_headless::{
    StaticEndpoints,
    http::{Client, ClientBuilder, Protocol},
};

use crate::{
    frames::Frames,
    kit::{Count, OK, Peer, accept, builder, get, listen, pod, refuse_at, wait_until},
    support::within,
};

const AGE: Duration = Duration::from_millis(100);

fn over(protocol: Protocol, pod: SocketAddr) -> ClientBuilder<StaticEndpoints> {
    builder([pod]).protocol(protocol)
}

/// A pod that answers with the connection's number; how many connections it has had, and how many were closed.
async fn numbering() -> (SocketAddr, Count, Count) {
    let (pod, made, closed, _) = holding().await;
    (pod, made, closed)
}

/// A pod like `numbering`, which answers `/long` only when notified.
async fn holding() -> (SocketAddr, Count, Count, Arc<Notify>) {
    let (made, closed, held) = (Count::default(), Count::default(), Arc::<Notify>::default());
    let (seen, over, hold) = (made.clone(), closed.clone(), held.clone());
    let serve = move |peer: Peer<TcpStream>| {
        seen.add();
        let (number, over, hold) = (seen.get(), over.clone(), hold.clone());
        async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let hold = hold.clone();
                async move {
                    if request.uri().path() == "/long" {
                        hold.notified().await;
                    }
                    let body = Full::<Bytes>::from(number.to_string());
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(peer.into_inner());
            // Ends with the connection, whatever the result.
            let _ = server.serve_connection(io, answer).await;
            over.add();
        }
    };
    (pod(serve).await, made, closed, held)
}

/// Sends a request every `each`, even if earlier ones are unanswered, unless 32 are. Returns how many were sent.
async fn paced(client: &Client, each: Duration, time: Duration) -> u32 {
    let mut pace = interval(each);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut requests) = (Instant::now(), Vec::new());
    let room = Arc::new(Semaphore::new(32));
    while begun.elapsed() < time {
        pace.tick().await;
        let room = room.clone().acquire_owned().await.expect("not closed");
        let client = client.clone();
        requests.push(tokio::spawn(async move {
            let _room = room;
            get(&client, "/").await
        }));
    }
    let sent = requests.len();
    for request in join_all(requests).await {
        request.expect("no panic").expect("a response");
    }
    u32::try_from(sent).expect("not so many")
}

#[tokio::test]
async fn old_connections_are_replaced_and_no_request_fails() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (pod, made, closed) = numbering().await;
        let client = over(protocol, pod).max_connection_age(AGE).build();
        let client = client.expect("a client");
        let begun = Instant::now();
        paced(&client, Duration::from_millis(2), 8 * AGE).await;
        // Mostly one after another; each lives for at least nine tenths of its age.
        let most = begun.elapsed().div_duration_f64(AGE * 9 / 10) + 1.0;
        let (made, most) = (made.get(), most.ceil());
        assert!(made >= 4, "{protocol:?}: {made} connections");
        if protocol == Protocol::Http2 {
            assert!(made as f64 <= most, "{made} connections, of {most}");
        }
        drop(client);
        wait_until("the end of all", || closed.get() == made).await;
    }
}

/// Measures; run it alone: `cargo test --all-features --test client -- --ignored a_second --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes 40 s"]
async fn a_second_of_age_under_2_000_requests_a_second_for_20_s() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (pod, made, closed) = numbering().await;
        let client = over(protocol, pod)
            .max_connection_age(10 * AGE)
            .build()
            .expect("a client");
        let (begun, time) = (Instant::now(), 200 * AGE);
        let sent = paced(&client, Duration::from_micros(500), time).await;
        println!(
            "{protocol:?}: {sent} requests in {:?}, 0 failed; {} connections made, {} closed",
            begun.elapsed(),
            made.get(),
            closed.get()
        );
        assert!(made.get() >= 15);
    }
}

#[tokio::test]
async fn no_connection_has_more_requests_than_it_may() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (pod, made, _) = numbering().await;
        let client = over(protocol, pod).max_connection_requests(10).build();
        let client = client.expect("a client");
        let mut of_each = vec![0; 200];
        for _ in 0..200 {
            let number: usize = get(&client, "/")
                .await
                .expect("a response")
                .parse()
                .expect("a number");
            of_each[number] += 1;
        }
        assert!(
            of_each.iter().all(|requests| *requests <= 10),
            "{of_each:?}"
        );
        let made = made.get();
        assert!((20..=24).contains(&made), "{protocol:?}: {made}");
    }
}

#[tokio::test]
async fn a_connection_limited_to_one_request_carries_one() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (pod, made, closed) = numbering().await;
        let client = over(protocol, pod)
            .max_connection_requests(0)
            .max_connections(1);
        let client = client.build().expect("a client");
        for _ in 0..5 {
            get(&client, "/").await.expect("a response");
        }
        // HTTP/2 may have made the next one by then.
        assert!((5..=6).contains(&made.get()), "{protocol:?}");
        wait_until("the end of all", || closed.get() >= 4).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_its_age() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (pod, made, closed) = numbering().await;
        let client = over(protocol, pod).max_connection_age(AGE).build();
        let client = client.expect("a client");
        get(&client, "/").await.expect("a response");
        // The idle timeout would close it after 30 s.
        wait_until("its end", || made.get() == closed.get()).await;
        get(&client, "/").await.expect("a response");
    }
}

#[tokio::test]
async fn requests_in_flight_on_an_old_connection_finish() {
    let (listener, pod) = listen().await;
    let client = over(Protocol::Http1, pod).max_connection_age(AGE).build();
    let client = client.expect("a client");
    let serve = async {
        let mut old = accept(&listener).await;
        old.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            .await;
        sleep(2 * AGE).await;
        old.write("cd").await;
        old.closed().await;
        accept(&listener).await.answer(OK).await;
    };
    let ask = async {
        assert_eq!(get(&client, "/").await.expect("a response"), "abcd");
        get(&client, "/").await.expect("over another one");
    };
    join(serve, ask).await;
}

async fn greet(listener: &TcpListener) -> Frames<TcpStream> {
    Frames::greet(accept(listener).await, Some(10)).await
}

/// Answers the next request on this connection.
async fn answer(client: &Client, frames: &mut Frames<TcpStream>) -> u32 {
    let serve = async {
        let stream = frames.stream().await;
        frames.ok(stream).await;
        stream
    };
    let (stream, response) = join(serve, get(client, "/")).await;
    response.expect("a response");
    stream
}

/// The handshake takes longer than any request waits.
#[tokio::test]
async fn requests_use_the_old_connection_until_its_successor_is_ready() {
    let (listener, pod) = listen().await;
    let client = over(Protocol::Http2, pod)
        .max_connection_age(AGE)
        .max_connections(1)
        .connect_timeout(Duration::from_secs(30))
        .build()
        .expect("a client");
    let asked = client.clone();
    let long = tokio::spawn(async move { get(&asked, "/long").await });
    let mut old = greet(&listener).await;
    let stream = old.stream().await;
    sleep(2 * AGE).await;
    // The old connection is too old, but the next requests use it all the same, because there is no other.
    answer(&client, &mut old).await;
    let successor = accept(&listener).await;
    answer(&client, &mut old).await;
    let mut new = Frames::greet(successor, Some(10)).await;
    old.ok(stream).await;
    long.await.expect("no panic").expect("a response");
    // The old one closes when its last request has ended and the new one is there.
    old.0.closed().await;
    answer(&client, &mut new).await;
}

#[tokio::test]
async fn a_long_stream_on_an_old_connection_does_not_block_new_connections() {
    let (pod, _, closed, held) = holding().await;
    let client = over(Protocol::Http2, pod)
        .max_connection_age(AGE)
        .max_connections(1)
        .build()
        .expect("a client");
    let asked = client.clone();
    let long = tokio::spawn(async move { get(&asked, "/long").await });
    let replaced = async {
        for number in ["1", "2", "3"] {
            while get(&client, "/").await.expect("a response") != number {
                sleep(AGE / 10).await;
            }
        }
    };
    within("the third connection", replaced).await;
    held.notify_one();
    let answer = long.await.expect("no panic").expect("a response");
    assert_eq!(answer, "1");
    wait_until("the end of the first two", || closed.get() >= 2).await;
}

/// The pod takes no more connections, as if it were shutting down, but continues those that it has.
#[tokio::test]
async fn without_a_successor_new_requests_fail_and_those_in_flight_finish() {
    let (listener, pod) = listen().await;
    let client = over(Protocol::Http2, pod)
        .max_connection_age(AGE)
        .fail_fast()
        .build()
        .expect("a client");
    within("the pods", futures::StreamExt::next(&mut client.watch())).await;
    let asked = client.clone();
    let long = tokio::spawn(async move { get(&asked, "/long").await });
    let mut old = greet(&listener).await;
    let stream = old.stream().await;
    drop(listener);
    refuse_at(pod);
    sleep(2 * AGE).await;
    // The old connection still carried this request; then the client found that there is no other.
    let asked = client.clone();
    let last = tokio::spawn(async move { get(&asked, "/last").await });
    let second = old.stream().await;
    old.ok(second).await;
    last.await.expect("no panic").expect("a response");
    wait_until("the refusal", || client.endpoints().len() == 1).await;
    sleep(AGE).await;
    let error = get(&client, "/").await.expect_err("no connection");
    assert!(error.is_unexecuted(), "{error}");
    old.ok(stream).await;
    long.await.expect("no panic").expect("a response");
    old.0.closed().await;
}

/// A waiting request must learn of each connection that comes free, and of each that makes room for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiting_request_is_forgotten_while_connections_grow_old() {
    for (protocol, connections) in [
        (Protocol::Http1, 1),
        (Protocol::Http1, 2),
        (Protocol::Http2, 1),
    ] {
        let (pod, _, _) = numbering().await;
        let client = over(protocol, pod)
            .max_connection_age(Duration::ZERO)
            .max_connection_requests(7)
            .max_connections(connections)
            .build()
            .expect("a client");
        let callers = (0..8).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    get(&client, "/").await.expect("a response");
                }
            })
        });
        for caller in within("all responses", join_all(callers)).await {
            caller.expect("no panic");
        }
    }
}
