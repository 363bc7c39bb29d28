//! How long an endpoint is out: longer each time.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::OutlierDetection;
use crate::backoff::Backoff;

const JITTER: f64 = 0.1;

/// How long an endpoint has to serve for its pauses to begin anew; longer if its last pause was longer.
const WELL: Duration = Duration::from_secs(30);

/// A slow endpoint is tried sooner, because a trial costs a request only some time.
const MIN_SLOW: Duration = Duration::from_millis(200);
const MAX_SLOW: Duration = Duration::from_secs(5);
const SLOW_JITTER: f64 = 0.2;

/// A slow endpoint's pauses begin anew once it has served for this many times the last one. So an endpoint with hiccups
/// now and then loses at most a fifth of its time, and isn't out for longer than a hiccup.
const KEPT_UP: u32 = 4;

/// The pauses of one endpoint, of one kind.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    backoff: Option<Backoff>,
    last: Duration,
    /// When the endpoint first came back after the last pause.
    returned: Option<Instant>,
}

impl Pauses {
    /// The next pause of an endpoint that fails.
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

    /// The next pause of an endpoint that is late.
    pub(super) fn late(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let well = self.last * KEPT_UP;
        let backoff = || Backoff::new(MIN_SLOW, 2.0, MAX_SLOW, SLOW_JITTER);
        self.next(well, backoff, now, rng)
    }

    /// The next pause; the first one again if the endpoint has served for `well`.
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
