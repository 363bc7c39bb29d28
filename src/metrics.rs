//! What is counted, as metrics: on the facade of `metrics`, or on OpenTelemetry's API.
//!
//! Nothing is pushed by requests: what balancers count anyway is read when somebody looks. [`Metrics`] reads it, and gives each value
//! to a [`MetricsSink`]. There is one for the facade of the crate `metrics` (feature `metrics`: `Recorder`), and one for
//! OpenTelemetry (feature `otel`: `observe`); an exporter of your own is another.
//!
//! An HTTP client [counts](crate::BalanceBuilder::counters) unless told not to, a [`Balance`](crate::Balance) only if told to. One that
//! doesn't has only gauges, and of those not the ones that need a memory: `panic`, `endpoints{state="panic"}`, `discovery.fallback`,
//! `discovery.last_change`, `requests.waiting` and `open_connections` are missing, and an endpoint in a panic is `picked`.
//!
//! # All metrics
//!
//! Each has the label `upstream.service` (in Prometheus `upstream_service`), the balancer's name in its
//! [`Balancers`]; the table has the others. Their values are bounded by what the table
//! lists. The series of single endpoints have names of their own, `tower_headless.endpoint.…`, and are there only if asked for
//! ([`Metrics::per_endpoint`]). So a service's series are the same with and without them, and their sums go on when an endpoint
//! leaves, whose own series just end.
//!
#![doc = include_str!("metrics/table.md")]
//!
//! The staleness is there from discovery's first answer on, the last change from the first set on.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `metrics/descriptor.rs` | name, kind and unit of a metric, and its name in Prometheus |
//! | `metrics/table.rs` | all metrics; `table.md` is the same for readers |
//! | `metrics/sample.rs` | a value, and who takes it |
//! | `metrics/reading.rs` | from an explanation to values |
//! | `metrics/carried.rs` | counters that go on where another balancer has the name |
//! | `metrics/facade.rs` | feature `metrics` |
//! | `metrics/otel.rs` | feature `otel` |

mod carried;
mod descriptor;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "otel")]
mod otel;
mod reading;
mod sample;
mod table;

pub use descriptor::{Descriptor, Kind, Unit, prometheus_label};
#[cfg(feature = "metrics")]
pub use facade::Recorder;
#[cfg(feature = "otel")]
pub use otel::{Observed, observe};
pub use sample::{Histogram, Life, MetricsSink, Sample, Value};
pub use table::METRICS;

use self::reading::Series;
use crate::explain::Balancers;

/// The metrics of a process' balancers, read when somebody looks.
///
/// Clones read the same balancers. To read costs what [`Balance::explain`](crate::Balance::explain) does for each: some
/// microseconds for each endpoint, and under [`ConsistentHash`](crate::ConsistentHash) up to some ten milliseconds more while something is
/// wrong with an endpoint.
#[derive(Clone, Debug)]
pub struct Metrics {
    balancers: Balancers,
    is_per_endpoint: bool,
}

impl Metrics {
    /// Of these balancers, and of those that are added later.
    pub fn new(balancers: &Balancers) -> Self {
        Self {
            balancers: balancers.clone(),
            is_per_endpoint: false,
        }
    }

    /// Whether each endpoint has series of its own, labelled with its address and its zone; not so by default.
    ///
    /// They are about 45 for each endpoint, and each pod of a rollout is a new one: ask for them where the sets are small. OpenTelemetry's
    /// SDK takes no more than 90 endpoints unless told to: see `observe`.
    pub fn per_endpoint(mut self, is_per_endpoint: bool) -> Self {
        self.is_per_endpoint = is_per_endpoint;
        self
    }

    /// Gives the values of all series, as they are now, to `sink`.
    pub fn read(&self, sink: &mut dyn MetricsSink) {
        for (name, number, explanation) in self.balancers.explain_numbered() {
            let mut series = Series::new(&name, number, sink);
            series.read(&explanation);
            if self.is_per_endpoint {
                let mut endpoints = explanation.endpoints.iter();
                endpoints.by_ref().for_each(|it| series.read_endpoint(it));
            }
        }
    }
}
