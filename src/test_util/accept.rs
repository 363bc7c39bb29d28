//! Connections accepted, whatever becomes of single ones.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// After an error, which may come again at once: where the process has no file descriptor left, until one is closed.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// The next connection.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
