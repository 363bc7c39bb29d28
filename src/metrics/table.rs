//! All metrics, in the order of `table.md`.

use super::descriptor::{Descriptor, Kind, Unit};

/// The labels of an endpoint's own series.
macro_rules! of_endpoint {
    ($($label:literal)?) => {
        &["upstream.endpoint", "upstream.zone" $(, $label)?]
    };
}

macro_rules! metrics {
    ($($id:ident: $kind:ident, $unit:ident, $name:literal, $labels:expr, $description:literal;)+) => {
        $(
            pub(super) static $id: Descriptor = Descriptor {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: $labels,
                description: $description,
            };
        )+

        /// All metrics that there are.
        pub static METRICS: &[&Descriptor] = &[$(&$id),+];
    };
}

metrics! {
    REQUESTS: Counter, Requests, "tower_headless.requests", &["outcome"],
        "requests by outcome at the endpoint that had them";
    UNPLACED: Counter, Requests, "tower_headless.requests.unplaced", &[],
        "requests that failed without any endpoint";
    IN_FLIGHT: Gauge, Requests, "tower_headless.requests.in_flight", &[],
        "requests that endpoints have now";
    DURATION: Histogram, Seconds, "tower_headless.request.duration", &[],
        "how long successes took, to the start of the answer";
    WAITS: Counter, Requests, "tower_headless.requests.waits", &["cause"],
        "requests that waited before an endpoint got them, by cause";
    WAIT_TIME: Counter, Seconds, "tower_headless.requests.wait.time", &["cause"],
        "the total time of waits that have ended";
    WAITING: Gauge, Requests, "tower_headless.requests.waiting", &["cause"],
        "requests that wait now";
    TRIALS: Counter, Requests, "tower_headless.requests.trials", &[],
        "trial requests to endpoints that get no others";
    RETRIES: Counter, Requests, "tower_headless.retries", &["cause"],
        "requests sent again, by cause";
    RETRIES_REFUSED: Counter, Requests, "tower_headless.retries.refused", &[],
        "retries that the budget refused";
    HEDGES: Counter, Requests, "tower_headless.hedges", &[], "hedges sent";
    HEDGES_WON: Counter, Requests, "tower_headless.hedges.won", &[],
        "hedges that were answered first";
    HEDGES_REFUSED: Counter, Requests, "tower_headless.hedges.refused", &[],
        "late requests that were not hedged, because the share or the budget was spent";
    OVERTAKEN: Counter, Requests, "tower_headless.requests.overtaken", &[],
        "requests whose hedge was answered first";
    ENDPOINTS: Gauge, Endpoints, "tower_headless.endpoints", &["state"],
        "endpoints by whether they get requests";
    EJECTIONS: Counter, Ejections, "tower_headless.endpoints.ejections", &["reason"],
        "ejections, by reason";
    UNREACHABLE: Counter, Times, "tower_headless.endpoints.unreachable", &[],
        "how often endpoints became unreachable";
    LARGEST_SHARE: Gauge, Ratio, "tower_headless.endpoints.largest_share", &[],
        "the busiest endpoint's share of the requests in flight and to come, as a multiple of an even share";
    PANIC: Gauge, Flag, "tower_headless.panic", &[],
        "too few endpoints are healthy: ejections are ignored";
    OUTAGE: Gauge, Seconds, "tower_headless.outage.time", &[],
        "for how long no endpoint has accepted any request";
    ANSWERS: Counter, Answers, "tower_headless.discovery.answers", &["result"],
        "discovery's answers, by result";
    STALENESS: Gauge, Seconds, "tower_headless.discovery.staleness", &[],
        "how old the set of endpoints is";
    LAST_CHANGE: Gauge, Seconds, "tower_headless.discovery.last_change", &[],
        "how long ago an endpoint joined or left";
    FALLBACK: Gauge, Flag, "tower_headless.discovery.fallback", &[],
        "the second source is in use";
    OPEN_CONNECTIONS: Gauge, Connections, "http.client.open_connections",
        &["http.connection.state"], "connections that are open";
    OPENED: Counter, Connections, "tower_headless.connections.opened", &[], "connections made";
    FAILED: Counter, Connections, "tower_headless.connections.failed", &["cause"],
        "connections that could not be made, by cause";
    CLOSED: Counter, Connections, "tower_headless.connections.closed", &["cause"],
        "connections that ended, by cause";
    ENDPOINT_REQUESTS: Counter, Requests, "tower_headless.endpoint.requests",
        of_endpoint!("outcome"), "one endpoint's requests by outcome";
    ENDPOINT_IN_FLIGHT: Gauge, Requests, "tower_headless.endpoint.requests.in_flight",
        of_endpoint!(), "requests that the endpoint has now";
    ENDPOINT_TRIALS: Counter, Requests, "tower_headless.endpoint.requests.trials",
        of_endpoint!(), "trial requests to the endpoint";
    ENDPOINT_OVERTAKEN: Counter, Requests, "tower_headless.endpoint.requests.overtaken",
        of_endpoint!(), "its requests whose hedge was answered first";
    ENDPOINT_DURATION: Histogram, Seconds, "tower_headless.endpoint.request.duration",
        of_endpoint!(), "how long its successes took";
    ENDPOINT_STATE: Gauge, Flag, "tower_headless.endpoint.state",
        of_endpoint!("state"), "1 for the state that the endpoint is in";
    ENDPOINT_EJECTIONS: Counter, Ejections, "tower_headless.endpoint.ejections",
        of_endpoint!("reason"), "how often the endpoint was ejected";
    ENDPOINT_UNREACHABLE: Counter, Times, "tower_headless.endpoint.unreachable",
        of_endpoint!(), "how often the endpoint became unreachable";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between backticks.
    fn names(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_documented_table_agrees_with_the_metrics() {
        let rows = include_str!("table.md").lines().skip(2);
        let mut metrics = METRICS.iter();
        for row in rows {
            let metric = metrics.next().expect("a metric for each row");
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let [_, name, prometheus, kind, labels, meaning, _, _] = cells[..] else {
                panic!("{row}");
            };
            assert_eq!(names(name), [metric.name]);
            assert_eq!(names(prometheus), [metric.prometheus_name()]);
            assert_eq!(kind, format!("{}, {}", metric.kind, metric.unit));
            assert_eq!(names(labels), metric.labels, "{name}");
            let words = metric.description.split([',', ':']).next();
            let is_told = words.is_some_and(|words| meaning.starts_with(words));
            assert!(is_told, "{name}: {meaning}");
        }
        assert_eq!(metrics.next(), None, "it isn't in the table");
    }
}
