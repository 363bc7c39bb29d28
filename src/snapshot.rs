//! The set of endpoints, immutable and swapped whole: one writer, any number of readers.
//!
//! An update merges the new set into the old one, both in the order of their identities. Endpoints that stay keep
//! their service, with its connections, and their counters, whatever else is learnt of them. Endpoints that leave are
//! marked, so that no pick takes them even from a snapshot read a moment ago; their service is dropped with the last
//! snapshot that has it, and their slot is used again once their last request has ended.

mod slots;
mod warm_up;
mod writer;

pub(crate) use writer::Writer;

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use rand::{Rng, seq::IteratorRandom};

use crate::{
    endpoint::Endpoint,
    in_flight::InFlight,
    load::{Load, Loads},
    policy::{
        Split,
        sealed::{Pick, Prepare},
    },
    signals::{Attention, Signals},
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
    pickers: Pickers<K>,
    signals: Arc<Signals>,
    discovered: bool,
}

/// The pickers prepared for one set.
#[derive(Debug)]
struct Pickers<K> {
    whole: K,
    /// For the near and the far endpoints, if that makes a difference.
    split: Option<Box<Split<K>>>,
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
        self.pickers
            .split
            .as_ref()
            .map(|split| split.is_near(index))
    }

    /// Takes note that endpoints have become available, or are so no longer.
    pub(crate) fn recount(&self) {
        if let Some(split) = &self.pickers.split {
            split.recount();
        }
    }

    /// Chooses an endpoint: one with a trial on offer if there is any, else as the policy says.
    #[inline]
    pub(crate) fn pick(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        if self.signals.ask_attention()
            && let Some(picked) = self.pick_attentively(rng)
        {
            return Some(picked);
        }
        match self.pickers.pick(&self.loads, rng) {
            Some(index) => Some(self.picked(index, false)),
            None => self.pick_ejected(rng),
        }
    }

    #[cold]
    fn pick_attentively(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let Attention { trials, warming } = self.signals.attend();
        let trial = trials.then(|| {
            let mut loads = self.loads().iter();
            loads.position(|load| load.claim_trial())
        });
        if let Some(index) = trial.flatten() {
            return Some(self.picked(index, true));
        }
        let index = warming.then(|| self.pick_warm(rng))?;
        index.map(|index| self.picked(index, false))
    }

    /// Where none is left but what was ejected, as when the last healthy one refuses: better a bad endpoint than none.
    #[cold]
    fn pick_ejected(&self, rng: &mut impl Rng) -> Option<Picked<'_, S>> {
        let ejected = (0..self.loads.len()).filter(|&index| self.loads()[index].is_only_ejected());
        let index = ejected.choose(rng)?;
        let begun = self.loads()[index].begin_ejected();
        begun.then(|| self.picked(index, false))
    }

    fn picked(&self, index: usize, trial: bool) -> Picked<'_, S> {
        Picked {
            in_flight: InFlight::new(&self.loads()[index], trial),
            service: &self.services[index],
        }
    }

    /// Chooses one of the endpoints that are not to be avoided: of two at random the one with fewer requests for its weight.
    /// For requests that are sent again: they are no turn of the policy's, else an endpoint that fails would take its
    /// neighbour's.
    pub(crate) fn pick_avoiding(
        &self,
        avoid: &[SocketAddr],
        rng: &mut impl Rng,
    ) -> Option<Picked<'_, S>> {
        let preferred = self.pickers.split.as_ref().map(|split| split.draw(rng));
        let wishes = [(preferred, true), (None, true), (None, false)];
        wishes.into_iter().find_map(|(near, weighted)| {
            self.pick_of(avoid, rng, |index| {
                (near.is_none() || near == self.is_near(index))
                    && (self.endpoints[index].weight() > 0) == weighted
            })
        })
    }

    fn pick_of(
        &self,
        avoid: &[SocketAddr],
        rng: &mut impl Rng,
        which: impl Fn(usize) -> bool,
    ) -> Option<Picked<'_, S>> {
        let allowed = |&index: &usize| {
            let identity = self.endpoints[index].identity();
            self.loads.is_available(index) && !avoid.contains(&identity) && which(index)
        };
        let two = (0..self.loads.len()).filter(allowed).sample(rng, 2);
        let load = |index: usize| u64::from(self.loads()[index].in_flight());
        let weight = |index: usize| u64::from(self.endpoints[index].weight());
        let least = two
            .into_iter()
            .min_by(|&one, &other| (load(one) * weight(other)).cmp(&(load(other) * weight(one))))?;
        self.loads.begin(least).then(|| self.picked(least, false))
    }
}

impl<K: Pick> Pickers<K> {
    #[inline]
    fn pick(&self, loads: &Loads, rng: &mut impl Rng) -> Option<usize> {
        match &self.split {
            None => self.whole.pick(loads, rng),
            Some(split) => split.pick(rng),
        }
    }
}

/// Where readers find the current snapshot.
pub(crate) type Current<S, P> = ArcSwap<Snapshot<S, <P as Prepare>::Picker>>;

/// Where the endpoint of this identity is, or else where it would stand.
fn search(endpoints: &[Endpoint], endpoint: &Endpoint) -> Result<usize, usize> {
    endpoints.binary_search_by_key(&endpoint.identity(), Endpoint::identity)
}

#[cfg(test)]
mod tests {
    use super::{writer::Change, *};
    use crate::{near::Near, policy::LeastConnections};
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
    fn a_weight_is_as_the_last_answer_has_it() {
        let mut fixture = fixture();
        fixture.publish([endpoint(1).with_weight(3)]);
        let weight = |fixture: &Fixture<_>| fixture.current.load().endpoints()[0].weight();
        assert_eq!(weight(&fixture), 3);
        let change = fixture.publish([endpoint(1)]).expect("news");
        assert_eq!((change.altered, weight(&fixture)), (1, 1));
        let same = endpoint(1).with_weight(1);
        assert_eq!(fixture.publish([same]), None, "what it was anyway");
    }

    #[test]
    fn names_outlast_answers_without_them_and_hints_do_not() {
        let mut fixture = fixture();
        let named = endpoint(1).with_pod_name("web-0").with_zone("a");
        fixture.publish([named.clone().with_zone_hints(["a"])]);
        assert!(fixture.publish([endpoint(1)]).is_some());
        assert_eq!(
            fixture.current.load().endpoints(),
            std::slice::from_ref(&named)
        );
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
    fn of_the_ejected_one_that_is_nothing_worse_is_better_than_none() {
        let mut fixture = fixture();
        fixture.update([1, 2, 3, 4]);
        let snapshot = fixture.current.load_full();
        for load in snapshot.loads() {
            load.eject();
        }
        snapshot.loads()[0].refuse();
        snapshot.loads()[1].set_unfit();
        snapshot.loads()[2].remove();
        for _ in 0..20 {
            let request = fixture.pick();
            assert_eq!(*request.endpoint(), endpoint(4));
        }
    }

    #[test]
    fn who_is_held_back_is_so_from_the_beginning() {
        let mut fixture = fixture();
        fixture.update([1]);
        let request = fixture.pick();
        fixture.update([]);
        fixture.writer = fixture.writer.hold_back(true);
        fixture.update([1, 2]);
        let snapshot = fixture.current.load_full();
        assert_eq!(snapshot.loads()[0].in_flight(), 1, "it is back");
        assert!(snapshot.loads().iter().all(|load| load.is_unfit()));
        assert!(snapshot.pick(&mut fixture.rng).is_none());
        drop(request);
    }

    #[test]
    fn slots_stay_together_over_endless_churn() {
        let mut fixture = fixture();
        for host in 0..10_000_u32 {
            let hosts = [host % 250, (host + 1) % 250, (host + 2) % 250];
            fixture.update(hosts.map(|host| host as u8));
        }
        assert!(
            fixture.writer.slots.used() <= 9,
            "three sets of three at most"
        );
        assert!(fixture.writer.slots.draining() <= 3);
    }
}
