//! A headless Service's name, resolved to its pods and kept fresh.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `dns/target.rs`, `dns/name.rs` | what to look up, as text, and the full names that a short one may stand for |
//! | `dns/settings.rs` | what the user has chosen |
//! | `dns/lookup.rs` | what can be asked and what can come back, whoever is asked |
//! | `dns/client.rs` | DNS messages; it alone names hickory, and lists its bounds |
//! | `dns/udp.rs`, `dns/tcp.rs`, `dns/edns.rs`, `dns/server.rs` | one name server, and the ways to an answer of it |
//! | `dns/system_conf.rs`, `dns/resolver.rs` | the name servers that there are; from one to the next |
//! | `dns/trouble.rs`, `dns/trust.rs` | which of them has failed lately; whose word that there is nothing is believed |
//! | `dns/local.rs` | the names that nobody is asked for: localhost, and those of the hosts file |
//! | `dns/addresses.rs` | the addresses of a name |
//! | `dns/srv_records.rs`, `dns/services.rs`, `dns/targets.rs` | SRV records, and where their targets' addresses come from |
//! | `dns/pod_names.rs` | pods' own names, each asked for its addresses |
//! | `dns/look.rs` | one look: what is looked for, the endpoints that come of it |
//! | `dns/walk.rs` | the way through the search list |
//! | `dns/candidates.rs` | the name that has been found, and whether it is still the right one |
//! | `dns/families.rs` | which address family's endpoints are used |
//! | `dns/question.rs` | one look, repeated as its schedule says |
//! | `dns/single_address.rs` | whether one address is a Service's virtual IP |
//! | `dns/questions.rs` | the questions that a name takes, and what is known of it by all of them |
//! | `dns/run.rs` | all of it together: the set of a name's pods, kept fresh |
//! | `dns/refresher.rs` | the same for a target, which may be an address |
//! | `dns/resolution.rs` | all of it once |
//! | `dns/fuzzing.rs` | bytes instead of name servers, for the fuzz targets alone |
//!
//! Nothing waits for a request: the questions are asked from the balancer's background task, whether requests come or not.

mod addresses;
mod candidates;
mod client;
mod edns;
mod families;
#[cfg(fuzzing)]
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

/// A shorter time between questions would be a hot loop; one of more than a day, a freeze.
const SHORTEST: Duration = Duration::from_millis(10);

/// Discovery by DNS: the pods behind a headless Service's name.
///
/// The [`Target`] says what is asked: A and AAAA records for a name with a port, SRV records for `_port._protocol.name`.
///
/// | setting | default |
/// | --- | --- |
/// | [`max_refresh`](Self::max_refresh) | 5 s: ask again after the records' TTL, but no later than this |
/// | [`min_refresh`](Self::min_refresh) | 1 s: never ask more often than this |
/// | [`on_empty`](Self::on_empty) | [`OnEmpty::Confirm`] |
/// | [`prefer_ipv6`](Self::prefer_ipv6) | no: of a dual-stack pod's two addresses the IPv4 one is used |
/// | [`allow_loopback`](Self::allow_loopback) | no |
/// | [`name_servers`](Self::name_servers) | those of the target, or else of resolv.conf |
/// | [`resolv_conf`](Self::resolv_conf) | `/etc/resolv.conf` |
/// | [`hosts_file`](Self::hosts_file) | no: /etc/hosts isn't read |
///
/// # Names
///
/// A short name is tried with the domains of resolv.conf's search list, as resolv.conf(5) says, moving on only where DNS
/// says that there is nothing: any failure on the way ends the try, which begins anew after a moment. (NXDOMAIN to the
/// question for A records is of the name, whatever the type: then trouble with AAAA is none.) The name that has pods is
/// kept: a refresh asks for that one only. While it isn't the first, those before it are looked at every 40 s, or every 10 s
/// where only a stand-in for a failing name server says that they have nothing: as soon as one of them has pods, that one is
/// kept. When the name has gone, and that is confirmed, the search begins again. resolv.conf is read anew whenever something
/// is asked.
///
/// `localhost`, and every name that ends in `.localhost`, is this machine: 127.0.0.1 and ::1, without asking anybody
/// (RFC 6761 §6.3).
///
/// # Name servers
///
/// A question goes to the first name server, and to the next one where that fails or is silent; within 4 s there is an
/// answer or an error. A server that has failed is asked last for a while, 5 s at first and a minute at most.
///
/// Records are believed whoever sends them. That there is nothing is believed of the first server in the list that has ever
/// named pods; before any has, of the first one; and of all together. So a public name server in the second line of
/// resolv.conf, which knows nothing of a cluster, empties no set while the first one has trouble: the last addresses stay.
/// A first server that has never sent anything doesn't count, at once if its port is closed or there is no way there, and
/// after 4 s if it is silent: until anybody has named pods the others decide which name of the search list there is.
///
/// What doesn't fit into a packet of 1,232 bytes, or arrives cut, is asked for over TCP. A server that doesn't take EDNS is
/// asked without it for ten minutes, and then with it again. Of resolv.conf's options `ndots`, `timeout`, `attempts` and
/// `use-vc` count, with the C library's limits; `timeout` and `attempts` only shorten the 4 s. They count for
/// [`name_servers`](Self::name_servers), too. Of its name servers the first three count.
///
/// # Two address families
///
/// A pod counts once: the preferred family's endpoints are used, the other one's where there are none. Where all endpoints
/// of the family in use refuse connections, the other one's take their place, if there are any; as soon as those refuse, or
/// the preferred family has only endpoints that are new, it is the other way round again. If both refuse, they take turns:
/// after 1 s, 2 s … 30 s.
///
/// # A virtual IP
///
/// A Service without `clusterIP: None` works, as one endpoint. SRV records tell such a Service from a headless one with one
/// pod, and it is warned about once. A and AAAA records don't tell them apart: where a Service has had the same one address
/// for a minute, an `info` says once that it may be either. Nothing is said of a pod's own name (`web-0.web.default`).
///
/// # Pods' own names
///
/// A and AAAA records of a Service don't tell its pods' hostnames. Where requests ask for a pod by its name
/// ([`Balance::pod`](crate::Balance::pod), [`Route::pod`](crate::Route::pod), [`Route::prefer`](crate::Route::prefer)),
/// `web-0.<service>` is asked for as well, whenever the Service is, and the endpoint of the Service's set that has this address
/// gets the [hostname](Endpoint::hostname). An address that isn't in the Service's set makes no endpoint, and a name that doesn't exist is a pod that is away. The same is
/// done where SRV records don't tell the hostnames of a large Service.
///
/// - **The price** is one query more for each name and address family that the Service has, at each look. At most 64 names
///   are asked for; one that no request has asked for in five minutes is forgotten, and so is its pod's hostname. Where there are
///   more, names that were never a pod's give way to new ones, which wait for that.
/// - **A name that can't be looked up** (SERVFAIL, no answer within a second) keeps its endpoint for 30 s, as long as each look
///   at the Service finds that address. The first look after that time forgets the name, until it can be looked up again.
/// - **All names together have a second** in each look, 16 at a time. Those that it didn't suffice for come first in the next one.
/// - **What remains**: name and address are of one look, but not of one record. If a pod goes and another pod of the Service gets
///   its very address, a request for the first may reach the second: for the TTL of a cached record plus the time between two
///   looks; where the name can't be looked up meanwhile, for 30 s and a look more; and while the Service itself can't be looked
///   up, for that long, as its last answer stays. Cluster networks hand addresses out anew as late as they can. SRV records
///   ([`srv`](Self::srv)) tell both in one answer, and EndpointSlices the pod's UID, but they too may be older than what has
///   happened. What makes sure of it is the pod itself, or its certificate: it can compare its own name with the one in `Host`
///   (`http::Client::pod` says how to send that), and `Tls::pod_names` makes the client ask for it in the handshake.
///
/// # Price
///
/// Freshness costs two queries (A and AAAA; one for SRV) every 5 s for each process; 1,000 processes ask 400 queries a
/// second. Where a lookup fails, for whatever reason, its last addresses stay, for as long as it takes, and it is asked
/// again after 1 s, 1.6 s, 2.6 s … 30 s. (They go once the question for the other family has confirmed that the name doesn't
/// exist.)
///
/// **Clones share**: balancers built with clones of one `Dns` cost what one costs, and all see the same. (In each runtime:
/// clones in two of them cost twice as much, and one goes on when the other one's runtime ends. A setting changed on a clone
/// makes it one of its own.) A clone begins with the last set, if the
/// last look is no older than [`max_refresh`](Self::max_refresh), as it is while any clone is in use. If it is older, the
/// clone looks at once and begins with the answer; with the old set, and its [age](Discovery::age), only if that look fails
/// or takes more than 3 s.
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
    /// The same as [`new`](Self::new) with a target of that form. Pods that have hostnames of their own, as those of a
    /// StatefulSet do, come with them ([`Endpoint::hostname`]), as long as DNS sends the addresses along with the names:
    /// CoreDNS does, up to some hundreds of pods, which is what one DNS message holds. Above that, and from servers that
    /// don't, the addresses come from the Service's own name and the hostnames aren't known. That is the name without
    /// `_port._protocol` of the records themselves, at the end of all aliases, and only where all targets are below it and it
    /// has an address for each (of more than 64 targets, for half of them). Otherwise each target is asked for, up to 64 of them;
    /// one that doesn't exist is left out, and one that can't be asked for keeps its last addresses for a minute. All of it takes
    /// 4 s at most: what has come by then counts.
    /// Records with port 0 are left out, too.
    ///
    /// An answer that is truncated over TCP, too, is told only by the Service's own addresses. Without them it is an error
    /// ([`LookupError::is_truncated`]): the last endpoints stay, and where there are none yet, a part of the pods is not taken
    /// for all of them. It is the same for A and AAAA records.
    ///
    /// Of records with several priorities those with the lowest count (RFC 2782), and where their weights differ, so do the
    /// endpoints' ([`Endpoint::weight`]). In a Kubernetes cluster they never do: CoreDNS gives all pods of a Service the same.
    /// With the addresses from the Service's own name there are no weights.
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

    /// The longest time between two looks while all is well, however long the records' TTL.
    ///
    /// Raise it to save queries. A TTL shorter than this is honoured. From 10 ms to a day: what is outside, zero too, is
    /// taken for the nearer of both.
    pub fn max_refresh(self, max: Duration) -> Self {
        self.set(|settings| {
            settings.pace.max = max.clamp(SHORTEST, DAY);
            settings.pace.min = settings.pace.min.min(settings.pace.max);
        })
    }

    /// The shortest time between two looks, however short the TTL and however urgent the need.
    ///
    /// From 10 ms to a day: what is outside, zero too, is taken for the nearer of both.
    pub fn min_refresh(self, min: Duration) -> Self {
        self.set(|settings| {
            settings.pace.min = min.clamp(SHORTEST, DAY);
            settings.pace.max = settings.pace.max.max(settings.pace.min);
        })
    }

    /// Looks every `interval`, whatever the TTL: both bounds at once, with the same limits.
    pub fn refresh_interval(self, interval: Duration) -> Self {
        self.max_refresh(interval).min_refresh(interval)
    }

    /// What to believe when DNS says that there is nothing.
    pub fn on_empty(self, on_empty: OnEmpty) -> Self {
        self.set(|settings| settings.pace.on_empty = on_empty)
    }

    /// Whether to use the IPv6 addresses where there are both.
    pub fn prefer_ipv6(self, prefer: bool) -> Self {
        self.set(|settings| settings.prefer_ipv6 = prefer)
    }

    /// Whether loopback addresses may be pods. They can't in a cluster; on a developer's machine they can.
    pub fn allow_loopback(self, allow: bool) -> Self {
        self.set(|settings| settings.allow_loopback = allow)
    }

    /// The name servers to ask, instead of those of the target or of resolv.conf. With none, it is those again.
    pub fn name_servers(self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.set(|settings| settings.name_servers = servers.into_iter().collect())
    }

    /// The file that names the search list and the options, and the name servers where none are given.
    pub fn resolv_conf(self, path: impl Into<PathBuf>) -> Self {
        self.set(|settings| settings.resolv_conf = path.into())
    }

    /// Whether names are looked for in /etc/hosts first, as they are written. For work on a machine outside the cluster; off by
    /// default.
    ///
    /// The addresses that stand there may be loopback addresses, whatever [`allow_loopback`](Self::allow_loopback) says, and
    /// no name server is asked. A name that isn't there is looked for as ever. The file is read anew at each look.
    /// (`localhost` needs no setting.)
    pub fn hosts_file(self, read: bool) -> Self {
        self.set(|settings| settings.hosts_file = read.then(|| "/etc/hosts".into()))
    }

    /// Looks once, now, apart from every balancer, and tells what there is and how it was found. For looking at.
    ///
    /// # Errors
    ///
    /// If DNS can't be asked, doesn't answer within 4 s for each name of the search list, or says that there is nothing.
    /// Dropping the future ends the look.
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

    /// The target's, without its port and name server.
    fn name(&self) -> Option<String> {
        Some(match self.settings.target.host() {
            target::Host::Name(name, _) | target::Host::Service(name) => {
                name.to_string().trim_end_matches('.').to_owned()
            }
            target::Host::Address(address) => address.to_string(),
        })
    }
}
