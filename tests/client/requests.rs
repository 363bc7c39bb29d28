//! What pods get of requests, and callers of responses.

use std::{future::IntoFuture, time::Duration};

use bytes::Bytes;
use futures::{future::join, stream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header::HOST, uri::PathAndQuery};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::ext::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};
use tower::{Service, ServiceExt};
use tower_headless::{
    BoxError, BuiltInPolicy, StaticEndpoints,
    http::{Client, Error, upgrade},
};

use crate::{
    kit::{
        Never, OK, SERVICE, SWITCH, accept, answering, builder, client, get, in_flight, listen,
        refusing, stream_of, text, unresolved, written,
    },
    support::{PATIENCE, within},
};

fn lines(head: &str) -> Vec<String> {
    head.to_lowercase().lines().map(str::to_owned).collect()
}

fn request<B>(method: Method, uri: &str, body: B) -> Request<B> {
    let request = Request::builder().method(method).uri(uri);
    request.body(body).expect("a request")
}

fn has(head: &str, line: &str) -> bool {
    lines(head).iter().any(|it| it == line)
}

/// The head of this request as a pod gets it.
async fn head_of(request: impl AsyncFnOnce(Client) -> Result<(), Error>) -> String {
    let (listener, pod) = listen().await;
    let serve = async { accept(&listener).await.answer(OK).await };
    let (head, result) = join(serve, request(client([pod]))).await;
    result.expect("a response");
    head
}

#[tokio::test]
async fn the_service_is_the_host_whatever_pod_is_dialled() {
    let head = head_of(async |client| get(&client, "/a?b=c").await.map(drop)).await;
    assert_eq!(lines(&head)[0], "get /a?b=c http/1.1");
    assert!(has(&head, &format!("host: {SERVICE}")), "{head}");
}

#[tokio::test]
async fn the_caller_s_host_is_kept() {
    let head = head_of(async |client| {
        client.get("/").header("host", "other").await?;
        Ok(())
    });
    let head = head.await;
    assert!(has(&head, "host: other"), "{head}");
    assert!(!head.contains(SERVICE), "{head}");
}

#[tokio::test]
async fn an_absolute_uri_names_the_host_and_is_sent_as_a_path() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).allow_foreign_authority(true);
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        [peer.answer(OK).await, peer.answer(OK).await]
    };
    let ask = async {
        for uri in ["http://other:81/a?b", "http://other:80/a?b"] {
            get(&client, uri).await.expect("a response");
        }
    };
    let ([odd, default], ()) = join(serve, ask).await;
    assert_eq!(lines(&odd)[0], "get /a?b http/1.1");
    assert!(has(&odd, "host: other:81"), "{odd}");
    assert!(has(&default, "host: other"), "{default}");
}

#[tokio::test]
async fn a_uri_of_another_service_is_refused() {
    let name = SERVICE.strip_suffix(":8080").expect("a port");
    for uri in [
        "https://other.host/x".to_owned(),
        "http://other:81/a?b".to_owned(),
        format!("https://{SERVICE}/"),
        format!("http://{name}/"),
        format!("http://{name}:80/"),
        format!("http://not.{SERVICE}/"),
        "http://web.default:8080/".to_owned(),
    ] {
        let client = client([refusing().await]);
        let error = get(&client, &uri).await.expect_err("it is another's");
        assert!(error.is_foreign() && error.is_request(), "{uri}: {error}");
        assert!(
            error.is_unexecuted() && error.endpoint().is_none(),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.contains(SERVICE),
            "it says whose it isn't: {message}"
        );
    }
    let client = client([refusing().await]);
    let unlike = client.get("http://other/").header("host", SERVICE);
    let error = unlike.await.expect_err("its host changes nothing");
    assert!(error.is_foreign(), "{error}");
    let mut alone = Request::new(Empty::<Bytes>::new());
    *alone.uri_mut() = SERVICE.parse().expect("a URI");
    let error = client.oneshot(alone).await.expect_err("no path");
    assert!(error.is_request() && !error.is_foreign(), "{error}");
}

#[tokio::test]
async fn the_service_may_be_spelled_in_several_ways() {
    let upper = SERVICE.to_uppercase();
    let dotted = SERVICE.replace(":8080", ".:8080");
    for uri in [SERVICE, &upper, &dotted].map(|it| format!("http://{it}/a?b")) {
        let head = head_of(async |client| get(&client, &uri).await.map(drop)).await;
        assert_eq!(lines(&head)[0], "get /a?b http/1.1");
        assert!(has(&head, &format!("host: {SERVICE}")), "{head}");
    }
}

/// RFC 9110 §4.2.3: a scheme's default port is no part of its host.
#[tokio::test]
async fn a_default_port_is_not_in_the_host() {
    for (service, host) in [
        ("http://web.default:80", "web.default"),
        ("http://web.default:8080", "web.default:8080"),
        ("http://web.default:443", "web.default:443"),
        ("http://[fd00::1]:80", "[fd00::1]"),
        ("http://[fd00::1]:81", "[fd00::1]:81"),
    ] {
        let (listener, pod) = listen().await;
        let client = Client::builder(service.parse().expect("a URI"));
        let client = client.discovery(StaticEndpoints::new([pod]));
        let client = client.build().expect("a client");
        let serve = async {
            let mut peer = accept(&listener).await;
            [peer.answer(OK).await, peer.answer(OK).await]
        };
        let ask = async {
            get(&client, "/").await.expect("a response");
            let uri = format!("{service}/a");
            get(&client, &uri).await.expect("a response");
        };
        for head in join(serve, ask).await.0 {
            assert!(has(&head, &format!("host: {host}")), "{service}: {head}");
        }
    }
}

#[tokio::test]
async fn several_hosts_are_an_invalid_request() {
    let client = client([refusing().await]);
    for second in ["other", "another"] {
        let request = client.get("/").header("host", "other");
        is_invalid(request.header("host", second).into_future()).await;
    }
    for host in ["", "a b", "a/b", "me@web", "web:port", "web:99999"] {
        is_invalid(client.get("/").header("host", host).into_future()).await;
    }
}

#[tokio::test]
async fn only_options_may_have_an_asterisk() {
    let client = client([refusing().await]);
    for (method, target) in [("GET", "*"), ("POST", "*")] {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = PathAndQuery::from_static(target).into();
        is_invalid(client.clone().oneshot(request)).await;
    }
}

#[tokio::test]
async fn an_absolute_uri_without_a_path_asks_for_the_root() {
    let uri = format!("http://{SERVICE}");
    let head = head_of(async |client| get(&client, &uri).await.map(drop)).await;
    assert_eq!(lines(&head)[0], "get / http/1.1");
}

#[tokio::test]
async fn options_of_the_whole_server_have_an_asterisk() {
    let head = head_of(async |client| {
        let request = request(Method::OPTIONS, "*", Empty::<Bytes>::new());
        client.oneshot(request).await.map(drop)
    });
    assert_eq!(lines(&head.await)[0], "options * http/1.1");
}

#[tokio::test]
async fn an_empty_post_declares_its_empty_body() {
    let head = head_of(async |client| client.post("/").await.map(drop)).await;
    assert!(has(&head, "content-length: 0"), "{head}");
}

/// Asserts that a response which has no body according to HTTP ends at its head, and that its connection is used again.
async fn ends_at_the_head(method: Method, response: &str) {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(response).await;
        peer.answer(OK).await;
    };
    let ask = async {
        let response = client.request(method, "/").await.expect("a response");
        assert_eq!(in_flight(&client), 0, "though the response is still held");
        get(&client, "/").await.expect("a response");
        drop(response);
    };
    join(serve, within("both", ask)).await;
}

#[tokio::test]
async fn the_answer_to_a_head_ends_at_its_head() {
    ends_at_the_head(
        Method::HEAD,
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_204_ends_at_its_head() {
    ends_at_the_head(Method::GET, "HTTP/1.1 204 No Content\r\n\r\n").await;
}

#[tokio::test]
async fn a_304_ends_at_its_head() {
    let not_modified = "HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n";
    ends_at_the_head(Method::GET, not_modified).await;
}

#[tokio::test]
async fn a_body_of_known_length_is_sent_whole() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.answer(OK).await;
        assert!(has(&head, "content-length: 5"), "{head}");
        assert_eq!(peer.until("o").await, "hello");
    };
    let ask = async { client.post("/").body("hello").await.expect("a response") };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_in_chunks() {
    let (listener, pod) = listen().await;
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.head().await;
        assert!(has(&head, "transfer-encoding: chunked"), "{head}");
        let body = peer.until("0\r\n\r\n").await;
        assert_eq!(body, "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
        peer.write(OK).await;
    };
    let request = request(Method::POST, "/", stream_of(&["ab", "cde"]));
    let (_, response) = join(serve, client([pod]).oneshot(request)).await;
    response.expect("a response");
}

#[tokio::test]
async fn a_response_in_chunks_comes_whole_with_its_trailers() {
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n\
                          3\r\nabc\r\n2\r\nde\r\n0\r\nsum: 5\r\n\r\n";
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(CHUNKS).await;
        peer.answer(OK).await;
    };
    let ask = async {
        let response = client.get("/").await.expect("a response");
        let body = within("the body", response.into_body().collect()).await;
        let body = body.expect("a body");
        let trailers = body.trailers().expect("trailers");
        assert_eq!(trailers["sum"], "5");
        assert_eq!(body.to_bytes(), "abcde");
        get(&client, "/").await.expect("the connection again");
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn trailers_of_a_request_come_after_its_last_chunk() {
    let (listener, pod) = listen().await;
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        let body = peer.until("\r\n\r\n").await;
        assert_eq!(body, "2\r\nab\r\n0\r\nsum: 2\r\n\r\n");
        peer.write(OK).await;
    };
    let trailers = HeaderMap::from_iter([("sum".parse().expect("a name"), HeaderValue::from(2))]);
    let frames = [Frame::data(Bytes::from("ab")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>)));
    let mut request = request(Method::POST, "/", body);
    let announced = HeaderValue::from_static("sum");
    request.headers_mut().insert("trailer", announced);
    let (_, response) = join(serve, client([pod]).oneshot(request)).await;
    response.expect("a response");
}

#[tokio::test]
async fn a_100_continue_is_followed_by_the_answer() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.until("hello").await;
        peer.write(OK).await;
    };
    let request = client.post("/").header("expect", "100-continue");
    let (_, response) = join(serve, request.body("hello").into_future()).await;
    assert_eq!(text(response.expect("a response")).await, "ok");
}

#[tokio::test]
async fn a_refused_expectation_is_a_response() {
    const REFUSAL: &str =
        "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (_body, unread) = written();
    let mut request = request(Method::POST, "/", unread);
    let expect = HeaderValue::from_static("100-continue");
    request.headers_mut().insert("expect", expect);
    let serve = async { accept(&listener).await.answer(REFUSAL).await };
    let (_, response) = join(serve, within("a response", client.clone().oneshot(request))).await;
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::EXPECTATION_FAILED);
    assert_eq!(in_flight(&client), 0);
}

#[tokio::test]
async fn a_pod_may_answer_before_it_has_the_whole_request() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (body, unread) = written();
    let request = request(Method::POST, "/", unread);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        peer
    };
    let ask = within("a response", client.clone().oneshot(request));
    let (mut peer, response) = join(serve, ask).await;
    assert_eq!(text(response.expect("a response")).await, "ok");
    // The first connection is busy with the rest of the request.
    let other = async { accept(&listener).await.answer(OK).await };
    let (_, response) = join(other, get(&client, "/other")).await;
    response.expect("a response");
    body.send("rest").expect("the body is still wanted");
    drop(body);
    assert_eq!(peer.until("0\r\n\r\n").await, "4\r\nrest\r\n0\r\n\r\n");
}

#[tokio::test]
async fn an_upgraded_connection_belongs_to_the_caller() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.answer(SWITCH).await;
        assert!(has(&head, "upgrade: echo"), "{head}");
        peer.until("ping").await;
        peer.write("pong").await;
        peer
    };
    let ask = async {
        let request = client.get("/").header("connection", "upgrade");
        let request = request.header("upgrade", "echo");
        let mut response = request.await.expect("a response");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = upgrade(&mut response).await.expect("a stream");
        assert!(stream.is_write_vectored());
        assert!(upgrade(&mut response).await.is_err(), "there is one stream");
        drop(response);
        exchange(&mut stream).await;
        stream
    };
    let (mut peer, stream) = join(serve, ask).await;
    assert_eq!(in_flight(&client), 1, "to the stream's end");
    drop(stream);
    assert_eq!(in_flight(&client), 0);
    peer.closed().await;
}

async fn exchange(stream: &mut tower_headless::http::Upgraded) {
    stream.write_all(b"ping").await.expect("written");
    stream.flush().await.expect("flushed");
    let mut answer = [0; 4];
    within("an answer", stream.read_exact(&mut answer))
        .await
        .expect("an answer");
    assert_eq!(&answer, b"pong");
}

/// A caller that only writes learns of the reset, even if nobody reads.
#[tokio::test]
async fn writing_to_a_stream_whose_pod_has_gone_is_an_error() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(SWITCH).await;
        peer.arrived().await;
        // Closing with unread data is a reset.
        peer.write("unread").await;
    };
    let ask = async {
        let request = client.get("/").header("connection", "upgrade");
        let mut response = request.header("upgrade", "echo").await.expect("a response");
        let mut stream = upgrade(&mut response).await.expect("a stream");
        let chunk = vec![b'a'; 64 * 1024];
        let write = async { while stream.write_all(&chunk).await.is_ok() {} };
        let bound = Duration::from_secs(8);
        time::timeout(bound, write)
            .await
            .expect("an error, and no wait for an answer");
        let mut arrived = [0; 6];
        let read = within("bytes", stream.read_exact(&mut arrived)).await;
        read.expect("what came before the reset");
        assert_eq!(&arrived, b"unread");
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn an_upgrade_that_nobody_takes_closes_its_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(SWITCH).await;
        peer
    };
    let request = client.get("/").header("connection", "upgrade");
    let request = request.header("upgrade", "echo").into_future();
    let (mut peer, response) = join(serve, request).await;
    assert_eq!(in_flight(&client), 1);
    drop(response);
    assert_eq!(in_flight(&client), 0);
    peer.closed().await;
}

#[tokio::test]
async fn a_response_that_upgrades_nothing_has_no_stream() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async { accept(&listener).await.answer(OK).await };
    let (_, response) = join(serve, client.get("/").into_future()).await;
    let error = upgrade(&mut response.expect("a response")).await;
    assert!(error.expect_err("no stream").is_request());
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.answer("HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(lines(&head)[0], "connect far.example:443 http/1.1");
        peer.until("ping").await;
        peer.write("pong").await;
        peer
    };
    let ask = async {
        let request = request(Method::CONNECT, "far.example:443", Empty::<Bytes>::new());
        let mut response = client.clone().oneshot(request).await.expect("a response");
        let mut stream = upgrade(&mut response).await.expect("a stream");
        exchange(&mut stream).await;
        stream
    };
    let (mut peer, stream) = join(serve, ask).await;
    assert_eq!(in_flight(&client), 1);
    drop(stream);
    assert_eq!(in_flight(&client), 0);
    peer.closed().await;
}

/// Asserts that a request fails before it is sent; returns the text.
async fn is_invalid(request: impl Future<Output = Result<impl Sized, Error>>) -> String {
    let result = within("an error", request).await;
    let error = result.err().expect("no such request can be sent");
    assert!(error.is_request(), "{error}");
    assert!(
        error.is_unexecuted() && error.endpoint().is_none(),
        "{error}"
    );
    error.to_string()
}

#[tokio::test]
async fn an_invalid_path_is_an_invalid_request() {
    let client = client([refusing().await]);
    for path in ["no-slash", "", "//\u{7f}", "/a b", "http://"] {
        let message = is_invalid(client.get(path).into_future()).await;
        assert!(message.contains(&format!("{path:?}")), "{message}");
    }
    for path in ["", "?page=2", "#top"] {
        let message = is_invalid(client.get(path).into_future()).await;
        assert!(message.contains("a path begins with '/'"), "{message}");
    }
}

#[tokio::test]
async fn an_invalid_header_is_an_invalid_request() {
    let client = client([refusing().await]);
    is_invalid(client.get("/").header("a b", "c").into_future()).await;
    is_invalid(client.get("/").header("a", "b\r\nc: d").into_future()).await;
}

#[tokio::test]
async fn another_scheme_is_an_invalid_request() {
    let client = client([refusing().await]);
    is_invalid(client.get("ftp://other/").into_future()).await;
}

#[tokio::test]
async fn user_information_is_not_sent_as_a_host() {
    let client = client([refusing().await]);
    is_invalid(client.get("http://me:secret@web/").into_future()).await;
}

#[tokio::test]
async fn connect_without_an_authority_is_an_invalid_request() {
    let client = client([refusing().await]);
    let request = request(Method::CONNECT, "/path", Empty::<Bytes>::new());
    is_invalid(client.oneshot(request)).await;
}

/// The pod is not to blame, and no other pod is asked, because none could do it.
#[tokio::test]
async fn an_extended_connect_over_http1_is_an_invalid_request() {
    let (pod, requests) = answering().await;
    let mut request = request(Method::CONNECT, "/chat", Empty::<Bytes>::new());
    let protocol = Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    is_invalid(client([pod]).oneshot(request)).await;
    assert_eq!(requests.get(), 0);
}

#[tokio::test]
async fn a_timeout_includes_the_wait_for_discovery() {
    let client = unresolved("http").discovery(Never);
    let client = client.ready_timeout(Duration::from_secs(600));
    let client = client.build().expect("a client");
    let request = client.get("/").timeout(Duration::from_millis(50));
    let error = within("the timeout", request.into_future()).await;
    assert!(error.expect_err("nobody answers").is_timeout());
}

fn why_not(uri: &str) -> String {
    let built = Client::builder(uri.parse().expect("a URI")).build();
    built.expect_err("no client of that").to_string()
}

#[tokio::test]
async fn an_unknown_scheme_is_an_error_that_names_the_known_ones() {
    let error = client([])
        .get("ftp://web/x")
        .send()
        .await
        .expect_err("no such scheme");
    let says = "\"ftp://web/x\" is neither http nor https: write http:// or https://";
    assert!(
        error.is_request() && error.to_string().contains(says),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_without_a_valid_service_cannot_be_built() {
    assert!(why_not("/path").contains("write http:// or https://"));
    assert!(why_not("web:80").contains("write http:// or https://"));
    assert!(why_not("ftp://web").contains("write http:// or https://"));
    assert!(why_not("http://me@web").contains("no user information"));
    assert!(why_not("https://web").contains("https needs `.tls("));
    assert!(why_not("http://a..b").starts_with("no client for http://a..b/: "));
}

#[tokio::test]
async fn the_client_is_a_service_of_any_body() {
    let (listener, pod) = listen().await;
    let mut client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        for _ in 0..2 {
            peer.answer(OK).await;
        }
    };
    let ask = async {
        let client = within(
            "readiness",
            ServiceExt::<Request<Empty<Bytes>>>::ready(&mut client),
        );
        let client = client.await.expect("ready");
        let empty = request(Method::GET, "/", Empty::<Bytes>::new());
        text(client.call(empty).await.expect("a response")).await;
        let mut full = request(Method::GET, "/", Full::<Bytes>::default());
        full.headers_mut()
            .insert(HOST, "web".parse().expect("a host"));
        text(client.call(full).await.expect("a response")).await;
    };
    join(serve, within("both", ask)).await;
}

#[tokio::test]
async fn the_whole_timeout_covers_the_body() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).timeout(PATIENCE / 2);
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
            .await;
        peer
    };
    let (mut peer, response) = join(serve, client.get("/").into_future()).await;
    let mut body = response.expect("a response").into_body();
    assert!(matches!(body.frame().await, Some(Ok(_))));
    // Nothing more arrives, so paused time advances at once.
    time::pause();
    let late = within("the timeout", body.frame()).await;
    time::resume();
    let error = late.expect("an end").expect_err("nothing more comes");
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains(": no end of pod "), "{error}");
    assert!(error.endpoint().is_some());
    assert_eq!(in_flight(&client), 0);
    drop(body);
    peer.closed().await;
}

/// A reader slower than its pod always finds data; the timeout must pass all the same.
#[tokio::test]
async fn the_whole_timeout_covers_a_body_that_is_read_slowly() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).timeout(PATIENCE / 2);
    let client = client.build().expect("a client");
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer("HTTP/1.1 200 OK\r\n\r\n").await;
        let chunk = vec![b'a'; 64 * 1024];
        while peer.try_write(&chunk).await {}
    };
    let read = async {
        let response = client.get("/").await.expect("a response");
        let mut body = response.into_body();
        // There is always more data, so time only advances while the reader sleeps.
        time::pause();
        loop {
            match body.frame().await.expect("there is no end") {
                Ok(_) => time::sleep(PATIENCE / 50).await,
                Err(error) => {
                    time::resume();
                    return error;
                }
            }
        }
    };
    let (error, ()) = within("the timeout", join(read, serve)).await;
    assert!(error.is_timeout(), "{error:?}");
}

/// The state of an application, whose type doesn't depend on its configuration.
struct App {
    client: Client,
}

#[tokio::test]
async fn a_policy_chosen_by_name_does_not_change_the_client_s_type() {
    for name in [
        "round-robin",
        "random",
        "least-connections",
        "power-of-two",
        "peak-ewma",
        "consistent-hash",
    ] {
        let (listener, pod) = listen().await;
        let policy: BuiltInPolicy = name.parse().expect("a policy");
        let client = builder([pod]).policy(policy).build().expect("a client");
        let app = App { client };
        let serve = async { accept(&listener).await.answer(OK).await };
        let (_, answered) = join(serve, get(&app.client, "/")).await;
        assert!(answered.is_ok(), "{name}");
    }
}
