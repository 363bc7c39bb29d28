//! Faults: what a DNS server can do wrong.

use std::{sync::Arc, time::Duration};

use super::{record::RecordType, wire::Query};
use crate::discovery::dns::Transport;

/// What happens to a query instead of its right answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// An empty reply with this response code and no SOA, such as [`SERVFAIL`](Self::SERVFAIL) and
    /// [`REFUSED`](Self::REFUSED).
    Rcode(u16),
    /// No reply.
    Silent,
    /// No reply over TCP, though connections are accepted; UDP is fine.
    SilentTcp,
    /// The answer that is right when the query comes, but sent this much later. Other queries aren't held up.
    Delay(Duration),
    /// TC and no records over UDP; TCP is fine.
    TruncateUdp,
    /// TC and no records over UDP and TCP.
    TruncateAll,
    /// Bytes that aren't a DNS message, with the query's ID or with another one.
    Garbage {
        /// Whether they have the query's ID.
        right_id: bool,
    },
    /// These bytes, with the query's ID in place of the first two; fewer than two go out as they are.
    ///
    /// At most 65,535 bytes over TCP. UDP loses messages of more than 65,507 bytes. The query's own limit is ignored.
    Raw(Arc<[u8]>),
    /// NOERROR without records: NODATA.
    EmptyNoError,
    /// NXDOMAIN: the name doesn't exist.
    NxDomain,
    /// The first bytes of the right answer over UDP, this many, without TC. The query's own limit is ignored. TCP is
    /// fine.
    CutUdp(usize),
    /// This fault for queries with an OPT record; other queries are fine.
    OnEdns(Box<Fault>),
    /// This fault for the next `n` queries that it applies to; later ones are fine.
    Times(usize, Box<Fault>),
}

impl Fault {
    /// The server refuses to answer this client (5, RFC 1035 §4.1.1).
    pub const REFUSED: Self = Self::Rcode(5);

    /// The server has failed (2, RFC 1035 §4.1.1).
    pub const SERVFAIL: Self = Self::Rcode(2);

    /// This fault for the next `n` queries only.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        Self::Times(n, Box::new(self))
    }

    /// This fault for queries with an OPT record only.
    #[must_use]
    pub fn on_edns(self) -> Self {
        Self::OnEdns(Box::new(self))
    }

    fn applies_to(&self, query: &Query, transport: Transport) -> bool {
        match self {
            Self::OnEdns(fault) => query.edns.is_some() && fault.applies_to(query, transport),
            Self::TruncateUdp | Self::CutUdp(_) => transport == Transport::Udp,
            Self::SilentTcp => transport == Transport::Tcp,
            _ => true,
        }
    }
}

/// The faults in force, oldest first.
#[derive(Default)]
pub(super) struct Faults(Vec<Rule>);

struct Rule {
    name: String,
    record_type: RecordType,
    /// Never `Times`: that is `left`.
    fault: Fault,
    left: Option<usize>,
}

impl Faults {
    #[track_caller]
    pub(super) fn add(&mut self, name: String, record_type: RecordType, mut fault: Fault) {
        let mut left = None;
        while let Fault::Times(n, inner) = fault {
            left = Some(left.map_or(n, |outer: usize| outer.min(n)));
            fault = *inner;
        }
        if let Fault::Raw(bytes) = &fault {
            let longest = usize::from(u16::MAX);
            assert!(bytes.len() <= longest, "no DNS message is that long");
        }
        self.0
            .retain(|rule| !(rule.name == name && rule.record_type == record_type));
        self.0.push(Rule {
            name,
            record_type,
            fault,
            left,
        });
    }

    /// The fault for this query, if any. Counts the query.
    pub(super) fn take(&mut self, query: &Query, transport: Transport) -> Option<Fault> {
        let rule = self.0.iter_mut().rev().find(|rule| {
            (rule.name == "*" || rule.name == query.name)
                && (rule.record_type == RecordType::ANY || rule.record_type == query.record_type)
                && rule.fault.applies_to(query, transport)
                && rule.left != Some(0)
        })?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        match &rule.fault {
            Fault::OnEdns(fault) => Some((**fault).clone()),
            fault => Some(fault.clone()),
        }
    }
}
