//! One request: its attempts, one after another, within its timeout.

mod attempt;
mod contest;
mod recorded;
mod shared;

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use self::{
    attempt::{Attempt, AttemptProjection, poll_late},
    contest::Contest,
    recorded::trace_of,
    shared::Sent,
};
pub(super) use self::{
    recorded::Tracing,
    shared::{Pods, Shared},
};

use super::{
    affinity::Followed,
    deadline::{Deadline, Until},
    error::Error,
    grpc::{Call, Errors, Expiry},
    layered::Through,
    replay::{Answer, Replay},
    response::ResponseBody,
};
use crate::{broadcast::Asking, error::SharedError, hedge::Race};

pin_project! {
    /// The future of a request. Dropping it cancels the request.
    pub struct ResponseFuture {
        #[pin]
        attempt: Attempt,
        replay: Option<Box<Replay>>,
        shared: Option<Arc<Shared>>,
        deadline: Option<Deadline>,
        followed: Option<Box<Followed>>,
        names_pod: bool,
        grpc: Option<Call>,
        tracing: Option<Box<Tracing>>,
    }
}

impl ResponseFuture {
    /// A request that was sent to the balancer. `shared` keeps the balancer alive, for retries or until discovery has
    /// answered; `followed` is told the answer.
    #[inline]
    pub(super) fn new(
        future: Sent,
        replay: Option<Box<Replay>>,
        shared: Option<Arc<Shared>>,
        until: Option<Until>,
        followed: Option<Box<Followed>>,
    ) -> Self {
        let hedged_after = replay.as_deref().zip(shared.as_deref());
        let hedged_after = hedged_after.and_then(|(replay, shared)| {
            replay.hedged_after(&shared.retries, || shared.pods.late())
        });
        Self {
            attempt: Attempt::Sent {
                race: Race::new(future, hedged_after),
            },
            replay,
            shared,
            deadline: until.map(Deadline::of),
            followed,
            names_pod: false,
            grpc: None,
            tracing: None,
        }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self::only(Attempt::Failed { error: Some(error) })
    }

    /// A request that was sent to layers.
    pub(super) fn layered(through: Through) -> Self {
        Self::only(Attempt::Layered { through })
    }

    fn only(attempt: Attempt) -> Self {
        Self {
            attempt,
            replay: None,
            shared: None,
            deadline: None,
            followed: None,
            names_pod: false,
            grpc: None,
            tracing: None,
        }
    }

    /// Makes it a gRPC call if there are `errors`, which say how its errors are told. Its own time is up at `expiry`.
    #[inline]
    pub(super) fn for_call(self, errors: Option<Errors>, expiry: Option<Expiry>) -> Self {
        let grpc = errors.map(|errors| Call { expiry, errors });
        Self { grpc, ..self }
    }

    /// Adds the pod to the response's extensions, for those who replace the client's body.
    #[inline]
    pub(super) fn naming_pod(self, names_pod: bool) -> Self {
        Self { names_pod, ..self }
    }

    /// Records the request in this span and log.
    #[inline]
    pub(super) fn traced(self, tracing: Option<Tracing>) -> Self {
        let tracing = tracing.map(Box::new);
        Self { tracing, ..self }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.tracing.is_some() {
            return self.poll_traced(cx);
        }
        let answer = self.as_mut().poll_named(cx);
        match self.project().grpc {
            None => answer,
            Some(call) => answer.map(|answer| call.answer(answer)),
        }
    }
}

impl ResponseFuture {
    #[cold]
    fn poll_traced(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let trace = trace_of(&self.tracing);
        let span = trace.map(|trace| trace.span().clone());
        let _entered = span.as_ref().map(|span| span.enter());
        let mut answer = ready!(self.as_mut().poll_named(cx));
        let this = self.project();
        let tracing = this.tracing.take();
        if let Some(tracing) = &tracing {
            answer = tracing.tell(answer);
        }
        if let Some(call) = this.grpc {
            answer = call.answer(answer);
            if let Some(tracing) = &tracing {
                // An error may have become a response by now, and a response an error.
                answer = tracing.tell(answer);
            }
        }
        if let Some(tracing) = tracing {
            tracing.record(&mut answer);
        }
        Poll::Ready(answer)
    }

    /// Polls for the answer, and adds the pod to its extensions if needed.
    #[inline]
    fn poll_named(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut answer = self.as_mut().poll_answer(cx);
        if *self.project().names_pod
            && let Poll::Ready(Ok(response)) = &mut answer
            && let Some(pod) = response.body().endpoint().cloned()
        {
            response.extensions_mut().insert(pod);
        }
        answer
    }

    /// Polls for the answer, before the conversion of a gRPC call's errors.
    #[inline]
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut this = self.project();
        loop {
            let polled = match this.attempt.as_mut().project() {
                AttemptProjection::Sent { race } => {
                    let trace = trace_of(this.tracing);
                    let contest = Contest::of(this.replay, this.shared, this.followed, trace);
                    race.poll(cx, contest)
                }
                AttemptProjection::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error));
                }
                AttemptProjection::Layered { through } => {
                    let log = this.tracing.as_deref().and_then(|it| it.log.as_ref());
                    return through.poll(cx, log);
                }
            };
            let is_overtaken = this.attempt.is_overtaken();
            let answer = match polled {
                // Responses are large, and most go straight to the caller.
                Poll::Ready(Ok(mut response)) if is_final(this.replay, this.shared, &response) => {
                    *this.replay = None;
                    answered(&mut response, this.deadline, this.followed, is_overtaken);
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(answer) => answer.map_err(Error::balance),
                Poll::Pending => {
                    let attempt = this.attempt.as_mut();
                    let answer = ready!(poll_late(attempt, this.replay, this.deadline, cx));
                    // Cancels the request here rather than when the caller drops the future.
                    *this.replay = None;
                    this.attempt.set(Attempt::Failed { error: None });
                    return Poll::Ready(answer.map(|mut response| {
                        answered(&mut response, this.deadline, this.followed, false);
                        response
                    }));
                }
            };
            let next = match (&mut *this.replay, &*this.shared) {
                (Some(replay), Some(shared)) => {
                    shared.again(replay, answer, trace_of(this.tracing))
                }
                _ => ControlFlow::Break(answer),
            };
            match next {
                ControlFlow::Continue(again) => {
                    if let AttemptProjection::Sent { race } = this.attempt.as_mut().project() {
                        race.try_again(again);
                    }
                }
                ControlFlow::Break(answer) => {
                    *this.replay = None;
                    return Poll::Ready(match answer {
                        Ok(mut response) => {
                            answered(&mut response, this.deadline, this.followed, is_overtaken);
                            Ok(response)
                        }
                        Err(error) => Err(match this.followed.take() {
                            Some(followed) => followed.failed(error),
                            None => error,
                        }),
                    });
                }
            }
        }
    }
}

fn is_final(
    replay: &Option<Box<Replay>>,
    shared: &Option<Arc<Shared>>,
    response: &Response<ResponseBody>,
) -> bool {
    match (replay, shared) {
        (Some(replay), Some(shared)) => replay.is_final(response, &shared.retries),
        _ => true,
    }
}

/// Hands the response to the caller, with the rest of the time for the rest of its body.
fn answered(
    response: &mut Response<ResponseBody>,
    deadline: &mut Option<Deadline>,
    followed: &mut Option<Box<Followed>>,
    is_overtaken: bool,
) {
    if let Some(deadline) = deadline.take() {
        response.body_mut().until(deadline);
    }
    if let Some(followed) = followed.take() {
        followed.answered(response, is_overtaken);
    }
}

impl Asking<Response<ResponseBody>, Error> for ResponseFuture {
    fn is_unsent(&self) -> bool {
        let is_unsent = match &self.attempt {
            Attempt::Sent { race } => race.alone().is_some_and(|sent| sent.is_unsent()),
            Attempt::Failed { .. } => true,
            Attempt::Layered { through } => through.is_waiting(),
        };
        is_unsent && self.replay.as_ref().is_none_or(|replay| replay.is_first())
    }

    fn refusal(&self) -> Option<SharedError> {
        match &self.attempt {
            Attempt::Sent { race } => race.alone()?.refusal(),
            Attempt::Failed { .. } | Attempt::Layered { .. } => None,
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
