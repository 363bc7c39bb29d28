//! Whose "no" is believed, where name servers disagree. Pure.
//!
//! Records are believed whoever sends them. That there is nothing is said by servers, too, that couldn't know otherwise: a
//! public one in the second line of resolv.conf says so of every name of a cluster. So these are believed:
//!
//! | what is known | whose "no" |
//! | --- | --- |
//! | a server has named something under the name | that server's; if several have, that of the one that stands first in the list |
//! | that server fails | that of another one that has ever named something |
//! | nobody has named anything yet | the first server's |
//! | the first one has been failing for a while, since before anybody has named anything | that of one that has it from a zone below the root |
//! | the first one is dead: it has never sent anything | that of any other |
//! | all servers agree | theirs |
//!
//! In all other cases the question has failed. What is believed of another server while one fails is provisional: a short name
//! that has been found that way is looked for again soon.
//!
//! Those who have named something in the meantime take nothing from one that stands before them: where a name was once
//! answered by a server that answers all names, its pods' own server can still say that they have gone.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::lookup::{Answer, LookupError, Nothing};
use crate::sync::Mutex;

/// How many names are remembered. A target has a handful.
const NAMES: usize = 1024;

/// Who has said anything, and who has named something. It outlives a change of the list of servers: their order may be all
/// that has changed.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The servers that have ever sent anything.
    alive: BTreeSet<SocketAddr>,
    /// Those that have ever named something, by name.
    namers: HashMap<Arc<str>, BTreeSet<SocketAddr>>,
}

/// How far a server that has given no answer is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Absence {
    /// It may answer the next question.
    Passing,
    /// It has been failing for a while.
    Away,
    /// Nothing has ever come from it.
    Dead,
}

/// What the servers say to one question.
pub(super) struct Hearing {
    /// Whose "no" decides.
    decides: Option<SocketAddr>,
    /// Those of the servers that have ever named something under the name.
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
    /// Something has come from a server.
    pub(super) fn responded(&self, server: SocketAddr) {
        self.0.lock().alive.insert(server);
    }

    /// Whether anything has ever come from a server.
    pub(super) fn is_alive(&self, server: SocketAddr) -> bool {
        self.0.lock().alive.contains(&server)
    }

    /// A server has named something under `name`.
    pub(super) fn named(&self, name: &Arc<str>, server: SocketAddr) {
        let names = &mut self.0.lock().namers;
        if let Some(namers) = names.get_mut(name) {
            namers.insert(server);
        } else if names.len() < NAMES {
            names.insert(name.clone(), [server].into());
        }
    }

    /// Opens the hearing of a question about `name`. A namer that isn't one of the `servers` any more doesn't count.
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

    /// Whether any server has said so.
    pub(super) fn is_denied(&self) -> bool {
        !self.denials.is_empty()
    }

    /// A server has given no answer.
    pub(super) fn failed(&mut self, server: SocketAddr, error: LookupError) {
        self.failed.push(server);
        self.failure = Some(error);
    }

    /// What comes of it once all have been asked. `absence`: how far one that has given no answer is away.
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
    fn a_no_is_believed_from_the_first_server_that_has_named_something() {
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
    fn another_server_that_has_named_something_stands_in_for_the_first_one_only_if_that_fails() {
        assert!(is_nothing(&[0, 1], &[Fails(0), No(1)], Passing));
        assert!(!is_nothing(&[1], &[No(0), Fails(1)], Passing));
        assert!(is_nothing(&[1, 2], &[No(0), Fails(1), No(2)], Passing));
    }

    #[test]
    fn before_anybody_has_named_anything_the_first_servers_no_is_believed() {
        assert!(is_nothing(&[], &[No(0)], Passing));
        assert!(is_nothing(&[], &[Fails(1), No(0)], Passing));
        assert!(!is_nothing(&[], &[Fails(0), ZoneHasNo(1)], Passing));
        assert!(!is_nothing(&[], &[Fails(0), No(1)], Away));
        assert!(is_nothing(&[], &[Fails(0), ZoneHasNo(1)], Away));
    }

    #[test]
    fn a_dead_first_server_leaves_the_no_to_the_others_until_anybody_has_named_something() {
        assert!(is_nothing(&[], &[Fails(0), No(1)], Dead));
        for namers in [&[0][..], &[2]] {
            assert!(!is_nothing(namers, &[Fails(0), No(1), Fails(2)], Dead));
        }
    }

    #[test]
    fn one_that_fails_beside_a_dead_one_may_still_know() {
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
    fn only_what_is_said_in_place_of_a_server_that_fails_is_provisional() {
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
    fn what_all_servers_say_is_believed() {
        assert!(is_nothing(&[2], &[No(1), No(0)], Passing));
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
        // Of two the first in the list, whoever came last.
        trust.named(&name, server(2));
        assert!(decides(&[0, 1, 2], 1) && !decides(&[0, 1, 2], 2));
        assert!(decides(&[2, 0, 1], 2) && !decides(&[2, 0, 1], 1));
    }
}
