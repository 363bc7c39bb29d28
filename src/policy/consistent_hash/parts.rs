//! What part of all keys each endpoint has: by the ring alone, and as things are now.
//!
//! While nothing is wrong with any endpoint, both are the same, and kept. Else the ring is walked from each of its points, and that
//! is bounded: at most [`WALKED`] steps in all, and no walk of a ring of more than [`MOST`] points.

use super::{Picker, STEPS};
use crate::member::Members;

/// How many endpoints are asked in all: some ten milliseconds. So from each point of a ring of 1,000 endpoints 16 are.
const WALKED: usize = 1 << 23;

/// The points of the largest ring that is walked, that of 2,048 endpoints: to walk it takes some 24 MB for a moment.
const MOST: usize = 1 << 20;

/// What part of a point's keys is not worth another step.
const NEGLIGIBLE: f64 = 1e-6;

impl Picker {
    /// How likely it chooses each for a request whose key may be any. None if something is wrong and the ring is too large.
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

    /// What part of the keys that come to it each endpoint takes now.
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

    /// Each endpoint's part of all keys, and in how many ranges, if nothing is wrong with any.
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

    /// Each endpoint's part of all keys where only these accept any. None if the ring is too large.
    pub(crate) fn shares_among(&self, accepts: &[bool]) -> Option<Vec<f64>> {
        let takes: Vec<_> = accepts
            .iter()
            .map(|&accepts| f64::from(u8::from(accepts)))
            .collect();
        self.walk(&takes, accepts)
    }

    /// Each endpoint's part of all keys, if it takes this part of those that come to it, and if what none takes goes to the
    /// first one that accepts it.
    ///
    /// Where a pick leaves the ring and some endpoints take only a part, it is near the truth: which of them take a key is
    /// not gone through. So it is where a point's steps are over: what is left then is raced for by all who take any.
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
        // Which point has asked an endpoint last, plus one.
        let mut asked_by = vec![0; self.nodes.len()];
        let mut steps = 0;
        // For whatever leaves the ring before it has come to any taker, or is too little to go on with.
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

    /// Whether a pick goes on along the ring for so many points.
    fn is_near(&self, distance: usize) -> bool {
        distance < STEPS * self.nodes.len()
    }

    /// Gives so many of the keys to those that win a race for them, as their weights say, or alike if none has any. Tells what
    /// is left, as none of the racers takes it.
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
        // Each against as much as the others run with on average: exact if one of them at most takes a part only.
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

/// How far it is from each point to the next one that `which` allows; as far as can be if there is none.
fn next(ranges: &[(usize, f64)], which: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut distances = vec![u32::MAX / 2; ranges.len()];
    let mut distance = u32::MAX / 4;
    // Twice around: the first time for those behind the last one.
    for at in (0..ranges.len()).rev().chain((0..ranges.len()).rev()) {
        distance = if which(ranges[at].0) { 0 } else { distance + 1 };
        distances[at] = distance;
    }
    distances
}
