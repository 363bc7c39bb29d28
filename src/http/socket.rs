//! A pod's socket. It reads what has arrived before it reports a failed write, and before a request is written.
//!
//! **After a failed write.** A pod that rejects a large request answers early, for example with 413, and closes. Data
//! that is still on its way is answered by a reset, so writing fails. The answer has arrived by then or not; a reset
//! discards nothing that was received before it. hyper gives up a connection at the first error in either direction. So
//! here a failed write waits until there is nothing left to read.
//!
//! **Before a request.** If something arrives on an idle connection, its end or an unrequested response, tokio knows it
//! only when its driver next polls all sockets. A request that is written before that would be lost, or get the wrong
//! answer. So the socket itself is checked once, and hyper hands the request back unwritten.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{arrivals::Arrivals, ending::Ending};
use crate::counters::{Closed, ConnectionTally};

/// How long a failed write waits while nothing is read: the reader may be slow, or there is none.
const GRACE: Duration = Duration::from_secs(10);

/// A connection to a pod. It holds `R` for as long as it is open, whoever has it by then: an upgraded connection keeps
/// its room in the pool.
pub(super) struct Socket<R> {
    stream: TcpStream,
    arrivals: Arrivals,
    reset: Option<Reset>,
    has_ended: bool,
    hints: SocketHints,
    read_now: ReadNow,
    _room: R,
}

/// Reads what the system has, or the stream's end, even if tokio doesn't know of it; false if there is nothing.
pub(super) type ReadNow = fn(&TcpStream, &mut ReadBuf<'_>) -> bool;

/// What a connection's users tell its socket.
#[derive(Clone, Debug, Default)]
pub(super) struct SocketHints(Arc<Hints>);

#[derive(Debug, Default)]
struct Hints {
    read_first: AtomicBool,
    upgraded: AtomicBool,
    cut_off: AtomicBool,
    ending: Ending,
}

impl SocketHints {
    /// For a connection that is counted in `tally` once it is made.
    pub(super) fn counted(tally: Option<Arc<ConnectionTally>>) -> Self {
        Self(Arc::new(Hints {
            ending: Ending::of(tally),
            ..Hints::default()
        }))
    }

    /// Why it ends.
    pub(super) fn ending(&self) -> &Ending {
        &self.0.ending
    }

    /// Announces a request: the next read asks the system, whatever tokio knows.
    pub(super) fn read_first(&self) {
        self.0.read_first.store(true, Relaxed);
    }

    /// Notes that it no longer speaks HTTP. Then reads and writes may be in different tasks, and don't wait for each
    /// other.
    pub(super) fn upgraded(&self) {
        self.0.ending.set_busy(false);
        self.0.upgraded.store(true, Relaxed);
    }

    /// Notes that its runtime has ended, and the connection with it.
    pub(super) fn cut_off(&self) {
        self.0.ending.because(Closed::Client);
        self.0.cut_off.store(true, Relaxed);
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.0.cut_off.load(Relaxed)
    }

    fn take_read_first(&self) -> bool {
        let read_first = &self.0.read_first;
        read_first.load(Relaxed) && read_first.swap(false, Relaxed)
    }

    fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Relaxed)
    }
}

/// The peer takes nothing more.
struct Reset {
    error: io::ErrorKind,
    grace: Option<Pin<Box<Sleep>>>,
}

impl<R> Socket<R> {
    pub(super) fn new(stream: TcpStream, read_now: ReadNow, hints: SocketHints, room: R) -> Self {
        Self {
            stream,
            arrivals: Arrivals::new(),
            reset: None,
            has_ended: false,
            hints,
            read_now,
            _room: room,
        }
    }

    /// Reads what has arrived, even if tokio hasn't noticed it yet.
    fn poll_arrived(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let known = (self.arrivals).poll(cx, |cx| stream.poll_read(cx, buffer));
        if known.is_ready() || !self.hints.take_read_first() {
            return known;
        }
        match (self.read_now)(&self.stream, buffer) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// The result of a write. A closed connection is reported only when there is nothing more to read.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Err(error) if self.may_have_answered(error.kind()) => {
                self.hints.ending().ended_by_pod();
                let (error, grace) = (error.kind(), None);
                self.reset = Some(Reset { error, grace });
                self.poll_reset(cx).map(Err)
            }
            other => {
                if let Err(error) = &other {
                    self.hints.ending().broken(error.kind());
                }
                Poll::Ready(other)
            }
        }
    }

    fn may_have_answered(&self, error: io::ErrorKind) -> bool {
        is_reset(error) && !self.has_ended && !self.hints.is_upgraded()
    }

    /// Whether writing has failed. Pending while there may be something to read.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(reset) = &mut self.reset else {
            return Poll::Pending;
        };
        if !self.has_ended && !self.hints.is_upgraded() {
            let grace = reset.grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
            ready!(grace.as_mut().poll(cx));
        }
        Poll::Ready(reset.error.into())
    }

    /// Notes the result of a read.
    fn has_read(&mut self, read: io::Result<usize>) -> io::Result<()> {
        match (read, &mut self.reset) {
            (Ok(1..), Some(reset)) => reset.grace = None,
            (Ok(1..), None) => {}
            (Ok(0), reset) => {
                self.has_ended = true;
                self.hints.ending().ended_by_pod();
                // The write has consumed the system's error, so this end is not the pod's own. (After an end of the
                // pod's own, Linux reports a broken pipe.)
                if let Some(reset) = reset
                    && reset.error == io::ErrorKind::ConnectionReset
                {
                    return Err(reset.error.into());
                }
            }
            (Err(error), _) => {
                self.has_ended = true;
                self.hints.ending().broken(error.kind());
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<R> Drop for Socket<R> {
    fn drop(&mut self) {
        self.hints.ending().close();
    }
}

fn is_reset(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

impl<R: Unpin> AsyncRead for Socket<R> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(self.poll_arrived(cx, buffer));
        if buffer.remaining() == 0 && buffer.filled().len() == before {
            return Poll::Ready(read);
        }
        let bytes = buffer.filled().len() - before;
        Poll::Ready(self.has_read(read.map(|()| bytes)))
    }
}

impl<R: Unpin> AsyncWrite for Socket<R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.reset.is_some() {
            return self.poll_reset(cx).map(Err);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.reset.is_some() {
            return self.poll_reset(cx).map(Err);
        }
        // hyper writes lists of slices, almost always of one. For the system, one slice (`send`) is cheaper than a
        // list.
        let stream = Pin::new(&mut self.stream);
        let written = ready!(match data {
            [only] => stream.poll_write(cx, only),
            _ => stream.poll_write_vectored(cx, data),
        });
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
