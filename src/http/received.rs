//! A response's body as it arrives, within the client's limits.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    h2_task::Http2State,
    sync_body::SyncBody,
    wire_limits::{TooLarge, WireLimits},
};
use crate::error::BoxError;

pub(super) enum Received {
    Pod(FromPod),
    /// A body made by a layer or a test.
    Foreign(SyncBody),
}

pub(super) struct FromPod {
    body: Incoming,
    limits: WireLimits,
    /// The connection, if it is HTTP/2.
    http2: Option<Arc<Http2State>>,
}

/// Why a body has no more frames.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// It is larger than the client reads.
    Limit(TooLarge),
    Broken(hyper::Error),
    /// It ends before its end.
    Cut(CutShort),
    Foreign(BoxError),
}

/// A pod may end a stream with `NO_ERROR` when its response is complete (RFC 9113 §8.1). hyper takes that for the end
/// of any response.
#[derive(Debug, thiserror::Error)]
#[error(
    "it ended the HTTP/2 stream before the end of its response (RST_STREAM or GOAWAY: NO_ERROR)"
)]
pub(super) struct CutShort(#[source] h2::Error);

impl Received {
    pub(super) fn new(body: Incoming, limits: WireLimits, http2: Option<Arc<Http2State>>) -> Self {
        Self::Pod(FromPod {
            body,
            limits,
            http2,
        })
    }
}

impl FromPod {
    fn check(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, ReceiveError> {
        if self.http2.is_some() {
            self.limits
                .check_frame(&frame)
                .map_err(ReceiveError::Limit)?;
        }
        Ok(frame)
    }

    /// Checks that hyper's end is that of the response.
    fn end(&self) -> Option<Result<Frame<Bytes>, ReceiveError>> {
        let is_cut = self.http2.is_some() && !self.body.is_end_stream();
        is_cut.then(|| Err(ReceiveError::Cut(CutShort(h2::Reason::NO_ERROR.into()))))
    }

    fn error(&self, error: hyper::Error) -> ReceiveError {
        let limit = match &self.http2 {
            Some(http2) if http2.seen.has_overrun() => TooLarge::Block(self.limits.block_size()),
            None if is_of_trailers(&error) => self.limits.http1_trailers(),
            _ => return ReceiveError::Broken(error),
        };
        ReceiveError::Limit(limit)
    }
}

/// Whether it is hyper's limit of trailers, which has no kind of its own.
fn is_of_trailers(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let cause = source.and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        cause.kind() == io::ErrorKind::InvalidData
            && cause.to_string().starts_with("chunk trailers")
    })
}

impl Body for Received {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match &mut *self {
            Self::Pod(pod) => {
                let frame = ready!(Pin::new(&mut pod.body).poll_frame(cx));
                Poll::Ready(match frame {
                    Some(Ok(frame)) => Some(pod.check(frame)),
                    Some(Err(error)) => Some(Err(pod.error(error))),
                    None => pod.end(),
                })
            }
            Self::Foreign(foreign) => {
                let frame = ready!(Pin::new(foreign).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(ReceiveError::Foreign)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pod(pod) => pod.body.is_end_stream(),
            Self::Foreign(foreign) => foreign.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pod(pod) => pod.body.size_hint(),
            Self::Foreign(foreign) => foreign.size_hint(),
        }
    }
}
