//! [`Error`]: why a request failed, and whether it had left this process by then.
//!
//! The rule for all texts: `{}` is one line for an engineer who is woken at night. It names the service, the pod, what
//! happened, how long the request waited and by which setting, and the innermost cause. `{:#}` names all causes, each
//! once. `source()` leads to the cause as well. So code that prints the whole chain prints the innermost cause twice,
//! and no other more than once.

#[cfg(feature = "test-util")]
mod made;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use tower::BoxError;

use crate::{endpoint::Endpoint, sync::Mutex};

/// An error that several callers can share.
pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

/// The text of an error and of its sources, each once: some errors already have their source's text in their own.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    // With `{:#}` the crate's own errors name all their causes, in the right order.
    with_causes(format!("{error:#}"), error.source())
}

/// The text, plus those of the causes that it doesn't contain.
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

/// The text of an error and of its sources, each once, in one line: of each text only the first line.
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

/// Whether the text contains this cause as a whole: after a colon, for example, and not as part of a pod's name.
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

/// The text of the innermost cause, in one line. An error whose own text contains its source's is taken whole.
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

/// Writes what went wrong and why: with the innermost cause, in one line; with `{:#}`, all causes.
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

/// The beginning of an error's text, with the service's name if known.
pub(crate) fn opening(service: Option<&str>, is_unsent: bool) -> String {
    match (service, is_unsent) {
        (Some(service), true) => format!("request to {service} was not sent: "),
        (Some(service), false) => format!("request to {service}: "),
        (None, _) => String::new(),
    }
}

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
        /// Why it refused the request until then, if it did.
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

/// Why an endpoint refused a request, or is busy.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) endpoint: Endpoint,
    pub(crate) why: SharedError,
}

/// Displays the endpoint whose refusal is the cause.
struct LastOf<'a>(&'a Option<Refusal>);

impl fmt::Display for LastOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(last) => write!(f, "; pod {} refused last", last.endpoint),
            None => Ok(()),
        }
    }
}

/// Why there are no endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoEndpoints {
    /// Discovery has not answered yet, or its answers are not believed yet. Holds the ready timeout if the request has
    /// waited for it.
    NotDiscovered(Option<Duration>),
    /// Discovery says that there are none.
    Empty,
    /// The only endpoint is left out.
    LeftOut,
}

/// The state of a requested pod that doesn't get its request.
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

/// Displays the requested pod. An empty name shows as `""`.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { self.0 })
    }
}

/// What the set has while a pod is away.
#[derive(Debug)]
pub(crate) struct Away {
    endpoints: usize,
    /// Some of their names.
    names: Vec<Box<str>>,
    /// Where the pod was last, and how long ago it left.
    last: Option<(Endpoint, Duration)>,
}

/// How many names an error's text has.
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

/// There is no runtime that an endpoint's service could go on in. It says nothing about the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("no tokio runtime: await the response in a task of one")]
pub(crate) struct NoRuntime;

/// Marks a failure after which the endpoint is passed over, like one that refuses, until it has answered a trial
/// request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Suspect(pub(crate) BoxError);

/// Marks a request that the endpoint refused without processing it: it is overloaded, or takes no requests at all.
///
/// The endpoint accepted the connection, but refuses requests on it (HTTP/2's `REFUSED_STREAM`).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refused(pub(crate) BoxError);

/// An endpoint's service has had no room for a request for this time. It is not a refusal: if it is polled again, the
/// request keeps its place in the queue.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Busy {
    pub(crate) why: SharedError,
    pub(crate) waited: Duration,
}

/// The endpoint service's own error, without the mark that tells the balancer what it means.
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

/// The error with which an endpoint's service hands back a request that it has *not* sent.
///
/// If a service fails before it writes the first byte of a request (for example, because the connection turned out to
/// be closed), it can return this error, alone or boxed. The balancer then takes the request to another endpoint, and
/// the caller doesn't notice. Any service can do so; the request needs no `Clone`.
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
    // The `Mutex` makes the error `Sync`, as `BoxError` requires, even if the request isn't. It is never locked.
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
    fn a_chain_prints_each_cause_once() {
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
    fn a_cause_is_printed_even_if_a_name_contains_its_words() {
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
    fn a_cause_that_the_text_contains_as_a_whole_is_not_repeated() {
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
