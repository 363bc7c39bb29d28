//! Whether a pod may have executed the request, or got it at all.

use super::{Error, kind::Kind, pod_failure::Outcome};

impl Error {
    pub(super) fn last_is_unexecuted(&self) -> bool {
        match *self.kind() {
            Kind::Request(_)
            | Kind::Foreign { .. }
            | Kind::Unsent(_)
            | Kind::NotSent { .. }
            | Kind::SessionLost { .. } => true,
            Kind::NoAnswer(ref error) => error.is_unsent(),
            Kind::Pod { outcome, .. } => outcome == Outcome::Unprocessed,
            Kind::RequestBody(_)
            | Kind::Status { .. }
            | Kind::Body { .. }
            | Kind::CutOff { .. }
            | Kind::Limit { .. }
            | Kind::Unanswered { .. }
            | Kind::Unended { .. }
            | Kind::StatusOf { .. }
            | Kind::Decode { .. }
            | Kind::Layer(_) => false,
        }
    }

    pub(super) fn last_is_unsent(&self) -> bool {
        match self.kind() {
            Kind::Request(_) | Kind::Foreign { .. } | Kind::SessionLost { .. } => true,
            Kind::NotSent { was_sent, .. } => !was_sent,
            Kind::Unsent(error) | Kind::NoAnswer(error) => error.is_unsent(),
            _ => false,
        }
    }

    /// What became of the request, if a pod failed it before a response began.
    pub(in crate::http) fn outcome(&self) -> Option<Outcome> {
        match *self.0 {
            Kind::Pod { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// Notes that another request that layers made from the same one may have been executed.
    pub(in crate::http) fn after_another(mut self) -> Self {
        self.2 |= self.is_unexecuted();
        self
    }

    /// Whether another request that layers made from the same one may have been executed.
    pub(super) fn is_after_another(&self) -> bool {
        self.2 || self.own().2
    }
}
