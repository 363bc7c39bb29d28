//! DNS messages as bytes (RFC 1035 §4). hickory decodes queries. Replies are written here, because tests need answers
//! that fill a message to its last byte, and answers that lie.

use std::time::Duration;

use hickory_proto::op::Message;

use super::{
    glue::Glue,
    name::normal,
    record::{Record, RecordType},
    writer::{HEADER, OPT, Writer},
};
use crate::discovery::dns::Transport;

pub(super) const NO_ERROR: u16 = 0;
pub(super) const NX_DOMAIN: u16 = 3;

const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;
const RA: u16 = 1 << 7;

/// A reply and when to send it.
pub(super) struct Delivery {
    pub(super) wire: Vec<u8>,
    pub(super) delay: Option<Duration>,
}

pub(super) struct Query {
    id: u16,
    pub(super) name: String,
    pub(super) record_type: RecordType,
    recursion_desired: bool,
    /// The payload size of the OPT record, if there is one.
    pub(super) edns: Option<u16>,
    /// The question as it came, with its letter case.
    question: Vec<u8>,
}

impl Query {
    /// Parses a query; `None` if it isn't a query with exactly one question.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let message = Message::from_vec(packet).ok()?;
        let [asked] = &message.queries[..] else {
            return None;
        };
        let mut end = HEADER;
        while *packet.get(end)? != 0 {
            end += 1 + usize::from(packet[end]);
        }
        end += 1 + 4; // the root label, then type and class
        Some(Self {
            id: message.metadata.id,
            name: normal(&asked.name().to_string()),
            record_type: u16::from(asked.query_type()).into(),
            recursion_desired: message.metadata.recursion_desired,
            edns: message.edns.as_ref().map(|edns| edns.max_payload()),
            question: packet.get(HEADER..end)?.to_vec(),
        })
    }

    /// How long a reply may be (RFC 6891 §6.2.3 and .5).
    pub(super) fn limit(&self, transport: Transport) -> usize {
        match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => usize::from(self.edns.unwrap_or(0).max(512)),
        }
    }

    /// `bytes` with this query's ID, if there is room for it.
    pub(super) fn stamp(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let Some(id) = bytes.first_chunk_mut() {
            *id = self.id.to_be_bytes();
        }
        bytes
    }

    /// Bytes that no decoder accepts: the header promises 65,535 questions, and labels of a reserved kind follow.
    pub(super) fn garbage(&self, right_id: bool) -> Vec<u8> {
        let id = if right_id { self.id } else { !self.id };
        let noise = (0u8..64).map(|i| 0x80 | i.wrapping_mul(37));
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([0x80, 0x00, 0xFF, 0xFF]);
        bytes.extend(noise);
        bytes
    }
}

#[derive(Default)]
pub(super) struct Reply {
    code: u16,
    truncated: bool,
    answers: Vec<Record>,
    glue: Vec<Record>,
    /// Whether TC is set if the glue doesn't fit.
    glue_must_fit: bool,
    /// The negative TTL, if the reply has an SOA.
    soa: Option<u32>,
}

impl Reply {
    pub(super) fn code(code: u16) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    pub(super) fn negative(code: u16, ttl: u32) -> Self {
        Self {
            soa: Some(ttl),
            ..Self::code(code)
        }
    }

    pub(super) fn truncated() -> Self {
        Self {
            truncated: true,
            ..Self::default()
        }
    }

    /// `glue` is of kind `kind`.
    pub(super) fn records(answers: Vec<Record>, glue: Vec<Record>, kind: Glue) -> Self {
        Self {
            answers,
            glue,
            glue_must_fit: kind.must_fit(),
            ..Self::default()
        }
    }

    /// The message, in at most `limit` bytes. If the answers don't fit, it has the first of them, no glue, and TC set.
    pub(super) fn encode(&self, query: &Query, limit: usize) -> Vec<u8> {
        let opt = query.edns.is_some();
        let room = limit - if opt { OPT } else { 0 };
        let mut writer = Writer::new(&query.name, &query.question);
        let answers = writer.records(&self.answers, room);
        if let Some(ttl) = self.soa {
            writer.soa(ttl);
        }
        let cut = answers < self.answers.len();
        let glue = if cut {
            0
        } else {
            writer.records(&self.glue, room)
        };
        let lacking = self.glue_must_fit && glue < self.glue.len();
        if opt {
            // The upper 8 of 12 bits (RFC 6891 §6.1.3).
            writer.opt((self.code >> 4) as u8);
        }
        writer.finish([
            query.id,
            self.flags(query, self.truncated || cut || lacking),
            1,
            u16::try_from(answers).expect("fewer records than bytes"),
            u16::from(self.soa.is_some()),
            u16::try_from(glue + usize::from(opt)).expect("fewer records than bytes"),
        ])
    }

    fn flags(&self, query: &Query, truncated: bool) -> u16 {
        let mut flags = QR | AA | RA | (self.code & 0xF);
        if truncated {
            flags |= TC;
        }
        if query.recursion_desired {
            flags |= RD;
        }
        flags
    }
}
