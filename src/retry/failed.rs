//! What most services need: errors of endpoints are retried.

use super::policy::RetryPolicy;
use crate::error::Error;

/// Retries whatever an endpoint has failed with an error, of requests that are [`Clone`].
///
/// All of them: only for requests that may be executed twice. For others, write a [`RetryPolicy`].
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
