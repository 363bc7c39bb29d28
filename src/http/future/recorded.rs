//! What is recorded of one request: its span, and the log of its attempts.

use super::super::{
    replay::Answer,
    span::{RequestSpan, Trace},
};
use crate::attempts::AttemptLog;

/// A request's span, and the log of its attempts.
#[derive(Default)]
pub(in crate::http) struct Tracing {
    pub(in crate::http) trace: Option<Trace>,
    /// None if a layer has made the request, so that another request ends the span.
    pub(in crate::http) guard: Option<RequestSpan>,
    pub(in crate::http) log: Option<AttemptLog>,
}

impl Tracing {
    /// Adds a log. None if there is neither a log nor a span.
    pub(in crate::http) fn logged(tracing: Option<Self>, log: Option<AttemptLog>) -> Option<Self> {
        if let Some(log) = &log {
            log.begin();
        }
        match tracing {
            Some(tracing) => Some(Self { log, ..tracing }),
            None => log.map(|log| Self {
                log: Some(log),
                ..Self::default()
            }),
        }
    }

    /// Adds the log of attempts to the answer.
    pub(super) fn tell(&self, answer: Answer) -> Answer {
        let Some(log) = &self.log else { return answer };
        let attempts = log.attempts();
        match answer {
            Ok(mut response) => {
                response.extensions_mut().insert(attempts);
                Ok(response)
            }
            Err(error) => Err(error.with_attempts(attempts)),
        }
    }

    /// Records the outcome. The span continues in the response's body.
    pub(super) fn record(self, answer: &mut Answer) {
        let Some(mut guard) = self.guard else { return };
        match answer {
            Ok(response) => {
                let pod = response.body().endpoint();
                guard.answered(response.status(), response.headers(), pod);
                response.body_mut().end_span(guard);
            }
            Err(error) => guard.failed(error),
        }
    }
}

pub(super) fn trace_of(tracing: &Option<Box<Tracing>>) -> Option<&Trace> {
    tracing.as_deref()?.trace.as_ref()
}
