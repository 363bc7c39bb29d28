//! One name server, asked over UDP and, where that is too small, over TCP. The only file that names hickory.
//!
//! hickory has the wire format, the sockets, the retransmissions and the checks of who answers what. Its resolver, a layer
//! above that, is not used: it throws away what a truncated answer has, doesn't take SERVFAIL to another name server, and
//! tells neither who answered nor how. What is asked goes out once, in a packet of the size that DNS flag day 2020
//! recommends (1,232 bytes); what is known not to fit goes over TCP at once.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsExchange, DnsHandle, DnsRequestSender, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Query as Question, ResponseCode},
        rr::{Name, RData, Record, RecordType as Type},
    },
};

use super::lookup::{
    Answer, LookupError, Nothing, Query, Reason, RecordType, Records, Reply, Service, Transport,
    Via,
};

/// The largest packet that is asked for.
const PAYLOAD: u16 = 1232;

/// How often a question is sent over UDP at most before its time is up.
const SENDS: u8 = 4;

/// How many CNAMEs in a row are followed.
const ALIASES: usize = 8;

type Connection = DnsExchange<TokioRuntimeProvider>;

/// A name server.
pub(super) struct Client {
    server: SocketAddr,
    /// Has the tasks that drive the connections: they end with it.
    provider: TokioRuntimeProvider,
    /// The TCP connection of the last large answer, for the next one.
    connection: Mutex<Option<Connection>>,
    /// Questions whose answers didn't fit into a packet last time.
    large: Mutex<HashSet<Query>>,
}

impl Client {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            provider: TokioRuntimeProvider::default(),
            connection: Mutex::default(),
            large: Mutex::default(),
        }
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Asks, and gives up after `budget` at the latest.
    pub(super) async fn ask(&self, query: &Query, over: Transport, budget: Duration) -> Answer {
        let failed = |error| LookupError::new(query, self.reason(error));
        let exchange = self.exchange(query, over, budget);
        let (response, transport) = match tokio::time::timeout(budget, exchange).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(failed(NetError::Timeout)),
        };
        let via = Via {
            name_server: self.server,
            transport,
        };
        interpret(query, &response, via)
    }

    async fn exchange(
        &self,
        query: &Query,
        over: Transport,
        budget: Duration,
    ) -> Result<(DnsResponse, Transport), NetError> {
        let request = request(query, budget / u32::from(SENDS))?;
        if over == Transport::Udp && !lock(&self.large).contains(query) {
            let response = self.exchange_udp(request.clone(), budget).await?;
            if !response.truncation {
                return Ok((response, Transport::Udp));
            }
        }
        // Two attempts fit: a connection that has died costs no more than one.
        let response = self.exchange_tcp(request, budget / 2).await?;
        let fits = response.as_buffer().len() <= usize::from(PAYLOAD) && !response.truncation;
        let mut large = lock(&self.large);
        let _ = match fits {
            true => large.remove(query),
            false => large.insert(query.clone()),
        };
        Ok((response, Transport::Tcp))
    }

    async fn exchange_udp(
        &self,
        request: DnsRequest,
        budget: Duration,
    ) -> Result<DnsResponse, NetError> {
        let mut socket = UdpClientStream::builder(self.server, self.provider.clone())
            .with_timeout(Some(budget))
            .with_max_retries(SENDS)
            .with_retry_interval_floor(0)
            .build();
        socket.send_message(request).first_answer().await
    }

    /// Asks over the connection that there is, and over a new one if that leads to nothing.
    async fn exchange_tcp(
        &self,
        request: DnsRequest,
        attempt: Duration,
    ) -> Result<DnsResponse, NetError> {
        let kept = lock(&self.connection).clone();
        if let Some(connection) = kept {
            match connection.send(request.clone()).first_answer().await {
                Ok(response) => return Ok(response),
                Err(_) => *lock(&self.connection) = None,
            }
        }
        let provider = self.provider.clone();
        let connect = TcpClientStream::exchange(self.server, None, attempt, None, provider);
        let connection = connect.await?;
        *lock(&self.connection) = Some(connection.clone());
        let answer = connection.send(request).first_answer().await;
        if answer.is_err() {
            *lock(&self.connection) = None;
        }
        answer
    }

    fn reason(&self, error: NetError) -> Reason {
        match error {
            NetError::Timeout => Reason::Timeout,
            error => Reason::Other(self.server, error.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn request(query: &Query, retry_interval: Duration) -> Result<DnsRequest, NetError> {
    let mut name = Name::from_ascii(&query.name)?;
    name.set_fqdn(true);
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.edns_payload_len = PAYLOAD;
    options.retry_interval = retry_interval;
    let question = Question::query(name, query.record_type.into());
    Ok(DnsRequest::from_query(question, options))
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

/// What the bytes of a response say of `query`, whoever sent them.
#[cfg(any(test, fuzzing))]
pub(super) fn read(query: &Query, bytes: Vec<u8>, via: Via) -> Answer {
    let unreadable = |error: hickory_resolver::proto::ProtoError| {
        let reason = Reason::Other(via.name_server, error.to_string());
        LookupError::new(query, reason)
    };
    let response = DnsResponse::from_buffer(bytes).map_err(unreadable)?;
    interpret(query, &response, via)
}

/// What `response` says of `query`.
fn interpret(query: &Query, response: &DnsResponse, via: Via) -> Answer {
    let failed = |reason| LookupError::new(query, reason);
    let nothing = |reason| {
        let ttl = response.negative_ttl();
        Ok(Err(Nothing {
            ttl: ttl.map(|ttl| Duration::from_secs(ttl.into())),
            error: failed(reason),
        }))
    };
    match response.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return nothing(Reason::NoName),
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
        (None, _) if alias_ttl.is_some() => Err(failed(Reason::Alias(via.name_server))),
        (None, _) if is_referral(response) => Err(failed(Reason::Referral(via.name_server))),
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
                    services: records.filter_map(service).collect(),
                    glue: glue(response),
                    truncated: response.truncation,
                },
            },
            ttl: Duration::from_secs(ttl.min(alias_ttl.unwrap_or(u32::MAX)).into()),
            via,
        })),
    }
}

/// The question that was answered, if it is the one that was asked. hickory checks it for UDP only.
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

/// Whether the answer names other servers instead of saying that there is nothing (RFC 2308 §2.2).
fn is_referral(response: &DnsResponse) -> bool {
    let has = |record_type| {
        let mut authorities = response.authorities.iter();
        authorities.any(|record| record.record_type() == record_type)
    };
    has(Type::NS) && !has(Type::SOA)
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

fn glue(response: &DnsResponse) -> Vec<(String, IpAddr)> {
    let records = response.additionals.iter();
    records
        .filter_map(|record| Some((text(&record.name), address(record)?)))
        .collect()
}

fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text.make_ascii_lowercase();
    text
}
