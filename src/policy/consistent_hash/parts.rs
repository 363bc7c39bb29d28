//! What part of all keys each endpoint has: by the ring alone, and as things are now.

use super::{Picker, STEPS};
use crate::member::Members;

impl Picker {
    /// How likely it chooses each for a request whose key may be any.
    pub(in crate::policy) fn shares(&self, members: &Members) -> Vec<f64> {
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
    fn parts(&self, takes: &[f64], accepts: &[bool]) -> Vec<f64> {
        let ranges: Vec<_> = self.ring.ranges().collect();
        let mut parts = vec![0.0; self.nodes.len()];
        let takers = next(&ranges, |index| takes[index] > 0.0);
        let accepting = next(&ranges, |index| accepts[index]);
        let count = takes.iter().filter(|&&it| it > 0.0).count();
        // No point takes a key, so that all takers run for it; or no taker does, and all that accept it.
        let (mut run, mut run_of_all) = (0.0, 0.0);
        let mut refused = Vec::new();
        for (at, &(_, size)) in ranges.iter().enumerate() {
            let mut left = size;
            refused.clear();
            let mut to = at;
            while left > 0.0 && refused.len() < count {
                to = match takers.get(to % ranges.len()) {
                    Some(&distance) if self.is_near(to - at + distance) => to + distance,
                    _ => break,
                };
                let index = ranges[to % ranges.len()].0;
                if !refused.contains(&index) {
                    let taken = left * takes[index].min(1.0);
                    parts[index] += taken;
                    left -= taken;
                    refused.push(index);
                }
                to += 1;
            }
            if refused.len() < count {
                run += left;
                continue;
            }
            match accepting[at] {
                distance if self.is_near(distance) => {
                    parts[ranges[(at + distance) % ranges.len()].0] += left;
                }
                _ => run_of_all += left,
            }
        }
        if ranges.is_empty() {
            run_of_all = 1.0;
        }
        self.run(&mut parts, run, |index| takes[index]);
        self.run(&mut parts, run_of_all, |index| {
            f64::from(u8::from(accepts[index]))
        });
        parts
    }

    /// Whether a pick goes on along the ring for so many points.
    fn is_near(&self, distance: usize) -> bool {
        distance < STEPS * self.nodes.len()
    }

    /// Gives `part` of the keys to those that win it in a race of all: as their weights say, or alike if none has any.
    fn run(&self, parts: &mut [f64], part: f64, takes: impl Fn(usize) -> f64) {
        let weight = |index: usize| f64::from(self.nodes[index].weight) * takes(index);
        let all: f64 = (0..parts.len()).map(weight).sum();
        let alike: f64 = (0..parts.len()).map(&takes).sum();
        for (index, it) in parts.iter_mut().enumerate() {
            if all > 0.0 {
                *it += part * weight(index) / all;
            } else if alike > 0.0 {
                *it += part * takes(index) / alike;
            }
        }
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
