//! Publishes a balancer's counts as metrics: through the `metrics` facade, or OpenTelemetry's API.
//!
//! Requests push nothing. [`Metrics`] reads what balancers count anyway, when somebody looks, and gives each value to a
//! [`MetricsSink`]. There is a sink for the facade of the crate `metrics` (feature `metrics`: `Recorder`), and one for
//! OpenTelemetry (feature `otel`: `observe`). You can write another for an exporter of your own.
//!
//! An HTTP client [counts](crate::BalanceBuilder::counters) unless told not to, a [`Balance`](crate::Balance) only if
//! told to. A balancer that doesn't count has only gauges. Gauges that need a memory are missing: `panic`,
//! `endpoints{state="panic"}`, `discovery.fallback`, `discovery.last_change`, `requests.waiting` and
//! `open_connections`. An endpoint in a panic is then `picked`.
//!
//! # All metrics
//!
//! Each has the label `upstream.service` (in Prometheus `upstream_service`), the balancer's name in its
//! [`Balancers`]; the table has the others. Labels have no other values than the table lists. The series of single
//! endpoints have names of their own, `tower_headless.endpoint.…`, and exist only if asked for
//! ([`Metrics::per_endpoint`]). So a service's series are the same with and without them. When an endpoint leaves, its
//! own series end, and the service's sums go on.
//!
#![doc = include_str!("metrics/table.md")]
//!
//! `discovery.staleness` exists from discovery's first answer on, `discovery.last_change` from the first set on.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `metrics/descriptor.rs` | name, kind and unit of a metric, and its name in Prometheus |
//! | `metrics/table.rs` | all metrics; `table.md` describes them for readers |
//! | `metrics/sample.rs` | one value, and the trait of sinks |
//! | `metrics/reading.rs` | from an explanation to values |
//! | `metrics/carried.rs` | counters that go on when another balancer takes over the name |
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

/// Reads the metrics of a process's balancers.
///
/// Clones read the same balancers. Reading one costs as much as [`Balance::explain`](crate::Balance::explain): some
/// microseconds for each endpoint. Under [`ConsistentHash`](crate::ConsistentHash) it costs up to some ten milliseconds
/// more while something is wrong with an endpoint.
#[derive(Clone, Debug)]
pub struct Metrics {
    balancers: Balancers,
    is_per_endpoint: bool,
}

impl Metrics {
    /// Reads these balancers, and those that are added to `balancers` later.
    pub fn new(balancers: &Balancers) -> Self {
        Self {
            balancers: balancers.clone(),
            is_per_endpoint: false,
        }
    }

    /// Whether each endpoint has series of its own, labelled with its address and its zone; `false` by default.
    ///
    /// There are about 45 series for each endpoint, and each pod of a rollout is a new endpoint, so use this for small
    /// sets. OpenTelemetry's SDK takes no more than 90 endpoints unless told to: see `observe`.
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
