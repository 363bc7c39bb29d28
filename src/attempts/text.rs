//! Attempts as text, for a log or a terminal of 80 columns.

use std::{
    fmt::{self, Formatter, Write},
    time::Duration,
};

use super::{Attempt, AttemptCause, AttemptOutcome, AttemptWaits, Attempts, PickReason};

/// How wide the text is.
const WIDTH: usize = 80;

impl fmt::Display for Attempts {
    /// Writes a few lines for each attempt.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines = Lines::default();
        for (number, attempt) in (1..).zip(&self.list) {
            lines.add(
                &format!("{number}. "),
                &sentence(attempt, self.policy.as_deref()),
            );
        }
        if self.omitted > 0 {
            lines.add("", &format!("And {} more attempts.", self.omitted));
        }
        if self.is_budget_spent {
            lines.add("", "A retry was wanted, but the retry budget is spent.");
        }
        if lines.0.is_empty() {
            lines.add("", "no attempts");
        }
        f.write_str(&lines.0)
    }
}

fn sentence(attempt: &Attempt, policy: Option<&str>) -> String {
    let mut text = match (attempt.address, &attempt.name) {
        (Some(address), Some(name)) => format!("{address} ({name})"),
        (Some(address), None) => address.to_string(),
        (None, _) => "no pod".to_owned(),
    };
    // Writing to a string doesn't fail.
    let _ = write!(text, ", {}", attempt.cause);
    if let Some(why) = attempt.why {
        let _ = match (why, policy) {
            (PickReason::Policy, Some(policy)) => write!(text, ", picked by {policy}"),
            _ => write!(text, ", picked {why}"),
        };
    }
    let _ = write!(text, ": {} ", attempt.outcome);
    let _ = match attempt.outcome {
        AttemptOutcome::UnderWay => write!(text, "for {}", short(attempt.took)),
        _ => write!(text, "after {}", short(attempt.took)),
    };
    if !attempt.began.is_zero() {
        let _ = write!(text, ", begun at {}", short(attempt.began));
    }
    let _ = write!(text, "{}", attempt.waits);
    if let Some(error) = attempt.outcome.error() {
        let _ = write!(text, ": {error}");
    }
    text
}

/// A time to the microsecond, in a unit that suits it.
fn short(time: Duration) -> String {
    let time = Duration::from_micros(time.as_micros() as u64);
    match time < Duration::from_millis(1) {
        true => format!("{time:.0?}"),
        false => format!("{time:.1?}"),
    }
}

/// Writes the waits that aren't zero, such as `, waited 1.5s for discovery`.
impl fmt::Display for AttemptWaits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let waits = [
            (self.discovery, "discovery"),
            (self.unreachable, "any pod to accept"),
            (self.connection, "a connection"),
            (self.pod, "this pod"),
        ];
        for (time, what) in waits.iter().filter(|(time, _)| !time.is_zero()) {
            write!(f, ", waited {} for {what}", short(*time))?;
        }
        Ok(())
    }
}

impl AttemptOutcome {
    /// The error's text, if the outcome is one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Refused { error }
            | Self::Busy { error }
            | Self::Unprocessed { error }
            | Self::Lost { error }
            | Self::Unsent { error } => Some(error),
            Self::UnderWay
            | Self::Answered { .. }
            | Self::Left
            | Self::Overtaken
            | Self::TimedOut
            | Self::Cancelled => None,
        }
    }
}

impl fmt::Display for AttemptOutcome {
    /// Writes the outcome without its error.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered {
                status: Some(status),
            } => return write!(f, "answered {status}"),
            Self::UnderWay => "under way",
            Self::Answered { status: None } => "answered",
            Self::Refused { .. } => "refused",
            Self::Busy { .. } => "had no room",
            Self::Left => "left the set",
            Self::Unprocessed { .. } => "not processed",
            Self::Lost { .. } => "lost",
            Self::Unsent { .. } => "not sent",
            Self::Overtaken => "overtaken by another attempt",
            Self::TimedOut => "out of time",
            Self::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for AttemptCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first attempt",
            Self::NotTaken => "because the previous pod didn't take it",
            Self::RetryAnswered => "retry after the previous answer",
            Self::RetryLost => "retry of a lost request",
            Self::RetryUnprocessed => "retry of an unprocessed request",
            Self::RetryUnsent => "retry of an unsent request",
            Self::Hedge => "hedge",
            Self::Another => "another request",
        })
    }
}

impl fmt::Display for PickReason {
    /// Writes what comes after "picked".
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broadcast => "for a broadcast",
            Self::Requested => "as requested",
            Self::Trial => "for a trial",
            Self::Preferred => "as preferred",
            Self::Avoided => "though avoided, because no other was left",
            Self::LastResort => "though ejected, because no other was left",
            Self::Key => "by its key",
            Self::NextForKey => "as the key's next pod",
            Self::Only => "as the only one available",
            Self::Elsewhere => "among pods not tried yet",
            Self::Panic => "in a panic",
            Self::Near => "from the near pods",
            Self::Far => "from the far pods, because the near ones are too few",
            Self::Policy => "by the policy",
        })
    }
}

/// Text, wrapped at [`WIDTH`].
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Adds `first` and the words, in as many lines as they need. All but the first line are indented.
    fn add(&mut self, first: &str, words: &str) {
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in words.split_whitespace().flat_map(pieces) {
            let width = line.chars().count() + usize::from(!is_empty) + word.chars().count();
            if !is_empty && width > WIDTH {
                self.push(&line);
                line = INDENT.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += word;
            is_empty = false;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += line;
    }
}

const INDENT: &str = "   ";

/// Cuts a word into pieces that fit into a line after its indent and a number.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    const LEN: usize = WIDTH - 2 * INDENT.len();
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest
            .char_indices()
            .nth(LEN)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
