//! The table of a scenario: a line for each policy.

use std::{fmt::Write, time::Duration};

use crate::{contest::Contest, run::Run, scenario::Scenario};

/// The whole table, with its title.
pub(crate) fn table(contest: &Contest) -> String {
    let scenario = &contest.scenario;
    let mut rows = vec![header(scenario)];
    rows.extend(
        contest
            .entries
            .iter()
            .map(|entry| row(scenario, entry.name(), &entry.run)),
    );
    let mut text = format!(
        "{}: {}\n  {}\n",
        scenario.name,
        scenario.about,
        terms(contest)
    );
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..rows[0].len()).filter_map(width).collect();
    for row in &rows {
        text.push_str(&format!("  {:<1$}", row[0], widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            // Writing to a string can't fail.
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// The conditions of the measurement.
pub(crate) fn terms(contest: &Contest) -> String {
    let scenario = &contest.scenario;
    let clients = match scenario.clients {
        1 => "one client".to_owned(),
        clients => format!("{clients} clients"),
    };
    let (rate, seconds) = (thousands(scenario.rate), scenario.duration.as_secs());
    let seed = contest.seed;
    format!("{rate} requests/s from {clients} for {seconds} s, seed {seed}")
}

/// The nearest whole number, with a comma before the thousands.
fn thousands(number: f64) -> String {
    let number = number.round() as u64;
    match number {
        ..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

fn header(scenario: &Scenario) -> Vec<String> {
    let common = ["policy", "success", "p50", "p99", "p99.9"];
    let shares = scenario
        .marked
        .iter()
        .map(|(_, what)| format!("{what}: share"));
    let figures = scenario
        .figures
        .iter()
        .map(|figure| figure.title.to_owned());
    let common = common.into_iter().map(str::to_owned);
    common.chain(shares).chain(figures).collect()
}

fn row(scenario: &Scenario, name: String, run: &Run) -> Vec<String> {
    let mut row = vec![name, success(run.success())];
    row.extend([0.5, 0.99, 0.999].map(|part| time(run.quantile(part))));
    let shares = run.shares();
    let share = |pods: &std::ops::Range<usize>| percent(shares[pods.clone()].iter().sum());
    row.extend(scenario.marked.iter().map(|(pods, _)| share(pods)));
    row.extend(scenario.figures.iter().map(|figure| (figure.of)(run)));
    row
}

pub(crate) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 1e2)
}

/// Rounded down, so that a single failure shows.
pub(crate) fn success(part: f64) -> String {
    percent((part * 1e4).floor() / 1e4)
}

pub(crate) fn time(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    match milliseconds {
        ..100.0 => format!("{milliseconds:.1} ms"),
        ..10_000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

pub(crate) fn or_never(found: Option<Duration>) -> String {
    found.map_or("never".to_owned(), time)
}
