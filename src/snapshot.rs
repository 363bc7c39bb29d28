//! The set of endpoints, immutable and swapped whole: one writer, any number of readers.
//!
//! An update merges the new set into the old one, both in the order of their identities. Endpoints that stay keep
//! their service, with its connections, and their counters. Endpoints that leave are marked, so that no
//! pick takes them even from a snapshot read a moment ago; their service is dropped with the last snapshot that has it,
//! and their slot is used again once their last request has ended.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use rand::{Rng, seq::IteratorRandom};
use tracing::debug;

use crate::{
    endpoint::Endpoint,
    in_flight::InFlight,
    load::{LINES, Line, Load, Loads, line_of},
    policy::{
        Policy,
        sealed::{Pick, Prepare, Previous},
    },
    signals::Signals,
};

/// What a pick has chosen, and the request that is in flight there from now on.
pub(crate) struct Picked<'a, S> {
    pub(crate) service: &'a S,
    pub(crate) in_flight: InFlight,
}

/// A set of endpoints, and the picker prepared for it.
#[derive(Debug)]
pub(crate) struct Snapshot<S, K> {
    loads: Loads,
    /// The endpoints' services, in the same order.
    services: Box<[S]>,
    picker: K,
    signals: Arc<Signals>,
    discovered: bool,
}

impl<S, K: Pick> Snapshot<S, K> {
    /// Whether discovery has ever answered; if not, the set is empty for want of knowledge.
    pub(crate) fn is_discovered(&self) -> bool {
        self.discovered
    }

    /// The counters of all endpoints, in the order of their identities.
    pub(crate) fn loads(&self) -> &[Arc<Load>] {
        self.loads.all()
    }

    /// The service of this very endpoint, unless it has left the set.
    pub(crate) fn service(&self, load: &Arc<Load>) -> Option<&S> {
        let index = self.loads.search(load.endpoint().identity()).ok()?;
        let is_same = Arc::ptr_eq(&self.loads()[index], load);
        is_same.then(|| &self.services[index])
    }

    /// Chooses an endpoint: one with a trial on offer if there is any, else as the policy says.
    #[inline]
    pub(crate) fn pick(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let trial = match self.signals.trials.load(Relaxed) {
            0 => None,
            _ => self.loads().iter().position(|load| load.claim_trial()),
        };
        let index = match trial {
            Some(index) => index,
            None => self.picker.pick(&self.loads, rng)?,
        };
        Some(self.picked(index, trial.is_some()))
    }

    fn picked(&self, index: usize, trial: bool) -> Picked<'_, S> {
        Picked {
            in_flight: InFlight::new(&self.loads()[index], trial),
            service: &self.services[index],
        }
    }

    /// Chooses one of the endpoints that are not to be avoided: of two at random the one with fewer requests. For requests
    /// that are sent again: they are no turn of the policy's, else an endpoint that fails would take its neighbour's.
    pub(crate) fn pick_avoiding(
        &self,
        avoid: &[SocketAddr],
        rng: &mut impl Rng,
    ) -> Option<Picked<'_, S>> {
        let allowed = |&index: &usize| {
            let identity = self.loads()[index].endpoint().identity();
            self.loads.is_available(index) && !avoid.contains(&identity)
        };
        let two = (0..self.loads.len()).filter(allowed).sample(rng, 2);
        let least = two
            .into_iter()
            .min_by_key(|&index| self.loads()[index].in_flight())?;
        self.loads.begin(least).then(|| self.picked(least, false))
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
            loads: Loads::new(Vec::new(), Arc::default()),
            services: Box::default(),
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
        set.sort_unstable();
        set.dedup_by_key(|endpoint| endpoint.identity());
        let old = current.load_full();
        if old.discovered && is_same(old.loads(), &set) {
            return None;
        }
        self.slots.reclaim();
        let mut change = Change::default();
        let (loads, services) = self.merge(&old, set, &mut change);
        let loads = Loads::new(loads, self.slots.lines.clone());
        let place = |index: usize| {
            let place = loads.search(old.loads()[index].endpoint().identity());
            let (Ok(place) | Err(place)) = place;
            if place < loads.len() { place } else { 0 }
        };
        let previous = Previous {
            picker: &old.picker,
            place: &place,
        };
        let picker = self.policy.prepare(loads.len(), Some(previous), rng);
        current.store(Arc::new(Snapshot {
            loads,
            services: services.into_boxed_slice(),
            picker,
            signals: self.signals.clone(),
            discovered: true,
        }));
        Some(change)
    }

    /// Both sides in order: what both have is kept, what only the new one has is made, what only the old one has goes.
    fn merge<S>(
        &mut self,
        old: &Snapshot<S, P::Picker>,
        set: Vec<Endpoint>,
        change: &mut Change,
    ) -> (Vec<Arc<Load>>, Vec<S>)
    where
        M: FnMut(&Endpoint) -> S,
        S: Clone,
    {
        let mut loads = Vec::with_capacity(set.len());
        let mut services = Vec::with_capacity(set.len());
        let mut old = old.loads().iter().zip(&old.services).peekable();
        for endpoint in set {
            let identity = endpoint.identity();
            while let Some((gone, _)) =
                old.next_if(|(load, _)| load.endpoint().identity() < identity)
            {
                self.remove(gone, change);
            }
            match old.next_if(|(load, _)| load.endpoint().identity() == identity) {
                Some((load, service)) if load.endpoint().is_same_pod(&endpoint) => {
                    loads.push(load.clone());
                    services.push(service.clone());
                }
                other => {
                    if let Some((gone, _)) = other {
                        self.remove(gone, change);
                    }
                    services.push((self.make)(&endpoint));
                    loads.push(self.add(endpoint, change));
                }
            }
        }
        for (gone, _) in old {
            self.remove(gone, change);
        }
        (loads, services)
    }

    fn add(&mut self, endpoint: Endpoint, change: &mut Change) -> Arc<Load> {
        debug!(%endpoint, "endpoint joined");
        change.joined += 1;
        self.slots.load(endpoint, P::SCANS, &self.signals)
    }

    fn remove(&mut self, load: &Arc<Load>, change: &mut Change) {
        load.remove();
        debug!(endpoint = %load.endpoint(), "endpoint left");
        change.left += 1;
        self.slots.drain(load);
    }
}

fn is_same(loads: &[Arc<Load>], set: &[Endpoint]) -> bool {
    let mut pairs = loads.iter().zip(set);
    loads.len() == set.len() && pairs.all(|(load, new)| load.endpoint().is_same_pod(new))
}

/// Hands out the endpoints' words. The packed ones have slots, of which the lowest free one goes first, so that the words
/// in use stay together.
#[derive(Debug, Default)]
struct Slots {
    lines: Arc<[Arc<Line>]>,
    free: BinaryHeap<Reverse<usize>>,
    used: usize,
    draining: HashMap<Endpoint, Arc<Load>>,
}

impl Slots {
    /// The numbers of `endpoint`: those it had, if its last requests still run, else new ones.
    fn load(&mut self, endpoint: Endpoint, packed: bool, signals: &Arc<Signals>) -> Arc<Load> {
        if let Some(load) = self.draining.remove(&endpoint) {
            load.restore();
            return load;
        }
        let packed = packed.then(|| self.allocate());
        Load::new(endpoint, packed, signals.clone())
    }

    fn allocate(&mut self) -> (Arc<Line>, usize) {
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
        (self.lines[line].clone(), slot)
    }

    /// Keeps an endpoint that has left for as long as there is something to keep: requests, or a slot to take back.
    fn drain(&mut self, load: &Arc<Load>) {
        if load.in_flight() > 0 || load.slot().is_some() {
            self.draining.insert(load.endpoint().clone(), load.clone());
        }
    }

    /// Takes back the slots that nothing counts in any more: no request, and no snapshot that a reader still holds.
    fn reclaim(&mut self) {
        let free = &mut self.free;
        self.draining.retain(|_, load| {
            let in_use = Arc::strong_count(load) > 1 || load.in_flight() > 0;
            if !in_use {
                free.extend(load.slot().map(Reverse));
            }
            in_use
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::LeastConnections;
    use rand::{SeedableRng, rngs::SmallRng};

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn set(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
        hosts.into_iter().map(endpoint).collect()
    }

    struct Fixture<M> {
        writer: Writer<LeastConnections, M>,
        current: Current<Arc<()>, LeastConnections>,
        rng: SmallRng,
    }

    fn fixture() -> Fixture<impl FnMut(&Endpoint) -> Arc<()>> {
        let mut rng = SmallRng::seed_from_u64(1);
        let make = |_: &Endpoint| Arc::new(());
        let signals = Arc::new(Signals::new(tokio::time::Instant::now()));
        let (writer, current) = Writer::new(LeastConnections::new(), make, signals, &mut rng);
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

        fn pick(&mut self) -> InFlight {
            let snapshot = self.current.load();
            snapshot.pick(&mut self.rng).expect("endpoints").in_flight
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
        let before = fixture.current.load_full();
        let gone = Arc::downgrade(&before.services[0]);
        let change = fixture.update([2, 3]).expect("a change");
        assert_eq!((change.joined, change.left), (1, 1));
        let after = fixture.current.load_full();
        assert!(Arc::ptr_eq(&before.loads()[1], &after.loads()[0]));
        assert!(Arc::ptr_eq(&before.services[1], &after.services[0]));
        assert!(before.loads()[0].is_removed());
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
        let slots = |fixture: &Fixture<_>| -> Vec<_> {
            let snapshot = fixture.current.load();
            snapshot
                .loads()
                .iter()
                .filter_map(|load| load.slot())
                .collect::<Vec<_>>()
        };
        assert_eq!(slots(&fixture), [1, 2], "slot 0 still counts a request");
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
        assert_eq!(snapshot.loads()[0].in_flight(), 1);
        assert!(!snapshot.loads()[0].is_removed());
        drop(request);
        assert_eq!(snapshot.loads()[0].in_flight(), 0);
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
