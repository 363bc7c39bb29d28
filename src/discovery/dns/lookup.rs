//! Questions to DNS and their answers, independent of who answers.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::name::Name;
use crate::{discovery::filter::Rejected, endpoint::Endpoint};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

/// The type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RecordType {
    A,
    Aaaa,
    Srv,
}

/// One question: the records of a type under a full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) name: Arc<str>,
    pub(super) record_type: RecordType,
}

/// How a question was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// In a UDP packet.
    Udp,
    /// Over TCP, because the answer doesn't fit into a UDP packet, or resolv.conf says `use-vc`.
    Tcp,
}

/// The server that answered, and the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) name_server: SocketAddr,
    pub(super) transport: Transport,
}

/// A name server's answer with records.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) records: Records,
    pub(super) ttl: Duration,
    pub(super) via: Via,
}

#[derive(Clone, Debug)]
pub(super) enum Records {
    Addresses(Vec<IpAddr>),
    Services {
        /// The name that has the records: the one asked for, or the last of its aliases.
        owner: String,
        services: Vec<Service>,
        /// Addresses by name, from the additional section.
        glue: Vec<(String, IpAddr)>,
        /// Names and what they are aliases of, also from the additional section.
        aliases: Vec<(String, String)>,
        /// The answer was truncated: there may be more records and addresses.
        truncated: bool,
    },
}

/// An SRV record. Names are in lower case, without the trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// A negative answer: DNS says that there is no such name, or that it has no such records.
#[derive(Clone, Debug)]
pub(super) struct Nothing {
    pub(super) ttl: Option<Duration>,
    pub(super) error: LookupError,
    /// It comes from a name server that stands in for a failing one, which may know better.
    pub(super) is_provisional: bool,
}

/// The result of a question: records, a negative answer, or a failure.
pub(super) type Answer<T = Reply> = Result<Result<T, Nothing>, LookupError>;

/// What a look finds, after one or more questions.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The full name that has the endpoints.
    pub(super) name: Arc<str>,
    /// The endpoints that can be pods; at least one.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) ttl: Duration,
    /// None if no name server was asked.
    pub(super) via: Option<Via>,
    /// The SRV target that each endpoint belongs to, if it is known.
    pub(super) targets: HashMap<SocketAddr, Arc<str>>,
    /// There may be more endpoints.
    pub(super) incomplete: Option<Box<Incomplete>>,
    /// The SRV records point to the Service itself, not to pods below it: it has a virtual IP.
    pub(super) is_virtual: bool,
    /// Set if the records don't carry pods' own names, but those can be looked up.
    pub(super) own_names: Option<Box<OwnNames>>,
}

/// The Service that pods' own names are below, and the names whose lookup failed.
#[derive(Clone, Debug)]
pub(super) struct OwnNames {
    pub(super) service: Arc<str>,
    pub(super) unresolved: Vec<Arc<str>>,
}

impl OwnNames {
    pub(super) fn of(service: Arc<str>) -> Option<Box<Self>> {
        let unresolved = Vec::new();
        Some(Box::new(Self {
            service,
            unresolved,
        }))
    }
}

/// SRV targets whose addresses couldn't be looked up, and why.
#[derive(Clone, Debug)]
pub(super) struct Incomplete {
    pub(super) targets: Vec<Arc<str>>,
    pub(super) error: LookupError,
}

/// A look in progress.
pub(super) type Lookup = BoxFuture<'static, Answer<Found>>;

/// Something that answers questions. Clones share their state.
pub(super) trait Resolve: Clone + Send + Sync + 'static {
    /// The full names that `name` may stand for; at least one.
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError>;

    /// The addresses of a name that needs no name server; none if it must be asked for.
    fn local(&self, name: &str) -> Option<Vec<IpAddr>> {
        let _ = name;
        None
    }

    /// Asks one question, and answers by the `deadline`. `over` is TCP if the answer is expected to be too large for
    /// UDP. If the deadline has passed, no server is asked.
    fn ask(&self, query: Query, over: Transport, deadline: Instant) -> BoxFuture<'static, Answer>;

    /// A copy for another runtime, independent of the runtimes that this one was used in.
    fn renewed(&self) -> Self {
        self.clone()
    }
}

/// Why a DNS lookup found no addresses.
///
/// It is the source of an [`Error`](crate::Error) if a request found no endpoints.
#[derive(Clone, Debug, thiserror::Error)]
#[error("DNS lookup of {question}{} failed: {reason}{}", self.place(), self.hint())]
pub struct LookupError {
    question: String,
    /// The name server that was asked.
    server: Option<Box<SocketAddr>>,
    reason: Reason,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error(
        "the name does not exist (NXDOMAIN): no pod is ready, or the service or its name is wrong"
    )]
    NoName,
    #[error("the name has no such records")]
    NoRecords,
    #[error("no pod is ready, or the service or its name is wrong: there is nothing under {}", list(.0))]
    NoCandidate(Vec<Arc<str>>),
    #[error(
        "the answer was truncated even over TCP; a watch of EndpointSlices (feature `kube`) has no such limit"
    )]
    Truncated,
    #[error("the answer was truncated, and TCP failed; is TCP port 53 blocked?")]
    NoTcp,
    #[error("no answer in time")]
    Timeout,
    #[error("{0} answered {1}")]
    Refused(SocketAddr, String),
    #[error("{0} answered with an alias (CNAME) only; is it a recursive resolver?")]
    Alias(SocketAddr),
    #[error("{0} refers to other name servers; is it a recursive resolver?")]
    Referral(SocketAddr),
    #[error("{0} answered nothing, but neither has the zone nor asks other name servers")]
    Lame(SocketAddr),
    #[error("the answer has SRV records, but none of their targets has an address: {}", list(.0))]
    NoTarget(Vec<Arc<str>>),
    #[error(
        "the answer has SRV records with {0} targets but not their addresses; at most {1} are looked up one by one"
    )]
    ManyTargets(usize, usize),
    #[error("all SRV records name port 0, where no pod can listen")]
    NoPort,
    #[error("no pod can have the address {0}: it is {1}")]
    Rejected(IpAddr, &'static str),
    #[error("{0}: {1}")]
    Closed(SocketAddr, String),
    #[error("{0}: {1}")]
    Other(SocketAddr, String),
    #[error("no usable DNS configuration: {0}")]
    Configuration(String),
}

fn list(names: &[Arc<str>]) -> String {
    names.join("., ") + "."
}

impl Nothing {
    pub(super) fn new(ttl: Option<Duration>, error: LookupError) -> Self {
        Self {
            ttl,
            error,
            is_provisional: false,
        }
    }
}

impl LookupError {
    pub(super) fn new(question: impl fmt::Display, reason: Reason) -> Self {
        Self {
            question: question.to_string(),
            server: None,
            reason,
        }
    }

    /// Sets the name server that was asked.
    pub(super) fn at(self, server: SocketAddr) -> Self {
        let server = Some(server.into());
        Self { server, ..self }
    }

    /// Where the lookup failed: the name server, unless the reason names it.
    fn place(&self) -> String {
        let is_unnamed = matches!(
            self.reason,
            Reason::NoName
                | Reason::NoRecords
                | Reason::Truncated
                | Reason::NoTcp
                | Reason::Timeout
        );
        let server = self.server.as_ref().filter(|_| is_unnamed);
        server.map_or_else(String::new, |server| format!(" at {server}"))
    }

    /// DNS answered that there are no pods: NXDOMAIN, or no records.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.reason,
            Reason::NoName | Reason::NoRecords | Reason::NoCandidate(_)
        )
    }

    /// The name itself doesn't exist, so it has no records of other types either (RFC 8020).
    pub(super) fn is_no_name(&self) -> bool {
        matches!(self.reason, Reason::NoName)
    }

    /// The name server's port is closed, or there is no route to it.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.reason, Reason::Closed(..))
    }

    /// What to do if `web` doesn't exist, or `web.default` where no name of a cluster was tried for it. On a machine outside
    /// the cluster no such name exists.
    fn hint(&self) -> &'static str {
        let name = self.question.split(' ').next().unwrap_or_default();
        let dots = name.trim_end_matches('.').matches('.').count();
        let is_in_cluster = match &self.reason {
            Reason::NoCandidate(names) => names.iter().any(|name| name.contains(".svc.")),
            _ => false,
        };
        let is_short = dots == 0 || (dots == 1 && !is_in_cluster);
        match is_short && self.is_not_found() {
            true => {
                "; outside the cluster use `localhost`, an address, or `hosts_file(true)` for a name in /etc/hosts"
            }
            false => "",
        }
    }

    /// No answer came in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::Timeout)
    }

    /// The answer didn't fit into a DNS message, even over TCP, or it didn't fit into a packet and TCP failed.
    pub fn is_truncated(&self) -> bool {
        matches!(self.reason, Reason::Truncated | Reason::NoTcp)
    }
}

impl From<Rejected> for Reason {
    fn from(Rejected(address, why): Rejected) -> Self {
        Self::Rejected(address, why)
    }
}

impl Family {
    pub(super) fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::Aaaa,
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. ({})", self.name, self.record_type)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}
