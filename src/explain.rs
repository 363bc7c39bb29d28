//! Why requests go where they go, and what is wrong with the endpoints that get none: plain data that a balancer makes
//! of itself.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `explain/balancers.rs` | all balancers of a process, by name |
//! | `explain/event.rs` | events: what happened to a balancer's endpoints and to its source |
//! | `explain/key.rs` | which endpoint has a key |
//! | `explain/table.rs` | an explanation as text for a terminal |
//! | `explain/absent.rs` | feature `serde`: defaults for fields that an older version didn't write |

#[cfg(feature = "serde")]
mod absent;
mod balancers;
mod event;
mod key;
mod table;

pub(crate) use balancers::Explains;
pub use balancers::{Balancers, Explainer};
pub use event::{Event, EventKind};
pub use key::{KeyChoice, KeyExplanation};
pub(crate) use table::short;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

#[cfg(feature = "serde")]
use crate::times;
use crate::{
    counters::{BalanceCounts, EndpointCounts},
    endpoint::Endpoint,
    member::EjectionReason,
};

/// A balancer's state at one moment: [`Balance::explain`](crate::Balance::explain).
///
/// Its `Display` is a table for a terminal of 80 columns. With the feature `serde` it can be written and read as JSON and the
/// like. The names of fields stay as they are. Times are numbers, and their names end in the unit: `…_unix_ms` for a
/// moment, `…_seconds` for a duration.
///
/// Fields that need a memory, such as since when an endpoint is out or whether there is a panic, are set only if the
/// balancer [counts](crate::BalanceBuilder::counters).
///
/// JSON of an older version can be read: fields that it doesn't have are `None`, zero or empty.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The service's name, if known.
    pub service: Option<String>,
    /// The moment that this describes.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms"))]
    #[cfg_attr(feature = "serde", serde(with = "times::unix_ms"))]
    pub at: SystemTime,
    /// What is wrong now, in sentences, the worst first. Empty if nothing is wrong.
    #[cfg_attr(feature = "serde", serde(default))]
    pub trouble: Vec<String>,
    /// Where the endpoints come from.
    pub discovery: DiscoveryExplanation,
    /// Which endpoint gets the next request.
    pub policy: PolicyExplanation,
    /// How many endpoints there are, in the balancer's subset if it has one.
    pub size: usize,
    /// How many of them can get the next request: those whose verdict [is picked](Verdict::is_picked), and the far ones if
    /// the near ones don't take all.
    #[cfg_attr(feature = "serde", serde(default))]
    pub available: usize,
    /// Whether too few endpoints are healthy, so that ejections are ignored ([panic
    /// threshold](crate::OutlierDetection::panic_threshold)). Also `false` if the balancer doesn't count.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_panic: bool,
    /// For how long no endpoint has accepted any request. `None` while one might accept requests, even if none has been
    /// sent to it yet.
    #[cfg_attr(feature = "serde", serde(rename = "outage_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub outage: Option<Duration>,
    /// The counts since the balancer was built.
    pub totals: Option<BalanceCounts>,
    /// The endpoints, in the order of their addresses.
    pub endpoints: Vec<EndpointExplanation>,
    /// The events of the last hour, the oldest first; at most the last 256.
    #[cfg_attr(feature = "serde", serde(default))]
    pub events: Vec<Event>,
}

/// Where the endpoints come from, and whether that works.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DiscoveryExplanation {
    /// The kind of source, such as `dns`; `None` if not known yet.
    pub kind: Option<String>,
    /// Whether the second source of a [`Fallback`](crate::Fallback) is in use, because the first can't be asked. Also
    /// `false` if the balancer doesn't count.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_fallback: bool,
    /// The full name under which the source found the set.
    pub name: Option<String>,
    /// The name server or API server that answered last, or is being asked.
    pub server: Option<String>,
    /// What the source does now, if it tells: an EndpointSlices source `lists`, `watches`, or `waits` to try again.
    pub activity: Option<String>,
    /// The last answer's own TTL.
    #[cfg_attr(feature = "serde", serde(rename = "ttl_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub ttl: Option<Duration>,
    /// How old the set is ([`Balance::staleness`](crate::Balance::staleness)); `None` before the first answer.
    #[cfg_attr(feature = "serde", serde(rename = "staleness_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub staleness: Option<Duration>,
    /// Whether the last lookup failed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_failing: bool,
    /// The last failure, and when it was. It stays here after the source has answered again.
    pub last_error: Option<LastError>,
    /// When the current set was last confirmed.
    #[cfg_attr(feature = "serde", serde(rename = "last_answer_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub last_answer: Option<SystemTime>,
    /// When the source next looks up its endpoints.
    #[cfg_attr(feature = "serde", serde(rename = "next_refresh_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub next_refresh: Option<SystemTime>,
    /// When an endpoint last joined or left.
    #[cfg_attr(feature = "serde", serde(rename = "last_change_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub last_change: Option<SystemTime>,
}

/// Which endpoint gets the next request.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PolicyExplanation {
    /// The policy's name, as [`BuiltInPolicy`](crate::BuiltInPolicy) has it; `custom` for one of your own.
    pub name: String,
    /// Whether the policy looks at how many requests the endpoints have.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_load_aware: bool,
    /// Whether near endpoints come first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_near_first: bool,
}

/// One endpoint, and why it gets requests or doesn't.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EndpointExplanation {
    /// The pod's hostname or its own name, if known.
    pub name: Option<String>,
    /// Its address.
    pub address: SocketAddr,
    /// Its zone, if known.
    pub zone: Option<String>,
    /// Its node, if known.
    pub node: Option<String>,
    /// Its weight. If zero, it gets requests that ask for it, and others only if no endpoint with a weight accepts any.
    #[cfg_attr(feature = "serde", serde(default = "absent::one"))]
    pub weight: u32,
    /// Whether the pod is terminating.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_terminating: bool,
    /// Whether it is in the balancer's [`Subset`](crate::Subset). `true` if there is no subset.
    #[cfg_attr(feature = "serde", serde(default = "absent::yes"))]
    pub is_in_subset: bool,
    /// Whether it comes first because it is near; `None` if the balancer doesn't prefer near endpoints.
    pub is_near: Option<bool>,
    /// Whether a request would get it now.
    pub verdict: Verdict,
    /// Why it is ejected, or would be if too many others weren't out already.
    pub reason: Option<EjectionReason>,
    /// Why a request would or wouldn't get it, in a sentence.
    #[cfg_attr(feature = "serde", serde(default))]
    pub why: String,
    /// Since when that is so.
    #[cfg_attr(feature = "serde", serde(rename = "since_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub since: Option<SystemTime>,
    /// When it joined the set.
    #[cfg_attr(feature = "serde", serde(rename = "joined_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub joined: Option<SystemTime>,
    /// The time until it is tried again, if it is out.
    #[cfg_attr(feature = "serde", serde(rename = "next_trial_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub next_trial: Option<Duration>,
    /// Its requests in flight, counted to the ends of their responses.
    #[cfg_attr(feature = "serde", serde(default))]
    pub in_flight: u32,
    /// How many of the requests in flight have no answer yet.
    #[cfg_attr(feature = "serde", serde(default))]
    pub waiting: u32,
    /// Its load, as policies see it: requests in flight, and for a while those that failed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub load: u32,
    /// Its share of the next requests, from 0 to 1, as things are now; `None` if the policy can't tell.
    ///
    /// Under a policy that looks at loads, it is the probability that the very next request goes there. Under a policy
    /// that goes by keys, it is the part of all keys that the endpoint has now. That takes too long to compute with
    /// more than about 2,000 endpoints while something is wrong with one of them: then it is `None`.
    pub share: Option<f64>,
    /// Its share of all keys while nothing is wrong with any endpoint, from 0 to 1, under
    /// [`ConsistentHash`](crate::ConsistentHash).
    pub key_share: Option<f64>,
    /// The number of ranges of those keys.
    pub key_ranges: Option<usize>,
    /// The part of its share that it gets in its slow start, from 0 to 1; 1 after that.
    #[cfg_attr(feature = "serde", serde(default = "absent::whole"))]
    pub slow_start: f64,
    /// The policy's average of its latency, to the start of the answer; `None` if the policy doesn't look at latency.
    #[cfg_attr(feature = "serde", serde(rename = "average_latency_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub average_latency: Option<Duration>,
    /// Median latency of its successes since it joined, to the start of the answer.
    #[cfg_attr(feature = "serde", serde(rename = "p50_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p50: Option<Duration>,
    /// 95th percentile of the latency of its successes since it joined.
    #[cfg_attr(feature = "serde", serde(rename = "p95_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p95: Option<Duration>,
    /// 99th percentile of the latency of its successes since it joined.
    #[cfg_attr(feature = "serde", serde(rename = "p99_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p99: Option<Duration>,
    /// The counts since it joined.
    pub counts: Option<EndpointCounts>,
    /// Its last failure, and when it was.
    pub last_error: Option<LastError>,
    /// Tells it from earlier and later endpoints of the balancer with the same address.
    #[cfg_attr(feature = "serde", serde(skip))]
    #[cfg_attr(
        not(any(feature = "metrics", feature = "otel")),
        expect(dead_code, reason = "only metrics ask")
    )]
    pub(crate) life: u64,
}

impl EndpointExplanation {
    /// Only what `endpoint` itself says; the balancer fills in the rest.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.name().map(str::to_owned),
            address: endpoint.address(),
            zone: endpoint.zone().map(str::to_owned),
            node: endpoint.node().map(str::to_owned),
            weight: endpoint.weight(),
            is_terminating: endpoint.is_terminating(),
            is_in_subset: true,
            is_near: None,
            verdict: Verdict::Picked,
            reason: None,
            why: String::new(),
            since: None,
            joined: None,
            next_trial: None,
            in_flight: 0,
            waiting: 0,
            load: 0,
            share: None,
            key_share: None,
            key_ranges: None,
            slow_start: 1.0,
            average_latency: None,
            p50: None,
            p95: None,
            p99: None,
            counts: None,
            last_error: None,
            life: 0,
        }
    }

    /// The name and the address, or the address alone: as [`Endpoint`](crate::Endpoint) shows itself.
    pub fn label(&self) -> String {
        label(self.name.as_deref(), self.address)
    }
}

fn label(name: Option<&str>, address: SocketAddr) -> String {
    match name {
        Some(name) => format!("{name} ({address})"),
        None => address.to_string(),
    }
}

/// An error, and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LastError {
    /// Its text, with its causes.
    pub text: String,
    /// When it was.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms"))]
    #[cfg_attr(feature = "serde", serde(with = "times::unix_ms"))]
    pub at: SystemTime,
}

impl LastError {
    pub(crate) fn new(text: impl Into<String>, at: SystemTime) -> Self {
        let text = text.into();
        Self { text, at }
    }
}

/// Whether an ordinary request, one that asks for no pod, would get an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Verdict {
    /// Yes: the policy may choose it.
    Picked,
    /// Yes, though the endpoint should be ejected: too many others are out.
    Panic,
    /// Yes, as the one trial request to an endpoint that is out.
    Trial,
    /// Yes, because no other endpoint is left.
    LastResort,
    /// No, as long as the near endpoints can take it.
    Far,
    /// No: this endpoint gets only requests that ask for it.
    OnlyByName,
    /// No: the endpoint's checks fail.
    CheckFails,
    /// No: the endpoint is new, and hasn't passed a check or isn't connected yet.
    Pending,
    /// No: the endpoint is ejected.
    Ejected,
    /// No: the endpoint refuses requests, or can't be reached.
    Unreachable,
}

impl Verdict {
    /// Whether an ordinary request would get the endpoint.
    pub fn is_picked(self) -> bool {
        matches!(
            self,
            Self::Picked | Self::Panic | Self::Trial | Self::LastResort
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Picked => "picked",
            Self::Panic => "picked (panic)",
            Self::Trial => "tried next",
            Self::LastResort => "last resort",
            Self::Far => "far",
            Self::OnlyByName => "only by name",
            Self::CheckFails => "check fails",
            Self::Pending => "pending",
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
        })
    }
}
