//! How a pod fails a request, and what became of the request.

use std::{fmt, time::Duration};

use crate::error::BoxError;

/// What became of a request that a pod has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Outcome {
    /// The protocol says that the pod did not process it.
    Unprocessed,
    /// The connection broke, or the pod did not answer in time.
    Unknown,
    /// The caller's body failed after the pod had got a part of the request.
    Abandoned,
    /// The pod has answered with more than this client reads.
    Limit,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unprocessed => "was not executed",
            Self::Unknown => "may have been executed",
            Self::Abandoned => "was abandoned",
            Self::Limit => "was answered with more than this client reads",
        })
    }
}

/// A pod's failure, on its way through the balancer.
#[derive(Debug, thiserror::Error)]
#[error("the request {outcome}")]
pub(in crate::http) struct Failure {
    pub(in crate::http) outcome: Outcome,
    #[source]
    pub(in crate::http) source: BoxError,
}

/// The pod sent no byte of a response in time.
#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?} (`first_byte_timeout`)")]
pub(in crate::http) struct NoFirstByte(pub(in crate::http) Duration);

/// The pod has refused a connection that looked open, and has read nothing from it.
#[derive(Debug, thiserror::Error)]
#[error("the pod refused the connection: {0}")]
pub(in crate::http) struct NotAccepted(pub(in crate::http) BoxError);

/// The connection was driven by a runtime that has ended. It is no pod's fault.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that drove the connection has ended")]
pub(in crate::http) struct RuntimeEnded;
