//! An address that stays the pod's while it is killed.

use std::{io, net::SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// An address and a port, held by a socket that is bound and never listens: the kernel answers with RST for it.
///
/// Without it, the port of a pod that is killed could be given to anybody else who asks for a free one.
pub(super) struct AddressLease {
    address: SocketAddr,
    _held: Socket,
}

impl AddressLease {
    /// Of this address; port 0 takes a free one.
    pub(super) fn new(address: SocketAddr) -> io::Result<Self> {
        let held = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A port that was chosen may have connections of an earlier server in TIME_WAIT. Port 0 could give one that another
        // lease holds.
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
