//! What part of all keys each endpoint has: by the ring alone, and as things are now.

use super::{Picker, STEPS};
use crate::member::Members;

impl Picker {
    /// How likely it chooses each for a request whose key may be any.
    pub(crate) fn shares(&self, members: &Members) -> Vec<f64> {
        let allowance = self.bound.as_ref().map(|bound| bound.count(members));
        let takes = |index: usize| match self.nodes[index].weight > 0
            && members.is_available(index)
            && self.has_room(index, members, || allowance.unwrap_or(f64::INFINITY))
        {
            true => members.slow_start_share(index),
            false => 0.0,
        };
        let takes: Vec<_> = (0..members.len()).map(takes).collect();
        let accepts: Vec<_> = (0..members.len())
            .map(|index| members.is_available(index))
            .collect();
        self.parts(&takes, &accepts)
    }

    /// Each endpoint's part of all keys, and in how many ranges, if nothing is wrong with any.
    pub(crate) fn homes(&self) -> Vec<(f64, usize)> {
        let mut homes = vec![(0.0, 0); self.nodes.len()];
        for (index, size) in self.ring.ranges().filter(|(_, size)| *size > 0.0) {
            homes[index].0 += size;
            homes[index].1 += 1;
        }
        homes
    }

    /// The same where only these accept keys.
    pub(crate) fn shares_among(&self, accepts: &[bool]) -> Vec<f64> {
        let takes: Vec<_> = accepts
            .iter()
            .map(|&accepts| f64::from(u8::from(accepts)))
            .collect();
        self.parts(&takes, accepts)
    }

    /// Each endpoint's part of all keys, if it takes this part of those that come to it, and if what none takes goes to the
    /// first one that accepts it.
    ///
    /// Where a pick leaves the ring and some endpoints take only a part, it is near the truth: which of them take a key is
    /// not gone through.
    fn parts(&self, takes: &[f64], accepts: &[bool]) -> Vec<f64> {
        let ranges: Vec<_> = self.ring.ranges().collect();
        let mut parts = vec![0.0; self.nodes.len()];
        let next_takes = next(&ranges, |index| takes[index] > 0.0);
        let next_accepts = next(&ranges, |index| accepts[index]);
        let takers: Vec<_> = (0..takes.len()).filter(|&it| takes[it] > 0.0).collect();
        let acceptors: Vec<_> = (0..takes.len()).filter(|&it| accepts[it]).collect();
        let mut asked = Vec::new();
        // For whatever leaves the ring before it has come to any taker.
        let (mut raced, mut raced_by_all) = (0.0, 0.0);
        for (at, &(_, size)) in ranges.iter().enumerate() {
            asked.clear();
            let (mut left, mut to) = (size, at);
            while left > 0.0 && asked.len() < takers.len() {
                to += next_takes[to % ranges.len()];
                if !self.is_near(to - at) {
                    break;
                }
                let index = ranges[to % ranges.len()].0;
                if !asked.contains(&index) {
                    let taken = left * takes[index].min(1.0);
                    parts[index] += taken;
                    left -= taken;
                    asked.push(index);
                }
                to += 1;
            }
            if asked.is_empty() {
                raced += left;
                continue;
            }
            let others = takers.iter().copied().filter(|it| !asked.contains(it));
            left = self.race(&mut parts, left, others, |index| takes[index]);
            match next_accepts[at] {
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
        parts
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
fn next(ranges: &[(usize, f64)], which: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut distances = vec![usize::MAX / 2; ranges.len()];
    let mut distance = usize::MAX / 4;
    // Twice around: the first time for those behind the last one.
    for at in (0..ranges.len()).rev().chain((0..ranges.len()).rev()) {
        distance = if which(ranges[at].0) { 0 } else { distance + 1 };
        distances[at] = distance;
    }
    distances
}
