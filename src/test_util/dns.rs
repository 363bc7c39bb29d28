//! A DNS server inside the process, whose records and faults can change while it runs.

pub(super) mod fault;
pub(super) mod glue;
mod lease;
pub(super) mod log;
mod name;
pub(super) mod record;
mod serve;
mod wire;
mod writer;
mod zone;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::oneshot, task::JoinHandle};

use self::{
    fault::{Fault, Faults},
    glue::Glue,
    lease::PortLease,
    log::LoggedQuery,
    name::{check, normal},
    record::{RecordData, RecordType, Srv},
    zone::Zone,
};
use super::within::within;
use crate::sync::Mutex;

/// A DNS server on a loopback address, with UDP and TCP on one port.
///
/// Names are compared without regard to case or a trailing dot. A name without any record gets NXDOMAIN, and a name
/// that has only records of other types gets NODATA, both with an SOA. An alias of such a name is answered with its
/// CNAME alone. Times to live are in seconds. A record type may be a [`RecordType`], its number, or another crate's
/// type that converts into the number.
///
/// Dropping it closes its sockets and connections. It lives in the runtime that it was started in, and ends with that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// use std::net::Ipv4Addr;
/// use tower_headless::{
///     Dns,
///     test_util::{DnsServer, Fault, RecordType},
/// };
///
/// let server = DnsServer::start().await;
/// server.set_a("web.default.svc.cluster.local", 5, [Ipv4Addr::new(10, 0, 0, 1)]);
/// // The server fails the first query, and answers the next one.
/// server.fault("*", RecordType::A, Fault::SERVFAIL.times(1));
///
/// let dns = Dns::new("web.default.svc.cluster.local.:80".parse()?).name_servers([server.addr()]);
/// assert!(dns.resolve().await.is_err());
/// assert_eq!(dns.resolve().await?.endpoints().len(), 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "the server ends when it is dropped"]
pub struct DnsServer {
    lease: PortLease,
    zone: Arc<Zone>,
    running: Mutex<Option<Running>>,
}

struct Running {
    /// Dropping it stops the server too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl DnsServer {
    /// Starts a server on 127.0.0.1, at a free port.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// Starts a server on this address of 127.0.0.0/8, at a free port.
    ///
    /// # Panics
    ///
    /// If there is no free port, or the address is not this machine's.
    pub async fn start_at(ip: Ipv4Addr) -> Self {
        let lease = PortLease::new(ip);
        let server = Self {
            lease: lease
                .unwrap_or_else(|error| panic!("no DNS server can listen on {ip}: {error}")),
            zone: Arc::default(),
            running: Mutex::default(),
        };
        server.restart().await;
        server
    }

    /// The address that it listens on, for a client's list of name servers.
    pub fn addr(&self) -> SocketAddr {
        self.lease.addr()
    }

    /// Closes both sockets and all connections. From now on, nobody is there for queries (ICMP port unreachable, RST).
    ///
    /// A client that hasn't `connect`ed its UDP socket (hickory doesn't) never sees the ICMP, and waits for its
    /// timeout.
    ///
    /// Records, faults and the log are kept. The port stays reserved, for [`restart`](Self::restart).
    pub async fn stop(&self) {
        let running = self.running.lock().take();
        if let Some(Running { stop, task }) = running {
            drop(stop);
            // It ends by itself, or with its runtime.
            let _ = task.await;
        }
    }

    /// Starts again on the same port; first stops if it is running.
    ///
    /// # Panics
    ///
    /// If the process has no sockets left. (The port is reserved.)
    pub async fn restart(&self) {
        self.stop().await;
        let (udp, tcp) = self
            .lease
            .bind()
            .unwrap_or_else(|error| panic!("the port is reserved: {error}"));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve::serve(udp, tcp, Arc::clone(&self.zone), stopped));
        *self.running.lock() = Some(Running { stop, task });
    }

    /// Replaces the name's A records, keeping order and duplicates. With no addresses, it removes them.
    pub fn set_a(&self, name: &str, ttl: u32, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let data = addresses.into_iter().map(RecordData::A).collect();
        self.zone.set(name, RecordType::A, ttl, data);
    }

    /// Replaces the name's AAAA records, as [`set_a`](Self::set_a) does.
    pub fn set_aaaa(&self, name: &str, ttl: u32, addresses: impl IntoIterator<Item = Ipv6Addr>) {
        let data = addresses.into_iter().map(RecordData::Aaaa).collect();
        self.zone.set(name, RecordType::AAAA, ttl, data);
    }

    /// Replaces the name's SRV records, as [`set_a`](Self::set_a) does.
    ///
    /// Their answer carries the targets' addresses too: see [`set_glue`](Self::set_glue).
    ///
    /// # Panics
    ///
    /// If a target isn't a valid DNS name: it, or one of its labels, is too long.
    #[track_caller]
    pub fn set_srv(&self, name: &str, ttl: u32, records: impl IntoIterator<Item = Srv>) {
        let records: Vec<_> = records.into_iter().collect();
        for record in &records {
            check(&record.target);
        }
        let data = records.into_iter().map(RecordData::Srv).collect();
        self.zone.set(name, RecordType::SRV, ttl, data);
    }

    /// Makes the name an alias of `target`, for queries of every type but CNAME. It hides the name's other records.
    ///
    /// The answer has the CNAME, then `target`'s records of the queried type. Aliases are followed up to eight deep.
    ///
    /// # Panics
    ///
    /// If the target isn't a valid DNS name: it, or one of its labels, is too long.
    #[track_caller]
    pub fn set_cname(&self, name: &str, ttl: u32, target: &str) {
        check(target);
        let data = vec![RecordData::Cname(target.to_owned())];
        self.zone.set(name, RecordType::CNAME, ttl, data);
    }

    /// Removes all of the name's records.
    pub fn remove(&self, name: &str) {
        self.zone.state.lock().records.remove(&normal(name));
    }

    /// Sets the TTL of NXDOMAIN and NODATA, in seconds (the SOA's minimum); 5 at first.
    pub fn set_negative_ttl(&self, ttl: u32) {
        self.zone.state.lock().negative_ttl = ttl;
    }

    /// Sets which glue goes with SRV records; [`Glue::Whole`] at first.
    pub fn set_glue(&self, glue: Glue) {
        self.zone.state.lock().glue = glue;
    }

    /// Sets whether each answer's records, and its glue, are shuffled, as CoreDNS's `loadbalance` does. Off at first.
    ///
    /// The orders are the same in every run.
    pub fn shuffle(&self, on: bool) {
        self.zone.state.lock().shuffle = on.then(|| StdRng::seed_from_u64(1));
    }

    /// Sets a fault for queries for `name` (`"*"` is any) and `record_type` ([`ANY`](RecordType::ANY) is any) from now
    /// on.
    ///
    /// It replaces an earlier fault of the same name and type. If several match a query, the latest counts.
    ///
    /// # Panics
    ///
    /// If it is a [`Fault::Raw`] of more than 65,535 bytes.
    #[track_caller]
    pub fn fault(&self, name: &str, record_type: impl Into<u16>, fault: Fault) {
        let record_type = RecordType::from(record_type.into());
        self.zone
            .state
            .lock()
            .faults
            .add(normal(name), record_type, fault);
    }

    /// Ends all faults: queries get their right answers again.
    pub fn clear_faults(&self) {
        self.zone.state.lock().faults = Faults::default();
    }

    /// All queries since the start, or since [`forget`](Self::forget), oldest first.
    pub fn queries(&self) -> Vec<LoggedQuery> {
        self.zone.state.lock().log.clone()
    }

    /// How many queries the log holds, over UDP and TCP, answered or not.
    pub fn exchanges(&self) -> usize {
        self.zone.state.lock().log.len()
    }

    /// Empties the log, so that everything that counts or returns queries begins anew.
    pub fn forget(&self) {
        self.zone.state.lock().forget();
    }

    /// How many queries for `name` and `record_type` the log holds.
    pub fn count(&self, name: &str, record_type: impl Into<u16>) -> usize {
        let (name, record_type) = (normal(name), RecordType::from(record_type.into()));
        let asked =
            |query: &&LoggedQuery| normal(&query.name) == name && query.record_type == record_type;
        self.zone.state.lock().log.iter().filter(asked).count()
    }

    /// Waits until the log holds at least `n` queries.
    ///
    /// # Panics
    ///
    /// If it doesn't within [`PATIENCE`](super::PATIENCE).
    #[track_caller]
    pub fn wait_for_queries(&self, n: usize) -> impl Future<Output = ()> {
        self.wait_until(move |queries| queries.len() >= n)
    }

    /// Waits until the log of queries satisfies `condition`.
    ///
    /// # Panics
    ///
    /// If it doesn't within [`PATIENCE`](super::PATIENCE).
    #[track_caller]
    pub fn wait_until(
        &self,
        mut condition: impl FnMut(&[LoggedQuery]) -> bool,
    ) -> impl Future<Output = ()> {
        let event = async move {
            let mut logged = self.zone.logged.subscribe();
            // A copy of the log: the condition may ask the server.
            while !condition(&self.queries()) {
                logged.changed().await.expect("the zone holds the sender");
            }
        };
        within("the DNS query waited for", event)
    }

    /// Returns the first query that no earlier call has returned. Waits if there is none.
    ///
    /// # Panics
    ///
    /// If none comes within [`PATIENCE`](super::PATIENCE).
    #[track_caller]
    pub fn next_query(&self) -> impl Future<Output = LoggedQuery> {
        let event = async {
            let mut logged = self.zone.logged.subscribe();
            loop {
                if let Some(query) = self.zone.state.lock().next_logged() {
                    return query;
                }
                logged.changed().await.expect("the zone holds the sender");
            }
        };
        within("the next DNS query", event)
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}
