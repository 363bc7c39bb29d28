//! What can go wrong with an HTTP request, and whether it may have been executed.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `error/kind.rs` | what can go wrong, and its words |
//! | `error/execution.rs` | whether a pod may have executed the request |
//! | `error/pod_failure.rs` | how a pod fails a request |
//! | `error/wait.rs` | what a request that was not sent in time waited for |
//! | `error/constructors.rs` | how the client makes its errors |
//! | `error/display.rs`, `error/plain.rs` | an error's text; the end of a connection in plain words |
//! | `error/made.rs` | errors of each kind, for the tests of applications |

mod constructors;
mod display;
mod execution;
mod kind;
#[cfg(feature = "test-util")]
mod made;
mod plain;
mod pod_failure;
mod wait;

use std::{error::Error as StdError, sync::Arc};

use http::StatusCode;

use kind::Kind;
pub(super) use pod_failure::{Failure, NoFirstByte, NotAccepted, Outcome, RuntimeEnded};
pub(super) use wait::Wait;

use crate::{attempts::Attempts, endpoint::Endpoint, error::Error as BalanceError};

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

impl Error {
    /// No pod has executed the request: any request can safely be sent again.
    ///
    /// If this is false, the request may have been executed, once. If a [layer](super::Client::layer) has made several
    /// requests from one, this answers for all of them: a redirect that was not sent follows a request that was. A
    /// layer that sends them from its own tasks must keep the request's extensions for that.
    pub fn is_unexecuted(&self) -> bool {
        !self.is_after_another() && self.last_is_unexecuted()
    }

    /// The request never left this process. [`is_unexecuted`](Self::is_unexecuted) is true, too.
    pub fn is_unsent(&self) -> bool {
        !self.is_after_another() && self.last_is_unsent()
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

    /// What came of the request, attempt by attempt. None unless [recorded](super::RequestBuilder::attempts).
    pub fn attempts(&self) -> Option<&Attempts> {
        self.3.as_deref().or_else(|| self.own().3.as_deref())
    }

    /// A [layer](super::Client::layer) around the client failed the request, or put the client's error into its own
    /// type. The layer's error is the source. If the client's own error is in the source's chain, all other methods
    /// answer for that one. If not, nobody knows whether a pod has executed the request.
    pub fn is_layer(&self) -> bool {
        matches!(*self.0, Kind::Layer(_))
    }

    /// Adds the service's name, unless the error has one.
    pub(super) fn of_service(mut self, service: Option<&Arc<str>>) -> Self {
        self.1 = self.1.or_else(|| service.cloned());
        self
    }

    /// Adds the log of the request's attempts.
    pub(super) fn with_attempts(mut self, attempts: Attempts) -> Self {
        self.3 = Some(Arc::new(attempts));
        self
    }

    /// A copy, for a body that fails again.
    pub(super) fn again(&self) -> Self {
        Self(self.0.clone(), self.1.clone(), self.2, self.3.clone())
    }

    /// [`service`](Self::service), for use in another error.
    pub(super) fn shared_service(&self) -> Option<&Arc<str>> {
        self.own().1.as_ref()
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
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Arc::new(kind), None, false, None)
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
