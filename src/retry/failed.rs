//! The policy that most services need: it retries errors of endpoints.

use super::policy::RetryPolicy;
use crate::error::Error;

/// Retries every request that an endpoint failed with an error. Requests must be [`Clone`].
///
/// Use it only if all requests may be executed twice. For others, write a [`RetryPolicy`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryFailed;

impl<Req: Clone, Res> RetryPolicy<Req, Res> for RetryFailed {
    fn again(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn retry(&self, result: Result<&Res, &Error>) -> bool {
        result.is_err_and(Error::is_endpoint)
    }
}
