//! What was measured: of each peer, in each column of each table, one figure a round. Saved as lines of tab-separated text.

use std::{fmt::Write, fs, io, path::Path};

/// Which figures are the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// One column of a table, and when two of its figures are a tie.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub table: String,
    pub column: String,
    pub unit: String,
    pub better: Better,
    /// Figures that differ by at most this part of the larger one are a tie.
    pub apart: f64,
    /// Figures that differ by at most this are a tie.
    pub slack: f64,
}

impl Measure {
    pub fn less(table: &str, column: &str, unit: &str) -> Self {
        Self {
            table: table.to_owned(),
            column: column.to_owned(),
            unit: unit.to_owned(),
            better: Better::Less,
            apart: 0.05,
            slack: 0.0,
        }
    }

    pub fn more(table: &str, column: &str, unit: &str) -> Self {
        let better = Better::More;
        Self {
            better,
            ..Self::less(table, column, unit)
        }
    }

    pub fn apart(self, apart: f64) -> Self {
        Self { apart, ..self }
    }

    pub fn slack(self, slack: f64) -> Self {
        Self { slack, ..self }
    }
}

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A figure of each round.
    Rounds(Vec<f64>),
    /// Why there is none.
    Words(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub measure: Measure,
    pub peer: String,
    pub value: Value,
}

impl Cell {
    pub fn rounds(&self) -> Option<&[f64]> {
        match &self.value {
            Value::Rounds(rounds) => Some(rounds),
            Value::Words(_) => None,
        }
    }

    fn line(&self) -> String {
        let measure = &self.measure;
        let better = match measure.better {
            Better::Less => "less",
            Better::More => "more",
        };
        let mut line = format!(
            "{}\t{}\t{}\t{better}\t{}\t{}\t{}\t",
            measure.table, measure.column, measure.unit, measure.apart, measure.slack, self.peer
        );
        match &self.value {
            Value::Rounds(rounds) => rounds
                .iter()
                .for_each(|figure| write!(line, "{figure} ").expect("to a string")),
            Value::Words(words) => write!(line, "\"{words}").expect("to a string"),
        }
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next().map(str::to_owned);
        let (table, column, unit) = (next()?, next()?, next()?);
        let better = match &*next()? {
            "less" => Better::Less,
            "more" => Better::More,
            _ => return None,
        };
        let (apart, slack) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (peer, value) = (next()?, next()?);
        let value = match value.strip_prefix('"') {
            Some(words) => Value::Words(words.to_owned()),
            None => {
                let figures = value.split_whitespace().map(|figure| figure.parse().ok());
                Value::Rounds(figures.collect::<Option<_>>()?)
            }
        };
        let measure = Measure {
            table,
            column,
            unit,
            better,
            apart,
            slack,
        };
        Some(Self {
            measure,
            peer,
            value,
        })
    }
}

/// All cells of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// What it was measured on, in a sentence.
    pub machine: String,
    pub cells: Vec<Cell>,
}

impl Results {
    pub fn add(&mut self, measure: &Measure, peer: &str, rounds: Vec<f64>) {
        self.push(measure, peer, Value::Rounds(rounds));
    }

    /// Says why a peer has no figure.
    pub fn say(&mut self, measure: &Measure, peer: &str, words: &str) {
        self.push(measure, peer, Value::Words(words.to_owned()));
    }

    fn push(&mut self, measure: &Measure, peer: &str, value: Value) {
        self.cells.push(Cell {
            measure: measure.clone(),
            peer: peer.to_owned(),
            value,
        });
    }

    /// The tables, as they were first added to.
    pub fn tables(&self) -> Vec<&str> {
        distinct(self.cells.iter().map(|cell| &*cell.measure.table))
    }

    /// The columns of a table.
    pub fn measures(&self, table: &str) -> Vec<&Measure> {
        let mut found: Vec<&Measure> = Vec::new();
        for Cell { measure, .. } in &self.cells {
            let is_new = found.iter().all(|other| other.column != measure.column);
            if measure.table == table && is_new {
                found.push(measure);
            }
        }
        found
    }

    /// The rows of a table.
    pub fn peers(&self, table: &str) -> Vec<&str> {
        let cells = self.cells.iter().filter(|cell| cell.measure.table == table);
        distinct(cells.map(|cell| &*cell.peer))
    }

    /// The cells of a column.
    pub fn column<'a>(&'a self, measure: &'a Measure) -> impl Iterator<Item = &'a Cell> {
        let is_in = |cell: &&Cell| {
            cell.measure.table == measure.table && cell.measure.column == measure.column
        };
        self.cells.iter().filter(is_in)
    }

    pub fn cell<'a>(&'a self, measure: &'a Measure, peer: &str) -> Option<&'a Cell> {
        self.column(measure).find(|cell| cell.peer == peer)
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        let lines: String = self.cells.iter().map(|cell| cell.line() + "\n").collect();
        fs::write(path, format!("{}\n{lines}", self.machine))
    }

    pub fn load(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut lines = text.lines();
        let machine = lines.next().unwrap_or_default().to_owned();
        let cells = lines.map(|line| {
            Cell::parse(line).ok_or_else(|| io::Error::other(format!("no such line: {line}")))
        });
        let cells = cells.collect::<io::Result<_>>()?;
        Ok(Self { machine, cells })
    }
}

fn distinct<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_as_they_were_written() {
        let measure = Measure::more("HTTP", "requests", "/s").slack(2.0);
        let mut results = Results::default();
        results.add(&measure, "one", vec![1.5, 2.0]);
        results.say(&measure, "another", "no such thing");
        for cell in &results.cells {
            assert_eq!(Cell::parse(&cell.line()).as_ref(), Some(cell));
        }
        assert_eq!(Cell::parse("HTTP\trequests"), None);
        assert_eq!(results.peers("HTTP"), ["one", "another"]);
    }
}
