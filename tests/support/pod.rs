//! A pod: an HTTP server that can be slow, failing, hung, killed, unplugged and restarted.

mod reply;
mod serve;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::StatusCode;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use super::tls::Identity;
use reply::Behaviour;
use serve::Command;

/// A server of HTTP/1.1 and HTTP/2 (by ALPN over TLS, with prior knowledge in clear) on one address. Dropping it kills it.
///
/// A healthy one answers 200 with the header `x-pod: <its IP>` and a short text; for the path `/stream/N/MS` the body is
/// `N` chunks, the first at once and the others `MS` milliseconds apart, and for `/wait/MS` the answer comes `MS`
/// milliseconds later. Every answer says what the request was: `x-method`, `x-version` (`HTTP/1.1`, `HTTP/2.0`) and
/// `x-host`, which is its `:authority` or else its `Host`.
pub struct Pod {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    behaviour: Arc<Behaviour>,
    state: Mutex<State>,
}

/// What a pod does with a request once it has read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Healthy,
    /// The healthy answer, this much later.
    Slow(Duration),
    /// An answer with this status.
    Status(StatusCode),
    /// No answer, ever; the connection stays open.
    Hung,
    /// The connection is closed instead of an answer (HTTP/2: the stream is reset).
    CloseWithoutAnswer,
}

/// A pod's numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests begun, since the pod was first started.
    pub requests: usize,
    /// Requests begun whose response body has neither ended nor been given up.
    pub in_flight: usize,
    /// Connections accepted since the pod was first started.
    pub accepted: usize,
    /// Connections open.
    pub connections: usize,
}

enum State {
    Stopped,
    /// Dropping the sender kills.
    Running(Arc<watch::Sender<Command>>),
    /// The sockets that keep the backlog full.
    BlackHole {
        _listener: Socket,
        _fillers: Vec<TcpStream>,
    },
}

impl Pod {
    /// Starts a pod on `address`; port 0 takes a free one, and keeps it.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, None).await
    }

    /// [`start`](Self::start), with TLS if there is an identity to show.
    pub async fn start_with(address: SocketAddr, tls: Option<&Identity>) -> io::Result<Self> {
        let tls = tls.map(Identity::acceptor).transpose()?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let pod = Self {
            address,
            tls,
            behaviour: Arc::new(Behaviour::new(address.ip().to_string())),
            state: Mutex::new(State::Stopped),
        };
        pod.serve(listener);
        Ok(pod)
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// What the pod's answers say in `x-pod`: its IP address.
    pub fn name(&self) -> &str {
        self.behaviour.name()
    }

    /// How requests are answered that are read from now on.
    pub fn set(&self, mode: Mode) {
        self.behaviour.set(mode);
    }

    /// Closes the listener and resets every connection (RST); requests in flight die. All is closed when this returns.
    pub async fn kill(&self) {
        let state = self.replace(State::Stopped);
        if let State::Running(commands) = state {
            commands.send_replace(Command::Kill);
            commands.closed().await;
        }
    }

    /// Closes the listener and idle connections, tells the others that no more requests are wanted (`Connection: close`,
    /// GOAWAY), and returns when the requests in flight have finished.
    ///
    /// A request that never finishes is waited for: bound the wait, then [`kill`](Self::kill).
    pub async fn stop_gracefully(&self) {
        let commands = match &*self.lock() {
            State::Running(commands) => Arc::clone(commands),
            _ => return,
        };
        commands.send_if_modified(|command| {
            let first = *command == Command::Serve;
            if first {
                *command = Command::Finish;
            }
            first
        });
        commands.closed().await;
    }

    /// Serves again on the same address, whatever the pod did before; what was running is killed.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill().await;
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    /// Kills, then listens with a full backlog, so that SYNs get no answer, as if the node were gone.
    ///
    /// [`restart`](Self::restart) undoes it.
    pub async fn black_hole(&self) -> io::Result<()> {
        self.kill().await;
        let listener = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&self.address.into())?;
        listener.listen(0)?;
        let fillers = fill_backlog(self.address).await?;
        self.replace(State::BlackHole {
            _listener: listener,
            _fillers: fillers,
        });
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        *self.behaviour.stats.borrow()
    }

    /// Requests begun, since the pod was first started.
    pub fn requests(&self) -> usize {
        self.stats().requests
    }

    /// Requests begun whose response body has neither ended nor been given up.
    pub fn in_flight(&self) -> usize {
        self.stats().in_flight
    }

    /// Connections open.
    pub fn connections(&self) -> usize {
        self.stats().connections
    }

    /// Waits until the pod's numbers satisfy `condition`, and returns them.
    #[track_caller]
    pub fn wait_until(&self, condition: impl FnMut(&Stats) -> bool) -> impl Future<Output = Stats> {
        let mut stats = self.behaviour.stats.subscribe();
        super::within("the pod's state waited for", async move {
            let reached = stats.wait_for(condition).await;
            *reached.expect("the pod is not dropped while its state is waited for")
        })
    }

    fn serve(&self, listener: TcpListener) {
        let (commands, commanded) = watch::channel(Command::Serve);
        tokio::spawn(serve::serve(
            listener,
            self.tls.clone(),
            Arc::clone(&self.behaviour),
            commanded,
        ));
        self.replace(State::Running(Arc::new(commands)));
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(&mut *self.lock(), state)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects until a connection attempt gets no answer.
///
/// The kernel drops SYNs once more connections wait to be accepted than `listen` allowed: with 0, that is one.
async fn fill_backlog(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    // On loopback a handshake is over within the system call or so; the first retry of a SYN comes after 1 s.
    const UNANSWERED: Duration = Duration::from_millis(300);
    const TOO_MANY: usize = 64;
    let mut fillers = Vec::new();
    while fillers.len() < TOO_MANY {
        match tokio::time::timeout(UNANSWERED, TcpStream::connect(address)).await {
            Ok(connected) => fillers.push(connected?),
            Err(_) => return Ok(fillers),
        }
    }
    Err(io::Error::other("this kernel ignores the backlog"))
}
