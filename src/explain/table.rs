//! An explanation as text, for a terminal of 80 columns.

use std::{
    fmt::{self, Formatter},
    time::{Duration, SystemTime},
};

use super::{DiscoveryExplanation, EndpointExplanation, Explanation};
use crate::counters::BalanceCounts;

/// How wide the text is.
const WIDTH: usize = 80;

/// How many of the last events are shown.
const EVENTS: usize = 10;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let service = self.service.as_deref().unwrap_or("service");
        writeln!(
            f,
            "{service}: {} of {} endpoints get requests, {}",
            self.available, self.size, self.policy.name
        )?;
        for trouble in &self.trouble {
            wrapped(f, "! ", trouble)?;
        }
        discovery(f, &self.discovery, self.at)?;
        match &self.totals {
            Some(totals) => counted(f, totals)?,
            None => wrapped(f, "counted: ", "nothing, and no events: see `counters`")?,
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:<28} {:<14} {:>5} {:>5} {:>8} {:>6} {:>7}",
            "ENDPOINT", "NOW", "FLIGHT", "SHARE", "REQUESTS", "FAILED", "P95"
        )?;
        for endpoint in &self.endpoints {
            row(f, endpoint)?;
        }
        let events = &self.events[self.events.len().saturating_sub(EVENTS)..];
        if !events.is_empty() {
            writeln!(f)?;
        }
        for event in events {
            let ago = self.at.duration_since(event.at).unwrap_or_default();
            wrapped(f, &format!("{:>7} ago  ", short(ago)), &event.to_string())?;
        }
        Ok(())
    }
}

fn discovery(f: &mut Formatter<'_>, it: &DiscoveryExplanation, at: SystemTime) -> fmt::Result {
    // Nothing is known of the source if no history is kept.
    let mut text = it
        .kind
        .clone()
        .unwrap_or_else(|| "source not recorded".into());
    let mut add = |words: String| text += &words;
    if it.is_fallback {
        add(" (fallback)".into());
    }
    if let Some(name) = &it.name {
        add(format!(" {name}"));
    }
    if let Some(server) = &it.server {
        add(format!(" from {server}"));
    }
    if let Some(activity) = &it.activity {
        add(format!(", {activity}"));
    }
    match it.staleness {
        Some(age) => add(format!(", answered {} ago", short(age))),
        None => add(", not answered yet".into()),
    }
    if let Some(ttl) = it.ttl {
        add(format!(", TTL {}", short(ttl)));
    }
    if let Some(next) = it
        .next_refresh
        .and_then(|next| next.duration_since(at).ok())
    {
        add(format!(", asked again in {}", short(next)));
    }
    wrapped(f, "discovery: ", &text)
}

fn counted(f: &mut Formatter<'_>, totals: &BalanceCounts) -> fmt::Result {
    let all = &totals.endpoints;
    let waited = [
        ("discovery", &totals.waits.discovery),
        ("an endpoint that accepts", &totals.waits.unreachable),
        ("a connection or a limit", &totals.waits.connection),
        ("its pod", &totals.waits.pod),
    ];
    let mut text = format!(
        "{} requests, {} failures, {} overloads, {} cancelled, {} retries, {} hedges",
        all.requests,
        all.failures.total(),
        all.overloads,
        all.cancelled,
        totals.retries.total(),
        totals.hedges,
    );
    for (what, waits) in waited {
        if waits.begun > 0 {
            let times = if waits.begun == 1 { "wait" } else { "waits" };
            text += &format!(", {} {times} for {what}", waits.begun);
        }
    }
    if totals.unplaced > 0 {
        text += &format!(", {} failed without any endpoint", totals.unplaced);
    }
    let refused = totals.retries.budget_refused;
    if refused > 0 {
        text += &format!(", {refused} not sent again because the retry budget was spent");
    }
    wrapped(f, "counted: ", &text)
}

fn row(f: &mut Formatter<'_>, it: &EndpointExplanation) -> fmt::Result {
    let share = it.share.map(|share| format!("{:.0}%", share * 100.0));
    let counts = it.counts.as_ref();
    let requests = counts.map(|counts| counts.requests.to_string());
    let failed = counts.map(|counts| counts.failures.total().to_string());
    let unknown = || String::from("-");
    writeln!(
        f,
        "{:<28} {:<14} {:>5} {:>5} {:>8} {:>6} {:>7}",
        cut(&it.label(), 28),
        it.verdict.to_string(),
        it.in_flight,
        share.unwrap_or_else(unknown),
        requests.unwrap_or_else(unknown),
        failed.unwrap_or_else(unknown),
        it.p95.map_or_else(unknown, short),
    )?;
    if !it.why.is_empty() {
        wrapped(f, "  ", &it.why)?;
    }
    match &it.last_error {
        Some(error) if !it.why.contains(&error.text) => wrapped(f, "  last error: ", &error.text),
        _ => Ok(()),
    }
}

/// Writes `head` and the text, wrapped at [`WIDTH`], with all lines aligned after the head.
fn wrapped(f: &mut Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    let room = WIDTH - head.len();
    let mut line = String::new();
    let mut lines = Vec::new();
    for word in text.split_whitespace() {
        let length = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && length > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push(line);
    for (index, line) in lines.iter().enumerate() {
        let head = if index == 0 { head } else { "" };
        writeln!(f, "{head:indent$}{line}", indent = WIDTH - room)?;
    }
    Ok(())
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A time in a few characters: `3.2 s`.
pub(crate) fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 7_200.0 => format!("{:.0} h", seconds / 3_600.0),
        _ if seconds >= 120.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds >= 1.0 => format!("{seconds:.1} s"),
        _ if seconds >= 0.001 => format!("{:.0} ms", seconds * 1_000.0),
        _ => format!("{:.0} µs", seconds * 1_000_000.0),
    }
}
