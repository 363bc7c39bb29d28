//! The log of a request's attempts, and its writer.
//!
//! ```text
//!  AttemptLog ── travels in the request's Route ──▶ one Recording for each try (first, retry, hedge)
//!      ▲                                                │ sought ▶ waits ▶ picked ▶ ended, and sought anew if not taken
//!      └────────────── one entry an attempt ────────────┘ dropped before its end: cancelled
//! ```

use std::{error::Error as StdError, fmt, mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Attempt, AttemptCause, AttemptOutcome, AttemptWaits, Attempts, PickReason};
use crate::{counters::WaitCause, endpoint::Endpoint, error::line, sync::Mutex};

/// A log of one request's attempts, for any protocol. The caller keeps this handle.
///
/// Give it to [`Route::record`](crate::Route::record). You can read it at any time: while the request is under way, and
/// after it was cancelled. Take a new log for each request, because it lists only the first hundred attempts, and
/// counts the rest.
///
/// ```
/// use tower::service_fn;
/// use tower_headless::{AttemptLog, AttemptOutcome, Balance, BoxError, Endpoint, Route, StaticEndpoints};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?]);
/// let balance = Balance::builder(pods).build(|_: &Endpoint| service_fn(async |word: &str| Ok::<_, BoxError>(word.len())));
/// let log = AttemptLog::new();
/// balance.call_with("hello", Route::new().record(&log)).await?;
/// let attempts = log.attempts();
/// assert_eq!(attempts.list[0].outcome, AttemptOutcome::Answered { status: None });
/// println!("{attempts}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct AttemptLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    /// When the request began.
    began: Option<Instant>,
    policy: Option<&'static str>,
    is_budget_spent: bool,
    /// The first [`KEPT`] attempts.
    entries: Vec<Entry>,
    /// How many attempts came after those.
    omitted: u64,
}

/// How many attempts are kept. A log that is used for many requests by mistake must not grow for ever.
const KEPT: usize = 100;

struct Entry {
    attempt: Attempt,
    since: Instant,
    /// What it waits for now, and since when.
    waits: Option<(WaitCause, Instant)>,
    /// It found no endpoint, so it doesn't count as an attempt.
    is_discarded: bool,
}

impl AttemptLog {
    /// Makes an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attempts so far.
    pub fn attempts(&self) -> Attempts {
        let now = Instant::now();
        let log = self.0.lock();
        let entries = log.entries.iter().filter(|entry| !entry.is_discarded);
        Attempts {
            policy: log.policy.map(str::to_owned),
            is_budget_spent: log.is_budget_spent,
            omitted: log.omitted,
            list: entries.map(|entry| entry.at(now)).collect(),
        }
    }

    /// Notes that the request begins, unless it has begun.
    #[cfg(feature = "http")]
    pub(crate) fn begin(&self) {
        self.0.lock().began.get_or_insert_with(Instant::now);
    }

    /// Notes that another attempt was wanted, but the retry budget is spent.
    pub(crate) fn budget_is_spent(&self) {
        self.0.lock().is_budget_spent = true;
    }

    /// Ends all attempts that are under way, because the request's time is up.
    #[cfg(feature = "http")]
    pub(crate) fn time_is_up(&self) {
        let now = Instant::now();
        let mut log = self.0.lock();
        let entries = log.entries.iter_mut();
        for entry in entries.filter(|it| it.attempt.outcome == AttemptOutcome::UnderWay) {
            entry.end(AttemptOutcome::TimedOut, now);
        }
    }
}

impl Entry {
    /// The attempt as it is at `now`.
    fn at(&self, now: Instant) -> Attempt {
        let mut attempt = self.attempt.clone();
        if attempt.outcome == AttemptOutcome::UnderWay {
            attempt.took = now.saturating_duration_since(self.since);
            if let Some((cause, since)) = self.waits {
                *attempt.waits.of(cause) += now.saturating_duration_since(since);
            }
        }
        attempt
    }

    /// Ends the attempt, unless it has ended: the first end counts.
    fn end(&mut self, outcome: AttemptOutcome, now: Instant) {
        if self.attempt.outcome == AttemptOutcome::UnderWay {
            self.wait_over(now);
            self.attempt.took = now.saturating_duration_since(self.since);
            self.attempt.outcome = outcome;
        }
    }

    fn wait_over(&mut self, now: Instant) {
        if let Some((cause, since)) = self.waits.take() {
            *self.attempt.waits.of(cause) += now.saturating_duration_since(since);
        }
    }
}

impl AttemptWaits {
    fn of(&mut self, cause: WaitCause) -> &mut Duration {
        match cause {
            WaitCause::Discovery => &mut self.discovery,
            WaitCause::Unreachable => &mut self.unreachable,
            WaitCause::Connection => &mut self.connection,
            WaitCause::Pod => &mut self.pod,
        }
    }
}

/// What a route carries about a try of the request: the log to write to, and why there is this try.
#[derive(Clone)]
pub(crate) struct RecordedTry {
    pub(crate) log: AttemptLog,
    pub(crate) why: AttemptCause,
}

impl PartialEq for RecordedTry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.log.0, &other.log.0) && self.why == other.why
    }
}

impl Eq for RecordedTry {}

impl fmt::Debug for RecordedTry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// Writes one try of a request to the log: an attempt for each endpoint that the try goes to. An attempt that hasn't
/// ended when this is dropped was cancelled.
pub(crate) struct Recording {
    recorded: RecordedTry,
    /// The attempt that hasn't ended.
    open: Option<usize>,
}

impl Recording {
    pub(crate) fn new(recorded: RecordedTry) -> Self {
        Self {
            recorded,
            open: None,
        }
    }

    /// Begins the next attempt, unless it has begun: an endpoint is being looked for.
    pub(crate) fn seek(&mut self, policy: &'static str) {
        if self.open.is_some() {
            return;
        }
        let now = Instant::now();
        let mut log = self.recorded.log.0.lock();
        let began = *log.began.get_or_insert(now);
        let cause = mem::replace(&mut self.recorded.why, AttemptCause::NotTaken);
        let is_another = cause == AttemptCause::First && !log.entries.is_empty();
        log.policy = Some(policy);
        self.open = Some(log.entries.len());
        if log.entries.len() == KEPT {
            // No entry has this index, so `with` will write nothing.
            log.omitted += 1;
            return;
        }
        log.entries.push(Entry {
            attempt: Attempt {
                name: None,
                address: None,
                cause: if is_another {
                    AttemptCause::Another
                } else {
                    cause
                },
                why: None,
                outcome: AttemptOutcome::UnderWay,
                began: now.saturating_duration_since(began),
                took: Duration::ZERO,
                waits: AttemptWaits::default(),
            },
            since: now,
            waits: None,
            is_discarded: false,
        });
    }

    /// Notes what the attempt waits for from now on.
    pub(crate) fn wait_for(&self, cause: WaitCause) {
        self.with(|entry| {
            if entry.waits.is_none_or(|(before, _)| before != cause) {
                let now = Instant::now();
                entry.wait_over(now);
                entry.waits = Some((cause, now));
            }
        });
    }

    /// Notes that the wait is over.
    pub(crate) fn wait_over(&self) {
        self.with(|entry| entry.wait_over(Instant::now()));
    }

    /// Notes that the attempt goes to this endpoint, and why.
    pub(crate) fn picked(&self, endpoint: &Endpoint, why: PickReason) {
        self.with(|entry| {
            let name = endpoint.hostname().or(endpoint.pod_name());
            entry.attempt.name = name.map(str::to_owned);
            entry.attempt.address = Some(endpoint.address());
            entry.attempt.why = Some(why);
        });
    }

    /// Ends the attempt. If the request goes on, [`seek`](Self::seek) begins the next one.
    pub(crate) fn end(&mut self, outcome: AttemptOutcome) {
        self.with(|entry| entry.end(outcome, Instant::now()));
        self.open = None;
    }

    /// Ends the attempt with an outcome that holds the error's text.
    pub(crate) fn fail(
        &mut self,
        error: &(dyn StdError + 'static),
        outcome: impl FnOnce(String) -> AttemptOutcome,
    ) {
        self.end(outcome(line(error)));
    }

    /// Discards the attempt if no endpoint was found for it, and returns whether that was so.
    pub(crate) fn discard(&mut self) -> bool {
        let mut was_found = false;
        self.with(|entry| {
            was_found = entry.attempt.address.is_some();
            entry.is_discarded = !was_found;
        });
        if !was_found {
            self.open = None;
        }
        !was_found
    }

    fn with(&self, write: impl FnOnce(&mut Entry)) {
        if let Some(open) = self.open
            && let Some(entry) = self.recorded.log.0.lock().entries.get_mut(open)
        {
            write(entry);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(AttemptOutcome::Cancelled);
    }
}

impl fmt::Debug for AttemptLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attempts().fmt(f)
    }
}
