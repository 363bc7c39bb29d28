//! Names that need no name server.
//!
//! `localhost` and names below it always mean this machine (RFC 6761 §6.3). /etc/hosts counts only if the user chose
//! so, because in a cluster it says nothing about pods.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    lookup::{Answer, LookupError, Query, Resolve, Transport},
    name::{Name, is_localhost},
};

use crate::logs::{DISCOVERY, Line, debug, here};

/// Answers for this machine's own names, and passes all other questions to `R`.
#[derive(Clone)]
pub(super) struct Local<R> {
    resolver: R,
    /// The hosts file, and the only name that is looked for there: the one that the user wrote.
    hosts: Option<(Arc<Path>, Arc<str>)>,
}

impl<R> Local<R> {
    pub(super) fn new(resolver: R, hosts_file: Option<PathBuf>, name: &Name) -> Self {
        let hosts = hosts_file.map(|path| (path.into(), name.text().into()));
        Self { resolver, hosts }
    }

    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        if is_localhost(name) {
            return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let (path, written) = self.hosts.as_ref()?;
        if **written != *name {
            return None;
        }
        let addresses = match fs::read(path) {
            Ok(text) => in_hosts(&String::from_utf8_lossy(&text), name),
            Err(error) => {
                debug!(DISCOVERY, here(), path = %path.display(), error = %Line(&error), "the hosts file can't be read");
                Vec::new()
            }
        };
        (!addresses.is_empty()).then_some(addresses)
    }
}

impl<R: Resolve> Resolve for Local<R> {
    fn candidates(&self, name: &Name) -> Result<Vec<Arc<str>>, LookupError> {
        if self.addresses(name.text()).is_some() {
            return Ok(vec![name.text().into()]);
        }
        let mut candidates = self.resolver.candidates(name)?;
        // A search domain must not turn another name into one of this machine.
        candidates.retain(|candidate| !is_localhost(candidate));
        Ok(candidates)
    }

    fn local(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.addresses(name)
    }

    fn ask(&self, query: Query, over: Transport, deadline: Instant) -> BoxFuture<'static, Answer> {
        self.resolver.ask(query, over, deadline)
    }
}

/// The addresses of a name in the text of a hosts file, in file order, without duplicates: see hosts(5).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        let is_it = |word: &str| word.trim_end_matches('.').eq_ignore_ascii_case(name);
        if words.any(is_it) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_is_read_as_its_manual_says() {
        let text = "127.0.0.1 localhost\n# 10.0.0.9 web\n10.0.0.1\tdb Web.local web # the first\n\
                    10.0.0.1 web\nfd00::1 web.\nfe80::1%lo0 web\nnonsense\n10.0.0.2 webs\n";
        let found = |name| in_hosts(text, name);
        let expected: Vec<IpAddr> = ["10.0.0.1", "fd00::1"]
            .map(|address| address.parse().expect("an address"))
            .into();
        assert_eq!(found("web"), expected);
        assert_eq!(found("web.local"), expected[..1]);
        assert!(found("first").is_empty());
    }
}
