//! Requests and failures of the last 30 seconds, in ten buckets.
//!
//! An exact window, and no decaying average: weighted by arrival, a burst of successes would hide an outage.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(3);

/// The least number of requests by which the whole window is judged.
const ENOUGH: f64 = 5.0;

/// The least number of requests by which the latest part of it is judged alone.
const ENOUGH_OF_LATE: f64 = 20.0;

/// How many standard deviations of a binomial distribution the latest part has to be below the rate. If an endpoint has
/// 90 % successes, twenty requests are that far below 80 % once in 2,400 times, and more requests even less often.
const DOUBT: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Window {
    /// In order of time; the last one is being filled.
    buckets: [Bucket; BUCKETS],
    /// When the next one begins.
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

    /// Whether the success rate is below `rate`, with enough requests to tell: over the whole window, or clearly over
    /// its latest part. The latter is for an endpoint that was healthy for long, and has many old successes.
    pub(super) fn is_below(&self, rate: f64) -> bool {
        let (mut requests, mut failures) = (0.0, 0.0);
        for bucket in self.buckets.iter().rev() {
            requests += f64::from(bucket.requests);
            failures += f64::from(bucket.failures);
            let doubt = DOUBT * (requests * rate * (1.0 - rate)).sqrt();
            let excess = failures - requests * (1.0 - rate);
            if requests >= ENOUGH_OF_LATE && excess > doubt {
                return true;
            }
        }
        // Exactly the rate is enough, in spite of rounding.
        requests >= ENOUGH && failures - requests * (1.0 - rate) > 1e-9
    }

    /// Forgets everything, so that it doesn't count again.
    pub(super) fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_five_requests_are_not_judged() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.add(now, 4, 4);
        assert!(!window.is_below(0.8));
        window.add(now, 1, 0);
        assert!(window.is_below(0.8));
    }

    #[test]
    fn exactly_the_rate_is_not_below_it() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.add(now, 10, 2);
        assert!(!window.is_below(0.8));
        window.add(now, 4, 1);
        assert!(window.is_below(0.8));
    }

    #[test]
    fn requests_older_than_the_window_are_forgotten() {
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
    fn after_a_long_good_time_recent_failures_are_enough_if_significant() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for second in 0..30 {
            window.add(start + Duration::from_secs(second), 200, 0);
        }
        let bad = start + Duration::from_secs(31);
        window.add(bad, 19, 19);
        assert!(!window.is_below(0.8), "too few");
        window.add(bad, 1, 0);
        assert!(window.is_below(0.8));
        // A quarter failing may be chance, of so few.
        let later = bad + Duration::from_secs(40);
        for second in 0..20 {
            window.add(later + Duration::from_secs(second), 200, 0);
        }
        window.add(later + Duration::from_secs(24), 40, 10);
        assert!(!window.is_below(0.8));
        window.add(later + Duration::from_secs(24), 400, 100);
        assert!(window.is_below(0.8));
    }
}
