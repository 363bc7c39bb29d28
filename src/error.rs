//! What can go wrong, and whether the request had left this process when it did.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use tower::BoxError;

use crate::endpoint::Endpoint;

/// An error that several callers can be shown.
pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

/// The text of an error and of its sources, each once: some errors already have their source's text in their own.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// Why a balanced request failed.
///
/// Opaque: ask it with the `is_*` methods. [`source`](StdError::source) leads to the cause: the endpoint service's own
/// error, the last refusal of a connection, or the failed DNS lookup.
///
/// A failed request changes nothing in the balancer: it stays usable, and so does every clone of it.
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("no endpoints: {why}")]
    NoEndpoints {
        why: NoEndpoints,
        source: Option<SharedError>,
    },
    #[error("none of {endpoints} endpoints accepts requests")]
    Unreachable {
        endpoints: usize,
        source: Option<SharedError>,
    },
    #[error("pod {} {state}", Named(pod))]
    PodUnreachable {
        pod: Box<str>,
        state: PodState,
        source: Option<SharedError>,
    },
    #[error("endpoint {endpoint} accepts no requests")]
    EndpointUnreachable {
        endpoint: Endpoint,
        source: Option<SharedError>,
    },
    #[error("endpoint {0} left the set before it got the request")]
    Gone(Endpoint),
    #[error(
        "endpoint {endpoint} {} within {after:?}{}",
        if *is_unsent { "has not got the request" } else { "has not answered" },
        source.as_deref().map(|refusal| format!(": {}", chain(refusal))).unwrap_or_default()
    )]
    NoAnswer {
        endpoint: Endpoint,
        after: Duration,
        is_unsent: bool,
        /// Why it refused the request until then.
        source: Option<SharedError>,
    },
    #[error("endpoint {endpoint} failed")]
    Endpoint {
        endpoint: Endpoint,
        source: BoxError,
    },
    #[error("the balancer is closed: its last handle was dropped, or its runtime has ended")]
    Closed { source: Option<SharedError> },
    #[error("no tokio runtime: call the balancer from a task of one")]
    NoRuntime,
}

/// The two ways to have no endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoEndpoints {
    /// Discovery has not answered yet, or its answers are not believed yet.
    NotDiscovered,
    /// Discovery says that there are none.
    Empty,
    /// The only one is left out.
    LeftOut,
}

/// What is known of a pod that doesn't get its request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodState {
    #[error("accepts no requests at {}", .0.address())]
    Refuses(Endpoint),
    #[error("isn't there{0}")]
    Away(Away),
    #[error("isn't there: no pod has an empty name (is a variable not set?)")]
    Nameless,
    #[error("may be of several StatefulSets: there are {} and {}; ask for it by its name", .0[0], .0[1])]
    Ambiguous([Box<str>; 2]),
}

/// A pod by what it was asked for; an empty name shows.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { self.0 })
    }
}

/// What is there while a pod is away.
#[derive(Debug)]
pub(crate) struct Away {
    endpoints: usize,
    /// Some of their names.
    names: Vec<Box<str>>,
    /// Where it was last, and how long ago it left.
    last: Option<(Endpoint, Duration)>,
}

/// How many names an error tells.
const NAMED: usize = 4;

impl Away {
    pub(crate) fn new(endpoints: &[Endpoint], last: Option<(Endpoint, Duration)>) -> Self {
        let names = endpoints.iter().filter_map(Endpoint::name);
        Self {
            endpoints: endpoints.len(),
            names: names.take(NAMED).map(Into::into).collect(),
            last,
        }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((endpoint, ago)) = &self.last {
            let address = endpoint.address();
            write!(f, "; it left {address} {} s ago", ago.as_secs())?;
        }
        let others = self.endpoints - self.names.len();
        match (&self.names[..], others) {
            ([], 0) => f.write_str("; there are no endpoints"),
            ([], _) => write!(f, "; of {others} endpoints no name is known"),
            (names, 0) => write!(f, "; there are {}", names.join(", ")),
            (names, _) => write!(f, "; there are {} and {others} more", names.join(", ")),
        }
    }
}

impl fmt::Display for NoEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDiscovered => "discovery has found none so far",
            Self::Empty => "the service has none at the moment (scaled to zero?)",
            Self::LeftOut => "there is none but the one that is left out",
        })
    }
}

impl Error {
    pub(crate) fn no_endpoints(why: NoEndpoints, source: Option<SharedError>) -> Self {
        Self(Box::new(Kind::NoEndpoints { why, source }))
    }

    pub(crate) fn unreachable(endpoints: usize, source: Option<SharedError>) -> Self {
        Self(Box::new(Kind::Unreachable { endpoints, source }))
    }

    pub(crate) fn pod_unreachable(
        pod: impl Into<Box<str>>,
        state: PodState,
        source: Option<SharedError>,
    ) -> Self {
        let pod = pod.into();
        Self(Box::new(Kind::PodUnreachable { pod, state, source }))
    }

    pub(crate) fn endpoint_unreachable(endpoint: Endpoint, source: Option<SharedError>) -> Self {
        Self(Box::new(Kind::EndpointUnreachable { endpoint, source }))
    }

    pub(crate) fn gone(endpoint: Endpoint) -> Self {
        Self(Box::new(Kind::Gone(endpoint)))
    }

    /// Of an endpoint that has not answered in time; `is_unsent` if it has not got the request, and perhaps why not.
    pub(crate) fn no_answer(
        endpoint: Endpoint,
        after: Duration,
        is_unsent: bool,
        source: Option<SharedError>,
    ) -> Self {
        Self(Box::new(Kind::NoAnswer {
            endpoint,
            after,
            is_unsent,
            source,
        }))
    }

    pub(crate) fn endpoint_failed(endpoint: Endpoint, source: BoxError) -> Self {
        Self(Box::new(Kind::Endpoint { endpoint, source }))
    }

    pub(crate) fn closed(source: Option<SharedError>) -> Self {
        Self(Box::new(Kind::Closed { source }))
    }

    pub(crate) fn no_runtime() -> Self {
        Self(Box::new(Kind::NoRuntime))
    }

    /// The endpoint that failed and its service's own error, where [`is_endpoint`](Self::is_endpoint).
    #[cfg(feature = "http")]
    pub(crate) fn into_endpoint_failure(self) -> Result<(Endpoint, BoxError), Self> {
        match *self.0 {
            Kind::Endpoint { endpoint, source } => Ok((endpoint, source)),
            kind => Err(Self(Box::new(kind))),
        }
    }

    /// Discovery knows no endpoint: it has not answered yet, or the service is scaled to zero.
    ///
    /// The source, if any, is discovery's last error. Discovery goes on; a later request may succeed.
    pub fn is_no_endpoints(&self) -> bool {
        matches!(*self.0, Kind::NoEndpoints { .. })
    }

    /// There are endpoints, but every one of them refuses connections, or fails its [health check](crate::HealthCheck); or the
    /// one [pod](crate::Route::pod) that was asked for does, or isn't there; or one endpoint of a
    /// [broadcast](crate::Balance::broadcast) does. The source is the last refusal, or tells which
    /// check failed and why.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            *self.0,
            Kind::Unreachable { .. }
                | Kind::PodUnreachable { .. }
                | Kind::EndpointUnreachable { .. }
        )
    }

    /// The one [pod](crate::Balance::pod) that was asked for isn't in the set, or can't be told apart from others. The error's
    /// text says where it was last and which pods there are. An empty name is of no pod, and nothing is waited for.
    pub fn is_absent(&self) -> bool {
        self.absent_or_refusing()
            .is_some_and(|(_, state)| !matches!(state, PodState::Refuses(_)))
    }

    /// The one [pod](crate::Balance::pod) that was asked for, where it [is absent](Self::is_absent) or accepts no requests.
    pub fn pod(&self) -> Option<&str> {
        self.absent_or_refusing().map(|(pod, _)| pod)
    }

    /// Which one pod a request was for that was not sent, and why it wasn't, in few words: ` to pod web-0, which isn't there`. Else
    /// nothing.
    #[cfg(feature = "http")]
    pub(crate) fn addressee(&self) -> String {
        match &*self.0 {
            Kind::PodUnreachable { pod, state, .. } => {
                let pod = Named(pod);
                let why = match state {
                    PodState::Refuses(_) => "accepts no requests",
                    PodState::Away(_) | PodState::Nameless => "isn't there",
                    PodState::Ambiguous(_) => "may be of several StatefulSets",
                };
                format!(" to pod {pod}, which {why}")
            }
            Kind::EndpointUnreachable { endpoint, .. } => {
                format!(" to pod {endpoint}, which accepts no requests")
            }
            Kind::Gone(endpoint) => format!(" to pod {endpoint}, which has left"),
            _ => String::new(),
        }
    }

    fn absent_or_refusing(&self) -> Option<(&str, &PodState)> {
        match &*self.0 {
            Kind::PodUnreachable { pod, state, .. } => Some((pod, state)),
            _ => None,
        }
    }

    /// The endpoint left the set before it got its part of a [broadcast](crate::Balance::broadcast).
    pub fn is_gone(&self) -> bool {
        matches!(*self.0, Kind::Gone(_))
    }

    /// The endpoint has not answered a [broadcast](crate::Balance::broadcast) within the time that it had, or that all of them
    /// had together.
    ///
    /// Where [`is_unsent`](Self::is_unsent), it has not got the request: its turn had not come, or it did not accept it. If it
    /// refused connections, the source is its last refusal. Else it may have executed the request.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Kind::NoAnswer { .. })
    }

    /// The request was handed to an endpoint's service and that service failed; it is the source.
    ///
    /// Whether the endpoint executed the request is for the service's own error to tell.
    pub fn is_endpoint(&self) -> bool {
        matches!(*self.0, Kind::Endpoint { .. })
    }

    /// The request never left this process: whatever it was, it can be sent again.
    pub fn is_unsent(&self) -> bool {
        match *self.0 {
            Kind::Endpoint { .. } => false,
            Kind::NoAnswer { is_unsent, .. } => is_unsent,
            _ => true,
        }
    }

    /// The endpoint whose service failed, where [`is_endpoint`](Self::is_endpoint), or which has not answered a
    /// [broadcast](crate::Balance::broadcast), or which accepts no requests and was the only one that would do.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &*self.0 {
            Kind::Endpoint { endpoint, .. }
            | Kind::EndpointUnreachable { endpoint, .. }
            | Kind::NoAnswer { endpoint, .. }
            | Kind::PodUnreachable {
                state: PodState::Refuses(endpoint),
                ..
            }
            | Kind::Gone(endpoint) => Some(endpoint),
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
            Kind::NoEndpoints { source, .. }
            | Kind::Unreachable { source, .. }
            | Kind::PodUnreachable { source, .. }
            | Kind::EndpointUnreachable { source, .. }
            | Kind::NoAnswer { source, .. }
            | Kind::Closed { source } => source.as_ref().map(|shared| &**shared as _),
            Kind::Endpoint { source, .. } => Some(&**source),
            Kind::Gone(_) | Kind::NoRuntime => None,
        }
    }
}

/// There is no runtime for an endpoint's service to go on in, which says nothing of the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("no tokio runtime: await the response in a task of one")]
pub(crate) struct NoRuntime;

/// An endpoint's failure after which it is passed over, as one that refuses is, until it has answered a trial request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Suspect(pub(crate) BoxError);

/// An endpoint's refusal of one request, which it has not processed: it has too much to do, or takes none at all.
///
/// The endpoint took the connection and says no to what comes over it (HTTP/2's `REFUSED_STREAM`).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refused(pub(crate) BoxError);

/// The endpoint service's own error, without the mark that says what it means to the balancer.
#[cfg(feature = "http")]
pub(crate) fn unmarked(error: &BoxError) -> &BoxError {
    if let Some(Suspect(error)) = error.downcast_ref() {
        return error;
    }
    match error.downcast_ref() {
        Some(Refused(error)) => error,
        None => error,
    }
}

/// How an endpoint's service hands a request back that it has *not* sent.
///
/// A service that fails before the first byte of a request is written (the connection turned out to be closed, say) can
/// give the request back by failing with this error, alone or boxed. The balancer then takes it to another endpoint, and
/// the caller never knows. Any service can do so; the request needs no `Clone`.
///
/// ```
/// use tower_headless::{BoxError, Unsent};
///
/// fn connection_was_closed(request: String) -> BoxError {
///     Unsent::new(request, "connection closed").into()
/// }
/// # assert!(connection_was_closed("GET".into()).downcast::<Unsent<String>>().is_ok());
/// ```
pub struct Unsent<Req> {
    // A Mutex makes the error `Sync` for requests that aren't, as `BoxError` asks; it is never locked.
    request: Mutex<Req>,
    source: BoxError,
}

impl<Req> Unsent<Req> {
    /// Hands `request` back because of `source`.
    pub fn new(request: Req, source: impl Into<BoxError>) -> Self {
        Self {
            request: Mutex::new(request),
            source: source.into(),
        }
    }

    /// The request, and why it could not be sent.
    pub fn into_parts(self) -> (Req, BoxError) {
        let request = self
            .request
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (request, self.source)
    }
}

impl<Req> fmt::Debug for Unsent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<Req> fmt::Display for Unsent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl<Req> StdError for Unsent<Req> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_each_text_once() {
        let error = Error::endpoint_failed(
            Endpoint::new(([10, 0, 0, 1], 80).into()),
            Unsent::new((), "connection closed").into(),
        );
        let text = "endpoint 10.0.0.1:80 failed: the request was not sent: connection closed";
        assert_eq!(chain(&error), text);
        assert_eq!(
            chain(&Suspect("connection closed".into())),
            "connection closed"
        );
    }
}
