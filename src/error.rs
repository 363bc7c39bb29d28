//! What can go wrong, and whether the request had left this process when it did.
//!
//! The rule of all texts: `{}` is one line for whoever is woken at night. It says which service and which pod, what happened, for
//! how long it was waited and by which setting, and the innermost cause. `{:#}` says all causes, each once. The cause is reached
//! by `source()` all the same, so that printers of chains say the innermost one twice, but none more often.

#[cfg(feature = "test-util")]
mod made;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use tower::BoxError;

use crate::{endpoint::Endpoint, sync::Mutex};

/// An error that several callers can be shown.
pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

/// The text of an error and of its sources, each once: some errors already have their source's text in their own.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    // The crate's own errors say all of it then, in the right order.
    with_causes(format!("{error:#}"), error.source())
}

/// The text, and what it doesn't say of these causes.
fn with_causes(mut text: String, mut next: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(source) = next {
        let words = source.to_string();
        if !says(&text, &words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// The text of an error and of its sources, each once, in one line: of each the first one, where a longer text begins.
pub(crate) fn line(error: &(dyn StdError + 'static)) -> String {
    let first = |text: &str| {
        let line = text.trim().lines().next().unwrap_or_default();
        line.trim_end_matches([':', ' ']).to_owned()
    };
    let (mut text, mut next) = (first(&format!("{error:#}")), error.source());
    while let Some(source) = next {
        let words = first(&source.to_string());
        if !says(&text, &words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// Whether a text has this cause in it, as a whole: after a colon, say, and not as a part of a pod's name.
fn says(text: &str, cause: &str) -> bool {
    const BEFORE: [&str; 4] = [": ", "; ", "(", "\n"];
    const AFTER: [&str; 7] = [": ", ":\n", ";", ",", " (", ")", "\n"];
    let is_whole = |(at, _): (usize, &str)| {
        let (before, after) = (&text[..at], &text[at + cause.len()..]);
        let begins = before.is_empty() || BEFORE.iter().any(|it| before.ends_with(it));
        begins && (after.is_empty() || AFTER.iter().any(|it| after.starts_with(it)))
    };
    cause.is_empty() || text.match_indices(cause).any(is_whole)
}

/// The text of the innermost cause, in one line. An error that has its source's text in its own is told as a whole.
pub(crate) fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !says(&text, &words) {
            text = words;
        }
        next = source.source();
    }
    let line = text.trim().lines().next().unwrap_or_default();
    line.trim_end_matches([':', ' ']).to_owned()
}

/// Writes what went wrong and why: the innermost cause in one line; all causes with `{:#}`.
pub(crate) fn tell(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    source: Option<&(dyn StdError + 'static)>,
) -> fmt::Result {
    let Some(source) = source else {
        return f.write_str(what);
    };
    if f.alternate() {
        let text = match says(what, &source.to_string()) {
            true => what.to_owned(),
            false => format!("{what}: {source:#}"),
        };
        return f.write_str(&with_causes(text, source.source()));
    }
    f.write_str(what)?;
    let why = cause(source);
    match says(what, &why) {
        true => Ok(()),
        false => write!(f, ": {why}"),
    }
}

/// What an error begins with: the service's name, if it is known.
pub(crate) fn opening(service: Option<&str>, is_unsent: bool) -> String {
    match (service, is_unsent) {
        (Some(service), true) => format!("request to {service} was not sent: "),
        (Some(service), false) => format!("request to {service}: "),
        (None, _) => String::new(),
    }
}

/// Why a balanced request failed.
///
/// Its text is one line: which [service](Self::service), which pod, what happened, and the innermost cause. `{:#}` tells all
/// causes, each once.
///
/// Opaque: ask it with the `is_*` methods. [`source`](StdError::source) leads to the cause: the endpoint service's own
/// error, the last refusal of a connection, or the failed DNS lookup.
///
/// | kind | asked by | unsent? | worth a retry? |
/// | --- | --- | --- | --- |
/// | discovery has found nothing yet, or the service has no pods | [`is_no_endpoints`](Self::is_no_endpoints) | yes | later: it was waited for; see to the service's name and its pods |
/// | all pods refuse, or fail their health checks | [`is_unreachable`](Self::is_unreachable) | yes | later: it was waited for; see to the pods |
/// | all connections to the pods are in use, or to the one that was asked for | [`is_unreachable`](Self::is_unreachable), [`is_busy`](Self::is_busy) | yes | later: it was waited for; allow more connections, or fewer requests |
/// | the one pod that was asked for refuses | [`is_unreachable`](Self::is_unreachable) | yes | later |
/// | the one pod that was asked for isn't there | [`is_unreachable`](Self::is_unreachable), [`is_absent`](Self::is_absent) | yes | later, if the name is right |
/// | a broadcast's pod has left | [`is_gone`](Self::is_gone) | yes | no: there is no such pod |
/// | a broadcast's pod hasn't answered in time | [`is_timeout`](Self::is_timeout) | [asks it](Self::is_unsent) | if it is unsent, or may be executed twice |
/// | a pod's service failed | [`is_endpoint`](Self::is_endpoint) | no | if it may be executed twice: [`RetryLayer`](crate::RetryLayer) does so |
/// | the balancer is closed | [`is_closed`](Self::is_closed) | yes | in another balancer |
/// | there is no tokio runtime | [`is_no_runtime`](Self::is_no_runtime) | yes | no: call it within one |
///
/// A failed request changes nothing in the balancer: it stays usable, and so does every clone of it.
#[derive(Debug)]
pub struct Error(
    Box<Kind>,
    /// The service's name, where it is known.
    Option<Arc<str>>,
);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("no endpoints: {why}")]
    NoEndpoints {
        why: NoEndpoints,
        source: Option<SharedError>,
    },
    #[error("{}{}", none_accepts(*endpoints), LastOf(last))]
    Unreachable {
        endpoints: usize,
        last: Option<Refusal>,
    },
    #[error("{}", all_busy(*endpoints, last))]
    Busy { endpoints: usize, last: Refusal },
    #[error("pod {} {state}", Named(pod))]
    PodUnreachable {
        pod: Box<str>,
        state: PodState,
        source: Option<SharedError>,
    },
    #[error("pod {endpoint} accepts no requests")]
    EndpointUnreachable {
        endpoint: Endpoint,
        source: Option<SharedError>,
    },
    #[error("pod {0} left the set before it got the request")]
    Gone(Endpoint),
    #[error(
        "pod {endpoint} {} within {after:?} (the broadcast's {setting})",
        if *is_unsent { "has not got the request" } else { "has not answered" },
    )]
    NoAnswer {
        endpoint: Endpoint,
        after: Duration,
        setting: &'static str,
        is_unsent: bool,
        /// Why it refused the request until then.
        source: Option<SharedError>,
    },
    #[error("pod {endpoint} failed")]
    Endpoint {
        endpoint: Endpoint,
        source: BoxError,
    },
    #[error("the balancer is closed: its last handle was dropped, or its runtime has ended")]
    Closed { source: Option<SharedError> },
    #[error("no tokio runtime: await the request in a task of one")]
    NoRuntime,
}

fn none_accepts(endpoints: usize) -> String {
    match endpoints {
        1 => "the only endpoint accepts no requests".to_owned(),
        _ => format!("none of {endpoints} endpoints accepts requests"),
    }
}

fn all_busy(endpoints: usize, last: &Refusal) -> String {
    let last = &last.endpoint;
    match endpoints {
        1 => format!("the only endpoint, {last}, is busy"),
        _ => format!("no endpoint of {endpoints} has room for it; pod {last} is busy"),
    }
}

/// What an endpoint has refused a request with, or why it is busy.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) endpoint: Endpoint,
    pub(crate) why: SharedError,
}

/// The endpoint whose refusal is the cause.
struct LastOf<'a>(&'a Option<Refusal>);

impl fmt::Display for LastOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(last) => write!(f, "; pod {} refused last", last.endpoint),
            None => Ok(()),
        }
    }
}

/// The ways to have no endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoEndpoints {
    /// Discovery has not answered yet, or its answers are not believed yet; for the ready timeout, if that was waited for.
    NotDiscovered(Option<Duration>),
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
    #[error("is busy at {}", .0.address())]
    Busy(Endpoint),
    #[error("isn't there{0}")]
    Away(Away),
    #[error("isn't there: no pod has an empty name (is a variable not set?)")]
    Nameless,
    #[error("can't be left out: no pod has an empty name (is a variable not set?)")]
    NamelessLeftOut,
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
            Self::NotDiscovered(Some(after)) => {
                return write!(
                    f,
                    "discovery has found none within {after:?} (`ready_timeout`)"
                );
            }
            Self::NotDiscovered(None) => "discovery has found none so far",
            Self::Empty => "the service has none at the moment (scaled to zero?)",
            Self::LeftOut => "there is none but the one that is left out",
        })
    }
}

impl Error {
    pub(crate) fn no_endpoints(why: NoEndpoints, source: Option<SharedError>) -> Self {
        Kind::NoEndpoints { why, source }.into()
    }

    pub(crate) fn unreachable(endpoints: usize, last: Option<Refusal>) -> Self {
        Kind::Unreachable { endpoints, last }.into()
    }

    /// Of so many endpoints none has room, and this one was the last to be waited for.
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

    /// Of an endpoint that has not answered in the time of a `setting`; `is_unsent` if it has not got the request, and perhaps
    /// why not.
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

    /// The same of a request to this service. One that knows its service keeps it.
    pub(crate) fn of_service(mut self, service: Option<&Arc<str>>) -> Self {
        self.1 = self.1.or_else(|| service.cloned());
        self
    }

    /// The same of a request that has not waited for as long as the ready timeout.
    #[cfg(feature = "http")]
    pub(crate) fn so_far(mut self) -> Self {
        if let Kind::NoEndpoints { why, .. } = &mut *self.0
            && let NoEndpoints::NotDiscovered(waited) = why
        {
            *waited = None;
        }
        self
    }

    /// The service's name, to be shared.
    #[cfg(feature = "http")]
    pub(crate) fn shared_service(&self) -> Option<&Arc<str>> {
        self.1.as_ref()
    }

    /// What went wrong and why, without the service.
    pub(crate) fn tell_kind(&self, f: &mut fmt::Formatter<'_>, opening: &str) -> fmt::Result {
        tell(f, &format!("{opening}{}", self.0), self.source())
    }

    /// The service that the request was for, as discovery or [`BalanceBuilder::name`](crate::BalanceBuilder::name) names it;
    /// none if neither does.
    pub fn service(&self) -> Option<&str> {
        self.1.as_deref()
    }

    /// The endpoint that failed and its service's own error, where [`is_endpoint`](Self::is_endpoint).
    #[cfg(feature = "http")]
    pub(crate) fn into_endpoint_failure(self) -> Result<(Endpoint, BoxError), Self> {
        let Self(kind, service) = self;
        match *kind {
            Kind::Endpoint { endpoint, source } => Ok((endpoint, source)),
            kind => Err(Self(Box::new(kind), service)),
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
                | Kind::Busy { .. }
                | Kind::PodUnreachable { .. }
                | Kind::EndpointUnreachable { .. }
        )
    }

    /// There are endpoints that accept requests, or the one that was asked for does, but all their connections were in use for
    /// as long as the request could wait: with [`Connections::pooled`](crate::Connections::pooled). The source tells how many.
    ///
    /// Such an error [is unreachable](Self::is_unreachable), too: to its caller it is the same (503, say). But nothing is wrong with
    /// the endpoints, and they get requests as before.
    pub fn is_busy(&self) -> bool {
        match &*self.0 {
            Kind::Busy { .. } => true,
            Kind::PodUnreachable { state, .. } => matches!(state, PodState::Busy(_)),
            _ => false,
        }
    }

    /// The one [pod](crate::Balance::pod) that was asked for isn't in the set, or can't be told apart from others. The error's
    /// text says where it was last and which pods there are. An empty name is of no pod, and nothing is waited for.
    pub fn is_absent(&self) -> bool {
        self.absent_or_refusing()
            .is_some_and(|(_, state)| !matches!(state, PodState::Refuses(_) | PodState::Busy(_)))
    }

    /// The one [pod](crate::Balance::pod) that was asked for, where it [is absent](Self::is_absent), [is busy](Self::is_busy) or accepts no
    /// requests.
    pub fn pod(&self) -> Option<&str> {
        self.absent_or_refusing().map(|(pod, _)| pod)
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

    /// The balancer's background task has ended, and nothing that requests wait for will come: the last handle was dropped, the
    /// source has panicked, or the runtime has ended before discovery had answered. Build another balancer, or, after a
    /// runtime's end, call this one again in a runtime that goes on.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Kind::Closed { .. })
    }

    /// The balancer was called, or its response awaited, outside of a tokio runtime. Do so in a task of one.
    pub fn is_no_runtime(&self) -> bool {
        matches!(*self.0, Kind::NoRuntime)
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

/// An endpoint's service has had no room for a request for so long. It is no refusal: polled again, the service keeps its
/// place in the line.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Busy {
    pub(crate) why: SharedError,
    pub(crate) waited: Duration,
}

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
        (self.request.into_inner(), self.source)
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
        let text = "pod 10.0.0.1:80 failed: the request was not sent: connection closed";
        assert_eq!(chain(&error), text);
        assert_eq!(
            chain(&Suspect("connection closed".into())),
            "connection closed"
        );
    }

    #[test]
    fn a_cause_is_told_though_a_name_has_its_words() {
        let pod = Endpoint::new(([10, 0, 0, 1], 80).into()).with_hostname("reset-0");
        let error = |why: &str| {
            let error = Error::endpoint_failed(pod.clone(), why.into());
            error.of_service(Some(&"timeout.default".into()))
        };
        for why in ["timeout", "reset", "pod", "10.0.0.1"] {
            let error = error(why);
            for text in [error.to_string(), format!("{error:#}"), chain(&error)] {
                assert!(text.ends_with(&format!(" failed: {why}")), "{text}");
            }
        }
    }

    #[test]
    fn a_cause_that_a_text_has_as_a_whole_is_not_told_again() {
        for text in [
            "reset",
            "read: reset",
            "read: reset: late",
            "read (reset)",
            "reset (by it)",
        ] {
            assert!(says(text, "reset"), "{text}");
        }
        for text in ["resets", "read: reset-0", "to reset: no", "read: a reset"] {
            assert!(!says(text, "reset"), "{text}");
        }
    }
}
