//! Requests and bodies used outside of a runtime.

use std::{future::IntoFuture, pin::pin, task::Poll, thread, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, executor::block_on};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::{runtime::Runtime, task::yield_now};
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt};
use tower_headless::{
    EndpointState, OutlierDetection,
    http::{Client, Error, Protocol, ResponseBody},
};

use crate::{
    frames::Frames,
    kit::{self, OK, Peer, accept, answering, builder, get, in_flight, listen, wait_until},
    support::within,
};

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// Runs on a thread outside of any runtime.
fn outside<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(what).join().expect("no panic")
}

fn collect(response: Response<ResponseBody>) -> Bytes {
    let body = block_on(response.into_body().collect());
    body.expect("a body").to_bytes()
}

async fn send(client: &Client) -> Response<ResponseBody> {
    let response = within("a response", client.get("/").into_future()).await;
    response.expect("a response").into_inner()
}

#[test]
fn a_body_can_be_read_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    // It is random whether the connection's task has finished the response by then.
    for _ in 0..20 {
        let (pod, _) = runtime.block_on(answering());
        let client = runtime.block_on(async { kit::client([pod]) });
        for _ in 0..5 {
            let response = runtime.block_on(send(&client));
            assert_eq!(outside(|| collect(response)), "ok");
        }
    }
}

/// The connection comes free in its own runtime, and is used again.
#[test]
fn the_connection_of_a_body_that_was_read_outside_is_used_again_and_grows_too_old() {
    let runtime = runtime();
    let (listener, pod) = runtime.block_on(listen());
    let client = builder([pod]).idle_timeout(Duration::from_secs(2));
    let client = runtime.block_on(async { client.build() });
    let client = client.expect("a client");
    let mut peer = None;
    for _ in 0..2 {
        let serve = async {
            let mut peer: Peer<_> = match peer.take() {
                Some(peer) => peer,
                None => accept(&listener).await,
            };
            let head = peer.head().await;
            // The whole head; the body follows when it is awaited.
            peer.write(OK.strip_suffix("ok").expect("a body")).await;
            (peer, head)
        };
        let ((mut ours, _), response) =
            runtime.block_on(async { futures::join!(serve, send(&client)) });
        let reader = thread::spawn(|| collect(response));
        runtime.block_on(ours.write("ok"));
        assert_eq!(reader.join().expect("no panic"), "ok");
        runtime.block_on(wait_until("its end", || in_flight(&client) == 0));
        peer = Some(ours);
    }
    // The reaper runs, and closes it.
    runtime.block_on(peer.expect("a connection").closed());
}

#[test]
fn a_body_can_be_dropped_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (listener, pod) = runtime.block_on(listen());
        let client = builder([pod])
            .protocol(protocol)
            .timeout(Duration::from_secs(60));
        let client = runtime.block_on(async { client.build() });
        let client = client.expect("a client");
        let serve = async {
            let peer = accept(&listener).await;
            if protocol == Protocol::Http1 {
                let mut peer = peer;
                peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
                    .await;
                return;
            }
            let mut frames = Frames::greet(peer, None).await;
            let stream = frames.stream().await;
            frames.ok(stream).await;
        };
        let ((), response) = runtime.block_on(async { futures::join!(serve, send(&client)) });
        outside(|| drop(response));
        assert_eq!(in_flight(&client), 0);
    }
}

#[test]
fn a_timeout_passes_for_a_body_that_is_read_outside() {
    let runtime = runtime();
    let (listener, pod) = runtime.block_on(listen());
    let client = builder([pod]).timeout(Duration::from_secs(2));
    let client = runtime.block_on(async { client.build() });
    let client = client.expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            .await;
        peer
    };
    let (_peer, response) = runtime.block_on(async { futures::join!(serve, send(&client)) });
    let read = outside(|| block_on(response.into_body().collect()).map(|_| ()));
    let error = read.expect_err("it never ends");
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn a_request_outside_of_a_runtime_is_an_error() {
    let call = |mut client: Client| {
        outside(move || {
            let request = || Request::new(Empty::<Bytes>::new());
            let called = block_on(client.call(request()));
            let asked = block_on(
                client
                    .get("/")
                    .timeout(Duration::from_secs(1))
                    .into_future(),
            );
            let oneshot = block_on(client.oneshot(request()));
            let asked = asked.map(Response::from);
            [called, asked, oneshot].map(|it| it.map(drop).expect_err("there is no runtime"))
        })
    };
    let runtime = runtime();
    let (pod, requests) = runtime.block_on(answering());
    // One client has never entered a runtime; the other one has worked in this one.
    let never = builder([pod]).first_byte_timeout(Duration::from_secs(1));
    let never = never.build().expect("a client");
    let working = builder([pod]).first_byte_timeout(Duration::from_secs(1));
    let working = working
        .timeout(Duration::from_secs(1))
        .build()
        .expect("a client");
    runtime.block_on(get(&working, "/")).expect("a response");
    for client in [never, working.clone()] {
        for error in call(client) {
            is_for_want_of_a_runtime(&error);
        }
    }
    assert_eq!(requests.get(), 1);
    runtime
        .block_on(get(&working, "/"))
        .expect("it still works");
}

/// A request that was called in a runtime may be awaited anywhere: its connection is made where the balancer runs.
#[test]
fn a_response_can_be_awaited_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    let (pod, _) = runtime.block_on(answering());
    for protocol in [Protocol::Http1, Protocol::Negotiated] {
        let client = builder([pod]).protocol(protocol);
        let client = client.first_byte_timeout(Duration::from_secs(30));
        let client = runtime.block_on(async { client.build() });
        let mut client = client.expect("a client");
        let future = {
            let _entered = runtime.enter();
            block_on(ServiceExt::<Request<Empty<Bytes>>>::ready(&mut client)).expect("ready");
            client.call(Request::new(Empty::<Bytes>::new()))
        };
        let answer = outside(|| collect(block_on(future).expect("a response")));
        assert_eq!(answer, "ok");
    }
}

#[tokio::test]
async fn a_response_that_is_cut_off_by_the_end_of_its_runtime_says_so_and_blames_no_pod() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        // Two pods, because the last one is never ejected.
        let [(a, first), (b, second)] = [listen().await, listen().await];
        let outlier = OutlierDetection::new()
            .consecutive_failures(1)
            .max_ejection_ratio(1.0);
        let client = builder([first, second])
            .protocol(protocol)
            .outlier_detection(outlier);
        let client = client.build().expect("a client");
        // The pods are judged in this runtime, but the connection lives in the other one.
        client.watch().next().await.expect("a set");
        let other = runtime();
        let asked = client.clone();
        let response = other.spawn(async move { send(&asked).await });
        let mut peer = tokio::select! {
            peer = accept(&a) => peer,
            peer = accept(&b) => peer,
        };
        let _connection = if protocol == Protocol::Http1 {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab";
            peer.answer(head).await;
            peer
        } else {
            let mut frames = Frames::greet(peer, None).await;
            let stream = frames.stream().await;
            frames.begin(stream).await;
            frames.0
        };
        let response = response.await.expect("no panic");
        other.shutdown_background();
        let read = within("an end", response.into_body().collect()).await;
        let error = read.expect_err("it is not whole");
        assert!(error.to_string().contains("was cut off"), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(source.is_some_and(|it| it.contains("runtime")), "{error:?}");
        assert!(
            !error.is_unexecuted() && error.endpoint().is_some(),
            "{error:?}"
        );
        // Lets the balancer process everything that it was told.
        for _ in 0..100 {
            yield_now().await;
        }
        for pod in client.endpoints() {
            assert_eq!(pod.state, EndpointState::Available, "{protocol:?}");
        }
    }
}

/// Its connection would belong to another runtime, which isn't running or has ended.
#[test]
fn a_response_that_is_awaited_where_nothing_can_be_dialled_is_an_error_and_blames_no_pod() {
    for ended in [false, true] {
        // Connecting ahead has a task of its own, which has ended as well.
        for (protocol, ahead) in [
            (Protocol::Http1, false),
            (Protocol::Http2, false),
            (Protocol::Http1, true),
        ] {
            let pods = runtime();
            let (pod, requests) = pods.block_on(answering());
            let builder = builder([pod]).protocol(protocol).connect_ahead(ahead);
            let mut client = builder.build().expect("a client");
            // At first this is the balancer's runtime.
            let first = if ended { runtime() } else { current_thread() };
            first.block_on(async { within("a set", client.watch().next()).await });
            if ended {
                drop(first);
            }
            let called = current_thread();
            let entered = called.enter();
            let mut response = pin!(client.call(Request::new(Empty::<Bytes>::new())));
            drop(entered);
            drop(called);
            let error = block_on(response.as_mut()).expect_err("there is no runtime");
            is_for_want_of_a_runtime(&error);
            assert_eq!(client.endpoints()[0].state, EndpointState::Available);
            assert_eq!((in_flight(&client), requests.get()), (0, 0));
        }
    }
}

fn current_thread() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime")
}

fn is_for_want_of_a_runtime(error: &Error) {
    assert!(error.is_unexecuted() && error.is_no_runtime(), "{error}");
}

/// Its runtime finds the connection closed, and the request is awaited outside of any runtime.
#[test]
fn a_request_that_comes_back_where_nothing_can_be_dialled_is_an_error_and_blames_no_pod() {
    let pods = runtime();
    let (listener, pod) = pods.block_on(listen());
    let mut client = builder([pod]).build().expect("a client");
    let first = current_thread();
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let (peer, answer) = first.block_on(async { futures::join!(serve, get(&client, "/")) });
    answer.expect("a response");
    let mut request = {
        let _entered = first.enter();
        task::spawn(client.call(Request::new(Empty::<Bytes>::new())))
    };
    first.block_on(async { assert_pending!(request.poll()) });
    drop(peer);
    first.block_on(wait_until("its return", || request.is_woken()));
    let Poll::Ready(answer) = request.poll() else {
        panic!("nothing is waited for");
    };
    let error = answer.expect_err("there is no runtime");
    is_for_want_of_a_runtime(&error);
    assert_eq!(client.endpoints()[0].state, EndpointState::Available);
    drop(request);
    assert_eq!(in_flight(&client), 0);
}

/// It can be awaited on a thread without a runtime, too.
#[test]
fn a_connection_that_is_not_ready_yet_can_be_waited_for_on_a_thread_without_a_runtime() {
    let runtime = runtime();
    let (listener, pod) = runtime.block_on(listen());
    let builder = builder([pod]).protocol(Protocol::Http1).max_connections(1);
    let mut client = runtime
        .block_on(async { builder.build() })
        .expect("a client");
    let (body, stream) = kit::written();
    let mut early = Request::new(stream);
    *early.method_mut() = http::Method::POST;
    early.headers_mut().insert("content-length", 4.into());
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let (mut peer, early) = runtime.block_on(async {
        let early = within("a response", client.clone().oneshot(early));
        futures::join!(serve, early)
    });
    let next = {
        let _entered = runtime.enter();
        client.call(Request::new(Empty::<Bytes>::new()))
    };
    let answer = thread::spawn(move || {
        let mut next = pin!(next);
        assert!(next.as_mut().now_or_never().is_none(), "there is no other");
        assert_eq!(collect(early.expect("a response")), "ok");
        assert!(
            next.as_mut().now_or_never().is_none(),
            "a body is on its way"
        );
        body.send("abcd").expect("a reader");
        drop(body);
        collect(block_on(next).expect("a response"))
    });
    let serve = async {
        assert_eq!(&peer.bytes().await, b"abcd");
        peer.answer(OK).await;
    };
    runtime.block_on(serve);
    assert_eq!(answer.join().expect("no panic"), "ok");
}
