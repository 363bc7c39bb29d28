//! Accepts and serves a pod's connections; finishes them gracefully or resets them.

use std::{io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{super::accept::accept, reply::Behaviour, tls::Tls};

/// Commands to a pod's tasks. If the sender is dropped, that means `Kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Serve,
    /// Accept no more connections, finish what is in flight.
    Finish,
    /// Reset all connections.
    Kill,
}

/// Serves until told otherwise. All sockets are closed by the time the last receiver of commands is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    behaviour: Arc<Behaviour>,
    mut commanded: watch::Receiver<Command>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Commands come first, so that nothing is accepted after one.
            biased;
            _ = next_command(&mut commanded) => break,
            stream = accept(&listener) => {
                let (tls, behaviour) = (tls.clone(), Arc::clone(&behaviour));
                connections.spawn(serve_connection(stream, tls, behaviour, commanded.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Not `join_all`: it panics if a runtime that shuts down has cancelled a task.
    while connections.join_next().await.is_some() {}
}

async fn next_command(commanded: &mut watch::Receiver<Command>) -> Command {
    match commanded.changed().await {
        Ok(()) => *commanded.borrow_and_update(),
        Err(_) => Command::Kill,
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<Tls>,
    behaviour: Arc<Behaviour>,
    mut commanded: watch::Receiver<Command>,
) {
    let _open = behaviour.connection_opened();
    // A second handle of the socket: hyper owns the stream, and only the socket can be set to reset.
    let Ok(socket) = prepare(&stream) else {
        return;
    };
    let command = match tls {
        None => serve_http(stream, behaviour, &mut commanded).await,
        Some(tls) => {
            tokio::select! {
                biased;
                // Nothing is in flight yet: there is nothing to finish.
                command = next_command(&mut commanded) => Some(command),
                stream = tls.accept(stream) => match stream {
                    Ok(stream) => serve_http(stream, behaviour, &mut commanded).await,
                    // The client rejects the certificate, or has gone.
                    Err(_) => None,
                },
            }
        }
    };
    if command == Some(Command::Kill) {
        // Fails only if the peer has reset the connection itself.
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

/// Serves HTTP/1.1 or HTTP/2, whichever the client begins with. Returns the command that ended it, or `None` if it
/// ended by itself.
async fn serve_http<T>(
    stream: T,
    behaviour: Arc<Behaviour>,
    commanded: &mut watch::Receiver<Command>,
) -> Option<Command>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = service_fn(|request| Arc::clone(&behaviour).answer(request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), answer));
    loop {
        tokio::select! {
            biased;
            command = next_command(commanded) => match command {
                Command::Serve => {}
                // HTTP/1.1: closed once idle. HTTP/2: GOAWAY, and closed when the streams have ended.
                Command::Finish => connection.as_mut().graceful_shutdown(),
                Command::Kill => return Some(command),
            },
            // An error means that the peer has gone, or `Mode::CloseWithoutAnswer`.
            _ = &mut connection => return None,
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<socket2::Socket> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).try_clone()
}
