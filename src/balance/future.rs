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
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{
    place::{Held, State, StateProjection, place, place_routed, ready, take_back},
    reconnect::Refusal,
    shared::Shared,
};
use crate::{
    error::{BoxError, Error},
    in_flight::Completion,
    route::Route,
};

pin_project! {
    /// The future of a balanced request.
    ///
    /// Dropping it at any time cancels the request and counts it out.
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, S::Future, Req>,
        completion: C,
    }
}

/// The fields of a state are taken once, on the way to the next one.
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

    /// A request that says where it wants to go.
    pub(super) fn routed(
        shared: &Arc<Shared<S>>,
        completion: C,
        request: Req,
        route: Route,
    ) -> Self {
        Self {
            state: place_routed(shared, request, route, None),
            completion,
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
                    route,
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
                            Shared::<S>::accepted(&mut in_flight, this.completion.is_whole());
                            return Poll::Ready(Ok(this.completion.complete(in_flight, response)));
                        }
                        Err(error) => {
                            let error = error.into();
                            in_flight.report(this.completion.failed(&error));
                            match take_back(in_flight, error, std::mem::take(route)) {
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
                    let is_ready = task::ready!(service.poll_ready(cx));
                    let Held {
                        request,
                        in_flight,
                        route,
                    } = held.take().expect(TAKEN);
                    match is_ready {
                        Ok(()) => State::Sent {
                            future: service.call(request),
                            in_flight: Some(in_flight),
                            route,
                        },
                        Err(error) => {
                            let refusal = Refusal::NotReady;
                            shared.refused(in_flight, refusal, error.into(), ready::<S, Req>);
                            place_routed(shared, request, route, None)
                        }
                    }
                }
                StateProjection::Waiting {
                    change,
                    request,
                    route,
                    deadline,
                    shared,
                } => {
                    task::ready!(change.as_mut().poll(cx));
                    let request = request.take().expect(TAKEN);
                    place_routed(shared, request, std::mem::take(route), *deadline)
                }
                StateProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect(TAKEN)));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
