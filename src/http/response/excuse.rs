//! Why a response broke off, if that isn't its pod's failure.

use bytes::Bytes;
use http_body::Frame;

use super::super::{
    body::Elsewhere, failure::is_end_of_runtime, pool::Lease, received::ReceiveError,
};
use crate::error::BoxError;

/// Why a response broke off, if that isn't the pod's failure.
pub(super) enum Excuse {
    /// The request's own body failed, so hyper ended the stream or the connection.
    RequestBody(BoxError),
    /// The runtime that drove the connection has ended.
    CutOff,
    /// Another attempt has taken the request's body.
    Elsewhere(Elsewhere),
}

impl Excuse {
    pub(super) fn of(
        frame: &Option<Result<Frame<Bytes>, ReceiveError>>,
        connection: Option<&Lease>,
    ) -> Option<Self> {
        let Some(Err(ReceiveError::Broken(error))) = frame else {
            return None;
        };
        let connection = connection?;
        if let Some(error) = connection.take_body_error() {
            return Some(Self::of_request_body(error));
        }
        is_end_of_runtime(error, connection.is_cut_off()).then_some(Self::CutOff)
    }
}

impl Excuse {
    fn of_request_body(error: BoxError) -> Self {
        match error.downcast() {
            Ok(elsewhere) => Self::Elsewhere(*elsewhere),
            Err(error) => Self::RequestBody(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Error;

    #[test]
    fn a_body_taken_over_by_another_attempt_is_not_its_caller_s_failure() {
        let excuse = Excuse::of_request_body(Elsewhere.into());
        assert!(matches!(excuse, Excuse::Elsewhere(_)));
        let excuse = Excuse::of_request_body("the disk is gone".into());
        assert!(matches!(excuse, Excuse::RequestBody(_)));
        let error = Error::cut_off(None, Elsewhere);
        assert!(error.is_body() && !error.is_request_body());
        let text = "the response was cut off: the request's body has gone on to another pod";
        assert_eq!(error.to_string(), text);
    }
}
