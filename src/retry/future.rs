//! The future of one request, which makes its attempts one after another.

use std::{
    any::type_name,
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{
    attempts::{Allowance, Attempts, Ended, Fate, Told},
    located::Located,
    policy::RetryPolicy,
};
use crate::{
    balance::{Balance, ResponseFuture},
    endpoint::Endpoint,
    error::{BoxError, Error, line},
    hedge::{Charge, Contest, Hedges, Race},
    in_flight::Completion,
    logs::{self, REQUESTS, debug},
    route::Route,
};

/// What the clones of a service share.
#[derive(Clone)]
pub(super) struct Terms<L> {
    pub(super) policy: L,
    pub(super) allowance: Allowance,
    pub(super) hedges: Option<Arc<Hedges>>,
}

/// The caller's result.
type CallerResult<S, Req, C> =
    Result<<C as Completion<<S as Service<Req>>::Response>>::Response, Error>;

type Attempt<S, Req, C> = ResponseFuture<S, Req, Located<C>>;

/// The result of an attempt.
type AttemptResult<S, Req, C> = Result<
    (
        Endpoint,
        <C as Completion<<S as Service<Req>>::Response>>::Response,
    ),
    Error,
>;

/// What follows an attempt: another one, or the caller's result.
type Next<S, Req, C> = ControlFlow<CallerResult<S, Req, C>, Attempt<S, Req, C>>;

pin_project! {
    /// The future of a request that may be sent again. Dropping it cancels the request.
    pub struct RetryFuture<S, Req, C, L>
    where
        S: Service<Req>,
        C: Completion<S::Response>,
    {
        #[pin]
        race: Race<Attempt<S, Req, C>>,
        // None if the request must never be sent again.
        replay: Option<Replay<S, Req, C, L>>,
    }
}

/// What is needed to send a request again.
struct Replay<S, Req, C, L>
where
    S: Service<Req>,
    C: Completion<S::Response>,
{
    request: Req,
    balance: Balance<S, C>,
    terms: Arc<Terms<L>>,
    attempts: Attempts<CallerResult<S, Req, C>>,
}

impl<S, Req, C, L> RetryFuture<S, Req, C, L>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    pub(super) fn new(
        balance: &Balance<S, C>,
        terms: &Arc<Terms<L>>,
        request: Req,
        route: Route,
    ) -> Self {
        terms.allowance.budget.deposit();
        let hedges = terms.hedges.as_deref();
        let hedges = hedges.filter(|_| terms.policy.may_hedge(&request));
        let again = match (terms.allowance.times, hedges) {
            (0, None) => None,
            _ => terms.policy.again(&request),
        };
        let hedged_after = again
            .as_ref()
            .and_then(|_| hedges?.begin(&route, || balance.late()));
        let replay = again.map(|request| Replay {
            request,
            balance: balance.clone(),
            terms: terms.clone(),
            attempts: Attempts::new(&terms.allowance, route.clone()),
        });
        Self {
            race: Race::new(
                balance.call_completing(request, route, Located),
                hedged_after,
            ),
            replay,
        }
    }
}

impl<S, Req, C, L> Future for RetryFuture<S, Req, C, L>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    type Output = CallerResult<S, Req, C>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Poll::Ready(result) = this.race.as_mut().poll(cx, this.replay.as_mut()) else {
                let aside = ready!(poll_aside(this.race, this.replay, cx));
                *this.replay = None;
                return Poll::Ready(aside);
            };
            let next = match this.replay {
                Some(replay) => replay.next(result),
                None => ControlFlow::Break(result.map(|(_, response)| response)),
            };
            match next {
                ControlFlow::Continue(attempt) => this.race.as_mut().try_again(attempt),
                ControlFlow::Break(result) => {
                    *this.replay = None;
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// Ready with the result that was set aside, once the hedge that goes on alone has used up its time.
fn poll_aside<S, Req, C, L>(
    race: Pin<&mut Race<Attempt<S, Req, C>>>,
    replay: &mut Option<Replay<S, Req, C, L>>,
    cx: &mut Context<'_>,
) -> Poll<CallerResult<S, Req, C>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
{
    let attempts = replay.as_mut().map(|replay| &mut replay.attempts);
    let Some(attempts) = attempts.filter(|attempts| attempts.has_aside()) else {
        return Poll::Pending;
    };
    ready!(race.poll_overdue(cx));
    attempts.take_aside().map_or(Poll::Pending, Poll::Ready)
}

impl<S, Req, C, L> Replay<S, Req, C, L>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    fn next(&mut self, result: AttemptResult<S, Req, C>) -> Next<S, Req, C> {
        let (ended, result) = self.ended(result);
        let Terms {
            policy, allowance, ..
        } = &*self.terms;
        let has_other = |route: &Route| self.balance.has_other(route);
        let again = || policy.again(&self.request);
        let next = self
            .attempts
            .next(result, &ended, allowance, has_other, again);
        let (request, route) = next?;
        let again = self.balance.call_completing(request, route, Located);
        ControlFlow::Continue(again.counted_as_retry())
    }

    /// How an attempt ended.
    fn ended(&self, result: AttemptResult<S, Req, C>) -> (Ended, CallerResult<S, Req, C>) {
        let (fate, endpoint, result) = match result {
            Ok((endpoint, response)) => (Fate::Answered, Some(endpoint), Ok(response)),
            Err(error) if error.is_unsent() => (Fate::Unsent, None, Err(error)),
            Err(error) => (Fate::Lost, error.endpoint().cloned(), Err(error)),
        };
        let Terms {
            policy, allowance, ..
        } = &*self.terms;
        if let (Ok(response), Some(endpoint)) = (&result, &endpoint)
            && let Some(delay) = policy.pushback(response)
        {
            allowance.delays.note(endpoint, delay);
        }
        let is_retried = !self.attempts.are_used_up() && policy.retry(result.as_ref());
        let is_good = |response| policy.is_good(response);
        let is_good = self.attempts.has_aside() && result.as_ref().is_ok_and(is_good);
        let told = || Told {
            service: self.balance.service().cloned(),
            method: None,
            reason: match &result {
                Ok(_) => "its answer is one that is retried".to_owned(),
                Err(error) => line(error),
            },
        };
        let ended = Ended {
            fate,
            endpoint,
            is_retried,
            is_good,
            told: logs::are_requests_told().then(|| Box::new(told())),
        };
        (ended, result)
    }
}

impl<S, Req, C, L> Contest<Attempt<S, Req, C>> for &mut Replay<S, Req, C, L>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
    L: RetryPolicy<Req, C::Response>,
{
    fn late(&self) -> Option<Duration> {
        self.balance.late()
    }

    fn hedge_delay(&self, late: Duration) -> Duration {
        let hedges = self.terms.hedges.as_ref();
        hedges.map_or(late, |hedges| hedges.hedge_delay(late))
    }

    fn second(
        &mut self,
        first: &Attempt<S, Req, C>,
        charge: &mut Charge,
    ) -> Option<Attempt<S, Req, C>> {
        let Terms {
            policy,
            allowance,
            hedges,
        } = &*self.terms;
        let has_other = |route: &Route| self.balance.has_other(route);
        let late = first.endpoint()?;
        let route = self.attempts.beside(late, allowance, has_other)?;
        let request = policy.again(&self.request)?;
        let is_allowed = hedges.as_ref()?.allow(&*allowance.budget, charge);
        if !allowance.hedged(is_allowed, charge) {
            return None;
        }
        let service = self.balance.service();
        debug!(REQUESTS, service, endpoint = %late, "request hedged: its answer is late");
        let hedge = self.balance.call_completing(request, route, Located);
        Some(hedge.counted_as_hedge())
    }

    fn is_good(&self, result: &AttemptResult<S, Req, C>) -> bool {
        let is_good = |(_, response): &(_, _)| self.terms.policy.is_good(response);
        result.as_ref().is_ok_and(is_good)
    }

    fn won(&self, result: &AttemptResult<S, Req, C>) {
        if result.is_ok() {
            self.balance.count_hedge_won();
        }
    }

    fn set_aside(&mut self, result: AttemptResult<S, Req, C>) -> bool {
        let (ended, result) = self.ended(result);
        self.attempts.set_aside(result, &ended);
        ended.is_taken_back(self.terms.hedges.as_deref())
    }

    fn replace(
        &mut self,
        result: AttemptResult<S, Req, C>,
        other: &Attempt<S, Req, C>,
    ) -> Option<Attempt<S, Req, C>> {
        let (ended, result) = self.ended(result);
        let Terms {
            policy, allowance, ..
        } = &*self.terms;
        let has_other = |route: &Route| self.balance.has_other(route);
        let again = || policy.again(&self.request);
        let other = other.endpoint();
        let attempts = &mut self.attempts;
        let (request, route) =
            attempts.replace(result, &ended, other, allowance, has_other, again)?;
        let again = self.balance.call_completing(request, route, Located);
        Some(again.counted_as_retry())
    }
}

impl<S, Req, C, L> fmt::Debug for RetryFuture<S, Req, C, L>
where
    S: Service<Req>,
    C: Completion<S::Response>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<Self>())
    }
}
