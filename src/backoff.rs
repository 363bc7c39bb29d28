//! Growing delays and their jitter. The growth is `backon`'s; the generator is always the caller's, so that a seed
//! reproduces a run.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rand::{Rng, RngExt};

/// Delays that grow by a factor from `min` to `max`, and stay there.
#[derive(Debug)]
pub(crate) struct Backoff {
    delays: ExponentialBackoff,
    jitter: f64,
}

/// The longest pause between attempts to reach an endpoint that refuses.
pub(crate) const LONGEST_RECONNECT: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new(min: Duration, factor: f32, max: Duration, jitter: f64) -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_factor(factor)
            .with_max_delay(max)
            .without_max_times()
            .build();
        Self { delays, jitter }
    }

    /// Between attempts to reach an endpoint that refuses.
    pub(crate) fn of_reconnects() -> Self {
        Self::new(Duration::from_millis(200), 2.0, LONGEST_RECONNECT, 0.2)
    }

    /// Between questions to a source of endpoints that fails.
    #[cfg(any(feature = "dns", feature = "kube"))]
    pub(crate) fn of_discovery() -> Self {
        Self::new(Duration::from_secs(1), 1.6, Duration::from_secs(30), 0.2)
    }

    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let delay = self
            .delays
            .next()
            .expect("a backoff without a limit of times never ends");
        jittered(delay, self.jitter, rng)
    }
}

/// `delay` ± `share` of it, uniformly.
pub(crate) fn jittered(delay: Duration, share: f64, rng: &mut impl Rng) -> Duration {
    delay.mul_f64(rng.random_range(1.0 - share..=1.0 + share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn grows_by_the_factor_to_the_cap_within_the_jitter() {
        let rng = &mut SmallRng::seed_from_u64(7);
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::new(min, 1.6, max, 0.2);
        let mut expected = 1.0_f64;
        for _ in 0..20 {
            let delay = backoff.next(rng).as_secs_f64();
            assert!(
                (expected * 0.799..=expected * 1.201).contains(&delay),
                "{delay}"
            );
            expected = (expected * 1.6).min(30.0);
        }
    }
}
