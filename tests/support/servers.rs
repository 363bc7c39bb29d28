//! Real DNS servers as processes. They order, truncate and complete answers in their own ways, which the server of
//! `dns.rs` can't imitate.
//!
//! `.ci/servers` installs them. If they are missing, tests that need them are skipped, with a line on stderr;
//! `TOWER_HEADLESS_SERVERS=required` in the environment makes that a failure.

mod coredns;
mod knot;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::{self, Write as _},
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{PATIENCE, dns::Transport, within};

/// The zone of every server: a cluster's.
const ZONE: &str = "cluster.local.";
/// How often a server is polled for a change.
const POLL: Duration = Duration::from_millis(5);

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    Knot,
    CoreDns,
}

/// A real DNS server with one zone, `cluster.local.`, on 127.0.0.1, UDP and TCP on one port. It is killed when dropped.
///
/// A change is in effect when the call that made it returns. Names are absolute, with or without the trailing dot, and
/// belong to the zone.
///
/// CoreDNS gives all records of an answer one TTL: the lowest of theirs, but at least 5 s and at most 30 s. Its `cache`
/// does so even for zones that it doesn't cache.
pub struct Server {
    software: Software,
    addr: SocketAddr,
    backend: Box<dyn Backend>,
    zone: Mutex<Zone>,
    // Dropped in this order: the process uses the folder.
    process: Process,
    dir: TempDir,
}

/// How one kind of server is started and changed.
trait Backend: Send + Sync {
    /// Writes the server's files to `dir`. Returns the command, which runs in the foreground and logs to stdout or
    /// stderr.
    fn configure(&self, dir: &Path, addr: SocketAddr, zone: &Zone) -> io::Result<Command>;

    /// Changes the running server's zone from `old` to `new`, now or soon.
    fn publish<'a>(
        &'a self,
        dir: &'a Path,
        addr: SocketAddr,
        old: &'a Zone,
        new: &'a Zone,
    ) -> BoxFuture<'a, io::Result<()>>;
}

impl Server {
    /// Starts a server. `None`, with a line on stderr, if the software isn't installed and isn't required.
    pub async fn start(software: Software) -> Option<Self> {
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            let found: Result<Box<dyn Backend>, String> = match software {
                Software::Knot => knot::Knot::find().map(|knot| Box::new(knot) as _),
                Software::CoreDns => coredns::CoreDns::find().map(|coredns| Box::new(coredns) as _),
            };
            let backend = found.map_err(|missing| skip(software, &missing)).ok()?;
            match Self::launch(software, backend).await {
                Ok(server) => return Some(server),
                // Another process has taken the port.
                Err(log) if log.to_lowercase().contains("address already in use") => {}
                Err(log) => panic!("{software:?} doesn't start:\n{log}"),
            }
        }
        panic!("{software:?} found its port taken {ATTEMPTS} times");
    }

    /// Starts the process. The error is the end of the server's log.
    async fn launch(software: Software, backend: Box<dyn Backend>) -> Result<Self, String> {
        let dir = TempDir::new().expect("a folder of its own");
        let addr = free_port().expect("a port that is free for UDP and TCP");
        let zone = Zone::new(dir.name());
        let process = backend
            .configure(dir.path(), addr, &zone)
            .and_then(|command| Process::spawn(command, &dir.path().join("log")))
            .expect("the program is there and may be run");
        let mut server = Self {
            software,
            addr,
            backend,
            zone: Mutex::new(zone.clone()),
            process,
            dir,
        };
        let ready = async {
            while !server.process.has_exited() && !server.serves(&zone).await {
                sleep(POLL).await;
            }
        };
        let _ = timeout(PATIENCE, ready).await;
        if server.process.has_exited() || !server.serves(&zone).await {
            return Err(server.process.log());
        }
        Ok(server)
    }

    pub fn software(&self) -> Software {
        self.software
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The folder with its configuration, its zone and its log.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Replaces the name's A records. None at all removes them.
    pub async fn set_a(&self, name: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        self.change(|zone| zone.set_a(name, ttl, addresses)).await;
    }

    /// Replaces the name's AAAA records. None at all removes them.
    pub async fn set_aaaa(&self, name: &str, ttl: u32, addresses: &[Ipv6Addr]) {
        self.change(|zone| zone.set_aaaa(name, ttl, addresses))
            .await;
    }

    /// Replaces the name's SRV records, each a port and a target. None at all removes them.
    pub async fn set_srv(&self, name: &str, ttl: u32, records: &[(u16, &str)]) {
        self.change(|zone| zone.set_srv(name, ttl, records)).await;
    }

    /// Removes all of the name's records: NXDOMAIN, unless the zone has names below this one.
    pub async fn remove(&self, name: &str) {
        self.change(|zone| zone.remove(name)).await;
    }

    /// Makes any number of changes at once.
    ///
    /// Knot gets more than some hundreds of records in several steps, and may answer in between. Sometimes a step takes
    /// a second, because events that wait for each other run at whole seconds.
    pub async fn change(&self, change: impl FnOnce(&mut Zone)) {
        let mut zone = self.zone.lock().await;
        let old = zone.clone();
        change(&mut zone);
        zone.serial += SERIAL_STEP;
        self.backend
            .publish(self.dir.path(), self.addr, &old, &zone)
            .await
            .unwrap_or_else(|error| panic!("{error}; the server's log:\n{}", self.process.log()));
        let arrived = async {
            while !self.serves(&zone).await {
                sleep(POLL).await;
            }
        };
        within("the server's answer with the change in it", arrived).await;
    }

    /// Whether this very server answers with this version of the zone, over both transports.
    ///
    /// Checking the SOA is enough, because both servers replace a zone as a whole.
    async fn serves(&self, zone: &Zone) -> bool {
        for transport in [Transport::Tcp, Transport::Udp] {
            let answer = self.ask(transport, ZONE, RecordType::SOA).await;
            let records = answer.map_or_else(|_| Vec::new(), |answer| answer.answers);
            let current = records.iter().any(|record| match &record.data {
                RData::SOA(soa) => soa.rname.to_string() == zone.rname && soa.serial == zone.serial,
                _ => false,
            });
            if !current {
                return false;
            }
        }
        true
    }

    /// Sends one query, and returns the raw answer.
    pub async fn ask(
        &self,
        transport: Transport,
        name: &str,
        record_type: RecordType,
    ) -> io::Result<Message> {
        const LOST: Duration = Duration::from_secs(2);
        let query = query(name, record_type);
        let reply = match transport {
            Transport::Tcp => timeout(LOST, exchange_tcp(self.addr, &query)).await??,
            _ => timeout(LOST, exchange_udp(self.addr, &query)).await??,
        };
        Message::from_vec(&reply).map_err(io::Error::other)
    }
}

/// A query with the payload size that resolvers use (DNS Flag Day 2020).
fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(absolute(name)).expect("a name");
    message.add_query(Query::query(name, record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().expect("encodable")
}

/// Uses a new socket for each query, so that a late reply to an earlier one can't be taken for its answer.
async fn exchange_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut reply).await?;
    reply.truncate(length);
    Ok(reply)
}

async fn exchange_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).expect("a query is short");
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// The distance between serials, which leaves room for the steps of one change.
const SERIAL_STEP: u32 = 1_000;

/// The zone that a server should have.
#[derive(Clone)]
pub struct Zone {
    serial: u32,
    /// Identifies the server, so that another one that got its port isn't taken for it.
    rname: String,
    records: BTreeMap<(String, RecordType), RecordSet>,
}

#[derive(Clone, PartialEq, Eq)]
struct RecordSet {
    ttl: u32,
    /// In the format of a master file (RFC 1035 §5.1).
    data: Vec<String>,
}

impl Zone {
    fn new(server: &str) -> Self {
        let mut zone = Self {
            serial: 1,
            rname: format!("{server}.{ZONE}"),
            records: BTreeMap::new(),
        };
        // An hour, because the TTLs of additional records must not lower the answer's own (see `Server`).
        let name_server = format!("ns.dns.{ZONE}");
        zone.set_a(&name_server, 3_600, &[Ipv4Addr::new(10, 96, 0, 10)]);
        zone.set(ZONE, RecordType::NS, 3_600, vec![name_server]);
        zone
    }

    /// See [`Server::set_a`].
    pub fn set_a(&mut self, name: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        let data = addresses.iter().map(ToString::to_string).collect();
        self.set(name, RecordType::A, ttl, data);
    }

    /// See [`Server::set_aaaa`].
    pub fn set_aaaa(&mut self, name: &str, ttl: u32, addresses: &[Ipv6Addr]) {
        let data = addresses.iter().map(ToString::to_string).collect();
        self.set(name, RecordType::AAAA, ttl, data);
    }

    /// See [`Server::set_srv`].
    pub fn set_srv(&mut self, name: &str, ttl: u32, records: &[(u16, &str)]) {
        // The same weights as from CoreDNS's kubernetes plugin.
        let weight = (100 / records.len().max(1)).max(1);
        let record =
            |(port, target): &(u16, &str)| format!("0 {weight} {port} {}", absolute(target));
        let data = records.iter().map(record).collect();
        self.set(name, RecordType::SRV, ttl, data);
    }

    /// See [`Server::remove`].
    pub fn remove(&mut self, name: &str) {
        let name = absolute(name);
        self.records.retain(|(owner, _), _| *owner != name);
    }

    fn set(&mut self, name: &str, record_type: RecordType, ttl: u32, data: Vec<String>) {
        let key = (absolute(name), record_type);
        if data.is_empty() {
            self.records.remove(&key);
        } else {
            self.records.insert(key, RecordSet { ttl, data });
        }
    }

    /// The SOA. Negative answers live for 5 s, as with CoreDNS's kubernetes plugin.
    fn soa(&self) -> String {
        let Self { serial, rname, .. } = self;
        format!("{ZONE} 5 SOA ns.dns.{ZONE} {rname} {serial} 7200 1800 86400 5")
    }

    /// The name's records as lines of a master file.
    fn lines<'a>(
        (name, record_type): &'a (String, RecordType),
        RecordSet { ttl, data }: &'a RecordSet,
    ) -> impl Iterator<Item = String> + 'a {
        data.iter()
            .map(move |data| format!("{name} {ttl} {record_type} {data}"))
    }

    /// The whole zone as a master file.
    fn master_file(&self) -> String {
        let mut file = self.soa() + "\n";
        for line in self
            .records
            .iter()
            .flat_map(|(key, set)| Self::lines(key, set))
        {
            writeln!(file, "{line}").expect("a String takes everything");
        }
        file
    }
}

/// A name in lower case, with the trailing dot.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}

/// A server's process. Dropping it kills it and waits for its end, so that it leaves no zombie, and its port is free.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn spawn(mut command: Command, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            child: command.spawn()?,
            log: log.to_owned(),
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_exited(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its exit status, if it has ended.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The last lines it wrote.
    pub fn log(&self) -> String {
        const TAIL: usize = 30;
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that is removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tower-headless-{}-{number}", process::id());
            let path = env::temp_dir().join(name);
            match fs::create_dir(&path) {
                // An earlier process with our ID was killed, and left its folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self(path)),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> &str {
        let name = self.0.file_name().and_then(|name| name.to_str());
        name.expect("we made it of ASCII")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A folder left behind in the system's temporary folder is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A free port. It was free just now, but another process may take it before the server does.
///
/// No port is given twice, because two CoreDNS would share it (SO_REUSEPORT).
pub fn free_port() -> io::Result<SocketAddr> {
    static GIVEN: std::sync::Mutex<BTreeSet<u16>> = std::sync::Mutex::new(BTreeSet::new());
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..100 {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = udp.local_addr()?;
        match std::net::TcpListener::bind(addr) {
            Ok(_) if GIVEN.lock().expect("no panic under it").insert(addr.port()) => {
                return Ok(addr);
            }
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Notes that a test is skipped. Panics if the servers are required.
pub fn skip(software: impl fmt::Debug, missing: &str) {
    let how = "`.ci/servers` installs it";
    let required = env::var_os("TOWER_HEADLESS_SERVERS").is_some_and(|value| value == "required");
    assert!(!required, "{software:?} is required: {missing}; {how}");
    // Bypasses the harness, which shows the output of passing tests only on request.
    let _ = writeln!(
        io::stderr(),
        "SKIPPED without {software:?}: {missing}; {how}"
    );
}

/// Finds a program on the `PATH`, and in the sbin folders, where Debian keeps servers.
pub fn find_program(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(sbin)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("no {name} on the PATH"))
}
