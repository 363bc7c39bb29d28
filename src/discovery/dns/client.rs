//! DNS messages: builds questions and interprets responses. The only file that names hickory.
//!
//! hickory is used for the wire format only. Its resolver isn't used: it discards the content of a truncated answer,
//! doesn't go on to the next name server after SERVFAIL, and doesn't say which server answered, or how. Its transports
//! aren't used either: they drop answers without a question section, as servers without EDNS send them, silently cut
//! UDP packets to the advertised size, and don't notice a closed port. So only these of its limits can still end or
//! change a question:
//!
//! | bound | value | why | setting |
//! | --- | --- | --- | --- |
//! | payload size in the OPT record | [`PAYLOAD`], also hickory's default | DNS flag day 2020; set here so that no hickory release changes it | none |
//! | no OPT record | over TCP, and to servers that don't take one (`edns.rs`) | RFC 6891 §7 | none |
//! | recursion desired | yes, hickory's default | name servers of resolv.conf are resolvers | none |
//! | case of the name (0x20) | as asked, hickory's default | some servers answer in lower case | none |
//! | DNSSEC (DO bit, request depth) | off, hickory's default | cluster domains aren't signed | none |
//! | aliases followed | [`ALIASES`] | a chain may be a loop; Kubernetes makes chains of two | none |
//! | a name | 255 bytes, 63 a label (RFC 1035 §2.3.4) | DNS's own limits; a longer one makes the message unreadable | none |
//! | a message | 65,535 bytes; over UDP, what arrives | DNS's own limit | none |
//!
//! The sockets' sizes, timeouts and retries are our own: see `server.rs`, `udp.rs`, `tcp.rs` and `resolver.rs`.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    ProtoError,
    op::{DnsRequest, DnsRequestOptions, DnsResponse, Query as Question, ResponseCode},
    rr::{Name, RData, Record, RecordType as Type},
};

use super::lookup::{
    Answer, LookupError, Nothing, Query, Reason, RecordType, Records, Reply, Service, Via,
};

/// The largest UDP packet that questions ask for.
const PAYLOAD: u16 = 1232;

/// The largest packet that may come if the question named no size (RFC 1035 §2.3.4).
const PAYLOAD_WITHOUT_OPT: u16 = 512;

/// How many CNAMEs in a row are followed.
const ALIASES: usize = 8;

/// The response code for an unknown EDNS version (RFC 6891 §9); hickory takes it for TSIG's BADSIG.
const BADVERS: u16 = 16;

/// A question as bytes.
pub(super) struct Message {
    id: u16,
    has_opt: bool,
    pub(super) bytes: Vec<u8>,
}

/// A response to a [`Message`].
#[derive(Debug)]
pub(super) struct Response {
    content: Result<DnsResponse, ProtoError>,
    length: usize,
    to_opt: bool,
}

impl Message {
    /// Builds a question, with or without an OPT record, which names the largest answer but isn't understood by every
    /// server.
    pub(super) fn new(query: &Query, has_opt: bool) -> Result<Self, String> {
        let mut name = Name::from_ascii(&*query.name).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let mut options = DnsRequestOptions::default();
        options.use_edns = has_opt;
        options.edns_payload_len = PAYLOAD;
        let question = Question::query(name, query.record_type.into());
        let request = DnsRequest::from_query(question, options);
        Ok(Self {
            id: request.id,
            has_opt,
            bytes: request.to_vec().map_err(|error| error.to_string())?,
        })
    }

    /// Parses `bytes` if they can be a response to this message: with its ID and its question, or without a question if
    /// it is a refusal.
    pub(super) fn response(&self, query: &Query, bytes: &[u8]) -> Option<Response> {
        if bytes.first_chunk() != Some(&self.id.to_be_bytes()) {
            return None;
        }
        let content = DnsResponse::from_buffer(bytes.to_vec());
        match &content {
            // An echo of the question isn't an answer.
            Err(ProtoError::NotAResponse) => return None,
            // A server that can't read the message can't repeat its question.
            Ok(response) if response.queries.is_empty() => {
                let code = response.response_code;
                let is_refusal = !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
                is_refusal.then_some(())?;
            }
            Ok(response) => drop(asked(query, response)?),
            Err(_) => {}
        }
        Some(Response {
            content,
            length: bytes.len(),
            to_opt: self.has_opt,
        })
    }
}

impl Response {
    /// Whether the server possibly rejects OPT records: FORMERR (RFC 6891 §7), BADVERS (§6.1.3), NOTIMP, or any other
    /// failure without an OPT record of its own, which a server that knows EDNS must send (§6.1.1).
    pub(super) fn rejects_opt(&self) -> bool {
        let rejects = |response: &DnsResponse| match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => false,
            ResponseCode::FormErr | ResponseCode::NotImp => true,
            code => u16::from(code) == BADVERS || response.edns.is_none(),
        };
        self.to_opt && self.content.as_ref().is_ok_and(rejects)
    }

    /// Whether this is an answer to a message without an OPT record.
    pub(super) fn is_answer_without_opt(&self) -> bool {
        let code = self.content.as_ref().map(|response| response.response_code);
        let answers = |code| matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        !self.to_opt && code.is_ok_and(answers)
    }

    /// Whether the bytes aren't a DNS message, or a cut one.
    pub(super) fn is_unreadable(&self) -> bool {
        self.content.is_err()
    }

    /// Whether the server has marked it as truncated.
    pub(super) fn is_truncated(&self) -> bool {
        let response = self.content.as_ref();
        response.is_ok_and(|response| response.truncation)
    }

    /// Whether it is of use though it is truncated. Of SRV records, some are enough to know the service whose own
    /// addresses may stand in.
    pub(super) fn is_useful(&self, query: &Query) -> bool {
        let is_record = |record: &Record| record.record_type() == Type::SRV;
        let response = self.content.as_ref();
        let has_some = response.is_ok_and(|response| response.answers.iter().any(is_record));
        query.record_type == RecordType::Srv && has_some
    }

    /// Whether it is larger than a packet was allowed to be.
    pub(super) fn is_oversized(&self) -> bool {
        let limit = match self.to_opt {
            true => PAYLOAD,
            false => PAYLOAD_WITHOUT_OPT,
        };
        self.length > usize::from(limit)
    }

    /// Whether the answer would fit into a packet, if asked over UDP, with an OPT record or without.
    pub(super) fn fits_a_packet(&self, with_opt: bool) -> bool {
        // The OPT record that it would have had (RFC 6891 §6.1.2).
        let (limit, opt) = match with_opt {
            true => (PAYLOAD, 11),
            false => (PAYLOAD_WITHOUT_OPT, 0),
        };
        !self.is_truncated() && self.length + opt <= usize::from(limit)
    }

    /// Whether the negative answer comes from a zone below the root. The root denies every name of a cluster, so a
    /// server that passes on the root's answer knows nothing about the cluster.
    pub(super) fn is_denied_below_the_root(&self) -> bool {
        let Ok(response) = &self.content else {
            return false;
        };
        let mut authorities = response.authorities.iter();
        authorities.any(|record| record.record_type() == Type::SOA && !record.name.is_root())
    }

    /// Its answer to `query`.
    pub(super) fn answer(&self, query: &Query, via: Via) -> Answer {
        match &self.content {
            Ok(response) => interpret(query, response, via),
            Err(error) => {
                let reason = Reason::Other(via.name_server, error.to_string());
                Err(LookupError::new(query, reason))
            }
        }
    }
}

impl From<RecordType> for Type {
    fn from(record_type: RecordType) -> Self {
        match record_type {
            RecordType::A => Self::A,
            RecordType::Aaaa => Self::AAAA,
            RecordType::Srv => Self::SRV,
        }
    }
}

/// The answer to `query` in the bytes of a response, without checking the sender.
#[cfg(any(test, tower_headless_fuzzing))]
pub(super) fn read(query: &Query, bytes: Vec<u8>, via: Via) -> Answer {
    let unreadable = |error: ProtoError| {
        let reason = Reason::Other(via.name_server, error.to_string());
        LookupError::new(query, reason)
    };
    let response = DnsResponse::from_buffer(bytes).map_err(unreadable)?;
    interpret(query, &response, via)
}

/// The answer to `query` in `response`.
fn interpret(query: &Query, response: &DnsResponse, via: Via) -> Answer {
    let failed = |reason| LookupError::new(query, reason).at(via.name_server);
    let nothing = |reason| {
        let ttl = response.negative_ttl();
        let ttl = ttl.map(|ttl| Duration::from_secs(ttl.into()));
        Ok(Err(Nothing::new(ttl, failed(reason))))
    };
    match response.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return nothing(Reason::NoName),
        code if u16::from(code) == BADVERS => {
            let what = "Unknown EDNS version (BADVERS)".to_owned();
            return Err(failed(Reason::Refused(via.name_server, what)));
        }
        code => {
            return Err(failed(Reason::Refused(via.name_server, code.to_string())));
        }
    }
    let Some(question) = asked(query, response) else {
        let what = "an answer to another question".to_owned();
        return Err(failed(Reason::Other(via.name_server, what)));
    };
    let (name, alias_ttl) = follow(question.name(), &response.answers);
    let wanted =
        |record: &&Record| record.record_type() == question.query_type() && record.name == *name;
    let records = response.answers.iter().filter(wanted);
    let ttl = records.clone().map(|record| record.ttl).min();
    match (ttl, query.record_type) {
        (None, _) if response.truncation => Err(failed(Reason::Truncated)),
        (None, _) if alias_ttl.is_some() && !is_denied_by_its_zone(name, response) => {
            Err(failed(Reason::Alias(via.name_server)))
        }
        (None, _) if has_strays(question, response) => {
            let what = "an answer with records of other names only".to_owned();
            Err(failed(Reason::Other(via.name_server, what)))
        }
        (None, _) if is_referral(response) => Err(failed(Reason::Referral(via.name_server))),
        (None, _) if is_lame(response) => Err(failed(Reason::Lame(via.name_server))),
        (None, _) => nothing(Reason::NoRecords),
        (Some(_), RecordType::A | RecordType::Aaaa) if response.truncation => {
            Err(failed(Reason::Truncated))
        }
        (Some(ttl), record_type) => Ok(Ok(Reply {
            records: match record_type {
                RecordType::A | RecordType::Aaaa => {
                    Records::Addresses(records.filter_map(address).collect())
                }
                RecordType::Srv => Records::Services {
                    owner: text(name),
                    services: records.filter_map(service).collect(),
                    glue: glue(response),
                    aliases: aliases(response),
                    truncated: response.truncation,
                },
            },
            ttl: {
                let others = [alias_ttl, glue_ttl(query, response)];
                let shortest = others.into_iter().flatten().fold(ttl, u32::min);
                Duration::from_secs(shortest.into())
            },
            via,
        })),
    }
}

/// The response's question, if it is the one that was asked.
fn asked<'a>(query: &Query, response: &'a DnsResponse) -> Option<&'a Question> {
    match &response.queries[..] {
        [question] if question.query_type() == query.record_type.into() => {
            let name = question.name().to_ascii();
            let name = name.strip_suffix('.').unwrap_or(&name);
            name.eq_ignore_ascii_case(&query.name).then_some(question)
        }
        _ => None,
    }
}

/// The name at the end of the aliases that begin with `name` (RFC 1034 §3.6.2), and the shortest TTL on the way.
fn follow<'a>(mut name: &'a Name, answers: &'a [Record]) -> (&'a Name, Option<u32>) {
    let mut shortest = None;
    for _ in 0..ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else { break };
        name = target;
        shortest = Some(shortest.map_or(ttl, |shortest: u32| shortest.min(ttl)));
    }
    (name, shortest)
}

/// Whether the zone of the last alias says that there are no such records (RFC 2308 §2.2). Without that, the alias may
/// simply be all that the server knows.
fn is_denied_by_its_zone(name: &Name, response: &DnsResponse) -> bool {
    let mut authorities = response.authorities.iter();
    authorities.any(|record| {
        let is_soa = record.record_type() == Type::SOA;
        is_soa && !record.name.is_root() && record.name.zone_of(name)
    })
}

/// Whether there are records of the type that was asked for, of any name. An answer that has some isn't a negative one.
fn has_strays(question: &Question, response: &DnsResponse) -> bool {
    let mut types = response.answers.iter().map(Record::record_type);
    types.any(|record_type| record_type == question.query_type())
}

/// Whether the answer is a referral to other servers, not a negative answer (RFC 2308 §2.2).
fn is_referral(response: &DnsResponse) -> bool {
    let has = |record_type| {
        let mut authorities = response.authorities.iter();
        authorities.any(|record| record.record_type() == record_type)
    };
    has(Type::NS) && !has(Type::SOA)
}

/// Whether an empty answer comes from a server that neither has the zone nor asks others for it. The C library takes it
/// for a failure, too (`res_send.c`).
fn is_lame(response: &DnsResponse) -> bool {
    let knows = response.metadata.authoritative || response.metadata.recursion_available;
    let is_blank = response.answers.is_empty() && response.authorities.is_empty();
    !knows && is_blank && response.additionals.is_empty()
}

fn address(record: &Record) -> Option<IpAddr> {
    match record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn service(record: &Record) -> Option<Service> {
    let RData::SRV(srv) = &record.data else {
        return None;
    };
    Some(Service {
        priority: srv.priority,
        weight: srv.weight,
        port: srv.port,
        target: text(&srv.target),
    })
}

/// The shortest TTL of the addresses and aliases that come with SRV records.
fn glue_ttl(query: &Query, response: &DnsResponse) -> Option<u32> {
    let is_used = |record: &&Record| {
        let is_alias = matches!(record.data, RData::CNAME(_));
        query.record_type == RecordType::Srv && (is_alias || address(record).is_some())
    };
    let used = response.additionals.iter().filter(is_used);
    used.map(|record| record.ttl).min()
}

fn glue(response: &DnsResponse) -> Vec<(String, IpAddr)> {
    let records = response.additionals.iter();
    records
        .filter_map(|record| Some((text(&record.name), address(record)?)))
        .collect()
}

/// The aliases that come with SRV records. A target may be an alias: RFC 2782 forbids it, but Consul does it.
fn aliases(response: &DnsResponse) -> Vec<(String, String)> {
    let records = response.additionals.iter();
    let alias = |record: &Record| match &record.data {
        RData::CNAME(target) => Some((text(&record.name), text(&target.0))),
        _ => None,
    };
    records.filter_map(alias).collect()
}

fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text.make_ascii_lowercase();
    text
}
