//! [`RetryLayer`] and its service.

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

/// Sends requests that an endpoint failed to another endpoint, at once and within a budget.
///
/// It goes directly around a [`Balance`]. Layers for each attempt, such as a timeout, go around the endpoints'
/// services. Layers for the whole request go around this one. [`http::Client`](crate::http) has retries of its own.
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
/// The [`RetryPolicy`] decides: [`RetryFailed`](crate::RetryFailed), [`RetryUnavailable`](crate::RetryUnavailable), or
/// your own. A failed request may have been executed, so a policy must resend only requests that may be executed twice.
/// This layer isn't needed for requests that *no* endpoint got: the balancer takes them elsewhere by itself, whatever
/// they are.
///
/// # Where to
///
/// To an endpoint that the request hasn't been to, as long as one takes it. When all have failed it, a request that was
/// *lost* may return to one of them; a request that was *answered* does not. An endpoint whose answer [asks for a pause
/// in retries](RetryPolicy::pushback) gets none for that time, if another endpoint takes them.
///
/// # How often
///
/// One request is sent again at most [3 times](Self::retries). All requests together have a [budget](Self::budget):
/// 20 % of the requests of any 10 seconds, plus 100. Services made by one layer, and their clones, share it.
///
/// So if everything fails, the endpoints get 1.2 + 10/*r* attempts for each of *r* requests a second: 1.21 at 1,000 a
/// second, 1.3 at 100. Below 4 a second, the limit for one request is the tighter one.
///
/// That is a mean over 11 seconds, because the budget is counted in slots of one second. What healthy seconds have
/// saved may be spent at once: when everything begins to fail, each request is sent up to 4 times until those 20 % are
/// spent, and again when those retries have left the window. At 500 requests a second, one second of each eleven has
/// 3.4 attempts for each request, and the others one. To change that, set a budget of your own. `TpsBudget` over one
/// second spends more evenly, but saves less for the moment in which a pod dies with many requests on it.
///
/// # What the caller gets
///
/// The last result: it is good, or no more retries are allowed. There is one exception. An error that says that the
/// request [was not sent](crate::Error::is_unsent) is true only of the last attempt. Then the caller gets the result
/// before it, because the request may have been executed. For that, a result is kept until the next one comes.
///
/// Dropping the future cancels the attempt that is under way.
#[derive(Clone)]
pub struct RetryLayer<L> {
    terms: Terms<L>,
}

impl<L> RetryLayer<L> {
    /// Makes a layer that retries as `policy` says.
    pub fn new(policy: L) -> Self {
        Self {
            terms: Terms {
                policy,
                allowance: Allowance::default(),
                hedges: None,
            },
        }
    }

    /// How often one request may be sent again; 3 by default. Attempts that no endpoint got don't count.
    pub fn retries(mut self, times: usize) -> Self {
        self.terms.allowance.times = times;
        self
    }

    /// The budget that bounds the retries of all requests. Each request is a deposit, and each retry a withdrawal.
    ///
    /// The default is 20 % of the requests plus 10 a second, over ten seconds. That is what
    /// `TpsBudget::new(Duration::from_secs(10), 10, 0.2)` allows, with one deposit for each ten requests.
    /// [`TpsBudget`](tower::retry::budget::TpsBudget) has only shares of the form 1/*n*. It rounds others up: 0.3 is
    /// 1/3, and 0.8 is all.
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.terms.allowance.budget = Arc::new(budget);
        self
    }

    /// Asks a second endpoint if an answer is late; off by default. Only requests that the policy
    /// [allows](RetryPolicy::may_hedge) and can make [again](RetryPolicy::again) are hedged.
    ///
    /// A result that isn't [good](RetryPolicy::is_good) doesn't count while the other one may come. The rules for
    /// retries still hold: if the first endpoint's result is one that is retried, a third endpoint is asked at once. If
    /// none is good in the end, the caller gets the first of the two results. If the second endpoint
    /// [hangs](Hedge#what-is-good), the caller gets the first endpoint's result.
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

/// A [`Balance`] with retries; made by [`RetryLayer`].
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
