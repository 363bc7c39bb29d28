//! Where the client under test learns of its endpoints.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tower_headless::{Dns, http::Client};

use crate::kit::{control_plane::NAME_SERVER, namespace::Namespace};

/// As good as no timeout.
const DAY: Duration = Duration::from_secs(86_400);

/// One source of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A and AAAA records, or SRV records, from CoreDNS.
    Dns,
}

/// How late a client may be that learns of endpoints, while little happens and while all are replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lateness {
    pub(crate) at_rest: Duration,
    pub(crate) rolled: Duration,
}

impl Source {
    pub(crate) const ALL: &[Self] = &[Self::Dns];

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
        self.build(uri, false, DAY)
    }

    /// The same, by the pods' IPv6 addresses.
    pub(crate) fn ipv6_client_of(self, uri: &str) -> Client {
        self.build(uri, true, DAY)
    }

    /// The same, with so much time for the first byte of a response.
    pub(crate) fn impatient_client_of(self, uri: &str, first_byte: Duration) -> Client {
        self.build(uri, false, first_byte)
    }

    /// What `http_client` needs to be told.
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            Self::Dns => "",
        }
    }

    /// How late its clients may be.
    pub(crate) fn lateness(self) -> Lateness {
        match self {
            // A look every 5 s, or 10 % later, and after a change at 1, 2 and 4 s.
            Self::Dns => Lateness {
                at_rest: Duration::from_secs(6),
                rolled: Duration::from_secs(6),
            },
        }
    }

    fn build(self, uri: &str, ipv6: bool, first_byte: Duration) -> Client {
        let builder = Client::builder(uri.parse().expect("a URI"));
        let builder = builder.first_byte_timeout(first_byte);
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
