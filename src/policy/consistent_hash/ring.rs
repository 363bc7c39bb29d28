//! Endpoints as points on a circle: a key belongs to the first point at or after its own place (Karger et al., "Consistent
//! Hashing and Random Trees", 1997; libketama).
//!
//! The places are the hash's upper 32 bits. Points are packed and in order. The circle is cut into parts of about four
//! points, and each part knows its first point: so a look-up reads two cache lines, whatever the number of endpoints. A
//! point depends only on its endpoint's name. So an endpoint that joins takes keys but moves none between the others,
//! and takes the same keys whenever it comes back.
//!
//! Weights decide the number of points. An endpoint of mean weight has [`POINTS`], so that the ring is as large for
//! weights of 1 as for weights of 1,000. When a weight changes, so does the mean: every endpoint gains or loses a few
//! points, and up to twice as many keys move as have to. A fixed divisor, such as a power of two, would move most keys
//! at once when it no longer fits.

use std::{collections::HashMap, mem};

use crate::stable_hash::stable_hash;

/// The points of an endpoint of mean weight: the standard deviation of its share is then 4.4 % (1/√512). The largest of
/// 1,000 shares is some 16 % above the mean. With half as many points it is 24 %; twice as many cost 8 MB.
const POINTS: u64 = 512;

/// About how many points a part of the circle has.
const IN_A_PART: usize = 4;

/// An endpoint as the ring knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The hash of its name.
    pub(super) hash: u64,
    pub(super) weight: u32,
}

/// The points of a set of endpoints.
#[derive(Debug)]
pub(super) struct Ring {
    /// In order of their places: a place in the upper half, and the index of an endpoint in the lower.
    points: Box<[u64]>,
    /// For each part of the circle, the first point in it or after it.
    starts: Box<[u32]>,
    /// A place shifted right by this is its part.
    shift: u32,
}

impl Ring {
    /// The ring of `nodes`, which replaces the one in `before`, with its nodes. If two points have the same place, it
    /// belongs to the endpoint that is first in `order`.
    pub(super) fn new(nodes: &[Node], order: &[usize], before: Option<(&Self, &[Node])>) -> Self {
        let counts = counts(nodes);
        let ranked: Vec<_> = order
            .iter()
            .map(|&at| (nodes[at].hash, counts[at]))
            .collect();
        let updated = before.and_then(|(ring, old)| ring.update(old, &ranked));
        let mut points = updated.unwrap_or_else(|| points(ranked.iter().copied().enumerate()));
        for point in &mut points {
            *point = *point & !RANK | order[rank(*point)] as u64;
        }
        let parts = (points.len() / IN_A_PART).next_power_of_two().max(2);
        let shift = u32::BITS - parts.ilog2();
        Self {
            starts: starts(&points, parts, shift),
            points: points.into_boxed_slice(),
            shift,
        }
    }

    /// The points of `ranked` endpoints: the old points of those that stay, with the new ones' merged in, which spares
    /// hashing and sorting them all. `None` if an endpoint that stays has another number of points now, or if two have
    /// the same name.
    fn update(&self, nodes: &[Node], ranked: &[Ranked]) -> Option<Vec<u64>> {
        let ranks: HashMap<u64, usize> = (0..).zip(ranked).map(|(rank, it)| (it.0, rank)).collect();
        let mut stays = vec![false; ranked.len()];
        let mut ranks_now = Vec::with_capacity(nodes.len());
        for (node, count) in nodes.iter().zip(counts(nodes)) {
            let rank = ranks.get(&node.hash).copied();
            if let Some(rank) = rank
                && (mem::replace(&mut stays[rank], true) || ranked[rank].1 != count)
            {
                return None;
            }
            ranks_now.push(rank);
        }
        if ranks.len() < ranked.len() {
            return None;
        }
        let new = (0..).zip(ranked.iter().copied());
        let mut new = points(new.filter(|&(rank, _)| !stays[rank]))
            .into_iter()
            .peekable();
        let mut merged = Vec::with_capacity(ranked.iter().map(|&(_, count)| count).sum());
        for &point in &self.points {
            let Some(now) = ranks_now[rank(point)] else {
                continue;
            };
            let kept = point & !RANK | now as u64;
            while let Some(before) = new.next_if(|&new| new < kept) {
                merged.push(before);
            }
            merged.push(kept);
        }
        merged.extend(new);
        Some(merged)
    }

    /// The endpoints of all points, beginning at the place of `hash`.
    #[inline]
    pub(super) fn onwards(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (before, after) = self.points.split_at(self.first(hash));
        after.iter().chain(before).map(|&point| rank(point))
    }

    /// How many points it has.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// For each point its endpoint, and what part of all keys reach it: those after the point before it.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (usize, f64)> {
        const ALL: f64 = (1_u64 << 32) as f64;
        let last = self.points.last().map_or(0, |&point| place_of(point));
        let places = self.points.iter().map(|&point| place_of(point));
        let before = std::iter::once(last).chain(places);
        let is_one_place = self.points.first().map(|&it| place_of(it)) == Some(last);
        let pairs = self.points.iter().zip(before).enumerate();
        pairs.map(move |(at, (&point, before))| {
            let size = match place_of(point).wrapping_sub(before) {
                0 if at == 0 && is_one_place => ALL,
                size => f64::from(size),
            };
            (rank(point), size / ALL)
        })
    }

    /// The index of the first point at or after the place of `hash`; if there is none, one past the last.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        let place = place(hash);
        let start = self.starts[(place >> self.shift) as usize] as usize;
        let after = self.points[start..].iter();
        start + after.take_while(|&&point| place_of(point) < place).count()
    }

    /// How many bytes the ring takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.points) + size_of_val(&*self.starts)
    }
}

/// The half of a point that says which endpoint has it.
const RANK: u64 = u32::MAX as u64;

/// The hash of a name, and the number of its points.
type Ranked = (u64, usize);

/// The points of endpoints with their ranks, in order.
fn points(nodes: impl Iterator<Item = (usize, Ranked)>) -> Vec<u64> {
    let of_one = |(rank, (name, count)): (usize, Ranked)| {
        let places = places(name).take(count);
        places.map(move |place| place << 32 | rank as u64)
    };
    let mut points: Vec<_> = nodes.flat_map(of_one).collect();
    points.sort_unstable();
    points
}

/// How many points each endpoint has.
fn counts(nodes: &[Node]) -> Vec<usize> {
    let sum: u128 = nodes.iter().map(|node| u128::from(node.weight)).sum();
    let weighty = nodes.iter().filter(|node| node.weight > 0).count() as u128;
    let count = |node: &Node| match u128::from(node.weight) {
        0 => 0,
        weight => ((u128::from(POINTS) * weighty * weight + sum / 2) / sum).max(1) as usize,
    };
    nodes.iter().map(count).collect()
}

/// The endless sequence of places for an endpoint's points.
fn places(name: u64) -> impl Iterator<Item = u64> {
    (0_u64..).flat_map(move |pair| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&name.to_le_bytes());
        bytes[8..].copy_from_slice(&pair.to_le_bytes());
        let hash = stable_hash(&bytes);
        [hash >> 32, hash & u64::from(u32::MAX)]
    })
}

/// For each part of the circle, the first point in it or after it.
fn starts(points: &[u64], parts: usize, shift: u32) -> Box<[u32]> {
    let mut start = 0;
    let first = |part: usize| {
        let before = |&point: &u64| ((place_of(point) >> shift) as usize) < part;
        start += points[start..]
            .iter()
            .take_while(|point| before(point))
            .count();
        start as u32
    };
    (0..parts).map(first).collect()
}

#[inline]
fn place(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[inline]
fn place_of(point: u64) -> u32 {
    place(point)
}

#[inline]
fn rank(point: u64) -> usize {
    (point & RANK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(weights: &[u32]) -> Vec<Node> {
        let node = |(number, &weight): (usize, &u32)| Node {
            hash: stable_hash(format!("web-{number}").as_bytes()),
            weight,
        };
        weights.iter().enumerate().map(node).collect()
    }

    fn ring(weights: &[u32]) -> Ring {
        let order: Vec<_> = (0..weights.len()).collect();
        Ring::new(&nodes(weights), &order, None)
    }

    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|key| stable_hash(&key.to_le_bytes()))
    }

    fn owners(ring: &Ring, count: u64) -> Vec<Option<usize>> {
        keys(count).map(|key| ring.onwards(key).next()).collect()
    }

    fn shares(owners: &[Option<usize>], len: usize) -> Vec<f64> {
        let mut shares = vec![0.0; len];
        for owner in owners.iter().flatten() {
            shares[*owner] += 1.0 / owners.len() as f64;
        }
        shares
    }

    fn moved(one: &[Option<usize>], other: &[Option<usize>]) -> f64 {
        let pairs = one.iter().zip(other);
        pairs.filter(|(one, other)| one != other).count() as f64 / one.len() as f64
    }

    #[test]
    fn a_ring_of_nothing_has_no_owner() {
        assert_eq!(ring(&[]).onwards(u64::MAX).next(), None);
        assert_eq!(ring(&[0]).onwards(7).next(), None);
        assert!(ring(&[]).bytes() < 100);
    }

    #[test]
    fn a_ring_takes_nine_bytes_for_a_point() {
        let per_point = ring(&[1; 100]).bytes() as f64 / (100.0 * POINTS as f64);
        assert!((8.5..10.0).contains(&per_point), "{per_point}");
    }

    /// 1,000,000 keys over 10, 100 and 1,000 are in `benches/keyed.rs`.
    #[test]
    fn shares_of_keys_are_even() {
        for len in [2, 10, 100] {
            let shares = shares(&owners(&ring(&vec![1; len]), 200_000), len);
            let most = shares.iter().copied().fold(0.0, f64::max) * len as f64;
            assert!(most <= 1.25, "{most} of {len}");
        }
    }

    #[test]
    fn shares_of_keys_are_in_proportion_to_the_weights() {
        let weights = [10, 20, 30, 0, 65_535];
        let sum = weights.iter().sum::<u32>();
        let shares = shares(&owners(&ring(&weights), 200_000), 5);
        for (share, weight) in shares.iter().zip(weights) {
            let error = (share - f64::from(weight) / f64::from(sum)).abs();
            assert!(error < 0.002, "{shares:?}");
        }
        assert_eq!(shares[3], 0.0);
        // The unit of the weights doesn't matter.
        let one = owners(&ring(&[1, 2, 3]), 1_000);
        assert_eq!(
            one,
            owners(&ring(&[1_000_000, 2_000_000, 3_000_000]), 1_000)
        );
    }

    proptest! {
        /// A look-up finds the point that a linear search finds.
        #[test]
        fn a_look_up_finds_the_next_point(weights in prop::collection::vec(0..9_u32, 1..9), hash in any::<u64>()) {
            let ring = ring(&weights);
            prop_assert!(ring.points.is_sorted());
            let naive = ring.points.iter().position(|&point| point >> 32 >= hash >> 32);
            prop_assert_eq!(ring.first(hash), naive.unwrap_or(ring.points.len()));
            prop_assert_eq!(ring.onwards(hash).count(), ring.points.len());
        }

        /// Names may come twice.
        #[test]
        fn an_updated_ring_equals_one_built_anew(
            sets in prop::collection::vec(prop::collection::vec((0..12_u64, 0..3_u32), 0..10), 1..5),
            are_equal in any::<bool>(),
        ) {
            let mut before: Option<(Ring, Vec<Node>)> = None;
            for set in sets {
                let node = |&(name, weight): &(u64, u32)| Node {
                    hash: stable_hash(&name.to_le_bytes()),
                    weight: if are_equal { 1 } else { weight },
                };
                let nodes: Vec<_> = set.iter().map(node).collect();
                let mut order: Vec<_> = (0..set.len()).collect();
                order.sort_by_key(|&at| set[at].0);
                let old = before.as_ref().map(|(ring, nodes)| (ring, &nodes[..]));
                let updated = Ring::new(&nodes, &order, old);
                let new = Ring::new(&nodes, &order, None);
                prop_assert_eq!(&updated.points, &new.points);
                prop_assert_eq!(&updated.starts, &new.starts);
                before = Some((updated, nodes));
            }
        }

        /// When a weight changes, at most about twice as many keys move as have to.
        #[test]
        fn a_changed_weight_moves_few_keys(
            mut weights in prop::collection::vec(1..100_u32, 2..12), to in 1..100_u32,
        ) {
            let len = weights.len();
            let before = owners(&ring(&weights), 20_000);
            weights[0] = to;
            let after = owners(&ring(&weights), 20_000);
            let changes = shares(&before, len).into_iter().zip(shares(&after, len));
            let necessary = changes.map(|(one, other)| (one - other).abs()).sum::<f64>() / 2.0;
            let moved = moved(&before, &after);
            prop_assert!(moved <= 2.0 * necessary + 0.02, "{moved} for {necessary}");
        }
    }
}
