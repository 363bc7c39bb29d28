//! A question over UDP: sent, and sent again, until an answer comes.
//!
//! The socket is connected, so only the name server's packets arrive, and the kernel reports a closed port (ICMP port
//! unreachable, RFC 1122 §4.1.3.3). Each question has its own socket, so that a forger must guess its port.

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

/// The largest possible packet. With a smaller buffer, an answer larger than asked for would be cut unnoticed.
const LARGEST: usize = 65_535;

/// A socket that receives from `server` only.
pub(super) async fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any_port = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any_port).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Sends `message` now and again after each `pause`, `sends` times in all, and waits without a limit for a packet that
/// `accept` accepts.
pub(super) async fn ask<T>(
    socket: &UdpSocket,
    message: &[u8],
    sends: u32,
    pause: Duration,
    mut accept: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut packet = vec![0; LARGEST];
    // Sent before any timer: even a timer of zero takes up to a millisecond.
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
