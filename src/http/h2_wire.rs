//! Looks at an HTTP/2 connection's bytes as they pass, to learn what h2 knows but doesn't tell.
//!
//! It reads only the frames' heads (RFC 9113 §4.1), and copies no body.
//!
//! | frame | why it is looked at |
//! | --- | --- |
//! | GOAWAY | the connection stops taking requests at once, not only with the next one |
//! | outgoing HEADERS | to know whether a request that hyper gave up was written |
//! | the length of a block of headers | so that no header is dropped unnoticed (`wire_limits.rs`) |
//! | empty DATA | h2 closes a connection with more than a hundred in its life: their type is changed to one that is ignored |
//! | our SETTINGS | to tell pods our limit, not h2's |

mod announcement;
mod scanner;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{
    announcement::{Announcement, PREFACE},
    scanner::{GOAWAY, HEAD, KIND, Scanner},
};
use super::wire_limits::{TooLarge, WireLimits};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// A type without meaning, which is ignored (RFC 9113 §5.5).
const UNKNOWN: u8 = 0xff;

/// Larger than any stream identifier, which has 31 bits.
const NO_GOAWAY: u32 = u32::MAX;

/// What has been seen of a connection.
#[derive(Debug)]
pub(super) struct Seen {
    /// Whether a GOAWAY has come that nobody has taken yet.
    goes_away: AtomicBool,
    /// The last stream that the pod may process.
    last: AtomicU32,
    /// The last stream whose head has been written.
    opened: AtomicU32,
    /// Whether that has changed since it was last taken.
    has_opened: AtomicBool,
    /// Whether a block of headers was too long.
    has_overrun: AtomicBool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            goes_away: AtomicBool::new(false),
            last: AtomicU32::new(NO_GOAWAY),
            opened: AtomicU32::new(0),
            has_opened: AtomicBool::new(false),
            has_overrun: AtomicBool::new(false),
        }
    }
}

impl Seen {
    /// Whether a GOAWAY has come since the last call.
    pub(super) fn take_go_away(&self) -> bool {
        self.goes_away.load(Relaxed) && self.goes_away.swap(false, Relaxed)
    }

    /// Whether a stream was opened since the last call.
    pub(super) fn take_opened(&self) -> bool {
        self.has_opened.load(Relaxed) && self.has_opened.swap(false, Relaxed)
    }

    pub(super) fn has_overrun(&self) -> bool {
        self.has_overrun.load(Relaxed)
    }

    /// Whether the newest stream can't have been processed. The caller says whether a stream `has_opened` while it
    /// waited.
    ///
    /// It can't if it was never opened, or is above the last one that a GOAWAY names. h2 still opens streams below
    /// that.
    pub(super) fn is_unprocessed(&self, has_opened: bool) -> bool {
        let opened = self.opened.load(Relaxed);
        match self.last.load(Relaxed) {
            NO_GOAWAY => !has_opened,
            last => last < opened || (last == opened && !has_opened),
        }
    }
}

/// A connection whose frames are looked at.
pub(super) struct Wire<T> {
    io: T,
    seen: Arc<Seen>,
    inbound: Scanner,
    outbound: Scanner,
    /// How long the incoming block of headers is so far, and may be.
    block: usize,
    most: usize,
    /// Present until it has been written.
    announcement: Option<Box<Announcement>>,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, limits: &WireLimits, seen: Arc<Seen>) -> Self {
        Self {
            io,
            seen,
            inbound: Scanner::new(0),
            outbound: Scanner::new(PREFACE),
            block: 0,
            most: limits.block_size(),
            announcement: Some(Box::new(Announcement::new(limits.header_size))),
        }
    }

    fn look_at_inbound(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let (seen, block) = (&self.seen, &mut self.block);
        let (mut longest, mut empty) = (0, Vec::new());
        self.inbound.scan(bytes, |head, end| match head.kind {
            DATA if head.is_empty() => empty.push(end),
            HEADERS | CONTINUATION => {
                let before = if head.kind == HEADERS { 0 } else { *block };
                *block = before + head.length;
                longest = longest.max(*block);
            }
            GOAWAY => {
                seen.last.store(head.last, Relaxed);
                seen.goes_away.store(true, Relaxed);
            }
            _ => {}
        });
        // If the frame's head came in two reads, its beginning has been passed on already.
        for end in empty.into_iter().filter(|&end| end >= HEAD) {
            bytes[end - HEAD + KIND] = UNKNOWN;
        }
        if longest > self.most {
            self.seen.has_overrun.store(true, Relaxed);
            return Err(io::Error::other(TooLarge::Block(self.most)));
        }
        Ok(())
    }

    fn look_at_outbound(&mut self, bytes: &[u8]) {
        let seen = &self.seen;
        self.outbound.scan(bytes, |head, _| {
            // Trailers are HEADERS, too.
            if head.kind == HEADERS && head.stream > seen.opened.load(Relaxed) {
                seen.opened.store(head.stream, Relaxed);
                seen.has_opened.store(true, Relaxed);
            }
        });
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    fn poll_announce(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let corrected = self
            .announcement
            .as_ref()
            .and_then(|announcement| announcement.corrected(bytes));
        let bytes = corrected.as_deref().unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.look_at_outbound(&bytes[..written]);
        if let Some(announcement) = &mut self.announcement {
            announcement.wrote(&bytes[..written]);
            if announcement.is_over() {
                self.announcement = None;
            }
        }
        Poll::Ready(Ok(written))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        Poll::Ready(self.look_at_inbound(&mut buffer.filled_mut()[before..]))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.announcement.is_some() {
            return self.poll_announce(cx, bytes);
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.look_at_outbound(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.announcement.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_announce(cx, first.map_or(&[], |slice| slice));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let here = left.min(slice.len());
            self.look_at_outbound(&slice[..here]);
            left -= here;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
