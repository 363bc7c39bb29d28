//! A terminal of any size for a program, and its contents at the end.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    process::{Command, ExitStatus},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A program's output, and how it ended.
pub struct Written {
    pub text: String,
    pub status: ExitStatus,
    pub screen: Screen,
}

/// Runs the program with its output and its errors on a terminal of this size. Blocks until it has ended.
pub fn run(mut command: Command, columns: u16, rows: u16) -> Written {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).expect("a pseudo terminal");
    grantpt(&ours).expect("it may be used");
    unlockpt(&ours).expect("it may be opened");
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let name = name.into_string().expect("text");
    let theirs = OpenOptions::new().read(true).write(true).open(name);
    let theirs = theirs.expect("the program's end");
    tcsetwinsize(&theirs, size).expect("a size");
    let errors = theirs.try_clone().expect("the same again");
    let mut child = command
        .stdout(theirs)
        .stderr(errors)
        .spawn()
        .expect("it starts");
    // The command also holds the program's end of the terminal. Reading ends when nobody holds it.
    drop(command);
    let mut bytes = Vec::new();
    // On Linux the end shows as EIO.
    let _ = File::from(ours).read_to_end(&mut bytes);
    let status = child.wait().expect("its end");
    let text = String::from_utf8(bytes).expect("text");
    let mut screen = Screen::new(columns.into(), rows.into());
    screen.write(&text);
    Written {
        text,
        status,
        screen,
    }
}

/// The part of a terminal that our examples use. It panics if they use more, such as colour.
pub struct Screen {
    columns: usize,
    rows: usize,
    /// All lines, those that have scrolled out of sight first.
    lines: Vec<String>,
    /// The line of the cursor, which is at its end: a program that moves there clears the rest of the screen.
    row: usize,
    /// Lines that were too long for the screen.
    pub wrapped: usize,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows,
            lines: vec![String::new()],
            row: 0,
            wrapped: 0,
        }
    }

    fn write(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            match next {
                '\x1b' => {
                    let end = rest.as_str().find(|it: char| it.is_ascii_alphabetic());
                    let end = end.expect("a sequence's end") + 1;
                    self.control(&rest.as_str()[..end]);
                    rest = rest.as_str()[end..].chars();
                }
                '\r' => {}
                '\n' => self.next_line(),
                other => self.put(other),
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        match sequence.strip_prefix('[') {
            Some("J") => {
                self.lines.truncate(self.row + 1);
                self.lines[self.row].clear();
            }
            Some(up) if up.ends_with('F') => {
                let up: usize = up.trim_end_matches('F').parse().expect("a number");
                // No further up than the first visible line.
                let first = self.lines.len().saturating_sub(self.rows);
                self.row = self.row.saturating_sub(up).max(first);
            }
            _ => panic!("the terminal can't do {sequence:?}"),
        }
    }

    fn next_line(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(String::new());
        }
    }

    fn put(&mut self, letter: char) {
        if self.lines[self.row].chars().count() == self.columns {
            self.wrapped += 1;
            self.next_line();
        }
        self.lines[self.row].push(letter);
    }

    /// All lines, including those that have scrolled out of sight. The last one is the cursor's, where the prompt
    /// comes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The visible lines.
    pub fn visible(&self) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(self.rows)..]
    }
}
