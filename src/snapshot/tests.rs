//! What an update changes, and what it leaves as it is.

use super::*;
use crate::{
    locality::{LocalityPreference, Proximities},
    member::EjectionReason,
    policy::{AnyPolicy, LeastConnections},
};
use rand::{SeedableRng, rngs::SmallRng};

fn endpoint(host: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, host], 80).into())
}

fn set(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    hosts.into_iter().map(endpoint).collect()
}

/// How many endpoints an update changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    joined: usize,
    left: usize,
    altered: usize,
}

struct Fixture<M> {
    writer: Writer<M>,
    current: Current<Arc<()>>,
    rng: SmallRng,
}

fn fixture() -> Fixture<impl FnMut(&Endpoint) -> Arc<()>> {
    fixture_with(LocalityPreference::default())
}

fn fixture_with(locality: LocalityPreference) -> Fixture<impl FnMut(&Endpoint) -> Arc<()>> {
    let mut rng = SmallRng::seed_from_u64(1);
    let make = |_: &Endpoint| Arc::new(());
    let signals = Arc::new(Signals::new(tokio::time::Instant::now()));
    let (writer, current) = Writer::new(
        AnyPolicy::new(LeastConnections::new()),
        locality,
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
        let (set, current) = (set.into(), &self.current);
        let update = self
            .writer
            .replace(current, set, Proximities::Look, &mut self.rng)?;
        Some(Change {
            joined: update.joined.len(),
            left: update.left.len(),
            altered: update.altered.len(),
        })
    }

    fn pick(&mut self) -> InFlight {
        let snapshot = self.current.load();
        let picked = snapshot.pick(&Route::new(), &mut self.rng);
        picked.expect("endpoints").in_flight
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
fn an_endpoint_that_stays_keeps_its_service_and_one_that_leaves_is_dropped() {
    let mut fixture = fixture();
    fixture.update([1, 2]);
    let before = fixture.current.load_full();
    let gone = Arc::downgrade(&before.services[0]);
    let change = fixture.update([2, 3]).expect("a change");
    assert_eq!((change.joined, change.left), (1, 1));
    let after = fixture.current.load_full();
    assert!(Arc::ptr_eq(&before.members()[1], &after.members()[0]));
    assert!(Arc::ptr_eq(&before.services[1], &after.services[0]));
    assert!(before.members()[0].is_removed());
    drop(before);
    assert!(gone.upgrade().is_none(), "no snapshot holds it any more");
}

#[test]
fn a_slot_is_free_when_its_last_request_has_ended() {
    let mut fixture = fixture();
    fixture.update([1]);
    let request = fixture.pick();
    fixture.update([2]);
    assert_eq!(
        fixture.writer.slots(),
        (2, 0),
        "the first one still counts a request"
    );
    drop(request);
    assert_eq!(fixture.writer.slots(), (2, 1));
    fixture.update([2, 3]);
    assert_eq!(fixture.writer.slots(), (2, 0), "it is used again");
    let (one, other) = (fixture.pick(), fixture.pick());
    assert_ne!(one.endpoint(), other.endpoint());
}

#[test]
fn an_endpoint_that_returns_is_a_new_member_even_if_an_old_request_still_runs() {
    let mut fixture = fixture();
    fixture.update([1]);
    let request = fixture.pick();
    let before = fixture.current.load().members()[0].id();
    fixture.update([2]);
    fixture.update([1, 2]);
    let snapshot = fixture.current.load_full();
    assert_ne!(snapshot.members()[0].id(), before);
    assert_eq!(snapshot.members()[0].in_flight(), 0);
    drop(request);
    assert_eq!(snapshot.members()[0].in_flight(), 0);
}

#[test]
fn new_facts_about_a_pod_show_and_change_nothing_else() {
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
        assert!(Arc::ptr_eq(
            &before.members()[index],
            &after.members()[index]
        ));
        assert!(Arc::ptr_eq(&before.services[index], &after.services[index]));
    }
    assert_eq!(fixture.publish([learnt, endpoint(2)]), None);
}

#[test]
fn the_weight_of_the_last_answer_counts() {
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
fn another_pod_at_an_address_is_another_member() {
    let mut fixture = fixture();
    fixture.update([1]);
    let request = fixture.pick();
    let id = |fixture: &Fixture<_>| fixture.current.load().members()[0].id();
    let first = id(&fixture);
    fixture.publish([endpoint(1).with_pod_name("web-0").with_zone("a")]);
    assert_eq!(id(&fixture), first, "its name is learnt");
    let change = fixture.publish([endpoint(1).with_pod_name("web-1")]);
    assert_eq!(
        change.map(|change| (change.joined, change.left)),
        Some((1, 1))
    );
    assert_ne!(id(&fixture), first);
    assert_eq!(fixture.current.load().members()[0].in_flight(), 0);
    drop(request);
}

#[test]
fn an_endpoint_that_is_only_ejected_is_the_last_resort() {
    let mut fixture = fixture();
    fixture.update([1, 2, 3, 4]);
    let snapshot = fixture.current.load_full();
    for member in snapshot.members() {
        member.eject();
    }
    snapshot.members()[0].refuse();
    snapshot.members()[1].set_unfit();
    snapshot.members()[2].remove();
    for _ in 0..20 {
        let request = fixture.pick();
        assert_eq!(*request.endpoint(), endpoint(4));
    }
}

#[test]
fn a_preferred_pod_gets_requests_while_it_is_only_slow() {
    let mut fixture = fixture();
    fixture.publish([endpoint(1).with_pod_name("web-0"), endpoint(2)]);
    let snapshot = fixture.current.load_full();
    let member = &snapshot.members()[0];
    let mut is_taken = |route: Route| {
        let picked = snapshot.pick_routed(&route, &mut fixture.rng);
        picked.is_some_and(|it| it.in_flight.endpoint().address() == endpoint(1).address())
    };
    let route = || Route::new().prefer("web-0");
    let eject = |reason| {
        member.stats().set_reason(Some(reason));
        member.eject();
    };
    for reason in [
        EjectionReason::ConsecutiveFailures,
        EjectionReason::SuccessRate,
        EjectionReason::Unresponsive,
    ] {
        eject(reason);
        assert!(!is_taken(route()), "{reason}");
    }
    eject(EjectionReason::Slow);
    assert!(is_taken(route()));
    assert!(!is_taken(Route::new()), "nobody else");
    assert!(!is_taken(route().only_others()), "no second try");
    assert!(!is_taken(route().avoid(&endpoint(1))));
    while member.stats().failed(true) < 4 {}
    assert!(is_taken(route()), "what it fails is the reviews' to judge");
    member.set_unfit();
    assert!(!is_taken(route()), "its checks fail");
    member.set_fit();
    member.refuse();
    assert!(!is_taken(route()), "it refuses");
    member.accept();
    assert!(is_taken(route()));
    member.remove();
    assert!(!is_taken(route()), "it has left");
}

#[test]
fn an_endpoint_is_held_back_from_the_moment_it_joins() {
    let mut fixture = fixture();
    fixture.writer = fixture.writer.hold_back(true);
    fixture.update([1, 2]);
    let snapshot = fixture.current.load_full();
    assert!(snapshot.members().iter().all(|member| member.is_unfit()));
    assert!(snapshot.pick(&Route::new(), &mut fixture.rng).is_none());
}

#[test]
fn slots_stay_together_over_endless_churn() {
    let mut fixture = fixture();
    for host in 0..10_000_u32 {
        let hosts = [host % 250, (host + 1) % 250, (host + 2) % 250];
        fixture.update(hosts.map(|host| host as u8));
    }
    let (all, free) = fixture.writer.slots();
    assert!(all <= 9, "three sets of three at most");
    assert!(all - free <= 6, "this set and the one before");
}

#[test]
fn requests_that_avoid_an_endpoint_spread_evenly_over_equal_others() {
    let mut fixture = fixture();
    fixture.update([1, 2, 3, 4]);
    let snapshot = fixture.current.load_full();
    let route = Route::new().avoid(&endpoint(1)).avoid(&endpoint(4));
    let mut shares = [0; 2];
    for _ in 0..1_000 {
        let picked = snapshot
            .pick_routed(&route, &mut fixture.rng)
            .expect("two are left");
        shares[usize::from(*picked.in_flight.endpoint() == endpoint(3))] += 1;
    }
    assert!(
        shares.iter().all(|share| (400..600).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn a_request_for_a_pod_by_name_goes_to_no_other() {
    let mut fixture = fixture();
    let named = |host: u8| endpoint(host).with_hostname(format!("web-{host}"));
    fixture.publish([named(1), named(2), endpoint(3).with_pod_name("web-3")]);
    let snapshot = fixture.current.load_full();
    let mut pick = |name: &str| {
        let picked = snapshot.pick_routed(&Route::new().pod(name), &mut fixture.rng)?;
        Some(picked.in_flight.endpoint().address())
    };
    assert_eq!(pick("web-2"), Some(endpoint(2).address()));
    assert_eq!(pick("web-3"), Some(endpoint(3).address()));
    assert_eq!(pick("web-4"), None);
    snapshot.members()[1].eject();
    assert!(pick("web-2").is_some(), "no other one will do");
    snapshot.members()[1].refuse();
    assert_eq!(pick("web-2"), None);
    snapshot.members()[1].offer_trial();
    assert!(pick("web-2").is_some(), "one may try");
}

#[test]
fn if_no_endpoint_has_weight_all_count() {
    let mut fixture = fixture();
    let weightless = |host| endpoint(host).with_weight(0);
    fixture.publish([1, 2].map(weightless));
    let snapshot = fixture.current.load_full();
    let again = Route::new().avoid(&weightless(1)).only_others();
    assert!(snapshot.has_other(&again), "a second try has a place");
    let picked = snapshot.pick_routed(&again, &mut fixture.rng);
    let picked = picked.expect("the other one").in_flight;
    assert_eq!(picked.endpoint().address(), endpoint(2).address());
    drop(picked);

    fixture.writer = fixture.writer.ready_first(true);
    fixture.publish([1, 2, 3].map(weightless));
    let snapshot = fixture.current.load_full();
    let available = snapshot.members().iter().map(|it| it.is_available());
    assert_eq!(
        available.collect::<Vec<_>>(),
        [true, true, false],
        "a new one is made ready first"
    );
    fixture.publish([endpoint(1), endpoint(2), weightless(3), weightless(4)]);
    let snapshot = fixture.current.load_full();
    assert!(snapshot.members()[3].is_available(), "the last resort");
    let again = Route::new().avoid(&endpoint(1)).avoid(&endpoint(2));
    assert!(!snapshot.has_other(&again.only_others()));
}

#[test]
fn if_no_endpoint_has_weight_a_request_that_avoids_one_stays_near() {
    let mut locality = LocalityPreference::default();
    locality.prefer_zone("near");
    let mut fixture = fixture_with(locality);
    let zone = |host: u8| if host < 4 { "near" } else { "far" };
    let pods = (1..=6).map(|host| endpoint(host).with_zone(zone(host)));
    for weight in [1, 0] {
        let pods = pods.clone().map(|it| it.with_weight(weight));
        fixture.publish(pods.collect::<Vec<_>>());
        let snapshot = fixture.current.load_full();
        let route = Route::new().avoid(&endpoint(1));
        let far = (0..1_000).filter(|_| {
            let picked = snapshot.pick_routed(&route, &mut fixture.rng);
            picked.expect("others").in_flight.endpoint().zone() == Some("far")
        });
        assert_eq!(far.count(), 0, "with weight {weight}");
    }
}
