//! The outcomes of a broadcast, for callers that wait for several answers.

use std::{error::Error as StdError, fmt};

use crate::endpoint::Endpoint;

/// The endpoints that answered a broadcast, and those that failed, each in the order in which that happened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected<T, E> {
    /// The successes.
    pub answered: Vec<(Endpoint, T)>,
    /// The failures, with their errors.
    pub failed: Vec<(Endpoint, E)>,
}

impl<T, E> Collected<T, E> {
    /// Whether no endpoint failed.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    pub(super) fn add(&mut self, endpoint: Endpoint, answer: Result<T, E>) {
        match answer {
            Ok(answer) => self.answered.push((endpoint, answer)),
            Err(error) => self.failed.push((endpoint, error)),
        }
    }
}

impl<T, E> Default for Collected<T, E> {
    fn default() -> Self {
        Self {
            answered: Vec::new(),
            failed: Vec::new(),
        }
    }
}

/// Why there is no quorum.
///
/// Its text includes that of its [`source`](StdError::source): why the broadcast did not begin, or the last failure.
#[derive(Debug)]
pub struct QuorumError<E>(Box<Kind<E>>);

#[derive(Debug)]
enum Kind<E> {
    Unbegun(E),
    Unreached {
        wanted: usize,
        answered: Vec<Endpoint>,
        failed: Vec<(Endpoint, E)>,
        /// How many might still have answered, but were cancelled.
        left: usize,
    },
}

impl<E> QuorumError<E> {
    pub(super) fn unbegun(error: E) -> Self {
        Self(Box::new(Kind::Unbegun(error)))
    }

    pub(super) fn unreached<T>(wanted: usize, collected: Collected<T, E>, left: usize) -> Self {
        let answered = collected.answered.into_iter();
        Self(Box::new(Kind::Unreached {
            wanted,
            answered: answered.map(|(endpoint, _)| endpoint).collect(),
            failed: collected.failed,
            left,
        }))
    }

    /// Whether the broadcast did not begin, so that nobody was asked: there is no endpoint, or the request can't be
    /// sent to several.
    pub fn is_unbegun(&self) -> bool {
        matches!(*self.0, Kind::Unbegun(_))
    }

    /// The endpoints that succeeded: too few, but they may have executed the request.
    pub fn answered(&self) -> &[Endpoint] {
        match &*self.0 {
            Kind::Unbegun(_) => &[],
            Kind::Unreached { answered, .. } => answered,
        }
    }

    /// The endpoints that failed, with their errors.
    pub fn failed(&self) -> &[(Endpoint, E)] {
        match &*self.0 {
            Kind::Unbegun(_) => &[],
            Kind::Unreached { failed, .. } => failed,
        }
    }
}

impl<E: fmt::Display> fmt::Display for QuorumError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Unbegun(error) => {
                f.write_str("no quorum: the broadcast did not begin: ")?;
                error.fmt(f)
            }
            Kind::Unreached {
                wanted,
                answered,
                failed,
                left,
            } => {
                let all = answered.len() + failed.len() + left;
                let (answered, failed) = (answered.len(), failed.len());
                write!(
                    f,
                    "no quorum: {wanted} answers were wanted of {all} endpoints; {answered} answered, {failed} failed"
                )?;
                let Some((_, last)) = self.failed().last() else {
                    return Ok(());
                };
                f.write_str("; the last: ")?;
                last.fmt(f)
            }
        }
    }
}

impl<E: StdError + 'static> StdError for QuorumError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Kind::Unbegun(error) => Some(error),
            Kind::Unreached { failed, .. } => failed.last().map(|(_, error)| error as _),
        }
    }
}
