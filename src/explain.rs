//! Why requests go where they go, and what is wrong with the endpoints that get none: plain data, made by a balancer.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `explain/balancers.rs` | all balancers of a process, by name |
//! | `explain/event.rs` | what has happened to a balancer's endpoints and to its source |
//! | `explain/key.rs` | which endpoint has a key |
//! | `explain/table.rs` | all of it as text for a terminal |
//! | `explain/absent.rs` | feature `serde`: what is read where an older version has written nothing |

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

/// What a balancer knows of itself at one time: [`Balance::explain`](crate::Balance::explain).
///
/// Its `Display` is a table for a terminal of 80 columns. With the feature `serde` it can be written and read as JSON and the
/// like. The fields' names stay; times are numbers whose names end in their units: `…_unix_ms` for a moment, `…_seconds` for how
/// long.
///
/// What needs a memory, such as since when an endpoint is out, or whether there is a panic, is there only where the balancer
/// [counts](crate::BalanceBuilder::counters).
///
/// JSON of an older version can be read: what it doesn't have is none, zero or empty.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The service's name, where it is known.
    pub service: Option<String>,
    /// When this was true.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms"))]
    #[cfg_attr(feature = "serde", serde(with = "times::unix_ms"))]
    pub at: SystemTime,
    /// What is wrong now, a sentence each, the worst first. Empty if nothing is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub trouble: Vec<String>,
    /// Where the endpoints come from.
    pub discovery: DiscoveryExplanation,
    /// Which endpoint gets the next request.
    pub policy: PolicyExplanation,
    /// How many endpoints there are, in the balancer's subset if it has one.
    pub size: usize,
    /// How many of them get requests.
    #[cfg_attr(feature = "serde", serde(default))]
    pub available: usize,
    /// Too few endpoints are healthy, so that ejections are ignored
    /// ([panic threshold](crate::OutlierDetection::panic_threshold)). False as well where the balancer doesn't count.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_panic: bool,
    /// For how long no endpoint has accepted any request, if that is so. None while one could, even if no request has come to it
    /// yet.
    #[cfg_attr(feature = "serde", serde(rename = "outage_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub outage: Option<Duration>,
    /// What was counted since the balancer was built.
    pub totals: Option<BalanceCounts>,
    /// The endpoints, in the order of their addresses.
    pub endpoints: Vec<EndpointExplanation>,
    /// What has happened in the last hour, the oldest first; the last 256 of it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub events: Vec<Event>,
}

/// Where the endpoints come from, and how that goes.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DiscoveryExplanation {
    /// What kind of source it is, such as `dns`; none where that isn't known yet.
    pub kind: Option<String>,
    /// It is the second source of a [`Fallback`](crate::Fallback), whose first one can't be asked. False as well where
    /// the balancer doesn't count.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_fallback: bool,
    /// The full name that has answered, or what else the source found the set under.
    pub name: Option<String>,
    /// Who has answered last, or who is asked: a name server, an API server.
    pub server: Option<String>,
    /// What the source does now, where it tells: an EndpointSlices source `lists`, `watches`, or `waits` to try again.
    pub activity: Option<String>,
    /// How long the last answer holds, as it says itself.
    #[cfg_attr(feature = "serde", serde(rename = "ttl_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub ttl: Option<Duration>,
    /// How old the set is ([`Balance::staleness`](crate::Balance::staleness)); none before the first answer.
    #[cfg_attr(feature = "serde", serde(rename = "staleness_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub staleness: Option<Duration>,
    /// When the set was true that is in use.
    #[cfg_attr(feature = "serde", serde(rename = "last_answer_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub last_answer: Option<SystemTime>,
    /// When the source looks next.
    #[cfg_attr(feature = "serde", serde(rename = "next_look_unix_ms", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_unix_ms"))]
    pub next_look: Option<SystemTime>,
    /// Whether the last look failed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_failing: bool,
    /// What failed last, and when. It stays after the source has answered again.
    pub last_error: Option<LastError>,
    /// When an endpoint joined or left the last time.
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
    /// Whether it looks at how many requests the endpoints have.
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
    /// The pod's hostname or its own name, where it is known.
    pub name: Option<String>,
    /// Its address.
    pub address: SocketAddr,
    /// Its zone, where it is known.
    pub zone: Option<String>,
    /// Its node, where it is known.
    pub node: Option<String>,
    /// Its weight. Zero: it gets only requests that are for it.
    #[cfg_attr(feature = "serde", serde(default = "absent::one"))]
    pub weight: u32,
    /// It is about to end.
    #[cfg_attr(feature = "serde", serde(default))]
    pub is_terminating: bool,
    /// It is one of the balancer's [`Subset`](crate::Subset), or there is none.
    #[cfg_attr(feature = "serde", serde(default = "absent::yes"))]
    pub is_in_subset: bool,
    /// Whether it comes first for being near; none where that makes no difference.
    pub is_near: Option<bool>,
    /// Whether a request would get it now.
    pub verdict: Verdict,
    /// Why it is ejected, or would be if not too many others were out.
    pub reason: Option<EjectionReason>,
    /// Why a request would get it or wouldn't, in a sentence.
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
    /// In how long it is tried again, if it is out.
    #[cfg_attr(feature = "serde", serde(rename = "next_trial_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub next_trial: Option<Duration>,
    /// Its requests, up to the ends of their responses.
    #[cfg_attr(feature = "serde", serde(default))]
    pub in_flight: u32,
    /// Those of them that have no answer yet.
    #[cfg_attr(feature = "serde", serde(default))]
    pub waiting: u32,
    /// Its load, as policies see it: what is in flight, and for a while what has failed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub load: u32,
    /// What part of the next requests it gets, from 0 to 1, as things are now; none where the policy can't tell.
    ///
    /// Under a policy that looks at loads, it is how likely the very next request goes there. Under one that goes by keys, it
    /// is the part of all keys that the endpoint has now. It is none there where something is wrong with one of more than about 2,000
    /// endpoints, as it would take too long to tell.
    pub share: Option<f64>,
    /// What part of all keys is at home here, from 0 to 1, under [`ConsistentHash`](crate::ConsistentHash): those that the endpoint
    /// has while nothing is wrong with any.
    pub key_share: Option<f64>,
    /// In how many ranges those keys are.
    pub key_ranges: Option<usize>,
    /// What part of its share it gets for being new, from 0 to 1: 1 unless it is in its slow start.
    #[cfg_attr(feature = "serde", serde(default = "absent::whole"))]
    pub slow_start: f64,
    /// How long it takes to begin its answers, as the policy sees it; none under one that doesn't look at that.
    #[cfg_attr(feature = "serde", serde(rename = "average_latency_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub average_latency: Option<Duration>,
    /// How long half of its successes took at most, since it joined, to the beginnings of their answers.
    #[cfg_attr(feature = "serde", serde(rename = "p50_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p50: Option<Duration>,
    /// The same for 95 of 100.
    #[cfg_attr(feature = "serde", serde(rename = "p95_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p95: Option<Duration>,
    /// The same for 99 of 100.
    #[cfg_attr(feature = "serde", serde(rename = "p99_seconds", default))]
    #[cfg_attr(feature = "serde", serde(with = "times::maybe_seconds"))]
    pub p99: Option<Duration>,
    /// What was counted since it joined.
    pub counts: Option<EndpointCounts>,
    /// What failed last, and when.
    pub last_error: Option<LastError>,
    /// Tells it from others of its balancer that have its address, before or after it.
    #[cfg_attr(feature = "serde", serde(skip))]
    #[cfg_attr(
        not(any(feature = "metrics", feature = "otel")),
        expect(dead_code, reason = "only metrics ask")
    )]
    pub(crate) life: u64,
}

impl EndpointExplanation {
    /// What the endpoint says of itself, and nothing else yet.
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

/// Whether a request that says nothing of where it wants to go would get an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Verdict {
    /// It would: the policy may choose it.
    Picked,
    /// It would, though the endpoint should be ejected: too many others are out.
    Panic,
    /// It would, as the one request that tries an endpoint that is out.
    Trial,
    /// It would, for no other endpoint is left.
    LastResort,
    /// Not as long as the near endpoints can take it.
    Far,
    /// Not unless it asks for this endpoint.
    OnlyByName,
    /// No: its checks fail.
    CheckFails,
    /// No: it is new, and has passed no check yet, or isn't connected yet.
    Pending,
    /// No: it is ejected.
    Ejected,
    /// No: it refuses requests, or can't be reached.
    Unreachable,
}

impl Verdict {
    /// Whether it would.
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
