//! Which endpoint a response comes from.

use crate::{
    endpoint::Endpoint,
    error::BoxError,
    in_flight::{Completion, InFlight},
    outcome::Outcome,
};

/// A completion around the balancer's own that also returns the endpoint of the response.
#[derive(Clone)]
pub(super) struct Located<C>(pub(super) C);

impl<C: Completion<R>, R> Completion<R> for Located<C> {
    type Response = (Endpoint, C::Response);

    fn complete(&self, in_flight: InFlight, response: R) -> Self::Response {
        let endpoint = in_flight.endpoint().clone();
        (endpoint, self.0.complete(in_flight, response))
    }

    fn failed(&self, error: &BoxError) -> Outcome {
        self.0.failed(error)
    }

    fn status(&self, response: &R) -> Option<u16> {
        self.0.status(response)
    }

    fn is_whole(&self) -> bool {
        self.0.is_whole()
    }
}
