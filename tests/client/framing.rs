//! Where messages end: no caller may get another one's bytes.

use std::{
    future::IntoFuture,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    future::{Either, join, select},
    pin_mut,
};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower_headless::{
    BoxError,
    http::{Client, Error, Idempotent, Protocol},
};

use crate::{
    frames::Frames,
    kit::{self, OK, Peer, accept, client, get, listen, refusing, stream_of, text, written},
    support::within,
};

type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

fn boxed<B>(body: B) -> BoxBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

fn empty() -> BoxBody {
    boxed(Empty::<Bytes>::new())
}

fn whole(text: &'static str) -> BoxBody {
    boxed(Full::new(Bytes::from(text)))
}

const RST_STREAM: u8 = 3;

/// Reads everything up to the connection's end.
async fn rest(peer: &mut Peer<TcpStream>) -> String {
    let mut rest = Vec::new();
    while within("more, or the end", peer.is_open()).await {
        rest.extend(peer.bytes::<1>().await);
    }
    String::from_utf8(rest).expect("text")
}

fn request<B>(method: Method, headers: &[(&'static str, &'static str)], body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    for &(name, value) in headers {
        let value = HeaderValue::from_static(value);
        request
            .headers_mut()
            .append(HeaderName::from_static(name), value);
    }
    request
}

/// A client over HTTP/1.1 and one over HTTP/2, of a pod that must never be dialled.
async fn clients() -> [Client; 2] {
    let pod = refusing().await;
    let http2 = kit::builder([pod]).protocol(Protocol::Http2);
    [client([pod]), http2.build().expect("a client")]
}

/// Asserts that this request is refused before a pod is looked for, over both protocols.
async fn is_refused(what: &str, request: impl Fn() -> Request<BoxBody>) {
    for client in clients().await {
        let sent = within("an error", client.oneshot(request())).await;
        let error = sent.err().unwrap_or_else(|| panic!("{what}: it was sent"));
        assert!(error.is_request(), "{what}: {error}");
        assert!(
            error.is_unexecuted() && error.endpoint().is_none(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_content_length_that_the_body_does_not_have_is_refused() {
    type Make = fn() -> BoxBody;
    let bodies: [(&'static str, Make); 7] = [
        ("40", empty),
        ("1", empty),
        ("4", || whole("hello")),
        ("6", || whole("hello")),
        ("0", || whole("hello")),
        // The size is not known exactly, but well enough.
        ("4", || boxed(Hinted(SizeHint::new(), 5))),
        ("9", || boxed(Hinted(upper(8), 0))),
    ];
    for (length, body) in bodies {
        for method in [Method::GET, Method::POST, Method::HEAD, Method::DELETE] {
            let headers = [("content-length", length)];
            is_refused(length, || request(method.clone(), &headers, body())).await;
        }
    }
}

fn upper(upper: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_upper(upper);
    hint
}

/// A body with this size hint, and at least this many bytes.
struct Hinted(SizeHint, u64);

impl Body for Hinted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.0;
        hint.set_lower(self.1);
        hint
    }
}

#[tokio::test]
async fn an_invalid_content_length_is_refused() {
    for length in [
        "",
        "five",
        "5, 5",
        "5,6",
        "+5",
        "-5",
        "5.0",
        "0x5",
        "5 5",
        "18446744073709551616",
    ] {
        let headers = [("content-length", length)];
        is_refused(length, || request(Method::POST, &headers, whole("hello"))).await;
    }
}

#[tokio::test]
async fn several_content_lengths_are_refused() {
    for second in ["5", "6"] {
        let headers = [("content-length", "5"), ("content-length", second)];
        is_refused(second, || request(Method::POST, &headers, whole("hello"))).await;
    }
}

#[tokio::test]
async fn a_content_length_beside_a_transfer_encoding_is_refused() {
    let headers = [("content-length", "5"), ("transfer-encoding", "chunked")];
    is_refused("a body", || request(Method::POST, &headers, whole("hello"))).await;
    let headers = [("transfer-encoding", "chunked"), ("content-length", "0")];
    is_refused("none", || request(Method::POST, &headers, empty())).await;
}

#[tokio::test]
async fn a_transfer_encoding_that_is_not_chunked_is_refused() {
    for coding in [
        "",
        "gzip",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "xchunked",
    ] {
        let headers = [("transfer-encoding", coding)];
        let body = || boxed(stream_of(&["hello"]));
        is_refused(coding, || request(Method::POST, &headers, body())).await;
    }
    let headers = [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "chunked"),
    ];
    is_refused("twice", || request(Method::POST, &headers, whole("hello"))).await;
}

#[tokio::test]
async fn a_connection_header_that_names_a_framing_header_is_refused() {
    for options in [
        "content-length",
        "close, Content-Length",
        "transfer-encoding",
        "keep-alive,host",
    ] {
        let headers = [("connection", options)];
        is_refused(options, || request(Method::POST, &headers, whole("hello"))).await;
    }
}

#[tokio::test]
async fn connect_and_trace_with_a_body_are_refused() {
    for method in [Method::CONNECT, Method::TRACE] {
        let request = || {
            let mut request = request(method.clone(), &[], whole("hello"));
            if method == Method::CONNECT {
                *request.uri_mut() = "far.example:443".parse().expect("a URI");
            }
            request
        };
        is_refused(method.as_str(), request).await;
    }
}

/// What a pod gets of this request, up to and including `body`.
async fn seen(request: Request<BoxBody>, body: &str) -> String {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.head().await.to_lowercase();
        if !body.is_empty() {
            assert_eq!(peer.until(body).await, body);
        }
        peer.write(OK).await;
        // The next request must follow directly.
        assert!(peer.answer(OK).await.starts_with("GET /next "));
        head
    };
    let ask = async {
        let response = client.clone().oneshot(request).await;
        assert_eq!(text(response.expect("a response")).await, "ok");
        get(&client, "/next").await.expect("a response");
    };
    join(serve, within("both", ask)).await.0
}

#[tokio::test]
async fn a_correct_content_length_is_sent_once() {
    for (length, body) in [
        ("5", whole("hello")),
        ("5", boxed(stream_of(&["hel", "lo"]))),
    ] {
        let headers = [("content-length", length)];
        let head = seen(request(Method::PUT, &headers, body), "hello").await;
        assert_eq!(head.matches("content-length: 5\r\n").count(), 1, "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
    let head = seen(
        request(Method::GET, &[("content-length", "0")], empty()),
        "",
    )
    .await;
    assert_eq!(head.matches("content-length: 0\r\n").count(), 1, "{head}");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_with_every_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "REPORT"] {
        let method: Method = method.parse().expect("a method");
        if method == Method::HEAD {
            continue; // Its answer has no body; the next test has it.
        }
        let body = boxed(stream_of(&["ab", "cde"]));
        let chunks = "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
        let head = seen(request(method.clone(), &[], body), chunks).await;
        let chunked = head.matches("transfer-encoding: chunked\r\n").count();
        assert_eq!(chunked, 1, "{method}: {head}");
        assert!(!head.contains("content-length"), "{method}: {head}");
    }
}

#[tokio::test]
async fn a_head_request_with_a_stream_is_sent_with_its_body() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let head = peer.head().await;
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        peer.until("2\r\nab\r\n0\r\n\r\n").await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            .await;
    };
    let request = request(Method::HEAD, &[], stream_of(&["ab"]));
    let (_, response) = join(serve, within("a response", client.oneshot(request))).await;
    response.expect("a response");
}

#[tokio::test]
async fn a_stream_may_declare_chunked_itself() {
    let headers = [("transfer-encoding", "Chunked")];
    let body = boxed(stream_of(&["ab"]));
    let chunks = "2\r\nab\r\n0\r\n\r\n";
    let head = seen(request(Method::GET, &headers, body), chunks).await;
    let chunked = head.matches("transfer-encoding: chunked\r\n").count();
    assert_eq!(chunked, 1, "{head}");
    // With nothing to send, nothing is announced.
    let head = seen(request(Method::GET, &headers, empty()), "").await;
    assert!(!head.contains("transfer-encoding"), "{head}");
}

/// A body whose size hint is wrong.
struct Liar(u64, BoxBody);

impl Body for Liar {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

const WRONG: [&[&str]; 6] = [
    &["abcd"],
    &["ab", "cd"],
    &["abcdef"],
    &["ab", "cdef"],
    &["abcde", "f"],
    &["ab", "cde", "", "fg"],
];

/// All ways to be wrong about five bytes: the length is declared, or is in the size hint.
fn wrong() -> impl Iterator<Item = (Request<BoxBody>, &'static [&'static str])> {
    let declared = |chunks| {
        request(
            Method::POST,
            &[("content-length", "5")],
            boxed(stream_of(chunks)),
        )
    };
    let hinted = |chunks| request(Method::POST, &[], boxed(Liar(5, boxed(stream_of(chunks)))));
    let each = move |chunks| [(declared(chunks), chunks), (hinted(chunks), chunks)];
    WRONG.into_iter().flat_map(each)
}

/// Many pods answer at the first byte of a request. Even so, no part of the next request may be taken for the rest of
/// this one.
#[tokio::test]
async fn a_body_of_a_wrong_length_fails_its_request_and_ends_its_connection() {
    for (request, chunks) in wrong() {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            if let Some(head) = peer.try_head().await {
                assert!(head.contains("content-length: 5\r\n"), "{head}");
                let rest = rest(&mut peer).await;
                assert!(rest.len() < 5 && "abcde".starts_with(&rest), "{rest:?}");
            }
            accept(&listener).await.answer(OK).await;
        };
        let ask = async {
            let error = client.clone().oneshot(request).await;
            let error = error.expect_err("the body is none");
            assert!(error.is_request_body(), "{chunks:?}: {error}");
            get(&client, "/next").await.expect("a response");
        };
        join(serve, within("both", ask)).await;
    }
}

#[tokio::test]
async fn a_body_of_a_wrong_length_over_http2_resets_its_stream() {
    for (request, chunks) in wrong() {
        let (listener, pod) = listen().await;
        let client = kit::builder([pod]).protocol(Protocol::Http2);
        let client = client.build().expect("a client");
        let serve = async {
            let mut frames = Frames::greet(accept(&listener).await, None).await;
            let stream = frames.stream().await;
            loop {
                let frame = frames.frame().await;
                if (frame.kind, frame.stream) == (RST_STREAM, stream) {
                    break;
                }
            }
            let next = frames.stream().await;
            frames.ok(next).await;
        };
        let ask = async {
            let error = client.clone().oneshot(request).await;
            let error = error.expect_err("the body is none");
            assert!(error.is_request_body(), "{chunks:?}: {error}");
            client.get("/next").await.expect("a response");
        };
        join(serve, within("both", ask)).await;
    }
}

/// The answer may come first. The connection must not be used again all the same.
#[tokio::test]
async fn a_body_that_turns_out_short_after_the_answer_ends_its_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (body, unread) = written();
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(OK).await;
        assert!("ab".starts_with(&rest(&mut peer).await));
        accept(&listener).await.answer(OK).await;
    };
    let ask = async {
        let request = request(Method::POST, &[("content-length", "5")], unread);
        let response = client.clone().oneshot(request).await.expect("a response");
        assert_eq!(text(response).await, "ok");
        body.send("ab").expect("the body is wanted");
        drop(body);
        get(&client, "/next").await.expect("a response");
    };
    join(serve, within("both", ask)).await;
}

#[tokio::test]
async fn a_body_that_is_sent_again_is_measured_again() {
    let (listener, pod) = listen().await;
    let (spare, other) = listen().await;
    let client = client([pod, other]);
    let lose = async {
        // The pod that is asked first loses it.
        let (first, second) = (accept(&listener), accept(&spare));
        pin_mut!(first, second);
        match select(first, second).await {
            Either::Left((mut peer, second)) => {
                peer.head().await;
                drop(peer);
                second.await
            }
            Either::Right((mut peer, first)) => {
                peer.head().await;
                drop(peer);
                first.await
            }
        }
    };
    let serve = async {
        let mut peer = lose.await;
        let head = peer.head().await;
        assert!(head.contains("content-length: 5\r\n"), "{head}");
        assert_eq!(peer.until("hello").await, "hello");
        peer.write(OK).await;
    };
    let mut request = request(
        Method::PUT,
        &[("content-length", "5")],
        stream_of(&["hel", "lo"]),
    );
    request.extensions_mut().insert(Idempotent::default());
    let (_, response) = join(serve, within("a response", client.oneshot(request))).await;
    response.expect("a response");
}

// ---------------------------------------------------------------- what pods send

const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

/// A pod's first connection answers with `first`, later ones with `OK`. Returns what the first and the next caller get.
async fn next_after(method: Method, first: &str) -> (Result<String, Error>, Result<String, Error>) {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.answer(first).await;
        // No other request may come on this connection.
        assert_eq!(rest(&mut peer).await, "");
        accept(&listener).await.answer(OK).await;
    };
    let ask = async {
        let answer = match client.request(method, "/first").await {
            Ok(response) => {
                let body = response.into_body().collect().await;
                body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned())
            }
            Err(error) => Err(error),
        };
        (answer, get(&client, "/next").await)
    };
    join(serve, within("both", ask)).await.1
}

#[tokio::test]
async fn bytes_after_a_response_are_not_the_next_callers_answer() {
    for (method, first, body) in [
        (Method::GET, OK, "ok"),
        (Method::HEAD, OK, ""),
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n",
            "",
        ),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", ""),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
    ] {
        let (answer, next) = next_after(method.clone(), &format!("{first}{EVIL}")).await;
        assert_eq!(answer.expect("a response"), body, "{method} {first}");
        assert_eq!(next.expect("a response"), "ok", "{method} {first}");
    }
}

#[tokio::test]
async fn a_head_or_a_204_with_a_body_is_not_the_next_callers_answer() {
    for (method, first) in [
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody",
        ),
        (
            Method::GET,
            "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody",
        ),
        (
            Method::GET,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nbody",
        ),
    ] {
        let (answer, next) = next_after(method.clone(), first).await;
        assert_eq!(answer.expect("a response"), "", "{method} {first}");
        assert_eq!(next.expect("a response"), "ok", "{method} {first}");
    }
}

#[tokio::test]
async fn a_response_that_contradicts_itself_is_an_error() {
    for headers in [
        "content-length: 2\r\ncontent-length: 4",
        "content-length: 2, 4",
        "content-length: -2",
        "content-length: two",
    ] {
        let first = format!(
            "HTTP/1.1 200 OK\r\n{headers}\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        );
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(&first).await;
            assert_eq!(rest(&mut peer).await, "", "{headers}");
            accept(&listener).await.answer(OK).await;
        };
        let ask = async {
            let answer = client.post("/first").await;
            answer.expect_err(headers);
            get(&client, "/next").await.expect("a response")
        };
        let (_, next) = join(serve, within("both", ask)).await;
        assert_eq!(next, "ok", "{headers}");
    }
}

/// The chunks count (RFC 9112 §6.3), but somebody on the way may have believed the length.
#[tokio::test]
async fn a_response_with_a_length_and_chunks_is_read_and_its_connection_closed() {
    for headers in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 200",
        "Transfer-Encoding: Chunked\r\nContent-Length: 2",
    ] {
        let first = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(&first).await;
            assert_eq!(rest(&mut peer).await, "", "{headers}");
            accept(&listener).await.answer(OK).await;
        };
        let ask = async {
            assert_eq!(get(&client, "/first").await.expect(headers), "ok");
            assert_eq!(get(&client, "/next").await.expect("a response"), "ok");
        };
        join(serve, within("both", ask)).await;
    }
}

#[tokio::test]
async fn informational_responses_are_skipped() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
        peer.answer(&format!("{early}{OK}")).await;
        peer.answer(OK).await;
    };
    let ask = async {
        assert_eq!(get(&client, "/").await.expect("a response"), "ok");
        assert_eq!(get(&client, "/").await.expect("a response"), "ok");
    };
    join(serve, within("both", ask)).await;
}

/// The connection is idle, and the next request comes at once.
#[tokio::test]
async fn an_unrequested_response_is_not_the_next_callers_answer() {
    for method in [Method::GET, Method::POST] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(OK).await;
            peer
        };
        let (mut peer, first) = join(serve, get(&client, "/first")).await;
        assert_eq!(first.expect("a response"), "ok");
        peer.write(EVIL).await;
        let ask = async {
            let response = client.request(method, "/next").await.expect("a response");
            text(response).await
        };
        let serve = async {
            assert_eq!(rest(&mut peer).await, "", "nothing is asked here");
            accept(&listener).await.answer(OK).await;
        };
        let (next, ()) = join(within("a response", ask), serve).await;
        assert_eq!(next, "ok");
    }
}

#[tokio::test]
async fn a_response_before_any_request_is_nobodys_answer() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.write(EVIL).await;
        rest(&mut peer).await;
        accept(&listener).await.answer(OK).await;
    };
    let (next, ()) = join(within("a response", get(&client, "/")), serve).await;
    assert_ne!(next.unwrap_or_default(), "evil");
}

/// The request isn't lost, although a written POST can't be sent again.
#[tokio::test]
async fn a_post_right_after_its_connection_was_closed_goes_over_another() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    for _ in 0..10 {
        let serve = async {
            let mut peer = accept(&listener).await;
            peer.answer(OK).await;
            peer
        };
        let (peer, first) = join(serve, client.post("/").into_future()).await;
        assert_eq!(text(first.expect("a response")).await, "ok");
        drop(peer);
    }
}
