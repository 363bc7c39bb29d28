//! Picks with any route in any state of the set, compared with what the documentation promises.

use super::*;
use crate::{endpoint::Counted, member::EjectionReason};

/// The state of one endpoint.
#[derive(Clone, Debug)]
struct Pod {
    weight: u32,
    running: u32,
    state: State,
    /// In tenths.
    slow_start_share: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Ejected,
    Slow,
    Refuses,
    Unfit,
    UnfitAndEjected,
    Tried,
    RefusesAndTried,
    SlowAndTried,
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    use State::*;
    let state = prop_oneof![
        8 => Just(Well),
        8 => prop::sample::select(vec![
            Ejected, Slow, Refuses, Unfit, UnfitAndEjected, Tried, RefusesAndTried, SlowAndTried,
        ]),
    ];
    let weight = prop_oneof![Just(1), 0..4_u32];
    let slow_start_share = prop_oneof![4 => Just(10), 1 => 1..10_u8];
    let pod = (weight, 0..4_u32, state, slow_start_share);
    let pod = pod.prop_map(|(weight, running, state, slow_start_share)| Pod {
        weight,
        running,
        state,
        slow_start_share,
    });
    prop::collection::vec(pod, 1..7)
}

/// What a request wants; endpoints by their indices, which may be too large.
#[derive(Clone, Debug)]
struct Wants {
    key: Option<u8>,
    preferred: Option<usize>,
    avoided: Vec<usize>,
    left_out: Option<usize>,
    only_others: bool,
    second_try: bool,
}

fn wants() -> impl Strategy<Value = Wants> {
    let pod = || 0..6_usize;
    let maybe = || prop::option::weighted(0.25, pod());
    let avoided = prop::collection::vec(pod(), 0..4);
    let key = prop::option::of(any::<u8>());
    let all = (key, maybe(), avoided, maybe(), any::<bool>(), any::<bool>());
    all.prop_map(
        |(key, preferred, avoided, left_out, only_others, second_try)| Wants {
            key,
            preferred,
            avoided,
            left_out,
            only_others,
            second_try,
        },
    )
}

impl Wants {
    fn route(&self, set: &[Endpoint]) -> Route {
        let at = |index: &usize| set.get(*index);
        let mut route = Route::new();
        if let Some(key) = self.key {
            route = route.key(u64::from(key));
        }
        if let Some(pod) = self.preferred.as_ref().and_then(at) {
            route = route.prefer(pod.address());
        }
        if let Some(pod) = self.left_out.as_ref().and_then(at) {
            route = route.leave_out(pod.address());
        }
        for pod in self.avoided.iter().filter_map(at) {
            route = route.avoid(pod);
        }
        // Such a route always avoids the endpoint of another try.
        let only_others = self.only_others && !route.avoided().is_empty();
        match (only_others, self.second_try) {
            (true, true) => route.second_try(),
            (true, false) => route.only_others(),
            (false, _) => route,
        }
    }
}

fn enter(member: &Member, state: State) {
    use State::*;
    match state {
        Well | Refuses | RefusesAndTried | Unfit => {}
        Ejected | Tried | UnfitAndEjected => {
            member.stats().set_reason(Some(EjectionReason::SuccessRate));
            member.eject();
        }
        Slow | SlowAndTried => {
            member.stats().set_reason(Some(EjectionReason::Slow));
            member.eject();
        }
    }
    if matches!(state, Refuses | RefusesAndTried) {
        member.refuse();
    }
    if matches!(state, Unfit | UnfitAndEjected) {
        member.set_unfit();
    }
    if matches!(state, Tried | RefusesAndTried | SlowAndTried) {
        member.offer_trial();
    }
}

fn judge(setting: Setting, pods: &[Pod], wants: &[Wants]) -> Result<(), TestCaseError> {
    let mut set = Set::new(setting, []);
    let weighted = (0..).zip(pods);
    let weighted = weighted.map(|(host, pod)| endpoint(host).with_weight(pod.weight));
    set.publish(weighted.collect());
    let members = set.members();
    let mut running = Vec::new();
    for (member, pod) in members.iter().zip(pods) {
        for _ in 0..pod.running {
            prop_assert!(member.begin());
            running.push(InFlight::new(member, false));
        }
        enter(member, pod.state);
        member.set_slow_start_share(f64::from(pod.slow_start_share) / 10.0);
        member.signals().set_slow_start(true);
    }
    set.current.load().recount();
    let snapshot = set.current.load_full();
    let counted = Counted::of(pods.iter().map(|pod| pod.weight));
    for wants in wants {
        let route = wants.route(snapshot.endpoints());
        let all = || 0..members.len();
        let it = |index: usize| &snapshot.endpoints()[index];
        let is_left_out = |index: usize| route.leaves_out(it(index));
        let is_avoided = |index: usize| route.avoids(it(index));
        let counts = |index: usize| counted.has(pods[index].weight);
        let is_slow = |index: usize| matches!(pods[index].state, State::Slow | State::SlowAndTried);
        let before: Vec<_> = members
            .iter()
            .map(|it| (it.is_available(), it.is_only_ejected(), it.has_trial()))
            .collect();
        let has_other = snapshot.has_other(&route);
        let picked = snapshot.pick_routed(&route, &mut set.rng);
        let Some(picked) = picked else {
            if route.is_only_others() {
                prop_assert!(!has_other, "nobody for {:?}", wants);
                continue;
            }
            let serves = |index: usize| before[index].0 || before[index].1;
            let missed = all().find(|&index| serves(index) && !is_left_out(index));
            prop_assert_eq!(missed, None, "{:?}", wants);
            continue;
        };
        let index = set.index(&picked.in_flight);
        let (is_available, is_only_ejected, has_trial) = before[index];
        let told = format!("{index} for {wants:?}, of {before:?}");
        prop_assert!(!is_left_out(index), "left out: {}", told);
        let is_preferred = wants.preferred == Some(index);
        prop_assert!(!route.is_only_others() || !is_avoided(index), "{}", told);
        prop_assert!(
            !route.is_only_others() || has_other || is_preferred,
            "{}",
            told
        );
        if picked.in_flight.is_trial() {
            prop_assert!(has_trial, "no trial: {}", told);
            let serves = |other: usize| (before[other].0 || before[other].1) && !is_left_out(other);
            let is_none_left = !all().any(serves);
            prop_assert!(
                counts(index) || is_preferred || route.is_only_others() || is_none_left,
                "trial: {}",
                told
            );
        } else {
            prop_assert!(is_available || is_only_ejected, "out: {}", told);
            let better = |other: usize| before[other].0 && !is_left_out(other);
            let may_be_slow = is_slow(index) && (is_preferred || route.is_second_try());
            let is_best = is_available || may_be_slow || !all().any(better);
            prop_assert!(is_best, "others are available: {}", told);
            let better = |other: usize| before[other].0 && !is_avoided(other);
            let is_best = !is_avoided(index) || !all().any(better);
            prop_assert!(is_best, "avoided: {}", told);
            let better = |other: usize| better(other) && counts(other);
            let is_best = counts(index) || is_avoided(index) || !all().any(better) || is_preferred;
            prop_assert!(is_best, "without weight: {}", told);
        }
        // Held until the end, so that each pick changes the next one's state.
        running.push(picked.in_flight);
    }
    let trials = members.iter().filter(|it| it.has_trial()).count();
    prop_assert_eq!(members[0].signals().trials(), trials);
    drop(running);
    for (member, pod) in members.iter().zip(pods) {
        prop_assert_eq!(member.in_flight(), 0);
        prop_assert_eq!(member.counted(), 0, "{:?}", pod);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn picks_with_any_route_keep_the_promises(
        pods in pods(), wants in prop::collection::vec(wants(), 1..6), policy in 0..7_usize, near in any::<bool>(),
    ) {
        let setting: Setting = match policy {
            0 => RoundRobin::new().into(),
            1 => Random::new().into(),
            2 => LeastConnections::new().into(),
            3 => PowerOfTwo::new().into(),
            4 => PeakEwma::new().into(),
            5 => ConsistentHash::new().into(),
            _ => outside(LeastConnections::new()),
        };
        judge(if near { half_near(setting) } else { setting }, &pods, &wants)?;
    }
}
