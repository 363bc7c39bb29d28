//! A histogram of latencies with fixed buckets. Each bound is 1.25 to 3 times the one before.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bounds of the buckets of [`LatencyCounts`], in microseconds; one more bucket is above them.
///
/// They include all of OpenTelemetry's recommended bounds for HTTP durations (5 ms to 10 s), so its histograms can be
/// made from these without loss.
pub const LATENCY_BOUNDS: [u64; 21] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000,
    750_000, 1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000, 30_000_000, 60_000_000,
];

/// How many buckets there are.
const BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// How long successful requests took, from when their endpoint got them to the start of its answer.
///
/// A request counts when it ends. So a streaming response counts at its end, but with the time to its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct LatencyCounts {
    /// For each bound in [`LATENCY_BOUNDS`], how many requests took at most that long but longer than the bound before.
    /// The last bucket has all others. Not cumulative.
    pub buckets: Vec<u64>,
    /// The sum of their times, in microseconds.
    pub sum_micros: u64,
}

impl LatencyCounts {
    /// How many requests were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time within which this part of the requests (0 to 1) was answered; `None` if there are no requests.
    ///
    /// It is interpolated between the bounds of a bucket, as Prometheus' `histogram_quantile` does. Above the last
    /// bound, the result is the last bound.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = part.clamp(0.0, 1.0) * count as f64;
        let mut below = 0_u64;
        for (index, &held) in self.buckets.iter().enumerate() {
            if held > 0 && (below + held) as f64 >= rank {
                let lower = index.checked_sub(1).map_or(0, bound);
                let width = bound(index) - lower;
                let part = ((rank - below as f64) / held as f64).max(0.0);
                let micros = lower as f64 + width as f64 * part;
                return Some(Duration::from_micros(micros as u64));
            }
            below += held;
        }
        Some(Duration::from_micros(bound(BUCKETS - 1)))
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.sum_micros += other.sum_micros;
    }
}

/// The upper bound of a bucket. The last bucket, which has none, takes the bound of the one before.
fn bound(index: usize) -> u64 {
    LATENCY_BOUNDS[index.min(LATENCY_BOUNDS.len() - 1)]
}

/// The histogram that requests write.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    /// In nanoseconds: enough for 584 years.
    sum: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// A time of zero means that the answer was there at the first poll.
    #[inline]
    pub(super) fn add(&self, nanos: u64) {
        if nanos == 0 {
            self.buckets[0].fetch_add(1, Relaxed);
            return;
        }
        let micros = nanos / 1_000;
        let index = LATENCY_BOUNDS.partition_point(|&bound| bound < micros);
        self.buckets[index].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }

    pub(super) fn counts(&self) -> LatencyCounts {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        LatencyCounts {
            buckets: buckets.collect(),
            sum_micros: self.sum.load(Relaxed) / 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bound_it_does_not_pass() {
        for (micros, index) in [
            (0, 0),
            (100, 0),
            (101, 1),
            (250, 1),
            (60_000_000, 20),
            (u64::MAX / 1_000, 21),
        ] {
            let latencies = Latencies::default();
            latencies.add(micros * 1_000);
            let counts = latencies.counts();
            assert_eq!(counts.buckets.iter().position(|&it| it == 1), Some(index));
            assert_eq!((counts.count(), counts.sum_micros), (1, micros));
        }
    }

    #[test]
    fn a_quantile_is_between_the_bounds_of_its_bucket() {
        let latencies = Latencies::default();
        assert_eq!(latencies.counts().quantile(0.5), None);
        (0..90).for_each(|_| latencies.add(2_000_000));
        (0..10).for_each(|_| latencies.add(800_000_000));
        let counts = latencies.counts();
        let quantile = |part| counts.quantile(part).expect("there are requests");
        let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        assert!(millis(1, 3).contains(&quantile(0.5)));
        assert!(millis(750, 1_000).contains(&quantile(0.95)));
        assert!(quantile(0.99) > quantile(0.95));
    }
}
