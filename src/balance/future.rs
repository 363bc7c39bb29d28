//! A request on its way: from the pick to the response, by way of as many endpoints as it takes.
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
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use futures::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    recovery::Refusal,
    shared::{Placement, Shared},
};
use crate::{
    error::{BoxError, Error, Suspect, Unsent},
    in_flight::{Completion, InFlight},
    policy::Policy,
};

pin_project! {
    /// The future of a balanced request.
    ///
    /// Dropping it at any time cancels the request and counts it out.
    pub struct ResponseFuture<S, Req, P, C>
    where
        S: Service<Req>,
        P: Policy,
    {
        #[pin]
        state: State<S, S::Future, Req, P>,
        completion: C,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, Req, P>
    where
        P: Policy,
    {
        /// An endpoint has been picked and is not ready yet; the request is still here.
        Unsent { service: S, held: Option<Held<Req>>, shared: Arc<Shared<S, P>> },
        /// The endpoint has the request. Its service is gone from here, so that the request doesn't keep a removed
        /// endpoint's connections open; and so is the balancer, which the guard leads back to.
        Sent { #[pin] future: F, in_flight: Option<InFlight>, avoid: Avoid },
        /// No endpoint accepts requests.
        Waiting { change: BoxFuture<'static, ()>, request: Option<Req>, avoid: Avoid, shared: Arc<Shared<S, P>> },
        Failed { error: Option<Error> },
    }
}

/// A request that waits for its endpoint's readiness.
struct Held<Req> {
    request: Req,
    in_flight: InFlight,
    avoid: Avoid,
}

/// Where a request is not to go as long as there are others.
type Avoid = Option<Arc<[SocketAddr]>>;

/// The fields of a state are taken once, on the way to the next one.
const TAKEN: &str = "polled after completion";

impl<S, Req, P, C> ResponseFuture<S, Req, P, C>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
{
    #[inline]
    pub(super) fn new(shared: &Arc<Shared<S, P>>, completion: C, request: Req) -> Self {
        Self {
            state: place(shared, request),
            completion,
        }
    }

    /// The same for a request that is not to go to any of `avoid` if another endpoint accepts it.
    pub(super) fn avoiding(
        shared: &Arc<Shared<S, P>>,
        completion: C,
        request: Req,
        avoid: &[SocketAddr],
    ) -> Self {
        Self {
            state: place_avoiding(shared, request, Some(avoid.into())),
            completion,
        }
    }
}

/// Brings a request to an endpoint that is ready or may become so, past those that refuse.
#[inline]
fn place<S, Req, P>(shared: &Arc<Shared<S, P>>, request: Req) -> State<S, S::Future, Req, P>
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
fn place_avoiding<S, Req, P>(
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

impl<S, Req, P, C> Future for ResponseFuture<S, Req, P, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    P: Policy,
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
                    avoid,
                } => {
                    let Poll::Ready(result) = future.poll(cx) else {
                        if let Some(in_flight) = in_flight {
                            in_flight.wait();
                        }
                        return Poll::Pending;
                    };
                    let mut in_flight = in_flight.take().expect(TAKEN);
                    match result {
                        Ok(response) => {
                            Shared::<S, P>::accepted(&mut in_flight);
                            return Poll::Ready(Ok(this.completion.complete(in_flight, response)));
                        }
                        Err(error) => {
                            let error = error.into();
                            in_flight.report(this.completion.failed(&error));
                            match take_back(in_flight, error, avoid.take()) {
                                Ok(state) => state,
                                Err(error) => return Poll::Ready(Err(error)),
                            }
                        }
                    }
                }
                StateProjection::Unsent {
                    service,
                    held,
                    shared,
                } => {
                    let ready = ready!(service.poll_ready(cx));
                    let Held {
                        request,
                        in_flight,
                        avoid,
                    } = held.take().expect(TAKEN);
                    match ready {
                        Ok(()) => State::Sent {
                            future: service.call(request),
                            in_flight: Some(in_flight),
                            avoid,
                        },
                        Err(error) => {
                            let refusal = Refusal::NotReady;
                            shared.refused(in_flight, refusal, error.into(), probe::<S, Req>);
                            place_avoiding(shared, request, avoid)
                        }
                    }
                }
                StateProjection::Waiting {
                    change,
                    request,
                    avoid,
                    shared,
                } => {
                    ready!(change.as_mut().poll(cx));
                    place_avoiding(shared, request.take().expect(TAKEN), avoid.take())
                }
                StateProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect(TAKEN)));
                }
            };
            this.state.set(next);
        }
    }
}

/// Takes a request back that its endpoint has not sent; any other error is the endpoint's answer.
#[cold]
fn take_back<S, Req, P>(
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
        Err(error) if error.is::<Suspect>() => return Err(suspect::<S, Req, P>(in_flight, error)),
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
    let error = error
        .downcast::<Suspect>()
        .map_or_else(|error| error, |suspect| suspect.0);
    Error::endpoint_failed(endpoint, error)
}

/// Waits for the readiness of a service of `Req`.
fn probe<S, Req>(mut service: S) -> BoxFuture<'static, Result<(), BoxError>>
where
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    Box::pin(async move {
        let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::into));
        ready.await
    })
}

impl<S: Service<Req>, Req, P: Policy, C> fmt::Debug for ResponseFuture<S, Req, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
