//! Prints lines that stay, and on a terminal a table below them that is redrawn.

use std::{
    env,
    io::{IsTerminal, Stdout, Write, stderr, stdout},
};

/// The indent of a wrapped line: below the event, which `Report::note` writes at this column.
const INDENT: usize = 18;

pub(crate) struct Screen {
    out: Stdout,
    is_terminal: bool,
    is_live: bool,
    /// The table that is below the lines now.
    table: String,
}

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let out = stdout();
        let is_terminal = out.is_terminal();
        Self {
            is_terminal,
            is_live: is_terminal && moves_its_cursor() && !has_logs(),
            out,
            table: String::new(),
        }
    }

    /// Whether the output can have a table.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// The terminal's size, if the output is a terminal.
    pub(crate) fn size(&self) -> Option<Size> {
        if !self.is_terminal {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(&self.out).ok();
        let size = size.map(|it| (usize::from(it.ws_col), usize::from(it.ws_row)));
        // A terminal that doesn't know its size says 0.
        let (columns, rows) = size.filter(|&it| it.0 > 0 && it.1 > 0).unwrap_or((80, 24));
        Some(Size { columns, rows })
    }

    /// Prints a line that stays above the table.
    pub(crate) fn line(&mut self, line: &str) {
        let line = self.fold(line);
        self.replace(&format!("{line}\n"), self.table.clone());
    }

    /// Sets the table.
    pub(crate) fn table(&mut self, table: &str) {
        let table = self.fit(table);
        self.replace("", table);
    }

    /// Replaces the table by the last one, and the closing text.
    pub(crate) fn end(&mut self, table: &str, text: &str) {
        let table = self.fit(table);
        let text = text.lines().map(|line| self.fold(line) + "\n");
        let text = text.collect::<Vec<_>>().concat();
        self.replace(&(table + &text), String::new());
    }

    /// As much of the table as fits. A row that wraps, or scrolls out of sight, couldn't be erased.
    fn fit(&self, table: &str) -> String {
        let Some(size) = self.size() else {
            return table.to_owned();
        };
        let cut = |line: &str| line.chars().take(size.columns).chain(['\n']).collect();
        // The last row is the cursor's.
        let lines = table.lines().take(size.rows.saturating_sub(1));
        lines.map(cut).collect::<Vec<String>>().concat()
    }

    fn fold(&self, line: &str) -> String {
        let columns = self.size().map_or(usize::MAX, |size| size.columns);
        fold(line, columns)
    }

    /// Writes everything at once, so that nothing flickers.
    fn replace(&mut self, lines: &str, table: String) {
        // To the beginning of the old table, and clear from there (ECMA-48 CPL and ED).
        let erase = match self.table.lines().count() {
            0 => String::new(),
            height => format!("\x1b[{height}F\x1b[J"),
        };
        // The reader may have gone (`| head`): the run goes on, and its exit status still counts.
        let text = format!("{erase}{lines}{table}");
        self.table = table;
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

fn moves_its_cursor() -> bool {
    let term = env::var("TERM").unwrap_or_default();
    !matches!(&*term, "" | "dumb")
}

/// Whether logs go to the same terminal, where the table would overwrite them.
fn has_logs() -> bool {
    let wanted = env::var_os("RUST_LOG").is_some_and(|filter| !filter.is_empty());
    wanted && stderr().is_terminal()
}

/// Wraps `line` between words at `columns`.
fn fold(line: &str, columns: usize) -> String {
    let mut folded = String::new();
    let mut width = 0;
    for word in line.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if width > INDENT && width + length > columns {
            folded.truncate(folded.trim_end().len());
            folded += &format!("\n{:INDENT$}", "");
            width = INDENT;
        }
        folded += word;
        width += word.chars().count();
    }
    folded
}
