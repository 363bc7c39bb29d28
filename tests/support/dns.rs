//! An in-process DNS server whose records and faults change while it runs.

mod fault;
mod glue;
mod lease;
mod record;
mod serve;
mod wire;
mod writer;
mod zone;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hickory_resolver::proto::rr::RecordType;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

pub use fault::Fault;
use fault::Faults;
pub use glue::Glue;
use lease::PortLease;
pub use record::{RecordData, Srv};
use zone::Zone;

/// A DNS server on a loopback address, UDP and TCP on one port. It ends when dropped.
///
/// Names are compared without regard to case or a trailing dot. A name without any record is NXDOMAIN, a name with
/// records of another type only is NODATA; both carry an SOA. An alias of such a name is answered by its CNAME alone.
pub struct DnsServer {
    lease: PortLease,
    zone: Arc<Zone>,
    running: Mutex<Option<Running>>,
}

/// One query as it arrived, before any fault.
#[derive(Clone, Debug)]
pub struct LoggedQuery {
    /// Lower case, with the trailing dot.
    pub name: String,
    pub record_type: RecordType,
    pub transport: Transport,
    /// Whether it came with an OPT record.
    pub edns: bool,
    pub at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

struct Running {
    /// Dropping it stops the server too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl DnsServer {
    /// On 127.0.0.1.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// On any address of 127.0.0.0/8, at a port of its own.
    pub async fn start_at(ip: Ipv4Addr) -> Self {
        let server = Self {
            lease: PortLease::new(ip).expect("a port that is free for UDP and TCP"),
            zone: Arc::default(),
            running: Mutex::default(),
        };
        server.restart().await;
        server
    }

    pub fn addr(&self) -> SocketAddr {
        self.lease.addr()
    }

    /// Closes both sockets and all connections: from here on queries meet nobody (ICMP port unreachable, RST).
    ///
    /// A client that is not `connect`ed to the server never hears of the ICMP (hickory's isn't): it waits for its timeout.
    ///
    /// Records, faults and the log are kept. The port stays reserved, for [`restart`](Self::restart).
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { stop, task }) = running {
            drop(stop);
            task.await.expect("the DNS server's task doesn't panic");
        }
    }

    /// Starts again on the same port, after stopping if it runs.
    pub async fn restart(&self) {
        self.stop().await;
        let (udp, tcp) = self.lease.bind().expect("the port is reserved");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve::serve(udp, tcp, Arc::clone(&self.zone), stopped));
        *lock(&self.running) = Some(Running { stop, task });
    }

    /// Replaces the name's A records, order and duplicates kept. None at all removes them.
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
    pub fn set_srv(&self, name: &str, ttl: u32, records: impl IntoIterator<Item = Srv>) {
        let data = records.into_iter().map(RecordData::Srv).collect();
        self.zone.set(name, RecordType::SRV, ttl, data);
    }

    /// Makes the name an alias of `target`, for queries of every type but CNAME. It hides the name's other records.
    ///
    /// An answer is the CNAME, then what `target` has of the type asked for, aliases followed up to eight deep.
    pub fn set_cname(&self, name: &str, ttl: u32, target: &str) {
        let data = vec![RecordData::Cname(target.to_owned())];
        self.zone.set(name, RecordType::CNAME, ttl, data);
    }

    /// Removes all of the name's records.
    pub fn remove(&self, name: &str) {
        self.zone.lock().records.remove(&normal(name));
    }

    /// The TTL of NXDOMAIN and NODATA, in seconds (the SOA's minimum). 5 at first.
    pub fn set_negative_ttl(&self, ttl: u32) {
        self.zone.lock().negative_ttl = ttl;
    }

    /// Which glue goes with SRV records. [`Glue::Whole`] at first.
    pub fn set_glue(&self, glue: Glue) {
        self.zone.lock().glue = glue;
    }

    /// Whether each answer's records, and its glue, come in another order, as CoreDNS's `loadbalance` does. Off at first.
    ///
    /// The orders are the same in every run.
    pub fn shuffle(&self, on: bool) {
        self.zone.lock().shuffle = on.then(|| StdRng::seed_from_u64(1));
    }

    /// From now on queries for `name` (`"*"` is any) and `record_type` (`ANY` is any) meet `fault`.
    ///
    /// It replaces an earlier fault of the same name and type. Where several match, the latest counts.
    pub fn fault(&self, name: &str, record_type: RecordType, fault: Fault) {
        self.zone
            .lock()
            .faults
            .add(normal(name), record_type, fault);
    }

    pub fn clear_faults(&self) {
        self.zone.lock().faults = Faults::default();
    }

    /// All queries since the start, or since [`forget`](Self::forget), oldest first.
    pub fn queries(&self) -> Vec<LoggedQuery> {
        self.zone.lock().log.clone()
    }

    /// How many queries the log holds, over UDP and TCP: each is an exchange, answered or not.
    pub fn exchanges(&self) -> usize {
        self.zone.lock().log.len()
    }

    /// Empties the log: all that counts queries or returns them begins anew.
    pub fn forget(&self) {
        self.zone.lock().forget();
    }

    /// How many queries for `name` and `record_type` have come.
    pub fn count(&self, name: &str, record_type: RecordType) -> usize {
        let name = normal(name);
        let asked =
            |query: &&LoggedQuery| normal(&query.name) == name && query.record_type == record_type;
        self.zone.lock().log.iter().filter(asked).count()
    }

    /// Waits until the log holds at least `n` queries.
    pub async fn wait_for_queries(&self, n: usize) {
        self.wait_until(|queries| queries.len() >= n).await;
    }

    /// Waits until the log of queries satisfies `condition`.
    #[track_caller]
    pub fn wait_until(
        &self,
        mut condition: impl FnMut(&[LoggedQuery]) -> bool,
    ) -> impl Future<Output = ()> {
        let event = async move {
            let mut logged = self.zone.logged.subscribe();
            while !condition(&self.zone.lock().log) {
                logged.changed().await.expect("the zone holds the sender");
            }
        };
        super::within("the DNS query waited for", event)
    }

    /// The first query that no earlier call has returned: waits if there is none.
    pub async fn next_query(&self) -> LoggedQuery {
        let event = async {
            let mut logged = self.zone.logged.subscribe();
            loop {
                if let Some(query) = self.zone.lock().next_logged() {
                    return query;
                }
                logged.changed().await.expect("the zone holds the sender");
            }
        };
        super::within("the next DNS query", event).await
    }
}

/// A name as the zone keeps it: lower case, without the trailing dot.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A test that panicked elsewhere says so itself: poison adds nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
