//! Lines that stay, and on a terminal a table below them that is drawn over and over.

use std::io::{IsTerminal, Stdout, Write, stdout};

pub(crate) struct Screen {
    out: Stdout,
    is_terminal: bool,
    /// What stands below the lines now.
    table: String,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let out = stdout();
        Self {
            is_terminal: out.is_terminal(),
            out,
            table: String::new(),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A line that stays, above the table.
    pub(crate) fn line(&mut self, line: &str) {
        self.replace(&format!("{line}\n"), self.table.clone());
    }

    /// The table from now on.
    pub(crate) fn table(&mut self, table: String) {
        self.replace("", table);
    }

    /// The last words, in the table's place.
    pub(crate) fn end(&mut self, text: &str) {
        self.replace(text, String::new());
    }

    /// All in one write, so that nothing flickers.
    fn replace(&mut self, lines: &str, table: String) {
        // To the beginning of the old table, and clear from there (ECMA-48 CPL and ED).
        let erase = match self.table.lines().count() {
            0 => String::new(),
            height => format!("\x1b[{height}F\x1b[J"),
        };
        // A row that wrapped would make the table higher than it counts (DECAWM).
        let drawn = match &*table {
            "" => String::new(),
            table => format!("\x1b[?7l{table}\x1b[?7h"),
        };
        self.table = table;
        // Nobody may be reading any more (`| head`): the run goes on, and its exit status still tells.
        let text = format!("{erase}{lines}{drawn}");
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}
