//! A request's future: from the pick to the response, past as many endpoints as refuse it.
//!
//! ```text
//!           not ready, with an error
//!          ┌───────────────────────┐
//!          ▼                       │
//!  pick ── is it ready? ── not yet: Unsent
//!   │ ▲    │                       │
//!   │ │    └── yes ──▶ Sent ◀──────┘ ── response, or the endpoint's error ──▶ done
//!   │ │                 │
//!   │ └─────────────────┘ the request is handed back
//!   ▼ ▲
//!  none accepts: Waiting, until something changes
//! ```

use std::{
    any::type_name,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
};

use futures_util::future::BoxFuture;
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    place::{
        Held, State, StateProjection, Unready, Waiting, offer, place, place_again,
        place_in_context, refuse, take_back,
    },
    request_context::RequestContext,
    shared::Shared,
};
use crate::{
    attempts::AttemptOutcome,
    counters::EndpointTally,
    endpoint::Endpoint,
    error::{BoxError, Busy, Error, SharedError},
    in_flight::{Completion, InFlight},
    route::Route,
};

pin_project! {
    /// The future of a balanced request.
    ///
    /// Dropping it at any time cancels the request, which then stops counting as in flight.
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, S::Future, Req>,
        completion: C,
    }
}

/// What a request waits for while no endpoint has it.
#[cfg(feature = "http")]
#[derive(Debug)]
pub(crate) enum Awaited {
    /// It waits until this endpoint is ready; and why the endpoint refuses, while it does.
    Ready(Endpoint, Option<SharedError>),
    /// It waits for an endpoint; this is the error that it would fail with now.
    Accepting(Error),
}

/// A state's fields are taken once, when the next state is made.
const TAKEN: &str = "polled after completion";

impl<S, Req, C> ResponseFuture<S, Req, C>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    #[inline]
    pub(super) fn new(shared: &Arc<Shared<S>>, completion: C, request: Req) -> Self {
        Self {
            state: place(shared, request),
            completion,
        }
    }

    pub(super) fn failed(completion: C, error: Error) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
            completion,
        }
    }

    /// A request with a route.
    pub(super) fn routed(
        shared: &Arc<Shared<S>>,
        completion: C,
        request: Req,
        route: Route,
    ) -> Self {
        Self {
            state: place_in_context(shared, request, RequestContext::new(route)),
            completion,
        }
    }
}

impl<S: Service<Req>, Req, C> ResponseFuture<S, Req, C> {
    /// Whether no endpoint has the request yet.
    pub(crate) fn is_unsent(&self) -> bool {
        !matches!(self.state, State::Sent { .. })
    }

    /// Why the one endpoint of the request refuses it, while it does.
    pub(crate) fn refusal(&self) -> Option<SharedError> {
        match &self.state {
            State::Waiting { waiting } => waiting.shared.refusal(waiting.context.route()),
            State::Unsent { unready } => {
                let held = unready.held.as_ref()?;
                unready.shared.refusal(held.context.route())
            }
            State::Sent { .. } | State::Failed { .. } => None,
        }
    }

    /// What the request waits for, as long as no endpoint has it.
    #[cfg(feature = "http")]
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        match &self.state {
            State::Waiting { waiting } => {
                let error = waiting.shared.gives_up(waiting.context.route())?;
                Some(Awaited::Accepting(error))
            }
            State::Unsent { unready } => {
                let picked = &unready.held.as_ref()?.in_flight;
                let refusal = unready.shared.refusal_of(picked);
                Some(Awaited::Ready(picked.endpoint().clone(), refusal))
            }
            State::Sent { .. } | State::Failed { .. } => None,
        }
    }

    /// The endpoint that has the request, or gets it once it is ready; `None` while no endpoint accepts it.
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.guard().map(InFlight::endpoint)
    }

    /// The name of the request's service, if it is known, while the request is under way.
    #[cfg(feature = "http")]
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        let signals = match &self.state {
            State::Sent { in_flight, .. } => in_flight.as_ref()?.member().signals(),
            State::Unsent { unready } => &unready.shared.signals,
            State::Waiting { waiting } => &waiting.shared.signals,
            State::Failed { .. } => return None,
        };
        signals.service()
    }

    /// The request avoids this endpoint if it has to be placed again.
    pub(crate) fn avoid(self: Pin<&mut Self>, endpoint: &Endpoint) {
        if let Some(context) = self.context() {
            context.avoid(endpoint);
        }
    }

    /// Records that it is about to be cancelled because another try was answered first.
    pub(crate) fn set_aside(self: Pin<&mut Self>) {
        if let Some(context) = self.context() {
            context.ended(AttemptOutcome::Overtaken);
        }
    }

    /// Records that it is about to be cancelled because its time is up.
    pub(crate) fn time_is_up(self: Pin<&mut Self>) {
        if let Some(context) = self.context() {
            context.ended(AttemptOutcome::TimedOut);
        }
    }

    fn context(self: Pin<&mut Self>) -> Option<&mut RequestContext> {
        match self.project().state.project() {
            StateProjection::Sent { context, .. } => Some(context),
            StateProjection::Unsent { unready } => {
                let held = unready.held.as_mut();
                held.map(|held| &mut held.context)
            }
            StateProjection::Waiting { waiting } => Some(&mut waiting.context),
            StateProjection::Failed { .. } => None,
        }
    }

    /// Counts it as a retry at the endpoint that has it by now, if any.
    pub(crate) fn counted_as_retry(self) -> Self {
        self.counted(EndpointTally::retried_here)
    }

    /// Counts it as a hedge at the endpoint that has it by now, if any.
    pub(crate) fn counted_as_hedge(self) -> Self {
        self.counted(EndpointTally::hedged_here)
    }

    fn counted(self, count: impl FnOnce(&EndpointTally)) -> Self {
        if let Some(tally) = self.guard().and_then(|guard| guard.member().tally()) {
            count(tally);
        }
        self
    }

    fn guard(&self) -> Option<&InFlight> {
        match &self.state {
            State::Sent { in_flight, .. } => in_flight.as_ref(),
            State::Unsent { unready } => unready.held.as_ref().map(|held| &held.in_flight),
            State::Waiting { .. } | State::Failed { .. } => None,
        }
    }

    /// The guard of the request, if an endpoint has it, or gets it once it is ready.
    pub(crate) fn in_flight(self: Pin<&mut Self>) -> Option<&mut InFlight> {
        match self.project().state.project() {
            StateProjection::Sent { in_flight, .. } => in_flight.as_mut(),
            StateProjection::Unsent { unready } => {
                let held = unready.held.as_mut();
                held.map(|held| &mut held.in_flight)
            }
            StateProjection::Waiting { .. } | StateProjection::Failed { .. } => None,
        }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response>,
{
    type Output = Result<C::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Sent {
                    future,
                    in_flight,
                    context,
                } => match future.poll(cx) {
                    Poll::Pending => {
                        if let Some(in_flight) = in_flight {
                            in_flight.wait();
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(response)) => {
                        if let Some(recording) = context.recording() {
                            let status = this.completion.status(&response);
                            recording.end(AttemptOutcome::Answered { status });
                        }
                        let mut in_flight = in_flight.take().expect(TAKEN);
                        Shared::<S>::accepted(&mut in_flight, this.completion.is_whole());
                        return Poll::Ready(Ok(this.completion.complete(in_flight, response)));
                    }
                    Poll::Ready(Err(error)) => {
                        let mut in_flight = in_flight.take().expect(TAKEN);
                        let error = error.into();
                        in_flight.report(this.completion.failed(&error));
                        take_back(in_flight, error, std::mem::take(context))
                    }
                },
                StateProjection::Unsent { unready } => {
                    task::ready!(poll_unready(unready, cx))
                }
                StateProjection::Waiting { waiting } => {
                    task::ready!(poll_waiting(waiting, cx))
                }
                StateProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect(TAKEN)));
                }
            };
            this.state.set(next);
        }
    }
}

/// Sends a request whose endpoint has become ready, or takes it elsewhere.
fn poll_unready<S, Req>(
    unready: &mut Unready<S, Req>,
    cx: &mut Context<'_>,
) -> Poll<State<S, S::Future, Req>>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    let Unready {
        service,
        held,
        change,
        shared,
        ..
    } = unready;
    let Poll::Ready(is_ready) = service.poll_ready(cx) else {
        return poll_elsewhere(held, change, shared, cx);
    };
    let is_ready = match is_ready.map_err(|error| error.into().downcast::<Busy>()) {
        Ok(()) => Ok(()),
        Err(Err(error)) => Err(error),
        Err(Ok(busy)) => return poll_busy(held, change, *busy, shared, cx),
    };
    let Held {
        request,
        in_flight,
        mut context,
    } = held.take().expect(TAKEN);
    Poll::Ready(match is_ready {
        // The pod at this address may be another one by now.
        Ok(()) if shared.is_lost(context.route(), &in_flight) && !shared.is_closed() => {
            context.ended(AttemptOutcome::Left);
            place_in_context(shared, request, context)
        }
        Ok(()) => {
            context.sent();
            State::Sent {
                future: service.call(request),
                in_flight: Some(in_flight),
                context,
            }
        }
        Err(error) => match refuse(shared, in_flight, error, request, &mut context) {
            Ok(state) => state,
            Err(request) => place_in_context(shared, request, context),
        },
    })
}

/// Takes a request elsewhere because its endpoint is busy; if there is nowhere to go, the request stays in line there.
#[cold]
fn poll_busy<S, Req>(
    held: &mut Option<Held<Req>>,
    change: &mut Option<BoxFuture<'static, ()>>,
    busy: Busy,
    shared: &Arc<Shared<S>>,
    cx: &mut Context<'_>,
) -> Poll<State<S, S::Future, Req>>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    let waiting = held.as_mut().expect(TAKEN);
    let beside = shared.pick_beside(&mut waiting.context, &mut waiting.in_flight, busy);
    let Some((service, in_flight)) = beside else {
        // It waits until its deadline, which may be new. The service is polled again, so that it registers this task's
        // waker.
        *change = None;
        cx.waker().wake_by_ref();
        return Poll::Pending;
    };
    let Held {
        request,
        mut context,
        ..
    } = held.take().expect(TAKEN);
    let offered = offer(shared, service, in_flight, request, &mut context);
    Poll::Ready(offered.unwrap_or_else(|request| place_in_context(shared, request, context)))
}

/// Tries again when something has changed.
fn poll_waiting<S, Req>(
    waiting: &mut Waiting<S, Req>,
    cx: &mut Context<'_>,
) -> Poll<State<S, S::Future, Req>>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    task::ready!(waiting.change.as_mut().poll(cx));
    let (shared, request) = (&waiting.shared, waiting.request.take().expect(TAKEN));
    Poll::Ready(if shared.cut_off() == waiting.cut_off {
        let context = std::mem::take(&mut waiting.context);
        place_again(shared, request, context, waiting.wait.take())
    } else {
        State::unplaced(shared, &mut waiting.context, shared.closed())
    })
}

/// Takes a request elsewhere if its endpoint left the set before it was ready; fails the request if its time is up.
fn poll_elsewhere<S, Req>(
    held: &mut Option<Held<Req>>,
    change: &mut Option<BoxFuture<'static, ()>>,
    shared: &Arc<Shared<S>>,
    cx: &mut Context<'_>,
) -> Poll<State<S, S::Future, Req>>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    loop {
        let Held {
            in_flight, context, ..
        } = held.as_mut().expect(TAKEN);
        let next =
            change.get_or_insert_with(|| shared.change_or_deadline(context, in_flight.endpoint()));
        // Checked after the wait for changes has begun, so that no change is missed.
        let is_lost = shared.is_lost(context.route(), in_flight);
        let has_left = is_lost || in_flight.member().is_removed();
        // If the balancer is closed there is no other endpoint; this one may still become ready in time.
        let has_left = has_left && !shared.is_closed();
        if !has_left {
            task::ready!(next.as_mut().poll(cx));
            *change = None;
        }
        if let Some(error) = shared.is_over(context, in_flight) {
            let failed = State::unplaced(shared, context, error);
            *held = None;
            return Poll::Ready(failed);
        }
        if has_left {
            let Held {
                request,
                mut context,
                ..
            } = held.take().expect(TAKEN);
            context.ended(AttemptOutcome::Left);
            return Poll::Ready(place_in_context(shared, request, context));
        }
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
