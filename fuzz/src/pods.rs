//! Loopback pods that a target controls, and a client over them.
//!
//! One task, the target's own, drives all pods. It does one thing at a time, and then lets the client come to rest
//! ([`settle`](crate::runtime::settle)). So the client has read what a pod has sent before anything else happens.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rand::Rng;
use socket2::SockRef;
use tower_headless::{
    Members, Picker, Policy, Previous, Route, StaticEndpoints,
    http::{Client, Protocol},
};

/// The pods of one input.
pub struct Pods {
    listeners: Vec<Option<TcpListener>>,
    addresses: Vec<SocketAddr>,
}

impl Pods {
    pub fn new(count: usize) -> Self {
        let listen = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
        let listeners: Vec<_> = (0..count).map(listen).collect();
        let addresses = listeners.iter().map(|listener| {
            listener.set_nonblocking(true).expect("a socket");
            listener.local_addr().expect("an address")
        });
        Self {
            addresses: addresses.collect(),
            listeners: listeners.into_iter().map(Some).collect(),
        }
    }

    /// A client that always picks the first available pod, so that an input does the same each time.
    pub fn client(&self, protocol: Protocol, max_connections: usize, patience: Duration) -> Client {
        let uri = "http://web.default:8080".parse().expect("a URI");
        Client::builder(uri)
            .discovery(StaticEndpoints::new(self.addresses.iter().copied()))
            .policy(InOrder)
            .protocol(protocol)
            .max_connections(max_connections)
            .ready_timeout(patience)
            .build()
            .expect("a client")
    }

    /// Accepts the new connections.
    pub fn accept(&self) -> Vec<Stream> {
        let listeners = self.listeners.iter().flatten();
        let accepted = listeners.flat_map(|listener| {
            std::iter::from_fn(|| match listener.accept() {
                Ok((stream, _)) => Some(Stream::new(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("no connection: {error}"),
            })
        });
        accepted.collect()
    }

    /// Makes a pod refuse connections from now on.
    pub fn refuse(&mut self, pod: usize) {
        let count = self.listeners.len();
        self.listeners[pod % count] = None;
    }
}

/// A pod's end of a connection.
pub struct Stream {
    /// None once it is closed.
    stream: Option<TcpStream>,
    /// Bytes read and not yet taken.
    pub unread: Vec<u8>,
}

impl Stream {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream: Some(stream),
            unread: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Reads what has arrived.
    pub fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => self.unread.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.stream = None,
            }
        }
    }

    /// Writes. If the system has no room for all of it, the connection is closed.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream
            && stream.write_all(bytes).is_err()
        {
            self.stream = None;
        }
    }

    /// Shuts down writing, and goes on reading.
    pub fn finish(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    pub fn close(&mut self) {
        self.stream = None;
    }

    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// The first available pod.
struct InOrder;

impl Policy for InOrder {
    fn prepare(&self, _: &Members, _: Option<Previous<'_>>, _: &mut dyn Rng) -> Box<dyn Picker> {
        Box::new(Self)
    }
}

impl Picker for InOrder {
    fn pick(&self, members: &Members, _: &Route, _: &mut dyn Rng) -> Option<usize> {
        (0..members.len()).find(|&index| members.is_available(index))
    }
}
