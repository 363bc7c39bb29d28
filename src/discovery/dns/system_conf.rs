//! The system's resolv.conf: whom to ask, and how short names become full ones. The only file that names resolv-conf.
//!
//! It is read anew whenever something is asked: a file of a few lines, which a kubelet or a node's agent may replace while
//! the process runs. A file that can't be read at that moment changes nothing once there has been one that could.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
};

use resolv_conf::{Config, ScopedIp};
use tracing::warn;

use super::name::Name;

const DNS_PORT: u16 = 53;

/// What stands in a resolv.conf, as far as it is of use here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) name_servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
}

/// The file, and what it had in it when it was last read.
#[derive(Debug)]
pub(super) struct ResolvConfFile {
    path: PathBuf,
    last: Option<(Vec<u8>, ResolvConf)>,
}

impl ResolvConfFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// What the file says now; what it last said where it can't be read.
    pub(super) fn read(&mut self) -> io::Result<&ResolvConf> {
        match fs::read(&self.path) {
            Ok(text) if self.last.as_ref().is_some_and(|(last, _)| *last == text) => {}
            Ok(text) => {
                let parsed = ResolvConf::parse(&text);
                self.last = Some((text, parsed));
            }
            Err(error) if self.last.is_none() => {
                let path = self.path.display();
                return Err(io::Error::new(error.kind(), format!("{path}: {error}")));
            }
            Err(_) => {}
        }
        let (_, parsed) = self.last.as_ref().expect("read just now or before");
        Ok(parsed)
    }
}

impl ResolvConf {
    /// What resolv.conf(5) says of an empty file: the local machine's name server, no search list, `ndots:1`.
    pub(super) fn parse(text: &[u8]) -> Self {
        let (config, errors) = Config::parse_with_errors(text);
        for error in errors {
            warn!(%error, "a line of resolv.conf makes no sense and is passed over");
        }
        let servers = config.nameservers.iter().filter_map(name_server);
        let mut name_servers: Vec<_> = servers.collect();
        if name_servers.is_empty() {
            name_servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
        }
        let domains = config.get_last_search_or_domain();
        Self {
            name_servers,
            search: domains
                .filter_map(|domain| Name::parse(domain).ok())
                .collect(),
            ndots: usize::try_from(config.ndots).unwrap_or(usize::MAX),
        }
    }
}

fn name_server(server: &ScopedIp) -> Option<SocketAddr> {
    match server {
        ScopedIp::V6(address, Some(scope)) => {
            let scope_id = scope_id(scope);
            if scope_id.is_none() {
                warn!(%address, scope, "no such network interface; the name server is passed over");
            }
            Some(SocketAddrV6::new(*address, DNS_PORT, 0, scope_id?).into())
        }
        server => Some(SocketAddr::new(IpAddr::from(server), DNS_PORT)),
    }
}

/// The index of a network interface, which a link-local address goes with (RFC 4007 §11).
fn scope_id(interface: &str) -> Option<u32> {
    interface.parse().ok().or_else(|| {
        let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
        index.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(search: &[Name]) -> Vec<&str> {
        search.iter().map(Name::text).collect()
    }

    #[test]
    fn a_pods_file() {
        let conf = ResolvConf::parse(
            b"search default.svc.cluster.local svc.cluster.local cluster.local\n\
              nameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n",
        );
        let servers = ["10.96.0.10:53", "[fd00::a]:53"].map(|s| s.parse().expect("an address"));
        assert_eq!(conf.name_servers, servers);
        assert_eq!(
            names(&conf.search),
            [
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local"
            ]
        );
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let conf = ResolvConf::parse(b"# nothing\n");
        assert_eq!(conf.name_servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
        assert!(conf.search.is_empty());
        assert_eq!(conf.ndots, 1);
    }

    #[test]
    fn nonsense_costs_no_more_than_its_line() {
        let conf = ResolvConf::parse(
            b"nameserver kube-dns\nfrobnicate\nnameserver 10.96.0.10\nsearch . a..b svc.cluster.local\n\xff\xfe\n",
        );
        assert_eq!(conf.name_servers, [SocketAddr::from(([10, 96, 0, 10], 53))]);
        assert_eq!(names(&conf.search), ["svc.cluster.local"]);
    }

    #[test]
    fn a_link_local_name_server_has_its_interface() {
        let conf = ResolvConf::parse(
            b"nameserver fe80::1%lo\nnameserver fe80::2%3\nnameserver fe80::3%none\n",
        );
        let scopes = conf.name_servers.iter().map(|server| match server {
            SocketAddr::V6(server) => server.scope_id(),
            SocketAddr::V4(_) => 0,
        });
        assert_eq!(scopes.collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_change_is_seen_and_a_missing_file_changes_nothing() {
        let path = std::env::temp_dir().join(format!("tower-headless-{}.conf", std::process::id()));
        let mut file = ResolvConfFile::new(path.clone());
        let error = file.read().expect_err("no file yet");
        assert!(error.to_string().contains("tower-headless"), "{error}");
        let server = |file: &mut ResolvConfFile| file.read().expect("a file").name_servers[0].ip();
        for host in [1, 2] {
            fs::write(&path, format!("nameserver 10.0.0.{host}\n")).expect("a writable folder");
            assert_eq!(server(&mut file), IpAddr::from([10, 0, 0, host]));
        }
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(server(&mut file), IpAddr::from([10, 0, 0, 2]));
    }
}
