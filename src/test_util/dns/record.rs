//! Records and their data.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A type of record, by its number (RFC 1035 §3.2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(u16);

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// An IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// Any type; only for [faults](super::DnsServer::fault).
    pub const ANY: Self = Self(255);
    /// An alias.
    pub const CNAME: Self = Self(5);
    /// A host and a port that offer a service (RFC 2782).
    pub const SRV: Self = Self(33);
}

impl From<u16> for RecordType {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

impl From<RecordType> for u16 {
    fn from(RecordType(number): RecordType) -> Self {
        number
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::A => "A",
            Self::AAAA => "AAAA",
            Self::ANY => "ANY",
            Self::CNAME => "CNAME",
            Self::SRV => "SRV",
            // RFC 3597 §5
            Self(number) => return write!(f, "TYPE{number}"),
        })
    }
}

/// One record of a reply.
#[derive(Clone)]
pub(super) struct Record {
    /// The owner's name, in the letter case to write.
    pub(super) owner: String,
    pub(super) ttl: u32,
    pub(super) data: RecordData,
}

/// A record's data. To add a type of record, add a variant here, its `record_type`, and its wire form in `writer.rs`.
#[derive(Clone, Debug)]
pub(super) enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv(Srv),
    /// The name that the owner is an alias of.
    Cname(String),
}

impl RecordData {
    pub(super) fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Srv(_) => RecordType::SRV,
            Self::Cname(_) => RecordType::CNAME,
        }
    }
}

/// One place where a service is offered (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// The lowest priority comes first.
    pub priority: u16,
    /// The share among the records of one priority.
    pub weight: u16,
    /// The service's port.
    pub port: u16,
    /// The host's name, with or without the trailing dot. `"."` means that the service is not offered.
    pub target: String,
}

impl Srv {
    /// Priority 0 and weight 100, as CoreDNS gives to a single target. (It divides 100 among several.)
    pub fn new(port: u16, target: impl Into<String>) -> Self {
        Self {
            priority: 0,
            weight: 100,
            port,
            target: target.into(),
        }
    }
}
