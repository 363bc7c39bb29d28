//! A connection's stream, lent to hyper until a request claims it.
//!
//! hyper ends a connection when the pod has switched protocols, and when a response's head is too large for its room.
//! In both cases the request continues with the stream, and with what hyper has read from it but not used.
//!
//! ```text
//!  no head is due ──▶ a request begins: a head is due ──▶ the head has come: no head is due
//!        │ hyper ends              │ hyper ends
//!        ▼                         ▼
//!     closed                     kept ──▶ claimed: the stream is the request's
//!                                  └────▶ the head has come, or the request is gone: closed
//! ```

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
};

use super::{
    body::{Reading, RequestBody},
    socket::SocketHints,
};
use crate::error::BoxError;

/// Any stream of bytes.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream that hyper has given back.
pub(super) struct Reclaimed {
    /// What hyper has read from it, but not used.
    read: Bytes,
    /// Whether the pod has got only a part of the request.
    pub(super) is_cut: bool,
    stream: Box<dyn Io>,
}

/// Requests a stream.
type Ask = oneshot::Sender<Reclaimed>;

/// Lets those who have a connection claim its stream.
pub(super) struct Claim {
    head: Arc<Head>,
    reading: Reading,
    asks: Option<oneshot::Sender<Ask>>,
}

/// A stream as hyper has it.
pub(super) struct Lent<T> {
    stream: T,
    head: Arc<Head>,
    /// Tracks the request's body.
    reading: Reading,
    /// Whether only a part of the request was written, and the rest never will be.
    is_cut: bool,
    /// None once nobody can ask any more.
    asked: Option<oneshot::Receiver<Ask>>,
    ask: Option<Ask>,
    /// Whether hyper has shut it down, without us doing so.
    is_shut: bool,
}

/// Whether a request waits for the head of its response. It guards no other data, so it needs no memory ordering.
#[derive(Default)]
struct Head(AtomicU8);

const NONE: u8 = 0;
const DUE: u8 = 1;
/// hyper has ended while one was due: the request decides what happens to the stream.
const KEPT: u8 = 2;

impl Head {
    /// Called when hyper ends: whether there is a request that may claim the stream.
    fn keep(&self) -> bool {
        let kept = self.0.compare_exchange(DUE, KEPT, Relaxed, Relaxed);
        matches!(kept, Ok(_) | Err(KEPT))
    }
}

impl Claim {
    /// Begins a request with this body.
    pub(super) fn head_is_due(&self, body: &mut RequestBody) {
        self.head.0.store(DUE, Relaxed);
        body.watch(&self.reading);
    }

    /// Why the request's own body failed, if it did.
    pub(super) fn take_body_error(&self) -> Option<BoxError> {
        self.reading.take_error()
    }

    /// Notes that the head has come, and leaves the stream to hyper.
    pub(super) fn head_has_come(&mut self) {
        if self.head.0.swap(NONE, Relaxed) == KEPT {
            self.asks = None;
        }
    }

    /// Ends a connection whose response has ended, but whose request is still being sent. hyper would wait for the rest
    /// of it, even if nobody else does. The rest is dropped.
    pub(super) fn cut(&mut self) {
        self.reading.stop();
        if let Some(asks) = self.asks.take() {
            // Nobody wants the stream, but asking for it ends a pending write.
            let (ask, _) = oneshot::channel();
            let _ = asks.send(ask);
        }
    }

    /// Takes the stream of a connection that hyper has ended, or is about to end; unwritten data is dropped. None if
    /// the connection is gone.
    pub(super) async fn take(&mut self) -> Option<Reclaimed> {
        let (ask, stream) = oneshot::channel();
        self.asks.take()?.send(ask).ok()?;
        stream.await.ok()
    }
}

/// Runs a connection to its end. Written by hand, because every request polls it several times, and an async function
/// would reserve room for two connections.
pub(super) fn drive<T: Io + 'static>(
    connection: http1::Connection<TokioIo<Lent<T>>, RequestBody>,
    hints: SocketHints,
) -> impl Future<Output = ()> + Send {
    let mut running = Some(connection);
    let mut end: Option<BoxFuture<'static, ()>> = None;
    poll_fn(move |cx| {
        if let Some(connection) = &mut running {
            // A request in flight gets its own error, not this one.
            if let Err(error) = ready!(Pin::new(connection).poll(cx)) {
                hints.ending().failed(&error);
            }
        }
        if let Some(ended) = running.take() {
            let parts = ended.into_parts();
            end = Some(Box::pin(parts.io.into_inner().end(parts.read_buf)));
        }
        if let Some(end) = &mut end {
            ready!(end.as_mut().poll(cx));
        }
        hints.ending().over();
        Poll::Ready(())
    })
}

impl<T: Io + 'static> Lent<T> {
    pub(super) fn new(stream: T) -> (Self, Claim) {
        let head = Arc::<Head>::default();
        let reading = Reading::default();
        let (asks, asked) = oneshot::channel();
        let lent = Self {
            stream,
            head: head.clone(),
            reading: reading.clone(),
            is_cut: false,
            asked: Some(asked),
            ask: None,
            is_shut: false,
        };
        let claim = Claim {
            head,
            reading,
            asks: Some(asks),
        };
        (lent, claim)
    }

    /// hyper has ended.
    async fn end(mut self, read: Bytes) {
        let ask = match (self.head.keep(), self.ask.take(), self.asked.take()) {
            (false, ..) => None,
            (true, None, Some(asked)) => asked.await.ok(),
            (true, ask, _) => ask,
        };
        if let Some(ask) = ask {
            let reclaimed = Reclaimed {
                read,
                is_cut: self.is_cut,
                stream: Box::new(self.stream),
            };
            // Its request was cancelled meanwhile, or has the stream.
            let _ = ask.send(reclaimed);
        } else if self.is_shut {
            // Nobody is left to tell if this fails.
            let _ = self.stream.shutdown().await;
        }
    }
}

impl<T> Lent<T> {
    /// Whether the stream has been asked for. If not, the connection's task is woken when it is.
    fn is_asked_for(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(asked) = &mut self.asked
            && let Poll::Ready(ask) = Pin::new(asked).poll(cx)
        {
            (self.asked, self.ask) = (None, ask.ok());
        }
        self.ask.is_some()
    }

    /// A pending write ends once the stream is asked for: hyper has ended except for unwritten data, which the pod may
    /// never take. Nothing is written after that.
    fn cut_if_asked_for(&mut self, cx: &mut Context<'_>, data: usize) -> Poll<io::Result<usize>> {
        self.is_cut = self.is_asked_for(cx);
        match self.is_cut {
            true => Poll::Ready(Ok(data)),
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
        if self.is_cut {
            return Poll::Ready(Ok(data.len()));
        }
        match Pin::new(&mut self.stream).poll_write(cx, data) {
            Poll::Pending => self.cut_if_asked_for(cx, data.len()),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || data.iter().map(|data| data.len()).sum();
        if self.is_cut {
            return Poll::Ready(Ok(all()));
        }
        match Pin::new(&mut self.stream).poll_write_vectored(cx, data) {
            Poll::Pending => self.cut_if_asked_for(cx, all()),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            // The one who has asked for the stream flushes it.
            Poll::Pending if self.is_asked_for(cx) => Poll::Ready(Ok(())),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.keep() {
            self.is_shut = true;
            self.is_cut |= self.reading.goes_on();
            return Poll::Ready(Ok(()));
        }
        if self.is_asked_for(cx) {
            // Its request is cut off. TLS would first send what it holds, which the pod may never take.
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

/// What is written to it goes to its `stream`.
macro_rules! writes_to_stream {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write(cx, data)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[std::io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write_vectored(cx, data)
            }

            fn is_write_vectored(&self) -> bool {
                self.stream.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_shutdown(cx)
            }
        }
    };
}
pub(super) use writes_to_stream;

writes_to_stream!(Reclaimed);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A stream that records whether it was shut down.
    #[derive(Clone, Default)]
    struct Stream(Arc<AtomicBool>);

    impl Stream {
        fn is_shut(&self) -> bool {
            self.0.load(Relaxed)
        }
    }

    impl AsyncRead for Stream {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stream {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.store(true, Relaxed);
            Poll::Ready(Ok(()))
        }
    }

    /// A stream that hyper has shut down while a head was due.
    async fn kept(stream: &Stream) -> (Lent<Stream>, Claim) {
        let (mut lent, claim) = Lent::new(stream.clone());
        claim.head_is_due(&mut RequestBody::default());
        let shut = poll_fn(|cx| Pin::new(&mut lent).poll_shutdown(cx)).await;
        shut.expect("hyper need not wait");
        assert!(!stream.is_shut(), "its request may claim it");
        (lent, claim)
    }

    #[tokio::test]
    async fn a_stream_whose_head_has_come_is_shut_down_however_soon_that_is_known() {
        let early = Stream::default();
        let (lent, mut claim) = kept(&early).await;
        claim.head_has_come();
        lent.end(Bytes::new()).await;
        assert!(early.is_shut());

        let late = Stream::default();
        let (lent, mut claim) = kept(&late).await;
        let mut end = Box::pin(lent.end(Bytes::new()));
        assert!(futures::poll!(&mut end).is_pending());
        claim.head_has_come();
        end.await;
        assert!(late.is_shut());
    }

    #[tokio::test]
    async fn a_stream_whose_request_has_gone_is_shut_down() {
        let stream = Stream::default();
        let (lent, claim) = kept(&stream).await;
        drop(claim);
        lent.end(Bytes::new()).await;
        assert!(stream.is_shut());
    }

    #[tokio::test]
    async fn a_stream_that_is_claimed_is_left_open() {
        let stream = Stream::default();
        let (lent, mut claim) = kept(&stream).await;
        let (claimed, ()) = futures::join!(claim.take(), lent.end(Bytes::new()));
        assert!(claimed.is_some() && !stream.is_shut());
    }

    /// Half of the pending data may be written before the rest is dropped: later data would look like that rest.
    #[tokio::test]
    async fn nothing_is_written_after_what_was_dropped() {
        let (stream, mut pod) = duplex(4);
        let (mut lent, mut claim) = Lent::new(stream);
        claim.head_is_due(&mut RequestBody::default());
        let write = async |lent: &mut Lent<_>, data| {
            poll_fn(|cx| Pin::new(&mut *lent).poll_write(cx, data)).await
        };
        assert_eq!(write(&mut lent, b"abcd").await.expect("room"), 4);
        let mut asked = Box::pin(claim.take());
        assert!(futures::poll!(&mut asked).is_pending());
        assert_eq!(write(&mut lent, b"efgh").await.expect("dropped"), 4);
        let mut read = [0; 4];
        pod.read_exact(&mut read).await.expect("bytes");
        assert_eq!(write(&mut lent, b"ijkl").await.expect("dropped"), 4);
        lent.end(Bytes::new()).await;
        let claimed = asked.await.expect("the stream");
        assert!(claimed.is_cut);
        drop(claimed);
        let mut rest = Vec::new();
        pod.read_to_end(&mut rest).await.expect("an end");
        assert!(rest.is_empty(), "{rest:?}");
    }
}
