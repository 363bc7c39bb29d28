//! The future of a request made by the client's methods.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;

use super::{
    body::RequestBody,
    client::Client,
    error::Error,
    future::ResponseFuture,
    reply::{Asked, Response, ResponseLimit},
};

/// The future of [`RequestBuilder::send`](super::RequestBuilder::send), of awaiting the builder itself, and of
/// [`Client::execute`].
///
/// The request is sent when it is first polled. Dropping it cancels the request.
#[must_use = "a request is sent when its future is polled"]
pub struct SendFuture(Pin<Box<State>>);

pin_project! {
    #[project = StateProjection]
    enum State {
        Unsent {
            client: Client,
            request: Option<Result<Request<RequestBody>, Error>>,
        },
        Sent {
            #[pin]
            future: ResponseFuture,
            asked: Option<Asked>,
        },
    }
}

impl SendFuture {
    pub(super) fn new(client: Client, request: Result<Request<RequestBody>, Error>) -> Self {
        Self(Box::pin(State::Unsent {
            client,
            request: Some(request),
        }))
    }
}

impl Future for SendFuture {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.as_mut();
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Unsent { client, request } => {
                    let request = request.take().expect("polled after completion");
                    let mut request = request?;
                    let limit = request.extensions_mut().remove();
                    let limit = client.response_limit(limit.map(|ResponseLimit(limit)| limit));
                    let asked = Asked::of(&request, limit);
                    State::Sent {
                        future: client.start(request, cx),
                        asked: Some(asked),
                    }
                }
                StateProjection::Sent { future, asked } => {
                    let response = ready!(future.poll(cx))?;
                    let asked = asked.take().expect("polled after completion");
                    return Poll::Ready(Ok(Response::new(response, asked)));
                }
            };
            state.set(next);
        }
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}
