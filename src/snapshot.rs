//! The set of endpoints, immutable and swapped whole: one writer, any number of readers.
//!
//! An update merges the new set into the old one, both in the order of their identities. Endpoints that stay keep
//! their service, with its connections, and their counters, whatever else is learnt of them. Endpoints that leave are
//! marked, so that no pick takes them even from a snapshot read a moment ago; their service is dropped with the last
//! snapshot that has it, and their slot is used again once their last request has ended.

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
    near::Near,
    policy::{
        Before, Policy, Split,
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
    /// What is known of the endpoints now, in the order of their identities.
    endpoints: Box<[Endpoint]>,
    /// Their counters, in the same order.
    loads: Loads,
    /// Their services, in the same order.
    services: Box<[S]>,
    /// For all of them.
    picker: K,
    /// For the near and the far ones, if that makes a difference.
    split: Option<Box<Split<K>>>,
    signals: Arc<Signals>,
    discovered: bool,
}

impl<S, K: Pick> Snapshot<S, K> {
    /// Whether discovery has ever answered; if not, the set is empty for want of knowledge.
    pub(crate) fn is_discovered(&self) -> bool {
        self.discovered
    }

    /// What is known of all endpoints, in the order of their identities.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The counters of all endpoints, in the same order.
    pub(crate) fn loads(&self) -> &[Arc<Load>] {
        self.loads.all()
    }

    /// The service of this very endpoint, unless it has left the set.
    pub(crate) fn service(&self, load: &Arc<Load>) -> Option<&S> {
        let index = search(&self.endpoints, load.endpoint()).ok()?;
        let is_same = Arc::ptr_eq(&self.loads()[index], load);
        is_same.then(|| &self.services[index])
    }

    /// Whether the endpoint is one that is preferred for being near; none if there is no preference.
    pub(crate) fn is_near(&self, index: usize) -> Option<bool> {
        self.split.as_ref().map(|split| split.is_near(index))
    }

    /// Takes note that endpoints have become available, or are so no longer.
    pub(crate) fn recount(&self) {
        if let Some(split) = &self.split {
            split.recount();
        }
    }

    /// Chooses an endpoint: one with a trial on offer if there is any, else as the policy says.
    #[inline]
    pub(crate) fn pick(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let trial = match self.signals.trials.load(Relaxed) {
            0 => None,
            _ => self.loads().iter().position(|load| load.claim_trial()),
        };
        let index = match (trial, &self.split) {
            (Some(index), _) => index,
            (None, None) => self.picker.pick(&self.loads, rng)?,
            (None, Some(split)) => split.pick(rng)?,
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
        let preferred = self.split.as_ref().map(|split| split.draw(rng));
        let first = self.pick_of(preferred, avoid, rng);
        first.or_else(|| self.pick_of(None, avoid, rng))
    }

    fn pick_of(
        &self,
        near: Option<bool>,
        avoid: &[SocketAddr],
        rng: &mut impl Rng,
    ) -> Option<Picked<'_, S>> {
        let allowed = |&index: &usize| {
            let identity = self.endpoints[index].identity();
            self.loads.is_available(index)
                && !avoid.contains(&identity)
                && (near.is_none() || near == self.is_near(index))
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
    /// Those that stay, but of which something else is known now.
    pub(crate) altered: usize,
}

/// The one writer of a snapshot.
pub(crate) struct Writer<P, M> {
    policy: P,
    near: Near,
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
            picker: policy.prepare(0, None, rng),
            split: None,
            signals: signals.clone(),
            discovered: false,
        };
        let writer = Self {
            policy,
            near,
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
        if old.discovered && is_known(&old.endpoints, &set) {
            return None;
        }
        self.slots.reclaim();
        let mut change = Change::default();
        let (loads, services) = self.merge(&old, &mut set, &mut change);
        let place = |index: usize| {
            let (Ok(place) | Err(place)) = search(&set, &old.endpoints[index]);
            if place < set.len() { place } else { 0 }
        };
        let previous = Previous {
            picker: &old.picker,
            place: &place,
        };
        let picker = self.policy.prepare(set.len(), Some(previous), rng);
        let loads = Loads::new(loads, self.slots.lines.clone());
        let before = Before {
            split: old.split.as_deref(),
            whole: previous,
        };
        let split = self.near.nearest(&set).map(|nearest| {
            let split = Split::prepare(&self.policy, &loads, nearest, &before, rng);
            Box::new(split)
        });
        current.store(Arc::new(Snapshot {
            endpoints: set.into_boxed_slice(),
            loads,
            services: services.into_boxed_slice(),
            picker,
            split,
            signals: self.signals.clone(),
            discovered: true,
        }));
        Some(change)
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
        self.slots.load(endpoint, P::SCANS, &self.signals)
    }

    fn remove(&mut self, endpoint: &Endpoint, load: &Arc<Load>, change: &mut Change) {
        load.remove();
        debug!(%endpoint, "endpoint left");
        change.left += 1;
        self.slots.drain(endpoint, load);
    }
}

/// Whether `set` tells nothing that `endpoints` don't.
fn is_known(endpoints: &[Endpoint], set: &[Endpoint]) -> bool {
    let mut pairs = endpoints.iter().zip(set);
    endpoints.len() == set.len() && pairs.all(|(known, new)| known.covers(new))
}

/// Where the endpoint of this identity is, or else where it would stand.
fn search(endpoints: &[Endpoint], endpoint: &Endpoint) -> Result<usize, usize> {
    endpoints.binary_search_by_key(&endpoint.identity(), Endpoint::identity)
}

/// Hands out the endpoints' words. The packed ones have slots, of which the lowest free one goes first, so that the words
/// in use stay together.
#[derive(Debug, Default)]
struct Slots {
    lines: Arc<[Arc<Line>]>,
    free: BinaryHeap<Reverse<usize>>,
    used: usize,
    /// What has left, by its identity. An address may have been that of several pods.
    draining: HashMap<SocketAddr, Vec<Draining>>,
}

/// An endpoint that has left, as it was known at the end.
#[derive(Debug)]
struct Draining {
    endpoint: Endpoint,
    load: Arc<Load>,
}

impl Slots {
    /// The numbers of `endpoint`: those it had, if its last requests still run, else new ones.
    fn load(&mut self, endpoint: &Endpoint, packed: bool, signals: &Arc<Signals>) -> Arc<Load> {
        if let Some(load) = self.undrain(endpoint) {
            load.restore();
            return load;
        }
        let packed = packed.then(|| self.allocate());
        Load::new(endpoint.clone(), packed, signals.clone())
    }

    fn undrain(&mut self, endpoint: &Endpoint) -> Option<Arc<Load>> {
        let left = self.draining.get_mut(&endpoint.identity())?;
        let index = left
            .iter()
            .rposition(|draining| draining.endpoint.is_same_pod(endpoint))?;
        Some(left.remove(index).load)
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
    fn drain(&mut self, endpoint: &Endpoint, load: &Arc<Load>) {
        if load.in_flight() > 0 || load.slot().is_some() {
            let left = self.draining.entry(endpoint.identity()).or_default();
            left.push(Draining {
                endpoint: endpoint.clone(),
                load: load.clone(),
            });
        }
    }

    /// Takes back the slots that nothing counts in any more: no request, and no snapshot that a reader still holds.
    fn reclaim(&mut self) {
        let free = &mut self.free;
        let mut is_used = |Draining { load, .. }: &Draining| {
            let is_used = Arc::strong_count(load) > 1 || load.in_flight() > 0;
            if !is_used {
                free.extend(load.slot().map(Reverse));
            }
            is_used
        };
        self.draining.retain(|_, left| {
            left.retain(&mut is_used);
            !left.is_empty()
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
        let (writer, current) = Writer::new(
            LeastConnections::new(),
            Near::default(),
            make,
            signals,
            &mut rng,
        );
        Fixture {
            writer,
            current,
            rng,
        }
    }

    impl<M: FnMut(&Endpoint) -> Arc<()>> Fixture<M> {
        fn update(&mut self, hosts: impl IntoIterator<Item = u8>) -> Option<Change> {
            self.publish(set(hosts))
        }

        fn publish(&mut self, set: impl Into<Vec<Endpoint>>) -> Option<Change> {
            self.writer.update(&self.current, set.into(), &mut self.rng)
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
    fn what_is_learnt_of_a_pod_shows_and_changes_nothing_else() {
        let mut fixture = fixture();
        fixture.update([1, 2]);
        let before = fixture.current.load_full();
        let _request = fixture.pick();
        let learnt = endpoint(1).with_zone("a").with_zone_hints(["a"]);
        let change = fixture.publish([learnt.clone(), endpoint(2)]);
        let altered = Change {
            altered: 1,
            ..Change::default()
        };
        assert_eq!(change, Some(altered));
        let after = fixture.current.load_full();
        assert_eq!(after.endpoints(), [learnt.clone(), endpoint(2)]);
        for index in 0..2 {
            assert!(Arc::ptr_eq(&before.loads()[index], &after.loads()[index]));
            assert!(Arc::ptr_eq(&before.services[index], &after.services[index]));
        }
        assert_eq!(fixture.publish([learnt, endpoint(2)]), None);
    }

    #[test]
    fn names_outlast_answers_without_them_and_hints_do_not() {
        let mut fixture = fixture();
        let named = endpoint(1).with_pod_name("web-0").with_zone("a");
        fixture.publish([named.clone().with_zone_hints(["a"])]);
        assert!(fixture.publish([endpoint(1)]).is_some());
        assert_eq!(fixture.current.load().endpoints(), [named.clone()]);
        assert_eq!(fixture.publish([endpoint(1)]), None, "nothing new");
        let other = endpoint(1).with_pod_name("web-1");
        let change = fixture.publish([other]).expect("another pod");
        assert_eq!((change.joined, change.left), (1, 1));
    }

    #[test]
    fn who_returns_with_other_details_finds_its_counters_and_another_pod_does_not() {
        let mut fixture = fixture();
        fixture.update([1]);
        let request = fixture.pick();
        fixture.publish([endpoint(1).with_pod_name("web-0").with_zone("a")]);
        fixture.publish([endpoint(1).with_pod_name("web-1")]);
        let in_flight = |fixture: &Fixture<_>| fixture.current.load().loads()[0].in_flight();
        assert_eq!(in_flight(&fixture), 0, "another pod at its address");
        fixture.update([]);
        fixture.publish([endpoint(1).with_pod_name("web-0").with_terminating(true)]);
        assert_eq!(in_flight(&fixture), 1);
        drop(request);
        assert_eq!(in_flight(&fixture), 0);
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
