//! A table of pods.

use std::{fmt::Write, net::SocketAddr, time::Duration};

/// Beyond so many, a table is no more to be followed, and doesn't fit a screen.
const MAX_ROWS: usize = 20;

/// What is shown of one pod.
pub(crate) struct Row {
    /// Its hostname, if it is known.
    pub(crate) hostname: Option<String>,
    pub(crate) address: SocketAddr,
    pub(crate) state: String,
    /// None where the balancer doesn't count any more.
    pub(crate) in_flight: Option<u32>,
    /// Of the answers, from 0 to 1.
    pub(crate) share: f64,
    pub(crate) answers: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Row {
    fn pod(&self) -> String {
        let hostname = self.hostname.iter().map(|it| format!("{it} "));
        hostname.chain([self.address.to_string()]).collect()
    }
}

/// One line a row, under a headline.
pub(crate) fn render(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.pod().len()).max();
    let width = width.unwrap_or_default().max(3);
    let mut table = format!(
        "{:width$}  {:11}  {:>9}  {:>6}  {:>7}  {:>8}  {:>8}\n",
        "pod", "state", "in flight", "share", "answers", "p50", "p99"
    );
    for row in rows.iter().take(MAX_ROWS) {
        let in_flight = row.in_flight.map_or("-".to_owned(), |n| n.to_string());
        let _infallible = writeln!(
            table,
            "{:width$}  {:11}  {in_flight:>9}  {:>4.0} %  {:>7}  {:>8}  {:>8}",
            row.pod(),
            row.state,
            row.share * 100.0,
            row.answers,
            milliseconds(row.p50),
            milliseconds(row.p99),
        );
    }
    if let Some(more @ 1..) = rows.len().checked_sub(MAX_ROWS) {
        let _infallible = writeln!(table, "and {more} more");
    }
    table
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
