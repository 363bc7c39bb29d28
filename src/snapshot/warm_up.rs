//! Picks while some endpoint is new and gets only a part of its share (slow start).
//!
//! If a policy that takes turns or draws chooses a new endpoint too often, it is asked again. A load-aware policy would
//! choose the same endpoint again. So the new endpoint gets the request only if its load is within its part of another
//! endpoint's load; otherwise the other one does. A keyed policy handles slow start by itself, because a key that moved
//! back and forth would be in two places.

use rand::{Rng, RngExt};

use super::Snapshot;
use crate::{policy::Picker, route::Route};

/// How often the policy is asked, and others are drawn. If that isn't enough, nearly all endpoints are new.
pub(super) const ATTEMPTS: usize = 16;

impl<S> Snapshot<S> {
    /// The policy's choice, or another endpoint in place of a new one. The request is counted in, as by a policy.
    pub(super) fn pick_slow_start(&self, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        if self.pickers.whole.is_keyed(route) {
            return self.pickers.pick(&self.members, route, rng);
        }
        let takes_turns = !self.pickers.whole.is_load_aware();
        for _ in 0..ATTEMPTS {
            let index = self.pickers.pick(&self.members, route, rng)?;
            let member = &self.members()[index];
            let slow_start_share = member.slow_start_share();
            if slow_start_share >= 1.0 {
                return Some(index);
            }
            let is_drawn = rng.random_bool(slow_start_share);
            if takes_turns && is_drawn {
                return Some(index);
            }
            let other = (!takes_turns).then(|| self.other(index, rng)).flatten();
            let is_full = |other| self.load(index) > self.load(other) * slow_start_share;
            if !takes_turns && other.is_none_or(|other| is_drawn && !is_full(other)) {
                return Some(index);
            }
            member.end();
            if let Some(other) = other.filter(|&other| self.members.begin(other)) {
                return Some(other);
            }
        }
        self.pickers.pick(&self.members, route, rng)
    }

    /// The less loaded for its weight of two random endpoints that aren't new, in the new one's group (near or far).
    fn other(&self, new: usize, rng: &mut impl Rng) -> Option<usize> {
        let mut draws = (0..ATTEMPTS)
            .map(|_| rng.random_range(0..self.members.len()))
            .filter(|&index| self.may_be_instead(new, index));
        let first = draws.next()?;
        let second = draws.find(|&index| index != first);
        let is_less = |&second: &usize| self.load(second) < self.load(first);
        second.filter(is_less).or(Some(first))
    }

    /// Whether an endpoint may get a request in place of a new one.
    pub(super) fn may_be_instead(&self, new: usize, index: usize) -> bool {
        self.members.is_available(index)
            && self.members()[index].slow_start_share() >= 1.0
            && self.members.counts(index)
            && self.is_near(index) == self.is_near(new)
    }

    /// Requests in flight for each unit of weight.
    pub(super) fn load(&self, index: usize) -> f64 {
        f64::from(self.members.in_flight(index)) / f64::from(self.members.weight(index))
    }
}
