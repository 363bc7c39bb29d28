//! Where the client under test learns of its endpoints.

use std::net::{IpAddr, SocketAddr};

use tower_headless::{Dns, http::Client};

use crate::kit::{control_plane::NAME_SERVER, namespace::Namespace};

/// One source of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A and AAAA records, or SRV records, from CoreDNS.
    Dns,
}

impl Source {
    /// The name of this story's Kubernetes namespace.
    pub(crate) fn namespace(self, story: &str) -> String {
        match self {
            Self::Dns => format!("dns-{story}"),
        }
    }

    /// A client of a Service's port.
    pub(crate) fn client(self, namespace: &Namespace, service: &str, port: u16) -> Client {
        self.client_of(&format!("http://{}:{port}", namespace.host(service)))
    }

    /// A client of what the URI names.
    pub(crate) fn client_of(self, uri: &str) -> Client {
        self.build(uri, false)
    }

    /// The same, by the pods' IPv6 addresses.
    pub(crate) fn ipv6_client_of(self, uri: &str) -> Client {
        self.build(uri, true)
    }

    /// What `http_client` needs to be told.
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            Self::Dns => "",
        }
    }

    fn build(self, uri: &str, ipv6: bool) -> Client {
        let builder = Client::builder(uri.parse().expect("a URI"));
        let built = match self {
            Self::Dns => builder.dns(|dns| asked(dns).prefer_ipv6(ipv6)).build(),
        };
        built.expect("a client")
    }
}

fn asked(dns: Dns) -> Dns {
    let server: IpAddr = NAME_SERVER.parse().expect("an address");
    dns.name_servers([SocketAddr::new(server, 53)])
}
