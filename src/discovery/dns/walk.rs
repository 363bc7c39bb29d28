//! The walk through the full names that a short one may stand for.
//!
//! ```text
//!   first candidate ──▶ all that is wanted of it, at once ──▶ something is there: this is the name
//!         ▲                        │
//!         │                        ├──▶ a failure (SERVFAIL, silence, …): the walk ends, because it isn't known
//!         └── the next candidate ◀─┴──▶ DNS says that there is nothing
//! ```
//!
//! NXDOMAIN means that the name doesn't exist for any type (RFC 8020). So NXDOMAIN to the A question is enough,
//! whatever comes of the AAAA question. It isn't so the other way round: some servers answer NXDOMAIN to AAAA for names
//! that have A records (RFC 4074 §4.2).
//!
//! A failure ends the walk. The C library instead skips a candidate whose lookup fails, so a short outage may lead it
//! to another service, or to a public name server's NXDOMAIN.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::{
    look::{Kind, look},
    lookup::{Answer, Family, Found, Lookup, LookupError, Nothing, Reason, Resolve},
    pod_names::PodNames,
};
use crate::discovery::filter::Filter;

/// How long to wait for the other question once the name is known not to exist.
const GRACE: Duration = Duration::from_millis(500);

/// The looks that each candidate gets.
#[derive(Clone)]
pub(super) struct Looks<R> {
    pub(super) resolver: R,
    pub(super) filter: Filter,
    pub(super) names: PodNames,
    pub(super) kinds: Vec<Kind>,
}

/// A walk in progress.
pub(super) struct Walk<R> {
    looks: Looks<R>,
    candidates: Arc<[Arc<str>]>,
    at: usize,
    steps: Vec<Step>,
    /// Started once the candidate is known not to exist.
    grace: Option<Pin<Box<Sleep>>>,
    ttl: Option<Duration>,
    is_provisional: bool,
}

/// One look at the current candidate.
pub(super) enum Step {
    Asking(Lookup),
    Done(Answer<Found>),
}

/// The end of a walk.
pub(super) enum Walked {
    /// This name has something. Some looks may still be in progress.
    Found {
        name: Arc<str>,
        steps: Vec<Step>,
        /// Some negative answer for an earlier candidate came from a stand-in for a failing name server.
        is_provisional: bool,
    },
    /// No name has anything.
    Nothing(Nothing),
    Failed(LookupError),
}

impl<R: Resolve> Looks<R> {
    fn begin(&self, name: &Arc<str>) -> Vec<Step> {
        let kinds = self.kinds.iter();
        let look = |&kind| {
            look(
                &self.resolver,
                &self.filter,
                &self.names,
                name.clone(),
                kind,
            )
        };
        kinds.map(look).map(Step::Asking).collect()
    }
}

impl<R: Resolve> Walk<R> {
    /// Begins a walk over `candidates`, which must not be empty.
    pub(super) fn new(candidates: Arc<[Arc<str>]>, looks: Looks<R>) -> Self {
        Self {
            steps: looks.begin(&candidates[0]),
            looks,
            candidates,
            at: 0,
            grace: None,
            ttl: None,
            is_provisional: false,
        }
    }

    /// Goes on with the walk. `original` is the name as the user wrote it.
    pub(super) fn poll(&mut self, original: &str, cx: &mut Context<'_>) -> Poll<Walked> {
        loop {
            let mut pending = false;
            for step in &mut self.steps {
                pending |= step.poll(cx).is_pending();
            }
            if self.steps.iter().any(Step::has_found) {
                return Poll::Ready(Walked::Found {
                    name: self.candidates[self.at].clone(),
                    steps: std::mem::take(&mut self.steps),
                    is_provisional: self.is_provisional,
                });
            }
            let is_no_name = self.is_no_name();
            if pending && !(is_no_name && self.poll_grace(cx).is_ready()) {
                return Poll::Pending;
            }
            if let Some(error) = self.end_candidate(is_no_name) {
                return Poll::Ready(Walked::Failed(error));
            }
            self.at += 1;
            let Some(next) = self.candidates.get(self.at) else {
                return Poll::Ready(Walked::Nothing(self.nothing(original)));
            };
            self.steps = self.looks.begin(next);
        }
    }

    /// Whether the candidate is known not to exist.
    fn is_no_name(&self) -> bool {
        let mut steps = self.steps.iter().zip(&self.looks.kinds);
        steps.any(|(step, kind)| match step {
            Step::Done(Ok(Err(nothing))) => kind.is_trusted() && nothing.error.is_no_name(),
            _ => false,
        })
    }

    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let grace = self.grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
        grace.as_mut().poll(cx)
    }

    /// Ends a candidate that has nothing. If that isn't certain, returns the failure.
    fn end_candidate(&mut self, is_no_name: bool) -> Option<LookupError> {
        self.grace = None;
        for step in self.steps.drain(..) {
            match step {
                Step::Done(Err(error)) if !is_no_name => return Some(error),
                Step::Done(Ok(Err(nothing))) => {
                    let ttls = [self.ttl, nothing.ttl].into_iter().flatten();
                    self.ttl = ttls.min();
                    self.is_provisional |= nothing.is_provisional;
                }
                Step::Done(_) | Step::Asking(_) => {}
            }
        }
        None
    }

    fn nothing(&self, original: &str) -> Nothing {
        let names = self.candidates.to_vec();
        Nothing {
            ttl: self.ttl,
            error: LookupError::new(original, Reason::NoCandidate(names)),
            is_provisional: self.is_provisional,
        }
    }
}

impl Kind {
    /// Whether NXDOMAIN to this question proves that the name has no records of any type.
    pub(super) fn is_trusted(self) -> bool {
        !matches!(self, Self::Addresses(Family::V6, _))
    }
}

impl Step {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Asking(lookup) = self {
            match lookup.as_mut().poll(cx) {
                Poll::Ready(answer) => *self = Self::Done(answer),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn has_found(&self) -> bool {
        matches!(self, Self::Done(Ok(Ok(_))))
    }
}
