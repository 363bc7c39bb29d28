//! The results as Markdown.

use std::fmt::Write;

use crate::{
    rank::{self, median},
    results::{Cell, Measure, Results, Value},
};

const TIES: &str = "\
Medians, and in parentheses the least and the most of all rounds. *Of ours* is the median of the ratios to the first row, round by
round. Ties share a rank. Two peers tie if their order isn't the same in four of five rounds, or if they are near each other:
within 5 % (memory 2 %, replacing a pod 10 %, failures 30 %, slow requests 50 %), 2 ns, 2 of 100 requests, 10 ms, or half a second.";

/// What a reader has to know of a table.
const NOTES: [(&str, &str); 9] = [
    (
        "Choosing a pod",
        "\
One whole request to a service that does nothing. With *address only*, a peer chooses an address and stops there. It calls no
service, and counts no requests.",
    ),
    (
        "Replacing a pod of the set",
        "\
One pod leaves and one joins; it ends when the new one can be chosen. Our balancer and tower's are told by a channel, the
others by a call. tower is told the two changes, the others the whole set. volo looks for no changes in it.",
    ),
    (
        "HTTP/1.1",
        "\
32 callers in a closed loop over six pods, which are a thread of this process. Processor time is that of all other threads, and of
Envoy. *Turns by hand*: the peer doesn't balance, and its caller names the next pod.",
    ),
    ("HTTP/2", "As for HTTP/1.1, but with one connection to each pod."),
    (
        "gRPC",
        "\
tonic's health check over each transport. ginepro is built on tonic 0.13, the others on 0.14. tonic-lb-k8s has no row: it fills
tonic's `balance_channel` from the API server. volo-grpc needs code of its own generated.",
    ),
    (
        "Memory of an idle client",
        "Live bytes of the heap, with a connection to each of 100 pods. The system's buffers are not in it.",
    ),
    (
        "Failed requests",
        "\
Six pods that answer after 5 ms. Each client sends 200 requests a second for 3 s, and its callers give up after 1 s. The pod that
fails is the one that the client has used most. When a pod restarts, DNS has been silent for 1.5 s. Clients have their defaults,
and DNS a TTL of 1 s; ginepro is told to ask each second, and Envoy to respect the TTL.",
    ),
    ("Slow requests", "The 99th percentile of the requests that succeeded."),
    (
        "Finding a new pod",
        "A seventh pod is in DNS. Clients that keep their connections and never ask again don't find it.",
    ),
];

/// Whether a table compares each figure with ours.
fn has_ratios(table: &str) -> bool {
    !["Failed requests", "Slow requests", "Finding a new pod"].contains(&table)
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
        let digits = if ratio < 0.1 { 3 } else { 2 };
        write!(text, " {ratio:.digits$} |").expect("to a string");
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

/// Who is better than our first row, and where.
fn losses(results: &Results, table: &str) -> String {
    let mut text = String::new();
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
            text += &format!(
                "\nBetter than ours in *{}*: {}.\n",
                measure.column,
                names.join("; ")
            );
        }
    }
    match text.is_empty() {
        true => "\nNone is better than ours.\n".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_ratios_ranks_and_losses() {
        let measure = Measure::less("Choosing a pod", "6 pods", "ns");
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
            "Better than ours in *6 pods*: theirs.",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
