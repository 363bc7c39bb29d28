//! [`RetryPolicy`]: which results are retried, and how a request is made again.

use std::time::Duration;

use crate::error::Error;

/// Decides which results are retried, and makes a request again.
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
    /// Makes the request again; `None` if it must not be executed twice, or can't be copied.
    ///
    /// Called before the request is first sent. For each retry, it is called with that copy.
    fn again(&self, request: &Req) -> Option<Req>;

    /// Whether another endpoint should get the request after this result.
    ///
    /// If no endpoint got the request ([`Error::is_unsent`]), it has already been offered to all of them.
    fn retry(&self, result: Result<&Res, &Error>) -> bool;

    /// Whether a second endpoint may get the request while the first one still has it, with
    /// [hedging](crate::RetryLayer::hedge). `false` by default. Return `true` only for requests that change nothing.
    fn may_hedge(&self, request: &Req) -> bool {
        let _ = request;
        false
    }

    /// Whether this response counts while another endpoint still has the request. A response that isn't good is set
    /// aside until the other endpoint has answered too, whether it is [retried](Self::retry) or not. By default, a
    /// response is good if it isn't retried.
    fn is_good(&self, response: &Res) -> bool {
        !self.retry(Ok(response))
    }

    /// How long the endpoint of this response wants no retries; `None` by default.
    ///
    /// Meanwhile retries go to other endpoints, if there are any. At most 30 s are respected. First attempts go there
    /// as usual.
    fn pushback(&self, response: &Res) -> Option<Duration> {
        let _ = response;
        None
    }
}
