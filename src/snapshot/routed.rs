//! Picks for requests that say where they want to go.

use rand::{Rng, seq::IteratorRandom};

use super::{Picked, Snapshot};
use crate::route::Route;

impl<S> Snapshot<S> {
    /// Chooses an endpoint for a request that says where it wants to go. None: that can't be had now.
    pub(crate) fn pick_routed(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if let Some(pod) = route.requested_pod() {
            return self.pick_pod(pod);
        }
        if !route.avoided().is_empty()
            && let Some(picked) = self.pick_avoiding(route, rng)
        {
            return Some(picked);
        }
        self.pick(route, rng)
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
        let names = |index: &usize| {
            let endpoint = self.members.endpoint(*index);
            endpoint.hostname() == Some(name) || endpoint.pod_name() == Some(name)
        };
        (0..self.members.len()).filter(names).find_map(|index| {
            let member = &self.members()[index];
            let is_trial = member.claim_trial();
            let begun = is_trial || member.begin() || member.begin_ejected();
            begun.then(|| self.picked(index, is_trial))
        })
    }

    /// Chooses one of the endpoints that aren't avoided: of two at random the one with the smaller load for its weight. For
    /// requests that are sent again: they are no turn of the policy's, else an endpoint that fails would take its neighbour's.
    fn pick_avoiding(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
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
        let chosen = second.filter(is_less).unwrap_or(first);
        self.members
            .begin(chosen)
            .then(|| self.picked(chosen, false))
    }
}
