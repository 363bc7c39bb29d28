//! [`Error`]: why a request failed, and whether it had left this process by then.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `error/kind.rs` | what can go wrong, and its words |
//! | `error/text.rs` | how all errors read: which causes a text names, and in which order |
//! | `error/mark.rs` | what an endpoint service's error tells the balancer |
//! | `error/unsent.rs` | the error that brings a request back |
//! | `error/made.rs` | fake errors, for the tests of applications |

mod kind;
#[cfg(feature = "test-util")]
mod made;
mod mark;
mod text;
mod unsent;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use tower::BoxError;

use kind::Kind;
pub(crate) use kind::{Away, NoEndpoints, PodState, Refusal, SharedError};
#[cfg(feature = "http")]
pub(crate) use mark::unmarked;
pub(crate) use mark::{Busy, NoRuntime, Refused, Suspect, is_timeout, timed_out};
pub(crate) use text::{cause, chain, line, opening, tell};
pub use unsent::Unsent;

use crate::endpoint::Endpoint;

/// Why a balanced request failed.
///
/// Its text is one line: the [service](Self::service), the pod, what happened, and the innermost cause. `{:#}` names
/// all causes, each once.
///
/// It is opaque: use the `is_*` methods. [`source`](StdError::source) leads to the cause: the endpoint service's own
/// error, the last refusal of a connection, or the failed DNS lookup.
///
/// | kind | method | unsent? | worth a retry? |
/// | --- | --- | --- | --- |
/// | discovery has found nothing yet, or the service has no pods | [`is_no_endpoints`](Self::is_no_endpoints) | yes | later (the request has waited already); check the service's name and its pods |
/// | all pods refuse, or fail their health checks | [`is_unreachable`](Self::is_unreachable) | yes | later (the request has waited already); check the pods |
/// | all connections to the pods, or to the requested one, are in use | [`is_unreachable`](Self::is_unreachable), [`is_busy`](Self::is_busy) | yes | later (the request has waited already); allow more connections, or fewer requests |
/// | the requested pod refuses | [`is_unreachable`](Self::is_unreachable) | yes | later |
/// | the requested pod isn't there | [`is_unreachable`](Self::is_unreachable), [`is_absent`](Self::is_absent) | yes | later, if the name is right |
/// | a broadcast's pod has left | [`is_gone`](Self::is_gone) | yes | no: there is no such pod |
/// | a broadcast's pod hasn't answered in time | [`is_timeout`](Self::is_timeout) | see [`is_unsent`](Self::is_unsent) | if it is unsent, or may be executed twice |
/// | a pod's service failed | [`is_endpoint`](Self::is_endpoint) | no | if it may be executed twice: [`RetryLayer`](crate::RetryLayer) does so |
/// | the balancer is closed | [`is_closed`](Self::is_closed) | yes | in another balancer |
/// | there is no tokio runtime | [`is_no_runtime`](Self::is_no_runtime) | yes | no: call it within one |
///
/// A failed request changes nothing in the balancer: it stays usable, and so does every clone of it.
#[derive(Debug)]
pub struct Error(
    Box<Kind>,
    /// The service's name, if known.
    Option<Arc<str>>,
);

impl Error {
    pub(crate) fn no_endpoints(why: NoEndpoints, source: Option<SharedError>) -> Self {
        Kind::NoEndpoints { why, source }.into()
    }

    pub(crate) fn unreachable(endpoints: usize, last: Option<Refusal>) -> Self {
        Kind::Unreachable { endpoints, last }.into()
    }

    /// None of `endpoints` endpoints has room; `last` is the one that the request waited for last.
    pub(crate) fn busy(endpoints: usize, last: Refusal) -> Self {
        Kind::Busy { endpoints, last }.into()
    }

    pub(crate) fn pod_unreachable(
        pod: impl Into<Box<str>>,
        state: PodState,
        source: Option<SharedError>,
    ) -> Self {
        let pod = pod.into();
        Kind::PodUnreachable { pod, state, source }.into()
    }

    pub(crate) fn endpoint_unreachable(endpoint: Endpoint, source: Option<SharedError>) -> Self {
        Kind::EndpointUnreachable { endpoint, source }.into()
    }

    pub(crate) fn gone(endpoint: Endpoint) -> Self {
        Kind::Gone(endpoint).into()
    }

    /// An endpoint has not answered within the time of `setting`. `is_unsent` if it did not get the request; `source`
    /// says why not, if known.
    pub(crate) fn no_answer(
        endpoint: Endpoint,
        (after, setting): (Duration, &'static str),
        is_unsent: bool,
        source: Option<SharedError>,
    ) -> Self {
        let kind = Kind::NoAnswer {
            endpoint,
            after,
            setting,
            is_unsent,
            source,
        };
        kind.into()
    }

    pub(crate) fn endpoint_failed(endpoint: Endpoint, source: BoxError) -> Self {
        Kind::Endpoint { endpoint, source }.into()
    }

    pub(crate) fn closed(source: Option<SharedError>) -> Self {
        Kind::Closed { source }.into()
    }

    pub(crate) fn no_runtime() -> Self {
        Kind::NoRuntime.into()
    }

    /// Adds the service's name, unless the error has one.
    pub(crate) fn of_service(mut self, service: Option<&Arc<str>>) -> Self {
        self.1 = self.1.or_else(|| service.cloned());
        self
    }

    /// Removes the ready timeout from the text, for a request that has not waited that long.
    #[cfg(feature = "http")]
    pub(crate) fn so_far(mut self) -> Self {
        if let Kind::NoEndpoints { why, .. } = &mut *self.0
            && let NoEndpoints::NotDiscovered(waited) = why
        {
            *waited = None;
        }
        self
    }

    /// The service's name, as a shared string.
    #[cfg(feature = "http")]
    pub(crate) fn shared_service(&self) -> Option<&Arc<str>> {
        self.1.as_ref()
    }

    /// What went wrong and why, without the service.
    pub(crate) fn tell_kind(&self, f: &mut fmt::Formatter<'_>, opening: &str) -> fmt::Result {
        tell(f, &format!("{opening}{}", self.0), self.source())
    }

    /// The service that the request was for, as discovery or [`BalanceBuilder::name`](crate::BalanceBuilder::name)
    /// names it; `None` if neither does.
    pub fn service(&self) -> Option<&str> {
        self.1.as_deref()
    }

    /// The endpoint that failed and its service's own error, if [`is_endpoint`](Self::is_endpoint).
    #[cfg(feature = "http")]
    pub(crate) fn into_endpoint_failure(self) -> Result<(Endpoint, BoxError), Self> {
        let Self(kind, service) = self;
        match *kind {
            Kind::Endpoint { endpoint, source } => Ok((endpoint, source)),
            kind => Err(Self(Box::new(kind), service)),
        }
    }

    /// Whether discovery knows no endpoint: it has not answered yet, or the service is scaled to zero.
    ///
    /// The source, if any, is discovery's last error. Discovery goes on; a later request may succeed.
    pub fn is_no_endpoints(&self) -> bool {
        matches!(*self.0, Kind::NoEndpoints { .. })
    }

    /// Whether there are endpoints, but every one refuses connections or fails its [health check](crate::HealthCheck).
    /// It is also `true` if the requested [pod](crate::Route::pod) does so or isn't there, or if one endpoint of a
    /// [broadcast](crate::Balance::broadcast) does so. The source is the last refusal, or says which check failed and
    /// why.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            *self.0,
            Kind::Unreachable { .. }
                | Kind::Busy { .. }
                | Kind::PodUnreachable { .. }
                | Kind::EndpointUnreachable { .. }
        )
    }

    /// Whether endpoints (or the requested one) accept requests, but all their connections were in use for as long as
    /// the request could wait: with [`Connections::pooled`](crate::Connections::pooled). The source says how many.
    ///
    /// Such an error [is unreachable](Self::is_unreachable), too, because it means the same to the caller (a 503, say).
    /// But nothing is wrong with the endpoints, and they get requests as before.
    pub fn is_busy(&self) -> bool {
        match &*self.0 {
            Kind::Busy { .. } => true,
            Kind::PodUnreachable { state, .. } => matches!(state, PodState::Busy(_)),
            _ => false,
        }
    }

    /// Whether the requested [pod](crate::Balance::pod) isn't in the set, or can't be told apart from others. The
    /// error's text says where it was last and which pods there are. No pod has an empty name, so a request for one
    /// fails without waiting.
    pub fn is_absent(&self) -> bool {
        self.absent_or_refusing()
            .is_some_and(|(_, state)| !matches!(state, PodState::Refuses(_) | PodState::Busy(_)))
    }

    /// The requested [pod](crate::Balance::pod), if it [is absent](Self::is_absent), [is busy](Self::is_busy) or
    /// accepts no requests.
    pub fn pod(&self) -> Option<&str> {
        self.absent_or_refusing().map(|(pod, _)| pod)
    }

    fn absent_or_refusing(&self) -> Option<(&str, &PodState)> {
        match &*self.0 {
            Kind::PodUnreachable { pod, state, .. } => Some((pod, state)),
            _ => None,
        }
    }

    /// Whether the endpoint left the set before it got its request of a [broadcast](crate::Balance::broadcast).
    pub fn is_gone(&self) -> bool {
        matches!(*self.0, Kind::Gone(_))
    }

    /// Whether the endpoint has not answered a [broadcast](crate::Balance::broadcast) within its own time, or within
    /// the time for all.
    ///
    /// If [`is_unsent`](Self::is_unsent), it did not get the request: its turn had not come, or it did not accept it.
    /// If it refused connections, the source is its last refusal. If `is_unsent` is false, it may have executed the
    /// request.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Kind::NoAnswer { .. })
    }

    /// Whether the request was handed to an endpoint's service, and that service failed. Its error is the source.
    ///
    /// Only the service's own error can say whether the endpoint executed the request.
    pub fn is_endpoint(&self) -> bool {
        matches!(*self.0, Kind::Endpoint { .. })
    }

    /// Whether the balancer's background task has ended, so that waiting is useless: the last handle was dropped, the
    /// source panicked, or the runtime ended before discovery answered. Build another balancer. After a runtime's end,
    /// you can also call this one again in a runtime that goes on.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Kind::Closed { .. })
    }

    /// Whether the balancer was called, or its response awaited, outside of a tokio runtime. Do both in a task of one.
    pub fn is_no_runtime(&self) -> bool {
        matches!(*self.0, Kind::NoRuntime)
    }

    /// Whether the request never left this process. Then it can be sent again, whatever it is.
    pub fn is_unsent(&self) -> bool {
        match *self.0 {
            Kind::Endpoint { .. } => false,
            Kind::NoAnswer { is_unsent, .. } => is_unsent,
            _ => true,
        }
    }

    /// The endpoint that the error is about: its service failed ([`is_endpoint`](Self::is_endpoint)), it has not
    /// answered a [broadcast](crate::Balance::broadcast), or it accepts no requests and was the only one that would do.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &*self.0 {
            Kind::Endpoint { endpoint, .. }
            | Kind::EndpointUnreachable { endpoint, .. }
            | Kind::NoAnswer { endpoint, .. }
            | Kind::PodUnreachable {
                state: PodState::Refuses(endpoint) | PodState::Busy(endpoint),
                ..
            }
            | Kind::Gone(endpoint) => Some(endpoint),
            _ => None,
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind), None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell_kind(f, &opening(self.service(), self.is_unsent()))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Kind::Unreachable { last, .. } => last.as_ref().map(|last| &*last.why as _),
            Kind::Busy { last, .. } => Some(&*last.why),
            Kind::NoEndpoints { source, .. }
            | Kind::PodUnreachable { source, .. }
            | Kind::EndpointUnreachable { source, .. }
            | Kind::NoAnswer { source, .. }
            | Kind::Closed { source } => source.as_ref().map(|shared| &**shared as _),
            Kind::Endpoint { source, .. } => Some(&**source),
            Kind::Gone(_) | Kind::NoRuntime => None,
        }
    }
}
