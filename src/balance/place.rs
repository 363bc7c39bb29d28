//! Which endpoint has a request: the one that was picked for it, or another one where that refuses.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::future::{BoxFuture, poll_fn};
use tower::Service;

use super::{
    future::{Held, State},
    recovery::Refusal,
    shared::{Placement, Shared},
};
use crate::{
    error::{BoxError, Error, Refused, Suspect, Unsent},
    in_flight::InFlight,
    policy::Policy,
};

/// Where a request is not to go as long as there are others.
pub(super) type Avoid = Option<Arc<[SocketAddr]>>;

/// Brings a request to an endpoint that is ready or may become so, past those that refuse.
#[inline]
pub(super) fn place<S, Req, P>(
    shared: &Arc<Shared<S, P>>,
    request: Req,
) -> State<S, S::Future, Req, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
{
    let Some((service, in_flight)) = shared.pick() else {
        return place_later(shared, request, None);
    };
    match offer(shared, service, in_flight, request, None) {
        Ok(state) => state,
        Err(request) => place_later(shared, request, None),
    }
}

/// The same, past those that are to be avoided as long as there are others.
#[cold]
pub(super) fn place_avoiding<S, Req, P>(
    shared: &Arc<Shared<S, P>>,
    mut request: Req,
    avoid: Avoid,
) -> State<S, S::Future, Req, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
{
    let Some(avoided) = &avoid else {
        return place(shared, request);
    };
    while let Some((service, in_flight)) = shared.pick_avoiding(avoided) {
        match offer(shared, service, in_flight, request, avoid.clone()) {
            Ok(state) => return state,
            Err(refused) => request = refused,
        }
    }
    place_later(shared, request, avoid)
}

/// A loop: thousands of endpoints may refuse one after another, and the stack is not to grow with them.
#[cold]
fn place_later<S, Req, P>(
    shared: &Arc<Shared<S, P>>,
    mut request: Req,
    avoid: Avoid,
) -> State<S, S::Future, Req, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
{
    loop {
        let (service, in_flight) = match shared.pick_or_wait() {
            Ok(Placement::Picked(service, in_flight)) => (service, in_flight),
            Ok(Placement::Waiting(change)) => {
                return State::Waiting {
                    change,
                    request: Some(request),
                    avoid,
                    shared: shared.clone(),
                };
            }
            Err(error) => return State::Failed { error: Some(error) },
        };
        match offer(shared, service, in_flight, request, None) {
            Ok(state) => return state,
            Err(refused) => request = refused,
        }
    }
}

/// Gives a request to the endpoint that has been picked for it, if that is ready; gives it back if that refuses.
#[inline]
fn offer<S, Req, P>(
    shared: &Arc<Shared<S, P>>,
    mut service: S,
    in_flight: InFlight,
    request: Req,
    avoid: Avoid,
) -> Result<State<S, S::Future, Req, P>, Req>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
{
    // Most are. One that is not is polled again, by the task that is to be woken, before anything can be missed.
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => Ok(State::Sent {
            future: service.call(request),
            in_flight: Some(in_flight),
            avoid,
        }),
        Poll::Ready(Err(error)) => {
            let refusal = Refusal::NotReady;
            shared.refused(in_flight, refusal, error.into(), probe::<S, Req>);
            Err(request)
        }
        Poll::Pending => Ok(State::Unsent {
            service,
            held: Some(Held {
                request,
                in_flight,
                avoid,
            }),
            shared: shared.clone(),
        }),
    }
}

/// Takes a request back that its endpoint has not sent; any other error is the endpoint's answer.
#[cold]
pub(super) fn take_back<S, Req, P>(
    mut in_flight: InFlight,
    error: BoxError,
    avoid: Avoid,
) -> Result<State<S, S::Future, Req, P>, Error>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    P: Policy,
{
    let unsent = match error.downcast::<Unsent<Req>>() {
        Ok(unsent) => unsent,
        // core: one that refuses is passed over at once, and its trial counts as `Ignored`. It is to be three in a row without
        // an answer between; before that, the refusal is an answer, and `Overload` stands.
        Err(error) if error.is::<Suspect>() || error.is::<Refused>() => {
            return Err(suspect::<S, Req, P>(in_flight, error));
        }
        Err(error) => {
            Shared::<S, P>::end_trial(&mut in_flight);
            return Err(Error::endpoint_failed(in_flight.endpoint().clone(), error));
        }
    };
    let (request, error) = unsent.into_parts();
    let Some(shared) = Shared::<S, P>::of(&in_flight) else {
        return Err(Error::closed(Some(error.into())));
    };
    shared.refused(in_flight, Refusal::HandedBack, error, probe::<S, Req>);
    Ok(place_avoiding(&shared, request, avoid))
}

/// The endpoint had the request and failed in a way that makes it one to be passed over.
fn suspect<S, Req, P>(in_flight: InFlight, error: BoxError) -> Error
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    P: Policy,
{
    let endpoint = in_flight.endpoint().clone();
    if let Some(shared) = Shared::<S, P>::of(&in_flight) {
        let why = error.to_string().into();
        shared.refused(in_flight, Refusal::HandedBack, why, probe::<S, Req>);
    }
    // core: whichever way a refusal goes, the mark is taken off here before the caller sees the error.
    let error = error
        .downcast::<Suspect>()
        .map_or_else(|error| error, |suspect| suspect.0);
    let error = error
        .downcast::<Refused>()
        .map_or_else(|error| error, |refused| refused.0);
    Error::endpoint_failed(endpoint, error)
}

/// Waits for the readiness of a service of `Req`.
pub(super) fn probe<S, Req>(mut service: S) -> BoxFuture<'static, Result<(), BoxError>>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    Box::pin(async move {
        let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::into));
        ready.await
    })
}
