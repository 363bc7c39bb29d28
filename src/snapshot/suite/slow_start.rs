//! Slow start under every policy.

use super::*;

/// The new endpoint's share relative to an even one, while `running` requests run in all.
fn share_of_a_new_one(setting: Setting, weight: u32, slow_start_share: f64, running: usize) -> f64 {
    let mut set = Set::new(setting, []);
    set.publish(
        (0..20)
            .map(|host| endpoint(host).with_weight(weight))
            .collect(),
    );
    let members = set.members();
    members[4].set_slow_start_share(slow_start_share);
    members[4].signals().set_slow_start(true);
    let mut requests = std::collections::VecDeque::new();
    let mut got = 0;
    for turn in 0..40_000 {
        let request = set.pick().expect("an endpoint");
        got += u32::from(turn >= 20_000 && set.index(&request) == 4);
        requests.push_back(request);
        if requests.len() > running {
            requests.pop_front();
        }
    }
    f64::from(got) / 1_000.0
}

pub(super) fn a_new_endpoint_gets_its_slow_start_share(policy: impl Into<Setting>) {
    let setting = policy.into();
    // If no endpoint has weight, all are equal.
    for weight in [1, 0] {
        for (slow_start_share, running) in [(0.1, 0), (0.1, 400), (0.5, 0), (0.5, 400)] {
            let share = share_of_a_new_one(setting.clone(), weight, slow_start_share, running);
            let error = (share - slow_start_share).abs();
            assert!(error < 0.1, "{share} with {running} running");
        }
    }
    // With about one request for each, half of one is one or none.
    let share = share_of_a_new_one(setting, 1, 0.5, 20);
    assert!((0.4..1.0).contains(&share), "{share}");
}

pub(super) fn if_all_endpoints_are_new_all_are_picked(policy: impl Into<Setting>) {
    let mut set = Set::new(policy, 0..10);
    for member in set.members() {
        member.set_slow_start_share(0.1);
        member.signals().set_slow_start(true);
    }
    let shares = set.shares(50_000);
    assert!(chi_square(&shares) < CHI_SQUARE_9, "{shares:?}");
}
