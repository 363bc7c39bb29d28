//! One request: its attempts, one after another, within its timeout.

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;

use super::{
    affinity::{Affinity, Followed},
    deadline::{Deadline, Until},
    defaults::Defaults,
    error::{Error, Wait},
    grpc::{Call, Errors, Expiry},
    layered::Through,
    pod::PodService,
    pool::Config,
    replay::{Answer, Replay, Retries},
    response::{OnResponseEnd, ResponseBody},
    span::{RequestSpan, Trace},
    traced::Traced,
};
use crate::{
    attempts::AttemptLog,
    balance::Balance,
    broadcast::Asking,
    endpoint::Endpoint,
    error::SharedError,
    hedge::{self, Race},
    logs::{REQUESTS, debug},
    retry::Ended,
    route::Route,
};

pub(super) type Pods = Balance<PodService, OnResponseEnd>;

type Sent = Traced;

/// What a client's clones and its requests share.
pub(super) struct Shared {
    /// For requests that are sent again.
    pub(super) pods: Pods,
    pub(super) config: Arc<Config>,
    pub(super) retries: Retries,
    pub(super) affinity: Option<Affinity>,
    pub(super) timeout: Option<Duration>,
    /// Whether the pods' protocol can tell that a request was not processed.
    pub(super) may_refuse: bool,
    /// Whether gRPC calls get errors as gRPC statuses.
    pub(super) grpc_status: bool,
    /// Whether each request has a span.
    pub(super) has_spans: bool,
    /// Whether each request's attempts are recorded.
    pub(super) has_attempts: bool,
    pub(super) defaults: Defaults,
}

impl Shared {
    /// What follows a pod's answer: another attempt, or the answer for the caller.
    fn again(
        &self,
        replay: &mut Replay,
        answer: Answer,
        trace: Option<&Trace>,
    ) -> ControlFlow<Answer, Sent> {
        let has_other = |route: &Route| self.pods.has_other(route);
        let (request, route) = replay.next(answer, &self.retries, has_other)?;
        let send = || self.pods.call_with(request, route).counted_as_retry();
        ControlFlow::Continue(Traced::new(trace, send))
    }
}

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

/// A request's span, and the log of its attempts.
#[derive(Default)]
pub(super) struct Tracing {
    pub(super) trace: Option<Trace>,
    /// None if a layer has made the request, so that another request ends the span.
    pub(super) guard: Option<RequestSpan>,
    pub(super) log: Option<AttemptLog>,
}

impl Tracing {
    /// Adds a log. None if there is neither a log nor a span.
    pub(super) fn logged(tracing: Option<Self>, log: Option<AttemptLog>) -> Option<Self> {
        if let Some(log) = &log {
            log.begin();
        }
        match tracing {
            Some(tracing) => Some(Self { log, ..tracing }),
            None => log.map(|log| Self {
                log: Some(log),
                ..Self::default()
            }),
        }
    }

    /// Adds the log of attempts to the answer.
    fn tell(&self, answer: Answer) -> Answer {
        let Some(log) = &self.log else { return answer };
        let attempts = log.attempts();
        match answer {
            Ok(mut response) => {
                response.extensions_mut().insert(attempts);
                Ok(response)
            }
            Err(error) => Err(error.with_attempts(attempts)),
        }
    }

    /// Records the outcome. The span continues in the response's body.
    fn record(self, answer: &mut Answer) {
        let Some(mut guard) = self.guard else { return };
        match answer {
            Ok(response) => {
                let pod = response.body().endpoint();
                guard.answered(response.status(), response.headers(), pod);
                response.body_mut().end_span(guard);
            }
            Err(error) => guard.failed(error),
        }
    }
}

pin_project! {
    #[project = AttemptProjection]
    enum Attempt {
        Sent { #[pin] race: Race<Sent> },
        Failed { error: Option<Error> },
        // Goes through layers, which pass it on to the client below them.
        Layered { through: Through },
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

impl Attempt {
    /// Whether the answer comes from another pod than the one that still has the request.
    fn is_overtaken(&self) -> bool {
        matches!(self, Self::Sent { race } if race.is_overtaken())
    }

    fn service(&self) -> Option<&Arc<str>> {
        match self {
            Self::Sent { race } => race.either()?.service(),
            Self::Failed { .. } | Self::Layered { .. } => None,
        }
    }

    /// Whether a hedge that goes on alone has used up its time.
    fn poll_overdue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            AttemptProjection::Sent { race } => race.poll_overdue(cx),
            AttemptProjection::Failed { .. } | AttemptProjection::Layered { .. } => Poll::Pending,
        }
    }
}

impl Attempt {
    /// Notes that the request is about to be cancelled, because its time is up.
    fn time_is_up(self: Pin<&mut Self>) {
        if let AttemptProjection::Sent { race } = self.project() {
            race.time_is_up();
        }
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

fn trace_of(tracing: &Option<Box<Tracing>>) -> Option<&Trace> {
    tracing.as_deref()?.trace.as_ref()
}

/// A request that may be hedged.
struct Contest<'a> {
    replay: &'a mut Replay,
    shared: &'a Shared,
    followed: Option<&'a mut Followed>,
    trace: Option<&'a Trace>,
}

impl<'a> Contest<'a> {
    fn of(
        replay: &'a mut Option<Box<Replay>>,
        shared: &'a Option<Arc<Shared>>,
        followed: &'a mut Option<Box<Followed>>,
        trace: Option<&'a Trace>,
    ) -> Option<Self> {
        let (replay, shared) = replay.as_deref_mut().zip(shared.as_deref())?;
        Some(Self {
            replay,
            shared,
            followed: followed.as_deref_mut(),
            trace,
        })
    }
}

impl hedge::Contest<Sent> for Contest<'_> {
    fn late(&self) -> Option<Duration> {
        self.shared.pods.late()
    }

    fn hedge_delay(&self, late: Duration) -> Duration {
        let hedges = self.shared.retries.hedges.as_ref();
        hedges.map_or(late, |hedges| hedges.hedge_delay(late))
    }

    fn second(&mut self, first: &Sent, charge: &mut hedge::Charge) -> Option<Sent> {
        let Shared { pods, retries, .. } = self.shared;
        let has_other = |route: &Route| pods.has_other(route);
        let late = first.endpoint()?;
        let (request, route) = self.replay.beside(late, charge, retries, has_other)?;
        if let Some(followed) = &mut self.followed {
            followed.hedged(late);
        }
        let (service, method) = (pods.service(), self.replay.method());
        debug!(REQUESTS, service, endpoint = %late, %method, "request hedged: its answer is late");
        let send = || pods.call_with(request, route).counted_as_hedge();
        Some(Traced::new(self.trace, send))
    }

    fn is_good(&self, result: &<Sent as Future>::Output) -> bool {
        let is_good = |response| Replay::is_good(response, &self.shared.retries);
        result.as_ref().is_ok_and(is_good)
    }

    fn won(&self, result: &<Sent as Future>::Output) {
        if result.is_ok() {
            self.shared.pods.count_hedge_won();
        }
    }

    fn set_aside(&mut self, result: <Sent as Future>::Output) -> bool {
        let answer = result.map_err(Error::balance);
        let ended = self.ended(&answer);
        self.replay.set_aside(answer, &ended);
        let hedges = self.shared.retries.hedges.as_ref();
        ended.is_taken_back(hedges)
    }

    fn replace(&mut self, result: <Sent as Future>::Output, other: &Sent) -> Option<Sent> {
        let Shared { pods, retries, .. } = self.shared;
        let has_other = |route: &Route| pods.has_other(route);
        let (answer, other) = (result.map_err(Error::balance), other.endpoint());
        let ended = self.ended(&answer);
        let replay = &mut self.replay;
        let (request, route) = replay.replace(answer, &ended, other, retries, has_other)?;
        let send = || pods.call_with(request, route).counted_as_retry();
        Some(Traced::new(self.trace, send))
    }
}

impl Contest<'_> {
    /// Notes the outcome of one of two attempts.
    fn ended(&mut self, answer: &Answer) -> Ended {
        let ended = self.replay.ended(answer, &self.shared.retries);
        if let (Some(followed), Some(pod)) = (&mut self.followed, &ended.endpoint)
            && !ended.is_retried
        {
            followed.set_aside(pod);
        }
        ended
    }
}

/// Ready when a request's time is up, with the answer that was set aside, if any. Until then it reads on in an earlier
/// response.
fn poll_late(
    mut attempt: Pin<&mut Attempt>,
    replay: &mut Option<Box<Replay>>,
    deadline: &mut Option<Deadline>,
    cx: &mut Context<'_>,
) -> Poll<Answer> {
    if let Some(replay) = replay {
        replay.poll_before(cx);
        if replay.has_aside()
            && attempt.as_mut().poll_overdue(cx).is_ready()
            && let Some(aside) = replay.take_aside()
        {
            return Poll::Ready(aside);
        }
    }
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    ready!(deadline.poll(cx));
    attempt.as_mut().time_is_up();
    if let Some(aside) = replay.as_mut().and_then(|replay| replay.take_aside()) {
        return Poll::Ready(aside);
    }
    let error = out_of_time(&attempt, replay.as_deref(), deadline.whole());
    Poll::Ready(Err(error.of_service(attempt.service())))
}

/// The error of a request whose time is up. If no pod can have executed it, the error says what it waited for.
fn out_of_time(attempt: &Attempt, replay: Option<&Replay>, after: Duration) -> Error {
    let unanswered = || Error::unanswered(only_pod(attempt, replay).cloned(), after);
    let Attempt::Sent { race } = attempt else {
        return unanswered();
    };
    if !race.tries().all(|sent| sent.is_unsent()) || !replay.is_none_or(Replay::is_first) {
        return unanswered();
    }
    let awaited = race.tries().find_map(|sent| sent.awaited());
    let wait = awaited.map_or(Wait::None, Wait::from);
    Error::not_sent(after, wait, replay.is_some_and(Replay::was_sent))
}

/// The pod that has the request, if no other one has it or had it.
fn only_pod<'a>(attempt: &'a Attempt, replay: Option<&Replay>) -> Option<&'a Endpoint> {
    let Attempt::Sent { race } = attempt else {
        return None;
    };
    let sent = race.alone().filter(|sent| !sent.is_unsent())?;
    let is_first = replay.is_none_or(Replay::is_first);
    sent.endpoint().filter(|_| is_first)
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

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
