//! Puts a question to one name server after another. It begins with the first one. It goes on to the next after
//! SERVFAIL, REFUSED, silence, nonsense or a truncated answer, and after a negative answer that isn't believed
//! (`trust.rs`). A server that has failed is asked last for a while (`trouble.rs`). The servers not yet asked share the
//! question's remaining time.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    lookup::{Answer, LookupError, Query, Reason, RecordType, Resolve, Transport},
    name::Name,
    server::Server,
    system_conf::{Options, ResolvConf, ResolvConfFile},
    trouble::Troubles,
    trust::{Absence, Trust},
};

use crate::{
    logs::{DISCOVERY, Line, debug, here},
    sync::Mutex,
};

/// At most this many name servers share the remaining time. With more servers, the others get their turn once the first
/// ones have failed and are asked last.
const SHARES: usize = 4;

/// How long to wait for a server that is away, once another one has given a negative answer: a search list asks one
/// question per domain, and all of them must be answered in time. A server that is silent for less than this may still
/// be well.
const GLANCE: Duration = Duration::from_millis(250);

/// Asks the system's name servers, or given ones. Clones share their state.
#[derive(Clone)]
pub(super) struct Resolver {
    state: Arc<Mutex<State>>,
}

struct State {
    file: ResolvConfFile,
    given: Vec<SocketAddr>,
    servers: Arc<Servers>,
}

/// The name servers of one configuration, and what is known about them.
struct Servers {
    options: Options,
    servers: Vec<Server>,
    troubles: Troubles,
    trust: Arc<Trust>,
}

impl Resolver {
    /// A resolver with the search list of `resolv_conf`, and with its name servers unless some are `given`.
    pub(super) fn new(resolv_conf: PathBuf, given: Vec<SocketAddr>) -> Self {
        let state = State {
            file: ResolvConfFile::new(resolv_conf),
            servers: Arc::new(Servers::new(&given, Options::default(), Arc::default())),
            given,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl Resolve for Resolver {
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError> {
        let mut state = self.state.lock();
        let given = !state.given.is_empty();
        let candidates = match state.file.read() {
            Ok(ResolvConf { search, ndots, .. }) => name.candidates(search, *ndots),
            // With given servers, the file only adds the search list.
            Err(_) if given => name.candidates(&[], 1),
            Err(error) => {
                let reason = Reason::Configuration(error.to_string());
                return Err(LookupError::new(name, reason));
            }
        };
        let names = candidates.iter().map(|candidate| candidate.text().into());
        Ok(names.collect())
    }

    fn ask(&self, query: Query, over: Transport, deadline: Instant) -> BoxFuture<'static, Answer> {
        let servers = self.state.lock().servers();
        Box::pin(async move {
            let reason = |error: std::io::Error| Reason::Configuration(error.to_string());
            let servers = servers.map_err(|error| LookupError::new(&query, reason(error)))?;
            servers.ask(&query, over, deadline).await
        })
    }

    /// Makes servers without TCP connections, because those belong to a runtime. Trust in servers is shared.
    fn renewed(&self) -> Self {
        let state = self.state.lock();
        let Servers { options, trust, .. } = &*state.servers;
        let addresses: Vec<_> = state.servers.servers.iter().map(Server::address).collect();
        let state = State {
            file: state.file.clone(),
            given: state.given.clone(),
            servers: Arc::new(Servers::new(&addresses, *options, trust.clone())),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl State {
    /// The name servers as they are configured now.
    fn servers(&mut self) -> std::io::Result<Arc<Servers>> {
        let (addresses, options) = match self.file.read() {
            Ok(conf) if self.given.is_empty() => (&conf.name_servers, conf.options),
            Ok(conf) => (&self.given, conf.options),
            Err(error) if self.given.is_empty() => return Err(error),
            Err(_) => (&self.given, Options::default()),
        };
        if !self.servers.are(addresses, options) {
            let trust = self.servers.trust.clone();
            self.servers = Arc::new(Servers::new(addresses, options, trust));
        }
        Ok(self.servers.clone())
    }
}

impl Servers {
    fn new(addresses: &[SocketAddr], options: Options, trust: Arc<Trust>) -> Self {
        let server = |&address| Server::new(address, options);
        Self {
            options,
            servers: addresses.iter().map(server).collect(),
            troubles: Troubles::default(),
            trust,
        }
    }

    fn are(&self, addresses: &[SocketAddr], options: Options) -> bool {
        let own = self.servers.iter().map(Server::address);
        self.options == options && own.eq(addresses.iter().copied())
    }

    async fn ask(&self, query: &Query, over: Transport, deadline: Instant) -> Answer {
        let began = Instant::now();
        let asked = query.record_type;
        let addresses: Vec<_> = self.servers.iter().map(Server::address).collect();
        let mut hearing = self.trust.hear(&query.name, &addresses);
        let mut truncated = None;
        let mut waiting: Vec<_> = self.servers.iter().collect();
        let is_late = |server: &Server| self.troubles.is_late(server.address(), asked, began);
        waiting.sort_by_key(|server| is_late(server));
        while !waiting.is_empty() {
            let since = Instant::now();
            let left = deadline.saturating_duration_since(since);
            let share = self.share(left, waiting.len());
            let server = waiting.remove(0);
            let address = server.address();
            if left.is_zero() {
                let error = LookupError::new(query, Reason::Timeout);
                hearing.failed(address, error.at(address));
                break;
            }
            let absence = self.absence(address, asked);
            let budget = limited_share(share, absence, hearing.is_denied());
            let heard = server.ask(query, over, budget).await;
            if server.responds() {
                self.trust.responded(address);
            }
            match heard.answer {
                Ok(Ok(reply)) => {
                    self.troubles.answered(address, asked);
                    self.trust.named(&query.name, address);
                    return Ok(Ok(reply));
                }
                Ok(Err(nothing)) => {
                    self.troubles.answered(address, asked);
                    if hearing.is_decided_by(address) && truncated.is_none() {
                        return Ok(Err(nothing));
                    }
                    debug!(DISCOVERY, here(), name_server = %address, error = %Line(&nothing.error), "a negative answer isn't believed yet");
                    hearing.denied(address, nothing, heard.is_denied_below_the_root);
                }
                // Another server may send all: some forwarders pass on a truncated answer even over TCP.
                Err(error) if error.is_truncated() => {
                    debug!(DISCOVERY, here(), name_server = %address, error = %Line(&error), "an answer was truncated");
                    self.troubles.answered(address, asked);
                    truncated.get_or_insert(error);
                }
                Err(error) => {
                    debug!(DISCOVERY, here(), name_server = %address, error = %Line(&error), "a name server failed");
                    if is_telling(&error, budget) {
                        let (ended, is_closed) = (Instant::now(), error.is_closed());
                        self.troubles
                            .failed(address, asked, since, ended, is_closed);
                    }
                    hearing.failed(address, error);
                }
            }
        }
        match truncated {
            // There are records, whatever the others say.
            Some(error) => Err(error),
            None => hearing.end(|address| self.absence(address, asked)),
        }
    }

    /// How absent a server is that gave no answer.
    fn absence(&self, server: SocketAddr, asked: RecordType) -> Absence {
        let is_away = self.troubles.is_away(server, asked, Instant::now());
        let is_closed = || self.troubles.is_closed(server, asked);
        match self.trust.is_alive(server) {
            false if is_away || is_closed() => Absence::Dead,
            _ if is_away => Absence::Away,
            _ => Absence::Passing,
        }
    }

    /// One server's share of the remaining time, while this many are `waiting`.
    fn share(&self, left: Duration, waiting: usize) -> Duration {
        let shares = u32::try_from(waiting.clamp(1, SHARES)).unwrap_or(1);
        let share = left / shares;
        let longest = self.options.longest();
        longest.map_or(share, |longest| longest.min(share))
    }
}

/// How much of its share a server gets. A server that is away gets only a [`GLANCE`] if another has given a negative
/// answer. Otherwise it gets its full share, because it may be the one that answers.
fn limited_share(share: Duration, absence: Absence, is_denied: bool) -> Duration {
    match is_denied && absence != Absence::Passing {
        true => share.min(GLANCE),
        false => share,
    }
}

/// Whether an error shows that something is wrong with the server. Silence doesn't, if the server had hardly any time.
fn is_telling(error: &LookupError, budget: Duration) -> bool {
    !error.is_timeout() || budget >= GLANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_does_not_count_against_a_server_that_had_no_time() {
        let error = |reason| LookupError::new("web.", reason);
        let refused = || Reason::Refused(([10, 96, 0, 10], 53).into(), "REFUSED".to_owned());
        assert!(is_telling(&error(Reason::Timeout), GLANCE));
        assert!(!is_telling(&error(Reason::Timeout), GLANCE / 2));
        assert!(is_telling(&error(refused()), GLANCE / 2));
    }

    #[test]
    fn only_an_absent_server_is_cut_short_and_only_after_a_negative_answer() {
        let share = Duration::from_secs(2);
        for absence in [Absence::Away, Absence::Dead] {
            assert_eq!(limited_share(share, absence, true), GLANCE);
            assert_eq!(limited_share(GLANCE / 2, absence, true), GLANCE / 2);
            assert_eq!(limited_share(share, absence, false), share);
        }
        for is_denied in [false, true] {
            assert_eq!(limited_share(share, Absence::Passing, is_denied), share);
        }
    }
}
