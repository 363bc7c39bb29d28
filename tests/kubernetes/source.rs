//! Where the client under test gets its endpoints from.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use tower_headless::{
    Discovery, Dns, EndpointSlices,
    http::{Client, ClientBuilder},
};

use crate::kit::{
    control_plane::{NAME_SERVER, User},
    namespace::Namespace,
};

/// One source of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A and AAAA records, or SRV records, from CoreDNS.
    Dns,
    /// EndpointSlices from the API server.
    Watch,
}

/// How late a client may learn of endpoints, compared with a bare watcher of the slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lateness {
    pub(crate) at_rest: Duration,
    pub(crate) rolled: Duration,
}

impl Source {
    pub(crate) const ALL: &[Self] = &[Self::Dns, Self::Watch];

    /// The name of this story's Kubernetes namespace.
    pub(crate) fn namespace(self, story: &str) -> String {
        match self {
            Self::Dns => format!("dns-{story}"),
            Self::Watch => format!("watch-{story}"),
        }
    }

    /// A client of a Service's port.
    pub(crate) fn client(self, namespace: &Namespace, service: &str, port: u16) -> Client {
        self.client_of(namespace, &uri(namespace, service, port))
    }

    /// A client of the Service that the URI names.
    pub(crate) fn client_of(self, namespace: &Namespace, uri: &str) -> Client {
        self.build(namespace, uri, false, Client::builder(parsed(uri)))
    }

    /// A client of the Service that the URI names, by its pods' IPv6 addresses.
    pub(crate) fn ipv6_client_of(self, namespace: &Namespace, uri: &str) -> Client {
        self.build(namespace, uri, true, Client::builder(parsed(uri)))
    }

    /// A client of the Service that the URI names, with other settings.
    pub(crate) fn client_with(
        self,
        namespace: &Namespace,
        uri: &str,
        set: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Client {
        self.build(namespace, uri, false, set(Client::builder(parsed(uri))))
    }

    /// The arguments that make `http_client` use this source.
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            Self::Dns => "",
            // A name server where nobody answers, so that the fallback, DNS, can't help.
            Self::Watch => ", --watch, --nameserver, 10.244.255.1",
        }
    }

    /// How late clients with this source may be.
    pub(crate) fn lateness(self) -> Lateness {
        let (at_rest, rolled) = match self {
            // A look every 5 s, up to 10 % late; after a change, looks at 1, 2 and 4 s.
            Self::Dns => (Duration::from_secs(6), Duration::from_secs(6)),
            // With 500 requests a second, each pod's turn comes within 20 ms.
            Self::Watch => (Duration::from_millis(50), Duration::from_millis(50)),
        };
        Lateness { at_rest, rolled }
    }

    fn build(self, namespace: &Namespace, uri: &str, ipv6: bool, builder: ClientBuilder) -> Client {
        let built = match self {
            Self::Dns => builder.dns(|dns| asked(dns).prefer_ipv6(ipv6)).build(),
            Self::Watch => {
                let kubeconfig = namespace.plane.kubeconfig(User::Admin);
                let slices = slices(uri, kubeconfig).prefer_ipv6(ipv6);
                builder.discovery(slices).build()
            }
        };
        built.expect("a client")
    }
}

/// A Service's pods, by a watch with the credentials of a kubeconfig.
pub(crate) fn slices(uri: &str, kubeconfig: &Path) -> EndpointSlices {
    let target = authority(uri).parse().expect("a Service");
    EndpointSlices::new(target).kubeconfig(kubeconfig)
}

/// A Service's pods, by CoreDNS.
pub(crate) fn dns(uri: &str) -> Dns {
    asked(Dns::new(authority(uri).parse().expect("a Service")))
}

/// The URI of a Service's port, by number.
pub(crate) fn uri(namespace: &Namespace, service: &str, port: u16) -> String {
    format!("http://{}:{port}", namespace.host(service))
}

/// A client with any other source.
pub(crate) fn client_by<D: Discovery>(uri: &str, discovery: D) -> ClientBuilder<D> {
    Client::builder(parsed(uri)).discovery(discovery)
}

/// The URI of a Service's port, by name.
pub(crate) fn named_uri(namespace: &Namespace, service: &str) -> String {
    format!("http://_http._tcp.{}", namespace.host(service))
}

fn authority(uri: &str) -> String {
    let uri = parsed(uri);
    uri.authority().expect("it has one").to_string()
}

fn parsed(uri: &str) -> http::Uri {
    uri.parse().expect("a URI")
}

fn asked(dns: Dns) -> Dns {
    let server: IpAddr = NAME_SERVER.parse().expect("an address");
    dns.name_servers([SocketAddr::new(server, 53)])
}
