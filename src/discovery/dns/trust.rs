//! Whose "no" is believed, where name servers disagree. Pure.
//!
//! Records are believed whoever sends them. That there is nothing is said by servers, too, that couldn't know otherwise: a
//! public one in the second line of resolv.conf says so of every name of a cluster. So these are believed:
//!
//! | what is known | whose "no" |
//! | --- | --- |
//! | a server has named something under the name | that server's; if several have, the last one's |
//! | that server fails | that of one that has ever named something |
//! | nobody has named anything yet | the first server's |
//! | the first one has been failing for a while, since before anybody has named anything | that of one that has it from a zone below the root |
//! | all servers agree | theirs |
//!
//! In all other cases the question has failed.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::lookup::{Answer, LookupError, Nothing};

/// How many names are remembered. A target has a handful.
const NAMES: usize = 1024;

/// Who has named something, by name. It outlives a change of the list of servers: their order may be all that has changed.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<HashMap<Arc<str>, Namers>>);

#[derive(Clone, Debug)]
struct Namers {
    last: SocketAddr,
    ever: BTreeSet<SocketAddr>,
}

/// What the servers say to one question.
pub(super) struct Hearing {
    /// Whose "no" decides.
    decides: Option<SocketAddr>,
    namers: Option<Namers>,
    denials: Vec<Denial>,
    failed: Vec<SocketAddr>,
    failure: Option<LookupError>,
}

struct Denial {
    server: SocketAddr,
    nothing: Nothing,
    is_below_the_root: bool,
}

impl Trust {
    /// A server has named something under `name`.
    pub(super) fn named(&self, name: &Arc<str>, server: SocketAddr) {
        let mut names = self.lock();
        if let Some(namers) = names.get_mut(name) {
            namers.last = server;
            namers.ever.insert(server);
        } else if names.len() < NAMES {
            let namers = Namers {
                last: server,
                ever: [server].into(),
            };
            names.insert(name.clone(), namers);
        }
    }

    /// Opens the hearing of a question about `name`. A namer that isn't one of the `servers` any more doesn't count.
    pub(super) fn hear(&self, name: &Arc<str>, servers: &[SocketAddr]) -> Hearing {
        let namers = self.lock().get(name).cloned();
        let namers = namers.filter(|namers| servers.contains(&namers.last));
        let last = namers.as_ref().map(|namers| namers.last);
        Hearing {
            decides: last.or_else(|| servers.first().copied()),
            namers,
            denials: Vec::new(),
            failed: Vec::new(),
            failure: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Namers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hearing {
    /// Whether nobody else needs to be asked if `server` says that there is nothing.
    pub(super) fn is_decided_by(&self, server: SocketAddr) -> bool {
        self.decides == Some(server)
    }

    /// A server says that there is nothing.
    pub(super) fn denied(&mut self, server: SocketAddr, nothing: Nothing, is_below_the_root: bool) {
        self.denials.push(Denial {
            server,
            nothing,
            is_below_the_root,
        });
    }

    /// A server has given no answer.
    pub(super) fn failed(&mut self, server: SocketAddr, error: LookupError) {
        self.failed.push(server);
        self.failure = Some(error);
    }

    /// What comes of it once all have been asked. `is_away`: a server has been failing for a while.
    pub(super) fn end(self, is_away: impl Fn(SocketAddr) -> bool) -> Answer {
        let Some(failure) = self.failure else {
            let first = self.denials.into_iter().next();
            return Ok(Err(first.expect("a server has been asked").nothing));
        };
        let are_away = self.failed.iter().all(|&server| is_away(server));
        let is_believed = |denial: &Denial| match &self.namers {
            Some(namers) => namers.ever.contains(&denial.server),
            None => are_away && denial.is_below_the_root,
        };
        let believed = self.denials.into_iter().find(is_believed);
        believed.map_or(Err(failure), |denial| Ok(Err(denial.nothing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::dns::lookup::Reason;

    const NAME: &str = "web.default.svc.cluster.local";

    /// What a server says, in the order in which they are asked.
    #[derive(Clone, Copy)]
    enum Said {
        /// As the root does.
        No(u8),
        /// As the zone does.
        ZoneHasNo(u8),
        Fails(u8),
    }
    use Said::{Fails, No, ZoneHasNo};

    fn server(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 53))
    }

    /// Whether there is nothing, where `namers` have named something, in this order; server 0 is the first of three.
    fn is_nothing(namers: &[u8], said: &[Said], is_away: bool) -> bool {
        let (trust, name) = (Trust::default(), NAME.into());
        for &namer in namers {
            trust.named(&name, server(namer));
        }
        let mut hearing = trust.hear(&name, &[0, 1, 2].map(server));
        for &said in said {
            let error = |reason| LookupError::new(NAME, reason);
            match said {
                Fails(host) => hearing.failed(server(host), error(Reason::Timeout)),
                No(host) | ZoneHasNo(host) => {
                    if hearing.is_decided_by(server(host)) {
                        return true;
                    }
                    let nothing = Nothing {
                        ttl: None,
                        error: error(Reason::NoName),
                    };
                    hearing.denied(server(host), nothing, matches!(said, ZoneHasNo(_)));
                }
            }
        }
        hearing.end(|_| is_away).is_ok()
    }

    #[test]
    fn a_no_is_believed_from_the_server_that_last_named_something() {
        for namers in [&[0][..], &[1, 0], &[0, 1, 0]] {
            assert!(is_nothing(namers, &[No(0)], false));
            for away in [false, true] {
                assert!(!is_nothing(namers, &[Fails(0), ZoneHasNo(2)], away));
                assert!(!is_nothing(namers, &[No(2), Fails(1), Fails(0)], away));
            }
        }
        assert!(is_nothing(&[0, 1], &[Fails(0), No(1)], false));
    }

    #[test]
    fn a_server_that_has_once_named_something_stands_in_for_the_last_one_only_if_that_fails() {
        assert!(is_nothing(&[0, 1], &[No(0), Fails(1)], false));
        assert!(is_nothing(&[0, 1], &[No(0), No(1)], false));
        assert!(!is_nothing(&[1], &[No(0), Fails(1)], false));
    }

    #[test]
    fn before_anybody_has_named_anything_the_first_servers_no_is_believed() {
        assert!(is_nothing(&[], &[No(0)], false));
        assert!(is_nothing(&[], &[Fails(1), No(0)], false));
        assert!(!is_nothing(&[], &[Fails(0), No(1)], true));
        assert!(!is_nothing(&[], &[Fails(0), ZoneHasNo(1)], false));
        assert!(is_nothing(&[], &[Fails(0), ZoneHasNo(1)], true));
    }

    #[test]
    fn what_all_servers_say_is_believed() {
        assert!(is_nothing(&[2], &[No(1), No(0)], false));
    }

    #[test]
    fn a_namer_counts_wherever_it_stands_in_the_list_and_not_once_it_has_left_it() {
        let (trust, name) = (Trust::default(), NAME.into());
        trust.named(&name, server(1));
        let decides = |servers: &[u8], host| {
            let servers: Vec<_> = servers.iter().copied().map(server).collect();
            trust.hear(&name, &servers).is_decided_by(server(host))
        };
        assert!(decides(&[0, 1], 1) && !decides(&[0, 1], 0));
        assert!(decides(&[1, 0], 1) && !decides(&[1, 0], 0));
        assert!(decides(&[0, 2], 0));
    }
}
