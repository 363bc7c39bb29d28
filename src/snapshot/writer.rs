//! The one writer of a snapshot: what an answer of discovery changes.

use std::sync::Arc;

use rand::Rng;
use tracing::debug;

use super::{
    Current, Pickers, Snapshot, search,
    slots::{New, Slots},
};
use crate::{
    endpoint::Endpoint,
    load::{Load, Loads},
    near::Near,
    policy::{
        Before, Policy, Split, are_equal,
        sealed::{Pick, Previous, Reads},
    },
    signals::Signals,
};

/// How many endpoints an update changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) joined: usize,
    pub(crate) left: usize,
    /// Those that stay, but of which something else is known now.
    pub(crate) altered: usize,
}

/// The one writer of a snapshot.
pub(crate) struct Writer<P, M> {
    policy: P,
    near: Near,
    make: M,
    /// Whether endpoints are to pass a check before they get requests.
    holds_back: bool,
    pub(super) slots: Slots,
    signals: Arc<Signals>,
}

impl<P: Policy, M> Writer<P, M> {
    /// A writer, and the snapshot from before the first answer.
    pub(crate) fn new<S>(
        policy: P,
        near: Near,
        make: M,
        signals: Arc<Signals>,
        rng: &mut impl Rng,
    ) -> (Self, Current<S, P>)
    where
        M: FnMut(&Endpoint) -> S,
    {
        let nothing = Snapshot {
            endpoints: Box::default(),
            loads: Loads::new(Vec::new(), Arc::default()),
            services: Box::default(),
            pickers: Pickers {
                whole: policy.prepare(&[], None, rng),
                split: None,
            },
            signals: signals.clone(),
            discovered: false,
        };
        let writer = Self {
            policy,
            near,
            make,
            holds_back: false,
            slots: Slots::default(),
            signals,
        };
        (writer, Current::<S, P>::from_pointee(nothing))
    }

    /// The same with endpoints that get no request before they have passed a check, if that is wanted.
    pub(crate) fn hold_back(mut self, holds_back: bool) -> Self {
        self.holds_back = holds_back;
        self
    }

    /// Publishes `set`, in whatever order and with whatever repetitions it comes. None if it is what `current` has.
    pub(crate) fn update<S>(
        &mut self,
        current: &Current<S, P>,
        mut set: Vec<Endpoint>,
        rng: &mut impl Rng,
    ) -> Option<Change>
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        set.sort_unstable();
        set.dedup_by_key(|endpoint| endpoint.identity());
        let old = current.load_full();
        if old.discovered && is_known(&old.endpoints, &set) {
            return None;
        }
        self.slots.reclaim();
        let mut change = Change::default();
        let (loads, services) = self.merge(&old, &mut set, &mut change);
        let loads = Loads::new(loads, self.slots.lines());
        let pickers = self.prepare(&old, &set, &loads, rng);
        current.store(Arc::new(Snapshot {
            endpoints: set.into_boxed_slice(),
            loads,
            services: services.into_boxed_slice(),
            pickers,
            signals: self.signals.clone(),
            discovered: true,
        }));
        Some(change)
    }

    /// The pickers of a set that takes the place of `old`.
    fn prepare<S>(
        &self,
        old: &Snapshot<S, P::Picker>,
        set: &[Endpoint],
        loads: &Loads,
        rng: &mut impl Rng,
    ) -> Pickers<P::Picker> {
        let place = |index: usize| {
            let (Ok(place) | Err(place)) = search(set, &old.endpoints[index]);
            if place < set.len() { place } else { 0 }
        };
        let whole = Previous {
            picker: &old.pickers.whole,
            place: &place,
        };
        let before = Before {
            split: old.pickers.split.as_deref(),
            whole,
        };
        let weights = weights(set);
        let split = self.near.nearest(set).map(|nearest| {
            let set = (loads, &*weights);
            let split = Split::prepare(&self.policy, set, nearest, &before, rng);
            Box::new(split)
        });
        Pickers {
            whole: self.policy.prepare(&weights, Some(whole), rng),
            split,
        }
    }

    /// Both sides in order: what both have is kept, what only the new one has is made, what only the old one has goes.
    fn merge<S>(
        &mut self,
        old: &Snapshot<S, P::Picker>,
        set: &mut [Endpoint],
        change: &mut Change,
    ) -> (Vec<Arc<Load>>, Vec<S>)
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        let mut loads = Vec::with_capacity(set.len());
        let mut services = Vec::with_capacity(set.len());
        let numbers = old.loads().iter().zip(&old.services);
        let mut old = old.endpoints.iter().zip(numbers).peekable();
        for endpoint in set {
            let identity = endpoint.identity();
            while let Some((gone, (load, _))) = old.next_if(|(old, _)| old.identity() < identity) {
                self.remove(gone, load, change);
            }
            match old.next_if(|(old, _)| old.identity() == identity) {
                Some((old, (load, service))) if old.is_same_pod(endpoint) => {
                    if endpoint != old {
                        endpoint.recall(old);
                        change.altered += usize::from(endpoint != old);
                    }
                    loads.push(load.clone());
                    services.push(service.clone());
                }
                other => {
                    if let Some((gone, (load, _))) = other {
                        self.remove(gone, load, change);
                    }
                    services.push((self.make)(endpoint));
                    loads.push(self.add(endpoint, change));
                }
            }
        }
        for (gone, (load, _)) in old {
            self.remove(gone, load, change);
        }
        (loads, services)
    }

    fn add(&mut self, endpoint: &Endpoint, change: &mut Change) -> Arc<Load> {
        debug!(%endpoint, "endpoint joined");
        change.joined += 1;
        let new = New {
            packed: P::Picker::READS == Reads::All,
            decay: self.policy.decay(),
            held_back: self.holds_back,
        };
        self.slots.load(endpoint, new, &self.signals)
    }

    fn remove(&mut self, endpoint: &Endpoint, load: &Arc<Load>, change: &mut Change) {
        load.remove();
        debug!(%endpoint, "endpoint left");
        change.left += 1;
        self.slots.drain(endpoint, load);
    }
}

/// The endpoints' weights; all are 1 if they are equal, even at zero.
fn weights(set: &[Endpoint]) -> Vec<u32> {
    let weights: Vec<_> = set.iter().map(Endpoint::weight).collect();
    if are_equal(&weights) {
        return vec![1; set.len()];
    }
    weights
}

/// Whether `set` tells nothing that `endpoints` don't.
fn is_known(endpoints: &[Endpoint], set: &[Endpoint]) -> bool {
    let mut pairs = endpoints.iter().zip(set);
    endpoints.len() == set.len() && pairs.all(|(known, new)| known.covers(new))
}
