//! Writes records as bytes (RFC 1035 §3 and §4.1).

use std::collections::HashMap;

use super::{
    name::normal,
    record::{Record, RecordData, Srv},
};

pub(super) const HEADER: usize = 12;
/// The wire size of an OPT record without options.
pub(super) const OPT: usize = 11;

const CLASS_IN: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
/// The payload size that the server advertises. It doesn't matter, because nobody sends it big queries.
const OUR_PAYLOAD: u16 = 1232;
/// Two bits that say "pointer", then 14 for the offset (RFC 1035 §4.1.4).
const POINTER: u16 = 0xC000;
const OFFSETS: usize = 1 << 14;

/// Builds a message; the header is written last.
pub(super) struct Writer {
    out: Vec<u8>,
    /// Offsets of the names that are written in full, within a pointer's reach.
    names: HashMap<String, usize>,
}

impl Writer {
    /// `name` is the question's.
    pub(super) fn new(name: &str, question: &[u8]) -> Self {
        let mut out = vec![0; HEADER];
        out.extend(question);
        let names = HashMap::from([(normal(name), HEADER)]);
        Self { out, names }
    }

    /// Writes records until one would make the message longer than `room`. Returns how many it wrote.
    pub(super) fn records(&mut self, records: &[Record], room: usize) -> usize {
        let fits = |record: &&Record| {
            let before = self.out.len();
            self.record(record);
            let fits = self.out.len() <= room;
            if !fits {
                self.undo(before);
            }
            fits
        };
        records.iter().take_while(fits).count()
    }

    /// Writes an SOA of the question's parent. Its last field is the negative TTL (RFC 2308 §3).
    pub(super) fn soa(&mut self, ttl: u32) {
        let label = usize::from(self.out[HEADER]);
        if label == 0 {
            self.out.push(0);
        } else {
            self.pointer(HEADER + 1 + label);
        }
        self.rest(TYPE_SOA, ttl, |writer| {
            writer.out.extend(b"\x02ns\x03dns\x00\x0ahostmaster\x00");
            for field in [1u32, 7200, 1800, 86400, ttl] {
                writer.out.extend(field.to_be_bytes());
            }
        });
    }

    /// Writes an OPT record. The TTL's first byte is the upper part of the response code (RFC 6891 §6.1.2).
    pub(super) fn opt(&mut self, code_high: u8) {
        self.out.push(0);
        self.out.extend(TYPE_OPT.to_be_bytes());
        self.out.extend(OUR_PAYLOAD.to_be_bytes());
        self.out.extend([code_high, 0, 0, 0]);
        self.out.extend([0, 0]);
    }

    pub(super) fn finish(mut self, header: [u16; HEADER / 2]) -> Vec<u8> {
        for (place, word) in self.out.chunks_exact_mut(2).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        self.out
    }

    fn undo(&mut self, length: usize) {
        self.out.truncate(length);
        self.names.retain(|_, at| *at < length);
    }

    fn record(&mut self, Record { owner, ttl, data }: &Record) {
        self.name(owner);
        let record_type = u16::from(data.record_type());
        self.rest(record_type, *ttl, |writer| match data {
            RecordData::A(address) => writer.out.extend(address.octets()),
            RecordData::Aaaa(address) => writer.out.extend(address.octets()),
            RecordData::Srv(srv) => writer.srv(srv),
            RecordData::Cname(target) => writer.name(target),
        });
    }

    /// Writes what follows a record's owner name (RFC 1035 §3.2.1).
    fn rest(&mut self, record_type: u16, ttl: u32, data: impl FnOnce(&mut Self)) {
        self.out.extend(record_type.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend([0, 0]);
        let start = self.out.len();
        data(self);
        let length = u16::try_from(self.out.len() - start).expect("record data is short");
        self.out[start - 2..start].copy_from_slice(&length.to_be_bytes());
    }

    fn srv(&mut self, srv: &Srv) {
        for field in [srv.priority, srv.weight, srv.port] {
            self.out.extend(field.to_be_bytes());
        }
        // RFC 2782: "name compression is not to be used for this field".
        self.whole_name(&srv.target);
    }

    /// Writes the name, or a pointer if the message has it already.
    fn name(&mut self, name: &str) {
        match self.names.get(&normal(name)) {
            Some(&at) => self.pointer(at),
            None => self.whole_name(name),
        }
    }

    fn pointer(&mut self, at: usize) {
        let at = u16::try_from(at).expect("only names within reach are remembered");
        self.out.extend((POINTER | at).to_be_bytes());
    }

    fn whole_name(&mut self, name: &str) {
        let at = self.out.len();
        // The root is shorter than a pointer to it.
        if at < OFFSETS && !normal(name).is_empty() {
            self.names.entry(normal(name)).or_insert(at);
        }
        for label in name.split('.').filter(|label| !label.is_empty()) {
            self.out.push(label.len() as u8);
            self.out.extend(label.as_bytes());
        }
        self.out.push(0);
    }
}
