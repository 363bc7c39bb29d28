//! How much a client reads and buffers of what pods send, and what happens beyond that.

use std::{convert::Infallible, future::IntoFuture, net::SocketAddr};

use bytes::Bytes;
use futures::future::{join, join_all};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tower_headless::{
    BoxError, EndpointState, StaticEndpoints,
    http::{Client, ClientBuilder, Error, Protocol},
};

use crate::{
    frames::{Frames, HEADERS, PING},
    kit::{self, Count, Peer, accept, in_flight, listen, pod, text, written},
    support::within,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CONTINUATION: u8 = 9;
const STATUS_200: u8 = 0x88;

fn http2(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    kit::builder(pods).protocol(Protocol::Http2)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of headers, in as many frames as needed.
fn block(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut chunks = block.chunks(16 * KIB).peekable();
    let (mut frames, mut kind, mut flags) = (Vec::new(), HEADERS, flags);
    while let Some(chunk) = chunks.next() {
        let end = if chunks.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        frames.extend(frame(kind, flags | end, stream, chunk));
        (kind, flags) = (CONTINUATION, 0);
    }
    frames
}

/// A header that HPACK neither compresses nor indexes (RFC 7541 §6.2.2).
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    fn text(bytes: &[u8], to: &mut Vec<u8>) {
        let mut length = bytes.len();
        if length < 127 {
            to.push(u8::try_from(length).expect("short"));
        } else {
            to.push(127);
            length -= 127;
            while length >= 128 {
                to.push(u8::try_from(length % 128).expect("seven bits") | 128);
                length /= 128;
            }
            to.push(u8::try_from(length).expect("seven bits"));
        }
        to.extend(bytes);
    }
    let mut header = vec![0];
    text(name.as_bytes(), &mut header);
    text(value, &mut header);
    header
}

/// About `bytes` bytes of headers, 4 KiB each.
fn headers(bytes: usize) -> Vec<u8> {
    let each = |at| literal(&format!("x-{at}"), &vec![b'x'; bytes.min(4 * KIB)]);
    (0..bytes.div_ceil(4 * KIB)).flat_map(each).collect()
}

async fn greet(listener: &TcpListener) -> Frames<TcpStream> {
    Frames::greet(accept(listener).await, Some(100)).await
}

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A pod that answers each path with `answer`, and how many connections it has had.
async fn serving(
    answer: impl Fn(&str) -> Response<Body> + Clone + Send + 'static,
) -> (SocketAddr, Count) {
    let connections = Count::default();
    let seen = connections.clone();
    let serve = move |peer: Peer<TcpStream>| {
        let (answer, seen) = (answer.clone(), seen.clone());
        async move {
            seen.add();
            let service = service_fn(move |request: Request<_>| {
                let _: &Request<hyper::body::Incoming> = &request;
                let response = answer(request.uri().path());
                async { Ok::<_, Infallible>(response) }
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_header_list_size(64 << 20);
            // Ends with the connection, whatever the result.
            let _ = server
                .serve_connection(TokioIo::new(peer.into_inner()), service)
                .await;
        }
    };
    (pod(serve).await, connections)
}

fn full(bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

async fn get(client: &Client, path: &str) -> Result<String, Error> {
    kit::get(client, path).await
}

fn is_available(client: &Client) -> bool {
    let pods = client.endpoints();
    pods.iter().all(|pod| pod.state == EndpointState::Available)
}

/// Asserts that the client's own limit ended a response, and that the error names it.
fn assert_limit(error: &Error, limit: &str, setting: &str) {
    assert!(error.is_limit() && !error.is_unexecuted(), "{error:?}");
    assert!(
        error.endpoint().is_some() && !error.is_request_body(),
        "{error:?}"
    );
    let source = std::error::Error::source(error)
        .expect("a source")
        .to_string();
    assert!(
        source.contains(limit) && source.contains(setting),
        "{source}"
    );
}

const SETTING: &str = "max_response_header_size";

#[tokio::test]
async fn unread_responses_do_not_block_others() {
    let answer = |path: &str| match path {
        "/large" => full(vec![0; 4 * MIB]),
        _ => full("small"),
    };
    let (pod, connections) = serving(answer).await;
    let client = http2([pod]).build().expect("a client");
    let large = join_all((0..8).map(|_| client.get("/large").into_future()));
    let unread = within("the heads", large).await;
    for _ in 0..20 {
        assert_eq!(get(&client, "/small").await.expect("a response"), "small");
    }
    assert_eq!(connections.get(), 1);
    let last = unread
        .into_iter()
        .last()
        .expect("eight")
        .expect("a response");
    assert_eq!(text(last).await.len(), 4 * MIB);
}

#[tokio::test]
async fn late_answers_to_cancelled_requests_do_not_end_the_connection() {
    const GIVEN_UP: usize = 1_100;
    let (listener, pod) = listen().await;
    // Only few streams are remembered: h2 counts each late answer to another as an error.
    let client = http2([pod]).http2_max_concurrent_reset_streams(10);
    let client = client.build().expect("a client");
    let (body, frames) = written();
    let _body = body;
    let request = Request::post("/long").body(frames).expect("a request");
    let mut long = Box::pin(within("the answer", client.clone().oneshot(request)));
    let serve = async {
        let mut frames = greet(&listener).await;
        let long = frames.stream().await;
        (frames, long)
    };
    let (mut frames, first) = tokio::select! {
        frames = serve => frames,
        _ = &mut long => panic!("not answered yet"),
    };
    let mut late = Vec::new();
    for _ in 0..GIVEN_UP {
        let request = client.get("/given-up").into_future();
        tokio::select! {
            stream = frames.stream() => late.push(stream),
            _ = request => panic!("not answered yet"),
        }
    }
    for stream in late {
        frames.ok(stream).await;
    }
    frames.ok(first).await;
    long.await
        .expect("the answer of the request that nobody gave up");
}

#[tokio::test]
async fn large_heads_are_read() {
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let sizes = [17 * KIB, 100 * KIB, 500 * KIB, 1_000 * KIB];
    let serve = async {
        let mut frames = greet(&listener).await;
        for size in sizes {
            let stream = frames.stream().await;
            let head = [vec![STATUS_200], headers(size)].concat();
            frames.0.write(block(END_STREAM, stream, &head)).await;
        }
        frames
    };
    let ask = async {
        for size in sizes {
            let response = within("a response", client.get("/").into_future()).await;
            let response = response.unwrap_or_else(|error| panic!("{size}: {error:?}"));
            let bytes: usize = response.headers().values().map(HeaderValue::len).sum();
            assert!(bytes >= size, "{bytes} of {size}");
        }
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_head_of_thousands_of_headers_is_read() {
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener).await;
        let stream = frames.stream().await;
        let headers = (0..8_000).flat_map(|at| literal(&format!("x-{at}"), b"1"));
        let head: Vec<u8> = [STATUS_200].into_iter().chain(headers).collect();
        frames.0.write(block(END_STREAM, stream, &head)).await;
        frames
    };
    let (_frames, response) = join(serve, client.get("/").into_future()).await;
    assert_eq!(response.expect("a response").headers().len(), 8_000);
}

/// From slightly above the limit to where h2 itself would cut trailers, or close the connection.
const BEYOND: [usize; 3] = [1_100 * KIB, 2 * MIB, 7 * MIB];

#[tokio::test]
async fn a_head_beyond_the_limit_fails_only_its_own_request() {
    // More failures than would eject a pod.
    let sizes = || BEYOND.into_iter().chain([BEYOND[0]; 3]);
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener).await;
        let other = frames.stream().await;
        for size in sizes() {
            let stream = frames.stream().await;
            let head = [vec![STATUS_200], headers(size)].concat();
            frames.0.write(block(END_STREAM, stream, &head)).await;
        }
        frames.ok(other).await;
        frames
    };
    let ask = async {
        let other = client.get("/other").into_future();
        let ask = async {
            for _ in sizes() {
                let asked = within("an error", client.get("/").into_future()).await;
                assert_limit(&asked.expect_err("too large"), "1048576 bytes", SETTING);
            }
        };
        let (other, ()) = join(within("the other answer", other), ask).await;
        other.expect("the answer on the same connection");
        assert_eq!(in_flight(&client), 0);
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn trailers_are_complete_or_an_error() {
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let sizes = [100, 17 * KIB, 20 * KIB, 100 * KIB, 1_000 * KIB];
    let serve = async {
        let mut frames = greet(&listener).await;
        for size in sizes.into_iter().chain(BEYOND) {
            let stream = frames.stream().await;
            frames.0.write(block(0, stream, &[STATUS_200])).await;
            let trailers = [headers(size), literal("grpc-status", b"14")].concat();
            frames.0.write(block(END_STREAM, stream, &trailers)).await;
        }
        frames
    };
    let ask = async {
        for size in sizes {
            let response = within("a response", client.get("/").into_future()).await;
            let body = response.expect("a response").into_body().collect();
            let body = within("the body", body).await.expect("trailers");
            let trailers = body.trailers().expect("trailers");
            assert_eq!(trailers["grpc-status"], "14", "of {size}");
        }
        for _ in BEYOND {
            let response = within("a response", client.get("/").into_future()).await;
            let body = response.expect("a response").into_body().collect();
            let error = within("an error", body).await.expect_err("not cut");
            assert_limit(&error, "1048576 bytes", SETTING);
        }
    };
    join(serve, ask).await;
}

/// One header that h2 would drop silently, if the connection's limit on the wire didn't stop it.
#[tokio::test]
async fn trailers_that_h2_could_cut_silently_close_the_connection() {
    let (listener, pod) = listen().await;
    let client = http2([pod]).max_response_header_size(64 * KIB);
    let client = client.build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener).await;
        let stream = frames.stream().await;
        frames.0.write(block(0, stream, &[STATUS_200])).await;
        let trailers = literal("x", &vec![b'x'; 17 * 64 * KIB]);
        frames.0.write(block(END_STREAM, stream, &trailers)).await;
        frames
    };
    let ask = async {
        let response = within("a response", client.get("/").into_future()).await;
        let body = response.expect("a response").into_body().collect();
        let error = within("an error", body).await.expect_err("not cut");
        assert_limit(&error, "524288 bytes", SETTING);
    };
    join(serve, ask).await;
}

/// The settings that a pod is told in the client's first SETTINGS (RFC 9113 §6.5.2).
async fn announced(client: &Client, listener: &TcpListener) -> Vec<(u16, u32)> {
    const PREFACE: usize = 24;
    let serve = async {
        let mut peer = accept(listener).await;
        peer.bytes::<PREFACE>().await;
        let head = peer.bytes::<9>().await;
        let mut settings = Vec::new();
        for _ in 0..u32::from_be_bytes([0, head[0], head[1], head[2]]) / 6 {
            let [a, b, c, d, e, f] = peer.bytes::<6>().await;
            settings.push((u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])));
        }
        settings
    };
    tokio::select! {
        settings = serve => settings,
        _ = client.get("/").into_future() => panic!("no answer"),
    }
}

#[tokio::test]
async fn pods_are_told_the_client_s_limits() {
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_FRAME_SIZE: u16 = 5;
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let settings = announced(&client, &listener).await;
    assert!(
        settings.contains(&(MAX_HEADER_LIST_SIZE, 1 << 20)),
        "{settings:?}"
    );
    assert!(
        settings.contains(&(INITIAL_WINDOW_SIZE, 2 << 20)),
        "{settings:?}"
    );
    let client = http2([pod])
        .max_response_header_size(10_000)
        .http2_initial_stream_window_size(100_000)
        .http2_max_frame_size(20_000);
    let client = client.build().expect("a client");
    let settings = announced(&client, &listener).await;
    assert!(
        settings.contains(&(MAX_HEADER_LIST_SIZE, 10_000)),
        "{settings:?}"
    );
    assert!(
        settings.contains(&(INITIAL_WINDOW_SIZE, 100_000)),
        "{settings:?}"
    );
    assert!(settings.contains(&(MAX_FRAME_SIZE, 20_000)), "{settings:?}");
}

#[tokio::test]
async fn empty_frames_and_pings_do_not_end_a_connection() {
    const DATA: u8 = 0;
    let (listener, pod) = listen().await;
    let client = http2([pod]).build().expect("a client");
    let serve = async {
        let mut frames = greet(&listener).await;
        let stream = frames.stream().await;
        // 103, with a header.
        let early = [literal(":status", b"103"), literal("link", b"</style.css>")].concat();
        frames.0.write(block(0, stream, &early)).await;
        frames.0.write(block(0, stream, &[STATUS_200])).await;
        let noise = [frame(DATA, 0, stream, b""), frame(PING, 0, 0, &[7; 8])].concat();
        let mut pongs = 0;
        for _ in 0..10 {
            frames.0.write(noise.repeat(100)).await;
            while pongs % 100 < 99 {
                pongs += u32::from(frames.frame().await.kind == PING);
            }
            while frames.frame().await.kind != PING {}
            pongs = 0;
        }
        frames.0.write(frame(DATA, END_STREAM, stream, b"ok")).await;
        frames
    };
    let (_frames, answer) = join(serve, get(&client, "/")).await;
    assert_eq!(answer.expect("an answer"), "ok");
}

/// A pod that sends these HTTP/1.1 responses, one for each request of a connection.
async fn answering(responses: Vec<Vec<u8>>) -> SocketAddr {
    let answer = move |mut peer: Peer<TcpStream>| {
        let responses = responses.clone();
        async move {
            while let Some(head) = peer.try_head().await {
                let path = head.split(' ').nth(1).expect("a path");
                let at: usize = path[1..].parse().expect("a number");
                peer.write(&responses[at]).await;
            }
        }
    };
    pod(answer).await
}

fn http1_head(headers: usize, each: usize) -> Vec<u8> {
    let value = "x".repeat(each);
    let header = |at| format!("x-{at}: {value}\r\n");
    let headers: String = (1..headers).map(header).collect();
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok").into_bytes()
}

fn http1_trailers(headers: usize, each: usize) -> Vec<u8> {
    let value = "x".repeat(each);
    let header = |at| format!("x-{at}: {value}\r\n");
    let headers: String = (0..headers).map(header).collect();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n";
    format!("{head}2\r\nok\r\n0\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn many_and_large_http1_headers_are_read() {
    let shapes = [(101, 10), (150, 10), (256, 10), (17, KIB), (100, 10 * KIB)];
    let responses = shapes.map(|(headers, each)| http1_head(headers, each));
    let client = kit::client([answering(responses.to_vec()).await]);
    for (at, (headers, _)) in shapes.into_iter().enumerate() {
        let response = client.get(format!("/{at}")).into_future();
        let response = within("a response", response).await.expect("a response");
        assert_eq!(response.headers().len(), headers);
        assert_eq!(text(response).await, "ok");
    }
}

#[tokio::test]
async fn http1_heads_beyond_the_limit_are_the_client_s_error() {
    let shapes = [(257, 10), (120, 10 * KIB)];
    let responses = shapes.map(|(headers, each)| http1_head(headers, each));
    let pods = [responses.to_vec(), responses.to_vec()].map(answering);
    let client = kit::client(join_all(pods).await);
    for at in (0..shapes.len()).cycle().take(20) {
        let asked = get(&client, &format!("/{at}")).await;
        let error = asked.expect_err("too large");
        assert_limit(&error, "1048576 bytes", SETTING);
        assert_limit(&error, "256 headers", "http1_max_headers");
    }
    assert!(is_available(&client), "the limit is the client's");
}

#[tokio::test]
async fn http1_trailers_are_complete_or_an_error() {
    let shapes = [(1, 20 * KIB), (100, 10), (101, 10), (100, 11 * KIB)];
    let responses = shapes.map(|(headers, each)| http1_trailers(headers, each));
    let client = kit::client([answering(responses.to_vec()).await]);
    for (at, (headers, _)) in shapes.into_iter().enumerate() {
        let response = client.get(format!("/{at}")).into_future();
        let response = within("a response", response).await.expect("a response");
        let body = within("the body", response.into_body().collect()).await;
        if at < 2 {
            let body = body.expect("a body");
            assert_eq!(body.trailers().map(HeaderMap::len), Some(headers));
        } else {
            assert_limit(&body.expect_err("too large"), "1048576 bytes", SETTING);
        }
    }
}

/// The bad pod is one of two, because the last pod would never be ejected.
#[tokio::test]
async fn pods_are_not_blamed_for_responses_beyond_the_client_s_limits() {
    let answer = |path: &str| {
        let value = HeaderValue::from_bytes(&vec![b'x'; 20 * KIB]).expect("a value");
        let large = HeaderMap::from_iter([(HeaderName::from_static("x-large"), value)]);
        if path == "/head" {
            let mut response = full("ok");
            *response.headers_mut() = large;
            return response;
        }
        let frames = [Ok(Frame::data("ok".into())), Ok(Frame::trailers(large))];
        Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
    };
    let pods = [serving(answer).await.0, serving(answer).await.0];
    let client = http2(pods).max_response_header_size(16 * KIB);
    let client = client.build().expect("a client");
    for _ in 0..20 {
        let error = get(&client, "/head").await.expect_err("too large");
        assert_limit(&error, "16384 bytes", SETTING);
        assert!(is_available(&client), "the limit is the client's");
    }
    for _ in 0..20 {
        let response = within("a head", client.get("/trailers").into_future()).await;
        let body = response.expect("a head").into_body().collect();
        let error = within("an error", body).await.expect_err("too large");
        assert_limit(&error, "16384 bytes", SETTING);
        assert!(is_available(&client), "the limit is the client's");
    }
}

#[tokio::test]
async fn limits_can_be_set_on_the_client() {
    let large = |_: &str| {
        let mut response = full("ok");
        let value = HeaderValue::from_bytes(&vec![b'x'; 20 * KIB]).expect("a value");
        response.headers_mut().insert("x-large", value);
        response
    };
    let (pod, _) = serving(large).await;
    let client = http2([pod]).max_response_header_size(16 * KIB);
    let asked = get(&client.build().expect("a client"), "/").await;
    assert_limit(&asked.expect_err("too large"), "16384 bytes", SETTING);
    let pod = answering(vec![http1_head(21, 10)]).await;
    let client = kit::builder([pod]).http1_max_headers(20);
    let asked = get(&client.build().expect("a client"), "/0").await;
    assert_limit(
        &asked.expect_err("too many"),
        "20 headers",
        "http1_max_headers",
    );
}
