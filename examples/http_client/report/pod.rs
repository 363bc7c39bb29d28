//! One pod's numbers.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tower_headless::{Endpoint, EndpointState, EndpointStatus};

use crate::table::Row;

/// The numbers and the state of one pod.
#[derive(Default)]
pub(crate) struct Pod {
    /// `None` if the balancer doesn't have the pod (yet, or any more).
    state: Option<EndpointState>,
    in_flight: u32,
    latencies: Latencies,
    /// Answers of the last second.
    pub(crate) recent: u64,
    /// Whether discovery has named it.
    pub(crate) known: bool,
    /// When it came; `None` if it was there from the beginning.
    pub(crate) new_since: Option<Instant>,
    first_answer: Option<Instant>,
    /// Whether its first answer has been printed.
    in_use: bool,
}

impl Pod {
    pub(crate) fn answered(&mut self, now: Instant, took: Duration) {
        self.latencies.record(took);
        self.first_answer.get_or_insert(now);
    }

    pub(crate) fn answers(&self) -> u64 {
        self.latencies.count()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.is_none()
    }

    /// Takes over the balancer's view. Returns what has changed, if anything.
    pub(crate) fn look_at(&mut self, status: Option<&EndpointStatus>) -> Option<&'static str> {
        let before = self.state;
        self.state = status.map(|status| status.state);
        self.in_flight = status.map_or(0, |status| status.in_flight);
        match (before?, self.state?) {
            (EndpointState::Available, EndpointState::Unreachable) => Some("refuses connections"),
            (EndpointState::Unreachable, EndpointState::Available) => Some("accepts again"),
            _ => None,
        }
    }

    /// How long after its coming a new pod gave its first answer.
    pub(crate) fn first_answer_after(&self) -> Option<Duration> {
        // Its first answer may be seen before the news of its coming.
        Some(
            self.first_answer?
                .saturating_duration_since(self.new_since?),
        )
    }

    /// Like `first_answer_after`, but only once.
    pub(crate) fn take_into_use(&mut self) -> Option<Duration> {
        let after = self.first_answer_after()?;
        (!std::mem::replace(&mut self.in_use, true)).then_some(after)
    }

    /// Its row, with a share of `part` in `whole`.
    pub(crate) fn row(&self, endpoint: &Endpoint, part: u64, whole: u64) -> Row {
        Row {
            hostname: endpoint.hostname().map(str::to_owned),
            address: endpoint.address(),
            state: self
                .state
                .map_or("gone".to_owned(), |state| state.to_string()),
            in_flight: self.state.map(|_| self.in_flight),
            share: part as f64 / whole.max(1) as f64,
            answers: self.answers(),
            p50: self.latencies.quantile(0.5),
            p99: self.latencies.quantile(0.99),
        }
    }
}

/// Longer times count as this.
const LONGEST: Duration = Duration::from_secs(60);

/// How long requests took, in microseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(LONGEST.as_micros() as u64, 2);
        Self(histogram.expect("the bounds are among those allowed"))
    }
}
