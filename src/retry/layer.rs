//! The layer, and its service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service, retry::budget::Budget};

use super::{
    attempts::Allowance,
    future::{RetryFuture, Terms},
    policy::RetryPolicy,
};
use crate::{
    balance::Balance,
    error::{BoxError, Error},
    hedge::{Hedge, Hedges},
    in_flight::Completion,
    pinned::Pinned,
    route::{PodId, Route},
};

/// Sends requests again that an endpoint has failed: to another endpoint, at once, and within a budget.
///
/// It goes around a [`Balance`], directly. Layers for each attempt, such as a timeout, go around the endpoints' services;
/// layers for the whole, around this one. [`http::Client`](crate::http) has retries of its own.
///
/// Over any other service, use tower's own [`Retry`](tower::retry::Retry); it takes the same budgets. If the service carries
/// requests to a balancer and hands their [`Route`] on, tower's policy can [avoid](Route::avoid) the endpoints that failed.
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
/// What the [`RetryPolicy`] says: [`RetryFailed`](crate::RetryFailed), [`RetryUnavailable`](crate::RetryUnavailable), or one's own. That a request failed says nothing
/// of whether it was executed: a policy makes only those again that may be executed twice. Requests that an endpoint has
/// *not* got are none of this layer's business: the balancer takes them elsewhere by itself, whatever they are.
///
/// # Where to
///
/// To none of the endpoints that the request has been on, as long as another one takes it. When all of them have failed
/// it, a request that was *lost* may come back to one of them; one that was *answered* does not. An endpoint whose answer
/// [asks for a while without retries](RetryPolicy::pushback) gets none for so long, as long as another one takes them.
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

impl<L> RetryLayer<L> {
    /// A layer that retries as `policy` says.
    pub fn new(policy: L) -> Self {
        Self {
            terms: Terms {
                policy,
                allowance: Allowance::default(),
                hedges: None,
            },
        }
    }

    /// How often one request may be sent again, at most; 3 by default. What no endpoint has got doesn't count.
    pub fn retries(mut self, times: usize) -> Self {
        self.terms.allowance.times = times;
        self
    }

    /// What bounds the retries of all requests. Each request is a deposit, and each retry a withdrawal.
    ///
    /// By default 20 % of the requests and 10 a second more, over ten seconds: what `TpsBudget::new(Duration::from_secs(10), 10, 0.2)`
    /// allows, with the deposits of ten requests made at once. Of shares, [`TpsBudget`](tower::retry::budget::TpsBudget) knows those that are one in
    /// a whole number; it takes others for the next larger one of these, 0.3 for 1/3 and 0.8 for all.
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.terms.allowance.budget = Arc::new(budget);
        self
    }

    /// Asks a second endpoint for an answer that is late; off by default. Only what the policy
    /// [allows](RetryPolicy::may_hedge) is hedged, and what it makes [again](RetryPolicy::again).
    ///
    /// A result that isn't [good](RetryPolicy::is_good) doesn't count while the other one may come. The rules for retries hold as
    /// ever: if the first endpoint's is one that is retried, a third endpoint is asked at once. Where none is good in the end,
    /// the first result of the two is the caller's; and so is the first endpoint's where the second one
    /// [hangs](Hedge#what-is-good).
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.terms.hedges = Some(Arc::new(Hedges::new(&hedge)));
        self
    }
}

impl<S, C, L: Clone> Layer<Balance<S, C>> for RetryLayer<L> {
    type Service = Retry<Balance<S, C>, L>;

    fn layer(&self, balance: Balance<S, C>) -> Self::Service {
        if self.terms.hedges.is_some() {
            balance.begin_hedging();
        }
        let mut terms = self.terms.clone();
        terms.allowance.tally = balance.tally().cloned();
        Retry {
            balance,
            terms: Arc::new(terms),
        }
    }
}

/// A [`Balance`] whose requests are sent again; made by [`RetryLayer`].
pub struct Retry<B, L> {
    balance: B,
    terms: Arc<Terms<L>>,
}

impl<B, L> Retry<B, L> {
    /// The balancer that the requests go to.
    pub fn get_ref(&self) -> &B {
        &self.balance
    }
}

impl<S, C, L> Retry<Balance<S, C>, L> {
    /// [`call`](Service::call) with a [`Route`] that every attempt keeps to; see [`Balance::call_with`].
    pub fn call_with<Req>(&self, request: Req, route: Route) -> RetryFuture<S, Req, C, L>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        Req: 'static,
        C: Completion<S::Response> + Clone,
        L: RetryPolicy<Req, C::Response>,
    {
        RetryFuture::new(&self.balance, &self.terms, request, route)
    }
}

impl<S, C, L, Req> Service<Req> for Retry<Balance<S, C>, L>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    type Response = C::Response;
    type Error = Error;
    type Future = RetryFuture<S, Req, C, L>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.call_with(request, Route::new())
    }
}

impl<S, C: Clone, L> Retry<Balance<S, C>, L> {
    /// [`Balance::pod`] with retries, which stay on that pod.
    pub fn pod(&self, id: impl Into<PodId>) -> Pinned<Self> {
        self.pinned(Route::new().pod(id))
    }

    /// [`Balance::others`] with retries.
    pub fn others(&self, than: impl Into<PodId>) -> Pinned<Self> {
        self.pinned(Route::new().leave_out(than))
    }

    fn pinned(&self, route: Route) -> Pinned<Self> {
        self.balance.ask_for(&route);
        Pinned::new(self.clone(), route)
    }
}

impl<S, C, L, Req> Service<Req> for Pinned<Retry<Balance<S, C>, L>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    type Response = C::Response;
    type Error = Error;
    type Future = RetryFuture<S, Req, C, L>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Req>::poll_ready(self.get_mut(), cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let route = self.route().clone();
        self.get_ref().call_with(request, route)
    }
}

impl<B: Clone, L> Clone for Retry<B, L> {
    fn clone(&self) -> Self {
        Self {
            balance: self.balance.clone(),
            terms: self.terms.clone(),
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for RetryLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.terms.policy)
            .field("retries", &self.terms.allowance.times)
            .finish_non_exhaustive()
    }
}

impl<B: fmt::Debug, L> fmt::Debug for Retry<B, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("balance", &self.balance)
            .finish_non_exhaustive()
    }
}
