//! [`OnResponseEnd`]: until when a request counts as in flight, and what its end says of its pod.

use http::Response;
use hyper::upgrade::OnUpgrade as HyperUpgrade;

use super::{
    super::{
        error::{Error, Failure, Outcome, RuntimeEnded},
        upgrade::OnUpgrade,
    },
    ResponseBody, SharedClassify,
};
use crate::{
    error::{BoxError, NoRuntime, unmarked},
    in_flight::{Completion, InFlight},
    outcome::{self, ByStatus, ClassifyHttp},
};

/// Counts a request as in flight to the end of its response, upgraded streams included.
#[derive(Clone)]
pub(in crate::http) struct OnResponseEnd {
    pub(in crate::http) classify: SharedClassify,
}

impl Completion<Response<ResponseBody>> for OnResponseEnd {
    type Response = Response<ResponseBody>;

    #[inline]
    fn complete(
        &self,
        mut in_flight: InFlight,
        mut response: Response<ResponseBody>,
    ) -> Self::Response {
        // Asked only once: for an HTTP/2 body this takes the connection's lock.
        let is_all = response.body().exchange.is_end_stream();
        let outcome = self.classify.answered(&response, is_all);
        in_flight.report(outcome);
        if outcome.is_turned_away() {
            in_flight.note_status(response.status());
        }
        let exchange = &mut *response.body_mut().exchange;
        exchange.in_flight = Some(in_flight);
        exchange.classify.clone_from(&self.classify);
        let upgrade = match response.extensions().is_empty() {
            true => None,
            false => response.extensions_mut().remove::<HyperUpgrade>(),
        };
        if let Some(upgrade) = upgrade {
            let exchange = &mut *response.body_mut().exchange;
            let held = exchange.lease.take().zip(exchange.in_flight.take());
            let upgrade = OnUpgrade::new(upgrade, held);
            response.extensions_mut().insert(upgrade);
        }
        if is_all {
            let exchange = &mut *response.body_mut().exchange;
            exchange.end();
            exchange.body = None;
        }
        response
    }

    fn status(&self, response: &Response<ResponseBody>) -> Option<u16> {
        Some(response.status().as_u16())
    }

    fn failed(&self, error: &BoxError) -> outcome::Outcome {
        let error = unmarked(error);
        if error.is::<Error>() || error.is::<NoRuntime>() {
            return outcome::Outcome::Ignored;
        }
        let failure = error.downcast_ref::<Failure>();
        if failure.is_some_and(|failure| failure.source.is::<RuntimeEnded>()) {
            return outcome::Outcome::Ignored;
        }
        match failure.map(|failure| failure.outcome) {
            // The caller or the client is at fault, not the pod.
            Some(Outcome::Abandoned | Outcome::Limit) => outcome::Outcome::Ignored,
            // The pod refused the request: it is closing, or overloaded. A refusal is fast, and must not attract more
            // requests.
            Some(Outcome::Unprocessed) => outcome::Outcome::Overload,
            Some(Outcome::Unknown) | None => self.classify.error(error),
        }
    }
}

impl SharedClassify {
    /// Classifies a head. Only if it is the whole response (`is_all`) may it have a gRPC status, so most heads are not
    /// searched for one.
    fn answered(&self, response: &Response<ResponseBody>, is_all: bool) -> outcome::Outcome {
        match self {
            Self::ByStatus if !is_all => ByStatus::status(response.status()),
            _ => self.head(response.status(), response.headers()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Refused, Suspect};

    fn failed(outcome: Outcome, mark: fn(BoxError) -> BoxError) -> outcome::Outcome {
        let failure = Failure {
            outcome,
            source: "reset".into(),
        };
        let completion = OnResponseEnd {
            classify: SharedClassify::ByStatus,
        };
        completion.failed(&mark(failure.into()))
    }

    #[test]
    fn a_request_refused_unprocessed_counts_as_overload() {
        let marks: [fn(BoxError) -> BoxError; 2] = [|error| error, |error| Refused(error).into()];
        for mark in marks {
            let outcome = failed(Outcome::Unprocessed, mark);
            assert_eq!(outcome, outcome::Outcome::Overload);
        }
    }

    #[test]
    fn a_mark_doesn_t_change_what_an_error_says() {
        let mark = |error| Suspect::Refuses(error).into();
        let outcomes = [Outcome::Unknown, Outcome::Abandoned].map(|outcome| failed(outcome, mark));
        let (failure, ignored) = (outcome::Outcome::Failure, outcome::Outcome::Ignored);
        assert_eq!(outcomes, [failure, ignored]);
    }
}
