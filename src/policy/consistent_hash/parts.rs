//! What part of all keys each endpoint has: by the ring alone, and in the present state.
//!
//! While all endpoints are well, both are the same, and cached. Otherwise the ring is walked from each of its points.
//! That is bounded: at most [`WALKED`] steps in all, and no walk of a ring of more than [`MOST`] points.

use super::{Picker, STEPS};
use crate::member::Members;

/// The most endpoints that a walk asks in all, which takes some ten milliseconds: 16 from each point of a ring of 1,000
/// endpoints.
const WALKED: usize = 1 << 23;

/// The points of the largest ring that is walked, that of 2,048 endpoints: walking it takes some 24 MB for a moment.
const MOST: usize = 1 << 20;

/// A remaining part of a point's keys that is not worth another step.
const NEGLIGIBLE: f64 = 1e-6;

impl Picker {
    /// How likely it chooses each endpoint for a request with a random key. `None` if some endpoint isn't well and the
    /// ring is too large.
    pub(crate) fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        let takes = self.takes(members);
        let mut weighty = self.nodes.iter().zip(&takes).filter(|it| it.0.weight > 0);
        if weighty.all(|(_, &takes)| takes >= 1.0) && self.nodes.iter().any(|it| it.weight > 0) {
            return Some(self.homes().iter().map(|home| home.0).collect());
        }
        let accepts: Vec<_> = (0..members.len())
            .map(|index| members.is_available(index))
            .collect();
        self.walk(&takes, &accepts)
    }

    /// What part of the keys that reach an endpoint it takes now, for each endpoint.
    fn takes(&self, members: &Members) -> Vec<f64> {
        let allowance = self.allowance(members);
        let takes = |index: usize| match self.nodes[index].weight > 0
            && members.is_available(index)
            && self.has_room(index, members, || allowance)
        {
            true => members.slow_start_share(index),
            false => 0.0,
        };
        (0..members.len()).map(takes).collect()
    }

    /// Each endpoint's part of all keys, and in how many ranges, if all endpoints are well.
    pub(crate) fn homes(&self) -> &[(f64, usize)] {
        self.homes.get_or_init(|| {
            let mut homes = vec![(0.0, 0); self.nodes.len()];
            for (index, size) in self.ring.ranges().filter(|(_, size)| *size > 0.0) {
                homes[index].0 += size;
                homes[index].1 += 1;
            }
            homes.into()
        })
    }

    /// Each endpoint's part of all keys if only these accept any. `None` if the ring is too large.
    pub(crate) fn shares_among(&self, accepts: &[bool]) -> Option<Vec<f64>> {
        let takes: Vec<_> = accepts
            .iter()
            .map(|&accepts| f64::from(u8::from(accepts)))
            .collect();
        self.walk(&takes, accepts)
    }

    /// Each endpoint's part of all keys, if it takes the part `takes` of those that reach it, and if keys that none
    /// takes go to the first one that accepts them.
    ///
    /// It is an approximation in two cases. If a pick leaves the ring and some endpoints take only a part, it doesn't
    /// go through which of them take a key. If a point has used up its steps, all takers race for what is left.
    fn walk(&self, takes: &[f64], accepts: &[bool]) -> Option<Vec<f64>> {
        if self.ring.len() > MOST {
            return None;
        }
        let ranges: Vec<_> = self.ring.ranges().collect();
        let mut parts = vec![0.0; self.nodes.len()];
        let next_takes = next(&ranges, |index| takes[index] > 0.0);
        let next_accepts = next(&ranges, |index| accepts[index]);
        let takers: Vec<_> = (0..takes.len()).filter(|&it| takes[it] > 0.0).collect();
        let acceptors: Vec<_> = (0..takes.len()).filter(|&it| accepts[it]).collect();
        let of_each = WALKED / ranges.len().max(1);
        // For each endpoint, the point that asked it last, plus one.
        let mut asked_by = vec![0; self.nodes.len()];
        let mut steps = 0;
        // Keys that leave the ring before they reach a taker, or are too few to go on with.
        let (mut raced, mut raced_by_all) = (0.0, 0.0);
        for (at, &(_, size)) in ranges.iter().enumerate() {
            let (mut left, mut to, mut asked) = (size, at, 0);
            let mut rest = of_each;
            while left > size * NEGLIGIBLE && asked < takers.len() && rest > 0 {
                to += next_takes[to % ranges.len()] as usize;
                if !self.is_near(to - at) {
                    break;
                }
                let index = ranges[to % ranges.len()].0;
                if asked_by[index] != at + 1 {
                    let taken = left * takes[index].min(1.0);
                    parts[index] += taken;
                    left -= taken;
                    asked_by[index] = at + 1;
                    asked += 1;
                }
                to += 1;
                rest -= 1;
            }
            let others = takers.len() - asked;
            let is_over = left <= size * NEGLIGIBLE || rest < takers.len();
            if asked == 0 || (others > 0 && is_over) {
                raced += left;
                steps += of_each - rest;
                continue;
            }
            if others > 0 {
                rest -= takers.len();
                let others = takers.iter().copied();
                let others = others.filter(|&it| asked_by[it] != at + 1);
                left = self.race(&mut parts, left, others, |index| takes[index]);
            }
            steps += of_each - rest;
            match next_accepts[at] as usize {
                distance if self.is_near(distance) => {
                    parts[ranges[(at + distance) % ranges.len()].0] += left;
                }
                _ => raced_by_all += left,
            }
        }
        if ranges.is_empty() {
            raced = 1.0;
        }
        raced_by_all += self.race(&mut parts, raced, takers.iter().copied(), |index| {
            takes[index]
        });
        self.race(&mut parts, raced_by_all, acceptors.iter().copied(), |_| 1.0);
        debug_assert!(steps <= WALKED, "{steps} steps");
        Some(parts)
    }

    /// Whether a pick goes along the ring for this many points.
    fn is_near(&self, distance: usize) -> bool {
        distance < STEPS * self.nodes.len()
    }

    /// Shares out `keys` among the racers: in proportion to their weights, or evenly if none has any. Returns what none
    /// of them takes.
    fn race(
        &self,
        parts: &mut [f64],
        keys: f64,
        racers: impl Iterator<Item = usize> + Clone,
        takes: impl Fn(usize) -> f64,
    ) -> f64 {
        if keys <= 0.0 {
            return 0.0;
        }
        let has_weight = racers.clone().any(|index| self.nodes[index].weight > 0);
        let speed = |index: usize| match has_weight {
            true => f64::from(self.nodes[index].weight),
            false => 1.0,
        };
        let takes = |index: usize| takes(index).min(1.0);
        let left = keys
            * racers
                .clone()
                .map(|index| 1.0 - takes(index))
                .product::<f64>();
        // Each races against the others' average speed: exact if at most one of them takes only a part.
        let all: f64 = racers
            .clone()
            .map(|index| takes(index) * speed(index))
            .sum();
        let wins = |index: usize| {
            let (takes, speed) = (takes(index), speed(index));
            takes * speed / (all + (1.0 - takes) * speed).max(f64::MIN_POSITIVE)
        };
        let is_partial = |index: &usize| takes(*index) < 1.0;
        let of_partial: f64 = racers.clone().filter(is_partial).map(wins).sum();
        let whole = racers
            .clone()
            .filter(|index| !is_partial(index))
            .map(speed)
            .sum::<f64>();
        for index in racers {
            parts[index] += match (is_partial(&index), whole > 0.0) {
                (true, true) => keys * wins(index),
                (true, false) => (keys - left) * wins(index) / of_partial.max(f64::MIN_POSITIVE),
                (false, _) => keys * (1.0 - of_partial) * speed(index) / whole,
            };
        }
        left
    }
}

/// The distance from each point to the next one that `which` allows; huge if there is none.
fn next(ranges: &[(usize, f64)], which: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut distances = vec![u32::MAX / 2; ranges.len()];
    let mut distance = u32::MAX / 4;
    // Twice around the ring: the first round finds the distances past the end.
    for at in (0..ranges.len()).rev().chain((0..ranges.len()).rev()) {
        distance = if which(ranges[at].0) { 0 } else { distance + 1 };
        distances[at] = distance;
    }
    distances
}
