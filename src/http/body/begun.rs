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

/// A stream of which the beginning has been read.
pub(in crate::http) struct Begun<B> {
    ahead: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: B,
    /// The beginning is all there is.
    ended: bool,
    /// Of the whole.
    size_hint: SizeHint,
}

/// So many frames of a body are read in its caller's task, if they are ready at once: gRPC's bodies of one message and no
/// end take two looks.
const AT_ONCE: usize = 2;

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Begun<B> {
    /// Reads what is ready of a stream.
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

    /// The stream, of which the beginning has been read.
    pub(super) fn stream(&self) -> &B {
        &self.rest
    }

    fn read(&mut self) {
        // Nobody is woken: whoever reads on looks again.
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

/// The error of a request whose body has panicked.
pub(in crate::http) fn panicked(panic: &(dyn Any + Send)) -> BoxError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the request's body panicked: {}", text.unwrap_or("?")).into()
}
