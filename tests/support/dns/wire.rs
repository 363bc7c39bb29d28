//! DNS messages as bytes (RFC 1035 §4). Queries are decoded by hickory; replies are written here, because the tests need
//! answers that fill a message to its last byte, and that lie.

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};

use super::{RecordData, Transport, normal};

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
/// The wire size of an OPT record without options.
const OPT: usize = 11;
/// What we advertise ourselves; it doesn't matter, as nobody sends us big queries.
const OUR_PAYLOAD: u16 = 1232;
/// A compression pointer (RFC 1035 §4.1.4) to the question's name, which stands right after the header.
const QUESTION_NAME: u16 = 0xC000 | HEADER as u16;

const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;
const RA: u16 = 1 << 7;

pub(super) struct Query {
    id: u16,
    pub(super) name: String,
    pub(super) record_type: RecordType,
    recursion_desired: bool,
    /// The payload size of the OPT record, where there is one.
    edns: Option<u16>,
    /// The question as it came, letter case included.
    question: Vec<u8>,
}

impl Query {
    /// `None` for what is no query with one question.
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
            record_type: asked.query_type(),
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

    /// Bytes that no decoder takes: the header promises 65,535 questions, then come labels of a reserved kind.
    pub(super) fn garbage(&self, right_id: bool) -> Vec<u8> {
        let id = if right_id { self.id } else { !self.id };
        let noise = (0u8..64).map(|i| 0x80 | i.wrapping_mul(37));
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([0x80, 0x00, 0xFF, 0xFF]);
        bytes.extend(noise);
        bytes
    }
}

/// The owner name is the question's in all records.
pub(super) struct Reply {
    code: ResponseCode,
    truncated: bool,
    ttl: u32,
    answers: Vec<RecordData>,
    /// The negative TTL, where an SOA goes with the reply.
    soa: Option<u32>,
}

impl Reply {
    pub(super) fn code(code: ResponseCode) -> Self {
        Self {
            code,
            truncated: false,
            ttl: 0,
            answers: Vec::new(),
            soa: None,
        }
    }

    pub(super) fn negative(code: ResponseCode, ttl: u32) -> Self {
        Self {
            soa: Some(ttl),
            ..Self::code(code)
        }
    }

    pub(super) fn truncated() -> Self {
        Self {
            truncated: true,
            ..Self::code(ResponseCode::NoError)
        }
    }

    pub(super) fn records(ttl: u32, answers: Vec<RecordData>) -> Self {
        Self {
            ttl,
            answers,
            ..Self::code(ResponseCode::NoError)
        }
    }

    /// The message, in at most `limit` bytes: where the records don't fit it has the first of them, and TC set.
    pub(super) fn encode(&self, query: &Query, limit: usize) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out.extend(&query.question);
        let room = limit - if query.edns.is_some() { OPT } else { 0 };
        let mut count = 0;
        for data in &self.answers {
            let before = out.len();
            self.write_record(data, &mut out);
            if out.len() > room {
                out.truncate(before);
                break;
            }
            count += 1;
        }
        if let Some(ttl) = self.soa {
            write_soa(&query.question, ttl, &mut out);
        }
        if query.edns.is_some() {
            write_opt(self.code.high(), &mut out);
        }
        let truncated = self.truncated || count < self.answers.len();
        let counts = [
            1,
            u16::try_from(count).expect("fewer records than bytes"),
            u16::from(self.soa.is_some()),
            u16::from(query.edns.is_some()),
        ];
        let flags = self.flags(query, truncated);
        let words = [query.id, flags].into_iter().chain(counts);
        let header: Vec<u8> = words.flat_map(u16::to_be_bytes).collect();
        out[..HEADER].copy_from_slice(&header);
        out
    }

    fn flags(&self, query: &Query, truncated: bool) -> u16 {
        let mut flags = QR | AA | RA | u16::from(self.code.low());
        if truncated {
            flags |= TC;
        }
        if query.recursion_desired {
            flags |= RD;
        }
        flags
    }

    fn write_record(&self, data: &RecordData, out: &mut Vec<u8>) {
        out.extend(QUESTION_NAME.to_be_bytes());
        let record_type = u16::from(data.record_type());
        match data {
            RecordData::A(address) => write_rest(record_type, self.ttl, &address.octets(), out),
            RecordData::Aaaa(address) => write_rest(record_type, self.ttl, &address.octets(), out),
        }
    }
}

/// What follows a record's owner name (RFC 1035 §3.2.1).
fn write_rest(record_type: u16, ttl: u32, data: &[u8], out: &mut Vec<u8>) {
    out.extend(record_type.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    let length = u16::try_from(data.len()).expect("record data is short");
    out.extend(length.to_be_bytes());
    out.extend(data);
}

/// An SOA of the name's parent; its last field is the negative TTL (RFC 2308 §3).
fn write_soa(question: &[u8], ttl: u32, out: &mut Vec<u8>) {
    if question[0] == 0 {
        out.push(0);
    } else {
        let parent = QUESTION_NAME + u16::from(question[0]) + 1;
        out.extend(parent.to_be_bytes());
    }
    let mut data = Vec::new();
    data.extend(b"\x02ns\x03dns\x00\x0ahostmaster\x00");
    for field in [1u32, 7200, 1800, 86400, ttl] {
        data.extend(field.to_be_bytes());
    }
    write_rest(TYPE_SOA, ttl, &data, out);
}

/// RFC 6891 §6.1.2: the TTL's first byte is the upper part of the response code.
fn write_opt(code_high: u8, out: &mut Vec<u8>) {
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend(OUR_PAYLOAD.to_be_bytes());
    out.extend([code_high, 0, 0, 0]);
    out.extend([0, 0]);
}
