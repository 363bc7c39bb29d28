//! What can go wrong with a balanced request, and its words.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use tower::BoxError;

use crate::endpoint::Endpoint;

#[derive(Debug, thiserror::Error)]
pub(super) enum Kind {
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

/// An error that several callers can share.
pub(crate) type SharedError = Arc<dyn StdError + Send + Sync>;

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
    /// What to do, as the pod was asked for in this way; may be empty.
    advice: &'static str,
}

/// How many names an error's text has.
const NAMED: usize = 4;

impl Away {
    pub(crate) fn new(
        endpoints: &[Endpoint],
        last: Option<(Endpoint, Duration)>,
        advice: &'static str,
    ) -> Self {
        let names = endpoints.iter().filter_map(Endpoint::name);
        Self {
            endpoints: endpoints.len(),
            names: names.take(NAMED).map(Into::into).collect(),
            last,
            advice,
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
            ([], 0) => return f.write_str("; there are no endpoints"),
            ([], _) => write!(f, "; of {others} endpoints no name is known")?,
            (names, 0) => write!(f, "; there are {}", names.join(", "))?,
            (names, _) => write!(f, "; there are {} and {others} more", names.join(", "))?,
        }
        f.write_str(self.advice)
    }
}
