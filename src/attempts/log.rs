//! Where a request's attempts are written, and who writes there.
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

/// Where the attempts of one request are written: a handle that its caller keeps, for requests of any protocol.
///
/// Give it to [`Route::record`](crate::Route::record). It can be read at any time, also while the request is under way and after
/// it was cancelled. Take a new one for each request: it keeps the first hundred attempts, and counts the rest.
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
    /// When the request did.
    began: Option<Instant>,
    policy: Option<&'static str>,
    is_budget_spent: bool,
    /// The first ones.
    entries: Vec<Entry>,
    /// How many more there were.
    omitted: u64,
}

/// How many attempts are kept: a log that is taken for many requests by mistake must not grow for ever.
const KEPT: usize = 100;

struct Entry {
    attempt: Attempt,
    since: Instant,
    /// What it waits for now, and since when.
    waits: Option<(WaitCause, Instant)>,
    /// It has come to nothing that counts as an attempt.
    is_discarded: bool,
}

impl AttemptLog {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is written there by now.
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

    /// The request begins, unless it has begun.
    #[cfg(feature = "http")]
    pub(crate) fn begin(&self) {
        self.0.lock().began.get_or_insert_with(Instant::now);
    }

    /// Another attempt was wanted, and the retry budget is spent.
    pub(crate) fn budget_is_spent(&self) {
        self.0.lock().is_budget_spent = true;
    }

    /// The request's time is up: what is under way is about to be cancelled for that.
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
    /// The attempt, as it is now.
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

    /// The first end counts.
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

/// The log that a request writes to, and why there is another try of it, as its route says.
#[derive(Clone)]
pub(crate) struct Cause {
    pub(crate) log: AttemptLog,
    pub(crate) why: AttemptCause,
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.log.0, &other.log.0) && self.why == other.why
    }
}

impl Eq for Cause {}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// Writes one try of a request: an attempt for each endpoint that it is brought to. What hasn't ended when this is dropped was
/// cancelled.
pub(crate) struct Recording {
    cause: Cause,
    /// The attempt that hasn't ended.
    open: Option<usize>,
}

impl Recording {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, open: None }
    }

    /// An endpoint is looked for. The next attempt begins here, unless it has.
    pub(crate) fn seek(&mut self, policy: &'static str) {
        if self.open.is_some() {
            return;
        }
        let now = Instant::now();
        let mut log = self.cause.log.0.lock();
        let began = *log.began.get_or_insert(now);
        let cause = mem::replace(&mut self.cause.why, AttemptCause::NotTaken);
        let is_another = cause == AttemptCause::First && !log.entries.is_empty();
        log.policy = Some(policy);
        self.open = Some(log.entries.len());
        if log.entries.len() == KEPT {
            // Nothing is there, nor will be, to be written to.
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

    /// It waits for this from now on, if it didn't before.
    pub(crate) fn wait_for(&self, cause: WaitCause) {
        self.with(|entry| {
            if entry.waits.is_none_or(|(before, _)| before != cause) {
                let now = Instant::now();
                entry.wait_over(now);
                entry.waits = Some((cause, now));
            }
        });
    }

    /// It waits no longer.
    pub(crate) fn wait_over(&self) {
        self.with(|entry| entry.wait_over(Instant::now()));
    }

    /// It goes to this endpoint.
    pub(crate) fn picked(&self, endpoint: &Endpoint, why: PickReason) {
        self.with(|entry| {
            let name = endpoint.hostname().or(endpoint.pod_name());
            entry.attempt.name = name.map(str::to_owned);
            entry.attempt.address = Some(endpoint.address());
            entry.attempt.why = Some(why);
        });
    }

    /// The attempt has come to this. Should the request go on, the next one begins when an endpoint is looked for.
    pub(crate) fn end(&mut self, outcome: AttemptOutcome) {
        self.with(|entry| entry.end(outcome, Instant::now()));
        self.open = None;
    }

    /// [`end`](Self::end) with what an error makes of it.
    pub(crate) fn fail(
        &mut self,
        error: &(dyn StdError + 'static),
        outcome: impl FnOnce(String) -> AttemptOutcome,
    ) {
        self.end(outcome(line(error)));
    }

    /// No endpoint has the request. It was no attempt after all if none was found for it either; false if one was.
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
            && let Some(entry) = self.cause.log.0.lock().entries.get_mut(open)
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
