//! Questions over TCP: one at a time on each connection, and connections are kept for later questions (RFC 7766
//! §6.2.1).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::sync::Mutex;

/// How many idle connections are kept: two, because A and AAAA are asked for at the same time.
const KEPT: usize = 2;

/// The connections to one name server.
pub(super) struct Connections {
    server: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

impl Connections {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            idle: Mutex::default(),
        }
    }

    /// Asks over an idle connection, and if that fails, over a new one. Each may take up to `attempt`.
    pub(super) async fn ask<T>(
        &self,
        message: &[u8],
        attempt: Duration,
        accept: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let kept = self.idle.lock().pop();
        if let Some(stream) = kept {
            match timeout(attempt, self.exchange(stream, message, &accept)).await {
                Ok(Ok(accepted)) => return Ok(accepted),
                // The other idle ones are likely dead too: the server was away, or closes idle connections.
                Ok(Err(_)) | Err(_) => self.idle.lock().clear(),
            }
        }
        let exchange = async {
            let stream = TcpStream::connect(self.server).await?;
            // A question is one small segment, so Nagle's algorithm could only delay it.
            stream.set_nodelay(true)?;
            self.exchange(stream, message, &accept).await
        };
        match timeout(attempt, exchange).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn exchange<T>(
        &self,
        mut stream: TcpStream,
        message: &[u8],
        accept: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        // In one write: some servers expect length and message in one segment (RFC 7766 §8).
        let framed = [&length.to_be_bytes()[..], message].concat();
        stream.write_all(&framed).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut response = vec![0; usize::from(length)];
            stream.read_exact(&mut response).await?;
            if let Some(accepted) = accept(&response) {
                self.keep(stream);
                return Ok(accepted);
            }
        }
    }

    fn keep(&self, stream: TcpStream) {
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            idle.push(stream);
        }
    }
}
