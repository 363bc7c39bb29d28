//! One value of one metric, and the trait of sinks that take it.

use super::descriptor::Descriptor;

/// Takes the values that are read. Implement it for an exporter of your own.
///
/// [`Metrics::read`](super::Metrics::read) calls it once for each series.
///
/// ```
/// use tower_headless::metrics::{MetricsSink, Sample, Value};
///
/// /// Lines, one for each counter and gauge.
/// #[derive(Default)]
/// struct Lines(String);
///
/// impl MetricsSink for Lines {
///     fn sample(&mut self, sample: &Sample<'_>) {
///         let value = match sample.value {
///             Value::Count(count) => count as f64,
///             Value::Seconds(seconds) => seconds,
///             Value::Gauge(value) => value,
///             _ => return,
///         };
///         let name = sample.descriptor.name;
///         self.0 += &format!("{name} {:?} {value}\n", sample.labels);
///     }
/// }
/// ```
pub trait MetricsSink {
    /// Takes one series, and its value now.
    fn sample(&mut self, sample: &Sample<'_>);
}

/// One series of a metric, and its value now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sample<'a> {
    /// The metric.
    pub descriptor: &'static Descriptor,
    /// Names and values of its labels, `upstream.service` first.
    pub labels: &'a [(&'static str, &'a str)],
    /// The value.
    pub value: Value<'a>,
    /// Changes when another balancer or endpoint takes over the same labels. Its counters begin at zero again.
    pub life: Life,
}

/// Tells a balancer, or endpoint, from an earlier one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Life {
    pub(super) balancer: u64,
    pub(super) endpoint: u64,
}

/// The value of a series.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// The value of a [counter](super::Kind::Counter).
    Count(u64),
    /// The value of a counter of seconds.
    Seconds(f64),
    /// The value of a [gauge](super::Kind::Gauge).
    Gauge(f64),
    /// The value of a [histogram](super::Kind::Histogram).
    Histogram(Histogram<'a>),
}

/// Times in seconds, counted in buckets.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Histogram<'a> {
    /// The buckets' upper bounds in seconds; one more bucket is above them.
    pub bounds: &'static [f64],
    /// How many are in each bucket: not cumulative, and without empty buckets at the end.
    pub buckets: &'a [u64],
    /// The sum of all times, in seconds.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

impl Histogram<'_> {
    /// How many are at or below each bound. The last bound is `None`: its count includes all.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let buckets = self.buckets.iter().copied().chain(std::iter::repeat(0));
        bounds.zip(buckets).scan(0, |below, (bound, held)| {
            *below += held;
            Some((bound, *below))
        })
    }
}
