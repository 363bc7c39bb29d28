//! Which connection a request gets, and when connections are closed.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{join, join_all},
    stream,
};
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time,
};
use tower::ServiceExt;
use tower_headless::{
    BoxError, EndpointState,
    http::{Client, RequestBody, upgrade},
};

use crate::{
    kit::{
        Count, OK, Peer, SWITCH, accept, answering, assert_blames_no_pod, builder, client, get,
        in_flight, listen, outliers, pod, sets, silent, stream_of, text, unresolved, upgrading,
        wait_until, written,
    },
    support::{PATIENCE, within},
};

/// The beginning of an answer; the test sends the rest.
const BEGUN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab";

/// Sends `count` requests at once, each on its own connection; all are answered and read.
async fn connect(client: &Client, listener: &TcpListener, count: usize) -> Vec<Peer<TcpStream>> {
    let serve = async {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(accept(listener).await);
        }
        for peer in &mut peers {
            peer.answer(OK).await;
        }
        peers
    };
    let (peers, responses) = join(serve, join_all((0..count).map(|_| get(client, "/")))).await;
    for response in responses {
        response.expect("a response");
    }
    peers
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        for _ in 0..10 {
            peer.answer(OK).await;
        }
    };
    let ask = async {
        for _ in 0..10 {
            get(&client, "/").await.expect("a response");
        }
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn of_several_idle_connections_the_last_used_is_used_again() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let mut peers = connect(&client, &listener, 3).await;
    for _ in 0..5 {
        let last = peers.last_mut().expect("three");
        let (_, response) = join(last.answer(OK), get(&client, "/")).await;
        response.expect("a response");
    }
    for peer in &mut peers[..2] {
        assert!(peer.is_quiet().await, "the first two stay idle");
    }
}

#[tokio::test]
async fn a_connection_is_free_when_the_body_has_ended_and_not_before() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut first = accept(&listener).await;
        first.answer(BEGUN).await;
        let mut second = accept(&listener).await;
        second.answer(OK).await;
        first.write("cd").await;
        first.answer(OK).await;
        second
    };
    let ask = async {
        let response = client.get("/").await.expect("a response");
        get(&client, "/").await.expect("over another connection");
        text(response).await;
        get(&client, "/").await.expect("over the first again");
    };
    let (mut second, ()) = join(serve, within("all", ask)).await;
    assert!(second.is_quiet().await);
}

#[tokio::test]
async fn a_body_that_is_dropped_closes_its_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(BEGUN).await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").into_future()).await;
    let response = response.expect("a response");
    assert_eq!(in_flight(&client), 1);
    drop(response);
    assert_eq!(in_flight(&client), 0);
    peer.closed().await;
}

#[tokio::test]
async fn a_request_that_is_cancelled_closes_its_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let asked = client.clone();
    let request = tokio::spawn(async move { get(&asked, "/").await.map(drop) });
    let mut peer = accept(&listener).await;
    peer.head().await;
    assert_eq!(in_flight(&client), 1);
    request.abort();
    peer.closed().await;
    wait_until("the count", || in_flight(&client) == 0).await;
}

#[tokio::test]
async fn a_connection_dialled_for_a_cancelled_request_serves_the_next() {
    let (listener, pod) = listen().await;
    // Only one, so that the next request has to wait for it.
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    within("the pods", client.watch().next()).await;
    let mut request = client.get("/cancelled").into_future();
    assert!(futures::poll!(&mut request).is_pending());
    assert_eq!(in_flight(&client), 1);
    drop(request);
    assert_eq!(in_flight(&client), 0);
    let serve = async { accept(&listener).await.answer(OK).await };
    let (head, response) = join(serve, get(&client, "/next")).await;
    response.expect("a response");
    assert!(head.starts_with("GET /next"), "{head}");
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_idle(1).build().expect("a client");
    let mut peers = connect(&client, &listener, 3).await;
    for peer in &mut peers[1..] {
        peer.closed().await;
    }
    let (_, response) = join(peers[0].answer(OK), get(&client, "/")).await;
    response.expect("a response");
}

#[tokio::test]
async fn with_no_idle_connections_allowed_each_request_has_its_own() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_idle(0).build().expect("a client");
    for _ in 0..3 {
        let mut peers = connect(&client, &listener, 1).await;
        peers[0].closed().await;
    }
}

#[tokio::test]
async fn connections_that_are_idle_for_too_long_are_closed() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).idle_timeout(Duration::from_millis(50));
    let client = client.build().expect("a client");
    for mut peer in connect(&client, &listener, 3).await {
        peer.closed().await;
    }
    connect(&client, &listener, 1).await;
}

#[tokio::test]
async fn a_connection_in_use_is_not_idle() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).idle_timeout(Duration::from_millis(20));
    let client = client.build().expect("a client");
    connect(&client, &listener, 1).await;
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        assert!(peer.is_quiet().await, "for longer than the idle timeout");
        peer.write(OK).await;
    };
    // The first one must be closed, so that this is a new connection that was never idle.
    let ask = async {
        time::sleep(Duration::from_millis(60)).await;
        get(&client, "/").await.expect("a response");
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_connection_that_the_pod_closes_while_idle_is_not_used() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    drop(connect(&client, &listener, 2).await);
    // The connections' tasks see it, because they are woken before this task.
    time::sleep(Duration::from_millis(10)).await;
    connect(&client, &listener, 1).await;
}

#[tokio::test]
async fn connection_close_is_honoured() {
    const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        for _ in 0..3 {
            let mut peer = accept(&listener).await;
            peer.answer(LAST).await;
            peer.closed().await;
        }
    };
    let ask = async {
        for _ in 0..3 {
            get(&client, "/").await.expect("a response");
        }
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_a_connection() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        for _ in 0..2 {
            peer.answer(BEGUN).await;
            assert!(peer.is_quiet().await, "one request at a time");
            peer.write("cd").await;
        }
        peer
    };
    let requests = join(get(&client, "/"), get(&client, "/"));
    let (_peer, (first, second)) = join(serve, requests).await;
    assert_eq!(first.expect("a response"), "abcd");
    assert_eq!(second.expect("a response"), "abcd");
}

/// It closes when the pod has taken the data in transit, or when the system gives up.
#[tokio::test]
async fn a_connection_that_a_stuck_pod_keeps_from_closing_still_counts() {
    let (listener, pod) = listen().await;
    let client = builder([pod])
        .max_connections(1)
        .timeout(Duration::from_millis(100));
    let client = client.build().expect("a client");
    for _ in 0..3 {
        let request = client.post("/").body(vec![0; 16 << 20]);
        request.await.expect_err("nobody reads it");
    }
    let _first = accept(&listener).await;
    let another = futures::poll!(std::pin::pin!(listener.accept()));
    assert!(another.is_pending(), "one connection alone");
}

/// It counts as a connection of the pod's until it ends, whatever protocol it speaks and whoever has it.
#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_until_it_ends() {
    const TUNNEL: &str = "HTTP/1.1 200 OK\r\n\r\n";
    for (method, uri, answer) in [
        (Method::GET, "/", SWITCH),
        (Method::CONNECT, "far.example:443", TUNNEL),
    ] {
        let (listener, pod) = listen().await;
        let client = builder([pod]).max_connections(1).build();
        let client = client.expect("a client");
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(answer).await;
            peer
        };
        let ask = async {
            let request = upgrading(&method, uri);
            let mut response = client.clone().oneshot(request).await.expect("a response");
            upgrade(&mut response).await.expect("a stream")
        };
        let (_peer, stream) = join(serve, within("a stream", ask)).await;
        let mut next = Box::pin(get(&client, "/next"));
        let moment = Duration::from_millis(50);
        tokio::select! {
            _ = &mut next => panic!("there is no room"),
            _ = listener.accept() => panic!("there is one connection too many"),
            () = time::sleep(moment) => {}
        }
        drop(stream);
        let serve = async { accept(&listener).await.answer(OK).await };
        let (_, answered) = join(serve, within("its turn", next)).await;
        answered.expect("a response");
    }
}

#[tokio::test]
async fn a_cancelled_wait_for_a_connection_harms_no_other_request() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(BEGUN).await;
        peer
    };
    let (mut peer, first) = join(serve, client.get("/").into_future()).await;
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(get(&client, "/"))).collect();
    for waiter in &mut waiters {
        assert!(futures::poll!(waiter).is_pending());
    }
    peer.write("cd").await;
    text(first.expect("a response")).await;
    // The first in the queue has been told, and is dropped before it can react.
    drop(waiters.remove(0));
    drop(waiters.remove(0));
    let last = waiters.remove(0);
    let (_, response) = join(peer.answer(OK), within("its turn", last)).await;
    response.expect("a response");
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_connection_lost_in_use_makes_room_for_another() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_connections(1).retries(0).build();
    let client = client.expect("a client");
    let serve = async {
        accept(&listener).await.head().await;
        accept(&listener).await.answer(OK).await;
    };
    let ask = async {
        let lost = client.get("/lost").await;
        lost.expect_err("the pod has closed the connection");
        get(&client, "/").await.expect("a response");
    };
    join(serve, within("both", ask)).await;
}

/// When a caller has its response, the connection may still be busy with the response's end; no waiting request may
/// suffer for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiting_request_is_forgotten_while_many_share_few_connections() {
    for connections in [1, 2] {
        let (pod, _) = answering().await;
        let client = builder([pod]).max_connections(connections);
        let client = client.build().expect("a client");
        let callers = (0..8).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    get(&client, "/").await.expect("a response");
                }
            })
        });
        for caller in within("all responses", join_all(callers)).await {
            caller.expect("no panic");
        }
    }
}

/// Like the test before, with pods that close each connection after one response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiting_request_is_forgotten_while_connections_close() {
    const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let once = |mut peer: Peer<TcpStream>| async move {
        peer.try_head().await;
        peer.write(LAST).await;
    };
    let pod = pod(once).await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    let callers = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                get(&client, "/").await.expect("a response");
            }
        })
    });
    for caller in within("all responses", join_all(callers)).await {
        caller.expect("no panic");
    }
}

/// The waiting request is a task of its own, so nothing else wakes it.
#[tokio::test]
async fn a_waiting_request_gets_the_connection_once_an_early_answered_upload_ends() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    let (body, unread) = written();
    let request = Request::post("/").body(unread).expect("a request");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let (mut peer, response) = join(serve, client.clone().oneshot(request)).await;
    text(response.expect("a response")).await;
    let asked = client.clone();
    let second = tokio::spawn(async move { get(&asked, "/second").await });
    wait_until("the second request", || in_flight(&client) == 1).await;
    drop(body);
    peer.until("0\r\n\r\n").await;
    // Within seconds: otherwise the idle timeout would free the connection, after thirty.
    let served = time::timeout(Duration::from_secs(5), peer.answer(OK));
    served.await.expect("the second request");
    second.await.expect("no panic").expect("a response");
}

/// By itself hyper would keep such a connection for as long as the pod does.
#[tokio::test]
async fn an_upload_that_is_stuck_after_its_answer_ends_with_the_idle_timeout() {
    for is_whole in [false, true] {
        let (listener, pod) = listen().await;
        let client = builder([pod]).max_connections(1);
        let client = client.idle_timeout(Duration::from_millis(50));
        let client = client.tcp_user_timeout(None).build();
        let client = client.expect("a client");
        let (sender, unread) = written();
        sender.send("a part").expect("a body");
        let body = match is_whole {
            // More than the system's buffers take.
            true => RequestBody::from(vec![0; 64 << 20]),
            false => RequestBody::new(unread),
        };
        let request = Request::post("/").body(body).expect("a request");
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(OK).await;
            peer
        };
        let (_stuck, response) = join(serve, client.clone().oneshot(request)).await;
        text(response.expect("a response")).await;
        let serve = async { accept(&listener).await.answer(OK).await };
        let (_, second) = join(serve, get(&client, "/second")).await;
        second.expect("over another connection");
    }
}

#[tokio::test]
async fn an_upload_that_is_stuck_after_its_answer_ends_though_no_request_follows() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).idle_timeout(Duration::from_millis(50));
    let client = client.build().expect("a client");
    let (sender, unread) = written();
    let request = Request::post("/").body(unread).expect("a request");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let (mut peer, response) = join(serve, client.clone().oneshot(request)).await;
    text(response.expect("a response")).await;
    peer.closed().await;
    within("the body's end", sender.closed()).await;
}

/// A connection is busy with the end of a response for a moment longer than its caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_one_after_another_share_a_connection_on_several_threads() {
    let connections = Count::default();
    let seen = connections.clone();
    let pod = pod(move |mut peer: Peer<TcpStream>| {
        seen.add();
        async move {
            while peer.try_head().await.is_some() {
                peer.write(OK).await;
            }
        }
    });
    let client = client([pod.await]);
    let caller = tokio::spawn(async move {
        for _ in 0..5_000 {
            get(&client, "/").await.expect("a response");
        }
    });
    within("all responses", caller).await.expect("no panic");
    assert_eq!(connections.get(), 1);
}

/// Removes a pod that has an idle connection and one in use.
#[tokio::test]
async fn a_removed_pod_keeps_only_connections_with_requests_in_flight() {
    let (listener, leaving) = listen().await;
    let (staying, _) = answering().await;
    let (sets, discovery) = sets(vec![leaving]);
    let client = unresolved("http").discovery(discovery).build();
    let client = client.expect("a client");
    let mut peers = connect(&client, &listener, 2).await;
    let mut idle = peers.remove(0);
    let mut used = peers.remove(0);
    let (_, response) = join(used.answer(BEGUN), client.get("/").into_future()).await;
    let response = response.expect("a response");
    sets.send_replace(vec![staying]);
    idle.closed().await;
    assert!(used.is_quiet().await, "its request has not ended");
    assert_eq!(
        response.body().endpoint().expect("a pod").address(),
        leaving
    );
    used.write("cd").await;
    assert_eq!(text(response).await, "abcd");
    used.closed().await;
    get(&client, "/").await.expect("of the pod that stays");
}

#[tokio::test]
async fn a_request_on_its_way_to_a_removed_pod_is_answered() {
    let (listener, leaving) = listen().await;
    let (staying, _) = answering().await;
    let (sets, discovery) = sets(vec![leaving]);
    let client = unresolved("http").discovery(discovery).build();
    let client = client.expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        sets.send_replace(vec![staying]);
        let is_gone = || client.endpoints()[0].endpoint.address() == staying;
        wait_until("the removal", is_gone).await;
        peer.write(OK).await;
        peer.closed().await;
    };
    let ((), response) = join(serve, get(&client, "/")).await;
    assert_eq!(response.expect("a response"), "ok");
}

#[tokio::test]
async fn dropping_the_last_client_closes_idle_connections() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let mut peers = connect(&client, &listener, 1).await;
    drop(client);
    peers[0].closed().await;
}

#[tokio::test]
async fn requests_in_flight_outlive_their_client() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let request = client.get("/").into_future();
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer
    };
    let mut request = Box::pin(request);
    let mut peer = tokio::select! {
        peer = serve => peer,
        _ = &mut request => panic!("not answered yet"),
    };
    drop(client);
    peer.write(OK).await;
    let response = within("a response", request).await.expect("a response");
    assert_eq!(text(response).await, "ok");
    peer.closed().await;
}

/// Cancels requests at every point: before the connection, in the head, in the body.
#[tokio::test]
async fn requests_cancelled_at_any_point_leave_nothing_behind() {
    let slow = |mut peer: Peer<TcpStream>| async move {
        while peer.try_head().await.is_some() {
            tokio::task::yield_now().await;
            peer.write(BEGUN).await;
            tokio::task::yield_now().await;
            peer.write("cd").await;
        }
    };
    let pod = pod(slow).await;
    let client = builder([pod]).max_connections(2).build();
    let client = client.expect("a client");
    for polls in 0..200 {
        let mut request = Box::pin(get(&client, "/"));
        for _ in 0..polls % 40 {
            if futures::poll!(&mut request).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
        assert_eq!(in_flight(&client), 0, "after {polls} polls");
    }
    for _ in 0..3 {
        get(&client, "/").await.expect("a response");
    }
}

#[tokio::test]
async fn a_pod_that_does_not_accept_is_passed_over_after_the_connect_timeout() {
    let full = full_backlog().await;
    let (other, _) = answering().await;
    let client = builder([full.0, other]);
    let client = client.connect_timeout(Duration::from_millis(100));
    let client = client.build().expect("a client");
    let answers = join_all((0..4).map(|_| get(&client, "/"))).await;
    assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
}

/// A pod whose backlog is full, so that the kernel answers no SYN, and the connections that fill it.
async fn full_backlog() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut streams = Vec::new();
    let moment = Duration::from_millis(50);
    while let Ok(stream) = time::timeout(moment, TcpStream::connect(address)).await {
        streams.push(stream.expect("a connection"));
    }
    (address, listener, streams)
}

/// The system takes these settings only within bounds; values outside must not make every pod unreachable.
#[tokio::test]
async fn extreme_tcp_settings_still_connect() {
    let (pod, _) = answering().await;
    for time in [
        Duration::ZERO,
        Duration::from_millis(1),
        Duration::from_micros(1),
        Duration::MAX,
    ] {
        let client = builder([pod]).tcp_keepalive(Some(time));
        let client = client.ready_timeout(Duration::from_secs(1)).build();
        let answer = get(&client.expect("a client"), "/").await;
        answer.unwrap_or_else(|error| panic!("keepalive {time:?}: {error:?}"));
        let client = builder([pod]).tcp_user_timeout(Some(time));
        let client = client.ready_timeout(Duration::from_secs(1)).build();
        let answer = get(&client.expect("a client"), "/").await;
        answer.unwrap_or_else(|error| panic!("user timeout {time:?}: {error:?}"));
    }
    let client = builder([pod]).tcp_keepalive(None).tcp_user_timeout(None);
    get(&client.build().expect("a client"), "/")
        .await
        .expect("a response");
}

#[tokio::test]
async fn the_longest_timeouts_do_not_panic() {
    let (pod, _) = answering().await;
    let client = builder([pod])
        .idle_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .first_byte_timeout(Duration::MAX)
        .timeout(Duration::MAX)
        .ready_timeout(Duration::MAX);
    let client = client.build().expect("a client");
    for _ in 0..3 {
        get(&client, "/").await.expect("a response");
    }
}

#[tokio::test]
async fn a_client_with_the_shortest_times_works() {
    let (pod, _) = answering().await;
    let client = builder([pod])
        .idle_timeout(Duration::ZERO)
        .tcp_keepalive(Some(Duration::ZERO))
        .tcp_user_timeout(Some(Duration::ZERO))
        .max_idle(0)
        .max_connections(0);
    let client = client.build().expect("a client");
    for _ in 0..3 {
        get(&client, "/").await.expect("a response");
    }
    let (mute, _) = silent().await;
    let client = builder([mute]).timeout(Duration::ZERO).build();
    let error = get(&client.expect("a client"), "/").await;
    let error = error.expect_err("no time");
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_body_past_its_deadline_closes_its_connection_though_it_is_held() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).timeout(PATIENCE / 2);
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(BEGUN).await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").into_future()).await;
    let mut body = response.expect("a response").into_body();
    // Nothing more arrives, so paused time advances at once.
    time::pause();
    let late = within("the timeout", async {
        loop {
            if let Err(error) = body.frame().await.expect("no end") {
                return error;
            }
        }
    });
    assert!(late.await.is_timeout());
    time::resume();
    peer.closed().await;
    let again = body.frame().await.expect("it has no end");
    assert!(again.expect_err("it is cut off").is_timeout());
}

#[tokio::test]
async fn a_caller_s_broken_body_fails_only_its_own_request() {
    let (pod, _) = answering().await;
    let client = builder([pod]).build().expect("a client");
    let frames = [
        Ok(http_body::Frame::data(Bytes::from("a part"))),
        Err(std::io::Error::other("the disk is gone")),
    ];
    let body = http_body_util::StreamBody::new(stream::iter(frames));
    let request = Request::builder().method(Method::POST).uri("/").body(body);
    let asked = client.clone().oneshot(request.expect("a request"));
    let error = within("an error", asked).await.expect_err("no body");
    let said = format!("{error:?}");
    assert!(said.contains("the disk is gone"), "{said}");
    assert!(
        error.is_request_body() && error.endpoint().is_none(),
        "{said}"
    );
    assert!(!error.is_unexecuted(), "a part may have been sent");
    assert_eq!(in_flight(&client), 0);
    get(&client, "/").await.expect("a response");
}

/// Found by fuzzing: after an HTTP/1.0 answer, hyper sends HTTP/1.0 on the connection, and drops a body of unknown
/// length.
#[tokio::test]
async fn a_connection_that_was_answered_in_http_1_0_is_not_used_again() {
    let (listener, address) = listen().await;
    let client = client([address]);
    let pod = async {
        let mut first = accept(&listener).await;
        let answer = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
        first.answer(answer).await;
        first.closed().await;
        let mut second = accept(&listener).await;
        let head = second.head().await;
        let body = second.until("0\r\n\r\n").await;
        second.write(OK).await;
        (head, body)
    };
    let requests = async {
        assert_eq!(get(&client, "/first").await.expect("an answer"), "ok");
        let request = Request::post("/second").body(stream_of(&["abc"]));
        let request = request.expect("a request");
        let response = client.clone().oneshot(request).await;
        text(response.expect("an answer")).await
    };
    let ((head, body), answer) = join(pod, requests).await;
    assert!(head.starts_with("POST /second HTTP/1.1\r\n"), "{head}");
    assert_eq!((&*body, &*answer), ("3\r\nabc\r\n0\r\n\r\n", "ok"));
}

#[tokio::test]
async fn a_caller_s_body_that_fails_after_the_head_is_not_blamed_on_the_pod() {
    let begins = |mut peer: Peer<TcpStream>| async move {
        peer.head().await;
        peer.write(BEGUN).await;
        peer.closed().await;
    };
    let one = pod(begins).await;
    let client = outliers(builder([one, pod(begins).await]));
    assert_blames_no_pod(&client).await;
}

#[tokio::test]
async fn a_body_that_panics_fails_only_its_own_request() {
    for is_answered in [false, true] {
        let serve = move |mut peer: Peer<TcpStream>| async move {
            peer.head().await;
            if is_answered {
                peer.write(BEGUN).await;
            }
            peer.closed().await;
        };
        let one = pod(serve).await;
        let client = outliers(builder([one, pod(serve).await]).max_connections(1));
        for _ in 0..6 {
            let (sender, mut chunks) = mpsc::unbounded_channel::<&'static str>();
            let body = stream::poll_fn(move |cx| {
                let chunk = ready!(chunks.poll_recv(cx)).expect("the body's own bug");
                Poll::Ready(Some(Ok::<_, BoxError>(Bytes::from(chunk))))
            });
            let request = Request::post("/").body(RequestBody::from_stream(body));
            let mut asked = Box::pin(client.clone().oneshot(request.expect("a request")));
            sender.send("a part").expect("a body");
            let error = if is_answered {
                let body = within("a head", asked).await.expect("a head").into_body();
                drop(sender);
                within("an error", body.collect())
                    .await
                    .expect_err("no end")
            } else {
                assert!(futures::poll!(&mut asked).is_pending());
                drop(sender);
                within("an error", asked).await.expect_err("no answer")
            };
            assert!(
                error.is_request_body() && error.endpoint().is_none(),
                "{error:?}"
            );
            let source = std::error::Error::source(&error).expect("a source");
            assert!(
                source.to_string().contains("the body's own bug"),
                "{source}"
            );
        }
        let mut states = client.endpoints().into_iter().map(|pod| pod.state);
        assert!(states.all(|it| it == EndpointState::Available));
    }
}
