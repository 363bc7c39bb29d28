//! What a DNS server can do wrong.

use std::time::Duration;

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use super::Transport;

/// What happens to a query instead of its right answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An empty reply with this code and no SOA.
    Rcode(ResponseCode),
    /// No reply.
    Silent,
    /// The right answer at the time of the query, this much later. Other queries aren't held up.
    Delay(Duration),
    /// TC and no record over UDP; TCP is fine.
    TruncateUdp,
    /// TC and no record over UDP and TCP.
    TruncateAll,
    /// Bytes that are no DNS message, with the query's ID or with another one.
    Garbage {
        right_id: bool,
    },
    /// NOERROR without records: NODATA.
    EmptyNoError,
    NxDomain,
    /// The fault for the next `n` queries that it applies to, then the truth again.
    Times(usize, Box<Fault>),
}

impl Fault {
    /// This fault for the next `n` queries only.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        Self::Times(n, Box::new(self))
    }

    fn applies_to(&self, transport: Transport) -> bool {
        !(matches!(self, Self::TruncateUdp) && transport == Transport::Tcp)
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
    pub(super) fn add(&mut self, name: String, record_type: RecordType, mut fault: Fault) {
        let mut left = None;
        while let Fault::Times(n, inner) = fault {
            left = Some(left.map_or(n, |outer: usize| outer.min(n)));
            fault = *inner;
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

    /// The fault that this query meets, counted.
    pub(super) fn take(
        &mut self,
        name: &str,
        record_type: RecordType,
        transport: Transport,
    ) -> Option<Fault> {
        let rule = self.0.iter_mut().rev().find(|rule| {
            (rule.name == "*" || rule.name == name)
                && (rule.record_type == RecordType::ANY || rule.record_type == record_type)
                && rule.fault.applies_to(transport)
                && rule.left != Some(0)
        })?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault.clone())
    }
}
