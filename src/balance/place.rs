//! Places a request at an endpoint: the one that was picked for it, or another one if that refuses.

use std::{
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    reconnect::RefusalKind, request_context::RequestContext, shared::Shared, waiting::Placement,
};
use crate::{
    attempts::AttemptOutcome,
    counters::{Wait, WaitCause},
    error::{
        BoxError, Busy, Error, NoRuntime, PodState, Refused, Suspect, Unsent, chain, timed_out,
    },
    in_flight::InFlight,
    route::{PodId, Route},
};

pin_project! {
    /// The stage of a request.
    #[project = StateProjection]
    pub(super) enum State<S, F, Req> {
        /// The endpoint that was picked is not ready yet; the request is still here. Boxed, because most are ready, and
        /// the state of every request is moved.
        Unsent { unready: Box<Unready<S, Req>> },
        /// The endpoint has the request. This holds neither its service, which would keep a removed endpoint's
        /// connections open, nor the balancer, which `Shared::of` finds by the guard.
        Sent { #[pin] future: F, in_flight: Option<InFlight>, context: RequestContext },
        /// No endpoint accepts requests.
        Waiting { waiting: Box<Waiting<S, Req>> },
        Failed { error: Option<Error> },
    }
}

impl<S, F, Req> State<S, F, Req> {
    /// A request that has failed. Each error leaves the balancer this way, and gets the service's name here.
    #[cold]
    pub(super) fn failed(service: Option<&Arc<str>>, error: Error) -> Self {
        let error = Some(error.of_service(service));
        Self::Failed { error }
    }

    /// A request that has failed before any endpoint had it. A second try that finds no other endpoint is neither
    /// counted nor recorded, because the first one goes on.
    #[cold]
    pub(super) fn unplaced(shared: &Shared<S>, context: &mut RequestContext, error: Error) -> Self {
        let is_only_others = context.route().is_only_others();
        if let Some(recording) = context.recording() {
            let is_none = is_only_others && recording.discard();
            if !is_none {
                recording.fail(&error, |error| AttemptOutcome::Unsent { error });
            }
        }
        if !is_only_others {
            shared.count_unplaced();
        }
        Self::failed(shared.signals.service(), error)
    }
}

/// A request that found no endpoint, and waits for a change.
pub(super) struct Waiting<S, Req> {
    pub(super) change: BoxFuture<'static, ()>,
    /// Counts its time.
    pub(super) wait: Option<Wait>,
    pub(super) request: Option<Req>,
    pub(super) context: RequestContext,
    /// What `Shared::cut_off` was.
    pub(super) cut_off: u64,
    pub(super) shared: Arc<Shared<S>>,
}

/// An endpoint that is not ready yet, and the request that waits for it.
pub(super) struct Unready<S, Req> {
    pub(super) service: S,
    pub(super) held: Option<Held<Req>>,
    /// Set once the service has been polled: the endpoint may leave while the request waits for it.
    pub(super) change: Option<BoxFuture<'static, ()>>,
    /// Counts its time.
    pub(super) _wait: Option<Wait>,
    pub(super) shared: Arc<Shared<S>>,
}

/// A request that waits for its endpoint's readiness.
pub(super) struct Held<Req> {
    pub(super) request: Req,
    pub(super) in_flight: InFlight,
    pub(super) context: RequestContext,
}

/// Brings a request to an endpoint that is ready or may become ready, past those that refuse.
#[inline]
pub(super) fn place<S, Req>(shared: &Arc<Shared<S>>, request: Req) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    let Some((service, in_flight)) = shared.pick() else {
        return place_in_context(shared, request, RequestContext::default());
    };
    let mut context = RequestContext::default();
    match offer(shared, service, in_flight, request, &mut context) {
        Ok(state) => state,
        Err(request) => place_in_context(shared, request, context),
    }
}

/// Brings a request to an endpoint of its route.
///
/// A loop, because thousands of endpoints may refuse one after another, and the stack must not grow with them.
#[cold]
pub(super) fn place_in_context<S, Req>(
    shared: &Arc<Shared<S>>,
    request: Req,
    context: RequestContext,
) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    place_again(shared, request, context, None)
}

/// [`place_in_context`] for a request that has waited.
pub(super) fn place_again<S, Req>(
    shared: &Arc<Shared<S>>,
    mut request: Req,
    mut context: RequestContext,
    mut wait: Option<Wait>,
) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    if let Err(error) = leaves_out_a_name(context.route()) {
        context.seeks(shared.policy);
        context.failed(&error, |error| AttemptOutcome::Unsent { error });
        return State::failed(shared.signals.service(), error);
    }
    shared.ask_for(context.route());
    shared.heed_key(context.route());
    loop {
        context.seeks(shared.policy);
        let cut_off = shared.cut_off();
        let (service, in_flight) = match shared.pick_routed(context.route()) {
            Some(picked) => picked,
            None if context.route().is_only_others() => {
                return State::unplaced(shared, &mut context, shared.no_other());
            }
            None => match shared.pick_or_wait(&mut context) {
                Ok(Placement::Picked(service, in_flight)) => (service, in_flight),
                Ok(Placement::Waiting(change)) => {
                    let cause = shared.wait_cause(context.route());
                    let wait = wait.filter(|wait| wait.is_for(cause));
                    context.waits_for(cause);
                    let waiting = Box::new(Waiting {
                        change,
                        wait: wait.or_else(|| shared.wait(cause)),
                        request: Some(request),
                        context,
                        cut_off,
                        shared: shared.clone(),
                    });
                    return State::Waiting { waiting };
                }
                Err(error) => {
                    return State::unplaced(shared, &mut context, error);
                }
            },
        };
        context.placed();
        shared.record_pick(&mut context, &in_flight, None);
        wait = None;
        match offer(shared, service, in_flight, request, &mut context) {
            Ok(state) => return state,
            Err(refused) => request = refused,
        }
    }
}

/// Fails if the route leaves out a pod with an empty name. It comes from an unset variable, and the pod that was meant
/// would get the request.
pub(super) fn leaves_out_a_name(route: &Route) -> Result<(), Error> {
    match route.left_out().and_then(PodId::name) {
        Some("") => Err(Error::pod_unreachable("", PodState::NamelessLeftOut, None)),
        _ => Ok(()),
    }
}

/// Gives a request to the endpoint that has been picked for it, or to another one if that is busy. Gives the request
/// back if one refuses it.
#[inline]
pub(super) fn offer<S, Req>(
    shared: &Arc<Shared<S>>,
    mut service: S,
    mut in_flight: InFlight,
    request: Req,
    context: &mut RequestContext,
) -> Result<State<S, S::Future, Req>, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    loop {
        // A waker that wakes nobody, because most are ready. Otherwise the request's own task polls again before it
        // waits.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {
                context.sent();
                return Ok(State::Sent {
                    future: service.call(request),
                    in_flight: Some(in_flight),
                    context: std::mem::take(context),
                });
            }
            Poll::Ready(Err(error)) => match error.into().downcast::<Busy>() {
                Err(error) => return refuse(shared, in_flight, error, request, context),
                Ok(busy) => {
                    if let Some(beside) = shared.pick_beside(context, &mut in_flight, *busy) {
                        (service, in_flight) = beside;
                        continue;
                    }
                }
            },
            Poll::Pending => {}
        }
        context.waits_for(WaitCause::Connection);
        return Ok(State::Unsent {
            unready: Box::new(Unready {
                service,
                held: Some(Held {
                    request,
                    in_flight,
                    context: std::mem::take(context),
                }),
                change: None,
                _wait: shared.wait(WaitCause::Connection),
                shared: shared.clone(),
            }),
        });
    }
}

/// Gives back a request that its endpoint's `poll_ready` refused; fails the request if there is no runtime, which isn't
/// the endpoint's fault.
#[cold]
pub(super) fn refuse<S, Req>(
    shared: &Shared<S>,
    in_flight: InFlight,
    error: BoxError,
    request: Req,
    context: &mut RequestContext,
) -> Result<State<S, S::Future, Req>, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    if error.is::<NoRuntime>() {
        context.failed(&*error, |error| AttemptOutcome::Unsent { error });
        return Ok(State::failed(shared.signals.service(), Error::no_runtime()));
    }
    context.failed(&*error, |error| AttemptOutcome::Refused { error });
    shared.refused(
        in_flight,
        RefusalKind::NotReady,
        false,
        error,
        ready::<S, Req>,
    );
    Err(request)
}

/// Takes back a request that was [`Unsent`]; any other error is the endpoint's answer.
#[cold]
pub(super) fn take_back<S, Req>(
    in_flight: InFlight,
    error: BoxError,
    mut context: RequestContext,
) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    if error.is::<NoRuntime>() {
        context.failed(&*error, |error| AttemptOutcome::Unsent { error });
        return State::failed(in_flight.member().signals().service(), Error::no_runtime());
    }
    let unsent = match error.downcast::<Unsent<Req>>() {
        Ok(unsent) => unsent,
        Err(error) => return fail(in_flight, error, context),
    };
    let (request, error) = unsent.into_parts();
    context.failed(&*error, |error| AttemptOutcome::Refused { error });
    let Some(shared) = Shared::<S>::of(&in_flight) else {
        let error = Error::closed(Some(error.into()));
        return State::failed(in_flight.member().signals().service(), error);
    };
    shared.refused(
        in_flight,
        RefusalKind::HandedBack,
        false,
        error,
        ready::<S, Req>,
    );
    place_in_context(&shared, request, context)
}

/// How many requests in a row an endpoint refuses before it is passed over. A single refusal may mean that it has just
/// lowered its limit.
const REFUSED_IN_A_ROW: u32 = 3;

/// The endpoint had the request, and failed. After some errors ([`Suspect`], repeated [`Refused`]) it is passed over as
/// unreachable.
fn fail<S, Req>(
    mut in_flight: InFlight,
    error: BoxError,
    mut context: RequestContext,
) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let endpoint = in_flight.endpoint().clone();
    let service = in_flight.member().signals().service().cloned();
    let mut is_late = false;
    let (is_passed_over, error) = match error.downcast::<Suspect>() {
        Ok(suspect) => {
            is_late = suspect.is_late();
            (true, suspect.into_inner())
        }
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => {
                context.failed(&*refused.0, |error| AttemptOutcome::Unprocessed { error });
                (refuses(&in_flight), refused.0)
            }
            Err(error) => (false, error),
        },
    };
    // Has no effect if the attempt was recorded as `Unprocessed` above.
    context.failed(&*error, |error| AttemptOutcome::Lost { error });
    if in_flight.member().tally().is_some()
        && let Some(shared) = Shared::<S>::of(&in_flight)
    {
        shared.note_failure(in_flight.member(), &error);
    }
    if !is_passed_over {
        Shared::<S>::end_trial(&mut in_flight);
    } else if let Some(shared) = Shared::<S>::of(&in_flight) {
        let (kind, why) = (RefusalKind::HandedBack, told(&*error, is_late));
        shared.refused(in_flight, kind, true, why, ready::<S, Req>);
    }
    State::failed(service.as_ref(), Error::endpoint_failed(endpoint, error))
}

/// The text of an error that goes to the caller, as an error that still says whether it was a timeout.
fn told(error: &(dyn StdError + 'static), is_late: bool) -> BoxError {
    match is_late {
        true => timed_out(chain(error)),
        false => chain(error).into(),
    }
}

/// Counts one more refusal. True if the endpoint probably refuses all requests.
fn refuses(in_flight: &InFlight) -> bool {
    let in_a_row = in_flight.member().stats().refused();
    in_a_row >= REFUSED_IN_A_ROW || in_flight.member().is_unreachable()
}

/// Waits until a service of `Req` is ready; also while it is [`Busy`].
pub(super) fn ready<S, Req>(mut service: S) -> BoxFuture<'static, Result<(), BoxError>>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    Box::pin(async move {
        loop {
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::<BoxError>::into));
            match ready.await {
                Err(error) if error.is::<Busy>() => {}
                ready => return ready,
            }
        }
    })
}
