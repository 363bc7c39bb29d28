//! Draws the screen, for 80 × 24 and larger.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap},
};
use tokio::time::Instant;
use tower_headless::{EndpointExplanation, Explanation};

use crate::{
    app::{App, badness, is_stuck},
    explain::{lines, short},
};

/// How many sentences of trouble are shown, because a terminal has few lines.
const TROUBLE: usize = 3;

/// From these widths on, there is room for further columns.
const WIDE: u16 = 110;
const WIDER: u16 = 140;
const WIDEST: u16 = 180;

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    draw_at(frame, app, Instant::now());
}

pub(crate) fn draw_at(frame: &mut Frame<'_>, app: &App, now: Instant) {
    let trouble = app
        .shown()
        .map(|it| troubles(it, frame.area().width))
        .unwrap_or_default();
    let [head, state, wrong, source, table, why, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(u16::try_from(trouble.len()).unwrap_or_default()),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(app), head);
    frame.render_widget(reading(app, now), state);
    let red = Style::new().fg(Color::Red);
    frame.render_widget(Text::from_iter(trouble).style(red), wrong);
    frame.render_widget(app.shown().map(discovery).unwrap_or_default(), source);
    let pods = app.pods();
    let row = app.row(&pods);
    match (app.told, app.shown(), pods.get(row)) {
        (Some(line), Some(whole), Some(pod)) => told(frame, table, pod, whole, line),
        _ => rows(frame, table, app, &pods, row),
    }
    let chosen = pods.get(row).map(|pod| match pod.why.as_str() {
        "" if is_stuck(pod, app.usual_waiting()) => {
            let why = "its requests wait, those of other pods don't";
            format!("{}: {why}", pod.label())
        }
        "" => pod.label(),
        why => format!("{}: {why}", pod.label()),
    });
    let chosen = Paragraph::new(chosen.unwrap_or_default()).wrap(Wrap { trim: true });
    frame.render_widget(chosen, why);
    let text = "↑ ↓ pod   Enter all of it   Tab balancer   q quit";
    frame.render_widget(Line::from(text).dim(), keys);
}

fn headline(app: &App) -> Line<'_> {
    let Some(it) = app.shown() else {
        return Line::from("tower-headless").bold();
    };
    let rates = app.pods().into_iter().filter_map(|pod| app.per_second(pod));
    let rate: f64 = rates.sum();
    let mut text = format!(
        "  {} of {} pods get requests, {rate:.0}/s, {}",
        it.available, it.size, it.policy.name
    );
    let count = app.balancers.len();
    if count > 1 {
        let place = app.balancers.keys().position(|name| *name == app.balancer);
        text += &format!("  ({} of {count})", place.unwrap_or_default() + 1);
    }
    Line::from(vec![Span::from(&*app.balancer).bold(), Span::from(text)])
}

fn reading(app: &App, now: Instant) -> Line<'_> {
    let age = app.read_at.map(|at| now.saturating_duration_since(at));
    let age = age.map(|age| age.as_secs());
    match (&app.failure, age) {
        (Some(error), Some(age)) => {
            let text = format!("No answer for {age} s, trying again: {error}");
            Line::from(text).red().bold()
        }
        (Some(error), None) => Line::from(format!("No answer, trying again: {error}"))
            .red()
            .bold(),
        (None, None) => Line::from(format!("Reading {} …", app.url)).dim(),
        (None, _) if app.balancers.is_empty() => {
            Line::from("No balancer has been added to the page.").yellow()
        }
        (None, Some(age)) => Line::from(format!("{}, read {age} s ago", app.url)).dim(),
    }
}

/// One line for each trouble. The bottom of the screen has all about the selected pod.
fn troubles(it: &Explanation, width: u16) -> Vec<String> {
    let shown = it.trouble.iter().take(TROUBLE);
    let mut shown: Vec<_> = shown.map(|it| cut(format!("! {it}"), width)).collect();
    if let Some(more @ 1..) = it.trouble.len().checked_sub(TROUBLE) {
        shown.push(format!("! and {more} more"));
    }
    shown
}

fn cut(text: String, width: u16) -> String {
    let width = usize::from(width);
    match text.chars().count() > width {
        true => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => text,
    }
}

fn discovery(it: &Explanation) -> Line<'static> {
    let source = &it.discovery;
    let mut text = source
        .kind
        .clone()
        .unwrap_or_else(|| "unknown source".into());
    if let Some(name) = &source.name {
        text += &format!(" {name}");
    }
    match source.staleness {
        Some(age) => text += &format!(", answered {} ago", short(age)),
        None => text += ", not answered yet",
    }
    if let Some(ttl) = source.ttl {
        text += &format!(", TTL {}", short(ttl));
    }
    match source.is_failing {
        true => Line::from(format!("{text}, fails")).red(),
        false => Line::from(text),
    }
}

fn rows(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    pods: &[&EndpointExplanation],
    chosen: usize,
) {
    let columns = columns(area.width);
    let widths = columns.iter().map(|column| column.width);
    let titles = columns
        .iter()
        .map(|column| aligned(column, column.title.to_owned()));
    let usual = app.usual_waiting();
    let rows = pods.iter().map(|pod| {
        let cells = columns
            .iter()
            .map(|column| aligned(column, (column.text)(app, pod)));
        Row::new(cells).style(colour(pod, usual))
    });
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(Style::new().bold().underlined()))
        .row_highlight_style(Style::new().reversed())
        .column_spacing(1);
    let mut state = TableState::new().with_selected((!pods.is_empty()).then_some(chosen));
    frame.render_stateful_widget(table, area, &mut state);
}

fn colour(pod: &EndpointExplanation, usual: u32) -> Style {
    match badness(pod.verdict) {
        5 => Style::new().red(),
        2..=4 => Style::new().yellow(),
        1 if is_stuck(pod, usual) => Style::new().yellow(),
        1 => Style::new(),
        _ => Style::new().dim(),
    }
}

struct Column {
    title: &'static str,
    width: Constraint,
    is_number: bool,
    text: fn(&App, &EndpointExplanation) -> String,
}

fn aligned(column: &Column, text: String) -> Cell<'static> {
    let text = Text::from(text);
    Cell::from(if column.is_number {
        text.right_aligned()
    } else {
        text
    })
}

/// The columns that fit.
fn columns(width: u16) -> Vec<Column> {
    let text = |title, width, text| Column {
        title,
        width,
        is_number: false,
        text,
    };
    let number = |title, width, text| Column {
        title,
        width: Constraint::Length(width),
        is_number: true,
        text,
    };
    let mut all = vec![text("POD", Constraint::Fill(2), |_, pod| pod.label())];
    let (is_wide, is_wider) = (width >= WIDE, width >= WIDER);
    if is_wider {
        all.push(text("ZONE", Constraint::Length(12), |_, pod| {
            pod.zone.clone().unwrap_or_default()
        }));
    }
    all.push(text("STATE", Constraint::Length(14), |_, pod| {
        pod.verdict.to_string()
    }));
    all.push(number("FLIGHT", 6, |_, pod| pod.in_flight.to_string()));
    all.push(number("WAIT", 5, |_, pod| pod.waiting.to_string()));
    all.push(number("REQ/S", 6, |app, pod| {
        app.per_second(pod)
            .map_or("-".into(), |rate| format!("{rate:.0}"))
    }));
    if is_wide {
        all.push(number("SUCCESS", 8, |_, pod| success(pod)));
    }
    all.push(number("FAIL", 5, |_, pod| {
        pod.counts
            .as_ref()
            .map_or("-".into(), |it| it.failures.total().to_string())
    }));
    if is_wide {
        all.push(number("P50", 7, |_, pod| pod.p50.map_or("-".into(), short)));
    }
    if is_wider {
        all.push(number("P95", 7, |_, pod| pod.p95.map_or("-".into(), short)));
    }
    all.push(number("P99", 7, |_, pod| pod.p99.map_or("-".into(), short)));
    all.push(number("SHARE", 5, |_, pod| {
        pod.share
            .map_or("-".into(), |share| format!("{:.0}%", share * 100.0))
    }));
    if is_wide {
        all.push(number("TRIAL", 7, |_, pod| {
            pod.next_trial.map_or(String::new(), short)
        }));
    }
    if width >= WIDEST {
        all.push(text("WHY", Constraint::Fill(3), |_, pod| pod.why.clone()));
    }
    all
}

/// The success rate of requests that ended as a success, a failure or an overload.
fn success(pod: &EndpointExplanation) -> String {
    let Some(counts) = &pod.counts else {
        return "-".into();
    };
    let all = counts.successes + counts.failures.total() + counts.overloads;
    match all {
        0 => "-".into(),
        // Rounded down: 99.96 % isn't all.
        _ => format!("{:.1}%", ((counts.successes * 1_000) / all) as f64 / 10.0),
    }
}

fn told(
    frame: &mut Frame<'_>,
    area: Rect,
    pod: &EndpointExplanation,
    whole: &Explanation,
    line: u16,
) {
    let text = Text::from_iter(lines(pod, whole));
    let block = Block::bordered()
        .title(format!(" {} ", pod.label()))
        .title_bottom(" Enter: back ");
    let text = Paragraph::new(text)
        .block(block)
        .wrap(Wrap { trim: false })
        .scroll((line, 0));
    frame.render_widget(text, area);
}
