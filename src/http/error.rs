//! What can go wrong with an HTTP request, and whether it may have been executed.

#[cfg(feature = "test-util")]
mod made;
mod plain;
mod wait;

pub(super) use wait::Wait;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::{
    StatusCode,
    uri::{Authority, Scheme},
};

use crate::{
    attempts::Attempts,
    endpoint::Endpoint,
    error::{BoxError, Error as BalanceError, opening, tell},
};

/// Why an HTTP request failed.
///
/// Its text is one line: which [service](Self::service), which [pod](Self::endpoint), what happened, and the innermost
/// cause. `{:#}` shows all causes, each once.
///
/// Ask it with its methods; the most important one is [`is_unexecuted`](Self::is_unexecuted). Methods that [the
/// balancer's error](crate::Error) has too mean the same.
///
/// | what happened | asked by | unexecuted? | worth a retry? |
/// | --- | --- | --- | --- |
/// | the request makes no sense | [`is_request`](Self::is_request) | yes | no: correct it |
/// | it is for another service | [`is_request`](Self::is_request), [`is_foreign`](Self::is_foreign) | yes | no: by that service's client |
/// | no pod gets the request: [the balancer's kinds](crate::Error) | [`is_no_endpoints`](Self::is_no_endpoints), [`is_unreachable`](Self::is_unreachable), [`is_absent`](Self::is_absent), [`is_gone`](Self::is_gone), [`is_closed`](Self::is_closed), [`is_no_runtime`](Self::is_no_runtime) | yes | as it says there |
/// | the session's pod is out, and the session is strict | [`is_unreachable`](Self::is_unreachable), `is_session_lost` | yes | with a new session |
/// | a pod failed before its response | [`is_endpoint`](Self::is_endpoint) | [ask it](Self::is_unexecuted) | the client has retried, if that was safe and the budget allowed it |
/// | a pod sent no response within the `first_byte_timeout` | [`is_endpoint`](Self::is_endpoint), [`is_timeout`](Self::is_timeout) | no | as above |
/// | the request, or its response, did not end within the `timeout` | [`is_timeout`](Self::is_timeout) | no | if it may be executed twice |
/// | no pod got the request within the `timeout`: it waited for discovery, a pod, a connection, or the client's [layers](super::Client::layer) | [`is_timeout`](Self::is_timeout) | yes | later: the text says what it waited for, and the source why |
/// | a pod of a broadcast hasn't answered in time | [`is_timeout`](Self::is_timeout) | [ask it](Self::is_unexecuted) | if it is unexecuted, or may be executed twice |
/// | the request's own body failed | [`is_request_body`](Self::is_request_body) | no | with a body that doesn't fail |
/// | the response broke off | [`is_body`](Self::is_body) | no | if it may be executed twice |
/// | the response is larger than the client reads | [`is_limit`](Self::is_limit) | no | no: raise the limit that the text names |
/// | the status is an error, and the caller wanted a success | [`is_status`](Self::is_status) | no | as the [status](Self::status) says |
/// | the response's body isn't the JSON that the caller expects | [`is_decode`](Self::is_decode) | no | no: check the type, or the pods |
/// | a layer around the client failed | [`is_layer`](Self::is_layer) | no, as far as is known | as the source says |
#[derive(Debug)]
pub struct Error(
    /// Shared with its copies, see [`again`](Self::again).
    Arc<Kind>,
    /// The service's name, if it is known.
    Option<Arc<str>>,
    /// Whether layers have made several requests from the caller's, this error is of one that was not executed, and
    /// another one may have been.
    bool,
    /// What came of each attempt, if that was recorded.
    Option<Arc<Attempts>>,
);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("invalid request: {0}")]
    Request(String),
    #[error(
        "{other} is not this client's service, {service}: write a path alone, or set `allow_foreign_authority`"
    )]
    Foreign { other: String, service: String },
    /// Shows the balancer's own text.
    #[error(transparent)]
    Unsent(BalanceError),
    #[cfg_attr(
        not(feature = "sessions"),
        expect(dead_code, reason = "there are no sessions")
    )]
    #[error("its strict session needs pod {pod}")]
    SessionLost { pod: Box<str>, source: BalanceError },
    #[error(transparent)]
    NoAnswer(BalanceError),
    #[error("{} {status}", answered(.pod.as_ref(), None))]
    Status {
        pod: Option<Endpoint>,
        status: StatusCode,
    },
    #[error("pod {pod} failed; the request {outcome}")]
    Pod {
        pod: Endpoint,
        outcome: Outcome,
        source: BoxError,
    },
    #[error("{} is more than this client reads", response(.pod.as_ref()))]
    Limit {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("the request's own body failed")]
    RequestBody(#[source] BoxError),
    #[error("{} failed while it sent its response", whose(.pod.as_ref()))]
    Body {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("{} was cut off", response(.pod.as_ref()))]
    CutOff {
        pod: Option<Endpoint>,
        source: BoxError,
    },
    #[error("{} within {after:?} (`timeout`)", unanswered(.pod.as_ref()))]
    Unanswered {
        /// The pod that has the request, if there is only one.
        pod: Option<Endpoint>,
        after: Duration,
        source: Option<BoxError>,
    },
    #[error("no end of {} within {after:?} (`timeout`)", response_of(.pod.as_ref()))]
    Unended {
        pod: Option<Endpoint>,
        after: Duration,
        source: Option<BoxError>,
    },
    /// No pod can have executed the request, and none still has it.
    #[error("not {} within {after:?} (`timeout`){wait}", if *was_sent { "executed" } else { "sent" })]
    NotSent {
        after: Duration,
        wait: Wait,
        /// Whether a pod got the request, and refused it unprocessed.
        was_sent: bool,
    },
    #[error("a layer around the client failed: {0}")]
    Layer(BoxError),
    #[error("{} {status}", answered(.pod.as_ref(), Some(request)))]
    StatusOf {
        pod: Option<Endpoint>,
        status: StatusCode,
        /// Method and path.
        request: String,
    },
    #[cfg_attr(
        not(feature = "json"),
        expect(dead_code, reason = "nothing is decoded")
    )]
    #[error("{} is {why}", response(.pod.as_ref()))]
    Decode { pod: Option<Endpoint>, why: String },
}

impl Kind {
    /// Whether the source comes from the pod's connection, and not from the caller's body or a layer.
    fn is_of_pod(&self) -> bool {
        matches!(
            self,
            Self::Pod { .. } | Self::Body { .. } | Self::Unanswered { .. } | Self::Unended { .. }
        )
    }
}

/// Begins the text of an error if another request that layers made from the same one may have been executed.
fn opening_after(service: Option<&str>, is_unsent: bool) -> String {
    let what = service.map_or_else(
        || "the request".into(),
        |service| format!("request to {service}"),
    );
    let unsent = if is_unsent { " was not sent" } else { "" };
    format!("{what} may have been executed; the last request that a layer made from it{unsent}: ")
}

/// Without a pod, a layer or a test may have made the response.
fn response(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "the response".into(),
        |pod| format!("the response of pod {pod}"),
    )
}

/// The text before a status.
fn answered(pod: Option<&Endpoint>, request: Option<&str>) -> String {
    match (pod, request) {
        (Some(pod), Some(request)) => format!("pod {pod} answered {request} with"),
        (Some(pod), None) => format!("pod {pod} answered"),
        (None, Some(request)) => format!("{request} was answered with"),
        (None, None) => "it was answered with".into(),
    }
}

fn unanswered(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "no answer".into(),
        |pod| format!("no answer of pod {pod}"),
    )
}

fn whose(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(|| "no pod".into(), |pod| format!("pod {pod}"))
}

fn response_of(pod: Option<&Endpoint>) -> String {
    pod.map_or_else(
        || "the response".into(),
        |pod| format!("pod {pod}'s response"),
    )
}

/// What became of a request that a pod has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    #[source]
    pub(super) source: BoxError,
}

/// The pod sent no byte of a response in time.
#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?} (`first_byte_timeout`)")]
pub(super) struct NoFirstByte(pub(super) Duration);

/// The pod has refused a connection that looked open, and has read nothing from it.
#[derive(Debug, thiserror::Error)]
#[error("the pod refused the connection: {0}")]
pub(super) struct NotAccepted(pub(super) BoxError);

/// The connection was driven by a runtime that has ended. It is no pod's fault.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that drove the connection has ended")]
pub(super) struct RuntimeEnded;

impl Error {
    pub(super) fn request(what: impl fmt::Display) -> Self {
        Kind::Request(what.to_string()).into()
    }

    /// Adds the service's name, unless the error has one.
    pub(super) fn of_service(mut self, service: Option<&Arc<str>>) -> Self {
        self.1 = self.1.or_else(|| service.cloned());
        self
    }

    /// A request for another service than the client's; each tuple is a scheme and an authority.
    pub(super) fn foreign(other: (&Scheme, &str), service: (&Scheme, &Authority)) -> Self {
        let text = |scheme: &Scheme, authority| format!("{scheme}://{authority}");
        let other = text(other.0, other.1);
        let service = text(service.0, service.1.as_str());
        Kind::Foreign { other, service }.into()
    }

    pub(super) fn body(pod: Option<Endpoint>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Kind::Body { pod, source }.into()
    }

    /// The request's own body has failed.
    pub(super) fn request_body(source: BoxError) -> Self {
        Kind::RequestBody(source).into()
    }

    /// The response was cut off, but not by its pod.
    pub(super) fn cut_off(pod: Option<Endpoint>, why: impl Into<BoxError>) -> Self {
        let source = why.into();
        Kind::CutOff { pod, source }.into()
    }

    pub(super) fn limit(pod: Option<Endpoint>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Kind::Limit { pod, source }.into()
    }

    /// No response within the request's timeout. `pod` is the only pod that has the request.
    pub(super) fn unanswered(pod: Option<Endpoint>, after: Duration) -> Self {
        let source = None;
        Kind::Unanswered { pod, after, source }.into()
    }

    /// No pod can have executed the request within its timeout. `wait` is what it waited for; `was_sent` if a pod has
    /// refused it unprocessed.
    pub(super) fn not_sent(after: Duration, wait: Wait, was_sent: bool) -> Self {
        let kind = Kind::NotSent {
            after,
            wait,
            was_sent,
        };
        kind.into()
    }

    /// The response did not end within the request's timeout.
    pub(super) fn unended(pod: Option<Endpoint>, after: Duration) -> Self {
        let source = None;
        Kind::Unended { pod, after, source }.into()
    }

    /// Adds `error`, by which the client learnt that the time was up, as the source.
    pub(super) fn because(mut self, error: Self) -> Self {
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

    pub(super) fn answered(pod: Option<Endpoint>, status: StatusCode) -> Self {
        Kind::Status { pod, status }.into()
    }

    /// A layer's error. If it is the client's own error, passed on, it stays what it is.
    pub(super) fn layer(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(error) => Kind::Layer(error).into(),
        }
    }

    /// Notes that another request that layers made from the same one may have been executed.
    pub(super) fn after_another(mut self) -> Self {
        self.2 |= self.is_unexecuted();
        self
    }

    /// Whether another request that layers made from the same one may have been executed.
    fn is_after_another(&self) -> bool {
        self.2 || self.own().2
    }

    /// The client's own error: this one, or the one inside a layer's error.
    fn own(&self) -> &Self {
        let Kind::Layer(error) = &*self.0 else {
            return self;
        };
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&**error);
        while let Some(error) = cause {
            if let Some(own) = error.downcast_ref::<Self>() {
                return own.own();
            }
            cause = error.source();
        }
        self
    }

    fn kind(&self) -> &Kind {
        &self.own().0
    }

    /// A [layer](super::Client::layer) around the client failed the request, or put the client's error into its own
    /// type. The layer's error is the source. If the client's own error is in the source's chain, all other methods
    /// answer for that one. If not, nobody knows whether a pod has executed the request.
    pub fn is_layer(&self) -> bool {
        matches!(*self.0, Kind::Layer(_))
    }

    /// `request` is its method and path.
    pub(super) fn status_of(pod: Option<Endpoint>, status: StatusCode, request: String) -> Self {
        Kind::StatusOf {
            pod,
            status,
            request,
        }
        .into()
    }

    /// A copy, for a body that fails again.
    pub(super) fn again(&self) -> Self {
        Self(self.0.clone(), self.1.clone(), self.2, self.3.clone())
    }

    /// [`service`](Self::service), for use in another error.
    pub(super) fn shared_service(&self) -> Option<&Arc<str>> {
        self.own().1.as_ref()
    }

    /// The response's body is not what its caller expects.
    #[cfg(feature = "json")]
    pub(super) fn decode(pod: Option<Endpoint>, why: String) -> Self {
        Kind::Decode { pod, why }.into()
    }

    /// Converts the balancer's error.
    pub(super) fn balance(error: BalanceError) -> Self {
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

    /// Converts the error of a request that had to go to its session's pod.
    #[cfg(feature = "sessions")]
    pub(super) fn of_session(self, pod: Box<str>) -> Self {
        let Self(kind, service, is_after, attempts) = self;
        let kind = Arc::try_unwrap(kind).map(|kind| match kind {
            Kind::Unsent(source) if source.is_unreachable() => Kind::SessionLost { pod, source },
            kind => kind,
        });
        let kind = kind.map_or_else(|shared| shared, Arc::new);
        Self(kind, service, is_after, attempts)
    }

    /// Adds the log of the request's attempts.
    pub(super) fn with_attempts(mut self, attempts: Attempts) -> Self {
        self.3 = Some(Arc::new(attempts));
        self
    }

    /// What came of the request, attempt by attempt. None unless [recorded](super::RequestBuilder::attempts).
    pub fn attempts(&self) -> Option<&Attempts> {
        self.3.as_deref().or_else(|| self.own().3.as_deref())
    }

    /// What became of the request, if a pod failed it before a response began.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match *self.0 {
            Kind::Pod { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// No pod has executed the request: any request can safely be sent again.
    ///
    /// If this is false, the request may have been executed, once. If a [layer](super::Client::layer) has made several
    /// requests from one, this answers for all of them: a redirect that was not sent follows a request that was. A
    /// layer that sends them from its own tasks must keep the request's extensions for that.
    pub fn is_unexecuted(&self) -> bool {
        !self.is_after_another() && self.last_is_unexecuted()
    }

    fn last_is_unexecuted(&self) -> bool {
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

    /// The request never left this process. [`is_unexecuted`](Self::is_unexecuted) is true, too.
    pub fn is_unsent(&self) -> bool {
        !self.is_after_another() && self.last_is_unsent()
    }

    fn last_is_unsent(&self) -> bool {
        match self.kind() {
            Kind::Request(_) | Kind::Foreign { .. } | Kind::SessionLost { .. } => true,
            Kind::NotSent { was_sent, .. } => !was_sent,
            Kind::Unsent(error) | Kind::NoAnswer(error) => error.is_unsent(),
            _ => false,
        }
    }

    /// One of the client's timeouts has passed: that of the first byte, that of the whole request, or one of a
    /// [broadcast's](crate::Broadcast). The text says which, how long it was, and its setting.
    /// [`is_unexecuted`](Self::is_unexecuted) tells whether a pod had the request by then.
    ///
    /// Two other timeouts end in other errors. After a connect timeout other pods are asked; if all refuse, the error
    /// [is unreachable](Self::is_unreachable). If no pod accepts the request within the ready timeout, the error [has
    /// no endpoints](Self::is_no_endpoints) or is unreachable.
    pub fn is_timeout(&self) -> bool {
        match self.kind() {
            Kind::Unanswered { .. }
            | Kind::NotSent { .. }
            | Kind::Unended { .. }
            | Kind::NoAnswer(_) => true,
            Kind::Pod { source, .. } => source.is::<NoFirstByte>(),
            _ => false,
        }
    }

    /// The request itself makes no sense: the text says why.
    pub fn is_request(&self) -> bool {
        matches!(*self.kind(), Kind::Request(_) | Kind::Foreign { .. })
    }

    /// The request's URI names another service than the client's, by its authority or its scheme. It was not sent.
    ///
    /// [`is_request`](Self::is_request) is true, too. See
    /// [`ClientBuilder::allow_foreign_authority`](super::ClientBuilder::allow_foreign_authority).
    pub fn is_foreign(&self) -> bool {
        matches!(*self.kind(), Kind::Foreign { .. })
    }

    /// The request's own body failed, or doesn't have its declared length; the pod has done nothing wrong. A part of
    /// the request may have been sent.
    pub fn is_request_body(&self) -> bool {
        matches!(*self.kind(), Kind::RequestBody(_))
    }

    /// The response is larger than this client reads: its head or its trailers, or its body if that is read as a whole.
    /// The source names the limit and its setting
    /// ([`max_response_header_size`](super::ClientBuilder::max_response_header_size),
    /// [`response_limit`](super::ClientBuilder::response_limit)). The pod isn't blamed: it isn't ejected, and no other
    /// pod is asked.
    pub fn is_limit(&self) -> bool {
        matches!(*self.kind(), Kind::Limit { .. })
    }

    /// Discovery knows no pod: it has not answered yet, or the service is scaled to zero, or its name is wrong. The
    /// source, if any, is discovery's last error. Discovery goes on; a later request may succeed.
    pub fn is_no_endpoints(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_no_endpoints)
    }

    /// There are pods, but every one refuses connections or fails its [health check](crate::HealthCheck). Or one pod
    /// does, or isn't there: the [pod](super::Client::pod) that the request is for, or one of a
    /// [broadcast](super::Client::broadcast). The source is the last refusal, or tells which check failed and why.
    pub fn is_unreachable(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_unreachable)
    }

    /// The pod left the set before it got its request of a [broadcast](super::Client::broadcast).
    pub fn is_gone(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_gone)
    }

    /// The client is closed, so waiting is useless: its discovery has panicked, or its runtime has ended before
    /// discovery answered. Build another client. If the runtime has ended, you may also use this client in another
    /// runtime.
    pub fn is_closed(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_closed)
    }

    /// The client was called, or its response awaited, outside of a tokio runtime. Use it in a task of a runtime.
    pub fn is_no_runtime(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_no_runtime)
    }

    /// A pod got the request, or a part of it, and failed before its response began: it broke the connection, refused
    /// the request, or sent no byte in [time](super::ClientBuilder::first_byte_timeout). The source says why.
    /// [`is_unexecuted`](Self::is_unexecuted) tells what became of the request.
    pub fn is_endpoint(&self) -> bool {
        matches!(*self.kind(), Kind::Pod { .. })
    }

    /// The response broke off after its head: the pod failed, the runtime that drove its connection has ended, or a
    /// retry has taken over the request's body. The request has been executed, at least in part.
    pub fn is_body(&self) -> bool {
        matches!(*self.kind(), Kind::Body { .. } | Kind::CutOff { .. })
    }

    /// The request's [strict](super::Sessions::strict) session has lost its pod. Nothing was sent.
    ///
    /// [`is_unreachable`](Self::is_unreachable) is true, too.
    #[cfg(feature = "sessions")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sessions")))]
    pub fn is_session_lost(&self) -> bool {
        matches!(*self.kind(), Kind::SessionLost { .. })
    }

    /// The answer's status is an error, and the caller has asked for a success: by
    /// [`error_for_status`](super::Response::error_for_status), or by a method of a
    /// [broadcast](super::Client::broadcast) that counts successes. Otherwise no status is an error.
    pub fn is_status(&self) -> bool {
        self.status().is_some()
    }

    /// The status of an answer that [is an error](Self::is_status).
    pub fn status(&self) -> Option<StatusCode> {
        match *self.kind() {
            Kind::Status { status, .. } | Kind::StatusOf { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The response's body was read, but isn't JSON, or not JSON of the expected type.
    pub fn is_decode(&self) -> bool {
        matches!(*self.kind(), Kind::Decode { .. })
    }

    /// The one [pod](super::Client::pod) that the request is for isn't in the set, or several pods fit. The
    /// text says where it was last, and which pods there are.
    ///
    /// [`is_unreachable`](Self::is_unreachable) is true, too.
    pub fn is_absent(&self) -> bool {
        self.unsent().is_some_and(BalanceError::is_absent)
    }

    fn unsent(&self) -> Option<&BalanceError> {
        match self.kind() {
            Kind::Unsent(error) | Kind::SessionLost { source: error, .. } => Some(error),
            _ => None,
        }
    }

    /// The name of the pod that failed, if it is known. If the request was for one pod, the name it was asked for by,
    /// even if that pod [is absent](Self::is_absent) and so has no [endpoint](Self::endpoint).
    pub fn pod(&self) -> Option<&str> {
        let asked_for = match self.kind() {
            Kind::SessionLost { pod, .. } => Some(&**pod),
            Kind::NotSent { wait, .. } => wait.balance().and_then(BalanceError::pod),
            _ => self.unsent().and_then(BalanceError::pod),
        };
        asked_for.or_else(|| self.endpoint()?.name())
    }

    /// The service that the request was for: the host of the client's URI.
    pub fn service(&self) -> Option<&str> {
        self.shared_service().map(|service| &**service)
    }

    /// The pod that failed, if only one had the request or was meant to have it. None if a
    /// [layer](super::Client::layer) has made the response.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self.kind() {
            Kind::Pod { pod, .. } => Some(pod),
            Kind::Unanswered { pod, .. }
            | Kind::Unended { pod, .. }
            | Kind::Status { pod, .. }
            | Kind::Body { pod, .. }
            | Kind::CutOff { pod, .. }
            | Kind::Limit { pod, .. }
            | Kind::StatusOf { pod, .. }
            | Kind::Decode { pod, .. } => pod.as_ref(),
            Kind::Unsent(error)
            | Kind::SessionLost { source: error, .. }
            | Kind::NoAnswer(error) => error.endpoint(),
            Kind::NotSent { wait, .. } => wait.endpoint(),
            _ => None,
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Arc::new(kind), None, false, None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `NotSent` says so in its own text.
        let is_told = !matches!(&*self.0, Kind::NotSent { .. });
        let is_unsent = is_told && self.last_is_unsent();
        let is_after = self.is_after_another();
        let opening = match is_after {
            true => opening_after(self.service(), is_unsent),
            false => opening(self.service(), is_unsent),
        };
        match (&*self.0, self.service()) {
            (Kind::Request(why), Some(service)) if !is_after => {
                write!(f, "invalid request to {service}: {why}")
            }
            // These name the service themselves.
            (Kind::Request(_) | Kind::Foreign { .. }, _) if !is_after => self.0.fmt(f),
            (Kind::Unsent(error) | Kind::NoAnswer(error), _) => error.tell_kind(f, &opening),
            (Kind::SessionLost { source, .. }, _) => {
                source.tell_kind(f, &format!("{opening}{}: ", self.0))
            }
            (
                kind @ Kind::NotSent {
                    wait: Wait::Pod(error),
                    ..
                },
                _,
            ) => error.tell_kind(f, &format!("{opening}{kind}: ")),
            (kind, _) => {
                let what = format!("{opening}{kind}");
                let end = self.source().filter(|_| kind.is_of_pod() && !f.alternate());
                match end.and_then(plain::words) {
                    Some(why) => write!(f, "{what}: {why}"),
                    None => tell(f, &what, self.source()),
                }
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Kind::RequestBody(source)
            | Kind::Pod { source, .. }
            | Kind::Body { source, .. }
            | Kind::CutOff { source, .. }
            | Kind::Limit { source, .. } => Some(&**source),
            Kind::Unanswered { source, .. } | Kind::Unended { source, .. } => {
                source.as_ref().map(|source| &**source as _)
            }
            Kind::Layer(error) => Some(&**error),
            // The balancer's error writes the text.
            Kind::Unsent(error)
            | Kind::SessionLost { source: error, .. }
            | Kind::NoAnswer(error) => error.source(),
            Kind::Request(_)
            | Kind::Foreign { .. }
            | Kind::Status { .. }
            | Kind::StatusOf { .. }
            | Kind::Decode { .. } => None,
            Kind::NotSent { wait, .. } => wait.source(),
        }
    }
}
