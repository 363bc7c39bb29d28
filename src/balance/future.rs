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
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    place::{Avoid, place, place_avoiding, probe, take_back},
    recovery::Refusal,
    shared::Shared,
};
use crate::{
    error::{BoxError, Error},
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
    pub(super) enum State<S, F, Req, P>
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
pub(super) struct Held<Req> {
    pub(super) request: Req,
    pub(super) in_flight: InFlight,
    pub(super) avoid: Avoid,
}

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

impl<S: Service<Req>, Req, P: Policy, C> fmt::Debug for ResponseFuture<S, Req, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
