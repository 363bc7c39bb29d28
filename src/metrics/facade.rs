//! Metrics through the facade of the crate `metrics`.

use std::{collections::HashSet, fmt, time::Duration};

use ::metrics::{Key, KeyName, Label, Level, Metadata, SharedString};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Metrics,
    carried::{Carried, ENDED},
    descriptor::{Kind, Unit, prometheus_label},
    sample::{Life, MetricsSink, Sample, Value},
    table::METRICS,
};
use crate::sync::Mutex;

/// Writes metrics to the facade of the crate [`metrics`](::metrics), whatever exporter is behind it. Feature `metrics`.
///
/// ```
/// # #[cfg(not(feature = "http"))]
/// # fn main() {}
/// # #[cfg(feature = "http")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// use std::time::Duration;
/// use metrics_exporter_prometheus::PrometheusBuilder;
/// use tower_headless::{Balancers, http::Client, metrics::{Metrics, Recorder}};
///
/// let prometheus = PrometheusBuilder::new().install_recorder()?;
/// let client = Client::builder("http://web-headless.default:80".parse()?).build()?;
/// let balancers = Balancers::new();
/// balancers.add(&client);
///
/// let recorder = Recorder::new(Metrics::new(&balancers));
/// recorder.record(); // before each scrape: or `tokio::spawn(recorder.record_every(Duration::from_secs(5)))`
/// let page = prometheus.render();
/// assert!(page.contains(r#"tower_headless_requests_total{upstream_service="web-headless.default",outcome="success"} 0"#), "{page}");
/// # let _ = Duration::ZERO;
/// # Ok(())
/// # }
/// ```
///
/// # Names
///
/// The names are Prometheus's from [the table](super#all-metrics), whatever the exporter. Leave the exporter's
/// `with_recommended_naming` off, because it would append `_total` to `_bucket` and `_count`.
///
/// # Histograms
///
/// The facade takes no histogram that is already counted, so each becomes counters: `…_bucket` with the label `le`,
/// `…_count`, and `…_sum`. Prometheus stores a histogram in this form, so `histogram_quantile` works as usual.
///
/// The facade's counters are whole numbers. So `…_sum` and `…_wait_time_seconds_total`, in seconds, are gauges that
/// only ever go up. Prometheus's `rate` takes them as they are.
///
/// # Series that end
///
/// When a balancer is dropped, or an endpoint leaves, its gauges are set to zero once. Its counters stay as they are
/// until the exporter drops series that nobody writes, if it is told to (`PrometheusBuilder::idle_timeout`). If a new
/// balancer or endpoint has the same labels, its counters go on from there. So use one recorder for as long as the
/// process runs.
pub struct Recorder {
    metrics: Metrics,
    written: Mutex<Written>,
}

/// What the last recording wrote.
struct Written {
    carried: Carried<Key>,
    gauges: HashSet<Key>,
}

impl Recorder {
    /// Records these metrics.
    pub fn new(metrics: Metrics) -> Self {
        let written = Written {
            carried: Carried::new(ENDED),
            gauges: HashSet::new(),
        };
        Self {
            metrics,
            written: Mutex::new(written),
        }
    }

    /// Writes all current values to the installed recorder.
    pub fn record(&self) {
        ::metrics::with_recorder(|recorder| self.record_to(recorder));
    }

    /// Writes all current values to this recorder, such as a `PrometheusRecorder` that isn't installed.
    pub fn record_to(&self, recorder: &dyn ::metrics::Recorder) {
        describe(recorder);
        let mut written = self.written.lock();
        let mut writer = Writer {
            recorder,
            carried: &mut written.carried,
            gauges: HashSet::new(),
        };
        self.metrics.read(&mut writer);
        let gauges = writer.gauges;
        for ended in written.gauges.difference(&gauges) {
            recorder.register_gauge(ended, &METADATA).set(0.0);
        }
        written.gauges = gauges;
        written.carried.end_round();
    }

    /// [Records](Self::record) at once, then at each `interval`. Spawn this future: it ends when it is dropped, or its
    /// task is aborted.
    ///
    /// An interval of zero counts as a millisecond. The values that a scrape finds are at most one interval old.
    pub async fn record_every(self, every: Duration) {
        let mut ticks = interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.record();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Recorder");
        debug
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> =
    Metadata::new("tower_headless::metrics", Level::INFO, Some(module_path!()));

fn describe(recorder: &dyn ::metrics::Recorder) {
    for metric in METRICS {
        let name = metric.prometheus_name();
        let unit = match metric.unit {
            Unit::Seconds => Some(::metrics::Unit::Seconds),
            _ => None,
        };
        let text = || SharedString::from(metric.description);
        let counter = |name: String| recorder.describe_counter(name.into(), None, text());
        let gauge = |name: String| {
            let name = KeyName::from(name);
            recorder.describe_gauge(name, unit, text());
        };
        match (metric.kind, metric.unit) {
            (Kind::Histogram, _) => {
                counter(name.clone() + "_bucket");
                gauge(name.clone() + "_sum");
                counter(name + "_count");
            }
            (Kind::Counter, Unit::Seconds) | (Kind::Gauge, _) => gauge(name),
            (Kind::Counter, _) => counter(name),
        }
    }
}

struct Writer<'a> {
    recorder: &'a dyn ::metrics::Recorder,
    carried: &'a mut Carried<Key>,
    /// The series that aren't counters.
    gauges: HashSet<Key>,
}

impl Writer<'_> {
    fn count(&mut self, key: Key, life: Life, count: u64) {
        let counter = self.recorder.register_counter(&key, &METADATA);
        let total = self.carried.total(key, life, count as f64);
        counter.absolute(total as u64);
    }

    fn seconds(&mut self, key: Key, life: Life, seconds: f64) {
        let gauge = self.recorder.register_gauge(&key, &METADATA);
        gauge.set(self.carried.total(key, life, seconds));
    }
}

impl MetricsSink for Writer<'_> {
    fn sample(&mut self, sample: &Sample<'_>) {
        let name = sample.descriptor.prometheus_name();
        let labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, value)| Label::new(prometheus_label(name), (*value).to_owned()))
            .collect();
        let life = sample.life;
        match sample.value {
            Value::Count(count) => self.count(Key::from_parts(name, labels), life, count),
            Value::Seconds(seconds) => self.seconds(Key::from_parts(name, labels), life, seconds),
            Value::Gauge(value) => {
                let key = Key::from_parts(name, labels);
                self.recorder.register_gauge(&key, &METADATA).set(value);
                self.gauges.insert(key);
            }
            Value::Histogram(histogram) => {
                for (bound, count) in histogram.cumulative() {
                    let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
                    let mut labels = labels.clone();
                    labels.push(Label::new("le", bound));
                    let key = Key::from_parts(format!("{name}_bucket"), labels);
                    self.count(key, life, count);
                }
                let sum = Key::from_parts(format!("{name}_sum"), labels.clone());
                self.seconds(sum, life, histogram.sum);
                let count = Key::from_parts(format!("{name}_count"), labels);
                self.count(count, life, histogram.count);
            }
        }
    }
}
