//! Metrics through real exporters: names, labels, values, and series that end.

#[path = "metrics/faults.rs"]
mod faults;
#[allow(dead_code)]
#[path = "endpoint_slices/kit.rs"]
mod kit;
mod support;

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, InMemoryMetricExporterBuilder, Instrument, MeterProviderBuilder,
    PeriodicReader, SdkMeterProvider, Stream, Temporality,
    data::{AggregatedMetrics, MetricData},
};
use support::scripted::{Behaviour, Request, World, endpoint, settle};
use tower::ServiceExt;
use tower_headless::{
    Balancers,
    http::Client,
    metrics::{Kind, METRICS, Metrics, Observed, Recorder, Unit, observe},
    test_util::{Cluster, Mode},
};

/// The Service of `kit`.
const WEB: &str = "web.default:80";

/// A recorder with a real exporter behind it.
struct Prometheus {
    recorder: Recorder,
    exporter: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// A page in Prometheus's text format.
struct Page {
    types: BTreeMap<String, String>,
    help: BTreeMap<String, String>,
    /// By name and sorted labels.
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Prometheus {
    fn of(metrics: Metrics) -> Self {
        let exporter = PrometheusBuilder::new().build_recorder();
        Self {
            recorder: Recorder::new(metrics),
            handle: exporter.handle(),
            exporter,
        }
    }

    fn scrape(&self) -> Page {
        self.recorder.record_to(&self.exporter);
        Page::parse(&self.handle.render())
    }
}

impl Page {
    /// Parses strictly: anything that isn't in the format panics.
    fn parse(text: &str) -> Self {
        let mut page = Self {
            types: BTreeMap::new(),
            help: BTreeMap::new(),
            series: BTreeMap::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                let before = page.types.insert(name.into(), kind.into());
                assert_eq!(before, None, "told twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').expect("a text");
                page.help.insert(name.into(), text.into());
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = match series.split_once('{') {
                    Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end")),
                    None => (series, ""),
                };
                let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(name.chars().all(is_valid), "{line}");
                let labels = labels.split_terminator("\",").map(|label| {
                    let (name, value) = label.split_once("=\"").expect("a label");
                    assert!(name.chars().all(is_valid), "{line}");
                    (name.into(), value.trim_end_matches('"').into())
                });
                let key = (name.into(), labels.collect());
                let value = value.parse().expect("a number");
                let before = page.series.insert(key, value);
                assert_eq!(before, None, "twice: {line}");
            }
        }
        page
    }

    /// The only series with this name and at least these labels.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.all(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }

    /// All series with this name and at least these labels.
    fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let series = self.series.iter().filter(|((its, has), _)| {
            let has = |(key, value): &(&str, &str)| has.get(*key).is_some_and(|it| it == value);
            its == name && labels.iter().all(has)
        });
        series.map(|(_, value)| *value).collect()
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).iter().sum()
    }
}

fn metrics(balancer: impl Into<tower_headless::Explainer>) -> Metrics {
    let balancers = Balancers::new();
    balancers.add(balancer);
    Metrics::new(&balancers)
}

async fn get(client: &Client, times: usize) {
    for _ in 0..times {
        let response = client.get("/").await;
        let _ = response.expect("a response").bytes().await;
    }
}

/// Each metric is on the page, with a type, a description, and only the labels of the table. Single endpoints have no
/// series.
#[tokio::test]
async fn by_default_all_metrics_are_there_and_none_is_of_single_endpoints() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().build().expect("a client");
    get(&client, 3).await;
    let balancers = Balancers::new();
    balancers.add_as("web", &client);
    let page = Prometheus::of(Metrics::new(&balancers)).scrape();
    for metric in METRICS {
        let name = metric.prometheus_name();
        let is_per_endpoint = metric.labels.contains(&"upstream.endpoint");
        let names = match metric.kind.to_string().as_str() {
            "histogram" => vec![
                (format!("{name}_bucket"), "counter"),
                (format!("{name}_sum"), "gauge"),
                (format!("{name}_count"), "counter"),
            ],
            "counter" if name.ends_with("_seconds_total") => vec![(name, "gauge")],
            kind => vec![(
                name,
                if kind == "counter" {
                    "counter"
                } else {
                    "gauge"
                },
            )],
        };
        for (name, kind) in names {
            let series: Vec<_> = page.series.keys().filter(|(its, _)| *its == name).collect();
            assert_eq!(series.is_empty(), is_per_endpoint, "{name}");
            if is_per_endpoint {
                continue;
            }
            assert_eq!(page.types[&name], kind, "{name}");
            assert_eq!(page.help[&name], metric.description, "{name}");
            for (_, labels) in series {
                assert_eq!(labels["upstream_service"], "web", "{name}");
                let others = labels
                    .keys()
                    .filter(|it| *it != "upstream_service" && *it != "le");
                let others: Vec<_> = others.cloned().collect();
                let labels = metric.labels.iter();
                let expected: Vec<_> = labels.map(|it| it.replace('.', "_")).collect();
                assert_eq!(others, expected, "{name}");
            }
        }
    }
    let requests = "tower_headless_requests_total";
    assert_eq!(page.get(requests, &[("outcome", "success")]), 3.0);
    assert_eq!(page.sum(requests, &[]), 3.0);
    let picked = page.get("tower_headless_endpoints", &[("state", "picked")]);
    assert_eq!(
        (picked, page.sum("tower_headless_endpoints", &[])),
        (2.0, 2.0)
    );
    assert_eq!(
        page.get(
            "tower_headless_discovery_answers_total",
            &[("result", "found")]
        ),
        1.0
    );
    let staleness = page.get("tower_headless_discovery_staleness_seconds", &[]);
    assert!(staleness >= 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_histogram_has_the_series_of_a_prometheus_histogram() {
    let world = World::of(vec![endpoint(1)], |builder| builder.counters(true)).await;
    let prometheus = Prometheus::of(metrics(&world.balance));
    for (millis, times) in [(2, 5), (40, 3), (70_000, 1)] {
        let after = Behaviour::After(Duration::from_millis(millis));
        world.pods.set([1], after);
        for _ in 0..times {
            let answer = world.balance.clone().oneshot(Request(1)).await;
            answer.expect("an answer");
        }
    }
    let page = prometheus.scrape();
    let bucket = |le| {
        page.get(
            "tower_headless_request_duration_seconds_bucket",
            &[("le", le)],
        )
    };
    let below = ["0.001", "0.0025", "0.025", "0.05", "60", "+Inf"].map(bucket);
    assert_eq!(below, [0.0, 5.0, 5.0, 8.0, 8.0, 9.0]);
    let count = page.get("tower_headless_request_duration_seconds_count", &[]);
    let sum = page.get("tower_headless_request_duration_seconds_sum", &[]);
    assert_eq!((count, (sum * 1e3).round()), (9.0, 70_130.0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_ends_its_gauges_and_keeps_the_service_s_counts() {
    let set: Vec<_> = (1..=2).map(endpoint).collect();
    let world = World::of(set.clone(), |builder| builder.counters(true).name("web")).await;
    let prometheus = Prometheus::of(metrics(&world.balance).per_endpoint(true));
    let send = async || {
        for number in 0..10 {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("an answer");
        }
    };
    send().await;
    let (all, each) = (
        "tower_headless_requests_total",
        "tower_headless_endpoint_requests_total",
    );
    let of = |pod: usize| set[pod].address().to_string();
    let state = |page: &Page, pod| {
        let labels = [("upstream_endpoint", &*of(pod)), ("state", "picked")];
        page.get("tower_headless_endpoint_state", &labels)
    };
    let before = prometheus.scrape();
    assert_eq!((before.sum(all, &[]), before.sum(each, &[])), (10.0, 10.0));
    assert_eq!((state(&before, 0), state(&before, 1)), (1.0, 1.0));
    let gone = before.sum(each, &[("upstream_endpoint", &of(1))]);
    assert_eq!(gone, 5.0);

    world.set(vec![set[0].clone()]).await;
    send().await;
    let after = prometheus.scrape();
    assert_eq!(
        after.sum(all, &[]),
        20.0,
        "what the pod was asked still counts"
    );
    assert_eq!((state(&after, 0), state(&after, 1)), (1.0, 0.0));

    // Another pod gets its address: the series go on from there, rather than stand still until the new pod has caught
    // up.
    world.set(set.clone()).await;
    send().await;
    let back = prometheus.scrape();
    assert_eq!(back.sum(all, &[]), 30.0);
    assert_eq!(state(&back, 1), 1.0);
    let its = back.sum(each, &[("upstream_endpoint", &of(1))]);
    assert!(its > gone, "{its}");
    assert_eq!(back.sum(each, &[]), 30.0);
}

#[tokio::test(start_paused = true)]
async fn two_balancers_of_one_service_have_series_each_and_a_dropped_one_has_none() {
    let world = async || World::of(vec![endpoint(1)], |it| it.counters(true).name("web")).await;
    let (first, second) = (world().await, world().await);
    let balancers = Balancers::new();
    balancers.add(&first.balance).add(&second.balance);
    let prometheus = Prometheus::of(Metrics::new(&balancers));
    let send = async |world: &World, times| {
        for number in 0..times {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("an answer");
        }
    };
    send(&first, 3).await;
    send(&second, 4).await;
    let requests = |page: &Page, service| {
        page.sum(
            "tower_headless_requests_total",
            &[("upstream_service", service)],
        )
    };
    let endpoints = |page: &Page, service| {
        page.sum("tower_headless_endpoints", &[("upstream_service", service)])
    };
    let page = prometheus.scrape();
    assert_eq!(
        (requests(&page, "web"), requests(&page, "web #2")),
        (3.0, 4.0)
    );
    assert_eq!(
        (endpoints(&page, "web"), endpoints(&page, "web #2")),
        (1.0, 1.0)
    );

    drop(first);
    settle().await;
    let page = prometheus.scrape();
    assert_eq!(
        (requests(&page, "web"), requests(&page, "web #2")),
        (3.0, 4.0)
    );
    assert_eq!(
        (endpoints(&page, "web"), endpoints(&page, "web #2")),
        (0.0, 1.0)
    );

    let third = world().await;
    balancers.add(&third.balance);
    send(&third, 5).await;
    let page = prometheus.scrape();
    assert_eq!(
        requests(&page, "web"),
        8.0,
        "it goes on from where the other one ended"
    );
    assert_eq!(endpoints(&page, "web"), 1.0);
}

#[tokio::test]
async fn a_balancer_that_does_not_count_has_gauges_only() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().counters(false).build().expect("a client");
    cluster.pod(0).set(Mode::Status(StatusCode::OK));
    get(&client, 1).await;
    let page = Prometheus::of(metrics(&client)).scrape();
    let counters: Vec<_> = page.types.values().filter(|it| *it == "counter").collect();
    assert!(counters.is_empty());
    assert_eq!(
        page.get("tower_headless_endpoints", &[("state", "picked")]),
        1.0
    );
    // A balancer that doesn't count can't know these.
    let panic = page.all("tower_headless_endpoints", &[("state", "panic")]);
    assert_eq!(panic, Vec::<f64>::new());
    for unknown in [
        "tower_headless_panic",
        "tower_headless_discovery_fallback",
        "tower_headless_discovery_last_change_seconds",
        "tower_headless_requests_waiting",
        "http_client_open_connections",
    ] {
        assert_eq!(page.all(unknown, &[]), Vec::<f64>::new(), "{unknown}");
    }
}

#[tokio::test(start_paused = true)]
async fn record_every_keeps_values_no_older_than_its_interval() {
    let world = World::of(vec![endpoint(1)], |builder| builder.counters(true)).await;
    let exporter = PrometheusBuilder::new().build_recorder();
    let handle = exporter.handle();
    let _installed = ::metrics::set_default_local_recorder(&exporter);
    let recorder = Recorder::new(metrics(&world.balance));
    let recording = tokio::spawn(recorder.record_every(Duration::from_secs(5)));
    let requests = || Page::parse(&handle.render()).sum("tower_headless_requests_total", &[]);
    settle().await;
    let answer = world.balance.clone().oneshot(Request(1)).await;
    answer.expect("an answer");
    assert_eq!(requests(), 0.0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    settle().await;
    assert_eq!(requests(), 1.0);
    recording.abort();
    let ended = recording.await.expect_err("it was told to end");
    assert!(ended.is_cancelled());
}

/// OpenTelemetry's SDK, and its last collection.
struct Otel {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
    observed: Option<Observed>,
}

/// By name and sorted attributes.
type Points = BTreeMap<(String, BTreeMap<String, String>), f64>;

impl Otel {
    fn of(metrics: &Metrics) -> Self {
        Self::with(metrics, Temporality::Cumulative, |provider| provider)
    }

    fn with(
        metrics: &Metrics,
        temporality: Temporality,
        change: impl FnOnce(MeterProviderBuilder) -> MeterProviderBuilder,
    ) -> Self {
        let exporter = InMemoryMetricExporterBuilder::new().with_temporality(temporality);
        let exporter = exporter.build();
        // It collects only when told to.
        let reader = PeriodicReader::builder(exporter.clone()).with_interval(Duration::MAX / 4);
        let provider = SdkMeterProvider::builder().with_reader(reader.build());
        let provider = change(provider).build();
        let observed = observe(metrics, &provider.meter("tower_headless"));
        Self {
            provider,
            exporter,
            observed: Some(observed),
        }
    }

    fn collect(&self) -> (Points, BTreeMap<String, String>) {
        self.exporter.reset();
        self.provider.force_flush().expect("collected");
        let (mut all, mut units) = (Points::new(), BTreeMap::new());
        let collected = self.exporter.get_finished_metrics().expect("metrics");
        let scopes = collected.iter().flat_map(|it| it.scope_metrics());
        for metric in scopes.flat_map(|it| it.metrics()) {
            units.insert(metric.name().to_owned(), metric.unit().to_owned());
            let mut add = |attributes: Vec<(String, String)>, value| {
                let key = (metric.name().to_owned(), attributes.into_iter().collect());
                assert_eq!(all.insert(key, value), None, "{}", metric.name());
            };
            macro_rules! points {
                ($data:expr) => {
                    $data.data_points().for_each(|point| {
                        let of = |it: &opentelemetry::KeyValue| {
                            (it.key.to_string(), it.value.to_string())
                        };
                        add(point.attributes().map(of).collect(), point.value() as f64);
                    })
                };
            }
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    points!(sum);
                }
                AggregatedMetrics::F64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    points!(sum);
                }
                AggregatedMetrics::F64(MetricData::Gauge(gauge)) => points!(gauge),
                other => panic!("{}: {other:?}", metric.name()),
            }
        }
        (all, units)
    }
}

/// Checks that both exporters have equal series with equal values.
#[tokio::test(start_paused = true)]
async fn opentelemetry_and_prometheus_get_the_same_values() {
    let set: Vec<_> = (1..=2).map(endpoint).collect();
    let world = World::of(set.clone(), |builder| builder.counters(true).name("web")).await;
    let metrics = metrics(&world.balance).per_endpoint(true);
    let (prometheus, otel) = (Prometheus::of(metrics.clone()), Otel::of(&metrics));
    world
        .pods
        .set([1], Behaviour::After(Duration::from_millis(2)));
    world.pods.set([2], Behaviour::Fail);
    for round in 0..3 {
        for number in 0..10 {
            let _ = world.balance.clone().oneshot(Request(number)).await;
        }
        let page = prometheus.scrape();
        let (points, units) = otel.collect();
        for metric in METRICS {
            let names = match metric.kind.to_string().as_str() {
                "histogram" => [".bucket", ".sum", ".count"].as_slice(),
                _ => &[""],
            };
            for suffix in names {
                let name = format!("{}{suffix}", metric.name);
                let theirs = metric.prometheus_name() + &suffix.replace('.', "_");
                let of = |(key, value): (&String, &String)| (key.replace('.', "_"), value.clone());
                let points = points.iter().filter(|((its, _), _)| *its == name);
                let points =
                    points.map(|((_, labels), value)| (labels.iter().map(of).collect(), value));
                let points: BTreeMap<BTreeMap<_, _>, _> = points.collect();
                let series = page.series.iter().filter(|((its, _), _)| *its == theirs);
                let series = series.map(|((_, labels), value)| (labels.clone(), value));
                // Gauges that the facade has set to zero aren't observed here.
                let series: BTreeMap<_, _> = series
                    .filter(|(key, value)| points.contains_key(key) || **value != 0.0)
                    .collect();
                assert!(!points.is_empty(), "{name} in round {round}");
                // The SDK reads on its own thread, where time isn't paused.
                let is_age = metric.unit == Unit::Seconds && metric.kind == Kind::Gauge;
                match is_age {
                    true => assert!(points.keys().eq(series.keys()), "{name}"),
                    false => assert_eq!(points, series, "{name} in round {round}"),
                }
                let unit = if metric.kind.to_string() == "histogram" && *suffix != ".sum" {
                    "{request}"
                } else {
                    metric.unit.ucum()
                };
                assert_eq!(units[&name], unit, "{name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_observation_leaves_no_series() {
    let set: Vec<_> = (1..=2).map(endpoint).collect();
    let world = World::of(set.clone(), |builder| builder.counters(true).name("web")).await;
    let mut otel = Otel::of(&metrics(&world.balance).per_endpoint(true));
    let send = async || {
        for number in 0..10 {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("an answer");
        }
    };
    let of = |points: &Points, name: &str, pod: Option<usize>| -> Vec<f64> {
        let pod = pod.map(|pod| set[pod].address().to_string());
        let its = points.iter().filter(|((its, labels), _)| {
            its == name
                && pod
                    .as_ref()
                    .is_none_or(|pod| labels.get("upstream.endpoint") == Some(pod))
        });
        its.map(|(_, value)| *value).collect()
    };
    send().await;
    let before = otel.collect().0;
    assert_eq!(of(&before, "tower_headless.endpoint.state", Some(1)), [1.0]);
    world.set(vec![set[0].clone()]).await;
    send().await;
    let after = otel.collect().0;
    let all = |points| {
        of(points, "tower_headless.requests", None)
            .iter()
            .sum::<f64>()
    };
    assert_eq!((all(&before), all(&after)), (10.0, 20.0));
    let each = "tower_headless.endpoint.requests";
    assert!(of(&after, each, Some(1)).is_empty(), "{after:?}");
    assert!(of(&after, "tower_headless.endpoint.state", Some(1)).is_empty());
    otel.observed = None;
    assert!(otel.collect().0.is_empty());
}

/// The SDK forgets a series that isn't observed, and exports all of its next value as new.
#[tokio::test(start_paused = true)]
async fn under_delta_temporality_a_pod_that_comes_back_counts_its_requests_once() {
    let set: Vec<_> = (1..=2).map(endpoint).collect();
    let world = World::of(set.clone(), |builder| builder.counters(true).name("web")).await;
    let metrics = metrics(&world.balance).per_endpoint(true);
    let otel = Otel::with(&metrics, Temporality::Delta, |provider| provider);
    let mut told = 0.0;
    for set in [&set[..], &set[..1], &set[..], &set[..]] {
        world.set(set.to_vec()).await;
        for number in 0..10 {
            let answer = world.balance.clone().oneshot(Request(number)).await;
            answer.expect("an answer");
        }
        let points = otel.collect().0.into_iter();
        let each = points.filter(|((name, _), _)| name == "tower_headless.endpoint.requests");
        told += each.map(|(_, value)| value).sum::<f64>();
    }
    assert_eq!(told, 40.0);
}

/// As the documentation of `observe` says.
#[tokio::test(start_paused = true)]
async fn a_view_raises_the_sdk_s_limit_of_series() {
    let world = World::of((1..=91).map(endpoint).collect(), |it| it.counters(true)).await;
    let metrics = metrics(&world.balance).per_endpoint(true);
    let overflown = |otel: Otel| {
        let points = otel.collect().0.into_keys();
        let over = points.filter(|(_, labels)| labels.contains_key("otel.metric.overflow"));
        over.map(|(name, _)| name).collect::<Vec<_>>()
    };
    let default = overflown(Otel::of(&metrics));
    assert_eq!(default, ["tower_headless.endpoint.request.duration.bucket"]);
    let view = |it: &Instrument| {
        let is_of_endpoints = it.name().starts_with("tower_headless.endpoint.");
        let stream = Stream::builder().with_cardinality_limit(22_000).build();
        stream.ok().filter(|_| is_of_endpoints)
    };
    let raised = Otel::with(&metrics, Temporality::Cumulative, |it| it.with_view(view));
    assert_eq!(overflown(raised), Vec::<String>::new());
}
