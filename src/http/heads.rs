//! Heads of HTTP/1.1 responses with more headers than hyper has room for by itself.
//!
//! hyper's own room is on the stack. More room is allocated for each response, which costs a small request a tenth
//! more, and few services send so many headers. So a client's connections have hyper's own room until a head needs
//! more. That head is read again, by a second hyper over the same stream, with all the room that the client allows. The
//! client's later connections have as much from the start.
//!
//! The first hyper removes nothing from what it has read until a head is complete, so the second one reads the same
//! bytes. Only hyper parses them. The pod has its request already, and must get nothing from the second hyper: that one
//! has to send a request, and is made to believe that it did. Its request has the same method, which says where the
//! response ends (RFC 9112 §6.3).
//!
//! A head may come early, while its request is still being sent. What the first hyper has yet to send is lost then. The
//! pod's side of the stream is ended, so that a pod that reads the request to its end finds one. The response is read
//! for as long as the pod continues it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use http::{Method, Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
};

use super::{
    body::RequestBody,
    cut_off::until_end,
    reclaim::{Claim, Lent, Reclaimed, drive},
    socket::SocketHints,
    wire_limits::{OWN_HEADERS, WireLimits},
};

/// Whether a service's heads may have more headers than hyper has room for. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct LargeHeads(Arc<AtomicBool>);

impl LargeHeads {
    pub(super) fn expected() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn expect(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn are_expected(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl WireLimits {
    /// Settings for connections with room for `large` heads, or with hyper's own room unless that is too much.
    pub(super) fn http1(&self, large: bool) -> http1::Builder {
        /// hyper's own default. It is also how much of a body is read at once.
        const BUFFER: usize = 8_192 + 100 * 4_096;
        let size = self.header_size as usize;
        let mut builder = http1::Builder::new();
        if large || self.http1_headers < OWN_HEADERS {
            builder.max_headers(self.http1_headers);
        }
        builder.max_header_size(size).max_buf_size(size.max(BUFFER));
        builder
    }
}

/// A connection that reads one response, and takes no other request.
pub(super) struct Reread {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) claim: Claim,
    pub(super) response: Response<Incoming>,
}

/// Reads the response whose head was too large for `stream`'s connection, which has read no further. `method` is that
/// of its request. If the request was not sent completely, it never will be, and the pod sees the stream's end.
/// `runtime` and `hints` belong to the stream.
pub(super) async fn read_again(
    stream: Reclaimed,
    method: Method,
    limits: &WireLimits,
    runtime: &Handle,
    hints: &SocketHints,
) -> hyper::Result<Reread> {
    let (stream, claim) = Lent::new(Answered::new(stream));
    let builder = limits.http1(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut stand_in = Request::new(RequestBody::EMPTY);
    *stand_in.method_mut() = method;
    claim.head_is_due(stand_in.body_mut());
    let response = sender.send_request(stand_in);
    let told = hints.clone();
    let running = drive(connection, hints.clone());
    runtime.spawn(until_end(running, move || told.cut_off()));
    let response = response.await?;
    Ok(Reread {
        sender,
        claim,
        response,
    })
}

/// A stream whose request has been sent, but the second hyper thinks that it sends one. Nothing may be read before it
/// has: hyper would see an answer to nothing.
struct Answered {
    stream: Reclaimed,
    stand_in: StandIn,
    /// Whether the pod can see where the request ends.
    is_request_ended: bool,
    reader: Option<Waker>,
}

/// How much hyper has written of its stand-in request. It has no body, so it is complete when hyper flushes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StandIn {
    Awaited,
    Begun,
    Sent,
    /// Something else has been written since, in the protocol that the response has switched to.
    Over,
}

impl Answered {
    fn new(stream: Reclaimed) -> Self {
        Self {
            stream,
            stand_in: StandIn::Awaited,
            is_request_ended: false,
            reader: None,
        }
    }

    /// Sends what TLS still holds of the request, and ends the pod's side of the stream if the request isn't complete.
    /// hyper calls this whenever its task is woken.
    fn end_request(&mut self, cx: &mut Context<'_>) {
        if self.is_request_ended {
            return;
        }
        let is_cut = self.stream.is_cut;
        let stream = Pin::new(&mut self.stream);
        let ended = match is_cut {
            true => stream.poll_shutdown(cx),
            false => stream.poll_flush(cx),
        };
        // If this fails, the pod takes nothing more; the read will find out.
        self.is_request_ended = ended.is_ready();
    }
}

impl AsyncRead for Answered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.stand_in, StandIn::Awaited | StandIn::Begun) {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Answered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.stand_in, StandIn::Awaited | StandIn::Begun) {
            self.stand_in = StandIn::Begun;
            return Poll::Ready(Ok(data.len()));
        }
        self.stand_in = StandIn::Over;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stand_in {
            StandIn::Awaited | StandIn::Sent => {}
            StandIn::Begun => {
                self.stand_in = StandIn::Sent;
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
            }
            StandIn::Over => return Pin::new(&mut self.stream).poll_flush(cx),
        }
        self.end_request(cx);
        Poll::Ready(Ok(()))
    }

    /// Doesn't wait: TLS would first send what it holds of a truncated request, which the pod may never take.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        match self.stand_in {
            StandIn::Over => shut,
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use http::StatusCode;
    use http_body_util::{BodyExt, Full};
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{http::cause::is_too_large, sync::Mutex};

    /// A pod's stream: each piece is the result of one read, once the request has been written.
    struct Script {
        pieces: VecDeque<Bytes>,
        written: Arc<Mutex<Vec<u8>>>,
        reader: Option<Waker>,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.written.lock().is_empty() {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(piece) = self.pieces.front_mut() {
                buffer.put_slice(&piece.split_to(piece.len().min(buffer.remaining())));
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written.lock().extend(data);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads a head that is too large for hyper's own room.
    async fn read(method: Method, pieces: Vec<Bytes>) -> hyper::Result<Reread> {
        let script = Script {
            pieces: pieces.into(),
            written: Arc::default(),
            reader: None,
        };
        let written = script.written.clone();
        let (stream, mut claim) = Lent::new(script);
        let limits = WireLimits::default();
        let builder = limits.http1(false);
        let connected = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.expect("a handshake");
        let mut request = Request::new(RequestBody::new(Full::new(Bytes::from("request"))));
        *request.method_mut() = method.clone();
        claim.head_is_due(request.body_mut());
        let first = sender.send_request(request);
        tokio::spawn(drive(connection, SocketHints::default()));
        assert!(is_too_large(&first.await.expect_err("too many headers")));
        let stream = claim.take().await.expect("the stream");
        let read = read_again(
            stream,
            method,
            &limits,
            &Handle::current(),
            &SocketHints::default(),
        )
        .await;
        let written = String::from_utf8(written.lock().clone());
        let written = written.expect("text");
        assert!(
            written.ends_with("\r\n\r\nrequest"),
            "and no other: {written}"
        );
        assert_eq!(written.matches("HTTP/1.1").count(), 1, "{written}");
        read
    }

    fn head(status: &str, headers: usize, last: &str) -> String {
        let headers: String = (1..headers).map(|at| format!("x-{at}:\r\n")).collect();
        format!("HTTP/1.1 {status}\r\n{headers}{last}\r\n\r\n")
    }

    /// The status, the number of headers and the body.
    async fn response(method: Method, pieces: Vec<Bytes>) -> (StatusCode, usize, String) {
        let read = read(method, pieces).await.expect("a response");
        let (head, body) = read.response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("text");
        (head.status, head.headers.len(), body)
    }

    fn whole(text: &str) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(text.as_bytes())]
    }

    /// In two pieces, split at every position.
    fn splits(text: &str) -> impl Iterator<Item = Vec<Bytes>> {
        let text = Bytes::copy_from_slice(text.as_bytes());
        (1..text.len()).map(move |at| vec![text.slice(..at), text.slice(at..)])
    }

    #[tokio::test]
    async fn a_large_head_is_read_in_pieces_of_any_size() {
        let text = head("200 OK", 101, "content-length: 4") + "body";
        for pieces in splits(&text).chain([whole(&text)]) {
            let read = response(Method::GET, pieces).await;
            assert_eq!(read, (StatusCode::OK, 101, "body".to_owned()));
        }
        let bytes = text.bytes().map(|byte| Bytes::from(vec![byte])).collect();
        let read = response(Method::GET, bytes).await;
        assert_eq!(read, (StatusCode::OK, 101, "body".to_owned()));
    }

    #[tokio::test]
    async fn informational_responses_before_or_with_a_large_head_are_skipped() {
        let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let text = early.to_owned() + &head("200 OK", 101, "content-length: 4") + "body";
        for pieces in splits(&text).chain([whole(&text)]) {
            let read = response(Method::POST, pieces).await;
            assert_eq!(read, (StatusCode::OK, 101, "body".to_owned()));
        }
        let large_early = head("103 Early Hints", 150, "link: </a>");
        let text = large_early + "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        for pieces in splits(&text).step_by(7).chain([whole(&text)]) {
            let read = response(Method::GET, pieces).await;
            assert_eq!(read, (StatusCode::OK, 1, "body".to_owned()));
        }
    }

    #[tokio::test]
    async fn a_large_head_s_body_ends_where_the_method_and_the_status_say() {
        let length = "content-length: 4";
        let chunked = "transfer-encoding: chunked";
        let chunks = "2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n";
        for (method, status, last, after, body) in [
            (Method::GET, "200 OK", length, "body", "body"),
            (Method::GET, "200 OK", length, "body and more", "body"),
            (Method::PATCH, "200 OK", chunked, chunks, "body"),
            (Method::GET, "200 OK", "x: to the end", "body", "body"),
            (Method::HEAD, "200 OK", length, "", ""),
            (Method::GET, "204 No Content", "x: y", "", ""),
            (Method::GET, "304 Not Modified", length, "", ""),
        ] {
            let text = head(status, 150, last) + after;
            for pieces in splits(&text).step_by(31).chain([whole(&text)]) {
                let (read, headers, text) = response(method.clone(), pieces).await;
                assert_eq!((headers, text.as_str()), (150, body), "{method} {status}");
                assert!(status.starts_with(read.as_str()));
            }
        }
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_is_too_large_for_the_second_reading_too() {
        let text = head("200 OK", 256, "content-length: 0");
        let read = response(Method::GET, whole(&text)).await;
        assert_eq!(read.1, 256);
        let text = head("200 OK", 257, "content-length: 0");
        for pieces in splits(&text).step_by(50).chain([whole(&text)]) {
            let error = read_error(pieces).await;
            assert!(is_too_large(&error), "{error}");
        }
    }

    async fn read_error(pieces: Vec<Bytes>) -> hyper::Error {
        let read = read(Method::GET, pieces).await;
        read.err().expect("too many headers")
    }

    #[tokio::test]
    async fn a_large_head_that_is_cut_off_is_an_error() {
        let text = head("200 OK", 150, "content-length: 4");
        let cut = text.len() - 2;
        let error = read_error(whole(&text[..cut])).await;
        assert!(error.is_incomplete_message(), "{error}");
    }

    #[tokio::test]
    async fn a_tunnel_behind_a_large_head_can_be_read_and_written() {
        let text = head("200 OK", 150, "x: y") + "ping";
        let mut read = read(Method::CONNECT, whole(&text)).await.expect("a tunnel");
        let upgrade = hyper::upgrade::on(&mut read.response).await;
        assert!(upgrade.expect_err("ours to claim").is_user());
        let mut stream = read.claim.take().await.expect("the stream");
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).await.expect("bytes");
        assert_eq!(&ping, b"ping");
    }
}
