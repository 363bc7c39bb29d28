//! What can go wrong with an HTTP request, and whether it may have been executed when it did.

use std::{error::Error as StdError, fmt, time::Duration};

use http::{
    StatusCode,
    uri::{Authority, Scheme},
};

use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error as BalanceError},
};

/// Why an HTTP request failed.
///
/// Opaque: ask it with its methods. The one that matters most is [`is_unexecuted`](Self::is_unexecuted).
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("invalid request: {0}")]
    Request(String),
    #[error(
        "{other} is not this client's service, {service}: write a path alone, or set `allow_foreign_authority`"
    )]
    Foreign { other: String, service: String },
    #[error("the request was not sent{}", .0.addressee())]
    Unsent(#[source] BalanceError),
    #[cfg_attr(
        not(feature = "sessions"),
        expect(dead_code, reason = "there are no sessions")
    )]
    #[error("the request was not sent: it is for pod {pod}, which its session is with")]
    SessionLost { pod: Box<str>, source: BalanceError },
    #[error(transparent)]
    NoAnswer(BalanceError),
    #[error("pod {pod} answered {status}")]
    Status { pod: Endpoint, status: StatusCode },
    #[error("pod {pod} failed; the request {outcome}")]
    Pod {
        pod: Endpoint,
        outcome: Outcome,
        source: BoxError,
    },
    #[error("the response of pod {pod} is more than this client reads")]
    Limit { pod: Endpoint, source: BoxError },
    #[error("the request's own body failed")]
    RequestBody(#[source] BoxError),
    #[error("pod {pod} failed while it sent its response")]
    Body { pod: Endpoint, source: BoxError },
    #[error("the response of pod {pod} was cut off")]
    CutOff { pod: Endpoint, source: RuntimeEnded },
    #[error("{} within {after:?}", unanswered(.pod.as_ref()))]
    Unanswered {
        /// The only pod that has the request.
        pod: Option<Endpoint>,
        after: Duration,
    },
    #[error("no end of pod {pod}'s response within {after:?}")]
    Unended { pod: Endpoint, after: Duration },
    #[error("pod {pod} answered {request} with {status}")]
    StatusOf {
        pod: Endpoint,
        status: StatusCode,
        /// Its method and path.
        request: String,
    },
    #[cfg_attr(
        not(feature = "json"),
        expect(dead_code, reason = "nothing is decoded")
    )]
    #[error("the response of pod {pod} is {why}")]
    Decode { pod: Endpoint, why: String },
}

fn unanswered(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "no answer".into(),
        |pod| format!("no answer of pod {pod}"),
    )
}

/// What became of a request that a pod has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// By the protocol's word it was not processed.
    Unprocessed,
    /// The connection broke, or the pod said nothing in time.
    Unknown,
    /// The caller's body failed, and the pod has got a part of the request.
    Abandoned,
    /// The pod has answered, with more than this client reads.
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

/// A pod's failure on its way through the balancer.
#[derive(Debug, thiserror::Error)]
#[error("the request {outcome}")]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    #[source]
    pub(super) source: BoxError,
}

/// The pod sent no byte of a response in time.
#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?}")]
pub(super) struct NoFirstByte(pub(super) Duration);

/// The pod has refused the connection, though that looked open: it has read nothing that came over it.
#[derive(Debug, thiserror::Error)]
#[error("the pod refused the connection: {0}")]
pub(super) struct NotAccepted(pub(super) BoxError);

/// The connection was driven by a runtime that has ended. No pod is to blame.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that drove the connection has ended")]
pub(super) struct RuntimeEnded;

impl Error {
    pub(super) fn request(what: impl fmt::Display) -> Self {
        Self(Box::new(Kind::Request(what.to_string())))
    }

    /// A request for another service than the client's; each is a scheme and an authority.
    pub(super) fn foreign(other: (&Scheme, &Authority), service: (&Scheme, &Authority)) -> Self {
        let text = |(scheme, authority)| format!("{scheme}://{authority}");
        let (other, service) = (text(other), text(service));
        Self(Box::new(Kind::Foreign { other, service }))
    }

    pub(super) fn body(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self(Box::new(Kind::Body { pod, source }))
    }

    /// The runtime that drove the connection has ended before the response.
    pub(super) fn cut_off(pod: Endpoint) -> Self {
        let source = RuntimeEnded;
        Self(Box::new(Kind::CutOff { pod, source }))
    }

    pub(super) fn limit(pod: Endpoint, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self(Box::new(Kind::Limit { pod, source }))
    }

    /// No response in the time of the request, which `pod` has, and no other one has had.
    pub(super) fn unanswered(pod: Option<Endpoint>, after: Duration) -> Self {
        Self(Box::new(Kind::Unanswered { pod, after }))
    }

    /// No end of the response in the time of the request.
    pub(super) fn unended(pod: Endpoint, after: Duration) -> Self {
        Self(Box::new(Kind::Unended { pod, after }))
    }

    pub(super) fn answered(pod: Endpoint, status: StatusCode) -> Self {
        Self(Box::new(Kind::Status { pod, status }))
    }

    /// `request` is its method and path.
    pub(super) fn status_of(pod: Endpoint, status: StatusCode, request: String) -> Self {
        Self(Box::new(Kind::StatusOf {
            pod,
            status,
            request,
        }))
    }

    /// A response's body is not what its caller wants of it.
    #[cfg(feature = "json")]
    pub(super) fn decode(pod: Endpoint, why: String) -> Self {
        Self(Box::new(Kind::Decode { pod, why }))
    }

    /// What the balancer says of a request.
    pub(super) fn balance(error: BalanceError) -> Self {
        let (pod, source) = match error.into_endpoint_failure() {
            Ok(failure) => failure,
            Err(error) if error.is_timeout() => return Self(Box::new(Kind::NoAnswer(error))),
            Err(error) => return Self(Box::new(Kind::Unsent(error))),
        };
        let source = match source.downcast::<Self>() {
            // The pod's protocol has no such request.
            Ok(own) => return *own,
            Err(source) => source,
        };
        let (outcome, source) = match source.downcast::<Failure>() {
            Ok(failure) => (failure.outcome, failure.source),
            Err(source) => (Outcome::Unknown, source),
        };
        Self(Box::new(match outcome {
            Outcome::Abandoned => Kind::RequestBody(source),
            Outcome::Limit => Kind::Limit { pod, source },
            Outcome::Unprocessed | Outcome::Unknown => Kind::Pod {
                pod,
                outcome,
                source,
            },
        }))
    }

    /// Of a request that had to go to its session's pod.
    #[cfg(feature = "sessions")]
    pub(super) fn of_session(self, pod: Box<str>) -> Self {
        match *self.0 {
            Kind::Unsent(source) if source.is_unreachable() => {
                Self(Box::new(Kind::SessionLost { pod, source }))
            }
            _ => self,
        }
    }

    /// What became of the request, where a pod has failed it before a response began.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match *self.0 {
            Kind::Pod { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// No pod has executed the request: whatever it was, it can be sent again.
    ///
    /// Where this is false it may have been executed, once.
    pub fn is_unexecuted(&self) -> bool {
        match *self.0 {
            Kind::Request(_)
            | Kind::Foreign { .. }
            | Kind::Unsent(_)
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
            | Kind::Decode { .. } => false,
        }
    }

    /// A timeout of the client's own has passed: that of the first byte, that of the whole, or one of a
    /// [broadcast's](crate::Broadcast).
    pub fn is_timeout(&self) -> bool {
        match &*self.0 {
            Kind::Unanswered { .. } | Kind::Unended { .. } | Kind::NoAnswer(_) => true,
            Kind::Pod { source, .. } => source.is::<NoFirstByte>(),
            _ => false,
        }
    }

    /// The request itself makes no sense: the message tells how.
    pub fn is_request(&self) -> bool {
        matches!(*self.0, Kind::Request(_) | Kind::Foreign { .. })
    }

    /// The request's URI names another service than the client's, by its authority or its scheme. Nothing was sent.
    ///
    /// [`is_request`](Self::is_request) is true as well. See
    /// [`ClientBuilder::allow_foreign_authority`](super::ClientBuilder::allow_foreign_authority).
    pub fn is_foreign(&self) -> bool {
        matches!(*self.0, Kind::Foreign { .. })
    }

    /// The request's own body failed, or isn't as long as was said, which is nothing that a pod has done. A part of the request
    /// may have been sent.
    pub fn is_request_body(&self) -> bool {
        matches!(*self.0, Kind::RequestBody(_))
    }

    /// The response is larger than this client reads: its head or its trailers, or its body where that is read as a whole. The
    /// source names the limit and its setting ([`max_response_header_size`](super::ClientBuilder::max_response_header_size),
    /// [`response_limit`](super::ClientBuilder::response_limit)). The pod is not to blame, so it is neither ejected nor is
    /// another one asked.
    pub fn is_limit(&self) -> bool {
        matches!(*self.0, Kind::Limit { .. })
    }

    /// No pod took the request: there are none, or all refuse; or the one of a [broadcast](super::Client::broadcast) does, or
    /// has left. The source is the balancer's own
    /// [`Error`](crate::Error).
    pub fn is_unreachable(&self) -> bool {
        matches!(*self.0, Kind::Unsent(_) | Kind::SessionLost { .. })
    }

    /// The request's session has lost its pod, and was to go to no other ([strict](super::Sessions::strict)). Nothing was sent.
    ///
    /// [`is_unreachable`](Self::is_unreachable) is true as well.
    #[cfg(feature = "sessions")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
    pub fn is_session_lost(&self) -> bool {
        matches!(*self.0, Kind::SessionLost { .. })
    }

    /// An answer's status is an error where its caller has asked for that: by
    /// [`error_for_status`](super::Response::error_for_status), or where a [broadcast](super::Client::broadcast) counts successes.
    /// Elsewhere an answer is no error, whatever its status.
    pub fn is_status(&self) -> bool {
        self.status().is_some()
    }

    /// The status of an answer that [is an error](Self::is_status).
    pub fn status(&self) -> Option<StatusCode> {
        match *self.0 {
            Kind::Status { status, .. } | Kind::StatusOf { status, .. } => Some(status),
            _ => None,
        }
    }

    /// [`status`](Self::status) by a longer name.
    pub fn status_code(&self) -> Option<StatusCode> {
        self.status()
    }

    /// The response's body was read, and isn't what was asked for: no JSON, or that of another type.
    pub fn is_decode(&self) -> bool {
        matches!(*self.0, Kind::Decode { .. })
    }

    /// The one [pod](super::Client::pod) that was asked for isn't in the set, or can't be told apart from others. The source says
    /// where it was last and which pods there are.
    ///
    /// [`is_unreachable`](Self::is_unreachable) is true as well.
    pub fn is_absent(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_absent)
    }

    fn unsent(&self) -> Option<&BalanceError> {
        match &*self.0 {
            Kind::Unsent(error) | Kind::SessionLost { source: error, .. } => Some(error),
            _ => None,
        }
    }

    /// The name of the pod that failed, where a name is known; or of the one pod that should have had the request, as it was asked
    /// for: also where it [is absent](Self::is_absent), and has no [endpoint](Self::endpoint).
    pub fn pod(&self) -> Option<&str> {
        let asked_for = match &*self.0 {
            Kind::SessionLost { pod, .. } => Some(&**pod),
            _ => self.unsent().and_then(BalanceError::pod),
        };
        asked_for.or_else(|| self.endpoint()?.name())
    }

    /// The pod that failed, where one alone had the request, or was the only one that should have it.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &*self.0 {
            Kind::Unanswered { pod, .. } => pod.as_ref(),
            Kind::Pod { pod, .. }
            | Kind::Status { pod, .. }
            | Kind::Body { pod, .. }
            | Kind::CutOff { pod, .. }
            | Kind::Unended { pod, .. }
            | Kind::Limit { pod, .. }
            | Kind::StatusOf { pod, .. }
            | Kind::Decode { pod, .. } => Some(pod),
            Kind::Unsent(error)
            | Kind::SessionLost { source: error, .. }
            | Kind::NoAnswer(error) => error.endpoint(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Kind::Unsent(source) | Kind::SessionLost { source, .. } => Some(source),
            Kind::RequestBody(source)
            | Kind::Pod { source, .. }
            | Kind::Body { source, .. }
            | Kind::Limit { source, .. } => Some(&**source),
            Kind::CutOff { source, .. } => Some(source),
            // Its text is the balancer's.
            Kind::NoAnswer(error) => error.source(),
            Kind::Request(_)
            | Kind::Foreign { .. }
            | Kind::Status { .. }
            | Kind::Unanswered { .. }
            | Kind::Unended { .. }
            | Kind::StatusOf { .. }
            | Kind::Decode { .. } => None,
        }
    }
}
