//! Receives queries and sends replies, over UDP and TCP.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, tcp::OwnedReadHalf},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    super::accept::{PAUSE, accept},
    wire::Delivery,
    zone::Zone,
};
use crate::discovery::dns::Transport;

/// Serves until `stopped` resolves. All sockets are closed when it returns.
pub(super) async fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    zone: Arc<Zone>,
    mut stopped: oneshot::Receiver<()>,
) {
    let udp = Arc::new(udp);
    let mut packet = vec![0; usize::from(u16::MAX)];
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            (length, peer) = receive(&udp, &mut packet) => {
                let (zone, udp) = (Arc::clone(&zone), Arc::clone(&udp));
                let packet = packet[..length].to_vec();
                tasks.spawn(async move {
                    if let Some(reply) = reply(&zone, &packet, Transport::Udp).await {
                        // It fails if the client is gone, which is fine.
                        let _ = udp.send_to(&reply, peer).await;
                    }
                });
            }
            stream = accept(&tcp) => {
                tasks.spawn(serve_stream(stream, Arc::clone(&zone)));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
    drop((udp, tcp));
    tasks.shutdown().await;
}

/// The next packet and its sender.
async fn receive(udp: &UdpSocket, packet: &mut [u8]) -> (usize, SocketAddr) {
    loop {
        match udp.recv_from(packet).await {
            Ok(received) => return received,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves one TCP connection with any number of queries (RFC 7766 §6.2.1). Replies go out as they get ready.
async fn serve_stream(stream: TcpStream, zone: Arc<Zone>) {
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut outbox) = mpsc::unbounded_channel::<Vec<u8>>();
    let read = async move {
        let mut pending = JoinSet::new();
        while let Ok(packet) = read_message(&mut reader).await {
            let (zone, replies) = (Arc::clone(&zone), replies.clone());
            pending.spawn(async move {
                if let Some(reply) = reply(&zone, &packet, Transport::Tcp).await {
                    // Fails only when the connection is closed.
                    let _ = replies.send(reply);
                }
            });
        }
        drop(replies);
        // Not `join_all`: it panics if a runtime that shuts down has cancelled a task.
        while pending.join_next().await.is_some() {}
    };
    let write = async move {
        while let Some(reply) = outbox.recv().await {
            let length = u16::try_from(reply.len()).expect("replies are encoded to fit");
            let framed = [&length.to_be_bytes()[..], &reply].concat();
            if writer.write_all(&framed).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

async fn read_message(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    reader.read_exact(&mut message).await?;
    Ok(message)
}

async fn reply(zone: &Zone, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let Delivery { wire, delay } = zone.answer(packet, transport)?;
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    Some(wire)
}
