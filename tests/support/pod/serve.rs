//! A pod's connections: accepted, served, finished gracefully or reset.

use std::{io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::reply::Behaviour;

/// What a pod's tasks are told. The sender being dropped means `Kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Serve,
    /// Accept no more, finish what is in flight.
    Finish,
    /// Reset everything.
    Kill,
}

/// Serves until told otherwise. All sockets are closed by the time the last receiver of commands is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    behaviour: Arc<Behaviour>,
    mut commanded: watch::Receiver<Command>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // First, so that nothing is accepted after a command.
            biased;
            _ = next_command(&mut commanded) => break,
            Ok((stream, _)) = listener.accept() => {
                let connection = serve_connection(stream, Arc::clone(&behaviour), commanded.clone());
                connections.spawn(connection);
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Not `join_all`: it panics where a runtime that shuts down has cancelled them.
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
    behaviour: Arc<Behaviour>,
    mut commanded: watch::Receiver<Command>,
) {
    let _open = behaviour.connection_opened();
    // A second handle of the socket: hyper owns the stream, and only the socket can be told to reset.
    let Ok(socket) = prepare(&stream) else {
        return;
    };
    let answer = service_fn(|request| Arc::clone(&behaviour).answer(request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    let mut connection = Box::pin(connection);
    loop {
        tokio::select! {
            biased;
            command = next_command(&mut commanded) => match command {
                Command::Serve => {}
                Command::Finish => connection.as_mut().graceful_shutdown(),
                Command::Kill => {
                    // Fails only if the peer has reset the connection itself.
                    let _ = socket.set_linger(Some(Duration::ZERO));
                    return;
                }
            },
            // An error is the peer's going away, or `Mode::CloseWithoutAnswer`.
            _ = &mut connection => return,
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<socket2::Socket> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).try_clone()
}
