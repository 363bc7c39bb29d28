//! Everything about a pod, as lines of text.

use std::time::{Duration, SystemTime};

use tower_headless::{EndpointCounts, EndpointExplanation, Explanation};

/// How many of its last events are shown.
const EVENTS: usize = 10;

/// The lines, of any length.
pub(crate) fn lines(pod: &EndpointExplanation, whole: &Explanation) -> Vec<String> {
    let verdict = pod.verdict.to_string();
    let mut lines = vec![match pod.why.as_str() {
        "" => verdict,
        why => format!("{verdict}: {why}"),
    }];
    let mut add = |what: &str, text: String| lines.push(format!("{what:<12} {text}"));
    if let Some(since) = pod.since {
        add("since", ago(whole.at, since));
    }
    if let Some(joined) = pod.joined {
        add("joined", ago(whole.at, joined));
    }
    let zone = pod.zone.iter().map(|zone| format!("zone {zone}"));
    let node = pod.node.iter().map(|node| format!("node {node}"));
    let near = pod.is_near.map(|near| if near { "near" } else { "far" });
    let place: Vec<_> = zone.chain(node).chain(near.map(str::to_owned)).collect();
    if !place.is_empty() {
        add("where", place.join(", "));
    }
    let (in_flight, waiting) = (pod.in_flight, pod.waiting);
    add(
        "now",
        format!(
            "{in_flight} in flight, {waiting} of them without an answer; load {}",
            pod.load
        ),
    );
    add("gets", gets(pod));
    let [p50, p95, p99] = [pod.p50, pod.p95, pod.p99].map(|it| it.map_or("-".into(), short));
    add("latency", format!("p50 {p50}, p95 {p95}, p99 {p99}"));
    if let Some(counts) = &pod.counts {
        add("requests", requests(counts));
        let ejected = times(counts.ejections.total());
        let unreachable = times(counts.unreachable);
        add("ejected", format!("{ejected}, unreachable {unreachable}"));
    }
    if let Some(error) = &pod.last_error {
        add(
            "last error",
            format!("{} ({})", error.text, ago(whole.at, error.at)),
        );
    }
    let label = pod.label();
    let mine = whole.events.iter().rev();
    let mine = mine.filter(|event| event.endpoint.as_deref() == Some(&*label));
    for event in mine.take(EVENTS) {
        let detail = event.detail.iter().map(|it| format!(": {it}"));
        let text: String = [event.kind.to_string()].into_iter().chain(detail).collect();
        add("event", format!("{text}, {}", ago(whole.at, event.at)));
    }
    lines
}

fn gets(pod: &EndpointExplanation) -> String {
    let mut text = match pod.share {
        Some(share) => format!("share {:.1} %, weight {}", share * 100.0, pod.weight),
        None => format!("weight {}", pod.weight),
    };
    if pod.slow_start < 1.0 {
        text += &format!(", slow start: {:.0} % of its share", pod.slow_start * 100.0);
    }
    if pod.is_terminating {
        text += ", about to end";
    }
    if !pod.is_in_subset {
        text += ", outside of the subset";
    }
    text
}

fn requests(counts: &EndpointCounts) -> String {
    let failures = &counts.failures;
    let mut text = format!(
        "{}: {} successes, {} failures",
        counts.requests,
        counts.successes,
        failures.total()
    );
    for (count, what) in [
        (failures.answered, "answered so"),
        (failures.unanswered, "without an answer"),
        (failures.given_up, "given up"),
        (counts.overloads, "overloads"),
        (counts.cancelled, "cancelled"),
        (counts.refused, "refused"),
        (counts.handed_back, "handed back"),
        (counts.busy, "busy"),
        (counts.retries, "retries"),
        (counts.hedges, "hedges"),
        (counts.trials, "trials"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

fn times(count: u64) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        _ => format!("{count} times"),
    }
}

fn ago(now: SystemTime, at: SystemTime) -> String {
    format!("{} ago", short(now.duration_since(at).unwrap_or_default()))
}

/// A time in a few characters: `3.2 s`.
pub(crate) fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 7_200.0 => format!("{:.0} h", seconds / 3_600.0),
        _ if seconds >= 120.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds >= 1.0 => format!("{seconds:.1} s"),
        _ if seconds >= 0.001 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}
