//! Heads of HTTP/1.1 responses that have more headers than hyper has room for by itself.
//!
//! Its own room is on the stack; more of it hyper makes anew for each response, which costs a small request a tenth more. Few
//! services send so many headers. So a client's connections have hyper's own room until a head needs more. That one is read
//! again, by a second hyper over the same stream with all the room that the client allows, and the client's later connections
//! have as much from the start.
//!
//! The first hyper takes nothing out of what it has read until a head is whole, so that the second one reads the same bytes.
//! No others than hyper's own eyes look at them. The pod has got its request already, and gets nothing of the second hyper's:
//! that one has to send one, and is made to believe that it did. It has the same method, which says where the response ends
//! (RFC 9112 §6.3).

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
    reclaim::{Claim, Lent, Reclaimed, drive},
    wire_limits::{OWN_HEADERS, WireLimits},
};

/// Whether a service's heads may have more headers than hyper has room for by itself. Clones share it.
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
    /// Connections with room for `large` heads, or with hyper's own room, where that isn't too much.
    pub(super) fn http1(&self, large: bool) -> http1::Builder {
        /// hyper's own default. It is what is read of a body at once, too.
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

/// Reads a response whose head was too large for a connection, of whose stream it has read no more than that. It is the
/// response to a request with this method; what was still to be sent of that never will be. `runtime` is the stream's.
pub(super) async fn read_again(
    stream: Reclaimed,
    method: Method,
    limits: &WireLimits,
    runtime: &Handle,
) -> hyper::Result<Reread> {
    let (stream, claim) = Lent::new(Answered::new(stream));
    let builder = limits.http1(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    claim.head_is_due();
    let mut stand_in = Request::new(RequestBody::Empty);
    *stand_in.method_mut() = method;
    let response = sender.send_request(stand_in);
    runtime.spawn(drive(connection));
    let response = response.await?;
    Ok(Reread {
        sender,
        claim,
        response,
    })
}

/// A stream on which a request has been sent, which another hyper thinks that it sends. Nothing is read before it has: it
/// would be the answer to nothing.
struct Answered {
    stream: Reclaimed,
    stand_in: StandIn,
    reader: Option<Waker>,
}

/// What hyper has written of its request. It has no body, so that it is whole when hyper flushes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StandIn {
    Awaited,
    Begun,
    Sent,
}

impl Answered {
    fn new(stream: Reclaimed) -> Self {
        Self {
            stream,
            stand_in: StandIn::Awaited,
            reader: None,
        }
    }
}

impl AsyncRead for Answered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stand_in != StandIn::Sent {
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
        // Of another protocol, if the response has switched to one.
        if self.stand_in == StandIn::Sent {
            return Pin::new(&mut self.stream).poll_write(cx, data);
        }
        self.stand_in = StandIn::Begun;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stand_in {
            StandIn::Awaited => Poll::Ready(Ok(())),
            StandIn::Begun => {
                self.stand_in = StandIn::Sent;
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
                Poll::Ready(Ok(()))
            }
            StandIn::Sent => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
