//! Logs a source's failures without flooding the log.
//!
//! A source may fail every few seconds for hours. An operator wants a line when it begins, when the reason changes, now
//! and then while it lasts, and when it is over. So each text is a warning once in ten minutes. At most eight texts are
//! warnings in that time, because some texts differ each time, by a port or a time. The rest is logged at `debug`.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    endpoint::Endpoint,
    error::{BoxError, chain},
    logs::{DISCOVERY, Line, debug, here, info, warn},
};

/// How long a text that was warned about is not repeated.
const PERIOD: Duration = Duration::from_secs(600);

/// At most this many texts are warned about in [`PERIOD`].
const MOST: usize = 8;

/// Logs one source's failures and recovery. Each reader of a source has one; sources don't log their failures
/// themselves.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    /// The warnings of the last ten minutes.
    warned: Vec<(String, Instant)>,
    /// Whether the last set had endpoints; none before the first set.
    has_endpoints: Option<bool>,
    /// A failure was warned about, and no set with endpoints has come since.
    is_failing: bool,
}

impl FailureLog {
    /// Logs `answer` if it is a failure, or the first success after one.
    pub(crate) fn note(&mut self, answer: &Result<Vec<Endpoint>, BoxError>) {
        match answer {
            Ok(set) => {
                self.has_endpoints = Some(!set.is_empty());
                if !set.is_empty() && std::mem::take(&mut self.is_failing) {
                    info!(
                        DISCOVERY,
                        here(),
                        endpoints = set.len(),
                        "discovery succeeds again"
                    );
                }
            }
            Err(error) => {
                let (text, state) = (chain(&**error), self.state());
                if !self.is_due(&text, Instant::now()) {
                    debug!(DISCOVERY, here(), error = %Line(&**error), "discovery failed; {state}");
                    return;
                }
                self.is_failing = true;
                // Unquoted, though it may have several lines: it may hold a manifest to copy.
                warn!(DISCOVERY, here(), error = %text, "discovery failed; {state}");
            }
        }
    }

    fn state(&self) -> &'static str {
        match self.has_endpoints {
            None => "no endpoints yet",
            Some(true) => "the last endpoints stay",
            Some(false) => "there are no endpoints",
        }
    }

    /// Whether to warn of `text` now; if so, remembers it.
    fn is_due(&mut self, text: &str, now: Instant) -> bool {
        self.warned.retain(|(_, at)| *at + PERIOD > now);
        let is_known = self.warned.iter().any(|(warned, _)| warned == text);
        let is_due = !is_known && self.warned.len() < MOST;
        if is_due {
            self.warned.push((text.to_owned(), now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many warnings an hour of failures makes, one a second.
    fn warnings(text: impl Fn(u32) -> String) -> usize {
        let (mut log, began) = (FailureLog::default(), Instant::now());
        let is_due = |second| log.is_due(&text(second), began + second * SECOND);
        (0..3600).map(is_due).filter(|is_due| *is_due).count()
    }

    #[test]
    fn a_text_is_warned_about_once_in_ten_minutes() {
        assert_eq!(warnings(|_| "no".to_owned()), 6);
    }

    #[test]
    fn a_new_text_is_warned_about_at_once_and_alternating_texts_are_not() {
        assert_eq!(
            warnings(|second| (second / 1000).to_string()),
            2 + 2 + 2 + 1
        );
        assert_eq!(warnings(|second| (second % 2).to_string()), 2 * 6);
    }

    #[test]
    fn texts_that_never_repeat_are_warned_about_8_times_in_ten_minutes() {
        assert_eq!(warnings(|second| second.to_string()), 8 * 6);
    }

    #[test]
    fn the_log_says_whether_there_are_endpoints() {
        let mut log = FailureLog::default();
        let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
        assert_eq!(log.state(), "no endpoints yet");
        log.note(&Err("no".into()));
        assert_eq!(log.state(), "no endpoints yet");
        log.note(&Ok(vec![endpoint]));
        assert_eq!(log.state(), "the last endpoints stay");
        assert!(!log.is_failing);
        log.note(&Ok(Vec::new()));
        assert_eq!(log.state(), "there are no endpoints");
    }
}
