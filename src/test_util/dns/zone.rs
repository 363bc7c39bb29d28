//! The DNS server's records, and how it answers a query.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::{rngs::StdRng, seq::SliceRandom};
use tokio::{sync::watch, time::Instant};

use super::{
    fault::{Fault, Faults},
    glue::Glue,
    log::LoggedQuery,
    name::normal,
    record::{Record, RecordData, RecordType},
    wire::{Delivery, NO_ERROR, NX_DOMAIN, Query, Reply},
};
use crate::{discovery::dns::Transport, sync::Mutex};

/// How many CNAMEs of a chain one reply holds, because a chain may be circular.
const ALIASES: usize = 8;

/// The server's state, shared with its tasks. Its lock is never held across an await.
pub(super) struct Zone {
    pub(super) state: Mutex<State>,
    /// Bumped after each new entry of the log.
    pub(super) logged: watch::Sender<usize>,
}

pub(super) struct State {
    pub(super) records: HashMap<String, BTreeMap<RecordType, RecordSet>>,
    pub(super) faults: Faults,
    pub(super) log: Vec<LoggedQuery>,
    /// How much of the log `next_query` has returned.
    returned: usize,
    pub(super) negative_ttl: u32,
    pub(super) glue: Glue,
    pub(super) shuffle: Option<StdRng>,
}

#[derive(Clone)]
pub(super) struct RecordSet {
    ttl: u32,
    data: Vec<RecordData>,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                records: HashMap::new(),
                faults: Faults::default(),
                log: Vec::new(),
                returned: 0,
                negative_ttl: 5,
                glue: Glue::default(),
                shuffle: None,
            }),
            logged: watch::Sender::new(0),
        }
    }
}

impl Zone {
    pub(super) fn set(&self, name: &str, record_type: RecordType, ttl: u32, data: Vec<RecordData>) {
        let mut state = self.state.lock();
        let types = state.records.entry(normal(name)).or_default();
        if data.is_empty() {
            types.remove(&record_type);
        } else {
            types.insert(record_type, RecordSet { ttl, data });
        }
    }

    /// Logs the query, and decides on the reply; `None` for no reply.
    pub(super) fn answer(&self, packet: &[u8], transport: Transport) -> Option<Delivery> {
        let query = Query::parse(packet)?;
        let delivery = self.state.lock().answer(&query, transport);
        self.logged.send_modify(|count| *count += 1);
        delivery
    }
}

impl State {
    fn answer(&mut self, query: &Query, transport: Transport) -> Option<Delivery> {
        self.log.push(LoggedQuery {
            name: format!("{}.", query.name),
            record_type: query.record_type,
            transport,
            edns: query.edns.is_some(),
            at: Instant::now(),
        });
        let fault = self.faults.take(query, transport);
        let delay = match fault {
            Some(Fault::Delay(delay)) => Some(delay),
            _ => None,
        };
        if let Some(Fault::CutUdp(length)) = fault {
            let mut wire = self.truth(query).encode(query, usize::from(u16::MAX));
            wire.truncate(length);
            return Some(Delivery { wire, delay });
        }
        let reply = match fault {
            None | Some(Fault::Delay(_)) => self.truth(query),
            Some(Fault::Silent | Fault::SilentTcp) => return None,
            Some(Fault::Garbage { right_id }) => {
                let wire = query.garbage(right_id);
                return Some(Delivery { wire, delay });
            }
            Some(Fault::Raw(bytes)) => {
                let wire = query.stamp(&bytes);
                return Some(Delivery { wire, delay });
            }
            Some(Fault::TruncateUdp | Fault::TruncateAll) => Reply::truncated(),
            Some(Fault::Rcode(code)) => Reply::code(code),
            Some(Fault::NxDomain) => Reply::negative(NX_DOMAIN, self.negative_ttl),
            Some(Fault::EmptyNoError) => Reply::negative(NO_ERROR, self.negative_ttl),
            Some(Fault::Times(..) | Fault::OnEdns(_) | Fault::CutUdp(_)) => {
                unreachable!("unwrapped by `Faults`, or answered above")
            }
        };
        let wire = reply.encode(query, query.limit(transport));
        Some(Delivery { wire, delay })
    }

    fn truth(&mut self, query: &Query) -> Reply {
        let (mut answers, name) = self.aliases(&query.name, query.record_type);
        let mut records = self.records(&name, query.record_type);
        if let Some(rng) = &mut self.shuffle {
            records.shuffle(rng);
        }
        answers.extend(records);
        if answers.is_empty() {
            return Reply::negative(self.absence(&query.name), self.negative_ttl);
        }
        let glue = self.glue(&answers);
        Reply::records(answers, glue, self.glue)
    }

    /// The CNAMEs that lead away from `name`, and the name where they end (RFC 1034 §4.3.2, step 3a).
    fn aliases(&self, name: &str, record_type: RecordType) -> (Vec<Record>, String) {
        let mut chain = Vec::new();
        let mut name = name.to_owned();
        while record_type != RecordType::CNAME && chain.len() < ALIASES {
            let alias = self.records(&name, RecordType::CNAME).pop();
            let Some(alias) = alias else { break };
            if let RecordData::Cname(target) = &alias.data {
                name.clone_from(target);
            }
            chain.push(alias);
        }
        (chain, name)
    }

    /// The records of one name and type, in the order of the zone.
    fn records(&self, name: &str, record_type: RecordType) -> Vec<Record> {
        let types = self.records.get(&normal(name));
        let Some(set) = types.and_then(|types| types.get(&record_type)) else {
            return Vec::new();
        };
        let record = |data: &RecordData| Record {
            owner: name.to_owned(),
            ttl: set.ttl,
            data: data.clone(),
        };
        set.data.iter().map(record).collect()
    }

    /// The response code if the name has no such record.
    fn absence(&self, name: &str) -> u16 {
        match self.records.get(name) {
            Some(types) if !types.is_empty() => NO_ERROR,
            _ => NX_DOMAIN,
        }
    }

    fn glue(&mut self, answers: &[Record]) -> Vec<Record> {
        let mut targets = HashSet::new();
        let mut glue = Vec::new();
        for answer in answers {
            if let RecordData::Srv(srv) = &answer.data
                && targets.insert(normal(&srv.target))
            {
                // A target that is an alias comes with the records that it leads to, as Consul's do.
                let (aliases, name) = self.aliases(&srv.target, RecordType::A);
                glue.extend(aliases);
                glue.extend(self.records(&name, RecordType::A));
                glue.extend(self.records(&name, RecordType::AAAA));
            }
        }
        if let Some(rng) = &mut self.shuffle {
            glue.shuffle(rng);
        }
        self.glue.pick(&mut glue);
        glue
    }

    /// Empties the log.
    pub(super) fn forget(&mut self) {
        self.log.clear();
        self.returned = 0;
    }

    pub(super) fn next_logged(&mut self) -> Option<LoggedQuery> {
        let query = self.log.get(self.returned).cloned()?;
        self.returned += 1;
        Some(query)
    }
}
