//! What is fixed about a metric: its name, kind and unit.

use std::fmt;

/// A metric: its name, what it counts, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its name in OpenTelemetry's style: with dots, without its unit.
    pub name: &'static str,
    /// Whether it is a counter, a gauge or a histogram.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// The names of its labels, without `upstream.service`, which all metrics have.
    pub labels: &'static [&'static str],
    /// What it measures, in half a sentence.
    pub description: &'static str,
}

impl Descriptor {
    /// Its name in Prometheus: underscores for dots, then `_seconds` or `_ratio` for its unit, and `_total` for a
    /// counter.
    ///
    /// A histogram's series append `_bucket`, `_sum` and `_count`.
    pub fn prometheus_name(&self) -> String {
        let unit = match self.unit {
            Unit::Seconds => "_seconds",
            Unit::Ratio => "_ratio",
            _ => "",
        };
        let kind = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{kind}", prometheus_label(self.name))
    }
}

/// A label's name in Prometheus: underscores for dots.
pub fn prometheus_label(name: &str) -> String {
    name.replace('.', "_")
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It never goes down while its balancer and its endpoint live.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Times, counted in buckets, which never go down.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// Seconds.
    Seconds,
    /// Endpoints.
    Endpoints,
    /// Ejections.
    Ejections,
    /// How often something happened.
    Times,
    /// A number without a unit.
    Ratio,
    /// 1 for true, 0 for false.
    Flag,
    /// Discovery's answers.
    Answers,
    /// Connections.
    Connections,
}

impl Unit {
    /// The unit in [UCUM](https://ucum.org), as OpenTelemetry writes it: `s`, `1`, `{request}`; empty for a flag.
    pub fn ucum(self) -> &'static str {
        match self {
            Self::Requests => "{request}",
            Self::Seconds => "s",
            Self::Endpoints => "{endpoint}",
            Self::Ejections => "{ejection}",
            Self::Times => "{time}",
            Self::Ratio => "1",
            Self::Flag => "",
            Self::Answers => "{answer}",
            Self::Connections => "{connection}",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Seconds => "seconds",
            Self::Endpoints => "endpoints",
            Self::Ejections => "ejections",
            Self::Times => "times",
            Self::Ratio => "ratio",
            Self::Flag => "0 or 1",
            Self::Answers => "answers",
            Self::Connections => "connections",
        })
    }
}
