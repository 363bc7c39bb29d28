//! Turns a balancer's [`Explanation`] into values of metrics.

use std::time::Duration;

use super::{
    descriptor::Descriptor,
    sample::{Histogram, Life, MetricsSink, Sample, Value},
    table,
};
use crate::{
    counters::{
        BalanceCounts, ConnectionCounts, EjectionCounts, EndpointCounts, LATENCY_BOUNDS,
        LatencyCounts, Waits,
    },
    explain::{EndpointExplanation, Explanation, Verdict},
};

const SECONDS: [f64; LATENCY_BOUNDS.len()] = {
    let (mut bounds, mut at) = ([0.0; LATENCY_BOUNDS.len()], 0);
    while at < bounds.len() {
        bounds[at] = LATENCY_BOUNDS[at] as f64 / 1e6;
        at += 1;
    }
    bounds
};

/// Writes the series of one balancer, or of one of its endpoints, to a sink.
pub(super) struct Series<'a> {
    /// Labels that all of them have.
    labels: Vec<(&'static str, &'a str)>,
    life: Life,
    sink: &'a mut dyn MetricsSink,
}

impl<'a> Series<'a> {
    pub(super) fn new(service: &'a str, balancer: u64, sink: &'a mut dyn MetricsSink) -> Self {
        Self {
            labels: vec![("upstream.service", service)],
            life: Life {
                balancer,
                endpoint: 0,
            },
            sink,
        }
    }

    pub(super) fn read(&mut self, it: &Explanation) {
        self.states(it);
        self.moment(it);
        if let Some(totals) = &it.totals {
            self.totals(totals);
        }
    }

    pub(super) fn read_endpoint(&mut self, it: &EndpointExplanation) {
        let address = it.address.to_string();
        let mut labels = self.labels.clone();
        labels.push(("upstream.endpoint", &address));
        labels.extend(it.zone.as_deref().map(|zone| ("upstream.zone", zone)));
        let mut series = Series {
            labels,
            life: Life {
                endpoint: it.life,
                ..self.life
            },
            sink: &mut *self.sink,
        };
        series.endpoint(it);
    }

    fn endpoint(&mut self, it: &EndpointExplanation) {
        let in_flight = f64::from(it.in_flight);
        self.gauge(&table::ENDPOINT_IN_FLIGHT, None, in_flight);
        let state = Some(("state", state(it.verdict)));
        self.gauge(&table::ENDPOINT_STATE, state, 1.0);
        let Some(counts) = &it.counts else { return };
        self.outcomes(&table::ENDPOINT_REQUESTS, counts);
        self.count(&table::ENDPOINT_TRIALS, None, counts.trials);
        self.count(&table::ENDPOINT_OVERTAKEN, None, counts.overtaken);
        self.histogram(&table::ENDPOINT_DURATION, &counts.latency);
        self.ejections(&table::ENDPOINT_EJECTIONS, &counts.ejections);
        self.count(&table::ENDPOINT_UNREACHABLE, None, counts.unreachable);
    }

    fn states(&mut self, it: &Explanation) {
        // A balancer that doesn't count can't know of a panic: no series is better than a wrong zero.
        let is_known = |verdict: &Verdict| *verdict != Verdict::Panic || has_memory(it);
        for verdict in VERDICTS.into_iter().filter(is_known) {
            let endpoints = it.endpoints.iter();
            let many = endpoints.filter(|it| it.verdict == verdict).count();
            let state = Some(("state", state(verdict)));
            self.gauge(&table::ENDPOINTS, state, many as f64);
        }
    }

    fn moment(&mut self, it: &Explanation) {
        let in_flight = it.endpoints.iter().map(|it| f64::from(it.in_flight)).sum();
        self.gauge(&table::IN_FLIGHT, None, in_flight);
        self.gauge(&table::LARGEST_SHARE, None, largest_share(it));
        if has_memory(it) {
            self.gauge(&table::PANIC, None, flag(it.is_panic));
            let is_fallback = flag(it.discovery.is_fallback);
            self.gauge(&table::FALLBACK, None, is_fallback);
        }
        let outage = it.outage.unwrap_or_default();
        self.gauge(&table::OUTAGE, None, outage.as_secs_f64());
        let discovery = &it.discovery;
        self.age(&table::STALENESS, discovery.staleness);
        let change = discovery.last_change;
        let since = change.map(|at| it.at.duration_since(at).unwrap_or_default());
        self.age(&table::LAST_CHANGE, since);
    }

    fn totals(&mut self, it: &BalanceCounts) {
        let endpoints = &it.endpoints;
        self.outcomes(&table::REQUESTS, endpoints);
        self.count(&table::UNPLACED, None, it.unplaced);
        self.histogram(&table::DURATION, &endpoints.latency);
        self.waits("discovery", &it.waits.discovery);
        self.waits("unreachable", &it.waits.unreachable);
        self.waits("connection", &it.waits.connection);
        self.waits("pod", &it.waits.pod);
        self.count(&table::TRIALS, None, endpoints.trials);
        for (cause, retries) in [
            ("answered", it.retries.answered),
            ("lost", it.retries.lost),
            ("unprocessed", it.retries.unprocessed),
            ("unsent", it.retries.unsent),
        ] {
            self.count(&table::RETRIES, Some(("cause", cause)), retries);
        }
        self.count(&table::RETRIES_REFUSED, None, it.retries.budget_refused);
        self.count(&table::HEDGES, None, it.hedges);
        self.count(&table::HEDGES_WON, None, it.hedges_won);
        self.count(&table::HEDGES_REFUSED, None, it.hedges_refused);
        self.count(&table::OVERTAKEN, None, endpoints.overtaken);
        self.ejections(&table::EJECTIONS, &endpoints.ejections);
        self.count(&table::UNREACHABLE, None, endpoints.unreachable);
        for (result, answers) in [
            ("found", it.discovery.found),
            ("empty", it.discovery.empty),
            ("failed", it.discovery.failed),
        ] {
            self.count(&table::ANSWERS, Some(("result", result)), answers);
        }
        self.connections(&endpoints.connections);
    }

    fn connections(&mut self, it: &ConnectionCounts) {
        for (state, many) in [("active", it.active()), ("idle", it.idle)] {
            let label = Some(("http.connection.state", state));
            self.gauge(&table::OPEN_CONNECTIONS, label, many as f64);
        }
        self.count(&table::OPENED, None, it.opened);
        for (cause, failed) in [
            ("refused", it.failed.refused),
            ("timeout", it.failed.timeout),
            ("tls", it.failed.tls),
            ("other", it.failed.other),
        ] {
            self.count(&table::FAILED, Some(("cause", cause)), failed);
        }
        for (cause, closed) in [
            ("idle", it.closed.idle),
            ("age", it.closed.age),
            ("peer", it.closed.peer),
            ("lost", it.closed.lost),
            ("left", it.closed.left),
            ("protocol", it.closed.protocol),
            ("client", it.closed.client),
        ] {
            self.count(&table::CLOSED, Some(("cause", cause)), closed);
        }
    }

    fn outcomes(&mut self, metric: &'static Descriptor, it: &EndpointCounts) {
        for (outcome, requests) in [
            ("success", it.successes),
            ("bad_answer", it.failures.answered),
            ("no_answer", it.failures.unanswered),
            ("given_up", it.failures.given_up),
            ("overload", it.overloads),
            ("cancelled", it.cancelled),
            ("refused", it.refused),
            ("handed_back", it.handed_back),
            ("busy", it.busy),
        ] {
            self.count(metric, Some(("outcome", outcome)), requests);
        }
    }

    fn ejections(&mut self, metric: &'static Descriptor, it: &EjectionCounts) {
        for (reason, ejections) in [
            ("consecutive_failures", it.consecutive_failures),
            ("success_rate", it.success_rate),
            ("unresponsive", it.unresponsive),
            ("check_failed", it.check_failed),
            ("slow", it.slow),
        ] {
            self.count(metric, Some(("reason", reason)), ejections);
        }
    }

    fn waits(&mut self, cause: &'static str, it: &Waits) {
        let label = Some(("cause", cause));
        self.count(&table::WAITS, label, it.begun);
        let time = Value::Seconds(it.time().as_secs_f64());
        self.sample(&table::WAIT_TIME, label, time);
        self.gauge(&table::WAITING, label, it.waiting() as f64);
    }

    fn histogram(&mut self, metric: &'static Descriptor, it: &LatencyCounts) {
        let histogram = Histogram {
            bounds: &SECONDS,
            buckets: &it.buckets,
            sum: it.sum_micros as f64 / 1e6,
            count: it.count(),
        };
        self.sample(metric, None, Value::Histogram(histogram));
    }

    fn age(&mut self, metric: &'static Descriptor, age: Option<Duration>) {
        if let Some(age) = age {
            self.gauge(metric, None, age.as_secs_f64());
        }
    }

    fn count(&mut self, metric: &'static Descriptor, label: Label, count: u64) {
        self.sample(metric, label, Value::Count(count));
    }

    fn gauge(&mut self, metric: &'static Descriptor, label: Label, value: f64) {
        self.sample(metric, label, Value::Gauge(value));
    }

    fn sample(&mut self, descriptor: &'static Descriptor, label: Label, value: Value<'_>) {
        self.labels.extend(label);
        self.sink.sample(&Sample {
            descriptor,
            labels: &self.labels,
            value,
            life: self.life,
        });
        if label.is_some() {
            self.labels.pop();
        }
    }
}

/// The metric's own label, if it has one.
type Label = Option<(&'static str, &'static str)>;

/// Whether the balancer counts: only then does it remember what has happened.
fn has_memory(it: &Explanation) -> bool {
    it.totals.is_some()
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

const VERDICTS: [Verdict; 10] = [
    Verdict::Picked,
    Verdict::Panic,
    Verdict::Trial,
    Verdict::LastResort,
    Verdict::Far,
    Verdict::OnlyByName,
    Verdict::CheckFails,
    Verdict::Pending,
    Verdict::Ejected,
    Verdict::Unreachable,
];

fn state(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Picked => "picked",
        Verdict::Panic => "panic",
        Verdict::Trial => "trial",
        Verdict::LastResort => "last_resort",
        Verdict::Far => "far",
        Verdict::OnlyByName => "only_by_name",
        Verdict::CheckFails => "check_fails",
        Verdict::Pending => "pending",
        Verdict::Ejected => "ejected",
        Verdict::Unreachable => "unreachable",
    }
}

/// The busiest endpoint's share, as a multiple of an even share. It is taken of the requests in flight plus one request
/// to come for each picked endpoint, so that a few requests in flight don't count for much.
fn largest_share(it: &Explanation) -> f64 {
    let picked = || it.endpoints.iter().filter(|it| it.verdict.is_picked());
    let many = picked().count() as f64;
    let in_flight: f64 = picked().map(|it| f64::from(it.in_flight)).sum();
    let parts = picked().map(|it| {
        let to_come = it.share.map_or(1.0, |share| share * many);
        (f64::from(it.in_flight) + to_come) / (in_flight + many)
    });
    parts.fold(0.0, f64::max) * many
}
