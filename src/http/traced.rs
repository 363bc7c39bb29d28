//! A request at the balancer, in the span of its attempt if there is one.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{
    body::PodRequest,
    pod::PodService,
    response::{OnResponseEnd, ResponseBody},
    span::{AttemptSpan, Trace},
};
use crate::{balance::ResponseFuture, error::Error, hedge::Runner};

type Sent = ResponseFuture<PodService, PodRequest, OnResponseEnd>;

pin_project! {
    pub(super) struct Traced {
        #[pin]
        sent: Sent,
        span: Option<Box<AttemptSpan>>,
    }
}

impl Traced {
    /// Begins an attempt by `send`.
    #[inline]
    pub(super) fn new(trace: Option<&Trace>, send: impl FnOnce() -> Sent) -> Self {
        let Some(trace) = trace else {
            return Self {
                sent: send(),
                span: None,
            };
        };
        let span = Box::new(trace.attempt());
        Self {
            sent: span.span().in_scope(send),
            span: Some(span),
        }
    }
}

/// Gives access to the balancer's future.
impl Deref for Traced {
    type Target = Sent;

    fn deref(&self) -> &Sent {
        &self.sent
    }
}

impl Future for Traced {
    type Output = Result<Response<ResponseBody>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(span) = this.span else {
            return this.sent.poll(cx);
        };
        let polled = span.span().clone().in_scope(|| this.sent.as_mut().poll(cx));
        match &polled {
            Poll::Pending => {
                if let Some(pod) = this.sent.endpoint() {
                    span.is_at(pod);
                }
            }
            Poll::Ready(Ok(response)) => {
                if let Some(pod) = response.body().endpoint() {
                    span.is_at(pod);
                }
                span.answered(response.status());
            }
            Poll::Ready(Err(error)) => {
                if let Some(pod) = error.endpoint() {
                    span.is_at(pod);
                }
                span.failed(error);
            }
        }
        if polled.is_ready() {
            *this.span = None;
        }
        polled
    }
}

impl Runner for Traced {
    fn overtaken(self: Pin<&mut Self>) {
        self.project().sent.overtaken();
    }

    fn withdraw(self: Pin<&mut Self>) {
        self.project().sent.withdraw();
    }

    fn time_is_up(self: Pin<&mut Self>) {
        self.project().sent.time_is_up();
    }

    fn keep_away_from(self: Pin<&mut Self>, other: &Self) {
        self.project().sent.keep_away_from(&other.sent);
    }
}
