//! Requests that end with the bodies of their HTTP responses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Completion, InFlight};
use crate::{
    error::BoxError,
    outcome::{ByStatus, ClassifyHttp, Outcome},
};

/// A [`Completion`] that ends a request when the body of its HTTP response ends: at the end of the stream, at an error,
/// or when it is dropped.
///
/// The outcome goes by the status, [of HTTP and of gRPC](ByStatus), unless you give it your own
/// [classifier](ClassifyHttp). A body that breaks off is a failure. If the body is dropped, the outcome of the head
/// counts.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
pub struct OnBodyEnd<C = ByStatus>(C);

impl OnBodyEnd {
    /// Outcomes are [`ByStatus`].
    pub const fn new() -> Self {
        Self(ByStatus)
    }
}

impl<C> OnBodyEnd<C> {
    /// `classify` decides the outcomes.
    pub const fn by(classify: C) -> Self {
        Self(classify)
    }
}

impl<B: Body, C: ClassifyHttp + Clone> Completion<http::Response<B>> for OnBodyEnd<C> {
    type Response = http::Response<CountedBody<B, C>>;

    #[inline]
    fn complete(&self, mut in_flight: InFlight, response: http::Response<B>) -> Self::Response {
        let outcome = self.0.head(response.status(), response.headers());
        in_flight.report(outcome);
        if outcome.is_turned_away() {
            in_flight.note_status(response.status());
        }
        response.map(|body| CountedBody {
            in_flight: (!body.is_end_stream()).then_some(in_flight),
            body,
            classify: self.0.clone(),
        })
    }

    fn failed(&self, error: &BoxError) -> Outcome {
        self.0.error(error)
    }

    fn status(&self, response: &http::Response<B>) -> Option<u16> {
        Some(response.status().as_u16())
    }
}

pin_project! {
    /// A response body that keeps its request counted as in flight until it ends.
    #[derive(Debug)]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    pub struct CountedBody<B, C = ByStatus> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
        classify: C,
    }
}

impl<B: Body, C: ClassifyHttp> Body for CountedBody<B, C> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(in_flight) = this.in_flight {
            in_flight.look_at(&frame, this.classify);
        }
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.in_flight = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl InFlight {
    /// Reports an outcome if a frame of the response has one.
    #[inline]
    pub(crate) fn look_at<D, E>(
        &mut self,
        frame: &Option<Result<Frame<D>, E>>,
        classify: &(impl ClassifyHttp + ?Sized),
    ) {
        match frame {
            Some(Err(_)) => self.report(Outcome::Failure),
            Some(Ok(frame)) => {
                let trailers = frame.trailers_ref();
                if let Some(outcome) = trailers.and_then(|it| classify.trailers(it)) {
                    self.report(outcome);
                }
            }
            None => {}
        }
    }
}
