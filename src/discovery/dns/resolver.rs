//! All name servers that may be asked. A question goes to the one that answered last, and from there to the next at
//! SERVFAIL, REFUSED, silence or nonsense; what is records, or the word that there are none, is an answer, whoever gives it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use super::{
    client::Client,
    lookup::{Answer, LookupError, Query, Reason, Resolve, Transport},
    name::Name,
    system_conf::{ResolvConf, ResolvConfFile},
};

/// How long one question may take, over all name servers and attempts. Less than the balancer's ready timeout of 5 s, so
/// that callers who wait for the first answer in vain are told why.
const DEADLINE: Duration = Duration::from_secs(4);

/// How many name servers share the time. Of more than these, the others get their turn when the question is put again.
const SHARES: usize = 4;

/// The name servers of the system, or given ones. Clones are the same resolver.
#[derive(Clone)]
pub(super) struct Resolver {
    state: Arc<Mutex<State>>,
}

struct State {
    file: ResolvConfFile,
    given: Vec<SocketAddr>,
    servers: Arc<Servers>,
}

/// The name servers of one configuration.
struct Servers {
    clients: Vec<Client>,
    /// The one that answered last.
    current: AtomicUsize,
}

impl Resolver {
    /// A resolver with the search list of `resolv_conf`, and with its name servers unless some are `given`.
    pub(super) fn new(resolv_conf: PathBuf, given: Vec<SocketAddr>) -> Self {
        let state = State {
            file: ResolvConfFile::new(resolv_conf),
            servers: Arc::new(Servers::new(&given)),
            given,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for Resolver {
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError> {
        let mut state = self.lock();
        let given = !state.given.is_empty();
        let candidates = match state.file.read() {
            Ok(ResolvConf { search, ndots, .. }) => name.candidates(search, *ndots),
            // Nothing but the search list would have come from there.
            Err(_) if given => name.candidates(&[], 1),
            Err(error) => {
                let reason = Reason::Configuration(error.to_string());
                return Err(LookupError::new(name, reason));
            }
        };
        let names = candidates.iter().map(|candidate| candidate.text().into());
        Ok(names.collect())
    }

    fn ask(&self, query: Query, over: Transport) -> BoxFuture<'static, Answer> {
        let servers = self.lock().servers();
        Box::pin(async move {
            let reason = |error: std::io::Error| Reason::Configuration(error.to_string());
            let servers = servers.map_err(|error| LookupError::new(&query, reason(error)))?;
            servers.ask(&query, over).await
        })
    }

    /// Connections, and the tasks that drive them, belong to a runtime: this has none yet.
    fn renewed(&self) -> Self {
        let state = self.lock();
        let servers: Vec<_> = state.servers.clients.iter().map(Client::server).collect();
        let state = State {
            file: state.file.clone(),
            given: state.given.clone(),
            servers: Arc::new(Servers::new(&servers)),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl State {
    /// The name servers as they are configured now.
    fn servers(&mut self) -> std::io::Result<Arc<Servers>> {
        if self.given.is_empty() {
            let addresses = &self.file.read()?.name_servers;
            if !self.servers.are(addresses) {
                self.servers = Arc::new(Servers::new(addresses));
            }
        }
        Ok(self.servers.clone())
    }
}

impl Servers {
    fn new(addresses: &[SocketAddr]) -> Self {
        Self {
            clients: addresses.iter().copied().map(Client::new).collect(),
            current: AtomicUsize::new(0),
        }
    }

    fn are(&self, addresses: &[SocketAddr]) -> bool {
        self.clients
            .iter()
            .map(Client::server)
            .eq(addresses.iter().copied())
    }

    async fn ask(&self, query: &Query, over: Transport) -> Answer {
        let count = self.clients.len();
        let budget = DEADLINE / u32::try_from(count.clamp(1, SHARES)).unwrap_or(1);
        let deadline = Instant::now() + DEADLINE;
        let first = self.current.load(Relaxed);
        let mut last = LookupError::new(query, Reason::Timeout);
        for at in (0..count).map(|turn| (first + turn) % count) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.clients[at].ask(query, over, budget.min(left)).await {
                // No other server has more room in its messages.
                Err(error) if !error.is_truncated() => {
                    let name_server = self.clients[at].server();
                    debug!(%name_server, %error, "a name server failed");
                    last = error;
                    self.current.store((at + 1) % count, Relaxed);
                }
                answer => {
                    self.current.store(at, Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }
}
