//! A request body whose beginning is read in its caller's task.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// A stream whose beginning has been read.
pub(in crate::http) struct Begun<B> {
    ahead: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: B,
    /// Whether the beginning is the whole body.
    ended: bool,
    /// Of the whole body.
    size_hint: SizeHint,
}

/// How many frames are read in the caller's task, if they are ready at once: a gRPC body of one message and its end
/// takes two polls.
const AT_ONCE: usize = 2;

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Begun<B> {
    /// Reads what the stream has ready.
    pub(super) fn of(stream: B) -> Self {
        let mut begun = Self {
            ahead: VecDeque::new(),
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
        while !self.ended && self.ahead.len() < AT_ONCE {
            let look = || Pin::new(&mut self.rest).poll_frame(&mut cx);
            match catch_unwind(AssertUnwindSafe(look)) {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(None)) => self.ended = true,
                Ok(Poll::Ready(Some(frame))) => {
                    self.ended = frame.is_err() || self.rest.is_end_stream();
                    self.ahead.push_back(frame);
                }
                Err(panic) => {
                    self.ended = true;
                    self.ahead.push_back(Err(panicked(&*panic)));
                }
            }
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.ahead.pop_front() {
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
