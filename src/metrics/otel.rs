//! Metrics through OpenTelemetry's API.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::Meter};
use tokio::time::Instant;

use super::{
    Metrics,
    carried::Carried,
    descriptor::{Kind, Unit},
    sample::{Life, MetricsSink, Sample, Value},
    table::METRICS,
};
use crate::sync::Mutex;

/// Lets a meter observe the metrics while the returned [`Observed`] is kept. Feature `otel`.
///
/// Names, units and labels are those of [the table](super#all-metrics), with dots. No global meter is used.
///
/// ```
/// # #[cfg(not(feature = "http"))]
/// # fn main() {}
/// # #[cfg(feature = "http")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// use opentelemetry::metrics::MeterProvider;
/// use opentelemetry_sdk::metrics::SdkMeterProvider;
/// use tower_headless::{Balancers, http::Client, metrics::{Metrics, observe}};
///
/// let provider = SdkMeterProvider::builder().build(); // with your reader or exporter
/// let client = Client::builder("http://web-headless.default:80".parse()?).build()?;
/// let balancers = Balancers::new();
/// balancers.add(&client);
///
/// let _observed = observe(&Metrics::new(&balancers), &provider.meter("tower_headless"));
/// # Ok(())
/// # }
/// ```
///
/// # Histograms
///
/// OpenTelemetry has no observable histogram. So each histogram is three counters: `….bucket`, `….sum` and `….count`.
/// `….bucket` has the attribute `le`, the bucket's upper bound in seconds (`+Inf` for the last), and is cumulative.
///
/// Their names in Prometheus differ from those of the [`Recorder`](super::Recorder), and so do queries:
///
/// | `observe`, by OpenTelemetry's Prometheus exporter | `Recorder` |
/// | --- | --- |
/// | `tower_headless_request_duration_bucket_total` | `tower_headless_request_duration_seconds_bucket` |
/// | `tower_headless_request_duration_sum_seconds_total` | `tower_headless_request_duration_seconds_sum` |
/// | `tower_headless_request_duration_count_total` | `tower_headless_request_duration_seconds_count` |
///
/// So the 95th percentile is
/// `histogram_quantile(0.95, sum by (le) (rate(tower_headless_request_duration_bucket_total[5m])))`.
/// `endpoint.request.duration` is named in this way, too. All other metrics have the table's names for Prometheus.
///
/// # How many series the SDK takes
///
/// 2,000 for each instrument by default (its cardinality limit). It puts all others into one series with the attribute
/// `otel.metric.overflow`. That series has the value of any one of them, so it is useless.
/// `endpoint.request.duration.bucket` has 22 series for each endpoint, so it overflows with the 91st endpoint.
/// `endpoint.requests` has nine, and overflows with the 223rd. A view raises the limit:
///
/// ```
/// use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
///
/// let provider = SdkMeterProvider::builder().with_view(|it: &Instrument| {
///     let is_of_endpoints = it.name().starts_with("tower_headless.endpoint.");
///     // 22 for each of 1,000 endpoints.
///     let stream = Stream::builder().with_cardinality_limit(22_000).build();
///     stream.ok().filter(|_| is_of_endpoints)
/// });
/// # drop(provider.build());
/// ```
///
/// Without [series per endpoint](Metrics::per_endpoint), a service has 22 at most, and 90 services fit.
///
/// # What a collection costs
///
/// One read of all balancers, however many instruments there are. The first instrument that is asked reads, and each
/// other instrument gets its values from that reading once. An instrument that is asked a second time reads anew, and
/// so does one that finds a reading older than a second. So if several readers of one provider collect at the same
/// time, they use up each other's readings, and read nearly as often as there are instruments. Their values are right,
/// but those of one histogram may be some microseconds apart. If that matters, give each reader a provider of its own,
/// and observe with each.
///
/// # Series that end
///
/// When a balancer is dropped, or an endpoint leaves, its series are not observed any more. If a new one with the same
/// attributes comes before the next collection, its counters go on from there. If it comes later, they begin at zero,
/// like those of a restarted process. Under delta temporality nothing is counted twice. With several readers, "later"
/// means that each of them has collected in between.
pub fn observe(metrics: &Metrics, meter: &Meter) -> Observed {
    let mut slots = Vec::new();
    for metric in METRICS {
        let slot = |suffix: &str, kind, unit: Unit| Slot {
            name: format!("{}{suffix}", metric.name),
            kind,
            unit: unit.ucum(),
            description: metric.description,
        };
        match (metric.kind, metric.unit) {
            (Kind::Histogram, unit) => slots.extend([
                slot(".bucket", Type::Counter, Unit::Requests),
                slot(".sum", Type::Seconds, unit),
                slot(".count", Type::Counter, Unit::Requests),
            ]),
            (Kind::Counter, Unit::Seconds) => slots.push(slot("", Type::Seconds, Unit::Seconds)),
            (Kind::Counter, unit) => slots.push(slot("", Type::Counter, unit)),
            (Kind::Gauge, unit) => slots.push(slot("", Type::Gauge, unit)),
        }
    }
    let names = slots.iter().enumerate();
    let reader = Arc::new(Reader {
        metrics: metrics.clone(),
        slots: names.map(|(at, slot)| (slot.name.clone(), at)).collect(),
        reading: Mutex::new(Reading {
            // The SDK forgets a series that one collection doesn't observe, and takes its next value as entirely new.
            carried: Carried::new(0),
            points: Vec::new(),
            read: None,
        }),
    });
    for (at, slot) in slots.into_iter().enumerate() {
        slot.observe(at, Arc::downgrade(&reader), meter);
    }
    Observed { _reader: reader }
}

/// Keeps the instruments of [`observe`] working: when it is dropped, they observe nothing any more.
#[must_use = "nothing is observed after it is dropped"]
pub struct Observed {
    _reader: Arc<Reader>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

/// An instrument that is yet to be built.
struct Slot {
    name: String,
    kind: Type,
    unit: &'static str,
    description: &'static str,
}

enum Type {
    Counter,
    Seconds,
    Gauge,
}

impl Slot {
    /// The instrument lives as long as the meter's provider.
    fn observe(self, at: usize, reader: Weak<Reader>, meter: &Meter) {
        let points = move || reader.upgrade().map(|reader| reader.take(at));
        let points = move || points().unwrap_or_default().into_iter();
        macro_rules! build {
            ($builder:expr, $cast:expr) => {{
                let builder = $builder.with_unit(self.unit);
                let builder = builder.with_description(self.description);
                let builder = builder.with_callback(move |observer| {
                    points().for_each(|(value, labels)| observer.observe($cast(value), &labels));
                });
                let _ = builder.build();
            }};
        }
        match self.kind {
            Type::Counter => build!(meter.u64_observable_counter(self.name), |it: f64| it as u64),
            Type::Seconds => build!(meter.f64_observable_counter(self.name), |it: f64| it),
            Type::Gauge => build!(meter.f64_observable_gauge(self.name), |it: f64| it),
        }
    }
}

/// Reads the balancers for all instruments.
struct Reader {
    metrics: Metrics,
    /// Where an instrument's points are, by its name.
    slots: HashMap<String, usize>,
    reading: Mutex<Reading>,
}

struct Reading {
    carried: Carried<(usize, String)>,
    /// `None` if the instrument has already taken its points.
    points: Vec<Option<Points>>,
    read: Option<Instant>,
}

type Points = Vec<(f64, Vec<KeyValue>)>;

/// A reading this old is of an earlier collection, because the SDK asks all instruments in one go.
const OLD: Duration = Duration::from_secs(1);

impl Reader {
    /// The points of one instrument, from a reading that it hasn't taken from yet.
    fn take(&self, at: usize) -> Points {
        let mut reading = self.reading.lock();
        let now = Instant::now();
        let is_old = |read: Instant| now.saturating_duration_since(read) > OLD;
        let has_got = reading.points.get(at).is_none_or(Option::is_none);
        if has_got || reading.read.is_none_or(is_old) {
            let Reading {
                carried,
                points,
                read,
            } = &mut *reading;
            *read = Some(now);
            *points = vec![Some(Points::new()); self.slots.len()];
            let slots = &self.slots;
            self.metrics.read(&mut Writer {
                slots,
                carried,
                points,
            });
            carried.end_round();
        }
        reading.points[at].take().unwrap_or_default()
    }
}

struct Writer<'a> {
    slots: &'a HashMap<String, usize>,
    carried: &'a mut Carried<(usize, String)>,
    points: &'a mut Vec<Option<Points>>,
}

impl Writer<'_> {
    /// Adds a point. `life` is the counter's current life, `None` if it isn't a counter.
    fn point(&mut self, name: &str, labels: Vec<KeyValue>, value: f64, life: Option<Life>) {
        let Some(&at) = self.slots.get(name) else {
            return;
        };
        let value = match life {
            Some(life) => {
                let key = format!("{labels:?}");
                self.carried.total((at, key), life, value)
            }
            None => value,
        };
        if let Some(points) = &mut self.points[at] {
            points.push((value, labels));
        }
    }
}

impl MetricsSink for Writer<'_> {
    fn sample(&mut self, sample: &Sample<'_>) {
        let (name, life) = (sample.descriptor.name, Some(sample.life));
        let labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, value)| KeyValue::new(*name, (*value).to_owned()))
            .collect();
        match sample.value {
            Value::Count(count) => self.point(name, labels, count as f64, life),
            Value::Seconds(seconds) => self.point(name, labels, seconds, life),
            Value::Gauge(value) => self.point(name, labels, value, None),
            Value::Histogram(histogram) => {
                let bucket = format!("{name}.bucket");
                for (bound, count) in histogram.cumulative() {
                    let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
                    let mut labels = labels.clone();
                    labels.push(KeyValue::new("le", bound));
                    self.point(&bucket, labels, count as f64, life);
                }
                let sum = labels.clone();
                self.point(&format!("{name}.sum"), sum, histogram.sum, life);
                let count = histogram.count as f64;
                self.point(&format!("{name}.count"), labels, count, life);
            }
        }
    }
}
