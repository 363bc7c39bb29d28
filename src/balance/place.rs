//! Which endpoint has a request: the one that was picked for it, or another one where that refuses.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::{
    reconnect::Refusal,
    shared::{Placement, Shared},
};
use crate::{
    error::{BoxError, Error, Refused, Suspect, Unsent},
    in_flight::InFlight,
    route::Route,
};

pin_project! {
    /// Where a request stands.
    #[project = StateProjection]
    pub(super) enum State<S, F, Req> {
        /// An endpoint has been picked and is not ready yet; the request is still here.
        Unsent { service: S, held: Option<Held<Req>>, shared: Arc<Shared<S>> },
        /// The endpoint has the request. Its service is gone from here, so that the request doesn't keep a removed
        /// endpoint's connections open; and so is the balancer, which the guard leads back to.
        Sent { #[pin] future: F, in_flight: Option<InFlight>, route: Route },
        /// No endpoint accepts requests.
        Waiting {
            change: BoxFuture<'static, ()>,
            request: Option<Req>,
            route: Route,
            // Of a request for one pod, until when it waits.
            deadline: Option<Instant>,
            shared: Arc<Shared<S>>,
        },
        Failed { error: Option<Error> },
    }
}

/// A request that waits for its endpoint's readiness.
pub(super) struct Held<Req> {
    pub(super) request: Req,
    pub(super) in_flight: InFlight,
    pub(super) route: Route,
}

/// Brings a request to an endpoint that is ready or may become so, past those that refuse.
#[inline]
pub(super) fn place<S, Req>(shared: &Arc<Shared<S>>, request: Req) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    let Some((service, in_flight)) = shared.pick() else {
        return place_routed(shared, request, Route::new(), None);
    };
    match offer(shared, service, in_flight, request, Route::new()) {
        Ok(state) => state,
        Err(request) => place_routed(shared, request, Route::new(), None),
    }
}

/// Brings a request to where its `route` leads. One for a single pod has waited for it until `deadline`, if it has waited.
///
/// A loop: thousands of endpoints may refuse one after another, and the stack must not grow with them.
#[cold]
pub(super) fn place_routed<S, Req>(
    shared: &Arc<Shared<S>>,
    mut request: Req,
    route: Route,
    deadline: Option<Instant>,
) -> State<S, S::Future, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    loop {
        let (service, in_flight) = match shared.pick_routed(&route) {
            Some(picked) => picked,
            None => match shared.pick_or_wait(&route, deadline) {
                Ok(Placement::Picked(service, in_flight)) => (service, in_flight),
                Ok(Placement::Waiting { change, deadline }) => {
                    return State::Waiting {
                        change,
                        request: Some(request),
                        route,
                        deadline,
                        shared: shared.clone(),
                    };
                }
                Err(error) => return State::Failed { error: Some(error) },
            },
        };
        match offer(shared, service, in_flight, request, route.clone()) {
            Ok(state) => return state,
            Err(refused) => request = refused,
        }
    }
}

/// Gives a request to the endpoint that has been picked for it, if that is ready; gives it back if that refuses.
#[inline]
fn offer<S, Req>(
    shared: &Arc<Shared<S>>,
    mut service: S,
    in_flight: InFlight,
    request: Req,
    route: Route,
) -> Result<State<S, S::Future, Req>, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    // Most are. One that is not is polled again, by the task that is to be woken, before anything can be missed.
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => Ok(State::Sent {
            future: service.call(request),
            in_flight: Some(in_flight),
            route,
        }),
        Poll::Ready(Err(error)) => {
            let refusal = Refusal::NotReady;
            shared.refused(in_flight, refusal, error.into(), ready::<S, Req>);
            Err(request)
        }
        Poll::Pending => Ok(State::Unsent {
            service,
            held: Some(Held {
                request,
                in_flight,
                route,
            }),
            shared: shared.clone(),
        }),
    }
}

/// Takes a request back that its endpoint has not sent; any other error is the endpoint's answer.
#[cold]
pub(super) fn take_back<S, Req>(
    in_flight: InFlight,
    error: BoxError,
    route: Route,
) -> Result<State<S, S::Future, Req>, Error>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let unsent = match error.downcast::<Unsent<Req>>() {
        Ok(unsent) => unsent,
        Err(error) => return Err(fail::<S, Req>(in_flight, error)),
    };
    let (request, error) = unsent.into_parts();
    let Some(shared) = Shared::<S>::of(&in_flight) else {
        return Err(Error::closed(Some(error.into())));
    };
    shared.refused(in_flight, Refusal::HandedBack, error, ready::<S, Req>);
    Ok(place_routed(&shared, request, route, None))
}

/// How many requests in a row an endpoint refuses before it is passed over. One alone may be that its limit was lowered a
/// moment ago.
const REFUSED_IN_A_ROW: u32 = 3;

/// The endpoint had the request, and failed. In some ways of failing it is passed over, as one that accepts no requests.
fn fail<S, Req>(mut in_flight: InFlight, error: BoxError) -> Error
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let endpoint = in_flight.endpoint().clone();
    let (is_passed_over, error) = match error.downcast::<Suspect>() {
        Ok(suspect) => (true, suspect.0),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => (refuses(&in_flight), refused.0),
            Err(error) => (false, error),
        },
    };
    if !is_passed_over {
        Shared::<S>::end_trial(&mut in_flight);
    } else if let Some(shared) = Shared::<S>::of(&in_flight) {
        let why = error.to_string().into();
        shared.refused(in_flight, Refusal::HandedBack, why, ready::<S, Req>);
    }
    Error::endpoint_failed(endpoint, error)
}

/// Whether an endpoint that has refused one more request refuses them all, as far as can be told.
fn refuses(in_flight: &InFlight) -> bool {
    let in_a_row = in_flight.member().stats().refused();
    in_a_row >= REFUSED_IN_A_ROW || in_flight.member().is_unreachable()
}

/// Waits for the readiness of a service of `Req`.
pub(super) fn ready<S, Req>(mut service: S) -> BoxFuture<'static, Result<(), BoxError>>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    Box::pin(async move {
        let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::into));
        ready.await
    })
}
