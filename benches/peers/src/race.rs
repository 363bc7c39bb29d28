//! Candidates side by side: in every round each runs for some milliseconds, A, B, C, A, B, C.

use crate::support::{Burst, calibrate};

/// The nanoseconds of each round, by candidates.
pub type Rounds = Vec<(&'static str, Vec<f64>)>;

/// How often and for how many nanoseconds to measure.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How often the candidates are made anew: where they are in memory, and how maps hash their keys, is chance.
    pub makings: usize,
    /// Of each making.
    pub rounds: usize,
    pub window: f64,
}

impl Plan {
    /// All rounds of all makings.
    pub fn repeat(self, race: impl Fn(Self) -> Rounds) -> Rounds {
        let mut all = race(self);
        for _ in 1..self.makings {
            for ((_, rounds), (_, more)) in all.iter_mut().zip(race(self)) {
                rounds.extend(more);
            }
        }
        all
    }
}

/// A round's bursts of one candidate.
const BURSTS: usize = 5;

#[derive(Default)]
pub struct Race<'a>(Vec<(&'static str, Burst<'a>)>);

impl<'a> Race<'a> {
    pub fn add(&mut self, name: &'static str, burst: impl FnMut(u64) -> f64 + 'a) {
        self.0.push((name, Box::new(burst)));
    }

    /// The nanoseconds of each round.
    pub fn run(self, plan: Plan) -> Rounds {
        let calibrated = self.0.into_iter().map(|(name, mut burst)| {
            let times = calibrate(&mut burst, plan.window);
            (name, burst, times, Vec::with_capacity(plan.rounds))
        });
        let mut runs: Vec<_> = calibrated.collect();
        for round in 0..plan.rounds {
            // Each round begins with another one, so that none always follows the same predecessor's caches.
            let first = round % runs.len();
            runs.rotate_left(first);
            for (_, burst, times, seen) in &mut runs {
                // The first one fills the caches, which the candidates before have emptied.
                burst(*times);
                seen.push(fastest(burst, *times));
            }
            runs.rotate_right(first);
        }
        runs.into_iter()
            .map(|(name, .., seen)| (name, seen))
            .collect()
    }
}

/// The fastest of a few bursts: what slows the others down is mostly that the system runs something else meanwhile.
fn fastest(burst: &mut Burst<'_>, times: u64) -> f64 {
    let bursts = (0..BURSTS).map(|_| burst(times));
    bursts.fold(f64::INFINITY, f64::min)
}
