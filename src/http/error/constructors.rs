//! How the client makes its errors: its own, and from those of the balancer, a layer or a session.

use std::{fmt, sync::Arc, time::Duration};

use http::{
    StatusCode,
    uri::{Authority, Scheme},
};

use super::{
    Error,
    kind::Kind,
    pod_failure::{Failure, Outcome},
    wait::Wait,
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error as BalanceError},
};

impl Error {
    /// Converts the balancer's error.
    pub(in crate::http) fn balance(error: BalanceError) -> Self {
        let service = error.shared_service().cloned();
        let (pod, source) = match error.into_endpoint_failure() {
            Ok(failure) => failure,
            Err(error) if error.is_timeout() => {
                return Self(Arc::new(Kind::NoAnswer(error)), service, false, None);
            }
            Err(error) => return Self(Arc::new(Kind::Unsent(error)), service, false, None),
        };
        let source = match source.downcast::<Self>() {
            // The pod's protocol doesn't support the request.
            Ok(own) => return own.of_service(service.as_ref()),
            Err(source) => source,
        };
        let (outcome, source) = match source.downcast::<Failure>() {
            Ok(failure) => (failure.outcome, failure.source),
            Err(source) => (Outcome::Unknown, source),
        };
        let kind = match outcome {
            Outcome::Abandoned => Kind::RequestBody(source),
            Outcome::Limit => Kind::Limit {
                pod: Some(pod),
                source,
            },
            Outcome::Unprocessed | Outcome::Unknown => Kind::Pod {
                pod,
                outcome,
                source,
            },
        };
        Self(Arc::new(kind), service, false, None)
    }

    /// A layer's error. If it is the client's own error, passed on, it stays what it is.
    pub(in crate::http) fn layer(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(error) => Kind::Layer(error).into(),
        }
    }

    /// Converts the error of a request that had to go to its session's pod.
    #[cfg(feature = "sessions")]
    pub(in crate::http) fn of_session(self, pod: Box<str>) -> Self {
        let Self(kind, service, is_after, attempts) = self;
        let kind = Arc::try_unwrap(kind).map(|kind| match kind {
            Kind::Unsent(source) if source.is_unreachable() => Kind::SessionLost { pod, source },
            kind => kind,
        });
        let kind = kind.map_or_else(|shared| shared, Arc::new);
        Self(kind, service, is_after, attempts)
    }

    pub(in crate::http) fn request(what: impl fmt::Display) -> Self {
        Kind::Request(what.to_string()).into()
    }

    /// A request for another service than the client's; each tuple is a scheme and an authority.
    pub(in crate::http) fn foreign(other: (&Scheme, &str), service: (&Scheme, &Authority)) -> Self {
        let text = |scheme: &Scheme, authority| format!("{scheme}://{authority}");
        let other = text(other.0, other.1);
        let service = text(service.0, service.1.as_str());
        Kind::Foreign { other, service }.into()
    }

    pub(in crate::http) fn body(pod: Option<Endpoint>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Kind::Body { pod, source }.into()
    }

    /// The request's own body has failed.
    pub(in crate::http) fn request_body(source: BoxError) -> Self {
        Kind::RequestBody(source).into()
    }

    /// The response was cut off, but not by its pod.
    pub(in crate::http) fn cut_off(pod: Option<Endpoint>, why: impl Into<BoxError>) -> Self {
        let source = why.into();
        Kind::CutOff { pod, source }.into()
    }

    pub(in crate::http) fn limit(pod: Option<Endpoint>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Kind::Limit { pod, source }.into()
    }

    /// No response within the request's timeout. `pod` is the only pod that has the request.
    pub(in crate::http) fn unanswered(pod: Option<Endpoint>, after: Duration) -> Self {
        let source = None;
        Kind::Unanswered { pod, after, source }.into()
    }

    /// No pod can have executed the request within its timeout. `wait` is what it waited for; `was_sent` if a pod has
    /// refused it unprocessed.
    pub(in crate::http) fn not_sent(after: Duration, wait: Wait, was_sent: bool) -> Self {
        let kind = Kind::NotSent {
            after,
            wait,
            was_sent,
        };
        kind.into()
    }

    /// The response did not end within the request's timeout.
    pub(in crate::http) fn unended(pod: Option<Endpoint>, after: Duration) -> Self {
        let source = None;
        Kind::Unended { pod, after, source }.into()
    }

    /// Adds `error`, by which the client learnt that the time was up, as the source.
    pub(in crate::http) fn because(mut self, error: Self) -> Self {
        let Self(kind, service, _, _) = error;
        self.1 = self.1.or(service);
        if let Some(Kind::Unanswered { source, .. } | Kind::Unended { source, .. }) =
            Arc::get_mut(&mut self.0)
            && let Some(
                Kind::Pod { source: why, .. } | Kind::Body { source: why, .. } | Kind::Layer(why),
            ) = Arc::into_inner(kind)
        {
            *source = Some(why);
        }
        self
    }

    pub(in crate::http) fn answered(pod: Option<Endpoint>, status: StatusCode) -> Self {
        Kind::Status { pod, status }.into()
    }

    /// `request` is its method and path.
    pub(in crate::http) fn status_of(
        pod: Option<Endpoint>,
        status: StatusCode,
        request: String,
    ) -> Self {
        Kind::StatusOf {
            pod,
            status,
            request,
        }
        .into()
    }

    /// The response's body is not what its caller expects.
    #[cfg(feature = "json")]
    pub(in crate::http) fn decode(pod: Option<Endpoint>, why: String) -> Self {
        Kind::Decode { pod, why }.into()
    }
}
