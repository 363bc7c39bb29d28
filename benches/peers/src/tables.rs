//! The results as Markdown.

use std::fmt::Write;

use crate::{
    rank::{self, median},
    results::{Better, Cell, Measure, Results, Value},
};

const TIES: &str = "Medians, and in parentheses the least and the most of all rounds. *Of ours* is the median of the ratios round by round, to the \
     first row. Ties share a rank: two peers that are within 5 % of each other (updates 10 %, failures and their times 30 %), \
     or whose order is not the same in 80 % of the rounds.";

/// What a reader has to know of a table.
const NOTES: [(&str, &str); 8] = [
    (
        "A pick",
        "One whole request to a service that does nothing. Those marked *address only* choose an address and stop there: they \
         neither call a service nor count its requests.",
    ),
    (
        "An update",
        "One endpoint leaves and one joins. It ends when the new one can be chosen. Ours is told through its task, the others \
         by a call. volo builds its list without looking for what has changed.",
    ),
    (
        "HTTP/1.1",
        "32 callers in a closed loop, over six pods in the same process. The processor time is all but that of the pods' \
         thread, and has Envoy's in it. *Turns by hand*: the peer doesn't balance; its caller names the next pod.",
    ),
    ("HTTP/2", "As above, with one connection to each pod."),
    (
        "gRPC",
        "tonic's health check over each transport. ginepro is on tonic 0.13, the others are on 0.14.",
    ),
    (
        "Memory of an idle client",
        "Live bytes of the heap, with a connection to each of 100 pods. The system's buffers are not in it.",
    ),
    (
        "Failed requests",
        "Of 100 requests. Six pods, each answering after 5 ms; 200 requests a second by each client, whose callers give up after 1 s; \
         all clients at once, each with a cluster and a DNS server of its own.",
    ),
    ("The slowest of a hundred", "The 99th percentile of the same requests, those that failed among them."),
];

/// Whether a table compares each figure with ours.
fn has_ratios(table: &str) -> bool {
    !table.starts_with("Failed") && !table.starts_with("The slowest")
}

pub fn markdown(results: &Results) -> String {
    let mut text = format!("{}\n\n{TIES}\n\n", results.machine);
    for table in results.tables() {
        let heading = format!("### {table}\n\n");
        text += &heading;
        if let Some((_, note)) = NOTES.iter().find(|(name, _)| *name == table) {
            text += &format!("{note}\n\n");
        }
        text += &body(results, table);
        text += &losses(results, table);
        text.push('\n');
    }
    text
}

fn body(results: &Results, table: &str) -> String {
    let (measures, peers) = (results.measures(table), results.peers(table));
    let mut text = String::from("| |");
    let mut rule = String::from("| --- |");
    for measure in &measures {
        let Measure { column, unit, .. } = measure;
        match has_ratios(table) {
            true => {
                write!(text, " {column}, {unit} | of ours | rank |").expect("to a string");
                rule += " --- | --- | --- |";
            }
            false => {
                write!(text, " {column}, {unit} | rank |").expect("to a string");
                rule += " --- | --- |";
            }
        }
    }
    text = format!("{text}\n{rule}\n");
    for peer in peers {
        write!(text, "| {peer} |").expect("to a string");
        for measure in &measures {
            text += &cells(results, table, measure, peer);
        }
        text.push('\n');
    }
    text
}

/// A peer's cells in one column: the figure, its part of ours, its rank.
fn cells(results: &Results, table: &str, measure: &Measure, peer: &str) -> String {
    let more = if has_ratios(table) { " | |" } else { " |" };
    let Some(cell) = results.cell(measure, peer) else {
        return format!(" – |{more}");
    };
    let rounds = match &cell.value {
        Value::Words(words) => return format!(" {words} |{more}"),
        Value::Rounds(rounds) => rounds,
    };
    let mut text = format!(" {} |", spread(rounds));
    if has_ratios(table) {
        let ours = results.peers(table).first().copied().unwrap_or_default();
        let ours = results.cell(measure, ours).and_then(Cell::rounds);
        let ratios = rounds.iter().zip(ours.unwrap_or_default());
        let ratio = median(ratios.map(|(peer, ours)| peer / ours));
        write!(text, " {ratio:.2} |").expect("to a string");
    }
    let rank = rank::rank(results, cell).unwrap_or_default();
    write!(text, " {rank} |").expect("to a string");
    text
}

/// The median, and the range if it shows.
fn spread(rounds: &[f64]) -> String {
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let [median, least, most] = [median(rounds.iter().copied()), least, most].map(figure);
    match least == most {
        true => median,
        false => format!("{median} ({least}–{most})"),
    }
}

/// Three digits.
fn figure(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        _ if value >= 99.5 => format!("{value:.0}"),
        _ if value >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Who is before our first row, and where.
fn losses(results: &Results, table: &str) -> String {
    let mut found = Vec::new();
    for measure in results.measures(table) {
        let ours = results.peers(table).first().copied().unwrap_or_default();
        let Some(ours) = results.cell(measure, ours).and_then(Cell::rounds) else {
            continue;
        };
        let better = results.column(measure).filter(|cell| {
            let rounds = cell.rounds();
            let is_better = rounds.is_some_and(|it| rank::order(it, ours, measure).is_lt());
            is_better && !cell.peer.starts_with("ours")
        });
        let names: Vec<_> = better.map(|cell| &*cell.peer).collect();
        if !names.is_empty() {
            found.push(format!("{} ({})", names.join(", "), measure.column));
        }
    }
    let column = results.measures(table).into_iter().next();
    let word = match column.map(|measure| measure.better) {
        Some(Better::More) => "Ahead of us",
        _ => "Better than ours",
    };
    match found.is_empty() {
        true => format!("\n{word}: none.\n"),
        false => format!("\n{word}: {}.\n", found.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_ratios_ranks_and_losses() {
        let measure = Measure::less("A pick", "6 pods", "ns");
        let mut results = Results::default();
        results.add(&measure, "ours", vec![20.0, 20.0, 20.0]);
        results.add(&measure, "theirs", vec![9.0, 10.0, 11.0]);
        results.say(&measure, "another", "does not build");
        let text = markdown(&results);
        for line in [
            "| | 6 pods, ns | of ours | rank |",
            "| ours | 20.0 | 1.00 | 2 |",
            "| theirs | 10.0 (9.00–11.0) | 0.50 | 1 |",
            "| another | does not build | | |",
            "Better than ours: theirs (6 pods).",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
