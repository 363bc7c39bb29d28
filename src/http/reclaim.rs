//! A connection's stream, lent to hyper until a request claims it.
//!
//! hyper ends a connection when the pod has switched protocols, and when the head of a response is more than it has room
//! for. In both cases the request goes on with the stream, and with what hyper has read of it and not used.
//!
//! ```text
//!  no head is due ──▶ a request begins: a head is due ──▶ the head has come: no head is due
//!        │ hyper ends              │ hyper ends
//!        ▼                         ▼
//!     closed                     kept ──▶ claimed: the stream is the request's
//!                                  └────▶ the head has come, or the request has gone: closed
//! ```

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
};

use super::body::RequestBody;

/// A stream of bytes, whatever it is made of.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream that hyper has given back.
pub(super) struct Reclaimed {
    /// What hyper has read of it, and not used.
    read: Bytes,
    stream: Box<dyn Io>,
}

/// What a request asks for a stream with.
type Ask = oneshot::Sender<Reclaimed>;

/// What those who have a connection can claim its stream with.
pub(super) struct Claim {
    head: Arc<Head>,
    asks: Option<oneshot::Sender<Ask>>,
}

/// A stream as hyper has it.
pub(super) struct Lent<T> {
    stream: T,
    head: Arc<Head>,
    /// None once it says that nobody will ask.
    asked: Option<oneshot::Receiver<Ask>>,
    ask: Option<Ask>,
    /// hyper has shut it down, but for us.
    is_shut: bool,
}

/// Whether a request waits for the head of its response. Nothing else is told by it, so that no order is needed.
#[derive(Default)]
struct Head(AtomicU8);

const NONE: u8 = 0;
const DUE: u8 = 1;
/// hyper has ended while one was due: the request is to say what becomes of the stream.
const KEPT: u8 = 2;

impl Head {
    /// hyper ends: whether there is a request that may claim the stream.
    fn keep(&self) -> bool {
        let kept = self.0.compare_exchange(DUE, KEPT, Relaxed, Relaxed);
        matches!(kept, Ok(_) | Err(KEPT))
    }
}

impl Claim {
    /// A request begins.
    pub(super) fn head_is_due(&self) {
        self.head.0.store(DUE, Relaxed);
    }

    /// The response has come, and leaves the stream to hyper.
    pub(super) fn head_has_come(&mut self) {
        if self.head.0.swap(NONE, Relaxed) == KEPT {
            self.asks = None;
        }
    }

    /// The stream of a connection that hyper has ended, or is about to: what it still has to write is dropped. None if the
    /// connection has gone.
    pub(super) async fn take(&mut self) -> Option<Reclaimed> {
        let (ask, stream) = oneshot::channel();
        self.asks.take()?.send(ask).ok()?;
        stream.await.ok()
    }
}

/// Runs a connection to its end.
pub(super) async fn drive<T: Io + 'static>(
    mut connection: http1::Connection<TokioIo<Lent<T>>, RequestBody>,
) {
    // Its error reaches the request in flight.
    let _ = (&mut connection).await;
    let parts = connection.into_parts();
    // Seldom, and its room isn't every connection's.
    Box::pin(parts.io.into_inner().end(parts.read_buf)).await;
}

impl<T: Io + 'static> Lent<T> {
    pub(super) fn new(stream: T) -> (Self, Claim) {
        let head = Arc::<Head>::default();
        let (asks, asked) = oneshot::channel();
        let lent = Self {
            stream,
            head: head.clone(),
            asked: Some(asked),
            ask: None,
            is_shut: false,
        };
        let asks = Some(asks);
        (lent, Claim { head, asks })
    }

    /// hyper has ended.
    async fn end(mut self, read: Bytes) {
        let ask = match (self.head.keep(), self.ask.take(), self.asked.take()) {
            (false, ..) => None,
            (true, None, Some(asked)) => asked.await.ok(),
            (true, ask, _) => ask,
        };
        if let Some(ask) = ask {
            let stream = Box::new(self.stream);
            // Its request has been given up meanwhile, or has it.
            let _ = ask.send(Reclaimed { read, stream });
        } else if self.is_shut {
            // There is nobody to tell if it fails.
            let _ = self.stream.shutdown().await;
        }
    }
}

impl<T> Lent<T> {
    /// Whether the stream has been asked for. The connection's task is woken if it is later on.
    fn is_asked_for(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(asked) = &mut self.asked
            && let Poll::Ready(ask) = Pin::new(asked).poll(cx)
        {
            (self.asked, self.ask) = (None, ask.ok());
        }
        self.ask.is_some()
    }

    /// Writing that waits, which it does no longer once the stream is asked for: hyper has ended, but for what it has yet to
    /// write, and that may never be taken.
    fn unless_asked_for<R>(&mut self, cx: &mut Context<'_>, otherwise: R) -> Poll<io::Result<R>> {
        match self.is_asked_for(cx) {
            true => Poll::Ready(Ok(otherwise)),
            false => Poll::Pending,
        }
    }
}

impl<T: Io> AsyncRead for Lent<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: Io> AsyncWrite for Lent<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, data) {
            Poll::Pending => self.unless_asked_for(cx, data.len()),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, data) {
            Poll::Pending => {
                let all = data.iter().map(|data| data.len()).sum();
                self.unless_asked_for(cx, all)
            }
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.unless_asked_for(cx, ()),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.keep() {
            self.is_shut = true;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Reclaimed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let bytes = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..bytes]);
        self.read.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Reclaimed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
