//! A relay to the API server that can cut its connections, and counts their bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::lock;

/// Forwards connections to the API server until it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct State {
    connections: Mutex<JoinSet<()>>,
    /// Bytes, both ways.
    passed: AtomicU64,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let mut task = JoinSet::new();
        let shared = state.clone();
        task.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = pass(client, shared.clone());
                lock(&shared.connections).spawn(connection);
            }
        });
        Self {
            address,
            state,
            _task: task,
        }
    }

    /// Cuts all current connections.
    pub(crate) fn cut(&self) {
        lock(&self.state.connections).abort_all();
    }

    /// The bytes forwarded so far, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }
}

async fn pass(client: TcpStream, state: Arc<State>) {
    let server = TcpStream::connect((super::control_plane::API_SERVER, 443)).await;
    let Ok(server) = server else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When either end closes, close the other.
    tokio::select! {
        () = copy(from_client, to_server, &state.passed) => {}
        () = copy(from_server, to_client, &state.passed) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        passed.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
