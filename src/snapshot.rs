//! The set of endpoints, immutable and swapped whole: one writer, any number of readers.
//!
//! An update compares the new set with the old one. Endpoints that stay keep their member, and their service with its
//! connections, whatever else is learnt of them. Endpoints that leave are marked, so that no pick takes them even from
//! a snapshot read a moment ago; their service is dropped with the last snapshot that has it.

mod keys;
mod names;
mod routed;
mod shares;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
mod warm_up;
mod why;
mod writer;

pub(crate) use writer::{Update, Writer};

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rand::{Rng, seq::IteratorRandom};

use self::names::Names;
use crate::{
    endpoint::Endpoint,
    in_flight::InFlight,
    locality::{LocalitySplit, Nearest},
    member::{Member, Members},
    policy::{AnyPicker, Picker},
    route::Route,
    signals::{PickFlags, Signals},
};

/// The result of a pick: the endpoint's service, and the guard of the request that is now in flight there.
pub(crate) struct Picked<'a, S> {
    pub(crate) service: &'a S,
    pub(crate) in_flight: InFlight,
}

/// A set of endpoints, and the picker prepared for it.
#[derive(Debug)]
pub(crate) struct Snapshot<S> {
    /// The endpoints and their counters, in the order of their identities.
    members: Members,
    /// Their services, in the same order.
    services: Box<[S]>,
    names: Names,
    pickers: Pickers,
    signals: Arc<Signals>,
    discovered: bool,
}

/// The pickers prepared for one set.
#[derive(Debug)]
struct Pickers {
    whole: AnyPicker,
    /// Pickers for the near and the far endpoints, if near ones are preferred.
    split: Option<Box<LocalitySplit>>,
}

/// The current snapshot, for readers to load.
pub(crate) type Current<S> = ArcSwap<Snapshot<S>>;

impl<S> Snapshot<S> {
    /// Whether discovery has ever answered. If not, the set is empty because nothing is known yet.
    pub(crate) fn is_discovered(&self) -> bool {
        self.discovered
    }

    /// All endpoints, with what is known of them, in the order of their identities.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        self.members.endpoints()
    }

    /// This snapshot's entry for the pod of `endpoint`, with what is known of it now.
    pub(crate) fn known(&self, endpoint: &Endpoint) -> Option<&Endpoint> {
        Some(&self.endpoints()[self.index_of(endpoint)?])
    }

    /// The member for the pod of `endpoint`.
    pub(crate) fn member_of(&self, endpoint: &Endpoint) -> Option<&Arc<Member>> {
        Some(&self.members()[self.index_of(endpoint)?])
    }

    fn index_of(&self, endpoint: &Endpoint) -> Option<usize> {
        let all = self.endpoints();
        let index = all.binary_search_by_key(&endpoint.identity(), Endpoint::identity);
        index.ok().filter(|&index| all[index].is_same_pod(endpoint))
    }

    /// All members, in the order of [`endpoints`](Self::endpoints).
    pub(crate) fn members(&self) -> &[Arc<Member>] {
        self.members.all()
    }

    /// Whether the endpoint is preferred because it is near; `None` if there is no preference.
    pub(crate) fn is_near(&self, index: usize) -> Option<bool> {
        let split = self.pickers.split.as_ref();
        split.map(|split| split.is_near(index))
    }

    /// Whether near endpoints are preferred.
    pub(crate) fn is_near_first(&self) -> bool {
        self.pickers.split.is_some()
    }

    /// Whether far endpoints get a share of the requests, though there are near ones.
    pub(crate) fn spills(&self) -> bool {
        let split = self.pickers.split.as_ref();
        split.is_some_and(|split| split.spills())
    }

    /// Whether the policy reads how many requests the endpoints have.
    pub(crate) fn is_load_aware(&self) -> bool {
        Picker::is_load_aware(&self.pickers.whole)
    }

    /// The endpoint's load, as the policy sees it.
    pub(crate) fn load_of(&self, index: usize) -> u32 {
        self.members.load(index)
    }

    /// The endpoint's average time to begin an answer, as the policy sees it.
    pub(crate) fn average_latency(&self, index: usize) -> Option<Duration> {
        self.members.latency(index)
    }

    /// Recounts available near and far endpoints. Called when some have become available or unavailable.
    pub(crate) fn recount(&self) {
        if let Some(split) = &self.pickers.split {
            split.recount();
        }
    }

    /// Chooses an endpoint: one with a trial on offer if there is any, otherwise by the policy.
    #[inline]
    pub(crate) fn pick(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if self.signals.has_flags()
            && let Some(picked) = self.pick_flagged(route, rng)
        {
            return Some(picked);
        }
        match self.pickers.pick(&self.members, route, rng) {
            Some(index) => Some(self.picked(index, false)),
            None => self.pick_last(route, rng),
        }
    }

    #[cold]
    fn pick_flagged(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let PickFlags { trials, slow_start } = self.signals.heed();
        let trial = trials.then(|| self.claim_trial(route));
        if let Some(index) = trial.flatten() {
            return Some(self.picked(index, true));
        }
        let index = slow_start.then(|| self.pick_slow_start(route, rng))?;
        index.map(|index| self.picked(index, false))
    }

    /// Claims the first trial on offer that this request may be. An endpoint of weight zero is tried only by requests
    /// for it.
    fn claim_trial(&self, route: &Route) -> Option<usize> {
        let mut members = self.members().iter().enumerate();
        let home = self.pickers.first(route, &|_| true);
        let trial = members.find(|&(index, member)| {
            // Under a keyed policy, an endpoint is tried only with a request of its own keys, unless this one has just
            // failed there. A request without a key may go anywhere, so it may be any trial. If it couldn't, an
            // endpoint whose keys are rare would stay out for long.
            let is_home = |home| home == index && !route.avoids(member.endpoint());
            home.is_none_or(is_home)
                && self.members.weight(index) > 0
                && !route.leaves_out(self.members.endpoint(index))
                && member.claim_trial()
        });
        trial.map(|(index, _)| index)
    }

    /// The last resort, if no endpoint is left but avoided or ejected ones, as when the last healthy one refuses: a bad
    /// endpoint is better than none. Never an endpoint that the route leaves out.
    #[cold]
    fn pick_last(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let members = self.members();
        let may_be = |index: usize| !route.leaves_out(self.members.endpoint(index));
        let is_available = |index: usize| members[index].is_available() && may_be(index);
        if let Some(index) = self.pickers.first(route, &is_available)
            && members[index].begin()
        {
            return Some(self.picked(index, false));
        }
        if route.left_out().is_some()
            && let Some(picked) =
                self.pick_any_of(rng, |it| !route.leaves_out(self.members.endpoint(it)))
        {
            // The policy has chosen only the one that is left out.
            return Some(picked);
        }
        let is_ejected = |index: usize| members[index].is_only_ejected() && may_be(index);
        let ejected = (0..members.len()).filter(|&index| is_ejected(index));
        let by_key = self.pickers.first(route, &is_ejected);
        let Some(index) = by_key.or_else(|| ejected.choose(rng)) else {
            let index = self.last_trial(route)?;
            let claimed = members[index].claim_trial();
            return claimed.then(|| self.picked(index, true));
        };
        let begun = members[index].begin_ejected();
        begun.then(|| self.picked(index, false))
    }

    /// The endpoint that a request tries if there is nothing else for it, though the endpoint has no weight or the
    /// request isn't of its keys: requests of its own keys, or for it, may never come.
    fn last_trial(&self, route: &Route) -> Option<usize> {
        let may_be_tried = |index: usize| {
            let is_left_out = route.leaves_out(self.members.endpoint(index));
            self.members()[index].has_trial() && !is_left_out
        };
        let all = || 0..self.members.len();
        let by_key = self.pickers.first(route, &may_be_tried);
        let counted = |&index: &usize| self.members.counts(index) && may_be_tried(index);
        by_key
            .or_else(|| all().find(counted))
            .or_else(|| all().find(|&index| may_be_tried(index)))
    }

    #[inline]
    fn picked(&self, index: usize, trial: bool) -> Picked<'_, S> {
        Picked {
            in_flight: InFlight::new(&self.members()[index], trial),
            service: &self.services[index],
        }
    }
}

impl Pickers {
    /// Which endpoints are near, if near ones are preferred.
    fn nearest(&self) -> Option<&Nearest> {
        self.split.as_ref().map(|split| split.nearest())
    }

    #[inline]
    fn pick(&self, members: &Members, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        match &self.split {
            None => self.whole.pick(members, route, rng),
            Some(split) => split.pick(route, rng),
        }
    }

    /// The first endpoint in the order of the request's key that `which` allows; `None` unless the policy is keyed.
    fn first(&self, route: &Route, which: &dyn Fn(usize) -> bool) -> Option<usize> {
        match &self.split {
            None => self.whole.first(route, which),
            Some(split) => split.first(route, which),
        }
    }
}
