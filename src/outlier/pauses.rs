//! For how long an endpoint is out, each time longer than the time before.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::OutlierDetection;
use crate::backoff::Backoff;

const JITTER: f64 = 0.1;

/// An endpoint that was in for as long begins anew, unless it was out for longer.
const WELL: Duration = Duration::from_secs(30);

/// A slow endpoint is tried sooner, for that costs a request some time and no more.
const MIN_SLOW: Duration = Duration::from_millis(200);
const MAX_SLOW: Duration = Duration::from_secs(5);
const SLOW_JITTER: f64 = 0.2;

/// A slow endpoint begins anew after so many times its last pause: then a hiccup now and then costs a fifth of its time at
/// most, and is no reason to leave it out for longer than the hiccup.
const KEPT_UP: u32 = 4;

/// The pauses of one endpoint, of one kind.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    backoff: Option<Backoff>,
    last: Duration,
    /// When it first came back after the last one.
    returned: Option<Instant>,
}

impl Pauses {
    /// The next one of an endpoint that fails.
    pub(super) fn failed(
        &mut self,
        settings: &OutlierDetection,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Duration {
        let (min, max) = (settings.min_ejection, settings.max_ejection);
        let well = self.last.max(WELL);
        self.next(well, || Backoff::new(min, 2.0, max, JITTER), now, rng)
    }

    /// The next one of an endpoint that is late.
    pub(super) fn late(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let well = self.last * KEPT_UP;
        let backoff = || Backoff::new(MIN_SLOW, 2.0, MAX_SLOW, SLOW_JITTER);
        self.next(well, backoff, now, rng)
    }

    /// The first one, if it was in for so long that its past is past.
    fn next(
        &mut self,
        well: Duration,
        backoff: impl FnOnce() -> Backoff,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Duration {
        let returned = self.returned.take();
        if returned.is_some_and(|at| now.saturating_duration_since(at) >= well) {
            self.backoff = None;
        }
        self.last = self.backoff.get_or_insert_with(backoff).next(rng);
        self.last
    }

    pub(super) fn last(&self) -> Duration {
        self.last
    }

    /// The endpoint is back.
    pub(super) fn end(&mut self, now: Instant) {
        self.returned.get_or_insert(now);
    }
}
