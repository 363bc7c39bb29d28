//! One pod, as discovery names it.

mod counted;

pub(crate) use counted::Counted;

use std::{
    borrow::Cow,
    fmt,
    net::{AddrParseError, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// One pod behind the service: its address, and what discovery knows about it.
///
/// Two endpoints are the same pod if their addresses are equal, unless both have hostnames, pod names or pod UIDs that
/// differ: then another pod has got the address. A pod that stays in the set from one answer to the next keeps its
/// service, connections and counters, even if more becomes known about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: SocketAddr,
    hostname: Option<Arc<str>>,
    /// The hostname holds only as long as each answer repeats it.
    is_leased: bool,
    /// What DNS seldom knows; shared, because endpoints are cloned often.
    details: Option<Arc<Details>>,
}

/// What may be known besides the address and the hostname.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Details {
    pod_name: Option<Box<str>>,
    pod_uid: Option<Box<str>>,
    node: Option<Box<str>>,
    zone: Option<Box<str>>,
    zone_hints: Vec<Box<str>>,
    node_hints: Vec<Box<str>>,
    is_terminating: bool,
    /// None means 1.
    weight: Option<u32>,
}

impl Endpoint {
    /// The endpoint at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            hostname: None,
            is_leased: false,
            details: None,
        }
    }

    /// Sets the hostname of the pod.
    pub fn with_hostname(mut self, hostname: impl Into<Arc<str>>) -> Self {
        self.hostname = Some(hostname.into());
        self.is_leased = false;
        self
    }

    /// Sets a hostname that the next answer must repeat, or else it is forgotten.
    #[cfg(any(feature = "dns", test))]
    pub(crate) fn lease_hostname(&mut self, hostname: Arc<str>) {
        self.hostname = Some(hostname);
        self.is_leased = true;
    }

    /// Sets the name of the pod.
    pub fn with_pod_name(self, name: impl Into<Box<str>>) -> Self {
        self.with(|details| details.pod_name = Some(name.into()))
    }

    /// Sets the UID of the pod.
    pub fn with_pod_uid(self, uid: impl Into<Box<str>>) -> Self {
        self.with(|details| details.pod_uid = Some(uid.into()))
    }

    /// Sets the name of the node that the pod runs on.
    pub fn with_node(self, node: impl Into<Box<str>>) -> Self {
        self.with(|details| details.node = Some(node.into()))
    }

    /// Sets the zone of the pod's node.
    pub fn with_zone(self, zone: impl Into<Box<str>>) -> Self {
        self.with(|details| details.zone = Some(zone.into()))
    }

    /// Sets the zones whose clients the pod is meant to serve.
    pub fn with_zone_hints<Z: Into<Box<str>>>(self, zones: impl IntoIterator<Item = Z>) -> Self {
        let zones = zones.into_iter().map(Into::into).collect();
        self.with(|details| details.zone_hints = zones)
    }

    /// Sets the nodes whose clients the pod is meant to serve.
    pub fn with_node_hints<N: Into<Box<str>>>(self, nodes: impl IntoIterator<Item = N>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.with(|details| details.node_hints = nodes)
    }

    /// Sets whether the pod is terminating.
    pub fn with_terminating(self, is_terminating: bool) -> Self {
        self.with(|details| details.is_terminating = is_terminating)
    }

    /// Sets the [weight](Self::weight).
    pub fn with_weight(self, weight: u32) -> Self {
        if weight == self.weight() {
            return self;
        }
        self.with(|details| details.weight = (weight != 1).then_some(weight))
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(Arc::make_mut(self.details.get_or_insert_default()));
        self
    }

    /// The address and port that the pod listens at.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pod's own hostname, if it has one, as a StatefulSet's pods do: `web-0`.
    ///
    /// SRV records carry it ([`Dns::srv`](crate::Dns::srv)). A and AAAA records don't, but pods that requests ask for
    /// by name are [looked up](crate::Dns#pods-own-names).
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// The name of the pod, if the source knows it, as EndpointSlices do.
    pub fn pod_name(&self) -> Option<&str> {
        self.details()?.pod_name.as_deref()
    }

    /// The name that a recreated pod keeps, if it has one: its hostname, else its pod name, else its address with the
    /// port.
    ///
    /// A StatefulSet recreates a pod under the same hostname and name, at another address. Other pods get a new name
    /// each time. [`Subset`](crate::Subset) and [`ConsistentHash`](crate::ConsistentHash) choose pods by this name.
    ///
    /// A hostname that [`Dns`](crate::Dns#pods-own-names) looked up because requests ask for it doesn't count: it is
    /// known only while they ask, and other clients don't know it.
    pub fn stable_name(&self) -> Cow<'_, str> {
        let hostname = self.hostname().filter(|_| !self.is_leased);
        match hostname.or(self.pod_name()) {
            Some(name) => name.into(),
            None => self.address.to_string().into(),
        }
    }

    /// The UID of the pod, if the source knows it. A recreated pod may have its predecessor's name, but never its UID.
    pub fn pod_uid(&self) -> Option<&str> {
        self.details()?.pod_uid.as_deref()
    }

    /// The node that the pod runs on, if the source knows it.
    pub fn node(&self) -> Option<&str> {
        self.details()?.node.as_deref()
    }

    /// The zone of the pod's node (`topology.kubernetes.io/zone`), if the source knows it.
    pub fn zone(&self) -> Option<&str> {
        self.details()?.zone.as_deref()
    }

    /// The zones whose clients the pod is meant to serve, by the control plane's hints (`hints.forZones`).
    pub fn zone_hints(&self) -> impl Iterator<Item = &str> {
        let hints = self.details().map(|details| &*details.zone_hints);
        hints.unwrap_or_default().iter().map(|zone| &**zone)
    }

    /// The nodes whose clients the pod is meant to serve, by the control plane's hints (`hints.forNodes`).
    pub fn node_hints(&self) -> impl Iterator<Item = &str> {
        let hints = self.details().map(|details| &*details.node_hints);
        hints.unwrap_or_default().iter().map(|node| &**node)
    }

    /// Whether the pod is known to be terminating.
    pub fn is_terminating(&self) -> bool {
        self.details().is_some_and(|details| details.is_terminating)
    }

    /// The relative weight, 1 by default: an endpoint with 3 gets three times as much as one with 1.
    ///
    /// Only the proportion counts; equal weights have no effect. An endpoint with weight zero gets requests only if no
    /// endpoint with a weight accepts any. The policy decides what is proportional to the weight: with
    /// [`RoundRobin`](crate::RoundRobin) and [`Random`](crate::Random) the requests, with
    /// [`ConsistentHash`](crate::ConsistentHash) the keys, with the others the requests in flight.
    ///
    /// SRV records carry weights ([`Dns::srv`](crate::Dns::srv)), and any [`Discovery`](crate::Discovery) may set them.
    /// The last answer's weight counts.
    pub fn weight(&self) -> u32 {
        self.details().and_then(|it| it.weight).unwrap_or(1)
    }

    fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }

    pub(crate) fn shared_hostname(&self) -> Option<Arc<str>> {
        self.hostname.clone()
    }

    pub(crate) fn forget_hostname(&mut self) {
        self.hostname = None;
    }

    /// The key that sets are sorted by; no two endpoints of a set have the same.
    pub(crate) fn identity(&self) -> SocketAddr {
        self.address
    }

    /// The hostname, else the pod name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.hostname().or(self.pod_name())
    }

    /// Whether `name` is the hostname or the pod name.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.hostname() == Some(name) || self.pod_name() == Some(name)
    }

    /// Whether both may be the same pod. Something that only one side knows is no difference.
    pub(crate) fn is_same_pod(&self, other: &Self) -> bool {
        fn agree(ours: Option<&str>, theirs: Option<&str>) -> bool {
            ours.is_none() || theirs.is_none() || ours == theirs
        }
        self.address == other.address
            && agree(self.hostname(), other.hostname())
            && agree(self.pod_name(), other.pod_name())
            && agree(self.pod_uid(), other.pod_uid())
    }
}

impl Endpoint {
    /// Fills in what earlier answers told about the same pod. Its names, node and zone stay true even if the next
    /// answer lacks them, as DNS answers do. Hints, the weight and whether it is terminating are the last answer's.
    pub(crate) fn recall(&mut self, older: &Self) {
        if older.hostname.is_some() && !older.is_leased {
            self.hostname.clone_from(&older.hostname);
            self.is_leased = false;
        }
        let Some(older) = &older.details else { return };
        if self.details.is_none() && older.is_lasting() {
            self.details = Some(older.clone());
            return;
        }
        let details = Arc::make_mut(self.details.get_or_insert_default());
        let recall = |name: &mut Option<Box<str>>, older: &Option<Box<str>>| {
            *name = name.take().or_else(|| older.clone());
        };
        recall(&mut details.pod_name, &older.pod_name);
        recall(&mut details.pod_uid, &older.pod_uid);
        recall(&mut details.node, &older.node);
        recall(&mut details.zone, &older.zone);
    }
}

impl Details {
    /// Whether all of it holds for as long as the pod lives.
    fn is_lasting(&self) -> bool {
        self.zone_hints.is_empty()
            && self.node_hints.is_empty()
            && !self.is_terminating
            && self.weight.is_none()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

/// An address: `10.244.1.7:80`.
impl FromStr for Endpoint {
    type Err = AddrParseError;

    fn from_str(address: &str) -> Result<Self, AddrParseError> {
        address.parse().map(Self::new)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}
