//! Records, and what they say.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::RecordType;

/// One record as a reply holds it.
#[derive(Clone)]
pub(super) struct Record {
    /// In the letter case to be written.
    pub(super) owner: String,
    pub(super) ttl: u32,
    pub(super) data: RecordData,
}

/// A record's data. One more type of record is one more variant here, its `record_type` and its wire form in `writer.rs`.
#[derive(Clone, Debug)]
pub enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv(Srv),
    /// The name that the owner is an alias of.
    Cname(String),
}

impl RecordData {
    pub fn record_type(&self) -> RecordType {
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
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// With or without the trailing dot. `"."`: the service is not offered.
    pub target: String,
}

impl Srv {
    /// Priority 0 and weight 100, as CoreDNS gives a sole target. (It shares 100 out among several.)
    pub fn new(port: u16, target: impl Into<String>) -> Self {
        Self {
            priority: 0,
            weight: 100,
            port,
            target: target.into(),
        }
    }
}
