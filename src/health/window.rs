//! Requests and failures of the last 30 seconds, in ten buckets.
//!
//! An exact window rather than an average that fades: weighted by arrival, a burst of successes would hide an outage.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(3);

/// From so many requests on, a window tells something.
const ENOUGH: u32 = 5;

/// From so many on, its last bucket alone does. That one with a true rate of 90 % seems to have less than 80 happens once in
/// a thousand times.
const ENOUGH_FOR_ONE: u32 = 100;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Window {
    /// In turn; the one that is filled is the last.
    buckets: [Bucket; BUCKETS],
    /// When the next one is begun.
    turns: Instant,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            buckets: [Bucket::default(); BUCKETS],
            turns: now + BUCKET,
        }
    }

    pub(super) fn add(&mut self, now: Instant, requests: u32, failures: u32) {
        if now >= self.turns {
            let turns = now.duration_since(self.turns).as_nanos() / BUCKET.as_nanos() + 1;
            let turns = usize::try_from(turns).unwrap_or(BUCKETS);
            self.buckets.rotate_left(turns.min(BUCKETS));
            let stale = BUCKETS - turns.min(BUCKETS);
            self.buckets[stale..].fill(Bucket::default());
            self.turns = match u32::try_from(turns) {
                Ok(turns) if turns < 1 << 16 => self.turns + BUCKET * turns,
                _ => now + BUCKET,
            };
        }
        let last = &mut self.buckets[BUCKETS - 1];
        last.requests = last.requests.saturating_add(requests);
        last.failures = last.failures.saturating_add(failures);
    }

    /// Whether enough is known to say that the part of successes is below `rate`.
    pub(super) fn is_below(&self, rate: f64) -> bool {
        let is_below = |buckets: &[Bucket], enough: u32| {
            let sum = |number: fn(&Bucket) -> u32| -> u64 {
                buckets.iter().map(|bucket| u64::from(number(bucket))).sum()
            };
            let requests = sum(|bucket| bucket.requests);
            let failures = sum(|bucket| bucket.failures);
            requests >= u64::from(enough)
                && (requests.saturating_sub(failures) as f64) < requests as f64 * rate
        };
        is_below(&self.buckets, ENOUGH) || is_below(&self.buckets[BUCKETS - 1..], ENOUGH_FOR_ONE)
    }

    /// What was is not to count again.
    pub(super) fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_requests_say_nothing() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.add(now, 4, 4);
        assert!(!window.is_below(0.8));
        window.add(now, 1, 0);
        assert!(window.is_below(0.8));
    }

    #[test]
    fn exactly_the_rate_is_enough() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.add(now, 10, 2);
        assert!(!window.is_below(0.8));
        window.add(now, 4, 1);
        assert!(window.is_below(0.8));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let mut window = Window::new(start);
        window.add(start, 10, 10);
        for seconds in [1, 10, 29] {
            window.add(start + Duration::from_secs(seconds), 0, 0);
            assert!(window.is_below(0.8), "after {seconds} s");
        }
        window.add(start + Duration::from_secs(31), 0, 0);
        assert!(!window.is_below(0.8));
        window.add(start + Duration::from_secs(86_400), 10, 10);
        assert!(window.is_below(0.8));
    }

    #[test]
    fn a_bad_bucket_of_many_is_enough_after_a_long_good_time() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for second in 0..30 {
            window.add(start + Duration::from_secs(second), 200, 0);
        }
        let bad = start + Duration::from_secs(31);
        window.add(bad, 99, 99);
        assert!(!window.is_below(0.8));
        window.add(bad, 1, 0);
        assert!(window.is_below(0.8));
    }
}
