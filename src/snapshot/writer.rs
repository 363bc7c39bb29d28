//! The one writer of snapshots: applies discovery's answers.

use std::sync::Arc;

use rand::Rng;

use super::{Current, Names, Pickers, Snapshot};
use crate::{
    comparison::{Fate, compare, normalise, recall},
    counters::joining,
    endpoint::{Counted, Endpoint},
    locality::{Before, LocalityPreference, LocalitySplit, Proximities},
    logs::{ENDPOINTS, debug},
    member::{Member, MemberId, Members, Slots},
    policy::{AnyPolicy, Reads},
    signals::Signals,
};

/// What an update changed.
#[derive(Debug)]
pub(crate) struct Update<S> {
    pub(crate) joined: Vec<(Arc<Member>, S)>,
    pub(crate) left: Vec<Arc<Member>>,
    /// The endpoints that stay, but have changed in some other way.
    pub(crate) altered: Vec<(MemberId, Endpoint)>,
}

/// The one writer of snapshots.
pub(crate) struct Writer<M> {
    policy: AnyPolicy,
    locality: LocalityPreference,
    make: M,
    /// Whether new endpoints have to pass a check before they get requests.
    holds_back: bool,
    /// Whether new endpoints have to be ready before they get requests, while others are available.
    readies_first: bool,
    slots: Slots,
    signals: Arc<Signals>,
}

/// The next snapshot in the making, and what it changes.
struct Merged<S> {
    members: Vec<Arc<Member>>,
    services: Vec<S>,
    update: Update<S>,
    /// Some endpoint that stays accepts requests.
    accepts: bool,
}

impl<M> Writer<M> {
    /// A writer, and the empty snapshot from before the first answer.
    pub(crate) fn new<S>(
        policy: AnyPolicy,
        locality: LocalityPreference,
        make: M,
        signals: Arc<Signals>,
        rng: &mut impl Rng,
    ) -> (Self, Current<S>)
    where
        M: FnMut(&Endpoint) -> S,
    {
        let slots = Slots::default();
        let members = Members::new(Vec::new(), Vec::new(), &slots);
        let nothing = Snapshot {
            pickers: Pickers {
                whole: policy.prepare(&members, None, rng),
                split: None,
            },
            names: Names::of(members.endpoints()),
            members,
            services: Box::default(),
            signals: signals.clone(),
            discovered: false,
        };
        let writer = Self {
            policy,
            locality,
            make,
            holds_back: false,
            readies_first: false,
            slots,
            signals,
        };
        (writer, Current::from_pointee(nothing))
    }

    /// If `holds_back`, new endpoints get no requests before they have passed a check.
    pub(crate) fn hold_back(mut self, holds_back: bool) -> Self {
        self.holds_back = holds_back;
        self
    }

    /// If `readies_first`, new endpoints are unreachable until they are known to be ready. Exceptions: no other
    /// endpoint is available, or their weight is zero.
    pub(crate) fn ready_first(mut self, readies_first: bool) -> Self {
        self.readies_first = readies_first;
        self
    }

    /// Publishes `set`, which may be in any order and have repetitions. `None` if nothing changes.
    ///
    /// If `proximities` are known, `set` has to be in the order of identities, and recalled from the set before.
    pub(crate) fn replace<S>(
        &mut self,
        current: &Current<S>,
        set: Vec<Endpoint>,
        proximities: Proximities,
        rng: &mut impl Rng,
    ) -> Option<Update<S>>
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        let mut set = normalise(set);
        let old = current.load_full();
        let are_known = match &proximities {
            Proximities::Look => {
                recall(old.endpoints(), &mut set);
                true
            }
            Proximities::Known(nearest) => old.pickers.nearest() == nearest.as_ref(),
        };
        if old.discovered && are_known && old.endpoints() == set {
            return None;
        }
        let merged = self.merge(&old, &mut set);
        if self.readies_first && merged.accepts {
            // Marked before any pick can take them. Not those of weight zero: requests for these may be waiting
            // already, and no others come.
            let counted = Counted::of(set.iter().map(Endpoint::weight));
            let joined = merged.update.joined.iter().map(|(member, _)| member);
            for member in joined.filter(|member| counted.has(member.endpoint().weight())) {
                member.set_unready();
            }
        }
        let members = Members::new(set, merged.members, &self.slots);
        let pickers = self.prepare(&old, &members, proximities, rng);
        current.store(Arc::new(Snapshot {
            names: Names::of(members.endpoints()),
            members,
            services: merged.services.into_boxed_slice(),
            pickers,
            signals: self.signals.clone(),
            discovered: true,
        }));
        // Only after the new set is stored: a pick in between would find no endpoint.
        for member in &merged.update.left {
            member.remove();
        }
        Some(merged.update)
    }

    /// The pickers of a set that replaces `old`.
    fn prepare<S>(
        &self,
        old: &Snapshot<S>,
        members: &Members,
        proximities: Proximities,
        rng: &mut impl Rng,
    ) -> Pickers {
        let endpoints = members.endpoints();
        let place = |index: usize| {
            let identity = old.endpoints()[index].identity();
            let place = endpoints.partition_point(|endpoint| endpoint.identity() < identity);
            if place < endpoints.len() { place } else { 0 }
        };
        let before = Before {
            split: old.pickers.split.as_deref(),
            whole: &old.pickers.whole,
            place: &place,
        };
        let nearest = match proximities {
            Proximities::Look => self.locality.nearest(endpoints),
            Proximities::Known(nearest) => nearest,
        };
        let split = nearest.map(|nearest| {
            let split = LocalitySplit::prepare(&self.policy, members, nearest, &before, rng);
            Box::new(split)
        });
        let previous = Some((&old.pickers.whole, &place as &dyn Fn(usize) -> usize));
        Pickers {
            whole: self.policy.prepare(members, previous, rng),
            split,
        }
    }

    /// Keeps the members that both sets have, makes those that only the new set has, and lets those leave that only the
    /// old set has.
    fn merge<S>(&mut self, old: &Snapshot<S>, set: &mut [Endpoint]) -> Merged<S>
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        let mut merged = Merged {
            members: Vec::with_capacity(set.len()),
            services: Vec::with_capacity(set.len()),
            update: Update {
                joined: Vec::with_capacity(set.len().saturating_sub(old.members().len()).max(1)),
                left: Vec::new(),
                altered: Vec::new(),
            },
            accepts: false,
        };
        let before = old.endpoints();
        let is_same = |&old: &usize, new: &&mut Endpoint| before[old].is_same_pod(new);
        let old_key = |&old: &usize| before[old].identity();
        let new_key = |new: &&mut Endpoint| new.identity();
        for fate in compare(0..before.len(), set, old_key, new_key, is_same) {
            match fate {
                Fate::Joined(endpoint) => self.join(endpoint, &mut merged),
                Fate::Left(index) => merged.leave(&old.members()[index]),
                Fate::Stayed(index, endpoint) => merged.stay(old, index, endpoint),
            }
        }
        merged
    }

    fn join<S>(&mut self, endpoint: &Endpoint, merged: &mut Merged<S>)
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        debug!(ENDPOINTS, self.signals.service(), %endpoint, "endpoint joined");
        let (service, connections) = match self.signals.tally() {
            Some(_) => joining(|| (self.make)(endpoint)),
            None => ((self.make)(endpoint), None),
        };
        let slot = (self.policy.reads() == Reads::All).then(|| self.slots.take());
        let decay = self.policy.latency_decay();
        let member = Member::new(endpoint.clone(), slot, decay, self.signals.clone());
        if let (Some(tally), Some(connections)) = (member.tally(), connections) {
            tally.set_connections(connections);
        }
        if self.holds_back {
            // Marked before any pick can take it.
            member.hold_back();
        }
        merged.update.joined.push((member.clone(), service.clone()));
        merged.members.push(member);
        merged.services.push(service);
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> (usize, usize) {
        self.slots.count()
    }
}

impl<S: Clone> Merged<S> {
    fn leave(&mut self, member: &Arc<Member>) {
        let (signals, endpoint) = (member.signals(), member.endpoint());
        debug!(ENDPOINTS, signals.service(), %endpoint, "endpoint left");
        self.update.left.push(member.clone());
    }

    fn stay(&mut self, old: &Snapshot<S>, index: usize, endpoint: &mut Endpoint) {
        let (before, member) = (&old.endpoints()[index], &old.members()[index]);
        if endpoint != before {
            self.update.altered.push((member.id(), endpoint.clone()));
        }
        self.accepts |= member.is_available();
        self.members.push(member.clone());
        self.services.push(old.services[index].clone());
    }
}
