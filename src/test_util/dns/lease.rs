//! Reserves a port of a loopback address while the server is stopped.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// One port number, reserved for UDP and TCP by two sockets that never answer.
///
/// Without it, any client on the machine could take the port while the server is stopped, because clients of loopback
/// get their ports on 127.0.0.1, too. A TCP socket that is bound but doesn't listen answers with RST. A UDP socket that
/// is connected (here to itself) makes the kernel answer everybody else with ICMP port unreachable.
pub(super) struct PortLease {
    addr: SocketAddr,
    _udp: Socket,
    _tcp: Socket,
}

impl PortLease {
    pub(super) fn new(ip: Ipv4Addr) -> io::Result<Self> {
        const ATTEMPTS: usize = 100;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::any(ip) {
                Ok(lease) => return Ok(lease),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one attempt was made"))
    }

    fn any(ip: Ipv4Addr) -> io::Result<Self> {
        let any_port = SocketAddr::from((ip, 0));
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        udp.bind(&any_port.into())?;
        let local = udp.local_addr()?;
        udp.connect(&local)?;
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        tcp.bind(&local)?;
        // Set only now: with SO_REUSEADDR from the start, port 0 could give a port that another lease holds.
        udp.set_reuse_address(true)?;
        tcp.set_reuse_address(true)?;
        Ok(Self {
            addr: local.as_socket().expect("an IPv4 socket's address"),
            _udp: udp,
            _tcp: tcp,
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Binds the sockets that answer queries.
    pub(super) fn bind(&self) -> io::Result<(UdpSocket, TcpListener)> {
        let udp = self.socket(Type::DGRAM)?;
        let tcp = self.socket(Type::STREAM)?;
        tcp.listen(1024)?;
        Ok((
            UdpSocket::from_std(udp.into())?,
            TcpListener::from_std(tcp.into())?,
        ))
    }

    fn socket(&self, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.addr.into())?;
        Ok(socket)
    }
}
