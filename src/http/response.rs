//! Responses: which pod and request they belong to, and what they hold until they end.

mod classify;
mod completion;
mod conversions;
mod excuse;

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::StreamBody;

pub(super) use self::{classify::SharedClassify, completion::OnResponseEnd};

use self::excuse::Excuse;
use super::{
    deadline::Deadline,
    error::{Error, RuntimeEnded},
    grpc::{self, Call, Errors},
    pool::{Lease, Named, Origin},
    read_ahead::ReadAhead,
    received::{ReceiveError, Received},
    span::RequestSpan,
    sync_body::SyncBody,
};
use crate::{endpoint::Endpoint, error::BoxError, in_flight::InFlight, outcome};

/// The body of a response.
///
/// When it has been read to its end, its connection is free again, and its request no longer counts as in flight.
/// Dropped early, it closes its connection (HTTP/1.1) or resets its stream (HTTP/2), unless the rest of it has arrived
/// and is small.
///
/// After an error, each further read returns an error of the same kind, so that nobody takes a part for the whole. Stop
/// at the first.
///
/// Layers and tests can make one from text, bytes, or any [body](Self::new) or [stream](Self::from_stream). The default
/// is empty.
///
/// ```
/// use http::Response;
/// use tower_headless::http::ResponseBody;
///
/// let response = Response::new(ResponseBody::from("from a cache"));
/// assert!(response.body().endpoint().is_none(), "no pod has sent it");
/// ```
pub struct ResponseBody {
    exchange: Box<Exchange>,
}

impl ResponseBody {
    /// A body from a pod's connection.
    pub(super) fn received(body: Received, lease: Lease, named: Named) -> Self {
        Self::of(Some(body), Some(lease), named)
    }

    fn of(body: Option<Received>, lease: Option<Lease>, named: Named) -> Self {
        Self {
            exchange: Box::new(Exchange {
                body: body.map(ReadAhead::new),
                failed: None,
                lease,
                in_flight: None,
                classify: SharedClassify::ByStatus,
                deadline: None,
                call: None,
                span: None,
                named,
            }),
        }
    }

    /// Wraps a body of any type, which no pod has sent. A `ResponseBody` is returned unchanged.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        let body = body.filter(|body| !body.is_end_stream());
        let body = body.map(|body| Received::Foreign(SyncBody::new(body)));
        Self::of(body, None, Named::nobody(None))
    }

    /// Wraps a stream of bytes, which no pod has sent.
    pub fn from_stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::new(StreamBody::new(stream.map_ok(Frame::data)))
    }

    /// An empty body.
    pub fn empty() -> Self {
        Self::of(None, None, Named::nobody(None))
    }

    #[cfg(feature = "json")]
    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.exchange.named.origin
    }

    /// The name of the service, if it is known.
    pub(super) fn service(&self) -> Option<&Arc<str>> {
        self.exchange.named.origin.service.as_ref()
    }

    /// Makes an error of this response.
    pub(super) fn error(&self, make: impl FnOnce(Option<Endpoint>) -> Error) -> Error {
        self.exchange.named.origin.error(make)
    }

    /// The pod that sends it. None if a [layer](super::Client::layer), a test, or the client itself (a gRPC
    /// [status](super::Client#grpc)) has made it.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.exchange.named.origin.endpoint()
    }

    /// Sets the pod and the service after a layer has replaced the body. What is already known stays.
    pub(super) fn of_origin(mut self, pod: Option<&Endpoint>, service: Option<&Arc<str>>) -> Self {
        let origin = &self.exchange.named.origin;
        let is_new = origin.service.is_none() && service.is_some();
        if is_new || (origin.endpoint().is_none() && pod.is_some()) {
            let service = origin.service.as_ref().or(service).cloned();
            self.exchange.named = match origin.endpoint().or(pod) {
                Some(pod) => Named::new(pod.clone(), service),
                None => Named::nobody(service),
            };
        }
        self
    }

    /// Whether the whole body has been read, or there was none.
    pub(super) fn is_over(&self) -> bool {
        self.exchange.body.is_none() && self.exchange.failed.is_none()
    }

    /// Bounds the time for the rest of the body.
    pub(super) fn until(&mut self, deadline: Deadline) {
        if self.exchange.lease.is_some() {
            self.exchange.deadline = Some(deadline);
        }
    }

    /// Makes the body end like that of a gRPC call: if its pod cancels it when the time is up, that is a timeout, and
    /// its errors are told as the call's are. Below layers the call is set first, so its expiry is known there.
    pub(super) fn end_as(&mut self, call: Call) {
        let below = self.exchange.call.and_then(|below| below.expiry);
        let expiry = call.expiry.or(below);
        self.exchange.call = Some(Call { expiry, ..call });
    }

    /// Ends the request's span when the body ends.
    pub(super) fn end_span(&mut self, span: RequestSpan) {
        if !self.is_over() {
            self.exchange.span = Some(span);
        }
    }

    /// Reads up to about `limit` bytes before the caller asks, to free the connection.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>, limit: usize) {
        self.exchange.read_ahead(cx, limit);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self.exchange;
        let Some(body) = &mut this.body else {
            return Poll::Ready(this.failed.as_ref().map(|error| Err(error.again())));
        };
        // Checked first: otherwise a body that always has data for a slow reader would never be late.
        if let Some(deadline) = &mut this.deadline
            && deadline.poll(cx).is_ready()
        {
            let after = deadline.whole();
            let error = this.named.origin.error(|pod| Error::unended(pod, after));
            // Both are dropped, so that the connection closes even if the caller keeps the body.
            this.abandon();
            this.deadline = None;
            return Poll::Ready(Some(this.last(error)));
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let excuse = Excuse::of(&frame, this.lease.as_ref());
        if let (Some(Err(ReceiveError::Broken(error))), Some(lease)) = (&frame, &this.lease) {
            lease.failed(error);
        }
        if let Some(in_flight) = &mut this.in_flight {
            match &frame {
                // If the client refuses to read more, the pod has not failed.
                Some(Err(ReceiveError::Limit(_))) => in_flight.report(outcome::Outcome::Ignored),
                _ if excuse.is_some() => in_flight.report(outcome::Outcome::Ignored),
                frame => in_flight.look_at(frame, &this.classify),
            }
        }
        match &frame {
            Some(Err(_)) => this.abandon(),
            // Not every caller polls again after the last frame, if the length told that it was the last. Trailers always
            // are; asking whether a stream has ended takes the lock of an HTTP/2 connection.
            Some(Ok(frame)) if !frame.is_trailers() && !body.is_end_stream() => {}
            Some(Ok(_)) | None => {
                this.end();
                this.body = None;
            }
        }
        if this.span.is_some() && this.body.is_none() {
            this.end_span(frame.as_ref());
        }
        Poll::Ready(frame.map(|frame| {
            if let Some(error) = this.late(&frame) {
                return this.last(error);
            }
            frame.or_else(|error| {
                let origin = &this.named.origin;
                let error = match (excuse, error) {
                    (Some(Excuse::RequestBody(error)), _) => {
                        origin.error(|_| Error::request_body(error))
                    }
                    (Some(Excuse::CutOff), _) => {
                        origin.error(|pod| Error::cut_off(pod, RuntimeEnded))
                    }
                    (Some(Excuse::Elsewhere(why)), _) => {
                        origin.error(|pod| Error::cut_off(pod, why))
                    }
                    (None, ReceiveError::Limit(limit)) => {
                        origin.error(|pod| Error::limit(pod, limit))
                    }
                    (None, ReceiveError::Broken(error)) => {
                        origin.error(|pod| Error::body(pod, error))
                    }
                    (None, ReceiveError::Cut(why)) => origin.error(|pod| Error::body(pod, why)),
                    (None, ReceiveError::Foreign(error)) => origin.error(|_| Error::layer(error)),
                };
                this.last(error)
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.exchange.body {
            Some(body) => body.size_hint(),
            None if self.exchange.failed.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// How much of a body that is dropped is read for the sake of its connection.
const UNREAD: usize = 16 << 10;

/// A response from its head to its end. Boxed once, because it passes through many types on its way to its caller.
struct Exchange {
    /// None once the whole body has been read, or has failed.
    body: Option<ReadAhead<Received>>,
    /// The error, if the body failed.
    failed: Option<Error>,
    /// The connection, until the response has ended.
    lease: Option<Lease>,
    /// Counts the request as in flight until the response has ended. The balancer adds it.
    in_flight: Option<InFlight>,
    classify: SharedClassify,
    deadline: Option<Deadline>,
    /// If this is a gRPC call, how it ends.
    call: Option<Call>,
    /// The request's span, until the response has ended.
    span: Option<RequestSpan>,
    named: Named,
}

impl Exchange {
    fn read_ahead(&mut self, cx: &mut Context<'_>, limit: usize) {
        if self.lease.is_some()
            && let Some(body) = &mut self.body
            && body.read_ahead(cx, limit)
        {
            self.end();
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.failed.is_none(),
        }
    }

    fn end(&mut self) {
        self.deadline = None;
        // Before the request counts as ended: its caller may rely on a free connection then.
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        self.in_flight = None;
    }

    /// Gives up the response, and its connection.
    fn abandon(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_up();
        }
        self.in_flight = None;
    }

    /// The error of a call that its pod cancelled by its trailers when the time was up.
    fn late(&self, frame: &Result<Frame<Bytes>, ReceiveError>) -> Option<Error> {
        let call = self.call.as_ref()?;
        // Most calls have no time of their own, and nothing is looked up for them.
        call.expiry?;
        let trailers = frame.as_ref().ok()?.trailers_ref()?;
        let after = grpc::has_cancelled(trailers).then(|| call.over())??;
        let origin = &self.named.origin;
        Some(origin.error(|pod| Error::unended(pod, after)))
    }

    /// Ends the request's span at the last frame, unless that is an error, or will become one.
    #[cold]
    fn end_span(&mut self, last: Option<&Result<Frame<Bytes>, ReceiveError>>) {
        if last.is_some_and(|last| last.is_err() || self.late(last).is_some()) {
            return;
        }
        let trailers = last.and_then(|last| last.as_ref().ok()?.trailers_ref());
        if let Some(span) = self.span.take()
            && let Some(trailers) = trailers
        {
            span.trailers(trailers);
        }
    }

    /// The last frame, if `error` is why there are no more. Each further read returns it again, because an end without
    /// an error would mean a whole body.
    #[cold]
    fn last(&mut self, mut error: Error) -> Result<Frame<Bytes>, Error> {
        self.body = None;
        if let Some(call) = &self.call {
            if grpc::is_cancelled(&error)
                && let Some(after) = call.over()
            {
                error = Error::unended(error.endpoint().cloned(), after).because(error);
            }
            if call.errors == Errors::Statuses
                && let Some(status) = grpc::status(&error)
            {
                if let Some(span) = self.span.take() {
                    span.trailers(&status);
                }
                return Ok(Frame::trailers(status));
            }
        }
        if let Some(mut span) = self.span.take() {
            span.failed(&error);
        }
        self.failed = Some(error.again());
        Err(error)
    }
}

/// What is dropped unread is often here already: then its connection need not be closed. Nothing waits for the rest.
impl Drop for Exchange {
    fn drop(&mut self) {
        self.read_ahead(&mut Context::from_waker(Waker::noop()), UNREAD);
        if let Some(lease) = &self.lease {
            lease.give_up();
        }
    }
}

impl Origin {
    pub(super) fn error(&self, make: impl FnOnce(Option<Endpoint>) -> Error) -> Error {
        make(self.endpoint().cloned()).of_service(self.service.as_ref())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("pod", &self.endpoint())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error as BalanceError,
        http::{
            deadline::Until,
            error::{Failure, Outcome, Wait},
            grpc::Expiry,
        },
        member::Member,
        signals::Signals,
    };
    use futures_util::{StreamExt, stream};
    use http::{HeaderMap, HeaderValue, StatusCode};
    use http_body_util::BodyExt;
    use std::time::Duration;
    use tokio::time::Instant;

    /// Wraps a body as layers do.
    type Wrap = fn(ResponseBody) -> ResponseBody;

    const LAYERS: [Option<Wrap>; 3] = [
        None,
        Some(|body| body),
        Some(|body| ResponseBody::new(body.map_err(BoxError::from))),
    ];

    /// The status with which a call's body ends that has this time, which is known below the layers if there are any.
    async fn ended(body: ResponseBody, time: Duration, layers: Option<Wrap>) -> String {
        let mut body = body;
        let expiry = Until::after(time).map(Expiry::of);
        let call = |expiry, errors| Call { expiry, errors };
        match layers {
            None => body.end_as(call(expiry, Errors::Statuses)),
            Some(wrap) => {
                body.end_as(call(expiry, Errors::Typed));
                body = wrap(body);
                body.end_as(call(None, Errors::Statuses));
            }
        }
        let end = body.collect().await.expect("a status");
        let trailers = end.trailers().expect("trailers");
        let code = trailers["grpc-status"].to_str();
        code.expect("text").to_owned()
    }

    #[tokio::test]
    async fn a_stream_cancelled_by_its_pod_at_the_deadline_is_a_timeout() {
        let (over, long) = (Duration::ZERO, Duration::from_secs(3600));
        let body = |code: u16| {
            let code = HeaderValue::from(code);
            let trailers = HeaderMap::from_iter([(outcome::GRPC_STATUS.clone(), code)]);
            let frames = [
                Frame::data(Bytes::from("a part")),
                Frame::trailers(trailers),
            ];
            let frames = frames.map(Ok::<_, BoxError>);
            ResponseBody::new(StreamBody::new(stream::iter(frames)))
        };
        let reset = |reason: h2::Reason| {
            let reset = Err::<Frame<Bytes>, _>(h2::Error::from(reason));
            ResponseBody::new(StreamBody::new(stream::iter([reset])))
        };
        for layers in LAYERS {
            assert_eq!(ended(body(1), over, layers).await, "4");
            let other = "it has another reason";
            assert_eq!(ended(body(1), long, layers).await, "1", "{other}");
            assert_eq!(ended(body(0), over, layers).await, "0");
            let cancel = || reset(h2::Reason::CANCEL);
            assert_eq!(ended(cancel(), over, layers).await, "4");
            assert_eq!(ended(cancel(), long, layers).await, "1");
            let broken = reset(h2::Reason::INTERNAL_ERROR);
            assert_eq!(ended(broken, over, layers).await, "13");
        }
    }

    #[tokio::test]
    async fn a_stream_that_its_trailers_end_in_time_or_late_is_no_longer_in_flight() {
        for (time, status) in [(Duration::from_secs(3600), "1"), (Duration::ZERO, "4")] {
            assert_ends_with_its_trailers(time, status).await;
        }
    }

    /// A call with this much time, which its pod cancels by trailers.
    async fn assert_ends_with_its_trailers(time: Duration, status: &str) {
        let signals = Arc::new(Signals::new(Instant::now()));
        let pod = Endpoint::new(([10, 0, 0, 1], 80).into());
        let member = Member::new(pod, None, None, signals);
        assert!(member.begin());
        let code = HeaderValue::from(1);
        let trailers = HeaderMap::from_iter([(outcome::GRPC_STATUS.clone(), code)]);
        let frames = stream::iter([Ok::<_, BoxError>(Frame::trailers(trailers))]);
        // The end never arrives.
        let frames = frames.chain(stream::pending());
        let mut body = ResponseBody::new(StreamBody::new(frames));
        body.exchange.in_flight = Some(InFlight::new(&member, false));
        body.end_as(Call {
            expiry: Until::after(time).map(Expiry::of),
            errors: Errors::Statuses,
        });
        let last = body.frame().await.expect("a frame").expect("a status");
        let trailers = last.into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], status);
        assert!(body.exchange.in_flight.is_none());
    }

    #[tokio::test]
    async fn a_body_that_has_failed_fails_again_with_an_error_of_the_same_kind() {
        let pod = || Some(Endpoint::new(([10, 0, 0, 1], 80).into()));
        let second = Duration::from_secs(1);
        let failure = Failure {
            outcome: Outcome::Unknown,
            source: "reset".into(),
        };
        let failed = BalanceError::endpoint_failed(pod().expect("a pod"), failure.into());
        let errors = [
            Error::body(pod(), "reset"),
            Error::limit(pod(), "its head"),
            Error::cut_off(pod(), RuntimeEnded),
            Error::request_body("no such file".into()),
            Error::unanswered(pod(), second),
            Error::unended(pod(), second),
            Error::not_sent(second, Wait::Layers, false),
            Error::balance(failed),
            Error::balance(BalanceError::no_runtime()),
            Error::status_of(pod(), StatusCode::NOT_FOUND, "GET /".into()),
            Error::request("no path"),
        ];
        for error in errors {
            let is = |error: &Error| {
                let asked = (error.is_timeout(), error.is_endpoint(), error.is_unsent());
                let pod = error.endpoint().cloned();
                (error.to_string(), asked, error.status(), pod)
            };
            let expected = is(&error);
            let stream = stream::iter([Err::<Frame<Bytes>, _>(error)]);
            let mut body = ResponseBody::new(StreamBody::new(stream));
            for _ in 0..3 {
                let error = body.frame().await.expect("a frame").expect_err("broken");
                assert_eq!(is(&error), expected);
            }
        }
    }
}
