//! A pod's answers, and its numbers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;

use super::{
    handler::{Answer, Handler},
    mode::{Mode, Stats},
};
use crate::{error::BoxError, sync::Mutex};

/// The part of a pod that its connections share.
pub(super) struct Behaviour {
    name: String,
    /// Replaces the pod's default answers.
    handler: Option<Handler>,
    mode: Mutex<Mode>,
    pub(super) stats: watch::Sender<Stats>,
}

impl Behaviour {
    pub(super) fn new(name: String, handler: Option<Handler>) -> Self {
        Self {
            name,
            handler,
            mode: Mutex::default(),
            stats: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock()
    }

    pub(super) fn connection_opened(self: &Arc<Self>) -> Counted {
        self.stats.send_modify(|stats| stats.accepted += 1);
        Counted::new(self, |stats| &mut stats.connections)
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<CountedBody>, BoxError> {
        self.stats.send_modify(|stats| stats.requests += 1);
        let in_flight = Counted::new(&self, |stats| &mut stats.in_flight);
        let mut response = self.respond(request).await?;
        let name = HeaderValue::from_str(&self.name)?;
        response.headers_mut().insert("x-pod", name);
        Ok(response.map(|body| CountedBody {
            body,
            _in_flight: in_flight,
        }))
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Answer>, BoxError> {
        // Read once, because it may change while the request is read.
        let mode = self.mode();
        match (mode, &self.handler) {
            // Answered before all of the request has come, because a client's stream may not end before its answer
            // begins.
            (Mode::Grpc(code), _) => grpc_status(code, &self.name),
            (Mode::Healthy, Some(handler)) => handler.respond(&self.name, request).await,
            (Mode::Slow(delay), Some(handler)) => {
                tokio::time::sleep(delay).await;
                handler.respond(&self.name, request).await
            }
            _ => self.own_answer(mode, request).await,
        }
    }

    async fn own_answer(
        &self,
        mode: Mode,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, BoxError> {
        let path = request.uri().path().to_owned();
        let echo = echo(&request);
        // All of the request is read: with an unread body, closing the connection would be a reset.
        request.into_body().collect().await?;
        if let Some(delay) = delayed(&path) {
            tokio::time::sleep(delay).await;
        }
        let status = match mode {
            Mode::Healthy | Mode::Grpc(_) => StatusCode::OK,
            Mode::Slow(delay) => {
                tokio::time::sleep(delay).await;
                StatusCode::OK
            }
            Mode::Status(status) => status,
            Mode::Hung => std::future::pending().await,
            Mode::CloseWithoutAnswer => return Err("told to close without an answer".into()),
        };
        let body = match streamed(&path) {
            Some((chunks, interval)) if status.is_success() => spaced(chunks, interval),
            _ => whole(Full::from(format!("{status} from {}\n", self.name))),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = echo;
        Ok(response)
    }
}

/// A trailers-only response: gRPC's status is in the headers.
fn grpc_status(code: u8, pod: &str) -> Result<Response<Answer>, BoxError> {
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/grpc")
        .header("grpc-status", u16::from(code))
        // No percent-encoding needed: a name is an address or a hostname.
        .header("grpc-message", format!("status {code} from {pod}"));
    Ok(response.body(whole(Empty::new()))?)
}

/// A body that can't fail.
fn whole<B>(body: B) -> Answer
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

/// The headers that describe the answer's request.
fn echo<B>(request: &Request<B>) -> HeaderMap {
    let authority = request.uri().authority().map(|it| it.as_str().as_bytes());
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let told = [
        ("x-method", Some(request.method().as_str().as_bytes())),
        ("x-version", Some(version(request.version()).as_bytes())),
        ("x-host", authority.or(host)),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in told {
        let value = value.and_then(|value| HeaderValue::from_bytes(value).ok());
        headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
    headers
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The delay, if the path is `/wait/MS`.
fn delayed(path: &str) -> Option<Duration> {
    let delay = path.strip_prefix("/wait/")?;
    Some(Duration::from_millis(delay.parse().ok()?))
}

/// The number of chunks and their interval, if the path is `/stream/N/MS`.
fn streamed(path: &str) -> Option<(usize, Duration)> {
    let (chunks, interval) = path.strip_prefix("/stream/")?.split_once('/')?;
    let interval = Duration::from_millis(interval.parse().ok()?);
    Some((chunks.parse().ok()?, interval))
}

/// A body of `chunks` chunks, `interval` apart.
fn spaced(chunks: usize, interval: Duration) -> Answer {
    let frames = stream::iter(0..chunks).then(move |chunk| async move {
        if chunk > 0 {
            tokio::time::sleep(interval).await;
        }
        Ok(Frame::data(Bytes::from(format!("chunk {chunk}\n"))))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A response's body that counts as in flight until it has ended or is dropped.
pub(super) struct CountedBody {
    body: Answer,
    _in_flight: Counted,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Raises one of a pod's numbers by one while it lives.
pub(super) struct Counted {
    behaviour: Arc<Behaviour>,
    number: fn(&mut Stats) -> &mut usize,
}

impl Counted {
    fn new(behaviour: &Arc<Behaviour>, number: fn(&mut Stats) -> &mut usize) -> Self {
        behaviour.stats.send_modify(|stats| *number(stats) += 1);
        Self {
            behaviour: Arc::clone(behaviour),
            number,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.behaviour.stats;
        stats.send_modify(|stats| *(self.number)(stats) -= 1);
    }
}
