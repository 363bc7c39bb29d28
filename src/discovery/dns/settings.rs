//! The settings of [`Dns`](super::Dns).

use std::{net::SocketAddr, path::PathBuf};

use super::{
    look::Kind,
    lookup::Family,
    resolver::Resolver,
    target::{Host, Target},
};
use crate::discovery::schedule::Pace;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) pace: Pace,
    pub(super) prefer_ipv6: bool,
    pub(super) allow_loopback: bool,
    pub(super) name_servers: Vec<SocketAddr>,
    pub(super) resolv_conf: PathBuf,
    /// None if it isn't read.
    pub(super) hosts_file: Option<PathBuf>,
}

impl Settings {
    pub(super) fn new(target: Target) -> Self {
        Self {
            name_servers: Vec::new(),
            target,
            pace: Pace::default(),
            prefer_ipv6: false,
            allow_loopback: false,
            resolv_conf: "/etc/resolv.conf".into(),
            hosts_file: None,
        }
    }

    /// The resolver that these settings describe.
    pub(super) fn resolver(&self) -> Resolver {
        let given = match &self.name_servers[..] {
            [] => self.target.name_server().into_iter().collect(),
            servers => servers.to_vec(),
        };
        Resolver::new(self.resolv_conf.clone(), given)
    }

    /// The kinds of records to look for, the preferred one first.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let [preferred, other] = match self.prefer_ipv6 {
            true => [Family::V6, Family::V4],
            false => [Family::V4, Family::V6],
        };
        match *self.target.host() {
            Host::Name(_, port) => vec![
                Kind::Addresses(preferred, port),
                Kind::Addresses(other, port),
            ],
            Host::Service(_) => vec![Kind::Services(preferred)],
            Host::Address(_) => Vec::new(),
        }
    }
}
