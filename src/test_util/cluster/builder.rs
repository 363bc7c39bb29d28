//! The settings of a cluster, before it starts.

use std::{fmt, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{
    super::{dns::DnsServer, pod::Pod},
    Cluster, State,
    member::{Member, Template},
    network::Network,
};
use crate::{discovery::dns::Target, error::BoxError, sync::Mutex};

/// The name of the Service unless a test chooses another.
const SERVICE: &str = "web.default.svc.cluster.local";

impl Cluster {
    /// Starts a Service of `n` pods, called `web.default.svc.cluster.local`, published with a TTL of 1 s.
    ///
    /// # Panics
    ///
    /// As [`ClusterBuilder::start`](super::super::ClusterBuilder::start) does.
    pub async fn start(n: usize) -> Self {
        Self::builder().pods(n).start().await
    }

    /// Builds a Service with settings of your own.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            service: SERVICE.to_owned(),
            port_name: None,
            pods: 3,
            template: Template {
                stateful_set: None,
                pods: Pod::builder(),
            },
        }
    }
}

/// Settings of a [`Cluster`], before it starts.
#[must_use = "a builder does nothing until it starts a cluster"]
pub struct ClusterBuilder {
    service: String,
    port_name: Option<String>,
    pods: usize,
    template: Template,
}

impl ClusterBuilder {
    /// The Service's name, in full. `web.default.svc.cluster.local` by default.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Names the port. DNS then has SRV records of `_<name>._tcp.<service>`, with the pods' hostnames, and
    /// [`Cluster::client`] and [`Cluster::discovery`] use them. The port has no name by default.
    pub fn port_name(mut self, name: impl Into<String>) -> Self {
        self.port_name = Some(name.into());
        self
    }

    /// How many pods there are at first. 3 by default.
    pub fn pods(mut self, n: usize) -> Self {
        self.pods = n;
        self
    }

    /// Makes the pods those of a StatefulSet with this name: `<name>-0`, `<name>-1` and so on. These are their names,
    /// their hostnames in DNS, and the values of `x-pod`. There is no StatefulSet by default; then pods are named by
    /// their addresses.
    pub fn stateful_set(mut self, name: impl Into<String>) -> Self {
        self.template.stateful_set = Some(name.into());
        self
    }

    /// Sets how the pods answer while they are [`Healthy`](super::super::Mode::Healthy) or slow: a function of the
    /// pod's name and the request. An error closes the connection (HTTP/2: resets the stream).
    ///
    /// Any tower service of `http` requests is such a function, with `oneshot` of `tower::ServiceExt`: axum's `Router`, or
    /// tonic's `Routes`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_headless::BoxError> {
    /// use http::Response;
    /// use http_body_util::Full;
    /// use tower_headless::{BoxError, test_util::Cluster};
    ///
    /// let cluster = Cluster::builder()
    ///     .stateful_set("kv")
    ///     .answer(|pod, request| async move {
    ///         let text = format!("{pod} has no {}", request.uri().path());
    ///         Ok::<_, BoxError>(Response::builder().status(404).body(Full::from(text))?)
    ///     })
    ///     .start()
    ///     .await;
    /// let client = cluster.client().build()?;
    /// let response = client.pod("kv-2").get("/user-42").await?;
    /// assert_eq!(response.status(), 404);
    /// assert_eq!(response.text().await?, "kv-2 has no /user-42");
    /// # Ok(())
    /// # }
    /// ```
    pub fn answer<F, R, B, E>(mut self, respond: F) -> Self
    where
        F: Fn(String, Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.template.pods = self.template.pods.answer(respond);
        self
    }

    /// Makes the pods speak TLS, with this certificate chain and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// If they aren't valid, or the build has no provider of cryptography (features `tls-ring`, `tls-aws-lc`).
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, chain: &[u8], key: &[u8]) -> Result<Self, BoxError> {
        self.template.pods = self.template.pods.tls(chain, key)?;
        Ok(self)
    }

    /// Starts the pods and the DNS server; publishes.
    ///
    /// # Panics
    ///
    /// If a name isn't valid, or no pod can listen. The machine must have the whole of 127.0.0.0/8, as Linux and
    /// Windows do. On macOS each address but 127.0.0.1 needs an `ifconfig lo0 alias`, so a container is easier.
    pub async fn start(self) -> Cluster {
        self.check();
        let (network, members) = first_pods(self.pods, &self.template).await;
        let cluster = Cluster {
            dns: DnsServer::start().await,
            service: format!("{}.", self.service.trim_end_matches('.')),
            port_name: self.port_name,
            template: self.template,
            state: Mutex::new(State {
                network,
                members,
                published: Vec::new(),
                ttl: 1,
                drain: Duration::ZERO,
                joined: watch::Sender::default(),
            }),
        };
        cluster.publish();
        cluster
    }

    /// Panics if one of the names isn't valid in a URI or in a target.
    fn check(&self) {
        let service = self.service.trim_end_matches('.');
        check("a Service", &self.service, &format!("{service}:80"));
        if let Some(name) = &self.port_name {
            check_label("a port", name, &format!("_{name}._tcp.{service}"));
        }
        if let Some(name) = &self.template.stateful_set {
            let last = Network::HOSTS - 1;
            let pod = format!("{name}-{last}.{service}:80");
            check_label("a StatefulSet", name, &pod);
        }
    }
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("service", &self.service)
            .field("port_name", &self.port_name)
            .field("pods", &self.pods)
            .field("stateful_set", &self.template.stateful_set)
            .finish_non_exhaustive()
    }
}

/// Panics if `name`, as it is in `target`, isn't valid as a name of `what`.
fn check(what: &str, name: &str, target: &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let uri = format!("http://{target}").parse::<Uri>();
    let good = uri.is_ok() && !name.is_empty() && name.chars().all(is_name);
    assert!(good, "{name:?} is no name of {what}");
    match target.parse::<Target>() {
        Ok(_) => assert!(
            name.parse::<IpAddr>().is_err(),
            "{name:?} is no name of {what}: it is an address"
        ),
        Err(error) => panic!("{name:?} is no name of {what}: {error}"),
    }
}

/// Like [`check`], for a name that must be one label in DNS.
fn check_label(what: &str, name: &str, target: &str) {
    assert!(
        !name.contains('.'),
        "{name:?} is no name of {what}: it has a dot"
    );
    check(what, name, target);
}

async fn first_pods(n: usize, template: &Template) -> (Network, Vec<Member>) {
    const ATTEMPTS: usize = 20;
    let most = usize::from(Network::HOSTS);
    assert!(
        n <= most,
        "a cluster has one /24 of addresses, so at most {most} pods"
    );
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut network = Network::next();
        match network.start_pods(n, template).await {
            Ok(pods) => return (network, pods),
            Err(error) => last = Some(error),
        }
    }
    panic!("no pods could be started in {ATTEMPTS} networks of 127.0.0.0/8: {last:?}");
}
