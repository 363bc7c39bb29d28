//! Heads of HTTP/1.1 responses with more headers than a connection has room for at first.

use std::{future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower_headless::{
    BoxError, HealthCheck,
    http::{Client, Error, ResponseBody, upgrade},
};

use crate::{
    kit::{
        self, Count, OK, Peer, accept, builder, get, in_flight, listen, pod, stream_of, text,
        upgrading, written,
    },
    support::within,
    tls_kit::{self, Authority, H1, NAME},
};

/// A response with this many headers, including `last` and its `Content-Length`.
fn response(status: &str, headers: usize, last: &str, body: &str) -> String {
    let head: String = (2..headers).map(|at| format!("x-{at}: some\r\n")).collect();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{head}content-length: {length}\r\n{last}\r\n\r\n{body}")
}

fn ok(headers: usize) -> String {
    response("200 OK", headers, "x: y", "ok")
}

/// A pod that answers `/N` with N headers, and how many connections it has had.
async fn numbered() -> (SocketAddr, Count) {
    let connections = Count::default();
    let seen = connections.clone();
    let answer = move |mut peer: Peer<TcpStream>| {
        seen.add();
        async move {
            while let Some(head) = peer.try_head().await {
                let path = head.split(' ').nth(1).expect("a path");
                let headers = path[1..].parse().expect("a number");
                peer.write(ok(headers)).await;
            }
        }
    };
    (pod(answer).await, connections)
}

/// The number of headers of the response, once its body has been read.
async fn headers(client: &Client, path: &str) -> Result<usize, Error> {
    let response = within("a response", client.get(path).into_future()).await?;
    let headers = response.headers().len();
    assert_eq!(text(response).await, "ok");
    Ok(headers)
}

async fn ask(
    client: &Client,
    method: Method,
    body: &'static str,
) -> Result<Response<ResponseBody>, Error> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    within("a response", client.clone().oneshot(request)).await
}

#[tokio::test]
async fn more_than_a_hundred_headers_are_read_up_to_the_limit() {
    for count in [99, 100, 101, 150, 255, 256] {
        let (pod, connections) = numbered().await;
        let client = kit::client([pod]);
        let read = headers(&client, &format!("/{count}")).await;
        assert_eq!(read.expect("a response"), count);
        assert_eq!(connections.get(), 1, "nothing is sent again");
    }
    let client = kit::client([numbered().await.0]);
    for _ in 0..3 {
        let error = headers(&client, "/257").await.expect_err("too many");
        assert!(error.is_limit(), "{error:?}");
        let source = std::error::Error::source(&error).expect("a source");
        assert!(source.to_string().contains("256 headers"), "{source}");
    }
}

#[tokio::test]
async fn only_the_first_large_head_costs_a_connection() {
    let (pod, connections) = numbered().await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    for (path, made) in [
        (2, 1),
        (90, 1),
        (150, 1),
        (2, 2),
        (150, 2),
        (256, 2),
        (3, 2),
        (101, 2),
    ] {
        let read = headers(&client, &format!("/{path}")).await;
        assert_eq!(read.expect("a response"), path);
        assert_eq!(connections.get(), made, "after {path}");
        assert_eq!(in_flight(&client), 0);
    }
}

#[tokio::test]
async fn a_large_head_is_read_for_any_method() {
    let large = response("200 OK", 150, "x: y", "body");
    let head = large.strip_suffix("body").expect("a body");
    let empty = response("204 No Content", 150, "x: y", "").replace("content-length: 0", "x: z");
    for (method, request, answer, body) in [
        (Method::GET, "", large.as_str(), "body"),
        (Method::POST, "request", &large, "body"),
        (Method::PUT, "request", &large, "body"),
        (Method::HEAD, "", head, ""),
        (Method::DELETE, "", &empty, ""),
        (
            Method::from_bytes(b"PURGE").expect("a method"),
            "",
            &large,
            "body",
        ),
    ] {
        let (listener, pod) = listen().await;
        let client = kit::client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            let asked = peer.head().await;
            assert!(asked.starts_with(method.as_str()), "{asked}");
            if !request.is_empty() {
                peer.until(request).await;
            }
            peer.write(answer).await;
            // After the request, only the stream's end may come.
            assert!(!peer.is_open().await);
        };
        let ask = async {
            let response = ask(&client, method.clone(), request).await;
            let response = response.expect("a response");
            assert_eq!(response.headers().len(), 150);
            assert_eq!(text(response).await, body);
        };
        join(within("the connection's end", serve), ask).await;
    }
}

#[tokio::test]
async fn a_large_head_may_come_in_pieces_and_after_other_responses() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let answer = early.to_owned() + &ok(150);
    let (listener, pod) = listen().await;
    let client = kit::client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        for byte in answer.as_bytes() {
            peer.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        peer.closed().await;
    };
    let (read, ()) = join(headers(&client, "/"), serve).await;
    assert_eq!(read.expect("a response"), 150);
}

#[tokio::test]
async fn a_body_that_looks_like_headers_is_a_body() {
    let body = "x: y\r\n".repeat(300) + "\r\nHTTP/1.1 200 OK\r\n\r\n";
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = response("200 OK", 150, "transfer-encoding: chunked", "");
    let chunked = chunked.replace("content-length: 0", "a: b") + &chunks;
    let (listener, pod) = listen().await;
    let client = kit::client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        for headers in [3, 100, 3] {
            peer.answer(&response("200 OK", headers, "x: y", &body))
                .await;
        }
        peer.answer(&chunked).await;
        peer.closed().await;
        let mut peer = accept(&listener).await;
        for headers in [150, 3] {
            peer.answer(&response("200 OK", headers, "x: y", &body))
                .await;
        }
    };
    let ask = async {
        for _ in 0..6 {
            assert_eq!(get(&client, "/").await.expect("a response"), body);
        }
    };
    join(within("six requests", serve), ask).await;
}

#[tokio::test]
async fn a_large_head_is_read_over_tls() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&[NAME], &[H1], false)));
    let (listener, pod) = listen().await;
    let client = tls_kit::client([pod], authority.tls());
    let serve = async {
        for headers in [vec![3, 150], vec![150, 3, 150]] {
            let stream = accept(&listener).await.into_inner();
            let mut peer = Peer::new(acceptor.accept(stream).await.expect("a handshake"));
            for headers in headers {
                peer.answer(&ok(headers)).await;
            }
        }
    };
    let ask = async {
        for count in [3, 150, 150, 3, 150] {
            let read = headers(&client, "/").await;
            assert_eq!(read.expect("a response"), count);
        }
    };
    join(within("five requests", serve), ask).await;
}

/// Far more than the system buffers before the pod reads.
const LARGE: usize = 16 << 20;

#[tokio::test]
async fn a_large_head_is_returned_though_the_pod_reads_no_more_of_the_request() {
    let answer = response("413 Content Too Large", 150, "x: y", "no");
    for stays in [true, false] {
        let (listener, pod) = listen().await;
        let client = builder([pod]).max_connections(1).tcp_user_timeout(None);
        let client = client.build().expect("a client");
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.head().await;
            peer.arrived().await;
            peer.write(&answer).await;
            // Closed with unread data, so it is reset.
            let peer = stays.then_some(peer);
            accept(&listener).await.answer(OK).await;
            peer
        };
        let ask = async {
            let mut request = Request::new(Full::new(Bytes::from(vec![b'a'; LARGE])));
            *request.method_mut() = Method::POST;
            let response = within("an answer", client.clone().oneshot(request)).await;
            let response = response.unwrap_or_else(|error| panic!("{stays}: {error:?}"));
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(text(response).await, "no");
            get(&client, "/").await.expect("its turn");
        };
        join(within("both requests", serve), ask).await;
    }
}

/// TLS holds a part of the request that it can't send.
#[tokio::test]
async fn a_large_head_over_tls_is_returned_though_the_pod_reads_no_more_of_the_request() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&[NAME], &[H1], false)));
    let answer = response("413 Content Too Large", 150, "x: y", "no");
    let (listener, pod) = listen().await;
    let client = tls_kit::builder([pod], authority.tls()).max_connections(1);
    let client = client.tcp_user_timeout(None).build();
    let client = client.expect("a client");
    let connection = async || {
        let stream = accept(&listener).await.into_inner();
        Peer::new(acceptor.accept(stream).await.expect("a handshake"))
    };
    let serve = async {
        let mut peer = connection().await;
        peer.head().await;
        peer.arrived().await;
        peer.write(&answer).await;
        connection().await.answer(OK).await;
        peer
    };
    let ask = async {
        let mut request = Request::new(Full::new(Bytes::from(vec![b'a'; LARGE])));
        *request.method_mut() = Method::POST;
        let response = within("an answer", client.clone().oneshot(request)).await;
        assert_eq!(text(response.expect("an answer")).await, "no");
        get(&client, "/").await.expect("its turn");
    };
    join(within("both requests", serve), ask).await;
}

trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// The first connection of a client to a pod, with or without TLS, and the client.
async fn first(is_tls: bool) -> (impl Future<Output = Peer<Box<dyn Io>>>, Client) {
    let (listener, pod) = listen().await;
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&[NAME], &[H1], false)));
    let client = match is_tls {
        true => tls_kit::client([pod], authority.tls()),
        false => kit::client([pod]),
    };
    let connection = async move {
        let stream = accept(&listener).await.into_inner();
        let stream: Box<dyn Io> = match is_tls {
            true => Box::new(acceptor.accept(stream).await.expect("a handshake")),
            false => Box::new(stream),
        };
        Peer::new(stream)
    };
    (connection, client)
}

/// Posts this request; calls `answered` when the response's head has come.
async fn upload<B>(client: &Client, request: Request<B>, answered: impl FnOnce()) -> String
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    head.method = Method::POST;
    let request = Request::from_parts(head, body);
    let response = within("an answer", client.clone().oneshot(request)).await;
    let response = response.expect("an answer");
    assert_eq!(response.headers().len(), 150);
    answered();
    text(response).await
}

#[tokio::test]
async fn a_pod_that_waits_for_the_rest_of_an_upload_after_a_large_head_sees_its_end() {
    let answer = response("413 Content Too Large", 150, "x: y", "no");
    let head = answer.strip_suffix("no").expect("a body");
    for is_tls in [false, true] {
        let (connection, client) = first(is_tls).await;
        let (chunks, body) = written();
        chunks.send("begun").expect("a reader");
        let serve = async {
            let mut peer = connection.await;
            peer.head().await;
            peer.until("begun\r\n").await;
            peer.write(head).await;
            let rest = peer.rest().await.expect("an end");
            assert!(rest.is_empty(), "{rest:?}");
            peer.write("no").await;
        };
        let ask = upload(&client, Request::new(body), || {});
        let ((), body) = join(serve, ask).await;
        assert_eq!(body, "no");
        assert!(chunks.is_closed(), "nobody reads the rest");
    }
}

/// A truncated request must be a prefix, without a gap.
#[tokio::test]
async fn a_pod_that_reads_on_after_a_large_head_gets_no_more_than_was_on_its_way() {
    let answer = response("413 Content Too Large", 150, "x: y", "no");
    let head = answer.strip_suffix("no").expect("a body");
    let body: Bytes = (0..LARGE / 4)
        .flat_map(|at| u32::try_from(at).expect("not so many").to_ne_bytes())
        .collect();
    for is_tls in [false, true] {
        let (connection, client) = first(is_tls).await;
        let (answered, has_answered) = oneshot::channel();
        let serve = async {
            let mut peer = connection.await;
            peer.head().await;
            peer.arrived().await;
            peer.write(head).await;
            has_answered.await.expect("the head has come");
            let rest = peer.rest().await.expect("an end");
            assert!(rest.len() < LARGE, "all of it");
            assert!(body.starts_with(&rest), "a hole in it");
            peer.write("no").await;
        };
        let request = Request::new(Full::new(body.clone()));
        let ask = upload(&client, request, || answered.send(()).expect("the pod"));
        let ((), body) = join(serve, ask).await;
        assert_eq!(body, "no");
    }
}

/// Pods take the end of the stream as a client that has gone.
#[tokio::test]
async fn a_request_that_was_sent_before_a_large_head_stays_open_until_its_response_has_ended() {
    fn streamed<B>(body: B) -> UnsyncBoxBody<Bytes, BoxError>
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        body.boxed_unsync()
    }
    let answer = response("200 OK", 150, "x: y", "body");
    let head = answer.strip_suffix("body").expect("a body");
    for is_tls in [false, true] {
        let (chunks, declared) = written();
        chunks.send("request").expect("a reader");
        let mut declared = Request::new(streamed(declared));
        let length = HeaderValue::from_static("7");
        declared.headers_mut().insert(CONTENT_LENGTH, length);
        let whole = Full::new(Bytes::from("request")).map_err(|never| match never {});
        for (request, last) in [
            (
                Request::new(streamed(Empty::new().map_err(|never| match never {}))),
                "",
            ),
            (Request::new(streamed(whole)), "request"),
            (
                Request::new(streamed(stream_of(&["req", "uest"]))),
                "uest\r\n0\r\n\r\n",
            ),
            // Only its length says where it ends.
            (declared, "request"),
        ] {
            let (connection, client) = first(is_tls).await;
            let (answered, has_answered) = oneshot::channel();
            let serve = async {
                let mut peer = connection.await;
                peer.head().await;
                peer.until(last).await;
                peer.write(head).await;
                has_answered.await.expect("the head has come");
                assert!(peer.is_quiet().await, "{last:?}, {is_tls}");
                peer.write("body").await;
                peer.closed().await;
            };
            let ask = upload(&client, request, || answered.send(()).expect("the pod"));
            let ((), body) = join(serve, ask).await;
            assert_eq!(body, "body");
        }
    }
}

#[tokio::test]
async fn a_large_head_ends_an_upload_that_goes_on() {
    let (listener, pod) = listen().await;
    let client = kit::client([pod]);
    let (chunks, body) = written();
    chunks.send("begun").expect("a reader");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer.until("begun").await;
        peer.write(ok(150)).await;
        peer.closed().await;
    };
    let ask = async {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let response = within("an answer", client.clone().oneshot(request)).await;
        assert_eq!(text(response.expect("an answer")).await, "ok");
    };
    join(serve, ask).await;
    assert!(chunks.is_closed(), "nobody reads the rest");
}

/// hyper has ended before the request learns of its head, so the request has to close the connection.
#[tokio::test]
async fn a_connection_that_a_pod_ends_closes_though_nobody_reads_its_response() {
    let (listener, pod) = listen().await;
    let client = kit::client([pod]);
    let close = response("200 OK", 3, "connection: close", "ok");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(&close).await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").into_future()).await;
    let response = response.expect("a response");
    peer.closed().await;
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn a_request_cancelled_midway_leaves_no_connection_behind() {
    let large = ok(150);
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_connections(1).build();
    let client = client.expect("a client");
    // In the middle of the head, in the middle of the body, and before the body.
    for sent in [large.len() - 10, large.len() - 1, large.len() - 2] {
        let mut asked = Box::pin(client.get("/").into_future());
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.head().await;
            peer.write(&large[..sent]).await;
            peer
        };
        let is_head = large[..sent].contains("\r\n\r\n");
        let mut peer = if is_head {
            let (peer, response) = join(serve, &mut asked).await;
            drop(response.expect("a response"));
            peer
        } else {
            let peer = tokio::select! {
                peer = serve => peer,
                _ = &mut asked => panic!("half a head is none"),
            };
            assert!(futures::poll!(&mut asked).is_pending());
            drop(asked);
            peer
        };
        peer.closed().await;
        assert_eq!(in_flight(&client), 0);
        let serve = async {
            accept(&listener)
                .await
                .answer("HTTP/1.1 204 No\r\nconnection: close\r\n\r\n")
                .await
        };
        let (_, answered) = join(serve, get(&client, "/")).await;
        answered.expect("a response");
    }
}

#[tokio::test]
async fn first_byte_timeout_also_limits_the_rest_of_a_large_head() {
    let bound = Duration::from_millis(200);
    let (listener, pod) = listen().await;
    let client = builder([pod]).first_byte_timeout(bound).build();
    let client = client.expect("a client");
    let large = ok(150);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer.write(&large[..large.len() - 10]).await;
        peer.closed().await;
    };
    let (error, ()) = join(get(&client, "/"), serve).await;
    let error = error.expect_err("no end of the head");
    assert!(!error.is_limit() && error.endpoint().is_some(), "{error:?}");
    let source = std::error::Error::source(&error).expect("a source");
    assert!(source.to_string().contains("200ms"), "{source}");
}

#[tokio::test]
async fn a_large_head_that_is_cut_off_is_the_pod_s_failure() {
    let (listener, pod) = listen().await;
    let client = kit::client([pod]);
    let large = ok(150);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer.write(&large[..large.len() - 10]).await;
    };
    let ask = ask(&client, Method::POST, "");
    let (error, ()) = join(ask, serve).await;
    let error = error.expect_err("no end of the head");
    assert!(!error.is_limit() && !error.is_unexecuted(), "{error:?}");
}

#[tokio::test]
async fn a_connection_may_switch_protocols_with_a_large_head() {
    let switch = "101 Switching Protocols";
    let last = "connection: upgrade\r\nupgrade: echo";
    let switch = response(switch, 150, last, "").replace("content-length: 0", "a: b") + "early";
    let tunnel = response("200 OK", 150, "x: y", "").replace("content-length: 0", "a: b") + "early";
    for (method, uri, answer) in [
        (Method::GET, "/", switch),
        (Method::CONNECT, "far.example:443", tunnel),
    ] {
        let (listener, pod) = listen().await;
        let client = kit::client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(&answer).await;
            peer.until("ping").await;
            peer.write("pong").await;
            peer
        };
        let ask = async {
            let request = upgrading(&method, uri);
            let response = within("a response", client.clone().oneshot(request)).await;
            let mut stream = upgrade(&mut response.expect("a response"))
                .await
                .expect("a stream");
            stream.write_all(b"ping").await.expect("written");
            let mut answer = [0; 9];
            within("an answer", stream.read_exact(&mut answer))
                .await
                .expect("an answer");
            assert_eq!(&answer, b"earlypong");
            stream
        };
        let (mut peer, stream) = join(serve, ask).await;
        assert_eq!(in_flight(&client), 1);
        drop(stream);
        assert_eq!(in_flight(&client), 0);
        peer.closed().await;
    }
}

/// The connection's runtime is the one that made it, whoever sends the request.
#[test]
fn a_large_head_is_read_in_the_runtime_of_its_connection() {
    let home = Runtime::new().expect("a runtime");
    let away = Builder::new_current_thread().enable_all().build();
    let away = away.expect("a runtime");
    let (listener, pod) = home.block_on(listen());
    let client = home.block_on(async { kit::client([pod]) });
    let large = ok(150);
    let (head, body) = large.split_at(large.len() - 2);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let (mut peer, first) = home.block_on(join(serve, get(&client, "/")));
    first.expect("a response");
    let response = away.block_on(async {
        let serve = async {
            peer.head().await;
            peer.write(head).await;
        };
        let asked = within("a response", client.get("/").into_future());
        join(asked, serve).await.0.expect("a response")
    });
    drop(away);
    let serve = async { peer.write(body).await };
    let (read, ()) = home.block_on(join(text(response), serve));
    assert_eq!(read, "ok");
}

#[tokio::test]
async fn a_check_reads_a_large_head() {
    let (pod, _) = numbered().await;
    let check = HealthCheck::http("/150").expect("a path");
    let check = check.require_initial_pass(true);
    let client = builder([pod]).health_check(check).build();
    let client = client.expect("a client");
    let read = headers(&client, "/2").await;
    assert_eq!(read.expect("the pod has passed"), 2);
}
