//! Where the client under test learns of its endpoints.

use std::net::{IpAddr, SocketAddr};

use tower_headless::http::{Client, ClientBuilder};

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

    /// A client of a Service's port. Requests fail at once where there is nothing, and none lasts for ever.
    pub(crate) fn client(self, namespace: &Namespace, service: &str, port: u16) -> Client {
        self.client_of(&format!("http://{}:{port}", namespace.host(service)))
    }

    /// A client of what the URI names.
    pub(crate) fn client_of(self, uri: &str) -> Client {
        let builder = Client::builder(uri.parse().expect("a URI"));
        let built = match self {
            Self::Dns => with_dns(builder).build(),
        };
        built.expect("a client")
    }
}

fn with_dns(builder: ClientBuilder) -> ClientBuilder {
    let server: IpAddr = NAME_SERVER.parse().expect("an address");
    builder.dns(|dns| dns.name_servers([SocketAddr::new(server, 53)]))
}
