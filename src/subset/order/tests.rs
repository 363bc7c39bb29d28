use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Part = BTreeSet<Endpoint>;

fn pod(number: usize) -> Endpoint {
    let number = number as u32;
    let [_, a, b, c] = number.to_be_bytes();
    Endpoint::new(([10, a, b, c], 8080).into())
}

fn pods(numbers: std::ops::Range<usize>) -> Vec<Endpoint> {
    numbers.map(pod).collect()
}

fn part(set: &[Endpoint], client: Client, size: usize) -> Part {
    let order = order(set, None, client, size);
    let part = order.into_iter().take(size);
    part.map(|index| set[index].clone()).collect()
}

/// The part that each client uses.
fn parts(set: &[Endpoint], size: usize, clients: &[Client]) -> Vec<Part> {
    let part = |&client| part(set, client, size);
    clients.iter().map(part).collect()
}

fn ranked(of: usize) -> Vec<Client> {
    (0..of).map(|rank| Client::Ranked { rank, of }).collect()
}

fn random(count: u64) -> Vec<Client> {
    // Neighbouring seeds are as good as any others.
    (0..count).map(Client::Random).collect()
}

/// The least and the greatest number of clients of a pod.
fn extremes(set: &[Endpoint], parts: &[Part]) -> (usize, usize) {
    let mut counts: BTreeMap<_, _> = set.iter().map(|pod| (pod, 0)).collect();
    for pod in parts.iter().flatten() {
        *counts.entry(pod).or_insert(0) += 1;
    }
    let (min, max) = (counts.values().min(), counts.values().max());
    (min.copied().unwrap_or(0), max.copied().unwrap_or(0))
}

/// How many entries the clients lose, on average and at most.
fn lost(before: &[Part], after: &[Part]) -> (f64, usize) {
    let lost = before.iter().zip(after);
    let lost = lost.map(|(before, after)| before.difference(after).count());
    let (sum, max) = (lost.clone().sum::<usize>(), lost.max().unwrap_or(0));
    (sum as f64 / before.len() as f64, max)
}

/// These figures are in the documentation.
#[test]
fn a_thousand_clients_of_three_hundred_pods_have_twenty_thousand_connections() {
    let (set, size) = (pods(0..300), 20);
    for (name, clients, bound) in [
        ("at random", random(1000), 2.6),
        ("with peers", ranked(1000), 1.15),
    ] {
        let all = parts(&set, size, &clients);
        assert_eq!(all.iter().map(Part::len).sum::<usize>(), 20_000);
        let (min, max) = extremes(&set, &all);
        println!("{name}: {min} to {max} clients a pod");
        assert!((max as f64) < bound * min as f64, "{min} to {max}");
    }
}

/// Every seventh of a thousand clients.
#[test]
fn a_pod_replaced_or_added_costs_a_client_less_than_one_entry_on_average() {
    let (set, size) = (pods(0..300), 20);
    for (name, clients) in [("at random", random(1000)), ("with peers", ranked(1000))] {
        let clients: Vec<_> = clients.into_iter().step_by(7).collect();
        let before = parts(&set, size, &clients);
        for number in [0, 70, 150, 299] {
            let mut replaced = set.clone();
            replaced[number] = pod(1000 + number);
            let replaced = lost(&before, &parts(&replaced, size, &clients));
            let mut added = set.clone();
            added.push(pod(1000 + number));
            let added = lost(&before, &parts(&added, size, &clients));
            println!("{name}: a pod replaced costs {replaced:?}, one more {added:?}");
            assert!(replaced.1 <= 2 && added.1 <= 2);
            assert!(replaced.0 < 1.0 && added.0 < 1.0);
        }
    }
}

#[test]
fn a_few_random_clients_leave_pods_unused_and_peers_do_not() {
    let set = pods(0..300);
    let (min, max) = extremes(&set, &parts(&set, 20, &random(100)));
    println!("at random: {min} to {max}");
    assert!(min <= 1 && max >= 13);
    assert_eq!(extremes(&set, &parts(&set, 20, &ranked(100))), (6, 7));
}

#[test]
fn an_added_peer_moves_at_most_one_entry_if_there_are_as_many_as_pods() {
    let set = pods(0..300);
    // It may come in anywhere in the order: those after it get another rank.
    for place in [0, 250, 999] {
        let sample = || (0..1000).step_by(7);
        let before: Vec<_> = sample()
            .map(|rank| Client::Ranked { rank, of: 1000 })
            .collect();
        let after = sample().map(|rank| Client::Ranked {
            rank: rank + usize::from(rank >= place),
            of: 1001,
        });
        let after: Vec<_> = after.collect();
        let (mean, max) = lost(&parts(&set, 20, &before), &parts(&set, 20, &after));
        println!("a client more, at {place}: {mean} on average, {max} at most");
        assert!(max <= 1 && mean < 0.3);
    }
}

proptest! {
    #[test]
    fn with_peers_the_pods_numbers_of_clients_differ_by_one_at_most(
        clients in 1_usize..60,
        count in 1_usize..80,
        size in 1_usize..30,
    ) {
        let set = pods(0..count);
        let (min, max) = extremes(&set, &parts(&set, size, &ranked(clients)));
        prop_assert!(max - min <= 1, "{min} to {max}");
    }

    #[test]
    fn a_pod_that_comes_goes_or_is_replaced_costs_two_entries_at_most(
        clients in 1_usize..40,
        count in 2_usize..80,
        size in 1_usize..30,
        gone in any::<prop::sample::Index>(),
        new in 100_usize..1000,
        is_random in any::<bool>(),
    ) {
        let set = pods(0..count);
        let clients = if is_random { random(clients as u64) } else { ranked(clients) };
        let before = parts(&set, size, &clients);
        let mut fewer = set.clone();
        fewer.remove(gone.index(count));
        let mut replaced = fewer.clone();
        replaced.push(pod(new));
        let mut more = set.clone();
        more.push(pod(new));
        for other in [&fewer, &replaced, &more] {
            let (_, max) = lost(&before, &parts(other, size, &clients));
            prop_assert!(max <= if is_random { 1 } else { 2 } || other.len() <= size, "{max}");
        }
    }

    #[test]
    fn the_order_is_of_the_whole_set_and_does_not_depend_on_the_answers_order(
        count in 0_usize..60,
        size in 1_usize..30,
        seed in any::<u64>(),
        share in 0.0..1.5_f64,
    ) {
        let set = pods(0..count);
        let reversed: Vec<_> = set.iter().rev().cloned().collect();
        for client in [Client::Random(seed), Client::Apart(seed), Client::Ranked { rank: count / 2, of: count }] {
            let near = |set: &[Endpoint]| -> Vec<bool> {
                set.iter().map(|pod| pod.identity().ip().to_string().ends_with('1')).collect()
            };
            let in_order = |set: &[Endpoint]| -> Vec<_> {
                let order = order(set, Some((&near(set), share)), client, size);
                order.into_iter().map(|index| set[index].clone()).collect()
            };
            let pods = in_order(&set);
            prop_assert_eq!(&pods, &in_order(&reversed));
            prop_assert_eq!(pods.into_iter().collect::<Part>().len(), count);
        }
    }
}

/// A promise: a client that is built with another version uses the same pods.
#[test]
fn the_order_is_the_same_in_each_version_and_on_each_platform() {
    let names = ["web-0", "web-1", "web-2", "web-3", "web-4"];
    let named = names.iter().zip(0..);
    let set: Vec<_> = named
        .map(|(name, at)| pod(at).with_hostname(*name))
        .collect();
    let addresses = pods(0..5);
    let golden = [
        (&set, Client::Random(0), [2, 3, 4, 1, 0]),
        (&set, Client::Random(u64::MAX), [3, 0, 1, 2, 4]),
        (&set, Client::Ranked { rank: 0, of: 2 }, [4, 3, 0, 1, 2]),
        (&set, Client::Ranked { rank: 1, of: 2 }, [0, 1, 2, 4, 3]),
        (&set, Client::Apart(1 << 63), [0, 1, 2, 4, 3]),
        (&addresses, Client::Random(0), [2, 0, 3, 4, 1]),
        (
            &addresses,
            Client::Ranked { rank: 0, of: 2 },
            [3, 1, 2, 0, 4],
        ),
    ];
    let orders = golden.map(|(set, client, _)| order(set, None, client, 3));
    assert_eq!(orders, golden.map(|(_, _, order)| order.to_vec()));
    let id = super::super::Subset::of(3).client_id("checkout-0");
    assert_eq!(id.client(|| 0), Client::Random(14_052_566_275_641_087_825));
}

#[test]
fn a_pod_with_a_name_keeps_its_place_under_another_address() {
    let named = |number: usize, at| pod(at).with_hostname(format!("web-{number}"));
    let before: Vec<_> = (0..30).map(|number| named(number, number)).collect();
    let after: Vec<_> = (0..30).map(|number| named(number, 100 + number)).collect();
    for client in [Client::Random(7), Client::Ranked { rank: 3, of: 8 }] {
        assert_eq!(
            order(&before, None, client, 5),
            order(&after, None, client, 5)
        );
    }
}

#[test]
fn pods_of_one_name_are_told_apart_by_their_addresses() {
    let set: Vec<_> = (0..40).map(|at| pod(at).with_hostname("web")).collect();
    let parts = parts(&set, 4, &random(200));
    let used: BTreeSet<_> = parts.iter().flatten().collect();
    assert_eq!(used.len(), 40);
}

#[test]
fn a_pod_keeps_its_place_while_its_predecessor_terminates() {
    let named = |number: usize, at| pod(at).with_hostname(format!("web-{number}"));
    let before: Vec<_> = (0..30).map(|number| named(number, number)).collect();
    let mut during = before.clone();
    during[7] = during[7].clone().with_terminating(true);
    during.push(named(7, 107));
    for client in [Client::Random(7), Client::Ranked { rank: 3, of: 8 }] {
        let names = |set: &[Endpoint]| -> Vec<_> {
            let order = order(set, None, client, 5).into_iter();
            order
                .map(|at| set[at].hostname().map(str::to_owned))
                .collect()
        };
        assert_eq!(names(&during)[..30], names(&before));
    }
}

#[test]
fn a_name_that_was_looked_up_for_requests_moves_no_pod() {
    let before = pods(0..30);
    let mut during = before.clone();
    for (number, pod) in during.iter_mut().enumerate().take(10) {
        pod.lease_hostname(format!("web-{number}").into());
    }
    for client in [Client::Random(7), Client::Ranked { rank: 3, of: 8 }] {
        let order = |set: &[Endpoint]| order(set, None, client, 5);
        assert_eq!(order(&during), order(&before));
    }
}

#[test]
fn terminating_pods_and_those_without_weight_come_last() {
    let mut set = pods(0..30);
    for index in 0..10 {
        set[index] = set[index].clone().with_terminating(true);
        set[10 + index] = set[10 + index].clone().with_weight(0);
    }
    for client in random(20).into_iter().chain(ranked(20)) {
        let order = order(&set, None, client, 5);
        assert!(order[..10].iter().all(|&index| index >= 20));
        assert_eq!(order.len(), 30);
    }
}

/// Pods of each zone, and the share of the subset that its clients take of it.
fn zones(counts: &[usize], zone: usize) -> (Vec<bool>, f64) {
    let all: usize = counts.iter().sum();
    let is_near = counts.iter().enumerate();
    let is_near = is_near.flat_map(|(other, &count)| std::iter::repeat_n(other == zone, count));
    let share = counts[zone] as f64 / all as f64 * counts.len() as f64;
    (is_near.collect(), share.min(1.0))
}

#[test]
fn near_pods_come_first_and_each_zones_are_evenly_used() {
    let (counts, size) = ([100, 100, 50], 20);
    let set = pods(0..250);
    let mut used = vec![0; 250];
    for zone in 0..3 {
        let (is_near, share) = zones(&counts, zone);
        for client in ranked(333) {
            let order = order(&set, Some((&is_near, share)), client, size);
            let near = order[..size].iter().filter(|&&index| is_near[index]);
            assert_eq!(near.count(), if zone == 2 { 12 } else { 20 });
            order[..size].iter().for_each(|&index| used[index] += 1);
        }
    }
    let extremes = |range: std::ops::Range<usize>| {
        let used = &used[range];
        (used.iter().min().copied(), used.iter().max().copied())
    };
    println!(
        "{:?} {:?} {:?}",
        extremes(0..100),
        extremes(100..200),
        extremes(200..250)
    );
    // 1,000 × 20 ÷ 250 = 80.
    for range in [0..100, 100..200, 200..250] {
        let (min, max) = extremes(range);
        assert!(min >= Some(78) && max <= Some(82));
    }
}

#[test]
fn few_near_pods_are_all_used_and_every_other_substitute_is_far() {
    let set = pods(0..100);
    let is_near: Vec<_> = (0..100).map(|at| at < 30).collect();
    let order = |size| order(&set, Some((&is_near, 1.0)), Client::Random(1), size);
    let near = |order: &[usize]| order.iter().filter(|&&at| is_near[at]).count();
    let of_40 = order(40);
    assert_eq!((near(&of_40[..30]), near(&of_40[..40])), (30, 30));
    let of_10 = order(10);
    assert_eq!((near(&of_10[..10]), near(&of_10[10..20])), (10, 5));
}

#[test]
fn a_subset_of_one_is_near_if_any_pod_is_near() {
    let set = pods(0..10);
    let is_near: Vec<_> = (0..10).map(|at| at == 3).collect();
    let order = order(&set, Some((&is_near, 0.3)), Client::Random(1), 1);
    assert_eq!(order[0], 3);
}

#[test]
fn near_pods_come_first_if_no_pod_has_weight() {
    let set: Vec<_> = (0..20).map(|number| pod(number).with_weight(0)).collect();
    let near: Vec<_> = (0..20).map(|number| number % 2 == 0).collect();
    let order = order(&set, Some((&near, 1.0)), Client::Random(1), 10);
    assert!(order[..10].iter().all(|&index| near[index]), "{order:?}");
}
