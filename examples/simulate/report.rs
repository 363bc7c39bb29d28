//! The table of a scenario: a line for each policy.

use std::{fmt::Write, time::Duration};

use crate::{run::Run, scenario::Scenario};

/// The whole table, with its title.
pub(crate) fn table(scenario: &Scenario, runs: &[Run], seed: u64) -> String {
    let mut columns = vec!["policy", "success", "p50", "p99", "p99.9"];
    columns.extend(scenario.marked.iter().map(|(_, what)| *what));
    columns.extend(scenario.figures.iter().map(|figure| figure.title));
    let header = columns.into_iter().map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![header];
    rows.extend(runs.iter().map(|run| row(scenario, run)));
    let mut text = format!(
        "{}: {}\n{}\n",
        scenario.name,
        scenario.about,
        terms(scenario, seed)
    );
    let widths: Vec<_> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .collect();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let width = width.unwrap_or(0);
            let _ = match column {
                0 => write!(text, "  {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// What it was measured with.
fn terms(scenario: &Scenario, seed: u64) -> String {
    format!(
        "  {} req/s from {} client{} for {} s, seed {seed}",
        scenario.rate,
        scenario.clients,
        if scenario.clients == 1 { "" } else { "s" },
        scenario.duration.as_secs(),
    )
}

fn row(scenario: &Scenario, run: &Run) -> Vec<String> {
    let mut row = vec![run.policy.to_owned(), percent(run.success())];
    row.extend([0.5, 0.99, 0.999].map(|part| milliseconds(run.quantile(part))));
    let shares = run.shares();
    row.extend(scenario.marked.iter().map(|(pod, _)| percent(shares[*pod])));
    row.extend(scenario.figures.iter().map(|figure| (figure.of)(run)));
    row
}

pub(crate) fn percent(part: f64) -> String {
    // Rounding must not make a success of a failure.
    let percent = (part * 1e4).floor() / 1e2;
    format!("{percent:.2} %")
}

pub(crate) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    let decimals = usize::from(milliseconds < 100.0);
    format!("{milliseconds:.decimals$} ms")
}
