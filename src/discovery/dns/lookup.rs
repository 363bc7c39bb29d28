//! One question to DNS. The only file that names hickory.
//!
//! What hickory does by default and what this needs differ in a few points:
//! - the cache is off: a refresh that is answered from a cache is none;
//! - EDNS is on: hickory turns it off when it reads a resolv.conf, and a plain message holds 28 addresses;
//! - the hosts file is not read: a line in it would answer for ever;
//! - A and AAAA are asked apart: `lookup_ip` passes off half an answer as the whole.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType},
    },
    system_conf::read_system_conf,
};

/// How long one question may take, over all attempts, name servers and protocols. Less than the balancer's ready timeout
/// of 5 s, so that callers who wait for the first answer in vain are told why.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long one attempt may take. Two fit into the deadline, with room for TCP after a truncated answer.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// An address family, and the record type that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// What DNS says of a name.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// No such name, or no records of the family.
    Nothing {
        ttl: Option<Duration>,
        error: LookupError,
    },
}

/// Why a DNS lookup gave no addresses.
///
/// It is the source of [`Error`](crate::Error) where a request found no endpoints.
#[derive(Clone, Debug, thiserror::Error)]
#[error("DNS lookup of {question} failed: {reason}")]
pub struct LookupError {
    question: String,
    reason: Reason,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Reason {
    #[error(
        "the name does not exist (NXDOMAIN): no pod is ready, or the service or its name is wrong"
    )]
    NoName,
    #[error("the name has no such records")]
    NoRecords,
    #[error("the answer was truncated, over TCP too")]
    Truncated,
    #[error("no answer within {DEADLINE:?}")]
    Timeout,
    #[error("the name server answered {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
    #[error("no usable DNS configuration: {0}")]
    Configuration(String),
}

impl LookupError {
    #[cfg(test)]
    pub(super) fn no_name(question: &str) -> Self {
        Self {
            question: question.to_owned(),
            reason: Reason::NoName,
        }
    }

    /// DNS answered, and the answer was that there is nothing: NXDOMAIN, or no records.
    pub fn is_not_found(&self) -> bool {
        matches!(self.reason, Reason::NoName | Reason::NoRecords)
    }

    /// No answer came in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::Timeout)
    }

    /// The answer did not fit into a DNS message, over TCP either.
    pub fn is_truncated(&self) -> bool {
        matches!(self.reason, Reason::Truncated)
    }
}

/// Asks the name servers of the system, or a given one.
#[derive(Clone)]
pub(super) struct Resolver {
    inner: TokioResolver,
}

impl Resolver {
    /// A resolver that asks `server`, or else the ones in the system's configuration.
    pub(super) fn new(server: Option<SocketAddr>) -> Result<Self, LookupError> {
        let failed = |error: NetError| LookupError {
            question: server.map_or("anything".to_owned(), |server| {
                format!("anything at {server}")
            }),
            reason: Reason::Configuration(error.to_string()),
        };
        let (config, mut options) = match server {
            Some(server) => (config_for(server), ResolverOpts::default()),
            None => read_system_conf().map_err(failed)?,
        };
        options.cache_size = 0;
        options.edns0 = true;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ATTEMPT;
        options.attempts = 2;
        let provider = TokioRuntimeProvider::default();
        let inner = TokioResolver::builder_with_config(config, provider)
            .with_options(options)
            .build()
            .map_err(failed)?;
        Ok(Self { inner })
    }

    /// Looks up the addresses of `name`, which is taken as fully qualified.
    pub(super) async fn addresses(
        self,
        name: String,
        family: Family,
    ) -> Result<Found, LookupError> {
        let record_type = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let failed = |reason| LookupError {
            question: format!("{name} ({record_type})"),
            reason,
        };
        let lookup = self.inner.lookup(format!("{name}."), record_type);
        let lookup = match tokio::time::timeout(DEADLINE, lookup).await {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => {
                let nothing = negative_ttl(&error);
                let error = failed(reason(error));
                return match nothing {
                    Some(ttl) => Ok(Found::Nothing { ttl, error }),
                    None => Err(error),
                };
            }
            Err(_) => return Err(failed(Reason::Timeout)),
        };
        let answers = lookup.answers();
        let ttl = answers.iter().map(|record| record.ttl).min();
        let addresses: Vec<_> = answers
            .iter()
            .filter_map(|record| match record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        let ttl = Duration::from_secs(u64::from(ttl.unwrap_or_default()));
        Ok(if addresses.is_empty() {
            Found::Nothing {
                ttl: Some(ttl),
                error: failed(Reason::NoRecords),
            }
        } else {
            Found::Addresses { addresses, ttl }
        })
    }
}

fn config_for(server: SocketAddr) -> ResolverConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    ResolverConfig::from_name_servers(vec![config])
}

/// Whether DNS said that there is nothing, and for how long it says so.
fn negative_ttl(error: &NetError) -> Option<Option<Duration>> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            negative_ttl,
            ..
        })) => Some(negative_ttl.map(|ttl| Duration::from_secs(u64::from(ttl)))),
        _ => None,
    }
}

fn reason(error: NetError) -> Reason {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => {
            match response_code {
                ResponseCode::NXDomain => Reason::NoName,
                ResponseCode::NoError => Reason::NoRecords,
                code => Reason::Refused(code.to_string()),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Reason::Refused(code.to_string()),
        NetError::Truncated => Reason::Truncated,
        NetError::Timeout => Reason::Timeout,
        error => Reason::Other(error.to_string()),
    }
}
