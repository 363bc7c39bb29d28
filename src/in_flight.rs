//! The guard that counts a request in flight, from the pick to the end of its response, exactly once.

use std::{fmt, sync::Arc};

use crate::{
    endpoint::Endpoint,
    load::{Load, Share},
};

/// One request in flight. Dropping it, whenever and for whatever reason, counts the request out.
///
/// A [`Completion`] decides how long it lives.
pub struct InFlight {
    share: Arc<Share>,
    trial: bool,
}

impl InFlight {
    /// A request that a pick has brought to `load`; a `trial` is one sent to find out whether an endpoint accepts requests
    /// again.
    #[inline]
    pub(crate) fn new(load: &Load, trial: bool) -> Self {
        Self {
            share: load.share(),
            trial,
        }
    }

    /// The endpoint that has the request, as it was known when it joined the set.
    /// [`Balance::endpoints`](crate::Balance::endpoints) shows what has been learnt of it since.
    pub fn endpoint(&self) -> &Endpoint {
        self.share.endpoint()
    }

    #[inline]
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Ends the trial, if this was one: its outcome is known.
    #[inline]
    pub(crate) fn end_trial(&mut self) -> bool {
        std::mem::take(&mut self.trial)
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        self.share.end();
        if self.trial {
            // Cancelled before its outcome was known: the next request may try.
            self.share.offer_trial();
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.endpoint()).finish()
    }
}

/// When a request stops counting as in flight, given its response.
///
/// [`OnResponse`] suits responses that come whole; [`OnBodyEnd`] suits HTTP. A protocol with a response of its own kind
/// implements this by moving the guard into that response.
pub trait Completion<R>: Send + Sync + 'static {
    /// The response as the caller gets it.
    type Response;

    /// Keeps `in_flight` for as long as the request runs.
    fn complete(&self, in_flight: InFlight, response: R) -> Self::Response;
}

/// A request ends when its response comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnResponse;

impl<R> Completion<R> for OnResponse {
    type Response = R;

    #[inline]
    fn complete(&self, _: InFlight, response: R) -> R {
        response
    }
}

#[cfg(feature = "http-body")]
pub use body::{CountedBody, OnBodyEnd};

#[cfg(feature = "http-body")]
mod body {
    use std::{
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use http_body::{Body, Frame, SizeHint};
    use pin_project_lite::pin_project;

    use super::{Completion, InFlight};

    /// A request ends when the body of its HTTP response has: at the end of the stream, at an error, or when it is
    /// dropped.
    #[derive(Clone, Copy, Debug, Default)]
    #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
    pub struct OnBodyEnd;

    impl<B: Body> Completion<http::Response<B>> for OnBodyEnd {
        type Response = http::Response<CountedBody<B>>;

        #[inline]
        fn complete(&self, in_flight: InFlight, response: http::Response<B>) -> Self::Response {
            response.map(|body| CountedBody {
                in_flight: (!body.is_end_stream()).then_some(in_flight),
                body,
            })
        }
    }

    pin_project! {
        /// A response body that keeps its request counted as in flight until it ends.
        #[derive(Debug)]
        #[cfg_attr(docsrs, doc(cfg(feature = "http-body")))]
        pub struct CountedBody<B> {
            #[pin]
            body: B,
            in_flight: Option<InFlight>,
        }
    }

    impl<B: Body> Body for CountedBody<B> {
        type Data = B::Data;
        type Error = B::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
            let mut this = self.project();
            let frame = ready!(this.body.as_mut().poll_frame(cx));
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
}
