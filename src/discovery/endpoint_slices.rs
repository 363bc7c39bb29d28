//! A Service's pods, as the API server tells of them.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `endpoint_slices/target.rs` | what to watch, as text |
//! | `endpoint_slices/settings.rs` | what the user has chosen |
//! | `endpoint_slices/endpoints.rs`, `endpoint_slices/ports.rs` | slices → endpoints; pure |
//! | `endpoint_slices/slices.rs` | the slices as last heard |
//! | `endpoint_slices/watcher.rs` | list, watch, and what to do when either fails |
//! | `endpoint_slices/open.rs` | one watch under way |
//! | `endpoint_slices/api.rs` | what is asked of an API server, whoever asks |
//! | `endpoint_slices/client.rs` | kube's client, asked |
//! | `endpoint_slices/config.rs`, `endpoint_slices/cryptography.rs` | how that client is made |
//! | `endpoint_slices/exec.rs`, `endpoint_slices/proxy.rs` | a kubeconfig's exec plugin; whether there is a proxy on the way |
//! | `endpoint_slices/error.rs`, `endpoint_slices/rbac.rs` | what can go wrong, and the Role that helps |

mod api;
mod client;
mod config;
mod cryptography;
mod endpoints;
mod error;
mod exec;
mod open;
mod ports;
mod proxy;
mod rbac;
mod settings;
mod slices;
#[cfg(test)]
pub(crate) mod suite;
mod target;
mod watcher;

pub use error::EndpointSlicesError;
pub use target::{ParseServiceTargetError, ServiceTarget};

use std::{
    fmt,
    path::PathBuf,
    task::{Context, Poll},
    time::Duration,
};

use self::{
    api::Api,
    client::ApiServer,
    settings::{Access, Settings},
    slices::Slices,
    watcher::Watcher,
};
use super::{Discovery, DiscoveryReport, shared::Shared};
use crate::{endpoint::Endpoint, error::BoxError, logs};

/// Discovery by a watch of a Service's EndpointSlices (`discovery.k8s.io/v1`): the source that DNS echoes.
///
/// ```no_run
/// use tower_headless::{Discovery, Dns, EndpointSlices};
///
/// let name = "nginx-headless.default:80";
/// let discovery = EndpointSlices::new(name.parse()?).or(Dns::new(name.parse()?));
/// # drop(discovery);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Which source when
///
/// The guide [compares them](crate::guide::discovery#which-source).
///
/// [`Discovery::or`] has both: the watch where it is allowed, and DNS where it isn't, or while the API server can't be
/// reached.
///
/// # What is used
///
/// Pods that are ready, which a Service with `publishNotReadyAddresses` says of all of them; where there is none, those
/// that are terminating and still serve, as kube-proxy does. IPv4 where there is any, unless
/// [told otherwise](Self::prefer_ipv6). That there are no pods, or no such Service, is believed at once: the API server
/// knows.
///
/// The Service need not be headless: one with a virtual IP has slices, too, and so its pods can be balanced.
///
/// # What is trusted, and for how long
///
/// A list at first, and then one watch, which goes on from its last version when it ends. Any error leads to another list,
/// after 1 s, 1.6 s, 2.6 s … 30 s; meanwhile the last set stays, for as long as it takes. A list replaces the set once it
/// is complete.
///
/// [`Balance::staleness`](crate::Balance::staleness) begins anew with each word of the API server: a list, an event, and
/// the bookmark that it sends about once a minute. So a minute is what it grows to while all is well; nothing in between
/// could tell a quiet watch from a dead one. After 100 s of silence another watch is opened, and after 10 s if every pod
/// refuses.
///
/// # What kube would decide
///
/// Each default of kube's, and of the HTTP client below it, that can end a watch or a request, and what holds here. A
/// [client of your own](Self::client) has its own; ours for the watch hold for it, too.
///
/// | what | kube's | here | why |
/// | --- | --- | --- | --- |
/// | connecting | 30 s | 10 s with the answer | a source that says nothing for 2 s has its [fallback](crate::Fallback) take over |
/// | the answer to a list, the beginning of a watch | no limit | 10 s | a server that hangs is an error, and asked again |
/// | silence in a watch | no limit | 100 s; 10 s while every pod refuses | a bookmark comes each minute |
/// | how long a watch lasts | 290 s | 220–290 s, at random | clients started together don't begin anew together |
/// | writing | 295 s | the same | requests are a few lines |
/// | retries of 429, 503 and 504 | 15, 5 ms to 1,000 s apart, in silence | none: 1 s × 1.6 up to 30 s, told each time | errors are told while they last |
/// | an exec plugin | no limit, in a thread that can't be ended | 8 s, then killed | a runtime has to end |
/// | a service account's token, the file of authorities | read again each minute | the same | they rotate |
/// | idle connections | closed after 90 s | the same | there is one, and the watch is on it |
/// | `HTTPS_PROXY` | for any API server | as client-go does | an API server on this machine has no proxy |
/// | `NO_PROXY` | by feature: compared with the proxy's host, an error if malformed | as client-go does | it is about the API server |
///
/// # Permission
///
/// `list` and `watch` for `endpointslices` in the Service's namespace, and nothing else:
///
/// ```yaml
/// apiVersion: rbac.authorization.k8s.io/v1
/// kind: Role
/// metadata:
///   name: watch-endpointslices
///   namespace: default
/// rules:
/// - apiGroups: [discovery.k8s.io]
///   resources: [endpointslices]
///   verbs: [list, watch]
/// ---
/// apiVersion: rbac.authorization.k8s.io/v1
/// kind: RoleBinding
/// metadata:
///   name: watch-endpointslices
///   namespace: default
/// roleRef:
///   apiGroup: rbac.authorization.k8s.io
///   kind: Role
///   name: watch-endpointslices
/// subjects:
/// - kind: ServiceAccount
///   name: client
///   namespace: default
/// ```
///
/// Where it is missing, the [error](EndpointSlicesError::is_forbidden) has this text with the names filled in.
///
/// # In Cargo.toml
///
/// Feature `kube`, from Rust 1.89 on, which kube asks for. k8s-openapi wants the application, and no library, to choose
/// the version of the API; any will do:
///
/// ```toml
/// tower-headless = { version = "0.1", features = ["kube", "kube-ring"] }
/// k8s-openapi = { version = "0.29", features = ["v1_33"] }
/// ```
///
/// Feature `kube-latest` is for applications that don't care:
///
/// ```toml
/// tower-headless = { version = "0.1", features = ["kube-latest"] }
/// ```
///
/// The connection's cryptography is rustls' default for the process, if the application has installed one; if not, ring
/// (`kube-ring`, `tls-ring`) or aws-lc (`kube-aws-lc`, `tls-aws-lc`) becomes it.
///
/// **Clones share** one watch in each runtime, which ends with the last one that reads, within a second. (A setting changed on
/// a clone makes it one of its own.) A clone begins with the last set, if the API server has been heard in the last 100 s, as it is while any clone is
/// in use. If not, it begins with the next set; with the old one, and its [age](Discovery::age), only if the API server
/// says nothing for 3 s or can't be asked.
#[derive(Clone)]
pub struct EndpointSlices {
    settings: Settings,
    shared: Shared<Watcher<ApiServer>>,
}

impl EndpointSlices {
    /// Discovery of the pods behind `target`. Nothing is asked until a balancer is built with it.
    ///
    /// The API server and the credentials are those of the kubeconfig (`KUBECONFIG`, or `~/.kube/config`), or else those
    /// that every pod has. They are read when they are first needed; what is wrong with them is an error of discovery, and
    /// tried again. A token that a file has is read again each minute. The namespace, where `target` has none, is that of
    /// the kubeconfig's context, or the pod's own.
    ///
    /// An **exec plugin** is run without a terminal, one at a time. It is killed after 8 s, with all that it has started, or
    /// as soon as nobody waits for it; what it has to complain of is in the error. It is asked again a minute before its
    /// credentials expire, and when the API server takes them no more. It has to print JSON. (A legacy `auth-provider` with
    /// a command is left to kube, which waits for it without a limit.)
    ///
    /// A **proxy** is used if the kubeconfig names one in `proxy-url`, whatever the environment says, or else if
    /// `HTTPS_PROXY` (`https_proxy`) does. The latter is not for an API server on this machine, at the cluster's own address
    /// for it, without TLS, or named by `NO_PROXY` (`no_proxy`). That is read as Go does: `*`, a domain with all below it, what
    /// is below `.a.domain`, an address or a network, each but a network with a port if one is meant; entries that make no
    /// sense are passed over. The schemes are `http`, `https` and `socks5`; `HTTPS_PROXY` without one is `http`. It takes kube's
    /// feature `http-proxy` or `socks5`, which the application enables; without it the error says what to do.
    pub fn new(target: ServiceTarget) -> Self {
        Self::with(Settings::new(target))
    }

    fn with(settings: Settings) -> Self {
        Self {
            shared: Shared::new(watcher(&settings, ApiServer::new(settings.clone()))),
            settings,
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        Self::with(self.settings)
    }

    /// The kubeconfig to use, and no other way to the API server.
    pub fn kubeconfig(self, path: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.access = Access::Kubeconfig(path.into()))
    }

    /// The client to use, for programs that have one, or one with proxies or credentials of its own.
    ///
    /// A client of kube's has a task in the runtime that it was made in: when that ends, so does what it can do.
    ///
    /// The one place where this crate's interface has a type of a dependency's: its version has to be the one that feature
    /// `kube` has, 5.
    pub fn client(self, client: kube::Client) -> Self {
        self.set(|settings| settings.access = Access::Client(client))
    }

    /// Whether to use the IPv6 addresses where there are both.
    pub fn prefer_ipv6(self, prefer: bool) -> Self {
        self.set(|settings| settings.prefer_ipv6 = prefer)
    }

    /// Whether loopback addresses may be pods. They can't in a cluster; on a developer's machine they can.
    pub fn allow_loopback(self, allow: bool) -> Self {
        self.set(|settings| settings.allow_loopback = allow)
    }
}

/// What follows the slices, as `settings` say, by way of `api`.
fn watcher<A: Api>(settings: &Settings, api: A) -> Watcher<A> {
    let port = settings.target.port().clone();
    let slices = Slices::new(port, settings.prefer_ipv6, settings.allow_loopback);
    Watcher::new(settings.target.clone(), slices, api)
}

impl fmt::Debug for EndpointSlices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSlices")
            .field("target", &self.settings.target)
            .field("prefer_ipv6", &self.settings.prefer_ipv6)
            .field("allow_loopback", &self.settings.allow_loopback)
            .finish_non_exhaustive()
    }
}

impl Discovery for EndpointSlices {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let _entered = logs::enter_anonymous(|| self.name());
        self.shared.poll_next(cx)
    }

    fn refresh(&mut self) {
        self.shared.refresh();
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.shared.refused(endpoint);
    }

    fn age(&self) -> Duration {
        self.shared.age()
    }

    fn report(&self) -> DiscoveryReport {
        let mut report = self.shared.report();
        report.name = self.name().map(Into::into);
        report
    }

    /// The target's service and namespace, as far as it names them.
    fn name(&self) -> Option<String> {
        let target = &self.settings.target;
        let service = target.service();
        Some(match target.namespace() {
            Some(namespace) => format!("{service}.{namespace}"),
            None => service.to_owned(),
        })
    }
}
