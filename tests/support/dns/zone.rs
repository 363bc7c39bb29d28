//! What a DNS server knows, and what it makes of a query.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use rand::{rngs::StdRng, seq::SliceRandom};
use tokio::{sync::watch, time::Instant};

use super::{
    Fault, LoggedQuery, RecordData, Transport,
    fault::Faults,
    lock, normal,
    serve::Delivery,
    wire::{Query, Reply},
};

/// What the server knows, shared with its tasks. Its lock is never held over an await.
pub(super) struct Zone {
    state: Mutex<State>,
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
                shuffle: None,
            }),
            logged: watch::Sender::new(0),
        }
    }
}

impl Zone {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn set(&self, name: &str, record_type: RecordType, ttl: u32, data: Vec<RecordData>) {
        let mut state = self.lock();
        let types = state.records.entry(normal(name)).or_default();
        if data.is_empty() {
            types.remove(&record_type);
        } else {
            types.insert(record_type, RecordSet { ttl, data });
        }
    }

    /// Logs the query and decides what becomes of it. `None`: no reply.
    pub(super) fn answer(&self, packet: &[u8], transport: Transport) -> Option<Delivery> {
        let query = Query::parse(packet)?;
        let delivery = self.lock().answer(&query, transport);
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
            at: Instant::now(),
        });
        let fault = self.faults.take(&query.name, query.record_type, transport);
        let delay = match fault {
            Some(Fault::Delay(delay)) => Some(delay),
            _ => None,
        };
        let reply = match fault {
            None | Some(Fault::Delay(_)) => self.truth(query),
            Some(Fault::Silent) => return None,
            Some(Fault::Garbage { right_id }) => {
                let wire = query.garbage(right_id);
                return Some(Delivery { wire, delay });
            }
            Some(Fault::TruncateUdp | Fault::TruncateAll) => Reply::truncated(),
            Some(Fault::Rcode(code)) => Reply::code(code),
            Some(Fault::NxDomain) => Reply::negative(ResponseCode::NXDomain, self.negative_ttl),
            Some(Fault::EmptyNoError) => Reply::negative(ResponseCode::NoError, self.negative_ttl),
            Some(Fault::Times(..)) => unreachable!("`Faults` unwraps it"),
        };
        let wire = reply.encode(query, query.limit(transport));
        Some(Delivery { wire, delay })
    }

    fn truth(&mut self, query: &Query) -> Reply {
        let types = self
            .records
            .get(&query.name)
            .filter(|types| !types.is_empty());
        let Some(types) = types else {
            return Reply::negative(ResponseCode::NXDomain, self.negative_ttl);
        };
        let Some(RecordSet { ttl, mut data }) = types.get(&query.record_type).cloned() else {
            return Reply::negative(ResponseCode::NoError, self.negative_ttl);
        };
        if let Some(rng) = &mut self.shuffle {
            data.shuffle(rng);
        }
        Reply::records(ttl, data)
    }

    pub(super) fn next_logged(&mut self) -> Option<LoggedQuery> {
        let query = self.log.get(self.returned).cloned()?;
        self.returned += 1;
        Some(query)
    }
}
