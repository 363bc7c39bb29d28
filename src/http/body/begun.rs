//! A request body whose beginning is read in its caller's task.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// A stream whose beginning has been read.
pub(in crate::http) struct Begun<B> {
    ahead: Ahead,
    rest: B,
    /// Whether the beginning is the whole body.
    ended: bool,
    /// Of the whole body.
    size_hint: SizeHint,
}

/// The frames that are read in the caller's task, if they are ready at once. A gRPC body of one message and its end
/// takes two polls.
#[derive(Default)]
struct Ahead {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    /// Boxed, because most bodies end after the first, and a frame is large.
    second: Option<Box<Result<Frame<Bytes>, BoxError>>>,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.second.is_none()
    }

    fn has_room(&self) -> bool {
        self.second.is_none()
    }

    fn push(&mut self, frame: Result<Frame<Bytes>, BoxError>) {
        match self.is_empty() {
            true => self.first = Some(frame),
            false => self.second = Some(Box::new(frame)),
        }
    }

    fn pop(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let second = || self.second.take().map(|frame| *frame);
        self.first.take().or_else(second)
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Begun<B> {
    /// Reads what the stream has ready.
    pub(super) fn of(stream: B) -> Self {
        let mut begun = Self {
            ahead: Ahead::default(),
            size_hint: stream.size_hint(),
            rest: stream,
            ended: false,
        };
        begun.read();
        begun
    }

    /// Whether the next frame, or the end, has been read.
    pub(super) fn is_at_hand(&self) -> bool {
        self.ended || !self.ahead.is_empty()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended && self.ahead.is_empty()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.size_hint
    }

    /// The stream behind the frames that were read.
    pub(super) fn stream(&self) -> &B {
        &self.rest
    }

    fn read(&mut self) {
        // No wakeup is needed: the next reader polls again.
        let mut cx = Context::from_waker(Waker::noop());
        while !self.ended && self.ahead.has_room() {
            let look = || Pin::new(&mut self.rest).poll_frame(&mut cx);
            match catch_unwind(AssertUnwindSafe(look)) {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(None)) => self.ended = true,
                Ok(Poll::Ready(Some(frame))) => {
                    self.ended = frame.is_err() || self.rest.is_end_stream();
                    self.ahead.push(frame);
                }
                Err(panic) => {
                    self.ended = true;
                    self.ahead.push(Err(panicked(&*panic)));
                }
            }
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.ahead.pop() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if self.ended => Poll::Ready(None),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// The error of a request whose body panicked.
pub(in crate::http) fn panicked(panic: &(dyn Any + Send)) -> BoxError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the request's body panicked: {}", text.unwrap_or("?")).into()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn frames_come_in_order_whether_they_were_read_ahead_or_not() {
        for count in 0..5_u8 {
            let frames =
                (0..count).map(|at| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![at]))));
            let stream = StreamBody::new(stream::iter(frames)).map_err(BoxError::from);
            let mut begun = Begun::of(stream);
            assert!(begun.is_at_hand());
            let mut read = Vec::new();
            while let Some(frame) = std::future::poll_fn(|cx| begun.poll_frame(cx)).await {
                read.extend(frame.expect("no error").into_data().expect("data"));
            }
            assert!(read.into_iter().eq(0..count));
        }
    }
}
