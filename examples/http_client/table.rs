//! A table of pods.

use std::{fmt::Write, net::SocketAddr, time::Duration};

/// The largest number of rows that a reader can still follow.
pub(crate) const MAX_ROWS: usize = 20;

/// The most lines of a table besides its rows: the headline, and the number of further pods.
pub(crate) const OTHER_LINES: usize = 2;

/// The width of all columns but the first.
const OTHER_COLUMNS: usize = 55;

/// An IPv4 address and its port are never cut. If that is too wide for a screen, the last columns are cut.
const MIN_WIDTH: usize = "255.255.255.255:65535".len();

/// The row of one pod.
pub(crate) struct Row {
    /// Its hostname, if known.
    pub(crate) hostname: Option<String>,
    pub(crate) address: SocketAddr,
    pub(crate) state: String,
    /// `None` if the balancer no longer counts.
    pub(crate) in_flight: Option<u32>,
    /// Its share of the answers, from 0 to 1.
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

/// Writes a headline and one line for each row. Rows beyond `max_rows` are only counted. A pod's name and address are
/// cut if they don't fit into `columns`.
pub(crate) fn render(rows: &[Row], max_rows: usize, columns: usize) -> String {
    let widest = rows.iter().map(|row| row.pod().len()).max();
    let room = columns.saturating_sub(OTHER_COLUMNS).max(MIN_WIDTH);
    let width = widest.unwrap_or_default().max("pod".len()).min(room);
    let mut table = format!(
        "{:width$}  {:11} {:>9} {:>5} {:>7} {:>8} {:>8}\n",
        "pod", "state", "in flight", "share", "answers", "p50", "p99"
    );
    for row in rows.iter().take(max_rows) {
        let of_answers = |time| match row.answers {
            0 => "-".to_owned(),
            _ => milliseconds(time),
        };
        let in_flight = row.in_flight.map_or("-".to_owned(), |n| n.to_string());
        let _infallible = writeln!(
            table,
            "{:width$.width$}  {:11} {in_flight:>9} {:>3.0} % {:>7} {:>8} {:>8}",
            row.pod(),
            row.state,
            row.share * 100.0,
            row.answers,
            of_answers(row.p50),
            of_answers(row.p99),
        );
    }
    if let Some(more @ 1..) = rows.len().checked_sub(max_rows) {
        let _infallible = writeln!(table, "and {more} more");
    }
    table
}

/// Writes a time in no more than a column, up to a minute and more.
pub(crate) fn milliseconds(duration: Duration) -> String {
    let decimals = usize::from(duration < Duration::from_secs(1));
    format!("{:.decimals$} ms", duration.as_secs_f64() * 1000.0)
}
