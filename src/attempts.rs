//! What came of one request, attempt by attempt: plain data, and how a request that is asked to writes it.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `attempts/log.rs` | where a request's attempts are written, and who writes there |
//! | `attempts/text.rs` | all of it as text for a terminal |

mod log;
mod text;

pub use log::AttemptLog;
pub(crate) use log::{Cause, Recording};

use std::{net::SocketAddr, slice, time::Duration};

#[cfg(feature = "serde")]
use crate::times;

/// What came of one request, attempt by attempt, in the order in which they began.
///
/// A pod that refuses a request before it has it is an attempt here, too. Nothing is kept unless it is asked for:
///
/// | of | asked for by | found in |
/// | --- | --- | --- |
/// | an HTTP request | [`RequestBuilder::attempts`](crate::http::RequestBuilder::attempts) | [`Response::attempts`](crate::http::Response::attempts), [`Error::attempts`](crate::http::Error::attempts), the response's extensions |
/// | all of a client's | [`ClientBuilder::request_attempts`](crate::http::ClientBuilder::request_attempts) | the same |
/// | a request of any protocol | [`Route::record`](crate::Route::record) | the [`AttemptLog`] |
///
/// Its `Display` is a few lines of up to 80 columns. With the feature `serde` it can be written and read as JSON and the like; the
/// fields' names stay.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Attempts {
    /// The policy's name, as [`BuiltInPolicy`](crate::BuiltInPolicy) has it; `custom` for one of your own. None before the first
    /// attempt.
    pub policy: Option<String>,
    /// Another attempt was wanted, and the retry budget was spent.
    pub is_budget_spent: bool,
    /// How many more attempts there were than are listed: the first hundred are.
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
    /// The pod's hostname or its own name, where it is known.
    pub name: Option<String>,
    /// The pod's address. None if no pod was found for the attempt.
    pub address: Option<SocketAddr>,
    /// Why there was this attempt.
    pub cause: AttemptCause,
    /// Why it went to this pod. None if no pod was found for it.
    pub why: Option<PickReason>,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// When it began, counted from when the request did.
    #[cfg_attr(feature = "serde", serde(rename = "began_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub began: Duration,
    /// How long it took, from its beginning to its [outcome](Self::outcome), with all waits. A response's body isn't waited for.
    #[cfg_attr(feature = "serde", serde(rename = "took_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub took: Duration,
    /// How long it waited before the pod had it.
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
    /// The pod of the attempt before didn't take the request: it refused it unsent, was busy, or left.
    NotTaken,
    /// A retry: the answer before was one to be asked for again, as 503 is.
    RetryAnswered,
    /// A retry: the request was lost.
    RetryLost,
    /// A retry: the pod before said that it hadn't processed the request.
    RetryUnprocessed,
    /// A retry: no pod had taken the request.
    RetryUnsent,
    /// A [hedge](crate::Hedge): the answer of the attempt before was late.
    Hedge,
    /// A further request in the same log: one that a layer has made, as for a redirect.
    Another,
}

/// Why an attempt went to its pod, as it could be told just after the pick. The first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PickReason {
    /// Each endpoint gets this request: it is a [broadcast](crate::Broadcast).
    Broadcast,
    /// This pod was asked for: [`Route::pod`](crate::Route::pod).
    Requested,
    /// It gets one request on trial, for it was ejected or refused.
    Trial,
    /// It is preferred, as the pod of a session is: [`Route::prefer`](crate::Route::prefer).
    Preferred,
    /// The request avoids it, as it has failed there, but no other pod was left.
    Avoided,
    /// It is ejected, but no better pod was left.
    LastResort,
    /// The request's key leads to it.
    Key,
    /// The key's own pod is out, or has too much to do; this one is the key's next.
    NextForKey,
    /// It is the only pod that gets requests.
    Only,
    /// It was chosen among those where the request hasn't been: of two at random, the one with fewer requests.
    Elsewhere,
    /// Too few pods are healthy, so that ejected ones get requests, too. Known only where the balancer
    /// [counts](crate::BalanceBuilder::counters).
    Panic,
    /// The policy chose it among the near ones.
    Near,
    /// The policy chose it among the far ones: the near ones have too little room.
    Far,
    /// The policy chose it.
    Policy,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", tag = "kind"))]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// Nothing yet: it is under way.
    UnderWay,
    /// The pod has answered.
    Answered {
        /// HTTP's status, where it is HTTP.
        status: Option<u16>,
    },
    /// The pod refused it before it had it: it couldn't be connected to, or handed it back unsent.
    Refused {
        /// Why, in one line.
        error: String,
    },
    /// The pod had no room for it.
    Busy {
        /// Why, in one line.
        error: String,
    },
    /// The pod left the set before it was ready for it.
    Left,
    /// The pod said that it hasn't processed it.
    Unprocessed {
        /// Why, in one line.
        error: String,
    },
    /// The pod had it, and failed. It may have been executed.
    Lost {
        /// Why, in one line.
        error: String,
    },
    /// No pod had it: its wait was over, or there was nothing to wait for.
    Unsent {
        /// Why, in one line.
        error: String,
    },
    /// Cancelled: the result of another attempt is its caller's.
    Overtaken,
    /// Cancelled: the request's time was up, or that of a hedge which went on alone.
    TimedOut,
    /// Cancelled by its caller, or by a layer.
    Cancelled,
}

/// How long an attempt waited before a pod had it, by what for.
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
    /// For the one pod that was asked for, which was away or refused.
    #[cfg_attr(feature = "serde", serde(rename = "pod_seconds"))]
    #[cfg_attr(feature = "serde", serde(with = "times::seconds"))]
    pub pod: Duration,
}
