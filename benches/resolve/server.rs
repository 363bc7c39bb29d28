//! A name server that costs next to nothing: it knows one name, and makes its replies before the first query comes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SOA},
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{self, TcpStream},
    runtime::Builder,
};

/// The largest packet, which both sides announce.
const PAYLOAD: usize = 1232;

const HEADER: usize = 12;

/// The length of an A record whose name is a pointer to the question's, and of an OPT record without options.
const RECORD: usize = 16;
const OPT: usize = 11;

const TTL: u32 = 30;

/// How many orders of the records there are: CoreDNS's `loadbalance` also changes their order.
const ORDERS: usize = 4;

/// The server, on loopback, in its own thread until the process ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    zone: Arc<Zone>,
}

/// How many queries have come.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) udp: u64,
    pub(crate) tcp: u64,
    pub(crate) connections: u64,
    /// For A records, with a whole answer.
    pub(crate) answered: u64,
}

impl Asked {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            udp: self.udp - before.udp,
            tcp: self.tcp - before.tcp,
            connections: self.connections - before.connections,
            answered: self.answered - before.answered,
        }
    }
}

impl Server {
    /// A server where `name` has `len` A records and no AAAA record.
    pub(crate) fn start(name: &Name, len: usize) -> Self {
        let zone = Arc::new(Zone::new(name, len));
        let (udp, tcp) = (0..16)
            .find_map(|_| bind().ok())
            .expect("a port that is free for UDP and TCP");
        let address = udp.local_addr().expect("a bound socket");
        let there = zone.clone();
        thread::spawn(move || serve(udp, tcp, there));
        Self { address, zone }
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked {
            udp: self.zone.udp.load(Relaxed),
            tcp: self.zone.tcp.load(Relaxed),
            connections: self.zone.connections.load(Relaxed),
            answered: self.zone.answered.load(Relaxed),
        }
    }
}

fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let tcp = TcpListener::bind(udp.local_addr()?)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

fn serve(udp: UdpSocket, tcp: TcpListener, zone: Arc<Zone>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let udp = net::UdpSocket::from_std(udp)?;
            let tcp = net::TcpListener::from_std(tcp)?;
            tokio::try_join!(packets(udp, &zone), connections(tcp, &zone))
        })
    });
    served.expect("loopback works");
}

async fn packets(socket: net::UdpSocket, zone: &Zone) -> io::Result<()> {
    let (mut query, mut out) = ([0; 512], Vec::new());
    loop {
        let (len, from) = socket.recv_from(&mut query).await?;
        zone.udp.fetch_add(1, Relaxed);
        let Some(reply) = zone.reply(&query[..len]) else {
            continue;
        };
        out.clear();
        out.extend_from_slice(&query[..2]);
        out.extend_from_slice(&reply.packet[2..]);
        if reply.is_whole() && reply.has_records {
            zone.answered.fetch_add(1, Relaxed);
        }
        // The client may be gone.
        let _ = socket.send_to(&out, from).await;
    }
}

async fn connections(listener: net::TcpListener, zone: &Arc<Zone>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        zone.connections.fetch_add(1, Relaxed);
        let zone = zone.clone();
        // Ends with the connection; the error says no more than that.
        tokio::spawn(async move { messages(stream, &zone).await });
    }
}

async fn messages(stream: TcpStream, zone: &Zone) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut query, mut out) = (Vec::new(), Vec::new());
    loop {
        let len = stream.read_u16().await?;
        query.resize(usize::from(len), 0);
        stream.read_exact(&mut query).await?;
        zone.tcp.fetch_add(1, Relaxed);
        let Some(reply) = zone.reply(&query) else {
            return Ok(());
        };
        let len = u16::try_from(reply.message.len()).expect("a message, whose length has 16 bits");
        out.clear();
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&query[..2]);
        out.extend_from_slice(&reply.message[2..]);
        if reply.has_records {
            zone.answered.fetch_add(1, Relaxed);
        }
        stream.write_all(&out).await?;
    }
}

/// All prepared answers, and how often each was used.
struct Zone {
    addresses: Vec<Reply>,
    nothing: Reply,
    next: AtomicUsize,
    udp: AtomicU64,
    tcp: AtomicU64,
    connections: AtomicU64,
    answered: AtomicU64,
}

/// One answer, without a query's ID yet.
struct Reply {
    /// The answer over TCP.
    message: Vec<u8>,
    /// The answer over UDP: the same if it fits, otherwise as much as fits, with the truncation flag.
    packet: Vec<u8>,
    has_records: bool,
}

impl Zone {
    fn new(name: &Name, len: usize) -> Self {
        let mut addresses: Vec<_> = (0..len).map(super::pod).collect();
        let mut rng = SmallRng::seed_from_u64(42);
        let mut order = |_| {
            addresses.shuffle(&mut rng);
            Reply::addresses(name, &addresses)
        };
        Self {
            addresses: (0..ORDERS).map(&mut order).collect(),
            nothing: Reply::nothing(name),
            next: AtomicUsize::default(),
            udp: AtomicU64::default(),
            tcp: AtomicU64::default(),
            connections: AtomicU64::default(),
            answered: AtomicU64::default(),
        }
    }

    /// Ignores the name, because there is only one.
    fn reply(&self, query: &[u8]) -> Option<&Reply> {
        let record_type = record_type(query)?;
        if record_type == u16::from(RecordType::A) {
            let next = self.next.fetch_add(1, Relaxed);
            return Some(&self.addresses[next % ORDERS]);
        }
        Some(&self.nothing)
    }
}

/// The record type that a query asks for.
fn record_type(query: &[u8]) -> Option<u16> {
    let mut at = HEADER;
    loop {
        match *query.get(at)? {
            0 => break,
            label => at += 1 + usize::from(label),
        }
    }
    let bytes = query.get(at + 1..at + 3)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

impl Reply {
    fn addresses(name: &Name, addresses: &[Ipv4Addr]) -> Self {
        let encode = |addresses: &[Ipv4Addr], truncated| {
            let mut message = message(name, RecordType::A);
            message.metadata.truncation = truncated;
            let message = message.to_vec().expect("a question");
            with_answers(message, addresses)
        };
        let message = encode(addresses, false);
        let room = (PAYLOAD - encode(&[], true).len()) / RECORD;
        let packet = match addresses.get(..room) {
            Some(some) if some.len() < addresses.len() => encode(some, true),
            _ => message.clone(),
        };
        assert!(message.len() <= usize::from(u16::MAX) && packet.len() <= PAYLOAD);
        Self {
            message,
            packet,
            has_records: true,
        }
    }

    /// NODATA (RFC 2308 §2.2).
    fn nothing(name: &Name) -> Self {
        let zone = name.base_name();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 7200, 1800, 86_400, 5);
        let mut message = message(name, RecordType::AAAA);
        message.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
        let message = message.to_vec().expect("a few records");
        Self {
            packet: message.clone(),
            message,
            has_records: false,
        }
    }

    fn is_whole(&self) -> bool {
        self.packet.len() == self.message.len()
    }
}

/// Puts the records before the OPT record. By hand, because hickory's encoder compresses only the first names, so that
/// 4,000 records don't fit into its messages.
fn with_answers(mut message: Vec<u8>, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let opt = message.split_off(message.len() - OPT);
    for address in addresses {
        message.extend([0xC0, HEADER as u8]); // the question's name
        message.extend(u16::from(RecordType::A).to_be_bytes());
        message.extend(u16::from(DNSClass::IN).to_be_bytes());
        message.extend(TTL.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    message.extend(opt);
    let count = u16::try_from(addresses.len()).expect("a count that fits");
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message
}

fn message(name: &Name, record_type: RecordType) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.authoritative = true;
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.add_query(Query::query(name.clone(), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD as u16);
    message.set_edns(edns);
    message
}
