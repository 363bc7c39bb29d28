//! The page's responses: their headers and their body.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use http_body::{Frame, SizeHint};

use super::{html, json};

/// The content security policy of all answers but the page, whose own policy allows its script.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Keeps other sites from loading an answer in any way.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn html() -> ResponseFuture {
    let (page, policy) = html::page();
    let policy = HeaderValue::try_from(policy);
    let mut response = response(StatusCode::OK, HTML, page);
    if let Ok(policy) = policy {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    ResponseFuture::now(response)
}

pub(super) fn json(making: json::Making) -> ResponseFuture {
    ResponseFuture(State::Making(making), false)
}

pub(super) fn not_found() -> ResponseFuture {
    let text = "not found: there are only the page and \"json\" beside it\n";
    let text = Bytes::from_static(text.as_bytes());
    ResponseFuture::now(response(StatusCode::NOT_FOUND, TEXT, text))
}

pub(super) fn not_allowed() -> ResponseFuture {
    let text = Bytes::from_static(b"only GET and HEAD are allowed\n");
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allowed);
    ResponseFuture::now(response)
}

fn made(made: json::Made) -> Response<Body> {
    match made {
        Ok(json) => response(StatusCode::OK, JSON, json),
        Err(error) => {
            let text = format!("the balancers could not be explained: {error}\n");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text.into())
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body(body.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, NOTHING),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A HEAD's answer says how long the body would be.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

/// The future of a [`Page`](super::Page)'s response, which may have to be made first. It never fails.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(State, bool);

enum State {
    Now(Option<Response<Body>>),
    Making(json::Making),
}

impl ResponseFuture {
    fn now(response: Response<Body>) -> Self {
        Self(State::Now(Some(response)), false)
    }

    pub(super) fn without_body(mut self, is_head: bool) -> Self {
        self.1 = is_head;
        self
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.0 {
            State::Now(response) => response.take().expect("polled after its end"),
            State::Making(making) => made(ready!(making.poll_unpin(cx))),
        };
        if self.1 {
            *response.body_mut() = Body(Bytes::new());
        }
        Poll::Ready(Ok(response))
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// The body of a [`Page`](super::Page)'s response: one piece, ready at once.
#[derive(Clone, Debug, Default)]
pub struct Body(Bytes);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let all = mem::take(&mut self.0);
        Poll::Ready((!all.is_empty()).then(|| Ok(Frame::data(all))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
