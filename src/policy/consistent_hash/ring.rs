//! Endpoints as points on a circle: a key belongs to the first point at or after its own place (Karger et al., "Consistent
//! Hashing and Random Trees", 1997; libketama).
//!
//! The places are the hash's upper 32 bits. Points are packed and in order, and the circle is cut into parts of about four
//! points, each of which knows its first one: so a look-up reads two cache lines, whatever the number of endpoints. A point
//! depends on nothing but its endpoint's name. That is why an endpoint that comes takes keys and moves none between the
//! others, and why it takes the same ones whenever it comes back.
//!
//! Weights are in the numbers of the points. A mean weight has [`POINTS`], so that the ring is as large for weights of 1 as for
//! weights of 1,000. The mean moves with each weight: then every endpoint gains or loses a few points, and up to twice as many
//! keys move as have to. To divide by anything that stays, such as a power of two, would move most keys at once when it
//! no longer fits.

use crate::stable_hash::stable_hash;

/// The points of an endpoint of mean weight: its share is then within 4.4 % (1/√512), one standard deviation. The largest of
/// 1,000 shares is some 16 % above the mean. Half as many bring that to 24 %, and twice as many cost 8 MB.
const POINTS: u64 = 512;

/// Points in a part of the circle, about.
const IN_A_PART: usize = 4;

/// An endpoint, to the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Of its name.
    pub(super) hash: u64,
    pub(super) weight: u32,
}

/// The points of a set of endpoints.
#[derive(Debug)]
pub(super) struct Ring {
    /// In order of their places: a place in the upper half, and the index of an endpoint in the lower.
    points: Box<[u64]>,
    /// Of each part of the circle, the first point in it or after it.
    starts: Box<[u32]>,
    /// What is left of a place when it is shifted by this is its part.
    shift: u32,
}

impl Ring {
    /// The ring of `nodes`. Where two points have the same place, the endpoint that is first in `order` has it.
    pub(super) fn new(nodes: &[Node], order: &[usize]) -> Self {
        let mut points = ranked(nodes, order);
        points.sort_unstable();
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

    /// The endpoints of all points, beginning at the place of `hash`.
    #[inline]
    pub(super) fn onwards(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (before, after) = self.points.split_at(self.first(hash));
        after.iter().chain(before).map(|&point| rank(point))
    }

    /// The first point at or after the place of `hash`; behind the last one, if there is none.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        let place = place(hash);
        let start = self.starts[(place >> self.shift) as usize] as usize;
        let after = self.points[start..].iter();
        start + after.take_while(|&&point| place_of(point) < place).count()
    }

    /// How many bytes it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.points) + size_of_val(&*self.starts)
    }
}

/// The half of a point that says whose it is.
const RANK: u64 = u32::MAX as u64;

/// All points, in no order, each with its endpoint's place in `order`.
fn ranked(nodes: &[Node], order: &[usize]) -> Vec<u64> {
    let counts = counts(nodes);
    let mut points = Vec::with_capacity(counts.iter().sum());
    for (rank, &index) in order.iter().enumerate() {
        let places = places(nodes[index].hash).take(counts[index]);
        points.extend(places.map(|place| place << 32 | rank as u64));
    }
    points
}

/// How many points each has.
fn counts(nodes: &[Node]) -> Vec<usize> {
    let sum: u128 = nodes.iter().map(|node| u128::from(node.weight)).sum();
    let weighty = nodes.iter().filter(|node| node.weight > 0).count() as u128;
    let count = |node: &Node| match u128::from(node.weight) {
        0 => 0,
        weight => ((u128::from(POINTS) * weighty * weight + sum / 2) / sum).max(1) as usize,
    };
    nodes.iter().map(count).collect()
}

/// The places of an endpoint's points, without end.
fn places(name: u64) -> impl Iterator<Item = u64> {
    (0_u64..).flat_map(move |pair| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&name.to_le_bytes());
        bytes[8..].copy_from_slice(&pair.to_le_bytes());
        let hash = stable_hash(&bytes);
        [hash >> 32, hash & u64::from(u32::MAX)]
    })
}

/// Of each part of the circle, the first point in it or after it.
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
        Ring::new(&nodes(weights), &order)
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
    fn shares_of_keys_are_as_the_weights_say() {
        let weights = [10, 20, 30, 0, 65_535];
        let sum = weights.iter().sum::<u32>();
        let shares = shares(&owners(&ring(&weights), 200_000), 5);
        for (share, weight) in shares.iter().zip(weights) {
            let error = (share - f64::from(weight) / f64::from(sum)).abs();
            assert!(error < 0.002, "{shares:?}");
        }
        assert_eq!(shares[3], 0.0);
        // How many units a weight is counted in says nothing.
        let one = owners(&ring(&[1, 2, 3]), 1_000);
        assert_eq!(
            one,
            owners(&ring(&[1_000_000, 2_000_000, 3_000_000]), 1_000)
        );
    }

    proptest! {
        /// The points that a look-up finds are those that a search of all finds.
        #[test]
        fn a_look_up_finds_the_next_point(weights in prop::collection::vec(0..9_u32, 1..9), hash in any::<u64>()) {
            let ring = ring(&weights);
            prop_assert!(ring.points.is_sorted());
            let naive = ring.points.iter().position(|&point| point >> 32 >= hash >> 32);
            prop_assert_eq!(ring.first(hash), naive.unwrap_or(ring.points.len()));
            prop_assert_eq!(ring.onwards(hash).count(), ring.points.len());
        }

        /// Of a changed weight, at most about twice as many keys move as have to.
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
