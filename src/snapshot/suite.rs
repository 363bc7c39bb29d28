//! What every policy promises, tested for each policy, alone and over near and far endpoints; and each policy against a
//! naive model.

mod keyed;
mod locality;
mod routed;
mod shares;
mod slow_start;
mod weights;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use super::{Current, Writer};
use crate::{
    endpoint::Endpoint,
    in_flight::InFlight,
    locality::{LocalityPreference, Proximities},
    member::{Member, Members},
    outcome::Outcome,
    policy::{
        AnyPolicy, ConsistentHash, LeastConnections, PeakEwma, Picker, Policy, PowerOfTwo,
        Previous, Random, RoundRobin,
    },
    route::Route,
    signals::Signals,
};

use slow_start::{
    a_new_endpoint_gets_its_slow_start_share, if_all_endpoints_are_new_all_are_picked,
};
use weights::{
    endpoints_without_weight_are_the_last_resort, shares_are_in_proportion_to_weights,
    shares_in_large_sets_are_in_proportion_to_weights,
    the_share_of_unreachable_endpoints_goes_to_the_others_by_weight,
};

/// A set of endpoints under a policy, without a balancer.
struct Set {
    writer: Writer<fn(&Endpoint)>,
    current: Current<()>,
    rng: SmallRng,
}

/// A policy, and the locality preference that it is tested with.
#[derive(Clone)]
struct Setting {
    policy: AnyPolicy,
    locality: LocalityPreference,
    is_load_aware: bool,
}

impl<P: Policy> From<P> for Setting {
    fn from(policy: P) -> Self {
        let policy = AnyPolicy::new(policy);
        let set = Set::of(&policy, LocalityPreference::default());
        let is_load_aware = set.current.load().pickers.whole.is_load_aware();
        Self {
            policy,
            locality: LocalityPreference::default(),
            is_load_aware,
        }
    }
}

/// A policy from outside that wraps one of this crate's.
struct Outside<P>(P);

/// A built-in policy, wrapped as another crate would.
fn outside<P: Policy + Clone>(policy: P) -> Setting {
    let is_load_aware = Setting::from(policy.clone()).is_load_aware;
    let setting = Setting::from(Outside(policy));
    Setting {
        is_load_aware,
        ..setting
    }
}

impl<P: Policy> Policy for Outside<P> {
    fn prepare(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        rng: &mut dyn Rng,
    ) -> Box<dyn Picker> {
        let previous = previous.and_then(|previous| {
            let before = previous.picker::<Outside<Box<dyn Picker>>>()?;
            Some(previous.within(&*before.0))
        });
        Box::new(Outside(self.0.prepare(members, previous, rng)))
    }

    fn latency_decay(&self) -> Option<Duration> {
        self.0.latency_decay()
    }
}

impl Picker for Outside<Box<dyn Picker>> {
    fn pick(&self, members: &Members, route: &Route, rng: &mut dyn Rng) -> Option<usize> {
        self.0.pick(members, route, rng)
    }

    fn is_load_aware(&self) -> bool {
        self.0.is_load_aware()
    }

    fn is_keyed(&self, route: &Route) -> bool {
        self.0.is_keyed(route)
    }

    fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        self.0.shares(members)
    }
}

/// `policy` with half of the endpoints near. Only one zone is known, so the near ones' share is in proportion to their
/// number, and all shares are fair.
fn half_near(policy: impl Into<Setting>) -> Setting {
    let mut setting = policy.into();
    setting.locality.prefer_zone("near");
    setting
}

/// The endpoint of pod number `host`; every other one is in the zone "near".
fn endpoint(host: u32) -> Endpoint {
    let [_, b, c, d] = host.to_be_bytes();
    let endpoint = Endpoint::new(([10, b, c, d], 80).into());
    if host.is_multiple_of(2) {
        endpoint.with_zone("near")
    } else {
        endpoint
    }
}

impl Set {
    fn new(setting: impl Into<Setting>, hosts: impl IntoIterator<Item = u32>) -> Self {
        let setting = setting.into();
        let mut set = Self::of(&setting.policy, setting.locality);
        set.update(hosts);
        set
    }

    fn of(policy: &AnyPolicy, locality: LocalityPreference) -> Self {
        let mut rng = SmallRng::seed_from_u64(42);
        let signals = Signals::new(tokio::time::Instant::now());
        let signals = Arc::new(signals.reviewed(None));
        let make = (|_| ()) as fn(&Endpoint);
        let (writer, current) = Writer::new(policy.clone(), locality, make, signals, &mut rng);
        Self {
            writer,
            current,
            rng,
        }
    }

    fn update(&mut self, hosts: impl IntoIterator<Item = u32>) {
        self.publish(hosts.into_iter().map(endpoint).collect());
    }

    fn publish(&mut self, set: Vec<Endpoint>) {
        self.writer
            .replace(&self.current, set, Proximities::Look, &mut self.rng);
    }

    fn members(&self) -> Vec<Arc<Member>> {
        let snapshot = self.current.load();
        snapshot.members().to_vec()
    }

    /// Picks an endpoint, whose request runs until it is dropped.
    fn pick(&mut self) -> Option<InFlight> {
        let snapshot = self.current.load();
        // The background task does this whenever an endpoint refuses or accepts.
        snapshot.recount();
        Some(snapshot.pick(&Route::new(), &mut self.rng)?.in_flight)
    }

    /// The index of the endpoint that has a request.
    fn index(&self, request: &InFlight) -> usize {
        let address = request.endpoint().address();
        let snapshot = self.current.load();
        let index = snapshot
            .endpoints()
            .binary_search_by_key(&address, Endpoint::address);
        index.expect("one of the set")
    }

    /// Picks `times` times, each request ending at once, and counts the picks of each endpoint.
    fn shares(&mut self, times: usize) -> Vec<u32> {
        let mut shares = vec![0; self.members().len()];
        for _ in 0..times {
            let request = self.pick().expect("an endpoint");
            shares[self.index(&request)] += 1;
        }
        shares
    }
}

/// Pearson's chi-square statistic against equal shares.
fn chi_square(shares: &[u32]) -> f64 {
    let expected = f64::from(shares.iter().sum::<u32>()) / shares.len() as f64;
    let deviation = |&share| (f64::from(share) - expected).powi(2) / expected;
    shares.iter().map(deviation).sum()
}

/// The 99.9 % quantile of chi-square with 9 degrees of freedom (NIST/SEMATECH e-Handbook, §1.3.6.7.4).
const CHI_SQUARE_9: f64 = 27.877;

fn shares_are_fair(policy: impl Into<Setting>) {
    let shares = Set::new(policy, 0..10).shares(50_000);
    assert!(chi_square(&shares) < CHI_SQUARE_9, "{shares:?}");
}

fn empty_sets_have_nothing_to_pick(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, []);
    assert!(set.pick().is_none());
    set.update([1]);
    assert!(set.pick().is_some());
    set.update([]);
    assert!(set.pick().is_none());
}

/// Sets of several sizes in which only the first endpoint is not out, so that it gets all requests.
fn with_one_left(policy: impl Into<Setting>, goes_out: fn(&Member)) -> impl Iterator<Item = Set> {
    let policy = policy.into();
    [2, 10, 100, 600].into_iter().map(move |len| {
        let mut set = Set::new(policy.clone(), 0..len);
        set.members().iter().skip(1).for_each(|it| goes_out(it));
        for _ in 0..100 {
            let request = set.pick().expect("one is left");
            assert_eq!(set.index(&request), 0, "of {len}");
        }
        set
    })
}

fn unreachable_endpoints_are_never_picked(policy: impl Into<Setting>) {
    let refuses = |member: &Member| _ = member.refuse();
    for mut set in with_one_left(policy, refuses) {
        let members = set.members();
        let len = members.len();
        members[0].refuse();
        assert!(set.pick().is_none(), "none of {len} is left");
        members[1].accept();
        let request = set.pick().expect("one is back");
        assert_eq!(set.index(&request), 1);
    }
}

fn ejected_endpoints_are_picked_only_if_no_other_is_left(policy: impl Into<Setting>) {
    let is_ejected = |member: &Member| _ = member.eject();
    for mut set in with_one_left(policy, is_ejected) {
        let members = set.members();
        let len = members.len();
        members[1].readmit();
        let (first, second) = (&members[0], &members[1]);
        first.eject();
        let request = set.pick().expect("one is back");
        assert_eq!(set.index(&request), 1, "of {len}");
        // A bad endpoint is better than none.
        second.eject();
        assert!(set.pick().is_some(), "all of {len} are ejected");
        second.refuse();
        let request = set.pick().expect("an ejected one");
        assert_ne!(set.index(&request), 1, "it refuses");
    }
}

fn the_share_of_unreachable_endpoints_goes_evenly_to_the_others(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..15);
    for member in set.members().iter().skip(10) {
        member.refuse();
    }
    let shares = set.shares(50_000);
    assert_eq!(shares[10..], [0; 5]);
    assert!(chi_square(&shares[..10]) < CHI_SQUARE_9, "{shares:?}");
}

fn a_request_is_in_flight_from_its_pick_to_its_end(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..5);
    let picked: Vec<_> = (0..50).map(|_| set.pick().expect("an endpoint")).collect();
    let in_flight = |set: &Set| {
        set.members()
            .iter()
            .map(|member| member.in_flight())
            .sum::<u32>()
    };
    assert_eq!(in_flight(&set), 50);
    drop(picked);
    assert_eq!(in_flight(&set), 0);
}

fn an_update_is_seen_by_the_next_pick(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..3);
    set.update(3..6);
    let hosts: BTreeSet<_> = (0..100)
        .map(|_| set.pick().expect("an endpoint").endpoint().clone())
        .collect();
    assert_eq!(hosts, (3..6).map(endpoint).collect());
}

fn a_trial_goes_to_one_request(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..5);
    let members = set.members();
    members[2].refuse();
    members[2].offer_trial();
    let picked: Vec<_> = (0..50).map(|_| set.pick().expect("an endpoint")).collect();
    let trials = picked.iter().filter(|request| set.index(request) == 2);
    assert_eq!(trials.count(), 1);
}

fn an_endpoint_that_fails_fast_looks_busy_for_a_while(policy: impl Into<Setting>) {
    let setting = policy.into();
    let counts = setting.is_load_aware;
    let mut set = Set::new(setting, [0, 2]);
    let mut request = set.pick().expect("an endpoint");
    let at = set.index(&request);
    request.report(Outcome::Overload);
    drop(request);
    let shares = set.shares(20);
    assert_eq!(shares[at] == 0, counts, "{shares:?}");
    let member = &set.members()[at];
    assert_eq!(member.in_flight(), 0);
    // The background task does this after a while.
    member.stats().forget_penalties(1);
    member.end_all(1);
    assert!(set.shares(20)[at] > 0);
}

macro_rules! suite {
    ($($module:ident: $policy:expr;)*) => {$(
        mod $module {
            use super::*;

            suite!(@tests $policy;
                shares_are_fair,
                shares_are_in_proportion_to_weights,
                shares_in_large_sets_are_in_proportion_to_weights,
                the_share_of_unreachable_endpoints_goes_to_the_others_by_weight,
                endpoints_without_weight_are_the_last_resort,
                empty_sets_have_nothing_to_pick,
                unreachable_endpoints_are_never_picked,
                ejected_endpoints_are_picked_only_if_no_other_is_left,
                the_share_of_unreachable_endpoints_goes_evenly_to_the_others,
                a_request_is_in_flight_from_its_pick_to_its_end,
                an_update_is_seen_by_the_next_pick,
                a_trial_goes_to_one_request,
                an_endpoint_that_fails_fast_looks_busy_for_a_while,
                a_new_endpoint_gets_its_slow_start_share,
                if_all_endpoints_are_new_all_are_picked,
            );
        }
    )*};
    (@tests $policy:expr; $($test:ident,)*) => {$(
        #[test]
        fn $test() {
            super::$test($policy);
        }
    )*};
}

suite! {
    round_robin: RoundRobin::new();
    random: Random::new();
    least_connections: LeastConnections::new();
    power_of_two: PowerOfTwo::new();
    peak_ewma: PeakEwma::new();
    consistent_hash: ConsistentHash::new();
    outside_round_robin: outside(RoundRobin::new());
    outside_least_connections: outside(LeastConnections::new());
    outside_peak_ewma: outside(PeakEwma::new());
    outside_consistent_hash: outside(ConsistentHash::new());
    outside_near_least_connections: half_near(outside(LeastConnections::new()));
    near_round_robin: half_near(RoundRobin::new());
    near_random: half_near(Random::new());
    near_least_connections: half_near(LeastConnections::new());
    near_power_of_two: half_near(PowerOfTwo::new());
    near_peak_ewma: half_near(PeakEwma::new());
    near_consistent_hash: half_near(ConsistentHash::new());
}

#[test]
fn least_connections_breaks_ties_uniformly() {
    // Ties at both ends and in the middle, over three lines of words.
    let tied = [0, 1, 2, 15, 16, 20, 31, 32, 38, 39];
    let mut set = Set::new(LeastConnections::new(), 0..40);
    let requests: Vec<_> = (0..40).map(|_| set.pick().expect("an endpoint")).collect();
    let untied = |request: &InFlight| !tied.contains(&set.index(request));
    let _running: Vec<_> = requests.into_iter().filter(untied).collect();
    let shares = set.shares(50_000);
    let shares = tied.map(|index| shares[index]);
    assert!(chi_square(&shares) < CHI_SQUARE_9, "{shares:?}");
}

#[test]
fn least_connections_bounds_the_spread_of_requests_in_flight() {
    // (endpoints, requests that come and go, the largest spread: exact up to 256, by samples of 16 above)
    for (len, spread) in [(3, 1), (100, 1), (256, 1), (1000, 3)] {
        let mut set = Set::new(LeastConnections::new(), 0..len);
        let pick = |_| set.pick().expect("an endpoint");
        let _running: Vec<_> = (0..len * 10).map(pick).collect();
        let in_flight: Vec<_> = set
            .members()
            .iter()
            .map(|member| member.in_flight())
            .collect();
        let (min, max) = (in_flight.iter().min(), in_flight.iter().max());
        let seen = max.zip(min).map(|(max, min)| max - min);
        assert!(seen <= Some(spread), "{len} endpoints: {seen:?}");
    }
}

/// What may happen to a set between two picks.
#[derive(Clone, Debug)]
enum Step {
    Pick,
    End(usize),
    Refuse(usize),
    Accept(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Pick),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => any::<usize>().prop_map(Step::Accept),
    ];
    prop::collection::vec(step, 1..200)
}

/// Runs `steps` on a set and a naive model of it; `judge` decides for each pick whether it was right.
fn check_against_oracle(
    policy: impl Into<Setting>,
    len: u32,
    steps: Vec<Step>,
    mut judge: impl FnMut(&[(u32, bool)], usize) -> bool,
) -> Result<(), TestCaseError> {
    let mut set = Set::new(policy, 0..len);
    let members = set.members();
    let mut model = vec![(0_u32, true); members.len()];
    let mut running = Vec::new();
    for step in steps {
        match step {
            Step::Pick => {
                let picked = set.pick();
                prop_assert_eq!(picked.is_some(), model.iter().any(|&(_, up)| up));
                let Some(picked) = picked else { continue };
                let index = set.index(&picked);
                prop_assert!(model[index].1, "picked one that is out");
                prop_assert!(judge(&model, index), "picked {} of {:?}", index, model);
                model[index].0 += 1;
                running.push(picked);
            }
            Step::End(at) if !running.is_empty() => {
                let request = running.swap_remove(at % running.len());
                model[set.index(&request)].0 -= 1;
            }
            Step::End(_) => {}
            Step::Refuse(at) => {
                members[at % members.len()].refuse();
                model[at % members.len()].1 = false;
            }
            Step::Accept(at) => {
                members[at % members.len()].accept();
                model[at % members.len()].1 = true;
            }
        }
        let counted: Vec<_> = members.iter().map(|member| member.in_flight()).collect();
        prop_assert_eq!(
            counted,
            model.iter().map(|&(count, _)| count).collect::<Vec<_>>()
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_picks_any_that_is_available(len in 1..40_u32, steps in steps()) {
        check_against_oracle(Random::new(), len, steps, |_, _| true)?;
    }

    #[test]
    fn least_connections_picks_one_with_the_fewest(len in 1..40_u32, steps in steps()) {
        check_against_oracle(LeastConnections::new(), len, steps, |model, index| {
            let available = model.iter().filter(|&&(_, up)| up);
            available.map(|&(count, _)| count).min() == Some(model[index].0)
        })?;
    }

    #[test]
    fn power_of_two_picks_one_of_two(len in 2..40_u32, steps in steps()) {
        check_against_oracle(PowerOfTwo::new(), len, steps, picks_no_single_worst)?;
    }

    #[test]
    fn peak_ewma_picks_the_cheaper_of_two(millis in prop::collection::vec(0..50_u64, 2..20), ends in any::<u64>()) {
        let mut set = Set::new(PeakEwma::new(), 0..millis.len() as u32);
        let (members, mut running) = (set.members(), Vec::new());
        learn(&members, &millis);
        let mut ends = SmallRng::seed_from_u64(ends);
        for _ in 0..200 {
            let costs: Vec<_> = members.iter().zip(&millis).map(|(member, millis)| millis * u64::from(member.in_flight() + 1)).collect();
            let request = set.pick().expect("an endpoint");
            let picked = set.index(&request);
            let mut others = (0..costs.len()).filter(|&other| other != picked);
            // An endpoint of unknown latency may always be picked.
            prop_assert!(millis[picked] == 0 || others.any(|other| millis[other] == 0 || costs[other] >= costs[picked]));
            running.push(request);
            if ends.random() {
                running.swap_remove(ends.random_range(0..running.len()));
            }
        }
    }

    #[test]
    fn round_robin_picks_the_next_that_is_available(len in 1..40_u32, steps in steps()) {
        let mut last: Option<usize> = None;
        check_against_oracle(RoundRobin::new(), len, steps, |model, index| {
            let right = last.is_none_or(|last| {
                let after = (1..=model.len()).map(|step| (last + step) % model.len());
                after.into_iter().find(|&next| model[next].1) == Some(index)
            });
            last = Some(index);
            right
        })?;
    }

    #[test]
    fn round_robin_alternates_across_updates(seed in any::<u64>(), rounds in rounds()) {
        alternates(RoundRobin::new().into(), seed, rounds, |_, _| true)?;
    }

    #[test]
    fn round_robin_wrapped_by_another_policy_alternates_across_updates(seed in any::<u64>(), rounds in rounds()) {
        alternates(outside(RoundRobin::new()), seed, rounds, |_, _| true)?;
    }
}

/// Whether the pick may have been the better of two distinct endpoints: another available one has at least as many
/// requests, or there is no other.
fn picks_no_single_worst(model: &[(u32, bool)], picked: usize) -> bool {
    let mut others = (0..model.len()).filter(|&other| other != picked && model[other].1);
    others.clone().next().is_none() || others.any(|other| model[other].0 >= model[picked].0)
}

/// Has each endpoint answer once, after its number of milliseconds; not at all if that is zero.
fn learn(members: &[Arc<Member>], millis: &[u64]) {
    let now = tokio::time::Instant::now();
    for (member, &millis) in members
        .iter()
        .zip(millis)
        .filter(|(_, millis)| **millis > 0)
    {
        let latency = member.latency().expect("the policy asks for it");
        let (signals, after) = (member.signals(), Duration::from_millis(millis));
        latency.answered(after, signals.age(now), &signals.latencies);
    }
}

/// Sets of hosts, and how many requests each gets.
fn rounds() -> impl Strategy<Value = Vec<(BTreeSet<u32>, usize)>> {
    let hosts = prop::collection::btree_set(0..12_u32, 1..12);
    prop::collection::vec((hosts, 0..30_usize), 1..20)
}

/// Checks that of two endpoints that share turns, neither gets two requests before the other gets one, across updates
/// too.
fn alternates(
    setting: Setting,
    seed: u64,
    rounds: Vec<(BTreeSet<u32>, usize)>,
    share_turns: impl Fn(u32, u32) -> bool,
) -> Result<(), TestCaseError> {
    let mut set = Set::new(setting, []);
    set.rng = SmallRng::seed_from_u64(seed);
    let mut ahead = [[0_i32; 12]; 12];
    let mut before = BTreeSet::new();
    for (hosts, picks) in rounds {
        set.update(hosts.iter().copied());
        for &joined in hosts.difference(&before) {
            // A newcomer and the others start even.
            ahead[joined as usize] = [0; 12];
            ahead.iter_mut().for_each(|row| row[joined as usize] = 0);
        }
        for _ in 0..picks {
            let picked = set.pick().expect("an endpoint");
            let host = (0..12).find(|&host| endpoint(host) == *picked.endpoint());
            let host = host.expect("a known host");
            for &other in hosts.iter().filter(|&&other| other != host) {
                if share_turns(host, other) {
                    let (host, other) = (host as usize, other as usize);
                    ahead[host][other] += 1;
                    ahead[other][host] -= 1;
                    prop_assert!(ahead[host][other] <= 1, "{} is ahead of {}", host, other);
                }
            }
        }
        before = hosts;
    }
    Ok(())
}

#[test]
fn concurrent_picks_and_updates_lose_no_count() {
    lose_no_count(LeastConnections::new().into());
    lose_no_count(half_near(LeastConnections::new()));
}

fn lose_no_count(setting: Setting) {
    let set = Set::new(setting, 0..8);
    let Set {
        mut writer,
        current,
        mut rng,
    } = set;
    std::thread::scope(|scope| {
        let pickers: Vec<_> = (0..3)
            .map(|seed| {
                let current = &current;
                scope.spawn(move || pick_and_end(current, SmallRng::seed_from_u64(seed)))
            })
            .collect();
        for round in 0..2_000_u32 {
            let hosts = (0..8).map(|host| endpoint(host + round % 5)).collect();
            writer.replace(&current, hosts, Proximities::Look, &mut rng);
        }
        for picker in pickers {
            picker.join().expect("no picker panics");
        }
    });
    for member in current.load().members() {
        assert_eq!(member.in_flight(), 0);
    }
}

fn pick_and_end(current: &Current<()>, mut rng: impl Rng) {
    let mut running = Vec::new();
    for _ in 0..50_000 {
        let snapshot = current.load();
        if let Some(picked) = snapshot.pick(&Route::new(), &mut rng) {
            running.push(picked.in_flight);
        }
        if running.len() > 10 {
            let index = rng.random_range(0..running.len());
            running.swap_remove(index);
        }
    }
}
