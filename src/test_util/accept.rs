//! Accepts connections, in spite of errors.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The pause after an error, which may come again at once: if the process has no file descriptor left, until one is
/// closed.
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
