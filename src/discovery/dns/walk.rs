//! The way through the names that a short one may stand for.
//!
//! ```text
//!   first candidate ──▶ all that is wanted of it, at once ──▶ something is there: this is the name
//!         ▲                        │
//!         │                        ├──▶ a failure (SERVFAIL, silence, …): so ends the walk, for who knows what is there
//!         └── the next candidate ◀─┴──▶ by DNS's own word there is nothing
//! ```
//!
//! The C library skips a candidate whose lookup fails; a moment's trouble then leads to another service, or to the word of
//! some name server on the internet that a name doesn't exist.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::lookup::{Answer, Found, Lookup, LookupError, Nothing, Reason};

/// A walk under way.
pub(super) struct Walk {
    candidates: Arc<[Arc<str>]>,
    at: usize,
    steps: Vec<Step>,
    ttl: Option<Duration>,
}

/// One look at the candidate.
pub(super) enum Step {
    Asking(Lookup),
    Done(Answer<Found>),
}

/// The end of a walk.
pub(super) enum Walked {
    /// This name has something. Looks may still be under way.
    Found {
        name: Arc<str>,
        steps: Vec<Step>,
    },
    /// No name has anything.
    Nothing(Nothing),
    Failed(LookupError),
}

impl Walk {
    /// A walk over `candidates`, of which there is one at least; `look` begins what is wanted of one.
    pub(super) fn new(
        candidates: Arc<[Arc<str>]>,
        look: impl Fn(&Arc<str>) -> Vec<Lookup>,
    ) -> Self {
        let mut walk = Self {
            candidates,
            at: 0,
            steps: Vec::new(),
            ttl: None,
        };
        walk.begin(look);
        walk
    }

    fn begin(&mut self, look: impl Fn(&Arc<str>) -> Vec<Lookup>) {
        let looks = look(&self.candidates[self.at]);
        self.steps = looks.into_iter().map(Step::Asking).collect();
    }

    /// Goes on. `original` is the name as it was written.
    pub(super) fn poll(
        &mut self,
        original: &str,
        look: impl Fn(&Arc<str>) -> Vec<Lookup>,
        cx: &mut Context<'_>,
    ) -> Poll<Walked> {
        loop {
            let mut pending = false;
            for step in &mut self.steps {
                pending |= step.poll(cx).is_pending();
            }
            if self.steps.iter().any(Step::has_found) {
                return Poll::Ready(Walked::Found {
                    name: self.candidates[self.at].clone(),
                    steps: std::mem::take(&mut self.steps),
                });
            }
            if pending {
                return Poll::Pending;
            }
            for step in self.steps.drain(..) {
                match step {
                    Step::Done(Err(error)) => return Poll::Ready(Walked::Failed(error)),
                    Step::Done(Ok(Err(nothing))) => {
                        let ttls = [self.ttl, nothing.ttl].into_iter().flatten();
                        self.ttl = ttls.min();
                    }
                    Step::Done(Ok(Ok(_))) | Step::Asking(_) => {}
                }
            }
            self.at += 1;
            if self.at == self.candidates.len() {
                return Poll::Ready(Walked::Nothing(self.nothing(original)));
            }
            self.begin(&look);
        }
    }

    fn nothing(&self, original: &str) -> Nothing {
        let names = self.candidates.to_vec();
        Nothing {
            ttl: self.ttl,
            error: LookupError::new(original, Reason::NoCandidate(names)),
        }
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
