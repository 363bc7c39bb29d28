//! A request on its way: from the pick to the response, by way of as many endpoints as it takes.
//!
//! ```text
//!               not ready, with an error
//!              ┌────────────────────────┐
//!              ▼                        │
//!  place ──▶ Unsent ── is ready ──▶ Sent ── response, or the endpoint's error ──▶ done
//!   │ ▲        ▲                        │
//!   │ └─ woken │                        │
//!   ▼          └────────────────────────┘
//!  Waiting       the request is handed back
//! ```

use std::{
    any::type_name,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::{BoxFuture, poll_fn};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    recovery::Refusal,
    shared::{Placement, Shared},
};
use crate::{
    error::{BoxError, Error, Unsent},
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
        state: State<S, S::Future, Req>,
        shared: Arc<Shared<S, P>>,
        completion: C,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, Req> {
        /// An endpoint has been picked; the request is still here.
        Unsent { service: S, held: Option<Held<Req>> },
        /// The endpoint has the request. Its service is gone from here, so that the request doesn't keep a removed
        /// endpoint's connections open.
        Sent { #[pin] future: F, in_flight: Option<InFlight> },
        /// No endpoint accepts requests.
        Waiting { change: BoxFuture<'static, ()>, request: Option<Req> },
        Failed { error: Option<Error> },
    }
}

/// A request that waits for its endpoint's readiness.
struct Held<Req> {
    request: Req,
    in_flight: InFlight,
}

/// The fields of a state are taken once, on the way to the next one.
const TAKEN: &str = "polled after completion";

impl<S, Req, P, C> ResponseFuture<S, Req, P, C>
where
    S: Service<Req> + Clone,
    P: Policy,
{
    pub(super) fn new(shared: Arc<Shared<S, P>>, completion: C, request: Req) -> Self {
        Self {
            state: place(&shared, request),
            shared,
            completion,
        }
    }
}

fn place<S: Clone, F, P: Policy, Req>(shared: &Shared<S, P>, request: Req) -> State<S, F, Req> {
    match shared.place() {
        Placement::Picked { service, in_flight } => State::Unsent {
            service,
            held: Some(Held { request, in_flight }),
        },
        Placement::Waiting(change) => State::Waiting {
            change,
            request: Some(request),
        },
        Placement::Failed(error) => State::Failed { error: Some(error) },
    }
}

impl<S, Req, P, C> Future for ResponseFuture<S, Req, P, C>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    P: Policy,
    C: Completion<S::Response>,
{
    type Output = Result<C::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Unsent { service, held } => {
                    let ready = ready!(service.poll_ready(cx));
                    let Held { request, in_flight } = held.take().expect(TAKEN);
                    match ready {
                        Ok(()) => State::Sent {
                            future: service.call(request),
                            in_flight: Some(in_flight),
                        },
                        Err(error) => {
                            let refusal = Refusal::NotReady;
                            this.shared
                                .refused(in_flight, refusal, error.into(), probe::<S, Req>);
                            place(this.shared, request)
                        }
                    }
                }
                StateProjection::Sent { future, in_flight } => {
                    let result = ready!(future.poll(cx));
                    let mut in_flight = in_flight.take().expect(TAKEN);
                    let error: BoxError = match result {
                        Ok(response) => {
                            this.shared.accepted(&mut in_flight);
                            return Poll::Ready(Ok(this.completion.complete(in_flight, response)));
                        }
                        Err(error) => error.into(),
                    };
                    match error.downcast::<Unsent<Req>>() {
                        Ok(unsent) => {
                            let (request, error) = unsent.into_parts();
                            let refusal = Refusal::HandedBack;
                            this.shared
                                .refused(in_flight, refusal, error, probe::<S, Req>);
                            place(this.shared, request)
                        }
                        Err(error) => {
                            this.shared.accepted(&mut in_flight);
                            let endpoint = in_flight.endpoint().clone();
                            return Poll::Ready(Err(Error::endpoint_failed(endpoint, error)));
                        }
                    }
                }
                StateProjection::Waiting { change, request } => {
                    ready!(change.as_mut().poll(cx));
                    place(this.shared, request.take().expect(TAKEN))
                }
                StateProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect(TAKEN)));
                }
            };
            this.state.set(next);
        }
    }
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
