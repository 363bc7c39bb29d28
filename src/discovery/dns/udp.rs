//! A question in UDP packets: sent, and sent again until something comes back that answers it.
//!
//! The socket is connected: only the name server's packets arrive, and the kernel tells of a closed port (ICMP port
//! unreachable, RFC 1122 §4.1.3.3). Each question has a socket of its own, and so a port that a forger has to guess.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep},
};

/// The largest packet that there can be: what is larger than was asked for arrives whole, and can be told from what is not.
const LARGEST: usize = 65_535;

/// A socket that hears `server` alone.
pub(super) async fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any_port = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any_port).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Sends `message` now, and then after each `pause`, `sends` times in all; waits for a packet that `accept` makes something
/// of, without end.
pub(super) async fn ask<T>(
    socket: &UdpSocket,
    message: &[u8],
    sends: u32,
    pause: Duration,
    mut accept: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut packet = vec![0; LARGEST];
    // The first one at once: a timer, even one of nothing, takes up to a millisecond.
    socket.send(message).await?;
    let mut left = sends.saturating_sub(1);
    let mut resend = pin!(sleep(pause));
    loop {
        tokio::select! {
            received = socket.recv(&mut packet) => {
                if let Some(accepted) = accept(&packet[..received?]) {
                    return Ok(accepted);
                }
            }
            () = &mut resend, if left > 0 => {
                socket.send(message).await?;
                left -= 1;
                resend.as_mut().reset(Instant::now() + pause);
            }
        }
    }
}
