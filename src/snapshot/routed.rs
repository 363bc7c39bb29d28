//! Picks for requests that say where they want to go.

use std::sync::Arc;

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::{Picked, Snapshot};
use crate::{member::Member, route::Route};

impl<S> Snapshot<S> {
    /// Chooses an endpoint for a request that says where it wants to go. None: that can't be had now.
    pub(crate) fn pick_routed(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if let Some(pod) = route.requested_pod() {
            self.signals.heed_if_any();
            return self.pick_pod(pod);
        }
        if !route.avoided().is_empty()
            && let Some(picked) = self.pick_avoiding(route, rng)
        {
            return Some(picked);
        }
        if route.is_only_others() {
            return None;
        }
        self.pick(route, rng)
    }

    /// The members of the pods of this name; those that terminate come last.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Member>> {
        self.indices_of(name).map(|index| &self.members()[index])
    }

    fn indices_of(&self, name: &str) -> impl Iterator<Item = usize> {
        let all = || 0..self.members.len();
        let names = move |&index: &usize| {
            let endpoint = self.members.endpoint(index);
            endpoint.hostname() == Some(name) || endpoint.pod_name() == Some(name)
        };
        let terminates = |index: &usize| self.members.endpoint(*index).is_terminating();
        let first = all().filter(names).filter(move |index| !terminates(index));
        first.chain(all().filter(names).filter(terminates))
    }

    /// Whether an endpoint is available that `route` doesn't avoid.
    pub(crate) fn has_other(&self, route: &Route) -> bool {
        let mut all = 0..self.members.len();
        all.any(|index| {
            self.members.is_available(index) && !route.avoids(self.members.endpoint(index))
        })
    }

    /// The pod of this name, though it is ejected: no other one will do. One trial of it is as good as any.
    fn pick_pod(&self, name: &str) -> Option<Picked<'_, S>> {
        self.indices_of(name).find_map(|index| {
            let member = &self.members()[index];
            let is_trial = member.claim_trial();
            let begun = is_trial || member.begin() || member.begin_ejected();
            begun.then(|| self.picked(index, is_trial))
        })
    }

    /// Chooses one of the endpoints that aren't avoided: of two at random the one with the smaller load for its weight. For
    /// requests that are sent again: they are no turn of the policy's, else an endpoint that fails would take its neighbour's.
    fn pick_avoiding(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        // A second try is no trial: it goes where an answer is likely.
        if self.signals.heed_if_any() && !route.is_only_others() {
            let all = 0..self.members.len();
            let mut others = all.filter(|&index| !route.avoids(self.members.endpoint(index)));
            if let Some(index) = others.find(|&index| self.members()[index].claim_trial()) {
                return Some(self.picked(index, true));
            }
        }
        let preferred = self.pickers.split.as_ref().map(|split| split.draw(rng));
        let wishes = [(preferred, true), (None, true), (None, false)];
        wishes.into_iter().find_map(|(near, weighted)| {
            self.pick_of(rng, |index| {
                (near.is_none() || near == self.is_near(index))
                    && (self.members.endpoint(index).weight() > 0) == weighted
                    && !route.avoids(self.members.endpoint(index))
            })
        })
    }

    fn pick_of(&self, rng: &mut impl Rng, which: impl Fn(usize) -> bool) -> Option<Picked<'_, S>> {
        let allowed = |&index: &usize| self.members.is_available(index) && which(index);
        let allowed = (0..self.members.len()).filter(allowed);
        // Two distinct ones, in either order alike: so the first of two that tie is either.
        let first = allowed.clone().choose(rng)?;
        let second = allowed.filter(|&index| index != first).choose(rng);
        let load = |index: usize| u64::from(self.members.load(index));
        let weight = |index: usize| u64::from(self.members.weight(index));
        let is_less = |&second: &usize| load(second) * weight(first) < load(first) * weight(second);
        let (chosen, other) = match second {
            Some(second) if is_less(&second) => (second, Some(first)),
            _ => (first, second),
        };
        // A new one gets only its part (slow start); else the other one is as good.
        let warmth = self.members()[chosen].warmth();
        let is_spared = warmth < 1.0 && !rng.random_bool(warmth);
        let chosen = other.filter(|_| is_spared).unwrap_or(chosen);
        self.members
            .begin(chosen)
            .then(|| self.picked(chosen, false))
    }
}
