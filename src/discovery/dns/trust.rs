//! Whose negative answer ("no") is believed if name servers disagree. Pure.
//!
//! Records are believed from any server. But a "no" may come from a server that can't know better: a public one in the
//! second line of resolv.conf denies every name of a cluster. So a "no" is believed only as follows:
//!
//! | what is known | whose "no" is believed |
//! | --- | --- |
//! | a server has ever returned records for the name | that server's; of several, the first in the list |
//! | that server fails | that of another one that has ever returned records for it |
//! | no server has returned records for it yet | the first server's |
//! | likewise, and the first one has been failing for a while | that of a server that has it from a zone below the root |
//! | likewise, and the first one is dead: it has never sent anything | that of any other |
//! | all servers agree | theirs |
//!
//! In all other cases the question fails. A "no" that is believed from one server while another one fails is
//! provisional: if it led to a later name of the search list, the earlier names are tried again soon.
//!
//! A server that has returned records doesn't displace an earlier one in the list that also has. So if a server that
//! answers every name once answered, the cluster's own server, listed first, can still say that the pods are gone.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::lookup::{Answer, LookupError, Nothing};
use crate::sync::Mutex;

/// How many names are remembered. A target needs a handful.
const NAMES: usize = 1024;

/// Which servers have ever sent anything, and which have returned records. It outlives a change of the server list,
/// because only the order may have changed.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The servers that have ever sent anything.
    alive: BTreeSet<SocketAddr>,
    /// The servers that have ever returned records, by name.
    namers: HashMap<Arc<str>, BTreeSet<SocketAddr>>,
}

/// How absent a server is that gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Absence {
    /// It may answer the next question.
    Passing,
    /// It has been failing for a while.
    Away,
    /// Nothing has ever come from it.
    Dead,
}

/// The servers' answers to one question.
pub(super) struct Hearing {
    /// The server whose "no" decides.
    decides: Option<SocketAddr>,
    /// The servers that have ever returned records for the name.
    namers: BTreeSet<SocketAddr>,
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
    /// Notes that a server has sent something.
    pub(super) fn responded(&self, server: SocketAddr) {
        self.0.lock().alive.insert(server);
    }

    /// Whether anything has ever come from a server.
    pub(super) fn is_alive(&self, server: SocketAddr) -> bool {
        self.0.lock().alive.contains(&server)
    }

    /// Notes that a server has returned records for `name`.
    pub(super) fn named(&self, name: &Arc<str>, server: SocketAddr) {
        let names = &mut self.0.lock().namers;
        if let Some(namers) = names.get_mut(name) {
            namers.insert(server);
        } else if names.len() < NAMES {
            names.insert(name.clone(), [server].into());
        }
    }

    /// Begins a question about `name`. Servers that are no longer among `servers` don't count.
    pub(super) fn hear(&self, name: &Arc<str>, servers: &[SocketAddr]) -> Hearing {
        let mut namers = self.0.lock().namers.get(name).cloned().unwrap_or_default();
        namers.retain(|namer| servers.contains(namer));
        let mut in_order = servers.iter();
        let first_namer = in_order.find(|server| namers.contains(*server));
        Hearing {
            decides: first_namer.or(servers.first()).copied(),
            namers,
            denials: Vec::new(),
            failed: Vec::new(),
            failure: None,
        }
    }
}

impl Hearing {
    /// Whether a "no" from `server` is final, so that no other server needs to be asked.
    pub(super) fn is_decided_by(&self, server: SocketAddr) -> bool {
        self.decides == Some(server)
    }

    /// Notes a server's "no".
    pub(super) fn denied(&mut self, server: SocketAddr, nothing: Nothing, is_below_the_root: bool) {
        self.denials.push(Denial {
            server,
            nothing,
            is_below_the_root,
        });
    }

    /// Whether any server has said "no".
    pub(super) fn is_denied(&self) -> bool {
        !self.denials.is_empty()
    }

    /// Notes that a server gave no answer.
    pub(super) fn failed(&mut self, server: SocketAddr, error: LookupError) {
        self.failed.push(server);
        self.failure = Some(error);
    }

    /// The result once all servers have been asked. `absence` tells how absent a server is that gave no answer.
    pub(super) fn end(self, absence: impl Fn(SocketAddr) -> Absence) -> Answer {
        let Some(failure) = self.failure else {
            let first = self.denials.into_iter().next();
            return Ok(Err(first.expect("a server has been asked").nothing));
        };
        let failed = self.failed.iter().map(|&server| absence(server));
        let nearest = failed.min().unwrap_or(Absence::Passing);
        let is_believed = |denial: &Denial| match nearest {
            _ if !self.namers.is_empty() => self.namers.contains(&denial.server),
            Absence::Passing => false,
            Absence::Away => denial.is_below_the_root,
            Absence::Dead => true,
        };
        let believed = self.denials.into_iter().find(is_believed);
        let nothing = believed.map(|denial| Nothing {
            is_provisional: true,
            ..denial.nothing
        });
        nothing.map_or(Err(failure), |nothing| Ok(Err(nothing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::dns::lookup::Reason;
    use Absence::{Away, Dead, Passing};

    const NAME: &str = "web.default.svc.cluster.local";

    /// What one server says; tests list them in the order of asking.
    #[derive(Clone, Copy)]
    enum Said {
        /// A "no" from the root zone.
        No(u8),
        /// A "no" from a zone below the root.
        ZoneHasNo(u8),
        Fails(u8),
    }
    use Said::{Fails, No, ZoneHasNo};

    fn server(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 53))
    }

    /// Whether the result is a "no", after `namers` have returned records, in this order. Server 0 is the first of
    /// three.
    fn is_nothing(namers: &[u8], said: &[Said], absence: Absence) -> bool {
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
                    let nothing = Nothing::new(None, error(Reason::NoName));
                    hearing.denied(server(host), nothing, matches!(said, ZoneHasNo(_)));
                }
            }
        }
        hearing.end(|_| absence).is_ok()
    }

    #[test]
    fn a_no_is_believed_from_the_first_server_that_has_returned_records() {
        for namers in [&[0][..], &[1, 0], &[0, 1], &[0, 1, 0]] {
            assert!(is_nothing(namers, &[No(0)], Passing));
            for absence in [Passing, Away, Dead] {
                assert!(!is_nothing(namers, &[Fails(0), ZoneHasNo(2)], absence));
                assert!(!is_nothing(namers, &[No(2), Fails(1), Fails(0)], absence));
            }
        }
        assert!(is_nothing(&[1], &[No(1)], Passing));
    }

    #[test]
    fn another_server_with_records_stands_in_only_if_the_first_one_fails() {
        assert!(is_nothing(&[0, 1], &[Fails(0), No(1)], Passing));
        assert!(!is_nothing(&[1], &[No(0), Fails(1)], Passing));
        assert!(is_nothing(&[1, 2], &[No(0), Fails(1), No(2)], Passing));
    }

    #[test]
    fn before_any_records_the_first_servers_no_is_believed() {
        assert!(is_nothing(&[], &[No(0)], Passing));
        assert!(is_nothing(&[], &[Fails(1), No(0)], Passing));
        assert!(!is_nothing(&[], &[Fails(0), ZoneHasNo(1)], Passing));
        assert!(!is_nothing(&[], &[Fails(0), No(1)], Away));
        assert!(is_nothing(&[], &[Fails(0), ZoneHasNo(1)], Away));
    }

    #[test]
    fn with_a_dead_first_server_any_no_is_believed_until_there_are_records() {
        assert!(is_nothing(&[], &[Fails(0), No(1)], Dead));
        for namers in [&[0][..], &[2]] {
            assert!(!is_nothing(namers, &[Fails(0), No(1), Fails(2)], Dead));
        }
    }

    #[test]
    fn a_failing_server_beside_a_dead_one_keeps_a_no_from_being_believed() {
        let (trust, name) = (Trust::default(), NAME.into());
        let mut hearing = trust.hear(&name, &[0, 1, 2].map(server));
        let error = || LookupError::new(NAME, Reason::Timeout);
        hearing.failed(server(0), error());
        hearing.failed(server(1), error());
        let nothing = Nothing::new(None, LookupError::new(NAME, Reason::NoName));
        hearing.denied(server(2), nothing, false);
        let absence = |asked| if asked == server(0) { Dead } else { Away };
        assert!(hearing.end(absence).is_err());
    }

    #[test]
    fn a_no_is_provisional_only_if_a_server_failed() {
        let (trust, name) = (Trust::default(), NAME.into());
        let nothing = || Nothing::new(None, LookupError::new(NAME, Reason::NoName));
        let end = |fails: Option<u8>| {
            let mut hearing = trust.hear(&name, &[0, 1].map(server));
            hearing.denied(server(1), nothing(), false);
            if let Some(host) = fails {
                hearing.failed(server(host), LookupError::new(NAME, Reason::Timeout));
            }
            let answer = hearing.end(|_| Dead).expect("it is believed");
            answer.expect_err("a denial").is_provisional
        };
        assert!(end(Some(0)));
        assert!(!end(None));
    }

    #[test]
    fn a_no_from_all_servers_is_believed() {
        assert!(is_nothing(&[2], &[No(1), No(0)], Passing));
    }

    #[test]
    fn a_server_with_records_counts_anywhere_in_the_list_but_not_outside_of_it() {
        let (trust, name) = (Trust::default(), NAME.into());
        trust.named(&name, server(1));
        let decides = |servers: &[u8], host| {
            let servers: Vec<_> = servers.iter().copied().map(server).collect();
            trust.hear(&name, &servers).is_decided_by(server(host))
        };
        assert!(decides(&[0, 1], 1) && !decides(&[0, 1], 0));
        assert!(decides(&[1, 0], 1) && !decides(&[1, 0], 0));
        assert!(decides(&[0, 2], 0));
        // Of two, the first in the list counts, whichever returned records last.
        trust.named(&name, server(2));
        assert!(decides(&[0, 1, 2], 1) && !decides(&[0, 1, 2], 2));
        assert!(decides(&[2, 0, 1], 2) && !decides(&[2, 0, 1], 1));
    }
}
