//! The order of turns in weighted round robin.
//!
//! Each endpoint has turns in proportion to its weight, spread as evenly as possible: at any point it has had its share
//! to within one turn. So turn number k of an endpoint with w turns, of W in all, has the window from ⌊k W / w⌋ to
//! ⌈(k + 1) W / w⌉. Always taking the open window that closes first meets them all (Baruah et al., "Proportionate
//! Progress", 1996). nginx's smooth weighted round robin has the same aim, but guarantees no bound and looks at every
//! endpoint for each pick.

use std::{cmp::Reverse, collections::BinaryHeap};

/// The most turns of a round, unless four for each endpoint are more. Any weight above zero has at least one turn.
const MAX: u64 = 4_096;

/// The indices of the endpoints in the order of their turns.
pub(super) fn interleave(weights: &[u32]) -> Box<[u32]> {
    let turns = turns(weights);
    let all: u64 = turns.iter().sum();
    let mut had = vec![0; turns.len()];
    let mut order = Vec::with_capacity(all as usize);
    let with_turns = (0..turns.len()).filter(|&index| turns[index] > 0);
    let mut waiting: BinaryHeap<_> = with_turns.map(|index| Reverse((0, index))).collect();
    let mut open = BinaryHeap::new();
    for now in 0..all {
        while let Some(&Reverse((opens, index))) = waiting.peek()
            && opens <= now
        {
            waiting.pop();
            let closes = ((had[index] + 1) * all).div_ceil(turns[index]);
            open.push(Reverse((closes, index)));
        }
        let Some(Reverse((_, index))) = open.pop() else {
            continue;
        };
        order.push(index as u32);
        had[index] += 1;
        if had[index] < turns[index] {
            waiting.push(Reverse((had[index] * all / turns[index], index)));
        }
    }
    order.into_boxed_slice()
}

/// How many turns each endpoint has: as few as have the exact proportions, or rounded if these are too many.
fn turns(weights: &[u32]) -> Vec<u64> {
    let weights: Vec<_> = weights.iter().map(|&weight| u64::from(weight)).collect();
    let divisor = weights
        .iter()
        .fold(0, |divisor, &weight| gcd(divisor, weight));
    let all = weights.iter().sum::<u64>() / divisor.max(1);
    let max = MAX.max(4 * weights.len() as u64);
    let exact = |weight: u64| weight / divisor.max(1);
    let rounded = |weight: u64| match exact(weight) {
        0 => 0,
        turns => ((turns * max + all / 2) / all).max(1),
    };
    let weights = weights.into_iter();
    if all <= max {
        weights.map(exact).collect()
    } else {
        weights.map(rounded).collect()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(order: &[u32], len: usize) -> Vec<u64> {
        let mut counts = vec![0; len];
        order.iter().for_each(|&index| counts[index as usize] += 1);
        counts
    }

    #[test]
    fn turns_are_interleaved() {
        assert_eq!(*interleave(&[5, 1, 1]), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(*interleave(&[4, 2, 2]), [0, 1, 0, 2]);
        let mut weights = [1; 11];
        weights[0] = 10;
        let order = interleave(&weights);
        assert!(
            order.chunks(2).all(|two| two[0] == 0 && two[1] != 0),
            "{order:?}"
        );
    }

    #[test]
    fn a_round_has_no_more_than_a_few_thousand_turns() {
        let weights = [1, 1_000_000_000, 3_000_000_000, 0];
        let counts = count(&interleave(&weights), 4);
        assert_eq!(counts, [1, 1_024, 3_072, 0]);
        let many: Vec<_> = (0..10_000).map(|weight| 1_000_000 + weight).collect();
        assert!(interleave(&many).len() < 41_000);
    }

    proptest! {
        #[test]
        fn each_endpoint_has_had_its_share_to_within_one_turn_at_any_time(weights in prop::collection::vec(0..50_u32, 1..20)) {
            let order = interleave(&weights);
            let all: u32 = weights.iter().sum();
            let mut had = vec![0_i64; weights.len()];
            for (now, &index) in (1..).zip(&order) {
                had[index as usize] += 1;
                for (&had, &weight) in had.iter().zip(&weights) {
                    let lag = now * i64::from(weight) - had * i64::from(all);
                    prop_assert!(lag.abs() < i64::from(all), "{:?}", order);
                }
            }
            let divisor = u64::from(all) / (order.len() as u64).max(1);
            let expected: Vec<_> = weights.iter().map(|&weight| u64::from(weight)).collect();
            let had: Vec<_> = count(&order, weights.len()).iter().map(|had| had * divisor).collect();
            prop_assert_eq!(had, expected);
        }
    }
}
