//! Weights under every policy.

use super::*;

/// Pearson's chi-square statistic against shares in proportion to weights.
fn chi_square_against(shares: &[u32], weights: &[u32]) -> f64 {
    let all = f64::from(shares.iter().sum::<u32>()) / f64::from(weights.iter().sum::<u32>());
    let deviation = |(&share, &weight): (&u32, &u32)| {
        let expected = all * f64::from(weight);
        (f64::from(share) - expected).powi(2) / expected
    };
    shares.iter().zip(weights).map(deviation).sum()
}

/// Pods number 0, 1, … with these weights.
fn weighted(weights: impl IntoIterator<Item = u32>) -> Vec<Endpoint> {
    let pods = (0..).zip(weights);
    pods.map(|(host, weight)| endpoint(host).with_weight(weight))
        .collect()
}

const WEIGHTS: [u32; 10] = [1, 1, 2, 3, 5, 8, 10, 10, 4, 6];

pub(super) fn shares_are_in_proportion_to_weights(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..10);
    // Weights that become known later, for a set that is there.
    set.publish(weighted(WEIGHTS));
    let shares = set.shares(50_000);
    assert!(
        chi_square_against(&shares, &WEIGHTS) < CHI_SQUARE_9,
        "{shares:?}"
    );
    set.publish(weighted([7; 10]));
    let shares = set.shares(50_000);
    assert!(chi_square(&shares) < CHI_SQUARE_9, "{shares:?}");
}

pub(super) fn shares_in_large_sets_are_in_proportion_to_weights(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, []);
    set.publish(weighted((0..300).map(|host| host / 2 % 10 + 1)));
    let shares = set.shares(50_000);
    let by_weight = (0..10).map(|weight| {
        let hosts = (0..300).filter(|host| host / 2 % 10 == weight);
        hosts.map(|host| shares[host]).sum()
    });
    let by_weight: Vec<_> = by_weight.collect();
    let expected: Vec<_> = (1..=10).collect();
    assert!(
        chi_square_against(&by_weight, &expected) < CHI_SQUARE_9,
        "{by_weight:?}"
    );
}

pub(super) fn the_share_of_unreachable_endpoints_goes_to_the_others_by_weight(
    policy: impl Into<Setting>,
) {
    let mut set = Set::new(policy, []);
    set.publish(weighted(WEIGHTS.into_iter().chain([20, 1, 0, 9, 10])));
    for member in set.members().iter().skip(10) {
        member.eject();
    }
    let shares = set.shares(50_000);
    assert_eq!(shares[10..], [0; 5]);
    assert!(
        chi_square_against(&shares[..10], &WEIGHTS) < CHI_SQUARE_9,
        "{shares:?}"
    );
}

pub(super) fn endpoints_without_weight_are_the_last_resort(policy: impl Into<Setting>) {
    let policy = policy.into();
    for len in [2, 10, 100, 600] {
        let mut set = Set::new(policy.clone(), []);
        set.publish(weighted((0..len).map(|host| u32::from(host < 2))));
        let members = set.members();
        for _ in 0..100 {
            let request = set.pick().expect("an endpoint");
            assert!(set.index(&request) < 2, "of {len}");
        }
        members[0].refuse();
        for _ in 0..100 {
            let request = set.pick().expect("an endpoint");
            assert_eq!(set.index(&request), 1, "of {len}");
        }
        members[1].refuse();
        assert_eq!(set.pick().is_some(), len > 2, "of {len}");
    }
    let mut set = Set::new(policy, []);
    set.publish(weighted([0; 10]));
    assert!(chi_square(&set.shares(10_000)) < CHI_SQUARE_9);
}

/// Of 5,000 running requests, each of 50 units of weight has 100, give or take `within`.
fn loads_are_in_proportion_to_weights(policy: impl Policy, within: f64) {
    let mut set = Set::new(policy, []);
    set.publish(weighted(WEIGHTS));
    let pick = |_| set.pick().expect("an endpoint");
    let _running: Vec<_> = (0..5_000).map(pick).collect();
    for (member, weight) in set.members().into_iter().zip(WEIGHTS) {
        let load = f64::from(member.in_flight()) / f64::from(weight);
        assert!((load - 100.0).abs() <= within, "{load} of {weight}");
    }
}

#[test]
fn requests_in_flight_are_in_proportion_to_weights() {
    loads_are_in_proportion_to_weights(LeastConnections::new(), 1.0);
    loads_are_in_proportion_to_weights(PowerOfTwo::new(), 5.0);
    loads_are_in_proportion_to_weights(PeakEwma::new(), 5.0);
}

#[test]
fn retries_go_only_to_endpoints_with_weight() {
    let mut set = Set::new(RoundRobin::new(), []);
    set.publish(weighted([1, 0, 1]));
    let snapshot = set.current.load_full();
    let mut again = |avoid: &[u32]| {
        let route = avoid
            .iter()
            .fold(Route::new(), |route, &host| route.avoid(&endpoint(host)));
        let picked = snapshot.pick_routed(&route, &mut set.rng)?;
        Some(picked.in_flight.endpoint().address())
    };
    for _ in 0..20 {
        assert_eq!(again(&[0]), Some(endpoint(2).address()));
        assert_eq!(again(&[0, 2]), Some(endpoint(1).address()));
    }
    assert!(again(&[0, 1, 2]).is_some(), "better than nobody");
}

/// The shares of one round in which the set is published again, and the expected ones. One endpoint is out.
fn shares_around_an_update(
    weights: Vec<u32>,
    out: usize,
    start: usize,
    update: usize,
) -> (Vec<u32>, Vec<u32>) {
    let mut set = Set::new(RoundRobin::new(), []);
    set.publish(weighted(weights.clone()));
    let out = out % weights.len();
    set.members()[out].eject();
    set.shares(start);
    let left: usize = (weights.iter().sum::<u32>() - weights[out]) as usize;
    let mut shares = set.shares(update % left);
    // A change that isn't about weights.
    let zoned = weighted(weights.clone())
        .into_iter()
        .map(|it| it.with_zone_hints(["z"]));
    set.publish(zoned.collect());
    let rest = set.shares(left - update % left);
    shares
        .iter_mut()
        .zip(rest)
        .for_each(|(share, rest)| *share += rest);
    let mut expected = weights;
    expected[out] = 0;
    (shares, expected)
}

/// Kept as a fraction of a round, the turn would come out one early.
#[test]
fn an_update_keeps_the_exact_turn() {
    let weights = vec![5, 2, 2, 2, 5, 7];
    for start in 0..100 {
        let (shares, expected) = shares_around_an_update(weights.clone(), 4, start, 3);
        assert_eq!(shares, expected, "{start}");
    }
}

proptest! {
    /// Each endpoint has its share of every round, whichever others are out. After an update the round goes on where it
    /// was.
    #[test]
    fn round_robin_keeps_weighted_turns(
        weights in prop::collection::vec(1..9_u32, 2..9),
        out in any::<usize>(),
        start in 0..50_usize,
        update in 0..50_usize,
    ) {
        let (shares, expected) = shares_around_an_update(weights, out, start, update);
        prop_assert_eq!(shares, expected);
    }
}

/// A request for it may never come.
#[test]
fn an_endpoint_without_weight_is_tried_if_nothing_else_is_left() {
    let mut set = Set::new(RoundRobin::new(), []);
    set.publish(weighted([1, 0]));
    let members = set.members();
    for member in &members {
        member.refuse();
    }
    members[1].offer_trial();
    assert_eq!(set.pick().map(|picked| set.index(&picked)), Some(1));
    members[0].accept();
    members[1].offer_trial();
    for _ in 0..10 {
        assert_eq!(set.pick().map(|picked| set.index(&picked)), Some(0));
    }
    assert!(members[1].has_trial());
}
