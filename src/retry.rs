//! Requests that are sent again, to another endpoint and within a budget.
//!
//! tower's own retry sends a request again to whichever endpoint comes next, which may be the one that has just failed it.
//! Here each attempt avoids those before it. The number of retries is bounded twice: for one request, and by a budget for
//! all of them, so that an outage is not made worse by its victims (Finagle's `RetryBudget`; Google's SRE book, chapter
//! 22, on retry budgets).

mod attempt;
mod failed;
mod future;
#[cfg(feature = "http-body")]
mod unavailable;

pub use attempt::{Anywhere, CallAvoiding};
pub use failed::RetryFailed;
pub use future::RetryFuture;
#[cfg(feature = "http-body")]
pub use unavailable::RetryUnavailable;
#[cfg(feature = "http")]
pub(crate) use unavailable::UNAVAILABLE;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::{
    Layer, Service,
    retry::budget::{Budget, TpsBudget},
};

/// How often one request is sent again, at most.
pub(crate) const RETRIES: usize = 3;

/// How many requests may be sent again: a share of all, and some more each second, counted over ten seconds.
const SHARE: f32 = 0.2;
const A_SECOND: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

pub(crate) type SharedBudget = Arc<dyn Budget + Send + Sync>;

pub(crate) fn default_budget() -> SharedBudget {
    Arc::new(TpsBudget::new(WINDOW, A_SECOND, SHARE))
}

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
/// impl<Res> RetryPolicy<Job, Res, Error> for Reads {
///     fn again(&self, job: &Job) -> Option<Job> {
///         job.reads_only.then(|| Job { reads_only: true, body: job.body.clone() })
///     }
///
///     fn retry(&self, result: Result<&Res, &Error>) -> bool {
///         result.is_err_and(Error::is_endpoint)
///     }
/// }
/// # let job = |reads_only| Job { reads_only, body: Vec::new() };
/// # let again = |job: Job| RetryPolicy::<Job, (), Error>::again(&Reads, &job).is_some();
/// # assert!(again(job(true)) && !again(job(false)));
/// ```
pub trait RetryPolicy<Req, Res, E> {
    /// The same request again; none if it must not be executed twice, or can't be had twice.
    ///
    /// Asked before the request is sent for the first time, and then of that copy for each time that it is sent again.
    fn again(&self, request: &Req) -> Option<Req>;

    /// Whether another endpoint is to get the request after this result.
    ///
    /// A request that no endpoint has got ([`Error::is_unsent`](crate::Error::is_unsent)) has been offered to all of them
    /// by then.
    fn retry(&self, result: Result<&Res, &E>) -> bool;
}

/// Sends requests again that an endpoint has failed: to another endpoint, at once, and within a budget.
///
/// It goes around a [`Balance`](crate::Balance), directly. Layers for each attempt, such as a timeout, go around the
/// endpoints' services; layers for the whole, around this one. [`http::Client`](crate::http) has retries of its own.
///
/// ```
/// use tower::{Layer, Service, ServiceExt, service_fn};
/// use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints, RetryFailed, RetryLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
/// let balance = Balance::builder(pods).build(|endpoint: &Endpoint| {
///     let is_broken = endpoint.address().ip().to_string() == "10.244.1.7";
///     service_fn(move |request: u32| async move {
///         if is_broken { Err("connection reset") } else { Ok(request) }
///     })
/// });
/// // Every one of these requests may be executed twice.
/// let mut service = RetryLayer::new(RetryFailed).layer(balance);
/// for request in 0..10 {
///     assert_eq!(service.ready().await?.call(request).await?, request);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What is sent again
///
/// What the [`RetryPolicy`] says: [`RetryFailed`], [`RetryUnavailable`], or one's own. That a request failed says nothing
/// of whether it was executed: a policy makes only those again that may be executed twice. Requests that an endpoint has
/// *not* got are none of this layer's business: the balancer takes them elsewhere by itself, whatever they are.
///
/// # Where to
///
/// To none of the endpoints that the request has been on, as long as another one takes it. When all of them have failed
/// it, a request that was *lost* may come back to one of them; one that was *answered* does not.
///
/// # How often
///
/// A request at most [3 times](Self::retries), and all requests together within a [budget](Self::budget): of the requests
/// of any 10 seconds 20 %, and 100 more. Services made by one layer, and their clones, share it.
///
/// With everything failing, the endpoints so get 1.2 + 10/*r* attempts for each of *r* requests a second: 1.21 at 1,000 a
/// second, 1.3 at 100. Below 4 a second the bound of each request is the tighter one.
///
/// That is a mean over 11 seconds, for the budget is counted in slots of one second. What healthy seconds have saved may be
/// spent at once: when everything begins to fail, each request is sent up to 4 times until those 20 % are spent, and again
/// when what was spent has left the window. At 500 requests a second, one second of each eleven has 3.4 attempts for each
/// request, and the others one. It takes a budget of one's own to have it otherwise: `TpsBudget` over one second saves less
/// for the moment in which a pod dies with many requests on it, and spends it more evenly.
///
/// # What the caller gets
///
/// The last result, be it because it is good, or because no more retries are allowed. An error that says that the request
/// [was not sent](crate::Error::is_unsent) is true of the last attempt only: then the result before it is returned, for the
/// request may have been executed. For that, a result is kept until the next one comes.
///
/// Dropping the future cancels whatever attempt is under way.
#[derive(Clone)]
pub struct RetryLayer<L> {
    terms: Terms<L>,
}

/// What the clones of a service have in common.
#[derive(Clone)]
struct Terms<L> {
    policy: L,
    retries: usize,
    budget: SharedBudget,
}

impl<L> RetryLayer<L> {
    /// A layer that retries as `policy` says.
    pub fn new(policy: L) -> Self {
        Self {
            terms: Terms {
                policy,
                retries: RETRIES,
                budget: default_budget(),
            },
        }
    }

    /// How often one request may be sent again, at most; 3 by default. What no endpoint has got doesn't count.
    pub fn retries(mut self, times: usize) -> Self {
        self.terms.retries = times;
        self
    }

    /// What bounds the retries of all requests. Each request is a deposit, and each retry a withdrawal.
    ///
    /// By default `TpsBudget::new(Duration::from_secs(10), 10, 0.2)`. Of shares, [`TpsBudget`] knows those that are one in
    /// a whole number; it takes others for the next larger one of these, 0.3 for 1/3 and 0.8 for all.
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.terms.budget = Arc::new(budget);
        self
    }
}

impl<S, L: Clone> Layer<S> for RetryLayer<L> {
    type Service = Retry<S, L>;

    fn layer(&self, service: S) -> Self::Service {
        Retry {
            service,
            terms: Arc::new(self.terms.clone()),
        }
    }
}

/// A service whose requests are sent again; made by [`RetryLayer`].
pub struct Retry<S, L> {
    service: S,
    terms: Arc<Terms<L>>,
}

impl<S, L> Retry<S, L> {
    /// The service that the requests go to.
    pub fn get_ref(&self) -> &S {
        &self.service
    }
}

impl<S, L, Req> Service<Req> for Retry<S, L>
where
    S: CallAvoiding<Req> + Clone,
    L: RetryPolicy<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, L, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.terms.budget.deposit();
        RetryFuture::new(&mut self.service, &self.terms, request)
    }
}

impl<S: Clone, L> Clone for Retry<S, L> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            terms: self.terms.clone(),
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for RetryLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.terms.policy)
            .field("retries", &self.terms.retries)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, L> fmt::Debug for Retry<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
