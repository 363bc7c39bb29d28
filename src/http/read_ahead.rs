//! A response's body that may be read before its caller asks.
//!
//! Used for a response that is set aside while another pod is asked: once it is read to its end, its connection is
//! free.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

pub(super) struct ReadAhead<B: Body> {
    body: B,
    /// Boxed, because most bodies have none, and all are moved.
    ahead: Option<Box<Ahead<B::Error>>>,
}

/// What was read of a body before the caller asked.
struct Ahead<E> {
    frames: VecDeque<Result<Frame<Bytes>, E>>,
    /// How much data is in the frames.
    bytes: usize,
}

impl<E> Ahead<E> {
    fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, frame: Result<Frame<Bytes>, E>) {
        self.bytes += len(&frame);
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Result<Frame<Bytes>, E>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= len(&frame);
        Some(frame)
    }

    fn ends_in_an_error(&self) -> bool {
        matches!(self.frames.back(), Some(Err(_)))
    }
}

/// How much data a frame has.
fn len<E>(frame: &Result<Frame<Bytes>, E>) -> usize {
    let data = frame.as_ref().ok().and_then(Frame::data_ref);
    data.map_or(0, Bytes::len)
}

impl<B: Body<Data = Bytes> + Unpin> ReadAhead<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, ahead: None }
    }

    /// Reads on until there are more than `limit` bytes. Returns whether the body has been read to its end.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>, limit: usize) -> bool {
        let ahead = self.ahead.get_or_insert_with(|| Box::new(Ahead::new()));
        while ahead.bytes <= limit && !ahead.ends_in_an_error() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => ahead.push(frame),
                Poll::Ready(None) => return true,
                Poll::Pending => break,
            }
        }
        self.body.is_end_stream() && !ahead.ends_in_an_error()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadAhead<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.ahead.as_mut().and_then(|ahead| ahead.pop()) {
            return Poll::Ready(Some(frame));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let ahead = self.ahead.as_ref();
        ahead.is_none_or(|ahead| ahead.frames.is_empty()) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let Some(ahead) = &self.ahead else {
            return hint;
        };
        let ahead = ahead.bytes as u64;
        // The upper bound first, so that it is never below the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(hint.lower().saturating_add(ahead));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, Full, StreamBody};
    use std::task::Waker;

    fn of(
        chunks: &[Result<&'static str, &'static str>],
    ) -> ReadAhead<impl Body<Data = Bytes, Error = &'static str> + Unpin + use<>> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|&chunk| chunk.map(|chunk| Frame::data(Bytes::from(chunk))))
            .collect();
        ReadAhead::new(StreamBody::new(stream::iter(frames)))
    }

    fn read<B: Body>(body: &ReadAhead<B>) -> usize {
        body.ahead.as_ref().map_or(0, |ahead| ahead.frames.len())
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[tokio::test]
    async fn frames_read_ahead_come_first_and_the_rest_follows() {
        let mut body = of(&[Ok("ab"), Ok("cd"), Ok("ef"), Ok("gh")]);
        assert!(!body.read_ahead(&mut context(), 3), "two of four");
        assert_eq!(read(&body), 2);
        assert_eq!(body.size_hint().lower(), 4);
        assert!(!body.is_end_stream());
        let whole = body.collect().await.expect("no error").to_bytes();
        assert_eq!(whole, "abcdefgh");
    }

    #[tokio::test]
    async fn a_body_read_ahead_to_its_end_loses_nothing() {
        let mut body = ReadAhead::new(Full::new(Bytes::from("abc")));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(body.read_ahead(&mut context(), 100));
        assert!(body.read_ahead(&mut context(), 100), "however often");
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.frame().await.map(|frame| frame.is_ok()), Some(true));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn an_error_stops_reading_ahead_and_reaches_the_reader() {
        let mut body = of(&[Ok("ab"), Err("reset"), Ok("cd")]);
        assert!(!body.read_ahead(&mut context(), 100));
        assert!(!body.read_ahead(&mut context(), 100));
        assert_eq!(read(&body), 2, "nothing is read after it");
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(body.frame().await.is_some_and(|frame| frame.is_err()));
    }
}
