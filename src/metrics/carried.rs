//! Counters that go on when another balancer, or endpoint, takes over the same labels.
//!
//! The newcomer's own counters begin at zero. The predecessor's counts are added to them, so that the series never goes
//! down. The `metrics` facade and delta temporality both rely on that.

use std::{collections::HashMap, hash::Hash};

use super::sample::Life;

/// How many ended series the facade remembers.
#[cfg(any(feature = "metrics", test))]
pub(super) const ENDED: usize = 50_000;

#[derive(Debug)]
pub(super) struct Carried<K> {
    series: HashMap<K, Series>,
    round: u64,
    /// How many ended series are remembered.
    kept: usize,
}

#[derive(Debug)]
struct Series {
    life: Life,
    last: f64,
    /// The counts of all earlier lives.
    before: f64,
    round: u64,
}

impl<K: Eq + Hash> Carried<K> {
    /// Remembers up to `kept` series that have ended.
    pub(super) fn new(kept: usize) -> Self {
        Self {
            series: HashMap::new(),
            round: 0,
            kept,
        }
    }

    /// The total of a series whose counter is at `count` in this life.
    pub(super) fn total(&mut self, key: K, life: Life, count: f64) -> f64 {
        let round = self.round;
        let series = self.series.entry(key).or_insert(Series {
            life,
            last: 0.0,
            before: 0.0,
            round,
        });
        if series.life != life {
            series.before += series.last;
        }
        (series.life, series.last, series.round) = (life, count, round);
        series.before + count
    }

    /// Call it when all series were read once. If too many series have ended, it forgets them.
    pub(super) fn end_round(&mut self) {
        let ended = |it: &Series| it.round != self.round;
        let many = self.series.values().filter(|it| ended(it)).count();
        if many > self.kept {
            self.series.retain(|_, it| !ended(it));
        }
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_goes_on_in_another_life() {
        let mut carried = Carried::new(ENDED);
        let life = |balancer| Life {
            balancer,
            endpoint: 0,
        };
        let mut count = |balancer, count| {
            let total = carried.total("requests", life(balancer), count);
            carried.end_round();
            total
        };
        assert_eq!(count(1, 7.0), 7.0);
        assert_eq!(count(1, 9.0), 9.0);
        assert_eq!(count(2, 11.0), 20.0);
        assert_eq!(count(3, 1.0), 21.0);
        assert_eq!(count(3, 1.0), 21.0);
    }

    #[test]
    fn ended_series_are_forgotten_when_there_are_too_many() {
        let mut carried = Carried::new(ENDED);
        for number in 0..=ENDED {
            carried.total(number, Life::default(), 1.0);
        }
        carried.end_round();
        assert_eq!(carried.series.len(), ENDED + 1);
        carried.total(0, Life::default(), 1.0);
        carried.end_round();
        assert_eq!(carried.series.len(), ENDED + 1);
        carried.total(ENDED + 1, Life::default(), 1.0);
        carried.end_round();
        assert_eq!(carried.series.len(), 1);
    }
}
