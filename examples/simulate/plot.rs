//! The picture of a scenario: for each policy, what each pod got, how many requests were answered, and how fast.
//!
//! It has its own background, so that it is readable on a dark page, and colours that colour-blind readers can tell
//! apart (Okabe and Ito's).

mod canvas;
mod latency;
mod shares;

use std::{error::Error, path::Path, time::Duration};

use plotters::prelude::*;

use self::canvas::{Area, FAINT, INK, MUTED, Weight, text};
use crate::{contest::Contest, report, run::Run};

pub(crate) type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 960;
const HEAD: u32 = 104;
const ROW: u32 = 88;
const FOOT: u32 = 30;

/// Where the columns begin, and how wide they are.
const NAME: (i32, u32) = (24, 150);
const SHARES: (i32, u32) = (176, 330);
const ANSWERED: (i32, u32) = (532, 130);
const LATENCY: (i32, u32) = (690, 236);

/// One policy: its run with health checks, if there was one, and without them for comparison.
struct Row<'a> {
    policy: &'static str,
    run: &'a Run,
    without: Option<&'a Run>,
}

/// Writes the picture as an SVG.
pub(crate) fn write(contest: &Contest, path: &Path) -> Drawn {
    let rows = rows(contest);
    let height = HEAD + ROW * rows.len() as u32 + FOOT;
    let backend = SVGBackend::new(path, (WIDTH, height));
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    head(&root, contest, rows[0].without.is_some())?;
    let shares = shares::Axis::new(&contest.scenario, &rows);
    let latency = latency::Axis::new(&rows);
    let bottom = (HEAD + ROW * rows.len() as u32) as i32;
    let column = (LATENCY.1, ROW * rows.len() as u32 + 18);
    latency.ticks(&root.clone().shrink((LATENCY.0, HEAD as i32), column))?;
    for (index, row) in rows.iter().enumerate() {
        let top = (HEAD + ROW * index as u32) as i32;
        rule(&root, top)?;
        let cell = |(left, width)| root.clone().shrink((left, top), (width, ROW));
        text(&cell(NAME), row.policy, (0, 44), 14, Weight::Bold, &INK)?;
        shares.draw(&cell(SHARES), row)?;
        answered(&cell(ANSWERED), row, contest.scenario.limit)?;
        latency.draw(&cell(LATENCY), row)?;
    }
    rule(&root, bottom)?;
    root.present()?;
    Ok(())
}

/// The entries with ejection, or those without if there are only these.
fn rows(contest: &Contest) -> Vec<Row<'_>> {
    let entries = &contest.entries;
    let any = entries.iter().any(|entry| entry.has_health);
    let rows = entries.iter().filter(|entry| entry.has_health == any);
    rows.map(|entry| {
        let without = entries
            .iter()
            .find(|other| any && !other.has_health && other.policy == entry.policy);
        Row {
            policy: entry.policy,
            run: &entry.run,
            without: without.map(|entry| &entry.run),
        }
    })
    .collect()
}

fn head(root: &Area<'_>, contest: &Contest, compares: bool) -> Drawn {
    let (name, about) = (contest.scenario.name, contest.scenario.about);
    let title = format!("{}{}", about[..1].to_uppercase(), &about[1..]);
    text(root, &title, (24, 28), 18, Weight::Bold, &INK)?;
    let terms = format!("{name}: {}", report::terms(contest));
    text(root, &terms, (24, 51), 12, Weight::Normal, &MUTED)?;
    let answered = match contest.scenario.limit {
        Some(limit) => format!("Answered in {} s", limit.as_secs_f64()),
        None => "Answered".to_owned(),
    };
    let titles = [
        (SHARES, "Share of the requests, by pod; dotted: a fair one"),
        (ANSWERED, &answered),
        (LATENCY, "Latency: p50, p99 and p99.9"),
    ];
    for ((left, _), title) in titles {
        text(root, title, (left, 82), 12, Weight::Bold, &MUTED)?;
    }
    if compares {
        legend(root)?;
    }
    Ok(())
}

/// Explains filled and hollow marks.
fn legend(root: &Area<'_>) -> Drawn {
    let (left, top) = (LATENCY.0, 46);
    let square = |left| [(left, top), (left + 10, top + 10)];
    root.draw(&Rectangle::new(square(left), MUTED.filled()))?;
    text(
        root,
        "with ejection",
        (left + 15, 51),
        12,
        Weight::Normal,
        &MUTED,
    )?;
    root.draw(&Rectangle::new(square(left + 138), MUTED))?;
    text(
        root,
        "without",
        (left + 153, 51),
        12,
        Weight::Normal,
        &MUTED,
    )
}

fn rule(root: &Area<'_>, y: i32) -> Drawn {
    let ends = [(NAME.0, y), (WIDTH as i32 - NAME.0, y)];
    root.draw(&PathElement::new(ends, FAINT))?;
    Ok(())
}

fn answered(cell: &Area<'_>, row: &Row<'_>, limit: Option<Duration>) -> Drawn {
    let success = |run: &Run| report::success(run.within(limit.unwrap_or(Duration::MAX)));

    let Some(without) = row.without else {
        return text(cell, &success(row.run), (0, 44), 18, Weight::Bold, &INK);
    };
    text(cell, &success(row.run), (0, 36), 18, Weight::Bold, &INK)?;
    let without = format!("without: {}", success(without));
    text(cell, &without, (0, 57), 12, Weight::Normal, &MUTED)
}
