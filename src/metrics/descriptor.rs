//! What is known of a metric whatever its values are.

use std::fmt;

/// A metric: its name, what it counts, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its name, in OpenTelemetry's manner: with dots, without its unit.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// In what.
    pub unit: Unit,
    /// The names of its labels, apart from `upstream.service`, which all have.
    pub labels: &'static [&'static str],
    /// What it tells, in half a sentence.
    pub description: &'static str,
}

impl Descriptor {
    /// Its name in Prometheus: underscores for dots, then `_seconds` or `_ratio` by its unit, and `_total` if it is a counter.
    ///
    /// A histogram's series have `_bucket`, `_sum` and `_count` behind that.
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

/// A label's name in Prometheus: with underscores for dots.
pub fn prometheus_label(name: &str) -> String {
    name.replace('.', "_")
}

/// How a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It never goes down, as long as its balancer and its endpoint live.
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

/// What a metric counts.
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
    /// How often something was.
    Times,
    /// A number without a unit.
    Ratio,
    /// 1 if something is so, 0 if not.
    Flag,
    /// Discovery's answers.
    Answers,
    /// Connections.
    Connections,
}

impl Unit {
    /// In [UCUM](https://ucum.org), as OpenTelemetry has it: `s`, `1`, `{request}`; empty for a flag.
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
