//! How an attempt ended, and what log events say about it.

use std::sync::Arc;

use crate::{
    attempts::AttemptCause,
    endpoint::Endpoint,
    hedge::Hedges,
    logs::{REQUESTS, debug, display},
};

/// How an attempt ended, as far as the next one depends on it.
pub(crate) struct Ended {
    pub(crate) fate: Fate,
    /// The endpoint that had the request.
    pub(crate) endpoint: Option<Endpoint>,
    /// Whether another result is wanted, and the request may be sent again.
    pub(crate) is_retried: bool,
    /// Whether it counts for more than the result that was [set aside](super::Attempts::has_aside), if any.
    pub(crate) is_good: bool,
    /// The text for log events; `None` if they are off.
    pub(crate) told: Option<Box<Told>>,
}

impl Ended {
    pub(super) fn tell(&self, text: &'static str) {
        let Some(Told {
            service,
            method,
            reason,
        }) = self.told.as_deref()
        else {
            return;
        };
        let (endpoint, method) = (self.endpoint.as_ref().map(display), method.as_deref());
        let outcome = self.fate.name();
        debug!(REQUESTS, service, endpoint, method, %reason, outcome, "{text}");
    }

    /// Whether this is a hedge that no endpoint has executed, and its request may have another one. Then the share of
    /// `hedges` gets it back.
    pub(crate) fn is_taken_back(&self, hedges: Option<&Hedges>) -> bool {
        let is_taken_back = !self.fate.may_be_executed();
        if let Some(hedges) = hedges.filter(|_| is_taken_back) {
            hedges.give_back();
        }
        is_taken_back
    }
}

/// What log events say about an attempt.
pub(crate) struct Told {
    pub(crate) service: Option<Arc<str>>,
    /// The HTTP method, over HTTP.
    pub(crate) method: Option<String>,
    /// Why it ended.
    pub(crate) reason: String,
}

/// How a request fared at the endpoint that it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was answered. The endpoint would give the same answer again.
    Answered,
    /// It was lost, and may have been executed.
    Lost,
    /// The endpoint refused it unprocessed, as the protocol can say.
    Unprocessed,
    /// No endpoint got it, though the balancer offered it to all.
    Unsent,
}

impl Fate {
    /// As log events name it.
    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Lost => "lost",
            Self::Unprocessed => "unprocessed",
            Self::Unsent => "unsent",
        }
    }

    pub(super) fn may_be_executed(self) -> bool {
        matches!(self, Self::Answered | Self::Lost)
    }

    /// The cause of an attempt that follows this.
    pub(super) fn cause(self) -> AttemptCause {
        match self {
            Self::Answered => AttemptCause::RetryAnswered,
            Self::Lost => AttemptCause::RetryLost,
            Self::Unprocessed => AttemptCause::RetryUnprocessed,
            Self::Unsent => AttemptCause::RetryUnsent,
        }
    }
}
