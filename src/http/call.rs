//! The end of a gRPC call: gRPC's libraries understand statuses, and no errors of their transport's.

use std::sync::Arc;

use http::{Response, header::CONTENT_TYPE};

use super::{
    error::Error,
    grpc::{self, Expiry},
    replay::Answer,
    response::ResponseBody,
};
use crate::outcome::GRPC_STATUS;

/// A call, as its caller is told of its end.
pub(super) struct Call {
    /// When its own time is up.
    pub(super) expiry: Option<Expiry>,
    pub(super) errors: Errors,
}

/// How a call's caller is told of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// By gRPC's statuses.
    Statuses,
    /// As they are: layers are around the client, and the statuses are made above them.
    Typed,
}

impl Call {
    /// An answer as its caller gets it. An error is a response without a body ("Trailers-Only"), with the error in its
    /// extensions.
    pub(super) fn answer(&self, answer: Answer) -> Answer {
        let answer = self.in_time(answer);
        if self.errors == Errors::Typed {
            return answer;
        }
        match answer {
            Ok(mut response) => {
                response.body_mut().end_in_status();
                Ok(response)
            }
            Err(error) => respond(error),
        }
    }

    /// The pod has a deadline, too, about as soon. That it has cancelled the call means that the time is up.
    fn in_time(&self, answer: Answer) -> Answer {
        let Some(expiry) = &self.expiry else {
            return answer;
        };
        let late = match &answer {
            Ok(response) if is_cancelled(response) => Some(response.body().endpoint()),
            Err(error) if grpc::is_cancelled(error) => Some(error.endpoint()),
            _ => None,
        };
        match late {
            Some(pod) if expiry.is_over() => {
                let service = match &answer {
                    Ok(response) => response.body().service(),
                    Err(error) => error.shared_service(),
                };
                let error = Error::unanswered(pod.cloned(), expiry.whole());
                Err(error.with_service(service))
            }
            _ => answer,
        }
    }
}

fn is_cancelled(response: &Response<ResponseBody>) -> bool {
    let status = response.headers().get(&GRPC_STATUS);
    response.body().is_over() && status.is_some_and(|status| status == grpc::CANCELLED)
}

fn respond(error: Error) -> Answer {
    let Some(mut status) = grpc::status(&error) else {
        return Err(error);
    };
    status.insert(CONTENT_TYPE, grpc::TYPE);
    let body = ResponseBody::default();
    let mut response = Response::new(body.of_origin(error.endpoint(), error.shared_service()));
    *response.headers_mut() = status;
    if let Some(pod) = error.endpoint() {
        response.extensions_mut().insert(pod.clone());
    }
    response.extensions_mut().insert(Arc::new(error));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A pod's answer that it has cancelled the call, with a code of gRPC's.
    fn answered(code: &'static str, after: Duration) -> String {
        let call = Call {
            expiry: Expiry::of(after.into()),
            errors: Errors::Statuses,
        };
        let mut response = Response::new(ResponseBody::default());
        let code = code.parse().expect("a code");
        response.headers_mut().insert(GRPC_STATUS.clone(), code);
        let answer = call.answer(Ok(response)).expect("a status");
        let code = answer.headers()[&GRPC_STATUS].to_str();
        code.expect("a code").to_owned()
    }

    #[test]
    fn a_call_that_its_pod_cancels_when_the_time_is_up_is_late() {
        let (over, long) = (Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(answered("1", over), "4");
        assert_eq!(answered("1", long), "1", "it has another reason");
        assert_eq!(answered("0", over), "0");
        assert_eq!(answered("5", over), "5");
    }
}
