//! Which results are no good, and how a request is made again.

use std::time::Duration;

use crate::error::Error;

/// Which results are no good, and how a request is made again.
///
/// ```
/// use tower_headless::{Error, RetryPolicy};
///
/// struct Job { reads_only: bool, body: Vec<u8> } // not Clone
///
/// #[derive(Clone)]
/// struct Reads;
///
/// impl<Res> RetryPolicy<Job, Res> for Reads {
///     fn again(&self, job: &Job) -> Option<Job> {
///         job.reads_only.then(|| Job { reads_only: true, body: job.body.clone() })
///     }
///
///     fn retry(&self, result: Result<&Res, &Error>) -> bool {
///         result.is_err_and(Error::is_endpoint)
///     }
/// }
/// # let job = |reads_only| Job { reads_only, body: Vec::new() };
/// # let again = |job: Job| RetryPolicy::<Job, ()>::again(&Reads, &job).is_some();
/// # assert!(again(job(true)) && !again(job(false)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell whether a request `{Req}` is sent again",
    label = "this is no retry policy of `{Req}` and its response `{Res}`",
    note = "implement `RetryPolicy<{Req}, {Res}>`; for HTTP, `RetryUnavailable` is one"
)]
pub trait RetryPolicy<Req, Res> {
    /// The same request again; none if it must not be executed twice, or can't be had twice.
    ///
    /// Asked before the request is sent for the first time, and then of that copy for each time that it is sent again.
    fn again(&self, request: &Req) -> Option<Req>;

    /// Whether another endpoint is to get the request after this result.
    ///
    /// A request that no endpoint has got ([`Error::is_unsent`]) has been offered to all of them
    /// by then.
    fn retry(&self, result: Result<&Res, &Error>) -> bool;

    /// Whether a second endpoint may get the request while the first one still has it, where there is
    /// [hedging](crate::RetryLayer::hedge). False by default: only for requests that change nothing.
    fn may_hedge(&self, request: &Req) -> bool {
        let _ = request;
        false
    }

    /// Whether this response counts while another endpoint still has the request. One that isn't good is set aside until that one
    /// has answered, too, be it [retried](Self::retry) or not. By default what isn't retried is good.
    fn is_good(&self, response: &Res) -> bool {
        !self.retry(Ok(response))
    }

    /// For how long the endpoint that gave this response wants no requests that are sent again; none by default.
    ///
    /// Meanwhile they go to others, as long as there are some; beyond 30 s they don't. First attempts go there as ever.
    fn pushback(&self, response: &Res) -> Option<Duration> {
        let _ = response;
        None
    }
}
