//! The attempts of one request and their outcomes: plain data, and the log that a request writes it to.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `attempts/log.rs` | the log of a request's attempts, and its writer |
//! | `attempts/text.rs` | attempts as text for a terminal |

mod log;
mod text;

pub use log::AttemptLog;
pub(crate) use log::{RecordedTry, Recording};

use std::{net::SocketAddr, slice, time::Duration};

#[cfg(feature = "serde")]
use crate::times;

/// The attempts of one request, with their outcomes, in the order in which they began.
///
/// A pod that refuses a request before it gets it counts as an attempt, too. Nothing is kept unless you ask for it:
///
/// | attempts of | ask with | find them in |
/// | --- | --- | --- |
/// | an HTTP request | [`RequestBuilder::attempts`](crate::http::RequestBuilder::attempts) | [`Response::attempts`](crate::http::Response::attempts), [`Error::attempts`](crate::http::Error::attempts), the response's extensions |
/// | all requests of a client | [`ClientBuilder::request_attempts`](crate::http::ClientBuilder::request_attempts) | the same |
/// | a request of any protocol | [`Route::record`](crate::Route::record) | the [`AttemptLog`] |
///
/// Its `Display` is a few lines of up to 80 columns. With the feature `serde` it can be written and read as JSON and the like; the
/// fields' names stay.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Attempts {
    /// The policy's name, as [`BuiltInPolicy`](crate::BuiltInPolicy) has it; `custom` for one of your own. `None`
    /// before the first attempt.
    pub policy: Option<String>,
    /// Whether another attempt was wanted, but the retry budget was spent.
    pub is_budget_spent: bool,
    /// How many attempts are not listed: only the first hundred are.
    #[cfg_attr(feature = "serde", serde(default))]
    pub omitted: u64,
    /// The attempts.
    pub list: Vec<Attempt>,
}

impl Attempts {
    /// The attempts, in the order in which they began.
    pub fn iter(&self) -> slice::Iter<'_, Attempt> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Attempts {
    type Item = &'a Attempt;
    type IntoIter = slice::Iter<'a, Attempt>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One attempt: where the request went, why there, and what came of it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Attempt {
    /// The pod's hostname or its own name, if known.
    pub name: Option<String>,
    /// The pod's address. `None` if no pod was found for the attempt.
    pub address: Option<SocketAddr>,
    /// Why there was this attempt.
    pub cause: AttemptCause,
    /// Why it went to this pod. `None` if no pod was found for it.
    pub why: Option<PickReason>,
    /// Its outcome.
    pub outcome: AttemptOutcome,
    /// When it began, counted from the request's beginning.
    #[cfg_attr(feature = "serde", serde(rename = "began_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub began: Duration,
    /// How long it took, from its beginning to its [outcome](Self::outcome), waits included. The response's body is not
    /// included.
    #[cfg_attr(feature = "serde", serde(rename = "took_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub took: Duration,
    /// How long it waited before the pod got it.
    pub waits: AttemptWaits,
}

/// Why there was an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AttemptCause {
    /// It is the request's first.
    First,
    /// The pod of the attempt before didn't take the request: it refused, was busy, or left.
    NotTaken,
    /// A retry: the previous answer was one that is retried, such as a 503.
    RetryAnswered,
    /// A retry: the request was lost.
    RetryLost,
    /// A retry: the previous pod said that it hadn't processed the request.
    RetryUnprocessed,
    /// A retry: no pod had taken the request.
    RetryUnsent,
    /// A [hedge](crate::Hedge): the attempt before was late.
    Hedge,
    /// Another request in the same log, made by a layer, for example for a redirect.
    Another,
}

/// Why an attempt went to its pod, as known just after the pick. If several apply, it is the first of them in this
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PickReason {
    /// The request is part of a [broadcast](crate::Broadcast), which goes to each endpoint.
    Broadcast,
    /// The request asked for this pod: [`Route::pod`](crate::Route::pod).
    Requested,
    /// The pod gets one request on trial, because it was ejected or refused.
    Trial,
    /// The request prefers this pod, for example as the pod of its session: [`Route::prefer`](crate::Route::prefer).
    Preferred,
    /// The request avoids this pod because it failed there, but no other pod was left.
    Avoided,
    /// The pod is ejected, but no better pod was left.
    LastResort,
    /// It is the pod of the request's key.
    Key,
    /// The key's own pod is out or too busy. This pod is the key's next.
    NextForKey,
    /// It is the only pod that gets requests.
    Only,
    /// It was chosen among the pods that the request hasn't been to: of two random ones, the one with fewer requests.
    Elsewhere,
    /// Too few pods are healthy, so ejected ones get requests, too. Known only if the balancer
    /// [counts](crate::BalanceBuilder::counters).
    Panic,
    /// The policy chose it among the near ones.
    Near,
    /// The policy chose it among the far ones, because the near ones have too little room.
    Far,
    /// The policy chose it.
    Policy,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", tag = "kind"))]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// Nothing yet: it is under way.
    UnderWay,
    /// The pod has answered.
    Answered {
        /// The HTTP status; `None` if the protocol isn't HTTP.
        status: Option<u16>,
    },
    /// The pod refused the request before it got it: it couldn't be connected to, or handed the request back unsent.
    Refused {
        /// Why, in one line.
        error: String,
    },
    /// The pod had no room for the request.
    Busy {
        /// Why, in one line.
        error: String,
    },
    /// The pod left the set before it was ready for the request.
    Left,
    /// The pod said that it hadn't processed the request.
    Unprocessed {
        /// Why, in one line.
        error: String,
    },
    /// The pod got the request, and failed. It may have executed the request.
    Lost {
        /// Why, in one line.
        error: String,
    },
    /// No pod got the request: its wait ran out, or there was nothing to wait for.
    Unsent {
        /// Why, in one line.
        error: String,
    },
    /// Cancelled, because the caller got another attempt's result.
    Overtaken,
    /// Cancelled, because the request timed out, or a hedge that went on alone did.
    TimedOut,
    /// Cancelled by its caller, or by a layer.
    Cancelled,
}

/// How long an attempt waited before a pod got it, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AttemptWaits {
    /// For discovery's first answer.
    #[cfg_attr(feature = "serde", serde(rename = "discovery_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub discovery: Duration,
    /// For any pod to accept requests.
    #[cfg_attr(feature = "serde", serde(rename = "unreachable_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub unreachable: Duration,
    /// For the pod's connection, and for room there.
    #[cfg_attr(feature = "serde", serde(rename = "connection_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub connection: Duration,
    /// For the requested pod, which was away or refused.
    #[cfg_attr(feature = "serde", serde(rename = "pod_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub pod: Duration,
}
