//! The end of a gRPC call: gRPC's libraries understand statuses, but no errors of the transport.

use std::sync::Arc;

use http::{Response, header::CONTENT_TYPE};

use super::{
    error::Error,
    grpc::{self, Call, Errors},
    replay::Answer,
    response::ResponseBody,
};

impl Call {
    /// Converts an answer for its caller. An error becomes a response without a body ("Trailers-Only"), with the error
    /// in its extensions.
    pub(super) fn answer(&self, answer: Answer) -> Answer {
        match self.in_time(answer) {
            Ok(mut response) => {
                response.body_mut().end_as(*self);
                Ok(response)
            }
            Err(error) if self.errors == Errors::Statuses => respond(error),
            Err(error) => Err(error),
        }
    }

    fn in_time(&self, answer: Answer) -> Answer {
        match answer {
            Ok(response)
                if response.body().is_over() && grpc::has_cancelled(response.headers()) =>
            {
                let body = response.body();
                match self.over() {
                    Some(after) => {
                        Err(body.error(|_| Error::unanswered(body.endpoint().cloned(), after)))
                    }
                    None => Ok(response),
                }
            }
            Err(error) if grpc::is_cancelled(&error) => Err(match self.over() {
                Some(after) => Error::unanswered(error.endpoint().cloned(), after).because(error),
                None => error,
            }),
            answer => answer,
        }
    }
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
    use crate::{
        endpoint::Endpoint,
        http::{deadline::Until, grpc::Expiry},
        outcome::GRPC_STATUS,
    };
    use std::time::Duration;

    /// A pod's answer that cancels the call with this gRPC code.
    fn answered(code: &'static str, after: Duration) -> String {
        let call = Call {
            expiry: Until::after(after).map(Expiry::of),
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
    fn the_error_of_a_late_call_has_its_service_and_its_cause() {
        let call = Call {
            expiry: Until::after(Duration::ZERO).map(Expiry::of),
            errors: Errors::Statuses,
        };
        let late = |answer| {
            let response = call.answer(answer).expect("a status");
            let error = response.extensions().get::<Arc<Error>>().cloned();
            error.expect("the error")
        };
        let mut response = Response::new(ResponseBody::default());
        let code = "1".parse().expect("a code");
        response.headers_mut().insert(GRPC_STATUS.clone(), code);
        let error = late(Ok(response));
        assert!(error.is_timeout() && error.endpoint().is_none(), "{error}");
        assert_eq!(error.to_string(), "no answer within 0ns (`timeout`)");

        let pod = Endpoint::new(([10, 0, 0, 1], 80).into());
        let reset = Error::body(Some(pod.clone()), h2::Error::from(h2::Reason::CANCEL));
        let error = late(Err(reset.of_service(Some(&"web".into()))));
        assert!(error.is_timeout());
        assert_eq!(
            (error.service(), error.endpoint()),
            (Some("web"), Some(&pod))
        );
        let source = std::error::Error::source(&*error).expect("the reset");
        assert!(source.is::<h2::Error>(), "{source:?}");
    }

    #[test]
    fn a_call_cancelled_by_its_pod_at_the_deadline_is_a_timeout() {
        let (over, long) = (Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(answered("1", over), "4");
        assert_eq!(answered("1", long), "1", "it has another reason");
        assert_eq!(answered("0", over), "0");
        assert_eq!(answered("5", over), "5");
    }
}
