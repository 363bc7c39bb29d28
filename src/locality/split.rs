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
//! Where weights differ, an endpoint counts for as much as its weight. In a part of a larger set (a [subset](crate::Subset)) p is
//! multiplied by what makes it the whole set's share, as long as all of the part is available.
//!
//! Availability changes between two sets: the share is counted anew when the background task hears of it, and is read by
//! the picks. A group of which nothing is available leaves its requests to the other one at once.
//!
//! Which of the requests stay is drawn at random for most policies. Where the policy's shares are exact ([`Pick::EXACT`]) this
//! one is, too: p is added up, and whenever the sum passes a whole number a request stays. A draw would make the share
//! of round robin's groups as uneven as that of a random policy; the sum is one more word that threads take from each other,
//! which a policy with a cursor has anyway and others should not get. Where the policy goes by keys, so does the split: the
//! keys that stay are those whose hash is below p, and a change of p moves those in between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::Nearest;
use crate::{
    member::Members,
    policy::{AnyPicker, AnyPolicy, CachePadded},
    route::Route,
};

/// A share of 1, in 2⁻³².
const ALL: u64 = 1 << 32;

/// A set in two groups.
#[derive(Debug)]
pub(crate) struct LocalitySplit {
    near: Group,
    far: Group,
    nearest: Nearest,
    /// The near group's share of the requests, in 2⁻³².
    share: AtomicU64,
    /// The sum of the shares so far, of which only the fraction is kept.
    sum: CachePadded<AtomicU32>,
}

/// A part of the set.
#[derive(Debug)]
struct Group {
    /// Its endpoints, by their indices in the set.
    indices: Box<[usize]>,
    members: Members,
    picker: AnyPicker,
}

/// The set before: split or not, it has a picker for the whole.
pub(crate) struct Before<'a> {
    pub(crate) split: Option<&'a LocalitySplit>,
    pub(crate) whole: &'a AnyPicker,
    /// Where the endpoint of an old index stands now; the next one in order, if it is gone.
    pub(crate) place: &'a dyn Fn(usize) -> usize,
}

impl LocalitySplit {
    /// `members` in two groups under `policy`, which take the place of what was `before`.
    pub(crate) fn prepare(
        policy: &AnyPolicy,
        members: &Members,
        nearest: Nearest,
        before: &Before<'_>,
        rng: &mut impl Rng,
    ) -> Self {
        let mut group = |is_near: bool| {
            let indices = (0..members.len()).filter(|&index| nearest.is_near[index] == is_near);
            Group::prepare(policy, members, indices.collect(), is_near, before, rng)
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
            sum: CachePadded(AtomicU32::new(sum)),
        };
        split.recount();
        split
    }

    fn group(&self, is_near: bool) -> &Group {
        if is_near { &self.near } else { &self.far }
    }

    pub(crate) fn nearest(&self) -> &Nearest {
        &self.nearest
    }

    pub(crate) fn is_near(&self, index: usize) -> bool {
        self.nearest.is_near[index]
    }

    /// Fits the near group's share to what is available now.
    pub(crate) fn recount(&self) {
        let near = self.near.available();
        let all = near + self.far.available();
        let share = (self.nearest.share(near, all) * ALL as f64).round();
        self.share.store(share as u64, Relaxed);
    }

    /// Chooses an endpoint, by its index in the set: of the group whose turn it is, or else of the other one.
    // Not inlined: sets that are not split should not carry it.
    #[inline(never)]
    pub(crate) fn pick(&self, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        let is_near = match self.keyed(route) {
            Some(is_near) => is_near,
            None if self.near.picker.is_exact() => self.turn(),
            None => self.draw(rng),
        };
        let first = self.group(is_near).pick(route, rng);
        first.or_else(|| self.group(!is_near).pick(route, rng))
    }

    /// The first endpoint in the order of the request's key that `which` allows, if the policy goes by keys.
    pub(crate) fn first(&self, route: &Route, which: &dyn Fn(usize) -> bool) -> Option<usize> {
        let is_near = self.keyed(route)?;
        let groups = [self.group(is_near), self.group(!is_near)];
        groups.into_iter().find_map(|group| {
            let first = group.picker.first(route, &|at| which(group.indices[at]))?;
            Some(group.indices[first])
        })
    }

    /// How likely a pick chooses each of so many endpoints of the set, by what `of_group` tells of the near ones and of the far
    /// ones. Of those that have none the others get the part.
    pub(crate) fn shares(
        &self,
        len: usize,
        of_group: impl Fn(&AnyPicker, &Members, &[usize]) -> Option<Vec<f64>>,
    ) -> Option<Vec<f64>> {
        let of = |it: &Group| of_group(&it.picker, &it.members, &it.indices);
        let (near, far) = (of(&self.near)?, of(&self.far)?);
        let is_none = |shares: &[f64]| shares.iter().all(|&share| share <= 0.0);
        let part = match (is_none(&near), is_none(&far)) {
            (true, _) => 0.0,
            (false, true) => 1.0,
            (false, false) => self.part(),
        };
        let mut all = vec![0.0; len];
        for (group, shares, part) in [(&self.near, near, part), (&self.far, far, 1.0 - part)] {
            for (&index, share) in group.indices.iter().zip(shares) {
                all[index] = part * share;
            }
        }
        Some(all)
    }

    /// The pickers that are asked for a request with a key, one after the other, with their endpoints and those' indices in the set.
    pub(crate) fn in_order(&self, route: &Route) -> Option<[(&AnyPicker, &Members, &[usize]); 2]> {
        let is_near = self.keyed(route)?;
        Some([is_near, !is_near].map(|is_near| {
            let group = self.group(is_near);
            (&group.picker, &group.members, &*group.indices)
        }))
    }

    /// What part of the requests is for the near group.
    fn part(&self) -> f64 {
        self.share.load(Relaxed) as f64 / ALL as f64
    }

    /// Whether a key is for the near group. As long as the share stays, so does the key; none if the policy doesn't go by keys.
    fn keyed(&self, route: &Route) -> Option<bool> {
        let key = route
            .requested_key()
            .filter(|_| self.near.picker.is_keyed(route))?;
        let share = self.share.load(Relaxed);
        // The half of the hash by which pickers don't choose.
        Some(u64::from(key.stable_hash() as u32) < share)
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

impl Group {
    fn prepare(
        policy: &AnyPolicy,
        members: &Members,
        indices: Box<[usize]>,
        is_near: bool,
        before: &Before<'_>,
        rng: &mut impl Rng,
    ) -> Self {
        let previous = before.split.map(|split| split.group(is_near));
        let place = |index: usize| {
            let place = (before.place)(previous.map_or(index, |group| group.indices[index]));
            let next = indices.partition_point(|&index| index < place);
            if next < indices.len() { next } else { 0 }
        };
        let picker = previous.map_or(before.whole, |group| &group.picker);
        let members = members.part(&indices);
        let picker = policy.prepare(&members, Some((picker, &place)), rng);
        Self {
            indices,
            members,
            picker,
        }
    }

    /// The weight of what is available.
    fn available(&self) -> u64 {
        self.members.available_weight()
    }

    fn pick(&self, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        let index = self.picker.pick(&self.members, route, rng)?;
        Some(self.indices[index])
    }
}
