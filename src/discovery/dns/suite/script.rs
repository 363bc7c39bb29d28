//! A scripted resolver.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    discovery::dns::{
        lookup::{
            Answer, LookupError, Nothing, Query, Reason, RecordType, Records, Reply, Resolve,
            Service, Transport, Via,
        },
        name::Name,
    },
    endpoint::Endpoint,
    sync::Mutex,
};

/// How long a name server takes to answer.
const LATENCY: Duration = Duration::from_millis(1);
/// How long it takes until a silent name server counts as failed.
const SILENCE: Duration = Duration::from_secs(4);

/// The answer to a question.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Addresses(Vec<IpAddr>),
    Services {
        services: Vec<Service>,
        glue: Vec<(String, IpAddr)>,
        truncated: bool,
    },
    /// NXDOMAIN.
    NoName,
    /// NXDOMAIN, from a name server that stands in for the first one.
    NoNameForNow,
    ServFail,
    Silence,
}

/// The resolver. Clones share its state.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    search: Vec<Name>,
    /// The records by name and type. Anything else is NXDOMAIN, or NODATA if the name has other records.
    zone: HashMap<(String, RecordType), Say>,
    /// The answer to every question, instead of the zone.
    instead: Option<Say>,
    /// The answer to every question of a type.
    failing: HashMap<RecordType, Say>,
    /// The answer to every question over TCP, if it differs from UDP.
    over_tcp: Option<Say>,
    /// How long answers to questions of a type take, if longer than usual.
    slow: HashMap<RecordType, Duration>,
    /// The answer to every question for a name.
    failing_names: HashMap<String, Say>,
    ttl: Duration,
    /// The owners of records, by alias.
    owners: HashMap<String, String>,
    /// The aliases that come along with SRV records.
    aliases: Vec<(String, String)>,
    asked: Vec<(String, RecordType, Instant)>,
}

impl Script {
    /// A resolver with an empty zone, a pod's search list and a TTL of 30 s.
    pub(crate) fn new() -> Self {
        let script = Self::default();
        script.search(&[
            "default.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ]);
        script.ttl(30);
        script
    }

    pub(super) fn search(&self, domains: &[&str]) {
        let names = domains
            .iter()
            .map(|domain| Name::parse(domain).expect("a name"));
        self.0.lock().search = names.collect();
    }

    pub(crate) fn ttl(&self, seconds: u64) {
        self.0.lock().ttl = Duration::from_secs(seconds);
    }

    pub(crate) fn say(&self, name: &str, record_type: RecordType, say: Say) {
        self.0
            .lock()
            .zone
            .insert((name.to_owned(), record_type), say);
    }

    /// Makes `name` an alias of `owner`, which has the SRV records.
    pub(super) fn owner(&self, name: &str, owner: &str) {
        self.0
            .lock()
            .owners
            .insert(name.to_owned(), owner.to_owned());
    }

    /// Adds an alias to what comes along with SRV records: `name` for `target`.
    pub(super) fn alias(&self, name: &str, target: &str) {
        let alias = (name.to_owned(), target.to_owned());
        self.0.lock().aliases.push(alias);
    }

    /// Sets the A records of `name`.
    pub(crate) fn pods(&self, name: &str, hosts: impl IntoIterator<Item = u8>) {
        let addresses = hosts.into_iter().map(address).collect();
        self.say(name, RecordType::A, Say::Addresses(addresses));
    }

    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().zone.retain(|(known, _), _| known != name);
    }

    /// Answers every question with this, until `None`.
    pub(crate) fn instead(&self, say: Option<Say>) {
        self.0.lock().instead = say;
    }

    /// Answers every question of a type with this.
    pub(super) fn fails(&self, record_type: RecordType, say: Say) {
        self.0.lock().failing.insert(record_type, say);
    }

    /// Answers every question over TCP with this.
    pub(super) fn fails_over_tcp(&self, say: Say) {
        self.0.lock().over_tcp = Some(say);
    }

    /// Delays answers to every question of a type by `time`.
    pub(super) fn slow(&self, record_type: RecordType, time: Duration) {
        self.0.lock().slow.insert(record_type, time);
    }

    /// Answers every question for a name with this, until `None`.
    pub(super) fn fails_name(&self, name: &str, say: Option<Say>) {
        let mut state = self.0.lock();
        match say {
            Some(say) => state.failing_names.insert(name.to_owned(), say),
            None => state.failing_names.remove(name),
        };
    }

    /// Empties the zone until the result is dropped: every answer is NXDOMAIN.
    pub(crate) fn blank(&self) -> Blank<'_> {
        Blank {
            zone: std::mem::take(&mut self.0.lock().zone),
            script: self,
        }
    }

    /// The questions since the last call.
    pub(super) fn take_asked(&self) -> Vec<(String, RecordType)> {
        let asked = std::mem::take(&mut self.0.lock().asked);
        asked
            .into_iter()
            .map(|(name, record_type, _)| (name, record_type))
            .collect()
    }

    /// When each question of a type came.
    pub(super) fn times(&self, record_type: RecordType) -> Vec<Instant> {
        let state = self.0.lock();
        let asked = state.asked.iter();
        asked
            .filter(|(_, asked, _)| *asked == record_type)
            .map(|(_, _, at)| *at)
            .collect()
    }
}

/// Restores the zone when dropped.
pub(crate) struct Blank<'a> {
    zone: HashMap<(String, RecordType), Say>,
    script: &'a Script,
}

impl Drop for Blank<'_> {
    fn drop(&mut self) {
        self.script.0.lock().zone = std::mem::take(&mut self.zone);
    }
}

pub(super) fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

/// The endpoints of these hosts at port 80.
pub(crate) fn hosts(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new((address(host), 80).into());
    hosts.into_iter().map(endpoint).collect()
}

impl State {
    fn answer(&self, query: &Query, transport: Transport) -> Answer {
        let failed = |reason| Err(LookupError::new(query, reason));
        let name_server = ([10, 96, 0, 10], 53).into();
        let key = (query.name.to_string(), query.record_type);
        let reply = |records| {
            Ok(Ok(Reply {
                records,
                ttl: self.ttl,
                via: Via {
                    name_server,
                    transport,
                },
            }))
        };
        let nothing = |reason, is_provisional| {
            let ttl = Some(Duration::from_secs(5));
            Ok(Err(Nothing {
                is_provisional,
                ..Nothing::new(ttl, LookupError::new(query, reason))
            }))
        };
        let failing = || {
            let of_type = self.failing.get(&key.1);
            of_type.or_else(|| self.failing_names.get(&key.0))
        };
        let over_tcp = self.over_tcp.as_ref();
        let over_tcp = over_tcp.filter(|_| transport == Transport::Tcp);
        let said = self.instead.as_ref().or(over_tcp).or_else(failing);
        match said.or_else(|| self.zone.get(&key)) {
            Some(Say::Addresses(addresses)) => reply(Records::Addresses(addresses.clone())),
            Some(Say::Services {
                services,
                glue,
                truncated,
            }) => reply(Records::Services {
                owner: self.owners.get(&key.0).unwrap_or(&key.0).clone(),
                services: services.clone(),
                glue: glue.clone(),
                aliases: self.aliases.clone(),
                truncated: *truncated,
            }),
            Some(Say::ServFail) => failed(Reason::Refused(name_server, "SERVFAIL".into())),
            Some(Say::Silence) => failed(Reason::Timeout),
            Some(Say::NoName) => nothing(Reason::NoName, false),
            Some(Say::NoNameForNow) => nothing(Reason::NoName, true),
            None if self.zone.keys().any(|(name, _)| *name == key.0) => {
                nothing(Reason::NoRecords, false)
            }
            None => nothing(Reason::NoName, false),
        }
    }
}

impl Resolve for Script {
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError> {
        let candidates = name.candidates(&self.0.lock().search, 5);
        Ok(candidates.iter().map(|name| name.text().into()).collect())
    }

    fn ask(&self, query: Query, over: Transport, deadline: Instant) -> BoxFuture<'static, Answer> {
        let script = self.clone();
        let name = query.name.to_string();
        let asked = (name, query.record_type, Instant::now());
        script.0.lock().asked.push(asked);
        Box::pin(async move {
            // The zone counts as it is when the question arrives, not when the answer leaves.
            let answer = script.0.lock().answer(&query, over);
            let silent = matches!(&answer, Err(error) if error.is_timeout());
            let slow = script.0.lock().slow.get(&query.record_type).copied();
            let latency = slow.unwrap_or(LATENCY);
            let answered = sleep(if silent { SILENCE } else { latency });
            match timeout_at(deadline, answered).await {
                Ok(()) => answer,
                Err(_) => Err(LookupError::new(&query, Reason::Timeout)),
            }
        })
    }
}
