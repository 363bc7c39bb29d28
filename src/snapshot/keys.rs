//! Which endpoint has a key: the order of endpoints for the key, and which of them a request would get now.

use super::Snapshot;
use crate::{
    member::Members,
    policy::{Passed, Ring},
    route::{Route, RouteKey},
};

/// A key's endpoints, by their indices.
pub(crate) struct KeyOrder {
    /// In the order in which they are asked, each with the reason why it is passed over, if it is.
    pub(crate) order: Vec<(usize, Option<Passed>)>,
    /// The endpoint that would get a request of the key now.
    pub(crate) chosen: Option<usize>,
}

impl<S> Snapshot<S> {
    /// The endpoints of a key; `None` unless the policy is `ConsistentHash`.
    pub(crate) fn key_order(&self, key: RouteKey) -> Option<KeyOrder> {
        let hash = key.stable_hash();
        let route = Route::new().key(key);
        let ring = self.pickers.whole.as_ring()?;
        let all: Vec<_> = (0..self.members.len()).collect();
        let rings: Vec<(&Ring, &Members, &[usize])> = match &self.pickers.split {
            None => vec![(ring, &self.members, &all)],
            Some(split) => {
                let groups = split.in_order(&route)?.into_iter();
                let with_ring = groups
                    .map(|(picker, members, indices)| Some((picker.as_ring()?, members, indices)));
                with_ring.collect::<Option<_>>()?
            }
        };
        let mut order = Vec::with_capacity(self.members.len());
        let mut chosen: Option<usize> = None;
        for (ring, members, indices) in &rings {
            let of_ring = ring.order(hash, members);
            let all = of_ring.all.into_iter();
            order.extend(all.map(|(at, passed)| (indices[at], passed)));
            let of_ring = of_ring.chosen.map(|at| indices[at]);
            // An endpoint without weight only if the other ring has none with weight.
            let is_better = |it: &usize| chosen.is_none_or(|_| self.members.counts(*it));
            let is_settled = chosen.is_some_and(|it| self.members.counts(it));
            chosen = of_ring.filter(|it| !is_settled && is_better(it)).or(chosen);
        }
        let is_ejected = |index: usize| self.members()[index].is_only_ejected();
        let chosen = chosen.or_else(|| self.pickers.first(&route, &is_ejected));
        let chosen = chosen.or_else(|| self.last_trial(&route));
        Some(KeyOrder {
            // If the key's own endpoint has a trial on offer, a request of this key is the trial.
            chosen: self.trial_at_home(&route).or(chosen),
            order,
        })
    }

    fn trial_at_home(&self, route: &Route) -> Option<usize> {
        let home = self.pickers.first(route, &|_| true)?;
        let may_be_tried = self.members.weight(home) > 0 && self.members()[home].has_trial();
        may_be_tried.then_some(home)
    }
}
