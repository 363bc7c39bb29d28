//! The endpoints in two groups, near and far, each under a picker of its own.
//!
//! A share p of the requests is for the near group, and the rest for the far one, where the policy spreads it evenly:
//!
//! ```text
//!              available near endpoints
//!  p = min(1,  ──────────────────────── × places )        places: zones (or nodes) that the endpoints are for
//!               all available endpoints
//! ```
//!
//! Were the clients spread evenly over the places, each place would bring 1/places of all requests; its endpoints' fair part is
//! that of their number. While the second is no less than the first, all stays near. If it is less, as much stays as
//! makes their part, and what is over goes to the others in proportion. This is how Envoy routes by zones ("Zone aware
//! routing"), for clients whose numbers are not known. With 10, 10 and 5 endpoints in three zones:
//!
//! | clients in | p | they bring to each endpoint of zone a (10) | b (10) | c (5) |
//! | --- | --- | --- | --- | --- |
//! | a | min(1, 10/25 × 3) = 1 | 1/3 ÷ 10 = 1/30 | | |
//! | b | 1 | | 1/30 | |
//! | c | 5/25 × 3 = 0.6 | 0.4 × 1/3 ÷ 20 = 1/150 | 1/150 | 0.6 × 1/3 ÷ 5 = 1/25 |
//! | all | | 1/25 | 1/25 | 1/25 |
//!
//! To send all of c's to c would be 1/15 for each, 1.67 times the fair part. In general a place that falls short gets a part of
//! what other short ones spill: an endpoint has at most 1 + Σ (1/places − f) / (1 − f) times its fair part, summed over the
//! *other* short places with parts f of the endpoints. That is exactly 1 if one place is short, 1.2 if one of three is short
//! and another one has half its part, and below 2 always.
//!
//! Where weights differ, an endpoint counts for as much as its weight.
//!
//! Availability changes between two sets: the share is counted anew when the background task hears of it, and is read by
//! the picks. A group of which nothing is available leaves its requests to the other one at once.
//!
//! Which of the requests stay is drawn at random for most policies. Where the policy's shares are exact ([`Pick::EXACT`]) this
//! one is, too: p is added up, and whenever the sum passes a whole number a request stays. A draw would make the share
//! of round robin's groups as uneven as that of a random policy; the sum is one more word that threads take from each other,
//! which a policy with a cursor has anyway and others should not get.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::{
    Apart,
    sealed::{Pick, Prepare, Previous},
};
use crate::{load::Loads, near::Nearest};

/// A share of 1, in 2⁻³².
const ALL: u64 = 1 << 32;

/// A set in two groups.
#[derive(Debug)]
pub(crate) struct Split<K> {
    near: Group<K>,
    far: Group<K>,
    nearest: Nearest,
    /// The near group's share of the requests, in 2⁻³².
    share: AtomicU64,
    /// The sum of the shares so far, of which only the fraction is kept.
    sum: Apart<AtomicU32>,
}

/// A part of the set.
#[derive(Debug)]
struct Group<K> {
    /// Its endpoints, by their indices in the set.
    members: Box<[usize]>,
    /// Their weights.
    weights: Box<[u32]>,
    loads: Loads,
    picker: K,
}

/// The set before: split or not, it has a picker for the whole.
pub(crate) struct Before<'a, K> {
    pub(crate) split: Option<&'a Split<K>>,
    pub(crate) whole: Previous<'a, K>,
}

impl<K: Pick> Split<K> {
    /// The set of `loads` with these weights in two groups under `policy`, which take the place of what was `before`.
    pub(crate) fn prepare(
        policy: &impl Prepare<Picker = K>,
        (loads, weights): (&Loads, &[u32]),
        nearest: Nearest,
        before: &Before<'_, K>,
        rng: &mut impl Rng,
    ) -> Self {
        let mut group = |is_near: bool| {
            let members = (0..loads.len()).filter(|&index| nearest.is_near[index] == is_near);
            let previous = before.split.map(|split| split.group(is_near));
            Group::prepare(
                policy,
                (loads, weights),
                members.collect(),
                previous,
                &before.whole,
                rng,
            )
        };
        let (near, far) = (group(true), group(false));
        let sum = match before.split {
            Some(split) => split.sum.0.load(Relaxed),
            None => rng.next_u32(),
        };
        let split = Self {
            near,
            far,
            nearest,
            share: AtomicU64::new(0),
            sum: Apart(AtomicU32::new(sum)),
        };
        split.recount();
        split
    }

    fn group(&self, is_near: bool) -> &Group<K> {
        if is_near { &self.near } else { &self.far }
    }

    pub(crate) fn is_near(&self, index: usize) -> bool {
        self.nearest.is_near[index]
    }

    /// Fits the near group's share to what is available now.
    pub(crate) fn recount(&self) {
        let near = self.near.available();
        let all = near + self.far.available();
        let share = share(near, all, self.nearest.places);
        self.share.store(share, Relaxed);
    }

    /// Chooses an endpoint, by its index in the set: of the group whose turn it is, or else of the other one.
    // Not inlined: sets that are not split should not carry it.
    #[inline(never)]
    pub(crate) fn pick(&self, rng: &mut impl Rng) -> Option<usize> {
        let is_near = if K::EXACT {
            self.turn()
        } else {
            self.draw(rng)
        };
        let first = self.group(is_near).pick(rng);
        first.or_else(|| self.group(!is_near).pick(rng))
    }

    /// Whether the next request is for the near group, by adding up its share.
    fn turn(&self) -> bool {
        let share = self.share.load(Relaxed);
        let Ok(step) = u32::try_from(share) else {
            return true;
        };
        let sum = self.sum.0.fetch_add(step, Relaxed);
        sum.checked_add(step).is_none()
    }

    /// Whether a request is for the near group, at random.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> bool {
        let share = self.share.load(Relaxed);
        share == ALL || u64::from(rng.next_u32()) < share
    }
}

impl<K: Pick> Group<K> {
    fn prepare(
        policy: &impl Prepare<Picker = K>,
        (loads, weights): (&Loads, &[u32]),
        members: Box<[usize]>,
        previous: Option<&Self>,
        whole: &Previous<'_, K>,
        rng: &mut impl Rng,
    ) -> Self {
        let place = |index: usize| {
            let place = (whole.place)(previous.map_or(index, |group| group.members[index]));
            let next = members.partition_point(|&member| member < place);
            if next < members.len() { next } else { 0 }
        };
        let previous = Previous {
            picker: previous.map_or(whole.picker, |group| &group.picker),
            place: &place,
        };
        let weights: Box<[_]> = members.iter().map(|&member| weights[member]).collect();
        let picker = policy.prepare(&weights, Some(previous), rng);
        let loads = loads.part(&members);
        Self {
            members,
            weights,
            loads,
            picker,
        }
    }

    /// The weight of what is available.
    fn available(&self) -> u64 {
        let all = self.weights.iter().enumerate();
        let available = all.filter(|&(index, _)| self.loads.is_available(index));
        available.map(|(_, &weight)| u64::from(weight)).sum()
    }

    fn pick(&self, rng: &mut impl Rng) -> Option<usize> {
        let index = self.picker.pick(&self.loads, rng)?;
        Some(self.members[index])
    }
}

/// The part of the requests that endpoints of weight `near` of `all` get, in 2⁻³², of those from one of `places` places.
fn share(near: u64, all: u64, places: usize) -> u64 {
    let part = (u128::from(near) * places as u128) << 32;
    let share = part.checked_div(u128::from(all)).unwrap_or(0);
    share.min(u128::from(ALL)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_what_makes_the_fair_part() {
        let of_one = |near, all, places| share(near, all, places) as f64 / ALL as f64;
        for (near, all, places, expected) in [
            (10, 30, 3, 1.0),
            (10, 25, 3, 1.0),
            (5, 25, 3, 0.6),
            (1, 100, 10, 0.1),
            (0, 20, 3, 0.0),
            (4, 4, 3, 1.0),
            (0, 0, 3, 0.0),
            (4_096, 4_096, 4_096, 1.0),
        ] {
            let share = of_one(near, all, places);
            assert!((share - expected).abs() < 1e-9, "{near} of {all}: {share}");
        }
        assert_eq!(share(1, 1, 1), ALL);
    }
}
