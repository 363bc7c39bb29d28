//! Discovery by EndpointSlices: a Service's pods, as the API server lists them.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `endpoint_slices/target.rs` | parsing what to watch |
//! | `endpoint_slices/settings.rs` | the user's settings |
//! | `endpoint_slices/endpoints.rs`, `endpoint_slices/ports.rs` | slices → endpoints; pure |
//! | `endpoint_slices/slices.rs` | the slices as they are known |
//! | `endpoint_slices/watcher.rs` | list, watch, and what to do when either fails |
//! | `endpoint_slices/open.rs` | one open watch |
//! | `endpoint_slices/api.rs` | the trait behind which an API server stands |
//! | `endpoint_slices/client.rs` | that trait, by kube's client |
//! | `endpoint_slices/config.rs`, `endpoint_slices/cryptography.rs` | how that client is made |
//! | `endpoint_slices/exec.rs`, `endpoint_slices/proxy.rs` | a kubeconfig's exec plugin; which proxy to use |
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

/// Discovery by a watch of a Service's EndpointSlices (`discovery.k8s.io/v1`), from which cluster DNS gets its records.
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
/// [`Discovery::or`] combines both: the watch if it is allowed, and DNS if it isn't or while the API server can't be
/// reached.
///
/// # What is used
///
/// Ready pods. (With `publishNotReadyAddresses`, the Service marks all pods as ready.) If no pod is ready, the
/// terminating pods that still serve, as kube-proxy does. IPv4 addresses if there are any, unless
/// [`prefer_ipv6`](Self::prefer_ipv6) is set. If all pods of a family refuse connections, the other family's addresses
/// are used, as [`Dns`](crate::Dns) does it. If the API server says that there are no pods, or no such Service, that is
/// believed at once.
///
/// The Service need not be headless: a Service with a virtual IP has slices too, so its pods can be balanced.
///
/// # What is trusted, and for how long
///
/// It begins with a list, followed by a watch. When the watch ends, the next one goes on from its last version. After
/// any error it lists again, after 1 s, 1.6 s, 2.6 s … 30 s; the last set stays for as long as the errors last. A list
/// replaces the set once it is complete. After 429 (too many requests) it goes on from its last version, and not before
/// the server's `retryAfterSeconds`, up to 30 s.
///
/// [`Balance::staleness`](crate::Balance::staleness) restarts at zero with everything the API server sends: a list, an
/// event, or the bookmark that comes about once a minute. So it reaches a minute even while all is well, because
/// nothing in between distinguishes a quiet watch from a dead one. After 100 s of silence the watch is reopened; after
/// 10 s if every pod refuses connections.
///
/// # What kube would decide
///
/// Each default of kube, and of the HTTP client below it, that can end a watch or a request, and the value here. A
/// [client of your own](Self::client) keeps its own values, but the ones here for the watch apply to it too.
///
/// | what | kube's | here | why |
/// | --- | --- | --- | --- |
/// | connecting | 30 s | 10 s, including the answer | after 2 s without an answer, a [fallback](crate::Fallback) takes over |
/// | the answer to a list, the start of a watch | no limit | 10 s | a server that hangs is an error, and is tried again |
/// | silence in a watch | no limit | 100 s; 10 s while every pod refuses | a bookmark comes each minute |
/// | how long a watch lasts | 290 s | 220–290 s, at random | clients started together don't reopen together |
/// | writing | 295 s | the same | requests are a few lines |
/// | retries of 429, 503 and 504 | 15, 5 ms to 1,000 s apart, unlogged | none within a request; the back-off above, each failure reported | errors are visible while they last |
/// | an exec plugin | no limit, in a thread that can't be ended | 8 s, then killed | a hanging plugin must not keep the runtime from shutting down |
/// | a service account's token, the CA file | read again each minute | the same | they rotate |
/// | idle connections | closed after 90 s | the same | there is only one, and the watch uses it |
/// | `HTTPS_PROXY` | for any API server | as client-go does | an API server on this machine needs no proxy |
/// | `NO_PROXY` | by feature: compared with the proxy's host, an error if malformed | as client-go does | it names API servers that need no proxy |
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
/// If it is missing, the [error](EndpointSlicesError::is_forbidden) prints this text with the names filled in.
///
/// # In Cargo.toml
///
/// Feature `kube` needs Rust 1.89, because kube does. k8s-openapi wants the application, not a library, to choose the
/// API version; any will do:
///
/// ```toml
/// tower-headless = { version = "0.1", features = ["kube", "kube-ring"] }
/// k8s-openapi = { version = "0.29", features = ["v1_33"] }
/// ```
///
/// Feature `kube-latest` is for applications for which the version doesn't matter:
///
/// ```toml
/// tower-headless = { version = "0.1", features = ["kube-latest"] }
/// ```
///
/// TLS uses rustls' default crypto provider for the process, if the application has installed one. If not, ring
/// (`kube-ring`, `tls-ring`) or aws-lc (`kube-aws-lc`, `tls-aws-lc`) is installed as the default.
///
/// **Clones share** one watch per runtime. It ends within a second after the last clone that reads there is dropped.
/// Changing a setting on a clone makes it independent. While any clone is in use, a new one begins with the last set.
/// If nothing has come from the API server for 100 s, the clone begins with the next set. It begins with the old set,
/// and its [age](Discovery::age), only if the API server says nothing for 3 s or can't be asked.
#[derive(Clone)]
pub struct EndpointSlices {
    settings: Settings,
    shared: Shared<Watcher<ApiServer>>,
}

impl EndpointSlices {
    /// Discovery of the pods behind `target`. Nothing is asked until a balancer is built with it.
    ///
    /// The API server and the credentials come from the kubeconfig (`KUBECONFIG`, or `~/.kube/config`), or else from
    /// the pod's service account. They are read when they are first needed; if they can't be used, discovery yields an
    /// error and tries again. A token in a file is read again each minute. If `target` has no namespace, that of the
    /// kubeconfig's context is used, or else the pod's own.
    ///
    /// An **exec plugin** runs without a terminal, one at a time, and must print JSON. It is killed, with all processes
    /// that it has started, after 8 s or as soon as nobody waits for it; its standard error is in the error. It runs
    /// again a minute before its credentials expire, and when the API server rejects them. (A legacy `auth-provider`
    /// with a command is left to kube, which waits for it without a limit.)
    ///
    /// A **proxy** is used if the kubeconfig names one in `proxy-url`, or else if `HTTPS_PROXY` (`https_proxy`) does.
    /// `HTTPS_PROXY` doesn't apply to an API server on this machine, at its in-cluster address, without TLS, or named
    /// by `NO_PROXY` (`no_proxy`). `NO_PROXY` is read as in Go: `*`, a domain including its subdomains, `.a.domain` for
    /// its subdomains only, an address or a network; all but networks may have a port. Malformed entries are ignored.
    /// The schemes are `http`, `https` and `socks5`; `HTTPS_PROXY` without one means `http`. The application must
    /// enable kube's feature `http-proxy` or `socks5`; if it doesn't, the error says so.
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

    /// Uses this kubeconfig, instead of looking for one or for the pod's service account.
    pub fn kubeconfig(self, path: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.access = Access::Kubeconfig(path.into()))
    }

    /// Uses this client, for programs that already have one, or that need special proxies or credentials.
    ///
    /// A kube client has a task in the runtime that it was made in, and stops working when that runtime ends.
    ///
    /// The client's type is kube's own, so kube must have the version that feature `kube` uses, 5. No other part of
    /// this crate's interface has a dependency's type.
    pub fn client(self, client: kube::Client) -> Self {
        self.set(|settings| settings.access = Access::Client(client))
    }

    /// Whether to use IPv6 addresses if there are both.
    pub fn prefer_ipv6(self, prefer: bool) -> Self {
        self.set(|settings| settings.prefer_ipv6 = prefer)
    }

    /// Whether loopback addresses may be pods. Off by default: in a cluster they can't be; on a developer's machine
    /// they can.
    pub fn allow_loopback(self, allow: bool) -> Self {
        self.set(|settings| settings.allow_loopback = allow)
    }
}

/// A watcher by `settings` that asks `api`.
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

    fn accepted(&mut self, endpoint: &Endpoint) {
        self.shared.accepted(endpoint);
    }

    fn age(&self) -> Duration {
        self.shared.age()
    }

    fn report(&self) -> DiscoveryReport {
        let mut report = self.shared.report();
        report.name = self.name().map(Into::into);
        report
    }

    /// The target's service, and its namespace if it has one.
    fn name(&self) -> Option<String> {
        let target = &self.settings.target;
        let service = target.service();
        Some(match target.namespace() {
            Some(namespace) => format!("{service}.{namespace}"),
            None => service.to_owned(),
        })
    }
}
