//! The endpoints in two groups, near and far, each under a picker of its own.
//!
//! The near group gets a share p of the requests. The far group gets the rest, which the policy spreads evenly over it:
//!
//! ```text
//!              available near endpoints
//!  p = min(1,  ──────────────────────── × places )        places: zones (or nodes) that the endpoints are for
//!               all available endpoints
//! ```
//!
//! This assumes that clients are spread evenly over the places, so that each place sends 1/places of all requests. A
//! place's fair part is its fraction of the endpoints. If that is at least 1/places, all requests stay near. If it is
//! less, the fair part stays, and the surplus goes to the other places in proportion. It is Envoy's "Zone aware
//! routing", for the case that the number of clients per zone isn't known. With 10, 10 and 5 endpoints in three zones:
//!
//! | clients in | p | they send to each endpoint of zone a (10) | b (10) | c (5) |
//! | --- | --- | --- | --- | --- |
//! | a | min(1, 10/25 × 3) = 1 | 1/3 ÷ 10 = 1/30 | | |
//! | b | 1 | | 1/30 | |
//! | c | 5/25 × 3 = 0.6 | 0.4 × 1/3 ÷ 20 = 1/150 | 1/150 | 0.6 × 1/3 ÷ 5 = 1/25 |
//! | all | | 1/25 | 1/25 | 1/25 |
//!
//! If all of c's requests stayed in c, each of its endpoints would get 1/15, which is 1.67 times the fair part. If
//! several places are short of endpoints, each also gets a part of what the others spill. An endpoint then gets at most
//! 1 + Σ (1/places − f) / (1 − f) times its fair part, summed over the *other* short places, where f is their fraction
//! of the endpoints. That is exactly 1 if only one place is short, 1.2 if one of three is short and another one has
//! half its part, and always below 2.
//!
//! If weights differ, an endpoint counts by its weight. In a [subset](crate::Subset), p is scaled so that it equals the
//! whole set's share while all endpoints of the subset are available.
//!
//! Availability changes between two sets: the background task then recomputes the share, and picks only read it. If a
//! group has no available endpoint, its requests go to the other group at once; likewise if only endpoints without
//! weight are left in it.
//!
//! Which requests stay near depends on the policy:
//!
//! - For most policies it is drawn at random.
//! - If the policy's shares are exact ([`Pick::EXACT`]), so is this one: each request adds p to a sum, and stays near
//!   when the sum passes a whole number. A draw would make round robin's shares as uneven as those of a random policy.
//!   The sum is one more word that threads contend for; a policy with a cursor has one anyway, and others shouldn't get
//!   one.
//! - If the policy goes by keys, keys whose hash is below p stay near. A change of p moves only the keys in between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::Nearest;
use crate::{
    member::Members,
    policy::{AnyPicker, AnyPolicy, CachePadded},
    route::Route,
};

/// A share of 1, in units of 2⁻³².
const ALL: u64 = 1 << 32;

/// A set in two groups.
#[derive(Debug)]
pub(crate) struct LocalitySplit {
    near: Group,
    far: Group,
    nearest: Nearest,
    /// The near group's share of the requests, in units of 2⁻³².
    share: AtomicU64,
    /// The fractional part of the sum of shares so far.
    sum: CachePadded<AtomicU32>,
}

/// The near or the far endpoints.
#[derive(Debug)]
struct Group {
    /// Its endpoints, by their indices in the set.
    indices: Box<[usize]>,
    members: Members,
    picker: AnyPicker,
}

/// The previous set. Whether it was split or not, it has a picker for the whole.
pub(crate) struct Before<'a> {
    pub(crate) split: Option<&'a LocalitySplit>,
    pub(crate) whole: &'a AnyPicker,
    /// The new index of the endpoint at an old index, or of the next one in order if it is gone.
    pub(crate) place: &'a dyn Fn(usize) -> usize,
}

impl LocalitySplit {
    /// Splits `members` into two groups under `policy`, which continue from `before`.
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

    /// Recomputes the near group's share from what is available now.
    pub(crate) fn recount(&self) {
        let near = self.near.available();
        let all = near + self.far.available();
        let share = (self.nearest.share(near, all) * ALL as f64).round();
        self.share.store(share as u64, Relaxed);
    }

    /// Chooses an endpoint, as an index in the set: from the group whose turn it is, or else from the other one.
    // Not inlined, so that picks from sets without a split don't carry this code.
    #[inline(never)]
    pub(crate) fn pick(&self, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        let is_near = match self.keyed(route) {
            Some(is_near) => is_near,
            None if self.near.picker.is_exact() => self.turn(),
            None => self.draw(rng),
        };
        let (first, other) = (self.group(is_near), self.group(!is_near));
        match first.pick(route, rng) {
            Some(at) if first.members.counts(at) => Some(first.indices[at]),
            Some(at) => Some(first.or_counted(at, other, route, rng)),
            None => other.pick(route, rng).map(|at| other.indices[at]),
        }
    }

    /// The first endpoint in the key's order that `which` allows; none if the policy doesn't go by keys.
    pub(crate) fn first(&self, route: &Route, which: &dyn Fn(usize) -> bool) -> Option<usize> {
        let is_near = self.keyed(route)?;
        let groups = [self.group(is_near), self.group(!is_near)];
        groups.into_iter().find_map(|group| {
            let first = group.picker.first(route, &|at| which(group.indices[at]))?;
            Some(group.indices[first])
        })
    }

    /// How likely a pick chooses each of the set's `len` endpoints, computed from the shares that `of_group` gives
    /// within each group. If all shares of one group are zero, the other group gets everything.
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

    /// The pickers in the order in which a request with a key asks them, each with its members and their indices in the
    /// set.
    pub(crate) fn in_order(&self, route: &Route) -> Option<[(&AnyPicker, &Members, &[usize]); 2]> {
        let is_near = self.keyed(route)?;
        Some([is_near, !is_near].map(|is_near| {
            let group = self.group(is_near);
            (&group.picker, &group.members, &*group.indices)
        }))
    }

    /// Whether the far group gets a share, because the near one can't take everything.
    pub(crate) fn spills(&self) -> bool {
        self.part() < 1.0
    }

    /// The near group's share of the requests, from 0 to 1.
    fn part(&self) -> f64 {
        self.share.load(Relaxed) as f64 / ALL as f64
    }

    /// Whether the request's key is for the near group; none if the policy doesn't go by keys. A key stays in its group
    /// while the share stays the same.
    fn keyed(&self, route: &Route) -> Option<bool> {
        let key = route
            .requested_key()
            .filter(|_| self.near.picker.is_keyed(route))?;
        let share = self.share.load(Relaxed);
        // The half of the hash that pickers don't use.
        Some(u64::from(key.stable_hash() as u32) < share)
    }

    /// Whether the next request is for the near group, by the running sum of shares.
    fn turn(&self) -> bool {
        let share = self.share.load(Relaxed);
        let Ok(step) = u32::try_from(share) else {
            return true;
        };
        let sum = self.sum.0.fetch_add(step, Relaxed);
        sum.checked_add(step).is_none()
    }

    /// Draws whether a request is for the near group.
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

    /// The weight of the available members.
    fn available(&self) -> u64 {
        self.members.available_weight()
    }

    /// Chooses one of its endpoints.
    fn pick(&self, route: &Route, rng: &mut impl Rng) -> Option<usize> {
        self.picker.pick(&self.members, route, rng)
    }

    /// The endpoint at `at`, which has been chosen although it has no weight; or one with weight that the `other` group
    /// chooses. As an index in the set.
    #[cold]
    fn or_counted(&self, at: usize, other: &Self, route: &Route, rng: &mut impl Rng) -> usize {
        let Some(instead) = other.pick(route, rng) else {
            return self.indices[at];
        };
        if other.members.counts(instead) {
            self.members.all()[at].end();
            return other.indices[instead];
        }
        other.members.all()[instead].end();
        self.indices[at]
    }
}
