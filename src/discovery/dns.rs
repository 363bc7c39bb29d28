//! Discovery by DNS: resolves a headless Service's name to its pods, and keeps the set fresh.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `dns/target.rs`, `dns/name.rs` | parsing what to look up; the full names that a short one may stand for |
//! | `dns/settings.rs` | the user's settings |
//! | `dns/lookup.rs` | questions and answers, and the trait behind which a resolver stands |
//! | `dns/client.rs` | DNS messages; the only file that names hickory, with a list of hickory's limits |
//! | `dns/udp.rs`, `dns/tcp.rs`, `dns/edns.rs`, `dns/server.rs` | one name server, over UDP and TCP, with and without EDNS |
//! | `dns/system_conf.rs`, `dns/resolver.rs` | resolv.conf; a question put to one name server after another |
//! | `dns/trouble.rs`, `dns/trust.rs` | which name servers failed lately; whose negative answer is believed |
//! | `dns/local.rs` | names that need no name server: localhost, and those in the hosts file |
//! | `dns/addresses.rs` | the addresses of a name |
//! | `dns/srv_records.rs`, `dns/services.rs`, `dns/targets.rs` | SRV records, and where their targets' addresses come from |
//! | `dns/pod_names.rs` | pods' own names, each asked for its addresses |
//! | `dns/look.rs` | one look at a name for one kind of record, and the endpoints that it finds |
//! | `dns/walk.rs` | the way through the search list |
//! | `dns/candidates.rs` | which full name is in use, and whether an earlier one should be |
//! | `dns/question.rs` | one kind of look, repeated by its schedule |
//! | `dns/single_address.rs` | whether one address is a Service's virtual IP |
//! | `dns/questions.rs` | all questions about a name, and what they say together |
//! | `dns/run.rs` | everything together: the set of a name's pods, kept fresh |
//! | `dns/refresher.rs` | `run.rs` for a target, which may also be a plain address |
//! | `dns/resolution.rs` | a single look, for `Dns::resolve` |
//! | `dns/fuzzing.rs` | bytes in place of name servers, for the fuzz targets only |
//!
//! No request waits for a lookup: the balancer's background task asks, whether requests come or not.

mod addresses;
mod candidates;
mod client;
mod edns;
#[cfg(tower_headless_fuzzing)]
pub(crate) mod fuzzing;
mod local;
mod look;
mod lookup;
mod name;
mod pod_names;
mod question;
mod questions;
mod refresher;
mod resolution;
mod resolver;
mod run;
mod server;
mod services;
mod settings;
mod single_address;
mod srv_records;
#[cfg(test)]
pub(crate) mod suite;
mod system_conf;
mod target;
mod targets;
mod tcp;
mod trouble;
mod trust;
mod udp;
mod walk;

pub use lookup::{LookupError, Transport};
pub use resolution::Resolution;
pub use target::{ParseTargetError, Target};

use std::{
    net::SocketAddr,
    path::PathBuf,
    task::{Context, Poll},
    time::Duration,
};

use self::{refresher::Refresher, resolver::Resolver, settings::Settings};
use super::{Discovery, DiscoveryReport, schedule::OnEmpty, shared::Shared};
use crate::{endpoint::Endpoint, error::BoxError, logs, times::DAY};

/// Limits of both refresh settings: against a hot loop, and against a set that never changes.
const SHORTEST: Duration = Duration::from_millis(10);

/// Discovery by DNS: the pods behind a headless Service's name.
///
/// The [`Target`] decides what is asked: A and AAAA records for a name with a port, SRV records for
/// `_port._protocol.name`.
///
/// | setting | default |
/// | --- | --- |
/// | [`max_refresh`](Self::max_refresh) | 5 s: ask again after the records' TTL, but no later than this |
/// | [`min_refresh`](Self::min_refresh) | 1 s: ask no more often than this, except for new [pods' names](Self#pods-own-names) |
/// | [`on_empty`](Self::on_empty) | [`OnEmpty::Confirm`] |
/// | [`prefer_ipv6`](Self::prefer_ipv6) | no: of a dual-stack pod's two addresses, the IPv4 one is used |
/// | [`allow_loopback`](Self::allow_loopback) | no |
/// | [`name_servers`](Self::name_servers) | those of the target, or else of resolv.conf |
/// | [`resolv_conf`](Self::resolv_conf) | `/etc/resolv.conf` |
/// | [`hosts_file`](Self::hosts_file) | no: /etc/hosts isn't read |
///
/// # Names
///
/// A short name is tried with each domain of resolv.conf's search list, as resolv.conf(5) says. The next domain is
/// tried only if DNS says that the name has nothing there. Any failure ends the search, which starts again after a
/// back-off. (NXDOMAIN for the A records means that the name doesn't exist, so a failure of the AAAA question doesn't
/// matter then.)
///
/// The first full name that has pods is kept, and refreshes ask for it only. If it isn't the first in the list, the
/// names before it are tried again every 40 s, or every 10 s if their negative answer came from a stand-in for a
/// failing name server. As soon as one of them has pods, it takes over. When the kept name is confirmed to be gone, the
/// search starts again. resolv.conf is read again before each look.
///
/// `localhost` and names ending in `.localhost` mean this machine, 127.0.0.1 and ::1; no name server is asked (RFC 6761
/// §6.3).
///
/// # Name servers
///
/// A question goes to the first name server, and to the next one if that fails or doesn't answer. Within 4 s there is
/// an answer or an error. A server that has failed is asked last for a while: 5 s at first, a minute at most.
///
/// Records are believed from any server. A negative answer (no such name, no records) is believed only from the first
/// server in the list that has ever returned pods; if none has, from the first server; or if all servers agree. So a
/// public name server in the second line of resolv.conf, which knows nothing about the cluster, can't empty the set
/// while the first one fails: the last addresses stay.
///
/// A first server that has never sent anything is left out: at once if its port is closed or there is no route to it,
/// after 4 s if it is silent. Until some server has returned pods, the others decide which name of the search list
/// exists.
///
/// An answer that is truncated, or larger than a packet of 1,232 bytes, is asked for again over TCP. A server that
/// doesn't take EDNS is asked without it for ten minutes, then with it again. Four of resolv.conf's options apply, with
/// the C library's limits: `ndots`, `timeout`, `attempts` and `use-vc`. `timeout` and `attempts` can only shorten the 4
/// s. The options also apply to [`name_servers`](Self::name_servers). Only the first three name servers of resolv.conf
/// are used.
///
/// # Two address families
///
/// A pod counts once: the endpoints of the preferred family are used, or of the other family if the preferred one has
/// none. If all endpoints of the family in use refuse connections, the other family's take their place, if there are
/// any. The families switch back as soon as those refuse, too, or all of the preferred family's endpoints are new. If
/// both families refuse, they take turns, after 1 s, 2 s … 30 s.
///
/// # A virtual IP
///
/// A Service without `clusterIP: None` works, as one endpoint: its virtual IP. SRV records distinguish it from a
/// headless Service with one pod, so it is logged once at `warn`. A and AAAA records don't: if a Service has had the
/// same single address for a minute, it is logged once at `info` that it may be either. A pod's own name
/// (`web-0.web.default`) isn't logged.
///
/// # Pods' own names
///
/// A Service's A and AAAA records don't carry its pods' hostnames. If requests ask for a pod by name
/// ([`Balance::pod`](crate::Balance::pod), [`Route::pod`](crate::Route::pod), [`Route::prefer`](crate::Route::prefer)),
/// each look at the Service also asks for `web-0.<service>`. The endpoint of the set with that address gets the
/// [hostname](Endpoint::hostname). An address that isn't in the set adds no endpoint, and a name that doesn't exist
/// means that the pod is away. The same is done if the SRV records of a large Service don't carry hostnames.
///
/// - **A new name** is looked up at once, along with the Service. The first four may do so before
///   [`min_refresh`](Self::min_refresh) is over, and one more each `min_refresh` after that. Others wait for the next look.
/// - **The price** is one more query per look, for each name and each address family that the Service has. At most 64
///   names are asked for. A name that no request has asked for in five minutes is forgotten, along with its pod's
///   hostname. If there are more than 64, new names wait, and replace names that never belonged to a pod.
/// - **A name whose lookup fails** (SERVFAIL, no answer within a second) keeps its endpoint for 30 s, as long as each
///   look at the Service finds that address. The first look after that drops the name, until its lookup succeeds again.
/// - **All names together get one second** of each look, 16 at a time. Names that didn't get their turn come first in
///   the next look.
/// - **The remaining risk**: name and address come from one look, but not from one record. If a pod goes and another
///   pod of the Service gets its address, a request for the first may reach the second. That lasts for the TTL of a
///   cached record plus the time between two looks; if the name's lookup fails meanwhile, for 30 s and a look more; if
///   the Service's own lookup fails, for as long as it fails, because its last answer stays. Cluster networks reuse
///   addresses as late as they can. SRV records ([`srv`](Self::srv)) carry name and address in one answer, and
///   EndpointSlices the pod's UID, but both may be out of date too. Only the pod itself can make sure: it can compare
///   its name with the one in `Host` (`http::Client::pod` says how to send that), or prove it by its certificate, which
///   `Tls::pod_names` makes the client check in the handshake.
///
/// # Price
///
/// Each process asks two queries (A and AAAA; one for SRV) every 5 s, so 1,000 processes ask 400 queries a second. If a
/// lookup fails, for any reason, its last addresses stay for as long as it fails, and it is tried again after 1 s, 1.6
/// s, 2.6 s … 30 s. (Exception: they go if the question for the other family confirms that the name doesn't exist.)
///
/// **Clones share**: balancers built with clones of one `Dns` share its queries and see the same set. The sharing is
/// per runtime: clones in two runtimes cost twice as much, and either goes on when the other's runtime ends. Changing a
/// setting on a clone makes it independent. While any clone is in use, a new one begins with the last set. If the last
/// look is older than [`max_refresh`](Self::max_refresh), the clone looks at once and begins with the answer. It begins
/// with the old set, and its [age](Discovery::age), only if that look fails or takes more than 3 s.
#[derive(Clone)]
pub struct Dns {
    settings: Settings,
    shared: Shared<Refresher<Resolver>>,
}

impl Dns {
    /// Discovery of the pods behind `target`. Nothing is asked until a balancer is built with it.
    pub fn new(target: Target) -> Self {
        Self::with(Settings::new(target))
    }

    /// Discovery by the SRV records of `service`, such as `_http._tcp.nginx-headless.default`: the port named `http` of the
    /// Service `nginx-headless`.
    ///
    /// It is [`new`](Self::new) with a target of that form. Pods that have their own hostnames, as a StatefulSet's do,
    /// get them ([`Endpoint::hostname`]) if DNS sends the addresses along with the SRV records. CoreDNS does, up to
    /// some hundreds of pods, which is what one DNS message holds.
    ///
    /// Otherwise the addresses come from the Service's own name, and hostnames aren't known. That name is the one that
    /// has the SRV records, after all aliases, without `_port._protocol`. It is used only if all targets are below it
    /// and it has an address for each pod (with more than 64 targets, for half of them). If not, each target is asked for,
    /// up to 64 of them: a target that doesn't exist is left out, and one whose lookup fails keeps its last addresses
    /// for a minute. All of this takes 4 s at most; the addresses known by then are used. Records with port 0 are left
    /// out.
    ///
    /// If the answer is truncated even over TCP, or TCP fails, the Service's own addresses are used. Without those, it is
    /// an error ([`LookupError::is_truncated`]): the last endpoints stay, and a part of the pods is never taken for all
    /// of them. The same error applies to A and AAAA records that are truncated even over TCP.
    ///
    /// If records have several priorities, only those with the lowest value are used (RFC 2782); those with the next
    /// one only if no target of the lowest exists. A dual-stack pod that has a target for each of its addresses counts
    /// once. Different weights become the endpoints' weights ([`Endpoint::weight`]). In a Kubernetes cluster they never
    /// differ: CoreDNS gives all pods of a Service the same. Addresses from the Service's own name have no weights.
    ///
    /// ```
    /// use tower_headless::Dns;
    ///
    /// let discovery = Dns::srv("_http._tcp.nginx-headless.default")?;
    /// # Ok::<(), tower_headless::ParseTargetError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `service` is not of that form.
    pub fn srv(service: &str) -> Result<Self, ParseTargetError> {
        Target::parse_service(service).map(Self::new)
    }

    fn with(settings: Settings) -> Self {
        let refresher = Refresher::new(settings.clone(), settings.resolver());
        Self {
            settings,
            shared: Shared::new(refresher),
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        Self::with(self.settings)
    }

    /// The longest time between two looks while they succeed, however long the records' TTL.
    ///
    /// Raise it to save queries. A shorter TTL is honoured. Values are clamped to 10 ms … one day.
    pub fn max_refresh(self, max: Duration) -> Self {
        self.set(|settings| {
            settings.pace.max = max.clamp(SHORTEST, DAY);
            settings.pace.min = settings.pace.min.min(settings.pace.max);
        })
    }

    /// The shortest time between two looks, however short the TTL and however urgent the need. Exception: a [pod's
    /// name](Self#pods-own-names) that is new may have an earlier look.
    ///
    /// Values are clamped to 10 ms … one day.
    pub fn min_refresh(self, min: Duration) -> Self {
        self.set(|settings| {
            settings.pace.min = min.clamp(SHORTEST, DAY);
            settings.pace.max = settings.pace.max.max(settings.pace.min);
        })
    }

    /// Looks every `interval`, whatever the TTL. This sets [`min_refresh`](Self::min_refresh) and
    /// [`max_refresh`](Self::max_refresh).
    pub fn refresh_interval(self, interval: Duration) -> Self {
        self.max_refresh(interval).min_refresh(interval)
    }

    /// What to do when DNS says that there are no pods.
    pub fn on_empty(self, on_empty: OnEmpty) -> Self {
        self.set(|settings| settings.pace.on_empty = on_empty)
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

    /// The name servers to ask, instead of those of the target or of resolv.conf. An empty list restores those.
    pub fn name_servers(self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.set(|settings| settings.name_servers = servers.into_iter().collect())
    }

    /// The file with the search list, the options, and the name servers if none are given. `/etc/resolv.conf` by
    /// default.
    pub fn resolv_conf(self, path: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.resolv_conf = path.into())
    }

    /// Whether to look for the name in /etc/hosts first, as it is written. For work on a machine outside the cluster;
    /// off by default.
    ///
    /// If the name is there, no name server is asked, and loopback addresses are allowed, whatever
    /// [`allow_loopback`](Self::allow_loopback) says. If it isn't, DNS is asked as usual. The file is read again at
    /// each look. (`localhost` needs no setting.)
    pub fn hosts_file(self, read: bool) -> Self {
        self.set(|settings| settings.hosts_file = read.then(|| "/etc/hosts".into()))
    }

    /// Looks once, now, independently of any balancer, and returns what was found and how. For diagnosis.
    ///
    /// # Errors
    ///
    /// If DNS can't be asked, doesn't answer within 4 s for each name of the search list, or says that there are no
    /// pods. Dropping the future cancels the look.
    pub async fn resolve(&self) -> Result<Resolution, LookupError> {
        resolution::resolve(&self.settings, &self.settings.resolver()).await
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl Discovery for Dns {
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

    fn wanted(&mut self, pod: &str) -> bool {
        self.shared.wanted(pod)
    }

    fn age(&self) -> Duration {
        self.shared.age()
    }

    fn report(&self) -> DiscoveryReport {
        self.shared.report()
    }

    /// The target's name, without its port and name server.
    fn name(&self) -> Option<String> {
        Some(match self.settings.target.host() {
            target::Host::Name(name, _) | target::Host::Service(name) => {
                name.to_string().trim_end_matches('.').to_owned()
            }
            target::Host::Address(address) => address.to_string(),
        })
    }
}
