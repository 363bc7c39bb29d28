//! The attempts of one request: whether there is another one, where it goes, and which result its caller gets.
//!
//! ```text
//!  an attempt has ended ──▶ is another one wanted, are any left, does the budget allow it?
//!                             │ yes: the request again, on a route that avoids the endpoints so far
//!                             └ no:  the most telling result is the caller's
//! ```
//!
//! The users of this module say how an attempt ended ([`Ended`]); everything that follows from it is decided here.

mod ended;

use std::{ops::ControlFlow, sync::Arc};

use tower::retry::budget::Budget;

pub(crate) use ended::{Ended, Fate, Told};

use super::{budget::DefaultBudget, delays::Delays};
use crate::{
    attempts::AttemptCause,
    counters::{BalanceTally, Retried},
    endpoint::Endpoint,
    hedge::Charge,
    route::Route,
};

/// The default limit of retries for one request.
const TIMES: usize = 3;

/// How often requests may be retried.
#[derive(Clone)]
pub(crate) struct Allowance {
    /// The limit for one request.
    pub(crate) times: usize,
    /// The limit for all requests. Each request is a deposit, and each retry a withdrawal.
    pub(crate) budget: Arc<dyn Budget + Send + Sync>,
    /// Endpoints that have asked for a pause in retries.
    pub(crate) delays: Arc<Delays>,
    /// Counts retries, if the balancer counts.
    pub(crate) tally: Option<Arc<BalanceTally>>,
}

impl Allowance {
    /// Counts a hedge that is due, and returns `is_allowed`. A hedge that is refused again and again counts once.
    pub(crate) fn hedged(&self, is_allowed: bool, charge: &mut Charge) -> bool {
        let is_news = charge.is_news(is_allowed);
        if let Some(tally) = self.tally.as_ref().filter(|_| is_news) {
            tally.hedged(is_allowed);
        }
        is_allowed
    }

    fn retried(&self, fate: Fate) {
        if let Some(tally) = &self.tally {
            tally.retried(match fate {
                Fate::Answered => Retried::Answered,
                Fate::Lost => Retried::Lost,
                Fate::Unprocessed => Retried::Unprocessed,
                Fate::Unsent => Retried::Unsent,
            });
        }
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            times: TIMES,
            budget: Arc::new(DefaultBudget::default()),
            delays: Arc::default(),
            tally: None,
        }
    }
}

/// The attempts of one request whose results are of type `T`.
pub(crate) struct Attempts<T> {
    left: usize,
    /// The caller's route, plus the endpoints to avoid because the request has been there.
    route: Route,
    /// The last result after which the request may have been executed. It stays true however later attempts end.
    before: Option<Box<T>>,
    /// Whether `before` is of one of two tries, while the other one goes on and no try has replaced it.
    is_aside: bool,
    /// Whether an earlier attempt has left this process, however it ended.
    was_sent: bool,
}

impl<T> Attempts<T> {
    pub(crate) fn new(allowance: &Allowance, route: Route) -> Self {
        Self {
            left: allowance.times,
            route,
            before: None,
            is_aside: false,
            was_sent: false,
        }
    }

    /// Where the request may go.
    #[cfg(feature = "http")]
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// Whether the request has used all its retries.
    pub(crate) fn are_used_up(&self) -> bool {
        self.left == 0
    }

    /// Whether a result was set aside. It counts for more than a later result that isn't good.
    pub(crate) fn has_aside(&self) -> bool {
        self.is_aside
    }

    /// The result that was [set aside](Self::has_aside), for its caller.
    pub(crate) fn take_aside(&mut self) -> Option<T> {
        match self.is_aside {
            true => self.before.take().map(|before| *before),
            false => None,
        }
    }

    /// Whether the request may have been executed by an earlier attempt.
    #[cfg(feature = "http")]
    pub(crate) fn may_be_executed(&self) -> bool {
        self.before.is_some()
    }

    /// Whether an endpoint got an earlier attempt, executed or not.
    #[cfg(feature = "http")]
    pub(crate) fn were_sent(&self) -> bool {
        self.was_sent
    }

    /// The result that the caller gets if no later attempt is executed.
    #[cfg(feature = "http")]
    pub(crate) fn before(&mut self) -> Option<&mut T> {
        self.before.as_deref_mut()
    }

    /// The request and the route of another attempt. If there is none, the result that the caller gets.
    ///
    /// `has_other` says whether there is an endpoint that a route doesn't avoid. `again` makes the request again.
    pub(crate) fn next<Req>(
        &mut self,
        result: T,
        ended: &Ended,
        allowance: &Allowance,
        has_other: impl FnOnce(&Route) -> bool,
        again: impl FnOnce() -> Option<Req>,
    ) -> ControlFlow<T, (Req, Route)> {
        let allowed = ended.is_retried && self.allow(ended, allowance, has_other);
        let Some(request) = allowed.then(again).flatten() else {
            return ControlFlow::Break(self.most_telling(result, ended));
        };
        ended.tell("request sent again");
        allowance.retried(ended.fate);
        self.keep(result, ended.fate, false);
        let route = self.route.clone().again(ended.fate.cause());
        ControlFlow::Continue((request, route))
    }

    /// The route of a second try beside the one at `endpoint`: to another endpoint or nowhere. `None` if there is no
    /// other.
    pub(crate) fn beside(
        &self,
        endpoint: &Endpoint,
        allowance: &Allowance,
        has_other: impl FnOnce(&Route) -> bool,
    ) -> Option<Route> {
        let route = allowance.delays.avoid(self.route.clone().avoid(endpoint));
        let route = route.second_try().again(AttemptCause::Hedge);
        Some(route).filter(has_other)
    }

    /// Keeps the result of one of two tries, while the other one goes on.
    pub(crate) fn set_aside(&mut self, result: T, ended: &Ended) {
        self.avoid(ended.endpoint.as_ref());
        self.keep(result, ended.fate, true);
    }

    /// Replaces one of two tries, which ended with this result, while the other goes on (at `other`, if an endpoint has
    /// it). Returns the request and the route of the new try, which goes to a third endpoint or nowhere; `None` if
    /// there is none.
    pub(crate) fn replace<Req>(
        &mut self,
        result: T,
        ended: &Ended,
        other: Option<&Endpoint>,
        allowance: &Allowance,
        has_other: impl Fn(&Route) -> bool,
        again: impl FnOnce() -> Option<Req>,
    ) -> Option<(Req, Route)> {
        let third = self.third(ended, other, allowance, &has_other);
        let allowed = third.filter(|_| self.allow(ended, allowance, has_other));
        let cause = ended.fate.cause();
        let replaced = allowed.and_then(|route| Some((again()?, route.again(cause))));
        if replaced.is_some() {
            ended.tell("request sent again beside its hedge");
            allowance.retried(ended.fate);
            self.keep(result, ended.fate, false);
        } else {
            self.set_aside(result, ended);
        }
        replaced
    }

    /// The route of a try that replaces one of two: to an endpoint that has had neither, if there is one. A request
    /// that no endpoint has taken was offered to all, so it has none.
    fn third(
        &self,
        ended: &Ended,
        other: Option<&Endpoint>,
        allowance: &Allowance,
        has_other: impl FnOnce(&Route) -> bool,
    ) -> Option<Route> {
        let failed = ended.endpoint.as_ref().filter(|_| ended.is_retried)?;
        let beside_both = |route: Route| match other {
            Some(other) => route.avoid(other),
            None => route,
        };
        let route = self.beside(failed, allowance, |_| true);
        route.map(beside_both).filter(has_other)
    }

    /// Keeps a result that the caller gets if nothing better comes: the first of two that are set aside, otherwise the
    /// last.
    fn keep(&mut self, result: T, fate: Fate, is_aside: bool) {
        self.was_sent |= fate != Fate::Unsent;
        let is_second = is_aside && self.is_aside;
        if fate.may_be_executed() && !is_second {
            self.before = Some(Box::new(result));
            self.is_aside = is_aside;
        }
        self.is_aside &= is_aside;
    }

    fn allow(
        &mut self,
        ended: &Ended,
        allowance: &Allowance,
        has_other: impl FnOnce(&Route) -> bool,
    ) -> bool {
        let is_new = self.avoid(ended.endpoint.as_ref());
        self.route = allowance.delays.avoid(std::mem::take(&mut self.route));
        // gRFC A6, "transparent retries": a request that was not processed costs no more work than one that was never
        // sent. So that this ends, each endpoint gets one such free attempt; if it refuses the request a second time,
        // the next attempt is a retry.
        if ended.fate == Fate::Unprocessed && is_new {
            return true;
        }
        if self.left == 0 || (ended.fate == Fate::Answered && !self.has_where(has_other)) {
            return false;
        }
        let allowed = allowance.budget.withdraw();
        if let Some(tally) = allowance.tally.as_ref().filter(|_| !allowed) {
            tally.budget_refused();
        }
        if let Some(log) = self.route.log().filter(|_| !allowed) {
            log.budget_is_spent();
        }
        self.left -= usize::from(allowed);
        allowed
    }

    /// Avoids the endpoint from now on. Returns whether it wasn't avoided before.
    fn avoid(&mut self, endpoint: Option<&Endpoint>) -> bool {
        let Some(endpoint) = endpoint.filter(|endpoint| !self.route.avoids(endpoint)) else {
            return false;
        };
        self.route = std::mem::take(&mut self.route).avoid(endpoint);
        true
    }

    /// Whether an endpoint is left that may answer differently. If the request is for one pod, no other gets it.
    fn has_where(&self, has_other: impl FnOnce(&Route) -> bool) -> bool {
        !self.route.is_for_one() && has_other(&self.route)
    }

    /// The result that the caller gets. If only the last attempt wasn't executed, the request may have been, so the
    /// kept result counts. If neither of two tries is good, the first result counts.
    fn most_telling(&mut self, result: T, ended: &Ended) -> T {
        let is_best = ended.is_good || (ended.fate.may_be_executed() && !self.is_aside);
        match self.before.take() {
            Some(before) if !is_best => *before,
            _ => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// A budget of a fixed number of retries.
    struct Only(AtomicUsize);

    impl Budget for Only {
        fn deposit(&self) {}

        fn withdraw(&self) -> bool {
            let one_less = |left: usize| left.checked_sub(1);
            self.0.fetch_update(Relaxed, Relaxed, one_less).is_ok()
        }
    }

    fn allowance(times: usize, all: usize) -> Allowance {
        Allowance {
            times,
            budget: Arc::new(Only(AtomicUsize::new(all))),
            delays: Arc::default(),
            tally: None,
        }
    }

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn ended(fate: Fate, host: u8) -> Ended {
        Ended {
            fate,
            endpoint: Some(endpoint(host)),
            is_retried: true,
            is_good: false,
            told: None,
        }
    }

    /// Lets attempts end at these endpoints, of four. Returns the number of the attempt whose result the caller gets,
    /// and the routes.
    fn run(allowance: &Allowance, route: Route, ends: &[(Fate, u8)]) -> (usize, Vec<Route>) {
        let (mut attempts, mut routes) = (Attempts::new(allowance, route), Vec::new());
        let has_other = |route: &Route| (1..=4).any(|host| !route.avoids(&endpoint(host)));
        for (attempt, &(fate, host)) in ends.iter().enumerate() {
            let ended = ended(fate, host);
            match attempts.next(attempt, &ended, allowance, has_other, || Some(())) {
                ControlFlow::Continue(((), route)) => routes.push(route),
                ControlFlow::Break(result) => return (result, routes),
            }
        }
        panic!("it goes on after {}", ends.len());
    }

    use Fate::{Answered, Lost, Unprocessed, Unsent};

    #[test]
    fn a_route_grows_and_keeps_what_its_caller_said() {
        let route = Route::new().key("k").avoid(&endpoint(9));
        let ends = [(Lost, 1), (Lost, 2), (Lost, 2), (Lost, 3)];
        let (_, routes) = run(&allowance(3, 9), route.clone(), &ends);
        assert_eq!(routes.len(), 3);
        assert_eq!(routes[0], route.clone().avoid(&endpoint(1)));
        let both = route.avoid(&endpoint(1)).avoid(&endpoint(2));
        assert_eq!(routes[1..], [both.clone(), both], "nothing is in it twice");
    }

    #[test]
    fn a_request_is_sent_again_as_often_as_it_may_be() {
        let (result, routes) = run(&allowance(2, 9), Route::new(), &[(Lost, 1); 3]);
        assert_eq!((result, routes.len()), (2, 2));
        let (result, routes) = run(&allowance(9, 1), Route::new(), &[(Lost, 1); 2]);
        assert_eq!((result, routes.len()), (1, 1), "the budget's only one");
    }

    #[test]
    fn an_answered_request_goes_only_to_endpoints_that_have_not_answered_it() {
        let ends = [(Answered, 1), (Answered, 2), (Answered, 3), (Answered, 4)];
        assert_eq!(run(&allowance(9, 9), Route::new(), &ends).0, 3);
        let pinned = Route::new().pod("web-0");
        assert_eq!(run(&allowance(9, 9), pinned, &ends).0, 0, "nobody else may");
    }

    #[test]
    fn the_first_unprocessed_refusal_of_each_endpoint_costs_no_budget() {
        let ends = [1, 2, 3, 4, 4].map(|host| (Unprocessed, host));
        let (result, routes) = run(&allowance(0, 0), Route::new(), &ends);
        assert_eq!((result, routes.len()), (4, 4), "the second time is a retry");
        let ends = [(Unprocessed, 1); 4];
        let (result, _) = run(&allowance(2, 9), Route::new(), &ends);
        assert_eq!(result, 3, "once for nothing, and twice as a retry");
    }

    /// The route that replaces a try that fails at endpoint 1 while another one is at endpoint 2. `last` is the last
    /// endpoint of the set.
    fn replaced(last: u8, allowance: &Allowance, fate: Fate) -> Option<Route> {
        let mut attempts = Attempts::new(allowance, Route::new());
        let has_other = |route: &Route| (1..=last).any(|host| !route.avoids(&endpoint(host)));
        let (ended, other) = (ended(fate, 1), endpoint(2));
        let again = || Some(());
        let replaced = attempts.replace(0, &ended, Some(&other), allowance, has_other, again);
        Some(replaced?.1)
    }

    #[test]
    fn one_of_two_tries_is_replaced_at_a_third_endpoint_within_the_rules_for_retries() {
        let third = Route::new().avoid(&endpoint(1)).avoid(&endpoint(2));
        for fate in [Answered, Lost, Unprocessed] {
            let route = replaced(3, &allowance(1, 1), fate);
            assert_eq!(route, Some(third.clone().second_try()));
            assert_eq!(replaced(2, &allowance(1, 1), fate), None, "no third one");
            let is_free = fate == Unprocessed;
            for spent in [allowance(0, 9), allowance(9, 0)] {
                assert_eq!(replaced(3, &spent, fate).is_some(), is_free);
            }
        }
    }

    /// The result that counts if one was set aside and the other one ends like this.
    fn told(aside: Fate, last: Fate, is_good: bool) -> usize {
        let allowance = allowance(0, 0);
        let mut attempts = Attempts::new(&allowance, Route::new());
        attempts.set_aside(1, &ended(aside, 1));
        let ended = Ended {
            is_good,
            is_retried: false,
            ..ended(last, 2)
        };
        match attempts.next(2, &ended, &allowance, |_| true, || Some(())) {
            ControlFlow::Break(result) => result,
            ControlFlow::Continue(((), _)) => panic!("it is not retried"),
        }
    }

    #[test]
    fn the_first_of_two_results_counts_if_none_is_good() {
        assert_eq!(told(Answered, Answered, false), 1);
        assert_eq!(told(Answered, Answered, true), 2);
        assert_eq!(told(Answered, Unsent, false), 1);
        assert_eq!(told(Unsent, Answered, false), 2, "nobody has had the first");
    }

    #[test]
    fn a_result_that_was_set_aside_counts_no_more_after_another_retry() {
        let allowance = allowance(1, 1);
        let mut attempts = Attempts::new(&allowance, Route::new());
        attempts.set_aside(1, &ended(Answered, 1));
        let has_other = |_: &Route| true;
        let next = attempts.next(
            2,
            &ended(Unprocessed, 2),
            &allowance,
            has_other,
            || Some(()),
        );
        assert!(next.is_continue() && !attempts.has_aside());
        let next = attempts.next(3, &ended(Answered, 3), &allowance, |_| false, || Some(()));
        assert!(matches!(next, ControlFlow::Break(3)));
    }

    #[test]
    fn the_caller_gets_the_last_result_that_may_have_been_executed() {
        let ends = [
            (Lost, 1),
            (Lost, 2),
            (Unprocessed, 3),
            (Unsent, 0),
            (Unsent, 0),
        ];
        assert_eq!(run(&allowance(3, 9), Route::new(), &ends).0, 1);
        assert_eq!(run(&allowance(0, 9), Route::new(), &[(Unsent, 1)]).0, 0);
    }
}
