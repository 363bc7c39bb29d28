//! The set of endpoints, immutable and swapped whole: one writer, any number of readers.
//!
//! An update merges the new set into the old one, both in the order of their identities. Endpoints that stay keep
//! their service, with its connections, and their counters. Endpoints that leave are marked, so that no
//! pick takes them even from a snapshot read a moment ago; their service is dropped with the last snapshot that has it,
//! and their slot is used again once their last request has ended.

use std::{
    cmp::Ordering,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use rand::Rng;
use tracing::debug;

use crate::{
    endpoint::Endpoint,
    load::{LINES, Line, Load, Loads, line_of},
    policy::{
        Policy,
        sealed::{Pick, Prepare, Previous},
    },
    signals::Signals,
};

/// One endpoint of a snapshot. It stands there by value, so that a pick has one memory access fewer to wait for; to keep
/// an endpoint costs an update a clone of its service.
#[derive(Clone, Debug)]
pub(crate) struct Entry<S> {
    pub(crate) load: Arc<Load>,
    pub(crate) service: S,
}

impl<S> Entry<S> {
    fn identity(&self) -> SocketAddr {
        self.load.endpoint().identity()
    }
}

/// An endpoint that a pick has chosen, its request counted in already.
pub(crate) struct Picked<'a, S> {
    pub(crate) entry: &'a Entry<S>,
    pub(crate) trial: bool,
}

/// A set of endpoints, and the picker prepared for it.
#[derive(Debug)]
pub(crate) struct Snapshot<S, K> {
    entries: Box<[Entry<S>]>,
    loads: Loads,
    picker: K,
    signals: Arc<Signals>,
    discovered: bool,
}

impl<S, K: Pick> Snapshot<S, K> {
    /// Whether discovery has ever answered; if not, the set is empty for want of knowledge.
    pub(crate) fn is_discovered(&self) -> bool {
        self.discovered
    }

    pub(crate) fn entries(&self) -> &[Entry<S>] {
        &self.entries
    }

    /// The entry of this very endpoint, unless it has left the set.
    pub(crate) fn entry(&self, load: &Arc<Load>) -> Option<&Entry<S>> {
        let identity = load.endpoint().identity();
        let at = self
            .entries
            .binary_search_by_key(&identity, |entry| entry.identity())
            .ok()?;
        Some(&self.entries[at]).filter(|entry| Arc::ptr_eq(&entry.load, load))
    }

    /// Chooses an endpoint: one with a trial on offer if there is any, else as the policy says.
    #[inline]
    pub(crate) fn pick(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if self.signals.trials.load(Relaxed) > 0 {
            let trial = self.entries.iter().find(|entry| entry.load.claim_trial());
            if let Some(entry) = trial {
                return Some(Picked { entry, trial: true });
            }
        }
        let index = self.picker.pick(&self.loads, rng)?;
        let entry = &self.entries[index];
        Some(Picked {
            entry,
            trial: false,
        })
    }
}

/// How many endpoints an update changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) joined: usize,
    pub(crate) left: usize,
}

/// The one writer of a snapshot.
pub(crate) struct Writer<P, M> {
    policy: P,
    make: M,
    slots: Slots,
    signals: Arc<Signals>,
}

/// Where readers find the current snapshot.
pub(crate) type Current<S, P> = ArcSwap<Snapshot<S, <P as Prepare>::Picker>>;

impl<P: Policy, M> Writer<P, M> {
    /// A writer, and the snapshot from before the first answer.
    pub(crate) fn new<S>(
        policy: P,
        make: M,
        signals: Arc<Signals>,
        rng: &mut impl Rng,
    ) -> (Self, Current<S, P>)
    where
        M: FnMut(&Endpoint) -> S,
    {
        let nothing = Snapshot {
            entries: Box::default(),
            loads: Loads::new(Arc::default(), std::iter::empty()),
            picker: policy.prepare(0, None, rng),
            signals: signals.clone(),
            discovered: false,
        };
        let writer = Self {
            policy,
            make,
            slots: Slots::default(),
            signals,
        };
        (writer, ArcSwap::from_pointee(nothing))
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
        set.sort_unstable_by_key(Endpoint::identity);
        set.dedup_by_key(|endpoint| endpoint.identity());
        let old = current.load_full();
        if old.discovered && is_same(&old.entries, &set) {
            return None;
        }
        self.slots.reclaim();
        let mut change = Change::default();
        let entries = self.merge(&old.entries, set, &mut change);
        let place = |index: usize| {
            let identity = old.entries[index].identity();
            let place = entries.partition_point(|entry| entry.identity() < identity);
            if place < entries.len() { place } else { 0 }
        };
        let previous = Previous {
            picker: &old.picker,
            place: &place,
        };
        let picker = self.policy.prepare(entries.len(), Some(previous), rng);
        let slots = entries.iter().map(|entry| entry.load.slot());
        current.store(Arc::new(Snapshot {
            loads: Loads::new(self.slots.lines.clone(), slots),
            entries: entries.into_boxed_slice(),
            picker,
            signals: self.signals.clone(),
            discovered: true,
        }));
        Some(change)
    }

    /// Both sides in order: what both have is kept, what only the new one has is made, what only the old one has goes.
    fn merge<S>(
        &mut self,
        old: &[Entry<S>],
        set: Vec<Endpoint>,
        change: &mut Change,
    ) -> Vec<Entry<S>>
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        let mut entries = Vec::with_capacity(set.len());
        let mut old = old.iter().peekable();
        for endpoint in set {
            let identity = endpoint.identity();
            while let Some(gone) = old.next_if(|entry| entry.identity() < identity) {
                self.remove(gone, change);
            }
            let kept = old.next_if(|entry| entry.identity() == identity);
            entries.push(match kept {
                Some(entry) => entry.clone(),
                None => self.add(endpoint, change),
            });
        }
        for gone in old {
            self.remove(gone, change);
        }
        entries
    }

    fn add<S>(&mut self, endpoint: Endpoint, change: &mut Change) -> Entry<S>
    where
        M: FnMut(&Endpoint) -> S,
    {
        let service = (self.make)(&endpoint);
        debug!(%endpoint, "endpoint joined");
        change.joined += 1;
        let load = self.slots.load(endpoint, &self.signals);
        Entry { load, service }
    }

    fn remove<S>(&mut self, entry: &Entry<S>, change: &mut Change) {
        entry.load.remove();
        debug!(endpoint = %entry.load.endpoint(), "endpoint left");
        change.left += 1;
        self.slots.drain(entry.load.clone());
    }
}

fn is_same<S>(entries: &[Entry<S>], set: &[Endpoint]) -> bool {
    entries.len() == set.len()
        && entries
            .iter()
            .zip(set)
            .all(|(entry, endpoint)| entry.identity().cmp(&endpoint.identity()) == Ordering::Equal)
}

/// Hands out the words of the lines: the lowest free slot first, so that the words in use stay together.
#[derive(Debug, Default)]
struct Slots {
    lines: Arc<[Arc<Line>]>,
    free: BinaryHeap<Reverse<usize>>,
    used: usize,
    draining: BTreeMap<SocketAddr, Arc<Load>>,
}

impl Slots {
    /// The counters of `endpoint`: those it had, if its last requests still run, else new ones.
    fn load(&mut self, endpoint: Endpoint, signals: &Arc<Signals>) -> Arc<Load> {
        if let Some(load) = self.draining.remove(&endpoint.identity()) {
            load.restore();
            return load;
        }
        let slot = self.free.pop().map_or_else(
            || {
                self.used += 1;
                self.used - 1
            },
            |Reverse(slot)| slot,
        );
        let line = line_of(slot);
        if self.lines.len() <= line {
            let more = std::iter::repeat_with(|| Arc::new(Line::new())).take(LINES);
            self.lines = self.lines.iter().cloned().chain(more).collect();
        }
        let line = self.lines[line].clone();
        Arc::new(Load::new(endpoint, line, slot, signals.clone()))
    }

    fn drain(&mut self, load: Arc<Load>) {
        self.draining.insert(load.endpoint().identity(), load);
    }

    /// Takes back the slots that nothing counts in any more: no request, and no snapshot that a reader still holds.
    fn reclaim(&mut self) {
        let free = &mut self.free;
        self.draining.retain(|_, load| {
            let in_use = Arc::strong_count(load) > 1;
            if !in_use {
                free.push(Reverse(load.slot()));
            }
            in_use
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RoundRobin;
    use rand::{SeedableRng, rngs::SmallRng};

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn set(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
        hosts.into_iter().map(endpoint).collect()
    }

    struct Fixture<M> {
        writer: Writer<RoundRobin, M>,
        current: Current<Arc<()>, RoundRobin>,
        rng: SmallRng,
    }

    fn fixture() -> Fixture<impl FnMut(&Endpoint) -> Arc<()>> {
        let mut rng = SmallRng::seed_from_u64(1);
        let make = |_: &Endpoint| Arc::new(());
        let signals = Arc::new(Signals::new(tokio::time::Instant::now()));
        let (writer, current) = Writer::new(RoundRobin::new(), make, signals, &mut rng);
        Fixture {
            writer,
            current,
            rng,
        }
    }

    impl<M: FnMut(&Endpoint) -> Arc<()>> Fixture<M> {
        fn update(&mut self, hosts: impl IntoIterator<Item = u8>) -> Option<Change> {
            self.writer.update(&self.current, set(hosts), &mut self.rng)
        }

        #[inline]
        fn pick(&mut self) -> Arc<Load> {
            let snapshot = self.current.load();
            snapshot
                .pick(&mut self.rng)
                .expect("endpoints")
                .entry
                .load
                .clone()
        }
    }

    #[test]
    fn answers_are_compared_as_sets() {
        let mut fixture = fixture();
        let change = fixture.update([3, 1, 2, 3]).expect("a first set");
        assert_eq!((change.joined, change.left), (3, 0));
        assert!(fixture.update([2, 3, 1, 1]).is_none());
    }

    #[test]
    fn the_first_answer_is_news_even_if_empty() {
        let mut fixture = fixture();
        assert!(!fixture.current.load().is_discovered());
        assert!(fixture.update([]).is_some());
        assert!(fixture.current.load().is_discovered());
        assert!(fixture.update([]).is_none());
    }

    #[test]
    fn who_stays_keeps_service_and_counters_and_who_leaves_is_dropped() {
        let mut fixture = fixture();
        fixture.update([1, 2]);
        let before: Vec<_> = fixture.current.load().entries().to_vec();
        let gone = Arc::downgrade(&before[0].service);
        let change = fixture.update([2, 3]).expect("a change");
        assert_eq!((change.joined, change.left), (1, 1));
        let after = fixture.current.load().entries().to_vec();
        assert!(Arc::ptr_eq(&before[1].load, &after[0].load));
        assert!(Arc::ptr_eq(&before[1].service, &after[0].service));
        assert!(before[0].load.is_removed());
        drop(before);
        assert!(gone.upgrade().is_none(), "no snapshot holds it any more");
    }

    #[test]
    fn a_slot_is_used_again_only_when_its_last_request_has_ended() {
        let mut fixture = fixture();
        fixture.update([1]);
        let request = fixture.pick();
        fixture.update([2]);
        fixture.update([2, 3]);
        let slots = |fixture: &Fixture<_>| -> Vec<usize> {
            let snapshot = fixture.current.load();
            snapshot
                .entries()
                .iter()
                .map(|entry| entry.load.slot())
                .collect()
        };
        assert_eq!(slots(&fixture), [1, 2], "slot 0 still counts a request");
        request.end();
        drop(request);
        fixture.update([2, 3, 4]);
        assert_eq!(slots(&fixture), [1, 2, 0]);
    }

    #[test]
    fn who_returns_before_its_last_request_has_ended_finds_its_counters() {
        let mut fixture = fixture();
        fixture.update([1]);
        let request = fixture.pick();
        fixture.update([2]);
        fixture.update([1, 2]);
        let snapshot = fixture.current.load_full();
        assert_eq!(snapshot.entries()[0].load.in_flight(), 1);
        assert!(!snapshot.entries()[0].load.is_removed());
        request.end();
        assert_eq!(snapshot.entries()[0].load.in_flight(), 0);
    }

    #[test]
    fn slots_stay_together_over_endless_churn() {
        let mut fixture = fixture();
        for host in 0..10_000_u32 {
            let hosts = [host % 250, (host + 1) % 250, (host + 2) % 250];
            fixture.update(hosts.map(|host| host as u8));
        }
        assert!(
            fixture.writer.slots.used <= 9,
            "three sets of three at most"
        );
        assert!(fixture.writer.slots.draining.len() <= 3);
    }
}
