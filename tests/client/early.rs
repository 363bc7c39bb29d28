//! Answers that come before their requests have been sent completely, when nothing more can be sent.

use bytes::Bytes;
use futures::future::join;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tower::ServiceExt;
use tower_headless::{
    StaticEndpoints,
    http::{Protocol, Tls},
};

use crate::{
    kit::{self, OK, Peer, SERVICE, accept, client, get, listen, text},
    support::{tls::Identity, within},
};

/// Far more than the system buffers before the pod reads.
const LARGE: usize = 16 << 20;

fn large() -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(vec![b'a'; LARGE].into()));
    *request.method_mut() = Method::POST;
    request
}

/// Reads a request's head and what has arrived of its body, answers, and closes at once: the rest is answered by a
/// reset.
async fn turn_away<S>(mut peer: Peer<S>, answer: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    peer.head().await;
    peer.arrived().await;
    peer.write(answer).await;
    // Unread data makes this close a reset.
    drop(peer);
}

#[tokio::test]
async fn an_early_answer_is_returned_although_a_reset_follows_it() {
    for status in [413, 401, 403, 404, 431, 500, 503] {
        for headers in [
            "content-length: 2",
            "content-length: 2\r\nconnection: close",
        ] {
            let answer = format!("HTTP/1.1 {status} No\r\n{headers}\r\n\r\nno");
            let (listener, pod) = listen().await;
            let client = client([pod]);
            let serve = async {
                turn_away(accept(&listener).await, &answer).await;
                accept(&listener).await.answer(OK).await;
            };
            let ask = async {
                let response = client.clone().oneshot(large()).await;
                let response = response.unwrap_or_else(|error| panic!("{answer:?}: {error:?}"));
                assert_eq!(response.status().as_u16(), status);
                assert_eq!(text(response).await, "no");
                get(&client, "/next").await.expect("another connection");
            };
            join(serve, within("both", ask)).await;
        }
    }
}

/// Whichever of the two is faster: the pod waits for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_is_returned_however_soon_the_reset_comes() {
    const NO: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
    let pod = kit::pod(async |mut peer: Peer<TcpStream>| {
        peer.head().await;
        peer.write(NO).await;
    });
    let client = client([pod.await]);
    for _ in 0..50 {
        let response = within("an answer", client.clone().oneshot(large())).await;
        let response = response.expect("the answer");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await, "no");
    }
}

/// Nothing of an answer has arrived, so the request may have been executed.
#[tokio::test]
async fn a_reset_without_an_answer_is_an_error() {
    for part in ["", "HTTP/1.1 413 Too La"] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async { turn_away(accept(&listener).await, part).await };
        let (_, sent) = join(serve, within("an error", client.oneshot(large()))).await;
        let error = sent.expect_err("no answer");
        assert!(
            !error.is_unexecuted() && error.endpoint().is_some(),
            "{error}"
        );
    }
}

/// A body that ends with its connection may be incomplete if the connection is reset.
#[tokio::test]
async fn a_reset_is_not_the_end_of_a_body_without_a_length() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let answer = "HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\nno";
    let serve = async { turn_away(accept(&listener).await, answer).await };
    let ask = async {
        let response = client.clone().oneshot(large()).await.expect("the answer");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let body = within("the end", response.into_body().collect()).await;
        body.expect_err("more may have been to come");
    };
    join(serve, ask).await;
}

/// The pod ends the stream before the reset.
#[tokio::test]
async fn an_answer_that_ended_before_the_reset_is_complete() {
    use tokio::io::AsyncWriteExt;
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer.write("HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\nno")
            .await;
        let mut stream = peer.into_inner();
        stream.shutdown().await.expect("an open connection");
        drop(stream);
    };
    let ask = async {
        let response = client.clone().oneshot(large()).await.expect("the answer");
        assert_eq!(text(response).await, "no");
    };
    join(serve, within("the answer", ask)).await;
}

/// The reset hits the TCP connection below TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_over_tls_is_returned() {
    const NO: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
    let name = SERVICE.strip_suffix(":8080").expect("a port");
    let identity = Identity::new(name);
    let acceptor = identity.acceptor().expect("TLS");
    let pod = kit::pod(move |peer: Peer<TcpStream>| {
        let acceptor = acceptor.clone();
        async move {
            let stream = peer.into_inner();
            // Sends the answer without waiting for the client to acknowledge the handshake: otherwise a reset would
            // overtake it.
            stream.set_nodelay(true).expect("an open connection");
            let stream = acceptor.accept(stream).await.expect("TLS");
            turn_away(Peer::new(stream), NO).await;
        }
    });
    let tls = Tls::new().trust_pem(identity.certificate_pem().as_bytes());
    let client = kit::unresolved("https").discovery(StaticEndpoints::new([pod.await]));
    let client = client
        .tls(tls.expect("a certificate"))
        .protocol(Protocol::Http1);
    let client = client.build().expect("a client");
    for _ in 0..10 {
        let response = within("an answer", client.clone().oneshot(large())).await;
        let response = response.expect("the answer");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await, "no");
    }
}
