//! A pod: an HTTP server that can be slow, failing, hung, killed, unplugged and restarted.

pub(super) mod builder;
pub(super) mod handler;
mod lease;
pub(super) mod mode;
mod reply;
mod serve;
pub(super) mod tls;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::Socket;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use self::{
    handler::Handler,
    lease::AddressLease,
    mode::{Mode, Stats},
    reply::Behaviour,
    serve::Command,
    tls::Tls,
};
use super::within::within;
use crate::sync::Mutex;

/// An HTTP server on one address that behaves as a test says. It speaks HTTP/1.1 and HTTP/2 (by ALPN over TLS, with
/// prior knowledge in clear), so gRPC as well.
///
/// By default it answers 200 and a short text. For the path `/stream/N/MS`, the body is `N` chunks: the first at once,
/// and the others `MS` milliseconds apart. For `/wait/MS`, the answer comes `MS` milliseconds later. The answers'
/// headers describe the request: `x-method`, `x-version` (`HTTP/1.1`, `HTTP/2.0`) and `x-host`, which is its
/// `:authority`, or else its `Host`. [`PodBuilder::answer`] replaces these answers. Every answer has the header
/// `x-pod`, the pod's [name](Self::name).
///
/// Dropping the pod kills it: its sockets are closed when its runtime runs next.
///
/// [`PodBuilder::answer`]: super::PodBuilder::answer
#[must_use = "the pod is killed when it is dropped"]
pub struct Pod {
    lease: AddressLease,
    tls: Option<Tls>,
    behaviour: Arc<Behaviour>,
    state: Mutex<State>,
}

/// A pod's settings.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) name: Option<String>,
    pub(super) handler: Option<Handler>,
    pub(super) tls: Option<Tls>,
}

enum State {
    Stopped,
    /// Dropping the sender kills the pod.
    Running(Arc<watch::Sender<Command>>),
    /// The sockets that keep the backlog full.
    BlackHole {
        _listener: Socket,
        _fillers: Vec<TcpStream>,
    },
}

impl Pod {
    /// Starts a pod with the default answers on `address`. Port 0 takes a free port, and keeps it, killed or not.
    ///
    /// # Errors
    ///
    /// If the address is taken, or isn't this machine's.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, Settings::default()).await
    }

    pub(super) async fn start_with(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let lease = AddressLease::new(address)?;
        let listener = lease.listen()?;
        let name = settings.name;
        let name = name.unwrap_or_else(|| lease.address().ip().to_string());
        let pod = Self {
            lease,
            tls: settings.tls,
            behaviour: Arc::new(Behaviour::new(name, settings.handler)),
            state: Mutex::new(State::Stopped),
        };
        pod.serve(listener);
        Ok(pod)
    }

    /// The address that it listens on, now or after a [`restart`](Self::restart).
    pub fn addr(&self) -> SocketAddr {
        self.lease.address()
    }

    /// Its IP address.
    pub fn ip(&self) -> IpAddr {
        self.addr().ip()
    }

    /// The pod's name, as in `x-pod`: its hostname in a StatefulSet, or the name that it was given, or its IP address.
    pub fn name(&self) -> &str {
        self.behaviour.name()
    }

    /// Sets how requests that are read from now on are answered.
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
    /// It also waits for a request that never finishes: put a timeout around it, then [`kill`](Self::kill).
    pub async fn stop_gracefully(&self) {
        let commands = match &*self.state.lock() {
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

    /// Serves again on the same address, whatever the pod did before. It kills what was running, and keeps the numbers
    /// and the [`Mode`].
    ///
    /// # Errors
    ///
    /// If another socket has taken the address meanwhile.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill().await;
        self.serve(self.lease.listen()?);
        Ok(())
    }

    /// Kills the pod, then listens with a full backlog. SYNs get no answer, as if the node were gone.
    ///
    /// [`restart`](Self::restart) undoes it. It takes a third of a second.
    ///
    /// # Errors
    ///
    /// If the address has been taken, or if the kernel answers SYNs in spite of a full backlog (Linux doesn't).
    pub async fn black_hole(&self) -> io::Result<()> {
        self.kill().await;
        let listener = self.lease.socket()?;
        listener.listen(0)?;
        let fillers = fill_backlog(self.addr()).await?;
        self.replace(State::BlackHole {
            _listener: listener,
            _fillers: fillers,
        });
        Ok(())
    }

    /// The pod's numbers now.
    pub fn stats(&self) -> Stats {
        *self.behaviour.stats.borrow()
    }

    /// Requests begun, since the pod was first started.
    pub fn requests(&self) -> usize {
        self.stats().requests
    }

    /// Requests begun whose response body has neither ended nor been dropped.
    pub fn in_flight(&self) -> usize {
        self.stats().in_flight
    }

    /// Connections open.
    pub fn connections(&self) -> usize {
        self.stats().connections
    }

    /// Waits until the pod's numbers satisfy `condition`, and returns them.
    ///
    /// # Panics
    ///
    /// If they don't within [`PATIENCE`](super::PATIENCE).
    #[track_caller]
    pub fn wait_until(
        &self,
        mut condition: impl FnMut(&Stats) -> bool,
    ) -> impl Future<Output = Stats> {
        let mut stats = self.behaviour.stats.subscribe();
        within("the pod's state waited for", async move {
            loop {
                // A copy, so that the condition may use the pod.
                let now = *stats.borrow_and_update();
                if condition(&now) {
                    return now;
                }
                let changed = stats.changed().await;
                changed.expect("the pod is not dropped while its state is waited for");
            }
        })
    }

    /// Waits for more requests than `seen`.
    pub(super) async fn more_requests(&self, seen: usize) {
        let mut stats = self.behaviour.stats.subscribe();
        // The sender lives as long as the pod.
        let _ = stats.wait_for(|stats| stats.requests > seen).await;
    }

    /// Closes everything when the runtime next runs.
    pub(super) fn abort(&self) {
        if let State::Running(commands) = self.replace(State::Stopped) {
            commands.send_replace(Command::Kill);
        }
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
        std::mem::replace(&mut *self.state.lock(), state)
    }
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pod")
            .field("name", &self.name())
            .field("addr", &self.addr())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Connects until a connection attempt gets no answer.
///
/// The kernel drops SYNs once more connections wait to be accepted than `listen` allowed: with 0, that is one.
async fn fill_backlog(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    // On loopback a handshake is over within the system call or so; the first retry of a SYN comes after 1 s.
    const UNANSWERED: Duration = Duration::from_millis(300);
    const TOO_MANY: usize = 64;
    let (mut fillers, mut late) = (Vec::new(), 0);
    while fillers.len() < TOO_MANY {
        match tokio::time::timeout(UNANSWERED, TcpStream::connect(address)).await {
            Ok(connected) => fillers.push(connected?),
            // The backlog has room for the first one, so it is only late.
            Err(_) if fillers.is_empty() && late < TOO_MANY => late += 1,
            Err(_) => return Ok(fillers),
        }
    }
    Err(io::Error::other("this kernel ignores the backlog"))
}
