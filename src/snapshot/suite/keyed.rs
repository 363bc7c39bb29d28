//! Where keys go, under consistent hashing.

use std::collections::BTreeMap;

use super::*;

/// The first `count` keys.
fn keys(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|key| format!("user-{key}"))
}

fn route(key: &str) -> Route {
    Route::new().key(key)
}

fn unbounded() -> ConsistentHash {
    ConsistentHash::new().load_factor(None)
}

/// Pods of a StatefulSet, by number, each at an address of its present life.
fn stateful(pods: impl IntoIterator<Item = (u32, u32)>) -> Vec<Endpoint> {
    let pod = |(number, address)| endpoint(address).with_hostname(format!("web-{number}"));
    pods.into_iter().map(pod).collect()
}

impl Set {
    fn of_endpoints(setting: impl Into<Setting>, endpoints: Vec<Endpoint>) -> Self {
        let mut set = Self::new(setting, []);
        set.publish(endpoints);
        set
    }

    /// Sends a request with a route, which runs until it is dropped.
    fn send(&mut self, route: &Route) -> InFlight {
        let snapshot = self.current.load();
        snapshot.recount();
        let picked = snapshot.pick_routed(route, &mut self.rng);
        picked.expect("an endpoint").in_flight
    }

    /// The name of the endpoint that gets a request of this key.
    fn home(&mut self, key: &str) -> String {
        self.send(&route(key)).endpoint().stable_name().into_owned()
    }

    fn homes(&mut self, count: u32) -> BTreeMap<String, String> {
        keys(count)
            .map(|key| (key.clone(), self.home(&key)))
            .collect()
    }

    fn named(&self, name: &str) -> Arc<Member> {
        let snapshot = self.current.load();
        let named = snapshot
            .endpoints()
            .iter()
            .position(|it| it.stable_name() == name);
        snapshot.members()[named.expect("one of the set")].clone()
    }
}

/// The keys whose home has changed, each with the old and the new home.
fn moves<'a>(
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> Vec<(&'a str, &'a str)> {
    let pairs = before.values().zip(after.values());
    pairs
        .filter(|(one, other)| one != other)
        .map(|(one, other)| (one.as_str(), other.as_str()))
        .collect()
}

/// A change here would send keys elsewhere, and make two versions of a client disagree. The expected names come from an
/// independent implementation in another language.
#[test]
fn the_pods_of_keys_never_change() {
    let mut set = Set::of_endpoints(unbounded(), stateful((0..5).zip(0..5)));
    let expected = "3 1 4 1 4 2 4 1 1 3 2 1 3 4 2 0".split(' ');
    for (key, number) in keys(16).zip(expected) {
        assert_eq!(set.home(&key), format!("web-{number}"), "{key}");
    }
    let mut set = Set::new(unbounded(), 0..5);
    for (key, host) in keys(4).zip([0, 0, 2, 0]) {
        assert_eq!(set.home(&key), format!("10.0.0.{host}:80"), "{key}");
    }
    // The order if everything on the ring is out: that of a race.
    let mut weighted: Vec<_> = stateful((0..5).zip(0..5));
    weighted[0] = weighted[0].clone().with_weight(1_000_000);
    let mut set = Set::of_endpoints(unbounded(), weighted);
    set.named("web-0").refuse();
    let homes: Vec<_> = keys(8).map(|key| set.home(&key)).collect();
    assert_eq!(
        homes,
        [
            "web-4", "web-1", "web-2", "web-3", "web-1", "web-2", "web-2", "web-3"
        ]
    );
}

#[test]
fn a_rolling_restart_of_a_stateful_set_moves_no_key() {
    let mut addresses: BTreeMap<u32, u32> = (0..5).zip(100..105).collect();
    let mut set = Set::of_endpoints(ConsistentHash::new(), stateful(addresses.clone()));
    let before = set.homes(2_000);
    // In Kubernetes' order: from the last pod to the first, each leaves and then comes back elsewhere.
    for number in (0..5).rev() {
        addresses.remove(&number);
        set.publish(stateful(addresses.clone()));
        let name = format!("web-{number}");
        let away = set.homes(2_000);
        let moved = moves(&before, &away);
        assert!(
            moved.iter().all(|&(home, _)| home == name),
            "others' keys stay"
        );
        assert!(!moved.is_empty() && !away.values().any(|home| *home == name));
        addresses.insert(number, 7 - number);
        set.publish(stateful(addresses.clone()));
        assert_eq!(set.homes(2_000), before, "{name} is back");
    }
}

#[test]
fn of_two_pods_of_one_name_the_terminating_one_gets_no_keys() {
    let mut pods = stateful([(0, 1), (1, 2), (0, 9)]);
    pods[0] = pods[0].clone().with_terminating(true);
    let mut set = Set::of_endpoints(unbounded(), pods.clone());
    let before = set.homes(200);
    for key in keys(200).filter(|key| before[key] == "web-0") {
        let request = set.send(&route(&key));
        assert_eq!(request.endpoint().address(), pods[2].address());
    }
    let new = set.members()[2].clone();
    new.refuse();
    assert_eq!(
        set.homes(200),
        before,
        "its predecessor is the second choice"
    );
}

#[test]
fn hash_key_sets_the_names_on_the_ring() {
    let policy = unbounded().hash_key(|endpoint| endpoint.address().to_string());
    let mut by_address = Set::of_endpoints(policy, stateful((0..5).zip(0..5)));
    let mut unnamed = Set::new(unbounded(), 0..5);
    for key in keys(200) {
        let expected = unnamed.send(&route(&key)).endpoint().address();
        assert_eq!(by_address.send(&route(&key)).endpoint().address(), expected);
    }
}

#[test]
fn requests_without_a_key_go_to_any_endpoint() {
    let mut set = Set::new(ConsistentHash::new(), 0..10);
    let shares = set.shares(50_000);
    assert!(chi_square(&shares) < CHI_SQUARE_9, "{shares:?}");
}

/// Takes an endpoint out, in one of several ways.
fn out(member: &Member, how: u8) {
    match how % 3 {
        0 => assert!(member.refuse()),
        1 => assert!(member.eject()),
        _ => assert!(member.set_unfit()),
    }
}

fn back(member: &Member, how: u8) {
    match how % 3 {
        0 => assert!(member.accept()),
        1 => assert!(member.readmit()),
        _ => assert!(member.set_fit()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn only_keys_of_joining_and_leaving_endpoints_move(
        hosts in prop::collection::btree_set(0..10_000_u32, 2..30), joins in 10_000..20_000_u32,
    ) {
        let mut set = Set::new(unbounded(), hosts.clone());
        let before = set.homes(2_000);
        let joined = endpoint(joins).stable_name().into_owned();
        set.update(hosts.iter().copied().chain([joins]));
        let after = set.homes(2_000);
        let moved = moves(&before, &after);
        prop_assert!(moved.iter().all(|&(_, home)| home == joined));
        let expected = 2_000.0 / (hosts.len() + 1) as f64;
        prop_assert!(((moved.len() as f64) / expected - 1.0).abs() < 0.6, "{} of {expected}", moved.len());
        set.update(hosts);
        prop_assert_eq!(set.homes(2_000), before);
    }

    #[test]
    fn keys_of_an_endpoint_that_is_out_go_to_their_next_choice_and_come_back(
        outs in prop::collection::vec(any::<Option<u8>>(), 2..30), outside in any::<bool>(),
    ) {
        let len = outs.len() as u32;
        let setting = if outside { self::outside(unbounded()) } else { unbounded().into() };
        let mut set = Set::new(setting, 0..len);
        let before = set.homes(500);
        let members = set.members();
        let gone: BTreeSet<_> = (0..len).filter(|&at| outs[at as usize].is_some()).collect();
        prop_assume!(gone.len() < outs.len());
        for (member, how) in members.iter().zip(&outs) {
            if let Some(how) = how {
                out(member, *how);
            }
        }
        // As long as the ring decides, keys go where they would if the endpoint that is out had never been there.
        let mut without = Set::new(unbounded(), (0..len).filter(|at| !gone.contains(at)));
        let away = set.homes(500);
        if gone.len() * 2 < outs.len() {
            prop_assert_eq!(&away, &without.homes(500));
        }
        for (home, other) in moves(&before, &away) {
            prop_assert!(!set.named(home).is_available() && set.named(other).is_available());
        }
        for (member, how) in members.iter().zip(&outs) {
            if let Some(how) = how {
                back(member, *how);
            }
        }
        prop_assert_eq!(set.homes(500), before);
    }

    /// With up to 32 endpoints, each pick counts all requests exactly.
    #[test]
    fn no_endpoint_has_more_requests_than_its_bound(
        weights in prop::collection::vec(1..4_u32, 2..40),
        steps in prop::collection::vec((any::<u8>(), any::<Option<prop::sample::Index>>()), 1..300),
        outside in any::<bool>(), near in any::<bool>(),
    ) {
        let hosts = (0..).zip(&weights);
        // Every third one is near, so that the words of near and far ones share lines.
        let zone = |host: u32| if host.is_multiple_of(3) { "near" } else { "far" };
        let pod = |(host, &weight)| endpoint(host).with_zone(zone(host)).with_weight(weight);
        let pods = hosts.map(pod).collect();
        let policy = ConsistentHash::new();
        let setting = if outside { self::outside(policy) } else { policy.into() };
        let mut set = Set::of_endpoints(if near { half_near(setting) } else { setting }, pods);
        let members = set.members();
        let mut running: Vec<InFlight> = Vec::new();
        for (key, ends) in steps {
            // Few keys, of which some are hot.
            let request = set.send(&route(&format!("user-{}", key % 16 % 5)));
            let at = set.index(&request);
            running.push(request);
            // Near and far ones are counted separately.
            let is_near = |at: usize| at.is_multiple_of(3);
            let alike = |other: &usize| !near || is_near(*other) == is_near(at);
            let group: Vec<_> = (0..members.len()).filter(alike).collect();
            let all: u32 = group.iter().map(|&at| members[at].in_flight()).sum();
            let weight: u32 = group.iter().map(|&at| weights[at]).sum();
            let part = 1.25 * f64::from(all) * f64::from(weights[at]) / f64::from(weight);
            let has = members[at].in_flight();
            prop_assert!(f64::from(has) <= (part - 1e-9).ceil(), "{has} of {all}, part {part}");
            if let Some(ends) = ends {
                running.swap_remove(ends.index(running.len()));
            }
        }
    }
}

#[test]
fn requests_over_the_bound_go_to_the_keys_next_choices() {
    let mut set = Set::new(ConsistentHash::new(), 0..4);
    let mut free = Set::new(unbounded(), 0..4);
    // The key's order: each endpoint's turn comes when those before it are out.
    let order: Vec<_> = (0..4)
        .map(|_| {
            let home = free.home("hot");
            free.named(&home).refuse();
            home
        })
        .collect();
    let mut has = BTreeMap::new();
    let mut running = Vec::new();
    for all in 1..=40 {
        let most = (1.25 * f64::from(all) / 4.0).ceil() as u32;
        let request = set.send(&route("hot"));
        let at = request.endpoint().stable_name().into_owned();
        let expected = order
            .iter()
            .find(|name| has.get(*name).is_none_or(|&has| has < most));
        assert_eq!(Some(&at), expected, "request {all}");
        *has.entry(at).or_insert(0) += 1;
        running.push(request);
    }
    drop(running);
    assert_eq!(set.home("hot"), order[0], "home again");
}

#[test]
fn requests_at_endpoints_without_weight_do_not_raise_the_bound() {
    let policy = ConsistentHash::new();
    // 1.25 × 40 ÷ 4, rounded up; and ÷ 2 if only near ones get any.
    let settings = [
        (Setting::from(policy.clone()), 13),
        (outside(policy.clone()), 13),
        (half_near(policy), 25),
    ];
    for (setting, most) in settings {
        let pod = |host: u32| {
            let zone = if host < 4 { "near" } else { "far" };
            endpoint(host).with_zone(zone).with_weight(host % 2)
        };
        let mut set = Set::of_endpoints(setting, (0..8).map(pod).collect());
        let members = set.members();
        // Like requests by name for pods outside of a subset.
        let named = [0, 2, 4, 6].map(|at| members[at].endpoint().address().ip());
        let _theirs: Vec<_> = (0..400)
            .map(|at| set.send(&Route::new().pod(named[at % 4])))
            .collect();
        members[2].refuse();
        let _running: Vec<_> = (0..40).map(|_| set.send(&route("hot"))).collect();
        let has = [1, 3, 5, 7].map(|at| members[at].in_flight());
        assert_eq!(has.iter().sum::<u32>(), 40);
        assert_eq!(has.iter().max(), Some(&most), "{has:?}");
    }
}

#[test]
fn load_is_bounded_in_large_sets_too() {
    let mut set = Set::new(ConsistentHash::new(), 0..500);
    let mut running = std::collections::VecDeque::new();
    for turn in 0..20_000_u32 {
        // A third of all requests are for one key.
        let key = if turn.is_multiple_of(3) { 0 } else { turn };
        running.push_back(set.send(&route(&format!("user-{key}"))));
        if running.len() > 5_000 {
            running.pop_front();
        }
    }
    let most = set.members().iter().map(|member| member.in_flight()).max();
    // 1.25 × 5,001 ÷ 500, rounded up.
    assert!(most <= Some(13), "{most:?}");
}

#[test]
fn without_a_load_factor_a_key_never_moves() {
    let mut set = Set::new(unbounded(), 0..4);
    let running: Vec<_> = (0..1_000).map(|_| set.send(&route("hot"))).collect();
    let first = running[0].endpoint();
    assert!(running.iter().all(|request| request.endpoint() == first));
}

#[test]
fn if_one_is_out_the_bound_of_the_others_rises() {
    for setting in [
        Setting::from(ConsistentHash::new()),
        outside(ConsistentHash::new()),
    ] {
        let mut set = Set::new(setting, 0..4);
        let members = set.members();
        members[3].refuse();
        let _running: Vec<_> = (0..300).map(|_| set.send(&route("hot"))).collect();
        let mut has: Vec<_> = members.iter().map(|member| member.in_flight()).collect();
        has.sort_unstable();
        // Two are full, with 1.25 × 300 ÷ 3, and the third has the rest.
        assert_eq!(has, [0, 50, 125, 125]);
    }
}

#[test]
fn the_keys_of_a_new_endpoint_move_one_by_one_and_once() {
    let mut set = Set::new(unbounded(), 0..10);
    let before = set.homes(2_000);
    set.update(0..11);
    let joined = endpoint(10).stable_name().into_owned();
    let after = set.homes(2_000);
    let all = moves(&before, &after).len();
    let new = set.named(&joined);
    new.signals().set_slow_start(true);
    let mut last = before;
    for share in [0.1, 0.25, 0.5, 0.75, 1.0] {
        new.set_slow_start_share(share);
        let now = set.homes(2_000);
        assert_eq!(
            now,
            set.homes(2_000),
            "each request of a key goes to the same one"
        );
        assert!(moves(&last, &now).iter().all(|&(_, home)| home == joined));
        let moved = now.values().filter(|home| **home == joined).count();
        let part = moved as f64 / all as f64;
        assert!((part - share).abs() < 0.12, "{part} at {share}");
        last = now;
    }
    assert_eq!(last, after);
}

#[test]
fn retries_of_a_key_go_on_in_its_order() {
    let mut set = Set::new(unbounded(), 0..10);
    for key in keys(200) {
        let first = set.send(&route(&key)).endpoint().clone();
        let avoiding = route(&key).avoid(&first);
        let second = set.send(&avoiding).endpoint().clone();
        let home = set.named(&first.stable_name());
        home.refuse();
        assert_eq!(*set.send(&route(&key)).endpoint(), second);
        home.accept();
        let neither = avoiding.avoid(&second);
        let third = set.send(&neither).endpoint().clone();
        assert!(third != first && third != second);
    }
}

#[test]
fn an_avoided_endpoint_gets_a_key_only_if_no_other_takes_it() {
    for setting in [Setting::from(unbounded()), half_near(unbounded())] {
        let mut set = Set::new(setting, 0..3);
        for avoided in 0..3 {
            let home = set.members()[avoided].endpoint().clone();
            let avoiding = |key: &str| route(key).avoid(&home);
            for key in keys(100) {
                assert_ne!(*set.send(&avoiding(&key)).endpoint(), home);
            }
            let members = set.members();
            let others = (0..3).filter(|&at| at != avoided);
            others.clone().for_each(|at| assert!(members[at].refuse()));
            assert_eq!(*set.send(&avoiding("any")).endpoint(), home);
            others.for_each(|at| assert!(members[at].accept()));
        }
    }
}

#[test]
fn an_ejected_endpoint_is_tried_with_its_own_keys() {
    let mut set = Set::new(unbounded(), 0..5);
    let before = set.homes(200);
    let home = before["user-0"].clone();
    let member = set.named(&home);
    member.eject();
    member.offer_trial();
    for key in keys(200).filter(|key| before[key] != home) {
        assert_eq!(set.home(&key), before[&key]);
    }
    assert!(member.has_trial());
    assert_eq!(set.home("user-0"), home);
    assert!(!member.has_trial(), "it is taken");
    assert_ne!(set.home("user-0"), home);
}

/// Requests of the other endpoint's keys may never come.
#[test]
fn if_nothing_is_left_a_key_tries_an_endpoint_that_is_not_its_own() {
    let mut set = Set::of_endpoints(unbounded(), stateful([(0, 0), (1, 1)]));
    let members = set.members();
    let key = keys(100).find(|key| set.home(key) == "web-0");
    let route = route(&key.expect("one of many"));
    for member in &members {
        member.refuse();
    }
    let snapshot = set.current.load_full();
    assert!(snapshot.pick_routed(&route, &mut set.rng).is_none());
    set.named("web-1").offer_trial();
    let told = snapshot.key_order(route.requested_key().expect("it has one").clone());
    assert_eq!(told.expect("a ring").chosen, Some(1));
    let picked = snapshot.pick_routed(&route, &mut set.rng).expect("a trial");
    assert!(picked.in_flight.is_trial());
    assert_eq!(set.index(&picked.in_flight), 1);
    assert!(snapshot.pick_routed(&route, &mut set.rng).is_none());
}

#[test]
fn if_all_are_ejected_keys_stay_at_home() {
    let mut set = Set::new(unbounded(), 0..5);
    let before = set.homes(200);
    for member in set.members() {
        member.eject();
    }
    assert_eq!(set.homes(200), before);
}

#[test]
fn a_set_whose_ring_is_nearly_all_out_keeps_keys_together() {
    let mut set = Set::new(unbounded(), 0..200);
    let members = set.members();
    for member in &members[3..] {
        member.refuse();
    }
    let before = set.homes(300);
    assert_eq!(set.homes(300), before);
    let homes: BTreeSet<_> = before.values().collect();
    assert_eq!(homes.len(), 3);
    members[0].refuse();
    let moved = set.homes(300);
    let gone = members[0].endpoint().stable_name().into_owned();
    assert!(moves(&before, &moved).iter().all(|&(home, _)| home == gone));
}

#[test]
fn the_keys_of_a_heavy_endpoint_are_shared_by_weight() {
    let weights = [1_000_000, 1, 3, 0];
    let pods = (0..)
        .zip(weights)
        .map(|(host, weight)| endpoint(host).with_weight(weight));
    let mut set = Set::of_endpoints(unbounded(), pods.collect());
    let members = set.members();
    // So heavy that the others have hardly any points on the ring.
    members[0].refuse();
    let mut shares = [0; 4];
    for key in keys(2_000) {
        let request = set.send(&route(&key));
        shares[set.index(&request)] += 1;
    }
    assert_eq!([shares[0], shares[3]], [0; 2]);
    assert!((420..580).contains(&shares[1]), "{shares:?}");
    members[1].refuse();
    members[2].refuse();
    assert_eq!(set.home("any"), members[3].endpoint().stable_name());
}

/// A keyed policy that doesn't say that it isn't load-aware.
struct Modulo;

impl Policy for Modulo {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(Modulo)
    }
}

impl Picker for Modulo {
    fn pick(&self, members: &Members, route: &Route, _: &mut dyn Rng) -> Option<usize> {
        let key = route.requested_key()?;
        Some(key.stable_hash() as usize % members.len())
    }

    fn is_keyed(&self, route: &Route) -> bool {
        route.requested_key().is_some()
    }
}

#[test]
fn the_balancer_leaves_the_choice_to_a_keyed_picker() {
    let mut set = Set::new(Modulo, 0..4);
    let before = set.homes(100);
    let first = set.members()[0].clone();
    first.set_slow_start_share(0.5);
    first.signals().set_slow_start(true);
    assert_eq!(set.homes(100), before);
    for key in keys(100) {
        let avoiding = route(&key).avoid(first.endpoint());
        let endpoint = set.send(&avoiding).endpoint().clone();
        assert_eq!(endpoint.stable_name(), before[&key]);
    }
}

#[test]
fn more_spill_moves_no_other_key() {
    // 16 of 36 pods are near, all of one zone of two.
    let pods = |near: u32, all: u32| -> Vec<Endpoint> {
        let pod = |host: u32| {
            let zone = if host < near { "near" } else { "far" };
            endpoint(host).with_zone(zone).with_zone_hints([zone])
        };
        (0..all).map(pod).collect()
    };
    let mut setting = Setting::from(unbounded());
    setting.locality.zone("near");
    let mut set = Set::of_endpoints(setting, pods(16, 36));
    let is_near = |name: &str, set: &Set| set.named(name).endpoint().zone() == Some("near");
    let before = set.homes(2_000);
    let stay = before.values().filter(|home| is_near(home, &set)).count();
    // 16 ÷ 36 × 2.
    assert!((stay as f64 / 2_000.0 - 0.889).abs() < 0.03, "{stay}");
    let gone = set.members()[0].clone();
    gone.refuse();
    let after = set.homes(2_000);
    let of_gone = gone.endpoint().stable_name().into_owned();
    let mut spilled = 0;
    for (home, other) in moves(&before, &after) {
        spilled += usize::from(is_near(home, &set) && !is_near(other, &set));
        assert!(home == of_gone || is_near(home, &set) && !is_near(other, &set));
    }
    // From 16 ÷ 36 × 2 to 15 ÷ 35 × 2 is 0.032.
    assert!((20..120).contains(&spilled), "{spilled}");
    gone.accept();
    assert_eq!(set.homes(2_000), before);
}
