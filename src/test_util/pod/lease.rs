//! Reserves a pod's address while the pod is killed.

use std::{io, net::SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// An address and a port, held by a socket that is bound but never listens: the kernel answers with RST.
///
/// Without it, the port of a killed pod could be given to another program that asks for a free one.
pub(super) struct AddressLease {
    address: SocketAddr,
    _held: Socket,
}

impl AddressLease {
    /// Reserves this address; port 0 takes a free port.
    pub(super) fn new(address: SocketAddr) -> io::Result<Self> {
        let held = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // An explicit port may have connections of an earlier server in TIME_WAIT. With port 0, reuse could give a port
        // that another lease holds.
        held.set_reuse_address(address.port() != 0)?;
        held.bind(&address.into())?;
        held.set_reuse_address(true)?;
        let local = held.local_addr()?;
        let address = local.as_socket().unwrap_or(address);
        Ok(Self {
            address,
            _held: held,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A listener at the address.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        socket.set_nonblocking(true)?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    }

    /// Another socket at the address.
    pub(super) fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.address.into())?;
        Ok(socket)
    }
}
