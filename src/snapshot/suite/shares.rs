//! The shares that are computed for `explain`, compared with actual picks.

use super::*;

/// How many picks the shares are compared with.
const PICKS: u32 = 40_000;

/// The state of one endpoint.
#[derive(Clone, Debug)]
struct Pod {
    weight: u32,
    running: u32,
    millis: u64,
    /// 0: ejected; 1: refuses; otherwise well.
    standing: u8,
    /// In tenths.
    slow_start_share: u8,
}

fn pods(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Pod>> {
    let weight = prop_oneof![Just(1), 0..5_u32];
    let running = prop_oneof![Just(0), 0..6_u32];
    let slow_start_share = prop_oneof![4 => Just(10), 1 => 1..10_u8];
    let pod = (weight, running, 0..9_u64, 0..8_u8, slow_start_share);
    let pod = pod.prop_map(
        |(weight, running, millis, standing, slow_start_share)| Pod {
            weight,
            running,
            millis,
            standing,
            slow_start_share,
        },
    );
    prop::collection::vec(pod, len)
}

/// A set of these pods, and the requests that run there.
fn set_of(setting: Setting, pods: &[Pod], millis: bool) -> (Set, Vec<InFlight>) {
    let mut set = Set::new(setting, []);
    let weighted = (0..).zip(pods);
    let weighted = weighted.map(|(host, pod)| endpoint(host).with_weight(pod.weight));
    set.publish(weighted.collect());
    let members = set.members();
    if millis {
        learn(
            &members,
            &pods.iter().map(|pod| pod.millis).collect::<Vec<_>>(),
        );
    }
    let mut running = Vec::new();
    for (member, pod) in members.iter().zip(pods) {
        for _ in 0..pod.running {
            assert!(member.begin());
            running.push(InFlight::new(member, false));
        }
        match pod.standing {
            0 => drop(member.eject()),
            1 => drop(member.refuse()),
            _ => {}
        }
        member.set_slow_start_share(f64::from(pod.slow_start_share) / 10.0);
        member.signals().set_slow_start(true);
    }
    set.current.load().recount();
    (set, running)
}

/// Compares the computed shares with picks whose requests end at once. `slack` allows for a policy's fixed order of
/// turns.
fn check(set: &mut Set, mut route: impl FnMut(u32) -> Route, slack: f64) -> Result<(), String> {
    let snapshot = set.current.load_full();
    let told = snapshot.shares().ok_or("nothing is told")?;
    let mut picked = vec![0; told.len()];
    let mut many = 0;
    for number in 0..PICKS {
        let Some(it) = snapshot.pick_routed(&route(number), &mut set.rng) else {
            continue;
        };
        let index = set.index(&it.in_flight);
        picked[index] += 1;
        many += 1;
    }
    for (index, (&told, &picked)) in told.iter().zip(&picked).enumerate() {
        if many == 0 {
            // No endpoint gets any.
            return if told == 0.0 {
                Ok(())
            } else {
                Err(format!("{told}"))
            };
        }
        let frequency = f64::from(picked) / f64::from(many);
        // Five standard deviations of the count, and one draw.
        let deviation = (told * (1.0 - told).max(0.0) / f64::from(many)).sqrt();
        let tolerance = 5.0 * deviation + slack + 1.0 / f64::from(many);
        if (told - frequency).abs() > tolerance {
            return Err(format!("{index}: told {told}, picked {frequency}"));
        }
    }
    let all: f64 = told.iter().sum();
    match (all - 1.0).abs() < 1e-6 {
        true => Ok(()),
        false => Err(format!("{all} in all")),
    }
}

fn holds(
    setting: impl Into<Setting>,
    pods: &[Pod],
    millis: bool,
    slack: f64,
) -> Result<(), TestCaseError> {
    let (mut set, _running) = set_of(setting.into(), pods, millis);
    let told = check(&mut set, |_| Route::new(), slack);
    told.map_err(TestCaseError::fail)
}

/// Without trials, which are for one request only.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(24)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn shares_of_random_match_its_picks(pods in pods(1..9), near in any::<bool>()) {
        let policy = Random::new();
        if near { holds(half_near(policy), &pods, false, 0.0)? } else { holds(policy, &pods, false, 0.0)? }
    }

    /// An approximation if endpoints are new: their turns are skipped at random, but the order is fixed.
    #[test]
    fn shares_of_round_robin_match_its_picks(pods in pods(1..9), near in any::<bool>()) {
        let policy = RoundRobin::new();
        if near { holds(half_near(policy), &pods, false, 0.01)? } else { holds(policy, &pods, false, 0.01)? }
    }

    #[test]
    fn shares_of_power_of_two_match_its_picks(pods in pods(1..9), near in any::<bool>()) {
        let policy = PowerOfTwo::new();
        if near { holds(half_near(policy), &pods, false, 0.0)? } else { holds(policy, &pods, false, 0.0)? }
    }

    #[test]
    fn shares_of_peak_ewma_match_its_picks(pods in pods(1..9), near in any::<bool>(), millis in any::<bool>()) {
        let policy = PeakEwma::new();
        if near { holds(half_near(policy), &pods, millis, 0.0)? } else { holds(policy, &pods, millis, 0.0)? }
    }

    #[test]
    fn shares_of_least_connections_match_its_picks(pods in pods(1..9), near in any::<bool>()) {
        let policy = LeastConnections::new();
        if near { holds(half_near(policy), &pods, false, 0.0)? } else { holds(policy, &pods, false, 0.0)? }
    }

    #[test]
    fn shares_of_a_policy_from_outside_match_its_picks(
        pods in pods(1..9), near in any::<bool>(), policy in 0..4_u8, keyed in any::<bool>(),
    ) {
        let (setting, slack) = match policy {
            0 => (outside(PowerOfTwo::new()), 0.0),
            1 => (outside(LeastConnections::new()), 0.0),
            2 => (outside(RoundRobin::new()), 0.01),
            _ => (outside(ConsistentHash::new()), 0.005),
        };
        let setting = if near { half_near(setting) } else { setting };
        let (mut set, _running) = set_of(setting, &pods, false);
        let keyed = keyed || policy == 3;
        let route = |number| match keyed {
            true => Route::new().key(format!("user-{number}").as_str()),
            false => Route::new(),
        };
        check(&mut set, route, slack).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn shares_of_consistent_hash_match_its_picks(
        pods in pods(1..9), near in any::<bool>(), factor in prop::option::of(1.0..2.0_f64),
    ) {
        let policy = ConsistentHash::new().load_factor(factor);
        let setting = if near { half_near(policy) } else { policy.into() };
        let (mut set, _running) = set_of(setting, &pods, false);
        let told = check(&mut set, |number| Route::new().key(format!("user-{number}").as_str()), 0.005);
        told.map_err(TestCaseError::fail)?;
    }
}

/// In a part of the set whose weights are alike, even at zero, picks go by load as if there were no weights.
#[test]
fn shares_of_near_endpoints_without_weight_match_their_picks() {
    let near = |host: u32| Pod {
        weight: 0,
        running: host,
        millis: 5 + u64::from(host),
        standing: 2,
        slow_start_share: 10,
    };
    let far = Pod {
        weight: 1,
        standing: 0,
        ..near(0)
    };
    let pods = [near(0), far.clone(), near(1), far, near(2)];
    holds(half_near(Random::new()), &pods, false, 0.0).expect("random");
    holds(half_near(LeastConnections::new()), &pods, false, 0.0).expect("least connections");
    holds(half_near(PowerOfTwo::new()), &pods, false, 0.0).expect("power of two");
    holds(half_near(PeakEwma::new()), &pods, true, 0.0).expect("peak EWMA");
    let wrapped = outside(LeastConnections::new());
    holds(half_near(wrapped), &pods, false, 0.0).expect("wrapped");
    let (set, _running) = set_of(half_near(LeastConnections::new()), &pods, false);
    let told = set.current.load().shares();
    assert_eq!(told, Some(vec![1.0, 0.0, 0.0, 0.0, 0.0]));
}

/// More endpoints than a scan reads: some are out, and loads differ.
fn many(len: usize) -> Vec<Pod> {
    let pod = |host: usize| Pod {
        weight: 1,
        running: (host % 7 % 3) as u32,
        millis: 0,
        standing: u8::from(!host.is_multiple_of(5)) * 2,
        slow_start_share: 10,
    };
    (0..len).map(pod).collect()
}

#[test]
fn shares_of_least_connections_match_its_picks_in_large_sets() {
    let policy = LeastConnections::new();
    let mut pods = many(300);
    holds(policy, &pods, false, 0.0).expect("alike");
    for (host, pod) in pods.iter_mut().enumerate() {
        pod.weight = (host % 4) as u32;
    }
    holds(policy, &pods, false, 0.0).expect("by weight");
    let (set, _running) = set_of(policy.into(), &many(1_100), false);
    let told = set.current.load().shares();
    assert_eq!(told, None, "too many samples");
}

/// Half of the pods are new, and the old ones are at their bounds. So each of the others takes only a part of the keys,
/// and walks are long.
#[test]
fn the_walk_for_shares_of_keys_is_bounded() {
    let pod = |host: usize| Pod {
        weight: 1,
        running: if host.is_multiple_of(2) { 4 } else { 0 },
        millis: 0,
        standing: 2,
        slow_start_share: if host.is_multiple_of(2) { 10 } else { 1 },
    };
    let pods: Vec<_> = (0..300).map(pod).collect();
    let (mut set, _running) = set_of(ConsistentHash::new().into(), &pods, false);
    let snapshot = set.current.load_full();
    // The walk counts its steps itself.
    let old = snapshot.shares().expect("told").into_iter().step_by(2);
    let old = old.sum::<f64>();
    assert!(old < 1e-6, "{old}: they are full");
    let route = |number| Route::new().key(format!("user-{number}").as_str());
    check(&mut set, route, 0.0).expect("as told");
}

#[test]
fn a_ring_that_is_too_large_is_not_walked() {
    let mut pods = many(2_100);
    for pod in &mut pods {
        (pod.running, pod.standing) = (0, 2);
    }
    let (set, _running) = set_of(ConsistentHash::new().into(), &pods, false);
    let snapshot = set.current.load_full();
    let homes = snapshot.key_homes().expect("a ring");
    let homes: Vec<_> = homes.into_iter().map(|home| home.0).collect();
    assert_eq!(snapshot.shares(), Some(homes), "nothing is wrong");
    assert!(snapshot.members()[7].refuse());
    assert_eq!(snapshot.shares(), None);
}

#[test]
fn keys_that_leave_the_ring_are_raced_for() {
    let mut pods = many(6);
    for (host, pod) in pods.iter_mut().enumerate() {
        (pod.running, pod.standing) = (0, 2);
        pod.weight = [1_000_000, 1, 3, 0, 1, 2][host];
    }
    // So heavy that the others have hardly any points on the ring.
    pods[0].standing = 1;
    let route = |number| Route::new().key(format!("user-{number}").as_str());
    let (mut set, _running) = set_of(ConsistentHash::new().into(), &pods, false);
    check(&mut set, route, 0.0).expect("as told");
    pods[5].standing = 1;
    pods[4].slow_start_share = 3;
    let (mut set, _running) = set_of(ConsistentHash::new().into(), &pods, false);
    check(&mut set, route, 0.0).expect("as told");
}

/// A pick leaves the ring after some points for each endpoint. Here three heavy endpoints, which are out, have most of
/// the points.
#[test]
fn the_order_of_a_key_goes_on_as_picks_do_where_they_leave_the_ring() {
    let mut pods = many(6);
    for (host, pod) in pods.iter_mut().enumerate() {
        pod.weight = [1, 200, 1, 300, 0, 1][host];
        (pod.running, pod.standing) = (0, if pod.weight > 1 { 0 } else { 2 });
    }
    let (mut set, _running) = set_of(ConsistentHash::new().into(), &pods, false);
    let mut left = 0;
    for number in 0..200_u64 {
        let snapshot = set.current.load_full();
        let told = snapshot.key_order(number.into()).expect("a ring").order;
        let picked = snapshot.pick_routed(&Route::new().key(number), &mut set.rng);
        let picked = picked.map(|it| set.index(&it.in_flight));
        let first = told.iter().find(|it| it.1.is_none()).map(|it| it.0);
        assert_eq!(first, picked, "{number}: {told:?}");
        assert_eq!(told[5].0, 4, "without weight");
        left += u32::from(told[..2].iter().all(|it| pods[it.0].weight > 1));
    }
    assert!(left > 100, "{left}");
}

/// They go by the ring alone, whatever the endpoints' state.
#[test]
fn key_homes_are_the_shares_of_a_healthy_set() {
    for setting in [
        ConsistentHash::new().into(),
        half_near(ConsistentHash::new()),
    ] {
        let mut pods = many(9);
        for (host, pod) in pods.iter_mut().enumerate() {
            (pod.running, pod.standing) = (0, 2);
            pod.weight = (host % 4) as u32;
        }
        let (well, _running) = set_of(setting.clone(), &pods, false);
        let shares = well.current.load().shares().expect("told");
        pods[5].slow_start_share = 3;
        pods[6].running = 9;
        let (bad, _running) = set_of(setting, &pods, false);
        let snapshot = bad.current.load();
        let homes = snapshot.key_homes().expect("a ring");
        for (index, (&(part, ranges), share)) in homes.iter().zip(&shares).enumerate() {
            assert!(
                (part - share).abs() < 1e-9,
                "{index}: {homes:?}, {shares:?}"
            );
            assert_eq!(ranges == 0, pods[index].weight == 0);
        }
        assert_ne!(snapshot.shares().expect("told"), shares);
        let moved = snapshot.shares().expect("told")[6];
        assert_eq!(moved, 0.0, "it has more than its part");
    }
    assert!(
        Set::new(RoundRobin::new(), 0..3)
            .current
            .load()
            .key_homes()
            .is_none()
    );
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn explain_key_names_the_endpoint_that_gets_the_key(pods in pods(1..9), near in any::<bool>()) {
        let policy = ConsistentHash::new();
        let setting = if near { half_near(policy) } else { policy.into() };
        let (mut set, _running) = set_of(setting, &pods, false);
        for number in 0..50_u64 {
            let snapshot = set.current.load_full();
            let told = snapshot.key_order(number.into()).expect("a ring");
            let order: BTreeSet<_> = told.order.iter().map(|it| it.0).collect();
            prop_assert_eq!(order.len(), pods.len(), "each of them once");
            let picked = snapshot.pick_routed(&Route::new().key(number), &mut set.rng);
            let picked = picked.map(|it| set.index(&it.in_flight));
            prop_assert_eq!(told.chosen, picked);
            let first = told.order.iter().find(|it| it.1.is_none());
            let is_raced = pods.iter().all(|pod| pod.weight == 0);
            // A key stays in its group, in which all endpoints may be too new to have it.
            if let Some(&(first, _)) = first && !is_raced && !near {
                prop_assert_eq!(Some(first), picked, "the first that nothing speaks against");
            }
        }
    }
}
