//! Responses: whose they are, and what they hold until they end.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::upgrade::OnUpgrade as HyperUpgrade;

use super::{
    error::{Error, Failure, Outcome, RuntimeEnded},
    failure::is_end_of_runtime,
    pool::Lease,
    read_ahead::ReadAhead,
    received::{ReceiveError, Received},
    upgrade::OnUpgrade,
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, NoRuntime, unmarked},
    home::Timer,
    in_flight::{Completion, InFlight},
    outcome::{self, ByStatus, ClassifyHttp},
};

/// A body as the pod's connection has it.
pub(super) struct PodBody {
    body: Received,
    lease: Lease,
}

impl PodBody {
    pub(super) fn new(body: Received, lease: Lease) -> Self {
        Self { body, lease }
    }
}

/// Who says what came of a request. Each request has a clone or two.
#[derive(Clone)]
pub(super) enum SharedClassify {
    ByStatus,
    Own(Arc<dyn ClassifyHttp>),
}

impl SharedClassify {
    /// What a head says. Only without a body behind it can there be a status of gRPC's in it: most are not searched for one.
    fn answered(&self, response: &Response<PodBody>) -> outcome::Outcome {
        match self {
            Self::ByStatus if !response.body().body.is_end_stream() => {
                ByStatus::status(response.status())
            }
            _ => self.head(response.status(), response.headers()),
        }
    }

    fn inner(&self) -> &dyn ClassifyHttp {
        match self {
            Self::ByStatus => &ByStatus,
            Self::Own(own) => &**own,
        }
    }
}

impl ClassifyHttp for SharedClassify {
    fn head(&self, status: StatusCode, headers: &HeaderMap) -> outcome::Outcome {
        self.inner().head(status, headers)
    }

    fn trailers(&self, trailers: &HeaderMap) -> Option<outcome::Outcome> {
        self.inner().trailers(trailers)
    }

    fn error(&self, error: &BoxError) -> outcome::Outcome {
        self.inner().error(error)
    }
}

/// Counts a request as in flight to the end of its response, upgraded streams included.
#[derive(Clone)]
pub(super) struct OnResponseEnd {
    pub(super) classify: SharedClassify,
}

impl Completion<Response<PodBody>> for OnResponseEnd {
    type Response = Response<ResponseBody>;

    fn complete(&self, mut in_flight: InFlight, mut response: Response<PodBody>) -> Self::Response {
        in_flight.report(self.classify.answered(&response));
        let pod = in_flight.endpoint().clone();
        let upgrade = response.extensions_mut().remove::<HyperUpgrade>();
        response.extensions_mut().insert(pod.clone());
        let (mut parts, PodBody { body, lease }) = response.into_parts();
        let mut held = Some((lease, in_flight));
        if let Some(upgrade) = upgrade {
            let upgrade = OnUpgrade::new(upgrade, held.take());
            parts.extensions.insert(upgrade);
        }
        let ended = body.is_end_stream();
        let mut body = ResponseBody {
            body: Some(ReadAhead::new(body)),
            pod,
            held,
            classify: self.classify.clone(),
            deadline: None,
        };
        if ended {
            body.end();
        }
        Response::from_parts(parts, body)
    }

    fn failed(&self, error: &BoxError) -> outcome::Outcome {
        let error = unmarked(error);
        if error.is::<Error>() || error.is::<NoRuntime>() {
            return outcome::Outcome::Ignored;
        }
        let failure = error.downcast_ref::<Failure>();
        if failure.is_some_and(|failure| failure.source.is::<RuntimeEnded>()) {
            return outcome::Outcome::Ignored;
        }
        match failure.map(|failure| failure.outcome) {
            // It is the caller's fault, or the client's.
            Some(Outcome::Abandoned | Outcome::Limit) => outcome::Outcome::Ignored,
            // The pod has said that it won't: it closes, or has too much to do. A refusal is quick, and must not attract more.
            Some(Outcome::Unprocessed) => outcome::Outcome::Overload,
            Some(Outcome::Unknown) | None => self.classify.error(error),
        }
    }
}

/// The body of a response.
///
/// Its connection is free again when it has been read to its end, and its request counts as in flight until then. Dropped
/// early, it closes its connection (HTTP/1.1) or resets its stream (HTTP/2).
pub struct ResponseBody {
    /// None once its time is up.
    body: Option<ReadAhead<Received>>,
    pod: Endpoint,
    held: Option<(Lease, InFlight)>,
    classify: SharedClassify,
    deadline: Option<(Box<Timer>, Duration)>,
}

impl ResponseBody {
    /// The pod that sends it.
    pub fn pod(&self) -> &Endpoint {
        &self.pod
    }

    /// Bounds the time that the rest may take, which is part of `whole`.
    pub(super) fn until(&mut self, deadline: Box<Timer>, whole: Duration) {
        if self.held.is_some() {
            self.deadline = Some((deadline, whole));
        }
    }

    /// Reads up to about `limit` bytes before the caller asks, so that the connection comes free.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>, limit: usize) {
        if self.held.is_some()
            && let Some(body) = &mut self.body
            && body.read_ahead(cx, limit)
        {
            self.end();
        }
    }

    fn end(&mut self) {
        self.deadline = None;
        if let Some((lease, in_flight)) = self.held.take() {
            // Free first: who sees the request counted out may count on its connection.
            lease.release();
            drop(in_flight);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // First: a body that always has something for a slow reader is late all the same.
        if let Some((deadline, whole)) = &mut this.deadline
            && deadline.poll(cx).is_ready()
        {
            let error = Error::deadline(*whole);
            // All of it, so that the connection closes though the caller holds on to this.
            (this.held, this.body, this.deadline) = (None, None, None);
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let mut is_cut_off = false;
        if let Some((lease, in_flight)) = &mut this.held {
            is_cut_off = ends_with_runtime(&frame, lease);
            match &frame {
                // What the client refuses to read is no failure of the pod's.
                Some(Err(ReceiveError::Limit(_))) => in_flight.report(outcome::Outcome::Ignored),
                _ if is_cut_off => in_flight.report(outcome::Outcome::Ignored),
                frame => in_flight.look_at(frame, &this.classify),
            }
        }
        match &frame {
            Some(Err(_)) => this.held = None,
            // Not every caller asks once more after the last frame, where the length told which one that is.
            Some(Ok(_)) if !body.is_end_stream() => {}
            Some(Ok(_)) | None => this.end(),
        }
        let pod = || this.pod.clone();
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| match error {
                ReceiveError::Limit(limit) => Error::limit(pod(), limit),
                ReceiveError::Broken(_) if is_cut_off => Error::cut_off(pod()),
                ReceiveError::Broken(error) => Error::body(pod(), error),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

fn ends_with_runtime(
    frame: &Option<Result<Frame<Bytes>, ReceiveError>>,
    connection: &Lease,
) -> bool {
    matches!(frame, Some(Err(ReceiveError::Broken(error))) if is_end_of_runtime(error, connection.is_cut_off()))
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Refused, Suspect};

    fn failed(outcome: Outcome, mark: fn(BoxError) -> BoxError) -> outcome::Outcome {
        let failure = Failure {
            outcome,
            source: "reset".into(),
        };
        let completion = OnResponseEnd {
            classify: SharedClassify::ByStatus,
        };
        completion.failed(&mark(failure.into()))
    }

    #[test]
    fn what_a_pod_refuses_unprocessed_is_overload_and_never_nothing() {
        let marks: [fn(BoxError) -> BoxError; 2] = [|error| error, |error| Refused(error).into()];
        for mark in marks {
            let outcome = failed(Outcome::Unprocessed, mark);
            assert_eq!(outcome, outcome::Outcome::Overload);
        }
    }

    #[test]
    fn a_mark_doesn_t_change_what_an_error_says() {
        let mark = |error| Suspect(error).into();
        let outcomes = [Outcome::Unknown, Outcome::Abandoned].map(|outcome| failed(outcome, mark));
        let (failure, ignored) = (outcome::Outcome::Failure, outcome::Outcome::Ignored);
        assert_eq!(outcomes, [failure, ignored]);
    }
}
