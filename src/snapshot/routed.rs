//! Picks for requests with a route.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use rand::{Rng, RngExt, seq::IteratorRandom};

use super::{Picked, Snapshot};
use crate::{
    endpoint::Endpoint,
    member::{EjectionReason, Member, MemberId},
    route::{PodId, PodName, Route, Target},
};

/// How often a policy is asked again if it chooses the endpoint that is left out.
const OTHER_ATTEMPTS: usize = 4;

impl<S> Snapshot<S> {
    /// Chooses an endpoint for a request with a route. `None` if no endpoint fits now.
    pub(crate) fn pick_routed(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if route.is_for_one() {
            self.signals.heed_if_any();
            return self.pick_requested(route);
        }
        if let Some(pod) = route.preferred()
            && let Some(picked) = self.pick_preferred(pod, route)
        {
            self.signals.heed_if_any();
            return Some(picked);
        }
        if !route.avoided().is_empty()
            && !self.pickers.whole.is_keyed(route)
            && let Some(picked) = self.pick_avoiding(route, rng)
        {
            return Some(picked);
        }
        if route.is_only_others() {
            let next = self.pick_next(route, rng);
            let is_second = route.is_second_try();
            return next.or_else(|| is_second.then(|| self.pick_passed_over(route, rng))?);
        }
        match route.left_out() {
            Some(_) => self.pick_other(route, rng),
            None => self.pick(route, rng),
        }
    }

    /// The members that fit a route for one pod; terminating ones come last.
    pub(crate) fn requested<'a>(
        &'a self,
        route: &'a Route,
    ) -> impl Iterator<Item = &'a Arc<Member>> {
        let indices = self.requested_indices(route);
        indices.map(|index| &self.members()[index])
    }

    /// The endpoint that a route for one pod is for.
    pub(crate) fn requested_endpoint(&self, route: &Route) -> Option<&Endpoint> {
        let index = self.requested_indices(route).next()?;
        Some(self.members.endpoint(index))
    }

    fn requested_indices<'a>(
        &'a self,
        route: &'a Route,
    ) -> impl Iterator<Item = usize> + use<'a, S> {
        let member = route.requested_member();
        let pod = route.requested().filter(|_| member.is_none());
        let member = member.and_then(|target| self.target_index(target));
        let named = pod.into_iter().flat_map(|pod| self.indices_of(pod));
        let named = named.filter(|&index| !route.leaves_out(self.members.endpoint(index)));
        member.into_iter().chain(named)
    }

    /// All endpoints, each as the target of a request.
    fn targets(&self) -> impl Iterator<Item = Target> {
        let all = self.endpoints().iter().zip(self.members());
        all.map(|(endpoint, member)| Target {
            id: member.id(),
            endpoint: endpoint.clone(),
        })
    }

    /// The [`targets`](Self::targets) that `route` doesn't leave out.
    pub(crate) fn targets_of(&self, route: &Route) -> Vec<Target> {
        let targets = self.targets();
        targets
            .filter(|target| !route.leaves_out(&target.endpoint))
            .collect()
    }

    fn target_index(&self, target: &Target) -> Option<usize> {
        let index = self.index_of(&target.endpoint)?;
        (self.members()[index].id() == target.id).then_some(index)
    }

    /// The endpoints of the pod, terminating ones last. There may be two while the pod is replaced.
    pub(super) fn indices_of<'a>(
        &'a self,
        pod: &PodId,
    ) -> impl Iterator<Item = usize> + use<'a, S> {
        let at = self.at_address(pod);
        let terminates = |index: &usize| self.members.endpoint(*index).is_terminating();
        let last = at.clone().filter(terminates);
        let at = at.filter(move |index| !terminates(index)).chain(last);
        let named = self.name_of(pod);
        let named = named.map(|name| self.names.indices(name, self.endpoints()));
        named.into_iter().flatten().chain(at)
    }

    /// The name that a pod is asked for by. A number makes a name if the set is one StatefulSet.
    pub(crate) fn name_of<'a>(&'a self, pod: &'a PodId) -> Option<PodName<'a>> {
        pod.name_with(self.names.set())
    }

    /// The endpoints at the pod's address, if it is asked for by address.
    fn at_address(&self, pod: &PodId) -> Range<usize> {
        let all = self.endpoints();
        let is = |endpoint: &Endpoint, order| pod.order(endpoint) == Some(order);
        let from = all.partition_point(|it| is(it, Ordering::Less));
        let len = all[from..].partition_point(|it| is(it, Ordering::Equal));
        from..from + len
    }

    /// Whether `route` leaves this member out, by what is known of it now.
    pub(crate) fn is_left_out(&self, route: &Route, endpoint: &Endpoint, member: MemberId) -> bool {
        route.left_out().is_some()
            && self.index_of(endpoint).is_some_and(|index| {
                let is_it = self.members()[index].id() == member;
                is_it && route.leaves_out(self.members.endpoint(index))
            })
    }

    /// Whether this member is, by what is known of it now, the one pod that `route` is for.
    pub(crate) fn is_for(&self, route: &Route, member: MemberId) -> bool {
        self.requested(route).any(|it| it.id() == member)
    }

    /// How many endpoints `route` doesn't leave out.
    pub(crate) fn not_left_out(&self, route: &Route) -> usize {
        let endpoints = self.endpoints().iter();
        endpoints.filter(|it| !route.leaves_out(it)).count()
    }

    /// Whether some endpoint is available that `route` doesn't avoid. For a second try, a slow one or one with a trial
    /// will do, too.
    pub(crate) fn has_other(&self, route: &Route) -> bool {
        let is_second = route.is_second_try();
        let mut all = 0..self.members.len();
        all.any(|index| {
            let is_passed_over =
                || is_only_slow(self.member(index)) || self.member(index).has_trial();
            (self.members.is_available(index) || is_second && is_passed_over())
                && self.may_be_other(route, index)
        })
    }

    /// The one endpoint of the route, whatever its health. If it has a trial on offer, this request is the trial.
    fn pick_requested(&self, route: &Route) -> Option<Picked<'_, S>> {
        self.requested_indices(route).find_map(|index| {
            let is_trial = self.members()[index].begin_requested()?;
            Some(self.picked(index, is_trial))
        })
    }

    /// Chooses an endpoint by the policy, but not the one that is left out.
    ///
    /// A keyed policy passes it over by itself. Any other policy doesn't know of it, and is asked again if it chose
    /// that one: round robin goes on to the next. A load-aware policy may choose it each time, because it never has
    /// requests; then the less loaded of two random others gets the request.
    fn pick_other(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let mut slow_start = false;
        if self.signals.has_flags() {
            let flags = self.signals.heed();
            slow_start = flags.slow_start;
            if flags.trials
                && let Some(index) = self.claim_trial(route)
            {
                return Some(self.picked(index, true));
            }
        }
        for _ in 0..OTHER_ATTEMPTS {
            let picked = match slow_start {
                true => self.pick_slow_start(route, rng),
                false => self.pickers.pick(&self.members, route, rng),
            };
            let Some(index) = picked else { break };
            if !route.leaves_out(self.members.endpoint(index)) {
                return Some(self.picked(index, false));
            }
            self.members()[index].end();
        }
        self.pick_last(route, rng)
    }

    /// The preferred pod, if it accepts requests or has a trial on offer. Also if it is only slow, unless this is a
    /// second try.
    fn pick_preferred(&self, pod: &PodId, route: &Route) -> Option<Picked<'_, S>> {
        self.indices_of(pod).find_map(|index| {
            if route.avoids(self.members.endpoint(index)) {
                return None;
            }
            let (member, is_first) = (&self.members()[index], !route.is_only_others());
            let is_trial = is_first && member.claim_trial();
            let begun = is_trial
                || self.members.begin(index)
                || is_first && is_only_slow(member) && member.begin_ejected();
            begun.then(|| self.picked(index, is_trial))
        })
    }

    /// Under a keyed policy, chooses the next endpoint by the request's key, and none that the route avoids.
    fn pick_next(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if !self.pickers.whole.is_keyed(route) {
            return None;
        }
        let index = self.pickers.pick(&self.members, route, rng)?;
        if !self.may_be_other(route, index) {
            self.members()[index].end();
            return None;
        }
        Some(self.picked(index, false))
    }

    /// Chooses an endpoint for a second try if none is available: one with a trial on offer, else one that is only
    /// slow. The first try seems to hang, so either is more likely to answer.
    fn pick_passed_over(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let others = (0..self.members.len()).filter(|&index| self.may_be_other(route, index));
        let tried = others
            .clone()
            .find(|&index| self.member(index).claim_trial());
        if let Some(index) = tried {
            return Some(self.picked(index, true));
        }
        let slow = others.filter(|&index| is_only_slow(self.member(index)));
        let index = slow.choose(rng)?;
        let begun = self.member(index).begin_ejected() || self.members.begin(index);
        begun.then(|| self.picked(index, false))
    }

    fn member(&self, index: usize) -> &Member {
        &self.members()[index]
    }

    /// Chooses the less loaded for its weight of two random endpoints that aren't avoided. Retries don't use up a turn
    /// of the policy's: otherwise the neighbour of a failing endpoint would lose its turns.
    fn pick_avoiding(&self, route: &Route, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        // A second try should go where an answer is likely, so it isn't a trial if another endpoint is available.
        if self.signals.heed_if_any() && !route.is_only_others() {
            let all = 0..self.members.len();
            let mut others = all.filter(|&index| {
                self.members.counts(index) && !route.avoids(self.members.endpoint(index))
            });
            if let Some(index) = others.find(|&index| self.members()[index].claim_trial()) {
                return Some(self.picked(index, true));
            }
        }
        self.pick_any_of(rng, |index| self.may_be_other(route, index))
    }

    /// The less loaded for its weight of two random endpoints that `which` allows; split between near and far as usual,
    /// if both have any.
    pub(super) fn pick_any_of(
        &self,
        rng: &mut impl Rng,
        which: impl Fn(usize) -> bool,
    ) -> Option<Picked<'_, S>> {
        let preferred = self.pickers.split.as_ref().map(|split| split.draw(rng));
        let wishes = [(preferred, true), (None, true), (None, false)];
        wishes.into_iter().find_map(|(near, counts)| {
            self.pick_of(rng, |index| {
                (near.is_none() || near == self.is_near(index))
                    && self.members.counts(index) == counts
                    && which(index)
            })
        })
    }

    fn pick_of(&self, rng: &mut impl Rng, which: impl Fn(usize) -> bool) -> Option<Picked<'_, S>> {
        let allowed = |&index: &usize| self.members.is_available(index) && which(index);
        let allowed = (0..self.members.len()).filter(allowed);
        // Two distinct ones, equally likely in either order: so if they tie, the first is a fair choice.
        let first = allowed.clone().choose(rng)?;
        let second = allowed.filter(|&index| index != first).choose(rng);
        let load = |index: usize| u64::from(self.members.load(index));
        let weight = |index: usize| u64::from(self.members.weight(index));
        let is_less = |&second: &usize| load(second) * weight(first) < load(first) * weight(second);
        let (chosen, other) = match second {
            Some(second) if is_less(&second) => (second, Some(first)),
            _ => (first, second),
        };
        // A new endpoint gets only its share (slow start); the other one gets the rest.
        let slow_start_share = self.members()[chosen].slow_start_share();
        let is_spared = slow_start_share < 1.0 && !rng.random_bool(slow_start_share);
        let chosen = other.filter(|_| is_spared).unwrap_or(chosen);
        self.members
            .begin(chosen)
            .then(|| self.picked(chosen, false))
    }

    /// Whether a request that avoids others may go to this endpoint. An endpoint of weight zero is the last resort, and
    /// gets no second tries.
    fn may_be_other(&self, route: &Route, index: usize) -> bool {
        !route.avoids(self.members.endpoint(index))
            && (self.members.counts(index) || !route.is_only_others())
    }
}

/// Whether an endpoint is out only because it is slow.
fn is_only_slow(member: &Member) -> bool {
    member.stats().reason() == Some(EjectionReason::Slow) && member.is_only_ejected()
}
