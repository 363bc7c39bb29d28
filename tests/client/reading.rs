//! Reading responses: whole or piece by piece, within a limit, and the errors.

use std::{collections::HashMap, error::Error as _, net::SocketAddr};

use bytes::Bytes;
use futures::future::join;
use http::StatusCode;
use serde::Deserialize;
use tokio::net::TcpStream;
use tower_headless::http::{Client, ClientBuilder, Error, Protocol, Response};

use crate::{
    kit::{Peer, builder, client, in_flight, pod, unresolved, wait_until},
    support::{
        pod::{Mode, Pod},
        within,
    },
};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A pod that answers each request with these bytes, and keeps the connection open.
async fn saying(answer: impl AsRef<[u8]>) -> SocketAddr {
    let answer = Bytes::copy_from_slice(answer.as_ref());
    let serve = move |mut peer: Peer<TcpStream>| {
        let answer = answer.clone();
        async move {
            while peer.try_head().await.is_some() {
                peer.write(&answer).await;
            }
        }
    };
    pod(serve).await
}

fn with_length(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn answer(client: &Client) -> Response {
    let response = within("a response", client.get("/users/7?token=s3cret").send()).await;
    response.expect("a response")
}

async fn answer_of(bytes: impl AsRef<[u8]>) -> Response {
    answer(&client([saying(bytes).await])).await
}

#[tokio::test]
async fn a_body_can_be_read_as_bytes_text_or_json() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct User {
        id: u32,
        name: String,
    }
    let json = with_length("{\"id\": 7, \"name\": \"Zo\u{eb}\"}");
    let bytes = within("bytes", answer_of(&json).await.bytes()).await;
    assert!(json.ends_with(&bytes.expect("bytes")));
    let text = within("text", answer_of(&json).await.text()).await;
    assert_eq!(text.expect("text"), "{\"id\": 7, \"name\": \"Zo\u{eb}\"}");
    let user = within("a user", answer_of(&json).await.json::<User>()).await;
    let name = "Zo\u{eb}".to_owned();
    assert_eq!(user.expect("a user"), User { id: 7, name });
    let empty = within("bytes", answer_of(with_length("")).await.bytes()).await;
    assert_eq!(empty.expect("bytes"), "");
}

#[tokio::test]
async fn a_body_in_many_pieces_is_joined() {
    let pieces = format!(
        "{CHUNKED}{}{}{}0\r\n\r\n",
        chunk("ab"),
        chunk("c"),
        chunk("def")
    );
    let text = within("text", answer_of(pieces).await.text()).await;
    assert_eq!(text.expect("text"), "abcdef");
}

#[tokio::test]
async fn text_is_utf_8_with_invalid_bytes_replaced() {
    let text = within(
        "text",
        answer_of(with_length(b"\xef\xbb\xbfa\xffb")).await.text(),
    )
    .await;
    assert_eq!(text.expect("text"), "\u{feff}a\u{fffd}b");
}

#[tokio::test]
async fn a_body_is_read_piece_by_piece_as_it_comes() {
    let (listener, address) = crate::kit::listen().await;
    let client = client([address]);
    let serve = async {
        let mut peer = crate::kit::accept(&listener).await;
        peer.answer(&format!("{CHUNKED}{}", chunk("first"))).await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").send()).await;
    let mut response = response.expect("a response");
    let piece = within("a piece", response.chunk()).await.expect("a piece");
    assert_eq!(piece.as_deref(), Some(&b"first"[..]));
    peer.write(format!("{}0\r\nx-end: 1\r\n\r\n", chunk("last")))
        .await;
    let piece = within("a piece", response.chunk()).await.expect("a piece");
    assert_eq!(piece.as_deref(), Some(&b"last"[..]));
    let end = within("the end", response.chunk()).await.expect("the end");
    assert_eq!(end, None);
}

#[tokio::test]
async fn error_for_status_names_pod_and_path() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let pod = Pod::start("127.0.0.1:0".parse().expect("an address")).await;
        let pod = pod.expect("a pod");
        let client = builder([pod.addr()]).protocol(protocol).retry_statuses([]);
        let client = client.build().expect("a client");
        let good = answer(&client).await.error_for_status();
        assert_eq!(good.expect("no error").status(), StatusCode::OK);
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
            pod.set(Mode::Status(status));
            let response = answer(&client).await;
            let by_reference = response.error_for_status_ref().map(drop);
            let by_value = response.error_for_status().map(drop);
            for error in [by_reference, by_value] {
                let error = error.expect_err("it is none");
                assert!(error.is_status() && !error.is_request(), "{error}");
                assert_eq!(error.status(), Some(status));
                assert_eq!(error.status(), Some(status));
                let address = error.endpoint().expect("a pod").address();
                assert_eq!(address, pod.addr());
                assert!(!error.is_unexecuted(), "it was executed");
                let message = error.to_string();
                for part in [&pod.addr().to_string(), status.as_str(), "GET /users/7"] {
                    assert!(message.contains(part), "no {part} in {message}");
                }
                assert!(!message.contains("s3cret"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn a_plain_response_is_read_the_same_way() {
    let plain = answer_of(with_length("ok")).await.into_inner();
    let response = Response::from(plain);
    assert!(response.endpoint().is_some());
    let text = within("text", response.error_for_status().expect("ok").text()).await;
    assert_eq!(text.expect("text"), "ok");
    let plain = answer_of("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await;
    let error = Response::from(plain.into_inner()).error_for_status();
    assert_eq!(error.expect_err("gone").status(), Some(StatusCode::GONE));
}

/// Asserts that the error is the client's limit, and that the pod isn't blamed.
#[track_caller]
fn assert_is_limit(error: &Error, pod: SocketAddr, limit: usize, client: &Client) {
    assert!(error.is_limit() && !error.is_timeout(), "{error}");
    assert_eq!(error.endpoint().expect("a pod").address(), pod);
    let source = error.source().expect("which limit").to_string();
    assert!(source.contains(&format!("{limit} bytes")), "{source}");
    assert!(source.contains("response_limit"), "{source}");
    for pod in client.endpoints() {
        let state = format!("{:?}", pod.state);
        assert!(!state.contains("Ejected"), "{state}");
    }
}

/// Five consecutive failures would eject a pod.
#[tokio::test]
async fn a_body_above_the_limit_is_the_client_s_error() {
    let declared = with_length("12345");
    let pieces = format!("{CHUNKED}{}{}0\r\n\r\n", chunk("123"), chunk("45"));
    let one = format!("{CHUNKED}{}0\r\n\r\n", chunk("12345"));
    for bytes in [declared, pieces.into_bytes(), one.into_bytes()] {
        let pod = saying(&bytes).await;
        let other = saying(&bytes).await;
        let client = builder([pod, other]).response_limit(4);
        let client = client.build().expect("a client");
        for _ in 0..7 {
            let request = || client.pod(pod).get("/");
            let read = async { request().await?.bytes().await.map(drop) };
            let error = within("an error", read).await.expect_err("too large");
            assert_is_limit(&error, pod, 4, &client);
            let read = async { request().await?.text().await.map(drop) };
            let error = within("an error", read).await.expect_err("too large");
            assert_is_limit(&error, pod, 4, &client);
            let read = async { request().await?.json::<u32>().await.map(drop) };
            let error = within("an error", read).await.expect_err("too large");
            assert_is_limit(&error, pod, 4, &client);
        }
        let just = async { client.get("/").response_limit(5).await?.text().await };
        assert_eq!(
            within("text", just).await.expect("a request's own"),
            "12345"
        );
        let less = client.get("/").response_limit(1).await.expect("a response");
        let error = within("an error", less.bytes()).await;
        assert!(error.expect_err("a request's own").is_limit());
        let mut unbounded = answer(&client).await;
        while let Some(piece) = within("a piece", unbounded.chunk())
            .await
            .expect("no limit")
        {
            assert!(!piece.is_empty());
        }
    }
}

#[tokio::test]
async fn by_default_64_mib_are_read() {
    const LIMIT: usize = 64 << 20;
    let head = |length| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let pod = saying(head(LIMIT + 1)).await;
    let client = client([pod]);
    let error = within("an error", answer(&client).await.bytes()).await;
    assert_is_limit(&error.expect_err("too large"), pod, LIMIT, &client);
    let whole = [head(LIMIT).into_bytes(), vec![b'a'; LIMIT]].concat();
    let bytes = within("all of it", answer_of(whole).await.bytes()).await;
    assert_eq!(bytes.expect("within the limit").len(), LIMIT);
}

#[tokio::test]
async fn a_limit_of_zero_allows_an_empty_body() {
    let none: fn(ClientBuilder) -> ClientBuilder = |builder| builder.response_limit(0);
    drop(none(unresolved("http")).build().expect("a client"));
    let pod = saying(with_length("")).await;
    let client = builder([pod]).response_limit(0).build().expect("a client");
    let bytes = within("bytes", answer(&client).await.bytes()).await;
    assert_eq!(bytes.expect("an empty body"), "");
}

#[tokio::test]
async fn a_body_that_breaks_off_names_its_pod() {
    let serve = |mut peer: Peer<TcpStream>| async move {
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await;
    };
    let address = pod(serve).await;
    let client = client([address]);
    let bytes = async { answer(&client).await.bytes().await.map(drop) };
    let text = async { answer(&client).await.text().await.map(drop) };
    let json = async { answer(&client).await.json::<u32>().await.map(drop) };
    let (bytes, text, json) = futures::join!(bytes, text, json);
    for error in [bytes, text, json] {
        let error = error.expect_err("it breaks off");
        assert_eq!(error.endpoint().expect("a pod").address(), address);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let kinds = (error.is_limit(), error.is_decode(), error.is_unexecuted());
        assert_eq!(kinds, (false, false, false), "{error}");
    }
}

#[tokio::test]
async fn dropping_a_body_s_reader_cancels_it() {
    let (listener, address) = crate::kit::listen().await;
    let client = client([address]);
    let serve = async {
        let mut peer = crate::kit::accept(&listener).await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").send()).await;
    let mut reading = Box::pin(response.expect("a response").bytes());
    assert!(futures::poll!(&mut reading).is_pending());
    assert_eq!(in_flight(&client), 1);
    drop(reading);
    peer.closed().await;
    wait_until("the request's end", || in_flight(&client) == 0).await;
}

#[tokio::test]
async fn json_of_another_type_is_an_error_that_quotes_nothing_of_the_body() {
    let body = "{\"id\": 7,\n\"token\": \"s3cret\"}";
    let pod = saying(with_length(body)).await;
    let client = client([pod]);
    let read = async { answer(&client).await.json::<HashMap<String, u32>>().await };
    let error = within("an error", read).await.expect_err("no number");
    assert!(error.is_decode() && !error.is_request(), "{error}");
    assert_eq!(error.endpoint().expect("a pod").address(), pod);
    let whole = format!("{error} {error:?} {:?}", error.source());
    for part in ["HashMap<", "u32", "line 2, column 17", &pod.to_string()] {
        assert!(whole.contains(part), "no {part} in {whole}");
    }
    assert!(!whole.contains("s3cret"), "{whole}");
    let page = answer_of(with_length("<html>s3cret")).await.json::<u32>();
    let error = within("an error", page).await.expect_err("a page");
    assert!(error.is_decode(), "{error}");
}
